package resock

import (
	"context"
	"errors"
)

// With a limiter every batch of the queue holds one message. The first of them asks,
// while it stays in the queue: it may still expire, or be given up, and beats pass
// it. What was let pass before is written by then.

var errNoTurn = errors.New("the session ended before the limiter let the message pass")

// passes reports whether a batch may be written.
func (o *outbox) passes(b *batch) bool {
	return o.limiter == nil || b.passed || b.load.flushes > 0
}

// startAsking sees that somebody asks the limiter for the front of the queue; mu is
// held.
func (o *outbox) startAsking(s *session) {
	if !o.asking {
		o.asking = true
		s.spawn(func() { o.ask(s) })
	}
}

// ask asks the limiter for the front of the queue.
func (o *outbox) ask(s *session) {
	o.mu.Lock()
	b := o.front()
	if b == nil || o.session != s || o.passes(b) {
		o.asking = false
		o.start()
		o.mu.Unlock()
		return
	}
	o.asked = b
	ctx, cancel := o.patience(&b.items[0])
	o.mu.Unlock()
	err := o.permit(ctx, s)
	cancel()

	o.mu.Lock()
	o.asking = false
	var failed []outbound
	switch {
	case o.asked != b: // it was given up, and b may be another client's by now
	case err == nil:
		b.passed = true
	case !s.flow.stopped: // else the next session asks
		first := &b.items[0] // which goes with b if it is buried
		o.remove(func(m *outbound) bool {
			if m == first {
				failed = []outbound{*m}
			}
			return m == first
		})
	}
	o.asked = nil
	o.changed()
	o.start()
	o.mu.Unlock()
	if len(failed) > 0 && failed[0].expiry != 0 && failed[0].expiry <= o.now() {
		o.refuse(failed, ErrExpired)
	} else {
		o.refuse(failed, notSent(err))
	}
}

// patience is how long a message waits for the limiter.
func (o *outbox) patience(m *outbound) (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if m.waiter != nil {
		ctx = m.waiter.ctx
	}
	if m.expiry != 0 {
		return context.WithTimeout(ctx, m.expiry-o.now())
	}
	return ctx, func() {}
}

// permit asks the limiter for one message to session s, until ctx or the session
// ends. In one session nobody else asks meanwhile.
func (o *outbox) permit(ctx context.Context, s *session) error {
	if o.limiter == nil {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !o.setUnask(s, cancel) {
		return errNoTurn
	}
	defer o.setUnask(s, nil)
	return waitFor(ctx, o.abort, o.hooks, "WithSendLimiter", o.limiter.Wait)
}

// setUnask sets what ends the wait for the limiter. It reports whether session s
// takes messages.
func (o *outbox) setUnask(s *session, unask context.CancelFunc) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.flow.unask = unask
	return !s.flow.stopped
}
