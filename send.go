package resock

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/resock/resock/internal/wire"
)

// Send sends one message and returns nil once it was handed to the network on
// an open connection. While the client is down it waits for the next session.
//
// ctx bounds the waiting only: once writing began, the write timeout does
// ([WithWriteTimeout]). An error is an [ErrNotSent], after which the message may
// safely be sent again, or [ErrMaybeSent]. [ErrClosed] is an ErrNotSent.
//
// Messages of one goroutine keep their order. Send does not keep data.
func (c *Client) Send(ctx context.Context, typ MessageType, data []byte) error {
	if err := checkMessage("Send", typ, data); err != nil {
		return err
	}
	return c.outbox.send(ctx, typ, data)
}

// Enqueue queues one message and returns at once. Queued messages survive
// reconnects and go out in order, after the OnOpen hook. What may have been sent
// is never sent again: a message is sent at most once.
//
// An error means that the message was not queued: [ErrQueueFull], [ErrClosed] or
// an [*OptionError]. The final outcome is told by [WithResult]. Enqueue copies
// data.
func (c *Client) Enqueue(typ MessageType, data []byte, opts ...EnqueueOption) error {
	if err := checkMessage("Enqueue", typ, data); err != nil {
		return err
	}
	m := newOutbound(typ, nil)
	if len(opts) > 0 {
		var options enqueueOptions
		for _, opt := range opts {
			if opt != nil {
				opt.applyEnqueue(&options)
			}
		}
		if options.expires && options.ttl <= 0 {
			return &OptionError{"WithTTL", options.ttl, "must be positive"}
		}
		if options.expires {
			m.expiry = c.outbox.now() + min(options.ttl, math.MaxInt64/2)
		}
		m.result = options.result
	}
	return c.outbox.enqueue(&m, data)
}

// checkMessage rejects what a server would answer with a close.
func checkMessage(method string, typ MessageType, data []byte) error {
	if typ != MessageText && typ != MessageBinary {
		return &messageError{&OptionError{method, int(typ), "the message type must be MessageText or MessageBinary"}}
	}
	if typ == MessageText && !utf8.Valid(data) {
		return &messageError{&OptionError{method, MessageText, "the text is not valid UTF-8 (RFC 6455, section 5.6)"}}
	}
	return nil
}

// messageError is a message that cannot be sent, and so an ErrNotSent.
type messageError struct{ *OptionError }

func (e *messageError) Unwrap() []error { return []error{ErrNotSent, e.OptionError} }

// outbound is one message on its way out.
type outbound struct {
	wire.Outgoing
	expiry time.Duration // of the outbox's clock, or 0
	result func(error)   // of Enqueue, or nil
	waiter *waiter       // of Send, or nil; beatWaiter for the heartbeat
}

func newOutbound(typ MessageType, data []byte) outbound {
	return outbound{Outgoing: wire.Outgoing{Type: wire.Type(typ), Data: data}}
}

// beatWaiter marks messages of the heartbeat: on another connection they are worth
// nothing, and nobody waits for them.
var beatWaiter = new(waiter)

// waiter is a Send that waits for the outcome of its message.
type waiter struct {
	ctx     context.Context
	outcome chan error // buffered
}

func newWaiter(ctx context.Context) *waiter { return &waiter{ctx, make(chan error, 1)} }

// settle reports the outcome, exactly once per message.
func (m *outbound) settle(err error) {
	switch {
	case m.waiter == beatWaiter:
	case m.waiter != nil:
		m.waiter.outcome <- err
	case m.result != nil:
		m.result(err)
	}
}

// outbox is the one outbound queue. Messages are written by whoever holds the
// token: a Send that finds the queue empty and the token free, else a goroutine
// of the session that drains the queue.
type outbox struct {
	clock       wire.Clock
	maxMessages int
	maxBytes    int
	counters    *counters

	mu      sync.Mutex
	queue   ring[*batch] // none is empty
	count   int          // messages of Enqueue in queue, and their bytes
	bytes   int
	session *session // that takes messages, or nil
	token   bool     // somebody writes
	beats   []outbound
	closed  bool      // no message is accepted any more
	idle    sync.Cond // the queue, the session, the token or sweeping changed

	sweeper  *time.Timer
	sweepAt  time.Duration // when it fires, or 0
	sweeping bool
}

func (o *outbox) now() time.Duration { return o.clock.Now() }

func (o *outbox) send(ctx context.Context, typ MessageType, data []byte) error {
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	m := newOutbound(typ, data)
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return ErrClosed
	}
	if o.session != nil && !o.token && o.queue.len == 0 {
		s := o.session
		o.token = true
		o.mu.Unlock()
		if o.writeDirect(ctx, s, &m) {
			return nil
		}
		return o.wait(m.waiter) // what was not written waits for the next session
	}
	m.waiter = newWaiter(ctx)
	o.tail(len(data)).add(&m)
	o.start()
	o.mu.Unlock()
	return o.wait(m.waiter)
}

// writeDirect writes the message of a Send that holds the token. It reports
// false when the outcome comes by m's waiter.
func (o *outbox) writeDirect(ctx context.Context, s *session, m *outbound) bool {
	err := s.write(m)
	if err == nil {
		err = s.wire.Flush()
	}
	if err == nil {
		o.counters.messagesOut.Add(1)
		o.release()
		return true
	}
	m.waiter = newWaiter(ctx)
	b := newBatch()
	b.add(m)
	o.land(s, b, err)
	o.release()
	return false
}

// wait waits for the outcome of a queued Send.
func (o *outbox) wait(w *waiter) error {
	select {
	case err := <-w.outcome:
		return err
	case <-w.ctx.Done():
	}
	o.mu.Lock()
	queued := false
	o.remove(func(m *outbound) bool {
		queued = queued || m.waiter == w
		return m.waiter == w
	})
	o.idle.Broadcast()
	o.mu.Unlock()
	if queued {
		return notSent(w.ctx.Err())
	}
	return <-w.outcome // being written; requeue minds that ctx ended
}

// notSent says why a message was certainly not sent.
func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

func (o *outbox) enqueue(m *outbound, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ErrClosed
	case o.count >= o.maxMessages || len(data) > o.maxBytes-o.bytes:
		return ErrQueueFull
	}
	if m.expiry != 0 {
		o.sweepBy(m.expiry)
	}
	b := o.tail(len(data))
	m.Data = b.copy(data)
	b.add(m)
	o.count++
	o.bytes += len(data)
	o.start()
	return nil
}

// tail returns the batch for the next message, of n bytes; mu is held.
func (o *outbox) tail(n int) *batch {
	if last := o.queue.len - 1; last >= 0 && (*o.queue.at(last)).fits(n) {
		return *o.queue.at(last)
	}
	b := new(batch) // grows as needed: while the client is down it may stay for long
	if o.session != nil || o.queue.len > 0 {
		b = newBatch()
	}
	o.queue.pushBack(b)
	return b
}

// remove removes the queued messages for which drop is true; mu is held.
func (o *outbox) remove(drop func(*outbound) bool) {
	o.queue.filter(func(next **batch) bool {
		b := *next
		o.count -= b.count
		o.bytes -= b.bytes
		b.remove(drop)
		o.count += b.count
		o.bytes += b.bytes
		left := len(b.items) > 0
		if !left {
			b.recycle()
		}
		return left
	})
}

// start sees that somebody writes what is queued; mu is held.
func (o *outbox) start() {
	if s := o.session; s != nil && !o.token && (o.queue.len > 0 || len(o.beats) > 0) {
		o.token = true
		s.spawn(func() { o.drain(s) })
	}
}

// drain writes what is queued until nothing is left or the session ends.
// The token is held.
func (o *outbox) drain(s *session) {
	for b := o.take(s); b != nil && o.write(s, b); {
		b = o.take(s)
	}
	o.release()
}

// take takes the next batch for session s, beats first, or nil.
func (o *outbox) take(s *session) *batch {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session != s {
		return nil
	}
	if len(o.beats) > 0 {
		b := newBatch()
		for i := range o.beats {
			b.add(&o.beats[i])
		}
		o.beats = nil
		return b
	}
	if o.queue.len == 0 {
		return nil
	}
	b := o.queue.popFront()
	o.count -= b.count
	o.bytes -= b.bytes
	return b
}

// write writes a batch and settles it. It reports whether session s takes more.
func (o *outbox) write(s *session, b *batch) bool {
	b.expire(o.now())
	err := s.writeAll(b.items)
	if err == nil {
		err = s.wire.Flush()
	}
	o.land(s, b, err)
	return err == nil
}

// land settles the messages of a batch: sent if the network took all their
// bytes, back to the front of the queue if it took none, and else unknown.
func (o *outbox) land(s *session, b *batch, err error) {
	if err == nil {
		o.counters.messagesOut.Add(uint64(len(b.items)))
		b.settle(nil)
		b.recycle()
		return
	}
	// The session is detached and takes no more bytes before anything is
	// requeued: no message meets this connection again.
	o.detach(s)
	taken := s.wire.Taken()
	tried := len(b.items)
	for tried > 0 && b.items[tried-1].Untouched(taken) {
		tried--
	}
	begun := slices.Clone(b.items[:tried])
	o.requeue(b, tried)
	for i := range begun {
		if m := &begun[i]; m.Taken(taken) {
			o.counters.messagesOut.Add(1)
			m.settle(nil)
		} else {
			m.settle(ErrMaybeSent)
		}
	}
}

// requeue puts a batch back to the front of the queue, but for its first tried
// items and those that nobody waits for any more.
func (o *outbox) requeue(b *batch, tried int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b.remove(func(m *outbound) bool {
		if tried > 0 {
			tried--
			return true
		}
		if m.waiter == nil || m.waiter == beatWaiter || m.waiter.ctx.Err() == nil {
			return m.waiter == beatWaiter
		}
		m.settle(notSent(m.waiter.ctx.Err()))
		return true
	})
	if len(b.items) == 0 {
		b.recycle()
		return
	}
	o.queue.pushFront(b)
	o.count += b.count
	o.bytes += b.bytes
	for i := range b.items {
		if at := b.items[i].expiry; at != 0 {
			o.sweepBy(at)
		}
	}
}

// release gives the token back.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.token = false
	o.idle.Broadcast()
	o.start()
}

// beat sends a message of the heartbeat, ahead of the queue.
func (o *outbox) beat(s *session, typ MessageType, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session == s {
		m := newOutbound(typ, slices.Clone(data))
		m.waiter = beatWaiter
		o.beats = append(o.beats, m)
		o.start()
	}
}

// attach lets messages flow into session s.
func (o *outbox) attach(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.session = s
	o.start()
}

// detach stops the flow into session s. What is in flight lands.
func (o *outbox) detach(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session == s {
		o.session = nil
		o.beats = nil
		o.idle.Broadcast()
	}
}

// flush returns when all that was queued is sent, or session s takes no more.
func (o *outbox) flush(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.session == s && (o.token || o.queue.len > 0) {
		o.idle.Wait()
	}
}

// join returns when nobody writes any more into a session that is detached.
func (o *outbox) join() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.token {
		o.idle.Wait()
	}
}

// seal makes Send and Enqueue return ErrClosed; what is queued stays.
func (o *outbox) seal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
}

// finish ends the queue: whatever is left was not sent.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	if o.sweeper != nil {
		o.sweeper.Stop()
	}
	for o.sweeping || o.queue.len > 0 {
		if o.sweeping {
			o.idle.Wait()
			continue
		}
		b := o.queue.popFront()
		o.count -= b.count
		o.bytes -= b.bytes
		o.mu.Unlock()
		b.settle(ErrClosed)
		b.recycle()
		o.mu.Lock()
	}
}

// sweepEvery is the least time between two looks for expired messages.
const sweepEvery = 10 * time.Millisecond

// sweepBy sees that expired messages are dropped soon after the time at, and
// not only when their turn comes; mu is held.
func (o *outbox) sweepBy(at time.Duration) {
	if o.sweepAt != 0 && o.sweepAt <= at || o.closed {
		return
	}
	o.sweepAt = at
	wait := max(at-o.now(), sweepEvery)
	if o.sweeper == nil {
		o.sweeper = time.AfterFunc(wait, o.sweep)
		return
	}
	o.sweeper.Reset(wait)
}

// sweep drops expired messages.
func (o *outbox) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sweeping {
		return
	}
	o.sweeping, o.sweepAt = true, 0
	var expired []outbound
	earliest, now := time.Duration(0), o.now()
	o.remove(func(m *outbound) bool {
		switch {
		case m.expiry == 0:
		case m.expiry <= now:
			expired = append(expired, *m)
			return true
		case earliest == 0 || m.expiry < earliest:
			earliest = m.expiry
		}
		return false
	})
	if earliest != 0 {
		o.sweepBy(earliest)
	}
	o.mu.Unlock()
	for i := range expired {
		expired[i].settle(ErrExpired)
	}
	o.mu.Lock()
	o.sweeping = false
	o.idle.Broadcast()
	if o.sweepAt != 0 && !o.closed { // the timer may have fired meanwhile, in vain
		o.sweeper.Reset(max(o.sweepAt-o.now(), sweepEvery))
	}
}

// size tells what is queued.
func (o *outbox) size() (messages, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.count, o.bytes
}
