package resock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/resock/resock/internal/ring"
)

// Flush returns nil once the server has received all that was sent before: what is queued
// or being written is written first, then the server has to answer a ping. The answer
// says that the server has read so far, not that it has understood. When the server has
// answered for everything already, Flush returns at once.
//
// When the session is lost after it took any of these messages, the error is
// [ErrMaybeSent]; otherwise Flush goes on with the next session. A message that was given
// up meanwhile ([ErrExpired], the end of a Send's context) is no longer waited for. When
// the client closes for good and they were not sent, the error is [ErrClosed]. When ctx
// ends, the error wraps the context's error, and tells why no session is open if none is;
// nothing else ends the wait for a server that lives and answers no pings.
//
// The answer arrives behind all that the server has sent before it. So Flush fails when
// delivery was blocked for the heartbeat timeout, and names who blocks it; with the
// context of a message handler or a filter it fails at once.
//
// Flush may be called at any time, also by many goroutines, whose pings are shared. It
// neither keeps others from sending nor waits for what is sent later.
func (c *Client) Flush(ctx context.Context) error {
	if ctx.Value(readerKey{}) == c {
		return notFlushed(errors.New("the context is that of a message handler or filter, which must return before the answer can be read"))
	}
	if err := ctx.Err(); err != nil {
		return c.inVain(ctx, notFlushed(err))
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer c.watchDelivery(cancel)()
	err := c.outbox.confirm(ctx)
	if blocked, ok := context.Cause(ctx).(*deliveryError); ok && err != nil {
		return notFlushed(blocked)
	}
	return c.inVain(ctx, err)
}

// readerKey is the key of the client in the contexts of functions on the reading
// goroutine.
type readerKey struct{}

// deliveryError says that blocked delivery keeps the server's answer from being read.
type deliveryError struct {
	by      string
	blocked time.Duration
}

func (e *deliveryError) Error() string {
	return fmt.Sprintf("delivery was blocked for %v by %s", e.blocked.Round(time.Millisecond), e.by)
}

// watchDelivery cancels a Flush when delivery was blocked for the heartbeat timeout, until
// stop is called.
func (c *Client) watchDelivery(cancel context.CancelCauseFunc) (stop func()) {
	limit := cmp.Or(c.config.beatTimeout, defaultProbe)
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			wait := limit
			if by, since := c.blockedBy(); by != "" {
				blocked := time.Since(since)
				if wait = limit - blocked; wait <= 0 {
					cancel(&deliveryError{by, blocked})
					return
				}
			}
			timer.Reset(wait)
		}
	}()
	return stop
}

// notFlushed wraps the reason for which a Flush no longer waits.
func notFlushed(err error) error { return fmt.Errorf("resock: not flushed: %w", err) }

// confirm queues a Flush behind what it waits for. When its turn comes, a ping asks the
// server to answer for all that the session took.
func (o *outbox) confirm(ctx context.Context) error {
	o.mu.Lock()
	if s := o.coming(); s != nil && (o.lanes.early.Len() > 0 || s.flow.greeted > s.wire.Answered()) {
		if err := o.line(ctx, &o.lanes.early, s); err != nil {
			return err
		}
		o.mu.Lock()
	}
	for o.lanes != nil && o.lanes.past != nil {
		past := o.lanes.past
		o.mu.Unlock()
		if err := o.awaitPast(ctx, past); err != nil {
			return err
		}
		o.mu.Lock()
	}
	switch {
	case o.finished:
		o.mu.Unlock()
		return ErrClosed
	case o.confirmed():
		o.mu.Unlock()
		o.awaitTold()
		return nil
	}
	err := o.line(ctx, &o.queue, o.latest)
	o.awaitTold() // WithResult hears of what was sent before Flush returns
	return err
}

// line queues a Flush that session s, if it is not nil, may have greeted, and waits for its
// outcome. mu is held, and given up.
func (o *outbox) line(ctx context.Context, queue *ring.Ring[*batch], s *session) error {
	w := newWaiter(ctx, 0)
	if s != nil {
		w.since, w.greeted = s, s.flow.greeted
	}
	o.push(tailFlush(queue), &outbound{kind: kindFlush, waiter: w})
	o.start()
	o.mu.Unlock()
	return o.wait(w, notFlushed)
}

// confirmed reports whether there is nothing to wait for; mu is held.
func (o *outbox) confirmed() bool {
	if o.token != nil || o.load.messages() > 0 {
		return false
	}
	s := o.latest
	return s == nil || s.flow.reach() <= s.wire.Answered()
}

// reach is where the last message ends in the stream. mu is held, and nobody else holds
// the token.
func (f *flow) reach() uint64 { return max(f.greeted, f.spoken) }

// tailFlush returns the batch of a queue for a Flush, which holds no messages; mu of the
// outbox is held.
func tailFlush(queue *ring.Ring[*batch]) *batch {
	if last := queue.Len() - 1; last >= 0 && (*queue.At(last)).load.flushes > 0 {
		return *queue.At(last)
	}
	b := new(batch)
	queue.PushBack(b)
	return b
}

// probe asks the server to answer for a batch of Flushes, and empties it. The token is
// held, and so all that was before them is written.
func (o *outbox) probe(s *session, b *batch) error {
	if o.expect(s, b) {
		s.wire.PingWait()
	}
	return s.wire.Flush()
}

// expect lets a batch of Flushes wait for an answer in session s, unless their outcome is
// known, and reports whether a ping is to be sent.
func (o *outbox) expect(s *session, b *batch) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	answered, reach := s.wire.Answered(), s.flow.reach()
	for i := range b.items {
		switch w := b.items[i].waiter; {
		case w.over != nil:
			w.outcome <- w.over
		case reach <= answered:
			w.outcome <- nil
		case s.flow.dead:
			w.outcome <- ErrMaybeSent
		default:
			s.flow.await(w, reach)
			w.asked = s
		}
	}
	b.remove(func(*outbound) bool { return true })
	return s.flow.ask(answered)
}

// await lets w wait for an answer for everything before a place in the stream.
func (f *flow) await(w *waiter, place uint64) {
	if f.awaiting == nil {
		f.awaiting = make(map[*waiter]uint64)
	}
	f.awaiting[w] = place
}

// ask reports whether a ping is to be sent: the last one is answered, and somebody waits
// for more. Only one is in flight at a time, however many wait: the wire remembers few
// pings, and more of them would crowd each other out.
func (f *flow) ask(answered uint64) bool {
	if len(f.awaiting) == 0 || f.asked > answered {
		return false
	}
	for _, place := range f.awaiting {
		f.asked = max(f.asked, place)
	}
	return true
}

// answered settles what a pong of session s answers, and asks for the rest.
func (o *outbox) answered(s *session) {
	o.mu.Lock()
	answered := s.wire.Answered()
	for w, place := range s.flow.awaiting {
		if place <= answered {
			s.flow.settle(w, nil)
		}
	}
	ask := s.flow.ask(answered)
	if o.token != s && s.flow.reach() <= answered {
		o.heard(s)
	}
	o.mu.Unlock()
	if ask {
		s.wire.Ping()
	}
}

// settle ends the wait of w for an answer.
func (f *flow) settle(w *waiter, err error) {
	delete(f.awaiting, w)
	w.asked = nil
	w.outcome <- err
}

// greeted notes where a message of OnOpen ends in the stream of session s.
func (o *outbox) greeted(s *session, place uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.flow.greeted = place
}

// lost notes that session s answers nothing any more. What s took is known only when
// nobody writes into it: otherwise release ends the Flushes.
func (o *outbox) lost(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.flow.dead = true
	if o.token != s {
		o.lose(s)
	}
}

// lose ends each Flush for which a lost session took a message that the server did not
// answer for. The others go on with the next session. Nobody writes; mu is held.
func (o *outbox) lose(s *session) {
	if s.flow.lost {
		return
	}
	s.flow.lost = true
	switch s {
	case o.latest:
		o.latest = o.coming()
		if o.latest != nil {
			o.lanes.coming = nil
		}
	case o.coming():
		defer o.start() // a Flush may have waited for it, and goes on with the open session
		defer o.fold()
	}
	answered := s.wire.Answered()
	o.heard(s)
	for w, place := range s.flow.awaiting {
		if place <= answered {
			s.flow.settle(w, nil)
		} else {
			s.flow.settle(w, ErrMaybeSent)
		}
	}
	if o.load.flushes == 0 {
		return
	}
	o.remove(func(m *outbound) bool {
		if m.kind != kindFlush {
			return false
		}
		reach := s.flow.spoken
		if m.waiter.since == s {
			reach = max(reach, m.waiter.greeted)
		}
		if reach <= answered {
			return false
		}
		m.waiter.outcome <- ErrMaybeSent
		return true
	})
}

// Shutdown closes the client for good when all is sent, and waits for the end. From now
// on Send and Enqueue return [ErrClosed], but what was accepted before is sent, waiting
// Sends included, over a reconnect if need be; OnOpen may still send. Then the session is
// closed with code 1000, as by [Client.Close]. A suspended client waits for
// [Client.Resume] if anything is to be sent.
//
// [Client.Close], the end of Run's context, or a client that gives up cuts it short. When
// ctx ends, Shutdown returns, and the client goes on without it until all is sent or
// Close is called. Before Run, Shutdown is Close.
//
// The error is nil if nothing was left. If ctx ended, it wraps the context's error and
// tells how many messages are still to be sent; otherwise it is an [ErrNotSent] that
// tells how many were not sent. Each Send and [WithResult] tells of its own. Shutdown may
// be called at any time and more than once, but not inside a hook or a message handler,
// which it waits for, and least of all inside the function of [WithResult].
func (c *Client) Shutdown(ctx context.Context) error {
	drained := c.outbox.shutdown()
	c.mu.Lock()
	ran := c.ran
	c.mu.Unlock()
	switch {
	case !ran:
		c.stop(nil, StatusNormalClosure, "", true)
	case drained != nil:
		go c.closeWhen(drained)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.State() != StateClosed {
			return fmt.Errorf("resock: shutdown goes on with %s to send: %w", countMessages(c.outbox.remaining()), ctx.Err())
		}
		// Only outcomes are still to be told. They are not waited for: Shutdown may have
		// been called where one is told.
	}
	n := c.outbox.remaining()
	switch err := c.Err(); {
	case n == 0:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %s, when the client closed: %w", ErrNotSent, countMessages(n), err)
	}
	return fmt.Errorf("%w: %s, when the client closed", ErrNotSent, countMessages(n))
}

func countMessages(n int64) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// closeWhen closes the client when the outbox is drained, unless the client closes before.
// It runs on a goroutine of its own, since the caller of Shutdown may leave.
func (c *Client) closeWhen(drained <-chan struct{}) {
	select {
	case <-drained:
		c.stop(nil, StatusNormalClosure, "", true)
	case <-c.done:
	}
}

// shutdown seals the outbox. The first call returns a channel that is closed when all
// that was accepted is settled.
func (o *outbox) shutdown() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.sealLocked()
	drained := make(chan struct{})
	o.drained = drained
	o.changed()
	return drained
}

// remaining is how many of the messages that were accepted before the outbox was sealed
// are still to be sent, or were not sent.
func (o *outbox) remaining() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unsent.Load() - o.before + int64(o.load.messages())
}
