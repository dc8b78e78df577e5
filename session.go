package resock

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock/internal/delay"
	"github.com/resock/resock/internal/wire"
)

// session is one open connection. The goroutine of Run reads it, the state machine
// finishes it, and any goroutine may end it. finish joins every other goroutine that it
// starts.
type session struct {
	client *Client
	id     uint64
	wire   wire.Conn
	early  []wire.Message // came during OnOpen, and OnOpen did not receive them
	heart  heartbeat
	age    *time.Timer // closes the session at WithMaxSessionAge, or nil
	event  OpenEvent   // until the session is open, Time is when the attempt began
	flow   flow        // of outbound messages; it belongs to the outbox

	life    lifetime                // tells delivery how long it may wait
	endDial context.CancelCauseFunc // ends the context of the application's dialer; nil if it has none
	hooks   *hookContext            // nil if nothing of the application runs on the reading goroutine
	blocked time.Duration           // the client's blockedSum when the session began

	// mu guards how the session ends and whose it is. It is separate from the client's
	// because a session ends while that one is held, and from the outbox's because the
	// wire reports failures under its writer's lock, which is taken after the outbox's.
	mu       sync.Mutex
	reader   reading
	renewal  renewal
	overdue  bool          // the time to end is over
	finished bool          // no goroutine starts any more
	away     whereabouts   // the function of the application that the reader is in
	awayAt   time.Duration // when the reader called it, by the wire's clock
	ending   *ending       // why the session ends; the first reason stays
	deadline *time.Timer   // kills the session; nil until it is ending
	tasks    sync.WaitGroup
}

// hookContext is the context of handlers and hooks on the reading goroutine.
type hookContext struct {
	context.Context
	cancel context.CancelFunc
}

// ending is why a session ends: by a closing handshake, or by a failure.
type ending struct {
	closing   bool // by a closing handshake, which one side began
	requested bool // this side began it
	code      StatusCode
	reason    string
	clean     bool
	half      bool // the server's close frame is not waited for

	phase Phase // of a failure
	err   error

	silence time.Duration // that ended the session, or 0
	at      time.Time     // when it ended, or the silence began; zero if nobody ended it
	grace   time.Duration // until the session is killed; 0 is patience
}

// start starts the wire over a new connection.
func (s *session) start(body io.ReadWriteCloser, network net.Conn, deflate wire.Deflate, endDial context.CancelCauseFunc) {
	config := &s.client.config
	s.endDial = endDial
	s.heart.session = s
	s.heart.pulse = pulse{
		interval: min(config.beatInterval, forever),
		timeout:  min(config.beatTimeout, forever),
		idle:     min(config.idleTimeout, forever),
		messages: config.beatMessage != nil,
	}
	if config.dial.OnPingReceived != nil || config.dial.OnPongReceived != nil || config.handler != nil || len(config.filters) > 0 {
		ctx, cancel := context.WithCancel(context.WithValue(s.client.machine.ctx, readerKey{}, s.client))
		s.hooks = &hookContext{ctx, cancel}
	}
	s.wire.Start(body, network, deflate, &s.client.wire, s)
	s.wire.LimitUnsent()
}

// spawn runs f on a new goroutine, which finish joins. Once the session is finished, it
// does nothing.
func (s *session) spawn(f func()) {
	if s.addTask() {
		go func() {
			defer s.tasks.Done()
			f()
		}()
	}
}

// spawned is spawn for a goroutine that is there already, such as a timer's.
func (s *session) spawned(f func()) {
	if s.addTask() {
		defer s.tasks.Done()
		f()
	}
}

// addTask adds a task for finish to join. It reports false once the session is finished.
func (s *session) addTask() bool {
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
	e.at = time.Now().Add(-e.silence)
	s.ending = &e
	s.deadline = time.AfterFunc(cmp.Or(e.grace, patience), s.expire)
	s.life.reach(stageEnding)
	if !e.closing { // a hook that waits for an answer of this session waits in vain
		s.endHooks()
	}
	return true
}

// fail ends the session by a failure, and kills it.
func (s *session) fail(phase Phase, err error) { s.silent(0, phase, err) }

// silent is fail after the server, or the network, has done nothing for d.
func (s *session) silent(d time.Duration, phase Phase, err error) {
	s.end(ending{phase: phase, err: err, code: unknownPeerCode, silence: d})
	s.kill()
}

// Failed implements [wire.Owner]. A network that takes no more bytes may still hold what
// the server sent, and the close frame that says why it left: reading goes on for a
// moment.
func (s *session) Failed(err error) {
	s.end(ending{phase: PhaseWrite, err: err, code: unknownPeerCode, grace: lingerAfterFailure})
}

// lingerAfterFailure bounds how long a session is still read after a write failed.
const lingerAfterFailure = time.Second

// kill cuts the connection. Whoever reads from it or writes to it returns.
func (s *session) kill() {
	s.client.outbox.detach(s)
	s.endHooks()
	s.life.reach(stageKilled)
	s.wire.Kill()
	if s.endDial != nil {
		s.endDial(context.Canceled)
	}
	s.client.outbox.lost(s)
}

// endHooks cancels the context of handlers and hooks.
func (s *session) endHooks() {
	if s.hooks != nil {
		s.hooks.cancel()
	}
}

// close begins the closing handshake, after what is queued if flush is set. It does not
// wait. Messages are delivered until the server's close frame arrives.
func (s *session) close(code StatusCode, reason string, flush bool) {
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
		s.client.outbox.join(s) // no message may follow the close frame (RFC 6455, section 5.5.1)
		s.wire.SendClose(int(code), reason)
	})
}

// replace ends the session by half a closing handshake: it sends a close frame, as soon as
// the network takes it, and leaves the rest to the server and [wire.Conn.Linger].
func (s *session) replace() {
	began, timeout := s.wire.Now(), s.client.config.closeTimeout
	grace := min(patience, timeout)
	half := ending{closing: true, requested: true, half: true, code: StatusNormalClosure, grace: grace}
	if !s.end(half) && !s.halve(grace) {
		return
	}
	s.spawn(func() {
		s.heart.stop()
		s.client.outbox.detach(s)
		s.wire.SendClose(int(StatusNormalClosure), "") // what is written later is refused
		s.wire.Part(timeout - (s.wire.Now() - began))
		s.kill()
	})
}

// halve makes a closing handshake that this side began half a one, and reports whether it
// did.
func (s *session) halve(grace time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.finished || s.ending == nil || !s.ending.requested || s.ending.half {
		return false
	}
	s.ending.half = true
	s.deadline.Reset(grace)
	return true
}

// release returns what the wire holds. Nobody uses it any more.
func (s *session) release() {
	s.wire.Release()
	if s.wire.Parted() {
		s.client.hooks.Go(s.wire.Linger)
	}
}

// write writes one message into the wire, without flushing. Only OnOpen and the holder
// of the outbox's token may call it.
func (s *session) write(m *outbound) error {
	return s.wire.Write(&m.Outgoing)
}

// writeAll is write for several messages.
func (s *session) writeAll(all []outbound) error {
	return s.wire.WriteAll(len(all), func(i int) *wire.Outgoing { return &all[i].Outgoing })
}

// Ping implements [wire.Owner].
func (s *session) Ping(payload []byte) (answer bool) {
	hook := s.client.config.dial.OnPingReceived
	if hook == nil {
		return true
	}
	s.goAway(inPing)
	defer s.comeBack()
	return hook(s.hooks.Context, bytes.Clone(payload))
}

// Pong implements [wire.Owner].
func (s *session) Pong(payload []byte) {
	s.client.outbox.answered(s)
	if hook := s.client.config.dial.OnPongReceived; hook != nil {
		s.goAway(inPong)
		defer s.comeBack()
		hook(s.hooks.Context, bytes.Clone(payload))
	}
}

// Stalled implements [wire.Owner].
func (s *session) Stalled() {
	timeout := s.client.config.writeTimeout
	s.silent(timeout, PhaseWrite, &timeoutError{fmt.Sprintf("resock: a write took longer than WithWriteTimeout(%v)", timeout)})
}

// Go implements [wire.Owner].
func (s *session) Go(f func()) { s.spawn(f) }

// finish takes the session down after reading has ended, or without its reader, and
// returns how it ended. Each step relies on those before it.
func (s *session) finish() ending {
	// Nothing begins any more: no beat, no message, no task, no other ending.
	s.heart.stop()
	if s.age != nil {
		s.age.Stop()
	}
	s.client.outbox.detach(s)
	s.mu.Lock()
	s.finished = true
	known, deadline, taken := s.ending, s.deadline, s.reader == readerTaken
	s.mu.Unlock()

	// The closing handshake needs the connection, so the kill comes after it. A reader
	// that was left behind still owns the reading half of the wire, and Close with it.
	if !taken {
		s.wire.Close()
	}
	s.kill()

	// Whoever still writes or waits returns now, and is joined.
	s.tasks.Wait()
	if deadline != nil {
		deadline.Stop()
	}
	s.client.outbox.join(s)

	// Nobody uses the wire any more, except a reader that was left behind: it releases
	// the wire when it returns.
	if taken {
		return s.conclude(known, nil)
	}
	s.release()
	return s.conclude(known, s.wire.End())
}

// patienceWithNetwork is how long written bytes may go unacknowledged, which finds a dead
// line while nobody reads. Without a heartbeat it is 0, no limit: the application wants
// to live through silence.
func (s *session) patienceWithNetwork() time.Duration {
	s.heart.mu.Lock()
	defer s.heart.mu.Unlock()
	p := &s.heart.pulse
	if p.interval == 0 {
		return 0
	}
	return max(p.interval+p.timeout, s.client.config.writeTimeout)
}

// conclude returns how the session ended, from the reason that was recorded, if any, and
// from what ended reading. The recorded reason counts, but a close frame explains a
// failed write, and a violation a failed OnOpen.
func (s *session) conclude(known *ending, end error) (e ending) {
	closed, answered := end.(*wire.Closed)
	violation, violated := end.(*wire.Violation)
	switch {
	case known != nil && !(known.phase == PhaseWrite && answered) && !(known.phase == PhaseSetup && violated):
		e = *known
	case violated:
		e = ending{phase: PhaseProtocol, err: s.readError(end), code: StatusCode(violation.Code)}
		if violation.Came != nil {
			e.reason = violation.Came.Reason
		}
	case answered:
		e = ending{closing: true}
	case end != nil:
		e = ending{phase: PhaseRead, err: s.readError(end), code: unknownPeerCode}
	default: // delivery was aborted
		e = ending{closing: true, requested: true, code: StatusGoingAway}
	}
	if e.closing && answered && !e.half {
		e.clean = s.wire.CloseSent()
		e.code, e.reason = StatusCode(closed.Code), closed.Reason
	}
	return e
}

// sessionFailure describes the end of a session to the retry policy.
func sessionFailure(e ending, attempt int, uptime time.Duration) Failure {
	f := Failure{Phase: e.phase, Err: e.err, Code: e.code, Reason: e.reason, Attempt: attempt, Uptime: uptime}
	if e.closing {
		f.Err = websocket.CloseError{Code: e.code, Reason: e.reason}
	}
	return f
}

// readError turns what ended reading into an error for the application.
func (s *session) readError(err error) error {
	switch e := err.(type) {
	case *wire.Violation:
		return &ProtocolError{StatusCode(e.Code), s.fault(e)}
	case *wire.Closed:
		return &closedError{closeError(e)}
	case *wire.Lost:
		return &lostError{"connection lost, without a close frame", e.Err}
	}
	return err
}

// fault says what the server did that it must not.
func (s *session) fault(v *wire.Violation) error {
	switch {
	case v.Code == int(websocket.StatusMessageTooBig):
		return fmt.Errorf("a message is larger than WithReadLimit(%d)", s.client.config.readLimit)
	case v.Came != nil:
		return fmt.Errorf("%s: %w", v.Text, closeError(v.Came))
	}
	return errors.New(v.Text)
}

// closeError is what a close frame of the server says, as an error.
func closeError(c *wire.Closed) websocket.CloseError {
	return websocket.CloseError{Code: StatusCode(c.Code), Reason: c.Reason}
}

// discard finishes a session that never opened, because of err, and returns how it
// ended.
func (s *session) discard(err error) ending {
	s.end(ending{phase: PhaseSetup, err: err, code: unknownPeerCode})
	return s.finish()
}

// begin starts what an open session does besides reading.
func (s *session) begin() {
	if d := s.patienceWithNetwork(); d > 0 {
		s.wire.LimitUnacknowledged(d)
	}
	s.blocked = s.client.blockedSum()
	s.heart.start()
	if age := s.client.config.maxSessionAge; age > 0 {
		age -= delay.Scale(age/10, rand.Float64())
		s.age = time.AfterFunc(age, func() { s.client.outlived(s) })
	}
}
