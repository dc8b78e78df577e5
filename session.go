package resock

import (
	"context"
	"errors"

	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
	"github.com/resock/resock/internal/delay"
)

// session is one open connection. The goroutine of Run reads it and finishes
// it; any goroutine may make it end. Every other goroutine that it starts is
// joined by finish.
type session struct {
	client  *Client
	id      uint64
	conn    *websocket.Conn
	wire    wire
	heart   heartbeat
	age     *time.Timer
	event   OpenEvent
	started time.Time

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
	code, _ := s.wire.closed()
	switch {
	case s.wire.broken():
		s.end(ending{phase: PhaseWrite, err: err, code: unknownPeerCode, grace: lingerAfterFailure})
	case code == 0 || !errors.Is(err, net.ErrClosed):
		s.fail(PhaseWrite, err)
	}
}

// kill frees everybody who reads from or writes to the connection.
func (s *session) kill() {
	s.client.outbox.detach(s)
	if s.die != nil {
		s.die()
	}
	s.wire.kill()
}

// shut begins the closing handshake, after what is queued if flush is set. It
// does not wait. Messages are delivered until the server's close frame: the
// reading goroutine stays the only one that reads. (coder/websocket's Close
// would discard what it reads, and take the reading goroutine's turns.)
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
		s.wire.sendClose(code, reason)
	})
}

// write writes one message into the wire and notes its place in the stream.
// Only the holder of the outbox's token may call it, or OnOpen. Its context
// must never end: that would close the connection.
func (s *session) write(m *outbound) error {
	one := [1]outbound{*m}
	err := s.writeAll(one[:])
	*m = one[0]
	return err
}

// writeAll is write for several messages. After an error, the rest of them was
// not written.
func (s *session) writeAll(all []outbound) (err error) {
	if !s.wire.flate && s.wire.writeMessages(all) {
		return nil
	}
	for i := range all {
		m := &all[i]
		if err != nil {
			m.start, m.end = math.MaxUint64, math.MaxUint64
			continue
		}
		s.wire.mark()
		err = s.conn.Write(context.Background(), m.typ, m.data)
		m.start, m.end = s.wire.frame()
	}
	return err
}

// beat sends what the application wants as a heartbeat.
func (s *session) beat(typ MessageType, data []byte) {
	if err := checkMessage("WithHeartbeatMessage", typ, data); err != nil {
		s.fail(PhaseHeartbeat, err)
		return
	}
	s.client.outbox.beat(s, typ, data)
}

// read delivers messages until the session ends.
func (s *session) read() error {
	r := &s.wire.wireReader
	for {
		r.inside = true
		typ, reader, err := s.conn.Reader(context.Background())
		r.inside = false
		if err != nil {
			return err
		}
		data, err := readMessage(typ, reader, r)
		if err != nil {
			return err
		}
		s.client.counters.messagesIn.Add(1)
		goesOn := r.deliver(typ, data)
		r.rest()
		if !goesOn {
			return errAborted
		}
	}
}

// readMessage reads a message that came by way of coder/websocket: fragmented
// or compressed, or during OnOpen.
func readMessage(typ MessageType, reader io.Reader, r *wireReader) ([]byte, error) {
	data, err := io.ReadAll(reader)
	if err != nil {
		return nil, err // what was read is part of a message, and so nothing
	}
	if int64(len(data)) > r.limit { // coder/websocket lets one inflated byte too many through
		return nil, &ProtocolError{websocket.StatusMessageTooBig, errors.New("message exceeds the read limit")}
	}
	if typ == MessageText && r.flate && !utf8.Valid(data) {
		return nil, &ProtocolError{websocket.StatusInvalidFramePayloadData, errors.New("text is not valid UTF-8")}
	}
	return data[:len(data):len(data)], nil
}

// finish takes the session down after read returned err, and tells how it ended.
func (s *session) finish(err error) ending {
	s.heart.stop()
	if s.age != nil {
		s.age.Stop()
	}
	s.client.outbox.detach(s)
	s.mu.Lock()
	s.finished = true
	known, deadline := s.ending, s.deadline
	s.mu.Unlock()

	r := &s.wire.wireReader
	var e ending
	switch {
	case known == nil || known.phase == PhaseWrite && r.closeCode != 0:
		e = s.diagnose(err)
	default:
		e = *known
	}
	if e.phase == PhaseProtocol {
		s.reject(e)
	}
	if !e.closing || r.closeCode == 0 {
		s.kill()
	}
	s.tasks.Wait()
	if deadline != nil {
		deadline.Stop()
	}
	s.kill()
	_ = s.conn.CloseNow()
	s.client.outbox.join()
	s.wire.stopWatch()
	r.publish()
	r.buf = nil
	r.release()

	if e.closing {
		_, sent := s.wire.closed()
		e.clean = sent && r.closeCode != 0
		if r.closeCode != 0 {
			e.code, e.reason = r.closeCode, r.closeReason
		}
	}
	return e
}

// diagnose tells why reading ended by itself.
func (s *session) diagnose(err error) ending {
	r := &s.wire.wireReader
	violation := s.violation(err)
	switch {
	case violation != nil:
	case r.closeCode != 0:
		return ending{closing: true, code: r.closeCode, reason: r.closeReason}
	case errors.Is(r.err, errAborted) || errors.Is(err, errAborted):
		return ending{closing: true, requested: true, code: StatusGoingAway}
	case r.srcErr != nil:
		return ending{phase: PhaseRead, err: &lostError{"connection lost", r.srcErr}, code: unknownPeerCode}
	default: // the transport is well, and yet there is no message: it cannot be inflated
		violation = &ProtocolError{websocket.StatusInvalidFramePayloadData, err}
	}
	return ending{phase: PhaseProtocol, err: violation, code: violation.Code}
}

// violation returns what the server did wrong, or nil.
func (s *session) violation(err error) *ProtocolError {
	r := &s.wire.wireReader
	var violation *ProtocolError
	switch sent, _ := s.wire.closed(); {
	case r.violation != nil && sent == 0: // else coder/websocket closed for what came before
		return r.violation
	case errors.As(err, &violation):
		return violation
	case sent != 0 && r.closeCode == 0: // coder/websocket found it
		return &ProtocolError{sent, err}
	}
	return nil
}

// lingerAfterFailure bounds the wait for the last words of a server: after it was
// sent a close frame for its violation, or when a write failed.
const lingerAfterFailure = time.Second

// discard takes down a session that never opened, and tells how it ended.
func (s *session) discard(err error) ending {
	if s.violation(err) == nil {
		s.fail(PhaseSetup, err)
	}
	return s.finish(err)
}

// reject sends the close frame for a violation, if coder/websocket has not, and
// closes. It runs on the reading goroutine: coder/websocket's read lock is free.
func (s *session) reject(e ending) {
	deadline := time.AfterFunc(s.client.config.closeTimeout, s.kill)
	defer deadline.Stop()
	s.wire.linger = min(lingerAfterFailure, s.client.config.closeTimeout)
	if r := &s.wire.wireReader; r.err == nil {
		r.err = errTransport // Close shall not read on
	}
	var protocol *ProtocolError
	if sent, _ := s.wire.closed(); sent == 0 && errors.As(e.err, &protocol) {
		_ = s.conn.Close(e.code, cutReason(protocol.Err.Error()))
		return
	}
	_ = s.conn.CloseNow()
}

// maxReason is the room for a reason in a close frame (RFC 6455, section 5.5.1).
const maxReason = maxControlPayload - 2

// cutReason makes reason fit into a close frame, as valid UTF-8.
func cutReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxReason {
		return reason
	}
	end := maxReason
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}

// begin starts what an open session does besides reading.
func (s *session) begin() {
	s.heart.start()
	if age := s.client.config.maxSessionAge; age > 0 {
		age -= delay.Scale(age/10, rand.Float64())
		s.age = time.AfterFunc(age, func() { s.shut(StatusNormalClosure, "", false) })
	}
}
