package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/resock/resock"
)

// Bind says through which client the messages go. It may be called before
// [resock.Client.Run] or while that runs. When the client is closed for good, the box
// keeps what is not done, and another client may be bound.
func (b *Box) Bind(client *resock.Client) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case client == nil:
		return errors.New("outbox: Bind: the client is nil")
	case b.closed:
		return fmt.Errorf("outbox: Bind: %w", ErrClosed)
	case b.client != nil:
		return errors.New("outbox: Bind: bound to a client already, which is not closed")
	}
	b.client = client
	ctx, cancel := context.WithCancel(b.ctx)
	s := &sender{box: b, client: client, ctx: ctx}
	events := client.Subscribe(ctx, resock.WithoutMessages(), resock.WithLabel("outbox"))
	var writing sync.WaitGroup
	writing.Go(s.run)
	b.tasks.Go(func() {
		s.follow(events)
		cancel()
		writing.Wait()
		s.unbind()
	})
	return nil
}

// sender sends the messages of a box through one client.
type sender struct {
	box    *Box
	client *resock.Client
	ctx    context.Context // ends with the box, and with the client

	// For acknowledgements that do not come; guarded by the box.
	watch   *time.Timer   // not nil while it is armed
	since   time.Time     // what it was armed for
	blocked time.Duration // of delivery, by then
}

// follow notes which session is open.
func (s *sender) follow(events <-chan resock.Event) {
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			s.note(func(f *flight) { f.session = e.Session })
		case resock.FailEvent:
			s.note(func(f *flight) { f.over(e.Session, e.Rule == "") })
		case resock.CloseEvent:
			s.note(func(f *flight) { f.over(e.Session, e.Rule == "") })
		}
	}
}

// unbind lets another client be bound.
func (s *sender) unbind() {
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	if s.watch != nil {
		s.watch.Stop()
	}
	s.box.flight.unbind()
	s.box.client = nil
}

// note changes what is known of the sessions.
func (s *sender) note(change func(*flight)) {
	s.box.mu.Lock()
	change(&s.box.flight)
	s.box.mu.Unlock()
	ring(s.box.wake)
}

// run writes what is to be written, one message after the other.
func (s *sender) run() {
	for s.ctx.Err() == nil {
		e, session, err := s.next()
		switch {
		case err != nil:
			s.box.failed(err)
			s.pause(time.Second)
		case e != nil:
			s.write(e, session)
		default:
			s.pause(never)
		}
	}
}

const never = 1 << 62

// pause waits for something to do, or for d.
func (s *sender) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-s.box.wake:
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// next returns the next message to write, and the session to write it in.
func (s *sender) next() (*entry, uint64, error) {
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		session := b.flight.session
		if session == 0 {
			return nil, 0, nil
		}
		e := b.flight.next(session)
		if e == nil {
			more, err := s.load()
			if !more || err != nil {
				return nil, 0, err
			}
			continue
		}
		if e == b.flight.entries[0] {
			b.flight.lost(e)
			if b.config.Done != nil && b.config.MaxLosses > 0 && e.losses >= b.config.MaxLosses {
				b.end(b.flight.drop(e, fmt.Errorf("%w: %d sessions in a row were lost while it was the first one under way", ErrSetAside, e.losses)))
				continue
			}
		}
		return e, session, nil
	}
}

// load takes a message from the store, if there is room under way. mu is held, but for the
// reading.
func (s *sender) load() (more bool, err error) {
	b := s.box
	if len(b.flight.entries) >= b.config.Window {
		return false, nil
	}
	after := b.flight.after
	b.mu.Unlock()
	r, ok, err := b.store.Next(after)
	b.mu.Lock()
	switch {
	case err != nil && r.Number > after: // this one cannot be read, and will not be
		b.stats.StoreErr = err
		b.flight.after = r.Number
		b.end([]ended{{r, fmt.Errorf("%w: %w", ErrUnreadable, err)}})
		return true, nil
	case ok && err == nil:
		b.flight.entries = append(b.flight.entries, &entry{Record: r})
		b.flight.after = r.Number
		b.stir()
	}
	return ok, err
}

// write writes a message in a session.
func (s *sender) write(e *entry, session uint64) {
	b := s.box
	b.mu.Lock()
	before := *e
	b.flight.write(e, session)
	b.mu.Unlock()
	err := s.client.Send(s.ctx, e.Type, e.Data, resock.WithSession(session))
	blocked := s.client.Stats().Blocked
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(err, resock.ErrNotSent) {
		e.session, e.again, e.headed = before.session, before.again, 0
	} else if e.again {
		b.stats.Resent++
	}
	var impossible *resock.OptionError
	switch {
	case err == nil:
		e.written = time.Now()
		s.arm(blocked)
	case errors.As(err, &impossible):
		b.end(b.flight.drop(e, fmt.Errorf("%w: %w", ErrSetAside, err)))
	case b.flight.session == session: // its event is about to come
		b.flight.session = 0
	}
}

// failed notes a failure of the store.
func (b *Box) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stats.StoreErr = err
}

// arm lets a timer look for acknowledgements; mu is held.
func (s *sender) arm(blocked time.Duration) {
	since, ok := s.box.flight.waits()
	if s.watch != nil || !ok || s.box.config.AckTimeout < 0 {
		return
	}
	s.since, s.blocked = since, blocked
	s.watch = time.AfterFunc(s.box.config.AckTimeout-time.Since(since), s.check)
}

// check replaces the session if the first message under way has waited for too long.
func (s *sender) check() {
	if s.late(s.client.Stats().Blocked) {
		s.client.Reconnect()
	}
}

// late reports whether it has, or lets the timer look again. The time in which delivery
// was blocked does not count: the server may have answered.
func (s *sender) late(blocked time.Duration) bool {
	b := s.box
	b.mu.Lock()
	defer b.mu.Unlock()
	s.watch = nil
	since, ok := b.flight.waits()
	if !ok || s.ctx.Err() != nil {
		return false
	}
	waited := time.Since(since)
	excused := min(blocked-s.blocked, waited)
	if !since.Equal(s.since) {
		s.since, s.blocked = since, blocked-excused
	}
	left := b.config.AckTimeout - (waited - excused)
	if left <= 0 {
		b.flight.stalled = b.flight.session
		return true
	}
	if excused > 0 { // it may be blocked still: do not look all the time
		left = max(left, b.config.AckTimeout/8)
	}
	s.watch = time.AfterFunc(left, s.check)
	return false
}
