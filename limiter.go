package resock

import (
	"context"
	"errors"
)

// With a limiter, every batch of the queue holds one message. The limiter is asked for
// the batch at the front, when all that it let pass before is written. Meanwhile the batch
// stays in the queue: it may expire or be given up, and beats pass it.

var errNoTurn = errors.New("the session ended before the limiter let the message pass")

// passes reports whether a batch may be written.
func (o *outbox) passes(b *batch) bool {
	return o.limiter == nil || b.passed || b.load.flushes > 0
}

// startAsking makes sure that somebody asks the limiter for the front of the queue; mu is
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
	ctx, cancel := o.waitContext(&b.items[0])
	o.mu.Unlock()
	err := o.permit(ctx, s)
	cancel()

	o.mu.Lock()
	o.asking = false
	var failed []outbound
	switch {
	case o.asked != b: // b left the queue, and may be another client's by now
	case err == nil:
		b.passed = true
	case !s.flow.stopped: // else the next session asks
		first := &b.items[0] // not failed, but removed too, if it was given up
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

// waitContext returns the context of a message that waits for the limiter: it ends with
// that of a Send, and when the message expires.
func (o *outbox) waitContext(m *outbound) (context.Context, context.CancelFunc) {
	ctx := context.Background()
	if m.waiter != nil {
		ctx = m.waiter.ctx
	}
	if m.expiry != 0 {
		return context.WithTimeout(ctx, m.expiry-o.now())
	}
	return ctx, func() {}
}

// permit asks the limiter to let one message pass to session s, until ctx or the session
// ends. It has one caller at a time for each session.
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
	return waitFor(ctx, o.hooks, "WithSendLimiter", o.limiter.Wait)
}

// setUnask sets what ends the wait for the limiter when session s is detached. It reports
// whether s still takes messages.
func (o *outbox) setUnask(s *session, unask context.CancelFunc) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.flow.unask = unask
	return !s.flow.stopped
}
