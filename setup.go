package resock

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
)

// Session is the connection inside [WithOnOpen]. It must not be used after the
// hook has returned.
type Session struct {
	session *session
	header  http.Header
	remote  string

	over    atomic.Bool
	mu      sync.Mutex // one Send at a time
	receive sync.Mutex
	err     error // of the first Receive that failed
}

var errSetupOver = errors.New("resock: Session used after OnOpen")

// ID returns the number that the session will have.
func (s *Session) ID() uint64 { return s.session.id }

// Header returns the header of the server's response to the upgrade.
func (s *Session) Header() http.Header { return s.header }

// RemoteAddr returns the network address of the server, or of the proxy, or
// nothing if the HTTP client hides it.
func (s *Session) RemoteAddr() string { return s.remote }

// Send sends one message at once, ahead of all queued ones. ctx is looked at
// before writing only; the dial timeout bounds the rest. The errors are those of
// [Client.Send].
func (s *Session) Send(ctx context.Context, typ MessageType, data []byte) error {
	if err := checkMessage("Session.Send", typ, data); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over.Load() {
		return notSent(errSetupOver)
	}
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	m := outbound{typ: typ, data: data}
	err := s.session.write(&m)
	if err == nil {
		err = s.session.wire.flush()
	}
	switch written := s.session.wire.writtenBytes(); {
	case err == nil:
	case m.untouched(written):
		return notSent(err)
	case m.end > written:
		return &lostError{"may have been sent", errors.Join(ErrMaybeSent, err)}
	}
	s.session.client.counters.messagesOut.Add(1)
	return nil
}

// Receive returns the next message, in order. An error, the end of ctx included,
// ends the connection and fails the attempt. The data belongs to the caller.
func (s *Session) Receive(ctx context.Context) (typ MessageType, data []byte, err error) {
	s.receive.Lock()
	defer s.receive.Unlock()
	if s.over.Load() {
		return 0, nil, errSetupOver
	}
	typ, reader, err := s.session.conn.Reader(ctx)
	if err == nil {
		data, err = readMessage(typ, reader, &s.session.wire.wireReader)
	}
	if err != nil {
		if s.err == nil {
			s.err = err
		}
		return 0, nil, err
	}
	s.session.wire.messages++
	return typ, data, nil
}

// register runs the OnOpen hook, with the fast lane off: every message goes by
// way of coder/websocket, which hands out one at a time.
func (s *session) register(ctx context.Context, header http.Header, remote string) error {
	setup := &Session{session: s, header: header, remote: remote}
	stop := context.AfterFunc(ctx, s.kill)
	err := s.client.config.onOpen(ctx, setup)
	setup.over.Store(true)
	setup.mu.Lock()
	defer setup.mu.Unlock()
	setup.receive.Lock()
	defer setup.receive.Unlock()
	inTime := stop()
	switch {
	case err != nil:
		return err
	case setup.err != nil:
		return setup.err
	case !inTime:
		return context.Cause(ctx)
	}
	return nil
}
