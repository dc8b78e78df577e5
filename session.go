package resock

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock/internal/delay"
	"github.com/resock/resock/internal/wire"
)

// session is one open connection. The goroutine of Run reads it and finishes
// it; any goroutine may make it end. Every other goroutine that it starts is
// joined by finish.
type session struct {
	client  *Client
	id      uint64
	wire    wire.Conn
	early   []wire.Message // came during OnOpen, and was not received by it
	heart   heartbeat
	age     *time.Timer
	event   OpenEvent
	started time.Time
	flow    flow // of messages out; it is the outbox's

	alive context.Context // of the hooks for pings and pongs, nil if there are none
	die   context.CancelFunc

	mu       sync.Mutex
	ending   *ending     // why it ends; the first reason stays
	deadline *time.Timer // when it is killed
	finished bool        // no goroutine starts any more
	tasks    sync.WaitGroup
}

// ending is why a session ends: by a closing handshake, or by a failure.
type ending struct {
	closing   bool // a closing handshake, begun by one side
	requested bool // by this side
	code      StatusCode
	reason    string
	clean     bool

	phase Phase // of a failure
	err   error

	grace time.Duration // until the session is killed, or 0
}

// spawn runs f on a goroutine that finish joins. Once the session is finished
// it does nothing.
func (s *session) spawn(f func()) {
	if s.join() {
		go func() {
			defer s.tasks.Done()
			f()
		}()
	}
}

// spawned runs f on the calling goroutine, which finish joins.
func (s *session) spawned(f func()) {
	if s.join() {
		defer s.tasks.Done()
		f()
	}
}

func (s *session) join() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.finished {
		s.tasks.Add(1)
	}
	return !s.finished
}

// end records why the session ends, and reports whether it is the first reason.
func (s *session) end(e ending) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != nil || s.finished {
		return false
	}
	s.ending = &e
	if e.grace > 0 {
		s.deadline = time.AfterFunc(e.grace, s.kill)
	}
	return true
}

// fail ends the session at once.
func (s *session) fail(phase Phase, err error) {
	s.end(ending{phase: phase, err: err, code: unknownPeerCode})
	s.kill()
}

// writeFailed ends the session after a write that failed. A network that takes no
// more bytes may still hold what the server sent, and the close frame that says
// why it left: they are read for a moment. If the connection refuses messages
// because it is being closed, that goes on.
func (s *session) writeFailed(err error) {
	if s.wire.Broken() {
		s.end(ending{phase: PhaseWrite, err: err, code: unknownPeerCode, grace: lingerAfterFailure})
	}
}

// lingerAfterFailure bounds the wait for the last words of a server after a write
// that failed.
const lingerAfterFailure = time.Second

// kill frees everybody who reads from or writes to the connection.
func (s *session) kill() {
	s.client.outbox.detach(s)
	if s.die != nil {
		s.die()
	}
	s.wire.Kill()
	s.client.outbox.lost(s)
}

// shut begins the closing handshake, after what is queued if flush is set. It
// does not wait. Messages are delivered until the server's close frame.
func (s *session) shut(code StatusCode, reason string, flush bool) {
	timeout := s.client.config.closeTimeout
	if !s.end(ending{closing: true, requested: true, code: code, reason: reason, grace: timeout}) {
		return
	}
	s.spawn(func() {
		s.heart.stop()
		if flush {
			s.client.outbox.flush(s)
		}
		s.client.outbox.detach(s)
		s.client.outbox.join() // the close frame is the last one
		s.wire.SendClose(int(code), reason)
	})
}

// write writes one message into the wire. Only the holder of the outbox's token
// may call it, or OnOpen.
func (s *session) write(m *outbound) error {
	return s.wire.Write(&m.Outgoing)
}

// writeAll is write for several messages.
func (s *session) writeAll(all []outbound) error {
	return s.wire.WriteAll(len(all), func(i int) *wire.Outgoing { return &all[i].Outgoing })
}

// beat sends what the application wants as a heartbeat.
func (s *session) beat(typ MessageType, data []byte) {
	if err := checkMessage("WithHeartbeatMessage", typ, data); err != nil {
		s.fail(PhaseHeartbeat, err)
		return
	}
	s.client.outbox.beat(s, typ, data)
}

// Ping implements [wire.Owner].
func (s *session) Ping(payload []byte) (answer bool) {
	hook := s.client.config.dial.OnPingReceived
	return hook == nil || hook(s.alive, append([]byte(nil), payload...))
}

// Pong implements [wire.Owner].
func (s *session) Pong(payload []byte) {
	s.client.outbox.answered(s)
	if hook := s.client.config.dial.OnPongReceived; hook != nil {
		hook(s.alive, append([]byte(nil), payload...))
	}
}

// Stalled implements [wire.Owner].
func (s *session) Stalled() { s.fail(PhaseWrite, errWriteTimeout) }

// Go implements [wire.Owner].
func (s *session) Go(f func()) { s.spawn(f) }

var errWriteTimeout = errors.New("the network took no bytes within the write timeout")

// read delivers messages until the session ends, or delivery is aborted.
func (s *session) read() {
	burst, err := s.early, error(nil)
	for s.early = nil; err == nil && s.deliver(burst); {
		burst, err = s.wire.Next()
	}
}

// yieldAfter is how many messages make a burst after which the subscribers run:
// beside a reader that goes on at once, both would wait for each other at the
// channel, message by message.
const yieldAfter = 16

// deliver hands messages to the handler, or the subscribers. It reports whether
// delivery goes on.
func (s *session) deliver(burst []wire.Message) bool {
	handle, events := s.client.config.handler, &s.client.events
	if handle == nil {
		goesOn := events.messages(s.id, burst)
		if len(burst) >= yieldAfter {
			runtime.Gosched()
		}
		return goesOn
	}
	for _, m := range burst {
		handle(MessageType(m.Type), m.Data)
		if events.aborted() {
			return false
		}
	}
	return true
}

// finish takes the session down after reading ended, and tells how it ended.
func (s *session) finish() ending {
	s.heart.stop()
	if s.age != nil {
		s.age.Stop()
	}
	s.client.outbox.detach(s)
	s.mu.Lock()
	s.finished = true
	known, deadline := s.ending, s.deadline
	s.mu.Unlock()

	s.wire.Close()
	s.kill()
	s.tasks.Wait()
	if deadline != nil {
		deadline.Stop()
	}
	s.client.outbox.join()
	s.wire.Release()
	return s.conclude(known)
}

// conclude tells how the session ended, from the reason that is known, if any, and
// from what ended reading.
func (s *session) conclude(known *ending) (e ending) {
	end := s.wire.End()
	closed, answered := end.(*wire.Closed)
	violation, violated := end.(*wire.Violation)
	switch {
	case known != nil && !(known.phase == PhaseWrite && answered) && !(known.phase == PhaseSetup && violated):
		e = *known
	case violated:
		e = ending{phase: PhaseProtocol, err: readError(end), code: StatusCode(violation.Code)}
	case answered:
		e = ending{closing: true}
	case end != nil:
		e = ending{phase: PhaseRead, err: readError(end), code: unknownPeerCode}
	default: // delivery was aborted
		e = ending{closing: true, requested: true, code: StatusGoingAway}
	}
	if e.closing && answered {
		e.clean = s.wire.CloseSent()
		e.code, e.reason = StatusCode(closed.Code), closed.Reason
	}
	return e
}

// readError is the end of reading as the application sees it.
func readError(err error) error {
	switch e := err.(type) {
	case *wire.Violation:
		return &ProtocolError{StatusCode(e.Code), errors.New(e.Text)}
	case *wire.Closed:
		return &lostError{"closed by the server", websocket.CloseError{Code: StatusCode(e.Code), Reason: e.Reason}}
	case *wire.Lost:
		return &lostError{"connection lost", e.Err}
	}
	return err
}

// discard takes down a session that never opened, since err, and tells how it ended.
func (s *session) discard(err error) ending {
	s.end(ending{phase: PhaseSetup, err: err, code: unknownPeerCode})
	return s.finish()
}

// begin starts what an open session does besides reading.
func (s *session) begin() {
	s.heart.start()
	if age := s.client.config.maxSessionAge; age > 0 {
		age -= delay.Scale(age/10, rand.Float64())
		s.age = time.AfterFunc(age, func() { s.shut(StatusNormalClosure, "", false) })
	}
}
