package resock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/wire"
)

// Session is the connection inside the hook of [WithOnOpen]. Its methods may be called
// concurrently, and not after the hook has returned.
type Session struct {
	session *session
	header  http.Header
	remote  string

	over atomic.Bool // the hook has returned

	// mu is held by one Send at a time, and receive, which guards err, by one Receive:
	// Receive may wait while others send. given guards unread: Unread never waits.
	mu      sync.Mutex
	receive sync.Mutex
	err     error // of the first Receive that failed
	given   sync.Mutex
	unread  []wire.Message // what Unread was given
}

var errSetupOver = errors.New("resock: Session used after OnOpen")

// ID returns the number that the session will have. After an OnOpen that failed, the next
// connection gets the same number. Until its hook has called ID, Send or Receive, the
// number still means the failed connection to [WithSession], and gets [ErrSessionOver].
func (s *Session) ID() uint64 {
	s.session.client.outbox.disclose(s.session)
	return s.session.id
}

// Predecessor returns the number of the session that this one will replace
// ([WithHandover]), as long as that is open, or 0. The server may still push there.
func (s *Session) Predecessor() uint64 { return s.session.client.predecessor(s.session) }

// Header returns the header of the server's response to the upgrade.
func (s *Session) Header() http.Header { return s.header }

// Subprotocol returns what the server chose of [WithSubprotocols], spelled as it was
// offered, or the empty string.
func (s *Session) Subprotocol() string { return s.session.event.Subprotocol }

// RemoteAddr returns the network address of the server, or of the proxy, or the empty
// string if the HTTP client hides it.
func (s *Session) RemoteAddr() string { return s.remote }

// Send sends one message ahead of all queued ones, as soon as [WithSendLimiter] lets it
// pass, and returns nil once it was handed to the network. ctx has no effect once writing
// has begun; the dial timeout bounds the whole call. An error is an [ErrNotSent] or
// [ErrMaybeSent], as of [Client.Send]. Send does not keep data.
func (s *Session) Send(ctx context.Context, typ MessageType, data []byte) error {
	if err := checkMessage("Session.Send", typ, data); err != nil {
		return err
	}
	s.session.client.outbox.disclose(s.session)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() {
		return notSent(errSetupOver)
	}
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	if err := s.session.client.outbox.permit(ctx, s.session); err != nil {
		return notSent(err)
	}
	m := newOutbound(typ, data)
	err := s.session.write(&m)
	if err == nil {
		err = s.session.wire.Flush()
	}
	taken := s.session.wire.Taken()
	if err != nil && m.Untouched(taken) {
		return notSent(err)
	}
	s.session.client.outbox.greeted(s.session, m.End())
	if err != nil && !m.Taken(taken) {
		return fmt.Errorf("%w: %w", ErrMaybeSent, err)
	}
	s.session.client.counters.messagesOut.Add(1)
	return nil
}

// Receive returns the next message, in order. An error, the end of ctx included,
// ends the connection and fails the attempt. The data belongs to the caller.
func (s *Session) Receive(ctx context.Context) (typ MessageType, data []byte, err error) {
	s.session.client.outbox.disclose(s.session)
	s.receive.Lock()
	defer s.receive.Unlock()
	if s.over.Load() {
		return 0, nil, errSetupOver
	}
	m, err := s.session.receive(ctx)
	if err != nil {
		if s.err == nil {
			s.err = err
		}
		return 0, nil, err
	}
	return MessageType(m.Type), m.Data, nil
}

// Unread gives back a message that Receive returned and that is not for the hook, such as
// a push that comes before the answer. What was given back is delivered right after the
// OpenEvent, in the order of the calls. data is copied. Unread does nothing after the
// hook has returned.
func (s *Session) Unread(typ MessageType, data []byte) {
	m := wire.Message{Type: wire.Type(typ), Data: clone(data)}
	s.given.Lock()
	defer s.given.Unlock()
	s.unread = append(s.unread, m)
}

// SetHeartbeat sets the heartbeat of this session, as [WithHeartbeat] does for all, for
// servers that dictate it. The first beat comes after the hook has returned, and at
// most one interval after this call. An interval of zero disables it. Durations that
// WithHeartbeat does not take are an [*OptionError], and the heartbeat stays as it is.
func (s *Session) SetHeartbeat(interval, timeout time.Duration) error {
	if fault := s.check("WithHeartbeat", WithHeartbeat(interval, timeout)); fault != nil {
		fault.Option = "Session.SetHeartbeat"
		return fault
	}
	return s.setPulse(func(p *pulse) {
		p.interval, p.timeout = min(interval, forever), min(timeout, forever)
		p.dictated = max(1, s.session.wire.Now())
	})
}

// SetIdleTimeout sets the idle timeout of this session, as [WithIdleTimeout] does for
// all. Zero disables it. A negative d is an [*OptionError], and the idle timeout stays as
// it is.
func (s *Session) SetIdleTimeout(d time.Duration) error {
	if fault := s.check("WithIdleTimeout", WithIdleTimeout(d)); fault != nil {
		fault.Option = "Session.SetIdleTimeout"
		return fault
	}
	return s.setPulse(func(p *pulse) { p.idle = min(d, forever) })
}

// check returns what the rules of the option of that name say of opt, beside the other
// settings of the client.
func (s *Session) check(name string, opt Option) *OptionError {
	g := given{settings: s.session.client.config.settings}
	opt.apply(&g)
	return g.rules().of(name).fault()
}

// setPulse changes the pulse before the heartbeat starts.
func (s *Session) setPulse(set func(*pulse)) error {
	h := &s.session.heart
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.over.Load() {
		return errSetupOver
	}
	set(&h.pulse)
	return nil
}

// receive returns the next message, in memory of its own. The end of ctx kills the
// session.
func (s *session) receive(ctx context.Context) (m wire.Message, err error) {
	stop := context.AfterFunc(ctx, s.kill)
	for err == nil && len(s.early) == 0 && ctx.Err() == nil {
		s.early, err = s.wire.Next(false)
	}
	switch {
	case !stop():
		return m, ctx.Err()
	case err != nil:
		return m, s.readError(err)
	}
	m, s.early = s.early[0], s.early[1:]
	m.Data = bytes.Clone(m.Data)
	return m, nil
}

// giveBack puts what Unread was given ahead of what came later.
func (s *Session) giveBack() {
	s.given.Lock()
	defer s.given.Unlock()
	if len(s.unread) > 0 {
		s.session.early = append(s.unread, s.session.early...)
		s.unread = nil
	}
}

// register runs the OnOpen hook.
func (s *session) register(ctx context.Context, header http.Header, remote string) error {
	setup := &Session{session: s, header: header, remote: remote}
	s.client.outbox.prepare(s)
	stop := context.AfterFunc(ctx, s.kill)
	err := errHookExited
	func() {
		defer func() {
			if err == errHookExited { // nothing below runs
				s.discard(err)
			}
		}()
		err = s.client.config.onOpen(ctx, setup)
	}()
	setup.over.Store(true)
	setup.mu.Lock()
	defer setup.mu.Unlock()
	setup.receive.Lock()
	defer setup.receive.Unlock()
	setup.giveBack()
	inTime := stop()
	switch {
	case err != nil && setup.err != nil && !errors.Is(err, setup.err):
		return fmt.Errorf("%w (%w)", err, setup.err) // the hook keeps to itself what came
	case err != nil:
		return err
	case setup.err != nil:
		return setup.err
	case !inTime:
		return context.Cause(ctx)
	}
	return nil
}
