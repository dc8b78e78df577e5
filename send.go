package resock

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
	"unicode/utf8"
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
	m := outbound{typ: typ}
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
	return c.outbox.enqueue(m, data)
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
	data   []byte
	typ    MessageType
	expiry time.Duration // of the outbox's clock, or 0
	result func(error)   // of Enqueue, or nil
	waiter *waiter       // of Send, or nil; beatWaiter for the heartbeat
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
	clock
	maxMessages int
	maxBytes    int
	counters    *counters

	mu      sync.Mutex
	queue   ring[outbound]
	count   int // messages of Enqueue in queue, and their bytes
	bytes   int
	session *session // that takes messages, or nil
	token   bool     // somebody writes
	beats   []outbound
	closed  bool      // no message is accepted any more
	idle    sync.Cond // the queue, the session, the token or sweeping changed

	block []byte // for copies of small messages
	grow  int    // size of the last block

	sweeper  *time.Timer
	sweepAt  time.Duration // when it fires, or 0
	sweeping bool

	flight []flight // of the holder of the token
}

// Memory for bursts, all zero. It is shared by all clients: an idle one holds none.
var (
	queues  = sync.Pool{New: func() any { items := make([]outbound, burst); return &items }}
	flights = sync.Pool{New: func() any { items := make([]flight, 0, burst/2); return &items }}
)

// flight is a message that was taken from the queue and whose outcome is open:
// bytes start to end of the stream, once it is written.
type flight struct {
	outbound
	start, end uint64
}

// untouched reports whether the network has nothing of a message, of which it took
// the stream up to written. When the closing handshake refused the message, its
// place is empty, and the close frame may already stand behind it.
func untouched(start, end, written uint64) bool { return start == end || start >= written }

func (o *outbox) send(ctx context.Context, typ MessageType, data []byte) error {
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	m := outbound{typ: typ, data: data}
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
	o.queue.pushBack(m)
	o.start()
	o.mu.Unlock()
	return o.wait(m.waiter)
}

// writeDirect writes the message of a Send that holds the token. It reports
// false when the outcome comes by m's waiter.
func (o *outbox) writeDirect(ctx context.Context, s *session, m *outbound) bool {
	start, end, err := s.write(m.typ, m.data)
	if err == nil {
		err = s.wire.flush()
	}
	if err == nil {
		o.counters.messagesOut.Add(1)
		o.release()
		return true
	}
	m.waiter = newWaiter(ctx)
	o.flight = append(o.flight, flight{*m, start, end})
	o.land(s, err)
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
	o.queue.filter(func(m *outbound) bool {
		queued = queued || m.waiter == w
		return m.waiter != w
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

func (o *outbox) enqueue(m outbound, data []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.closed:
		return ErrClosed
	case o.count >= o.maxMessages || len(data) > o.maxBytes-o.bytes:
		return ErrQueueFull
	}
	m.data = o.copy(data)
	if m.expiry != 0 {
		o.sweepBy(m.expiry)
	}
	o.count++
	o.bytes += len(data)
	o.queue.pushBack(m)
	o.start()
	return nil
}

// copy carves copies of small messages from a block that grows with the burst.
func (o *outbox) copy(data []byte) []byte {
	n := len(data)
	if n > maxCarved {
		return append([]byte(nil), data...)
	}
	if n > len(o.block) {
		o.grow = min(blockSize, max(n, 2*o.grow))
		o.block = make([]byte, o.grow)
	}
	own := o.block[:n:n]
	o.block = o.block[n:]
	copy(own, data)
	return own
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
	for {
		err := o.load(s)
		if len(o.flight) == 0 && err == nil {
			break
		}
		if err == nil {
			err = s.wire.flush()
		}
		o.land(s, err)
		if err != nil {
			break
		}
	}
	o.release()
}

// load writes messages into the wire, up to one flush of them.
func (o *outbox) load(s *session) error {
	if o.flight == nil {
		o.flight = *flights.Get().(*[]flight)
	}
	for _, m := range o.take(s) {
		m.settle(ErrExpired)
	}
	return s.writeAll(o.flight)
}

// take moves messages for session s into flight, beats first, as many as one
// flush holds. It returns the expired ones that it met.
func (o *outbox) take(s *session) (expired []outbound) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session != s {
		return nil
	}
	size := 0
	for _, m := range o.beats {
		size += maskedSize(len(m.data))
		o.flight = append(o.flight, flight{outbound: m})
	}
	o.beats = nil
	for o.queue.len > 0 {
		// What does not fit into the buffer of the wire would move all of it.
		next := maskedSize(len(o.queue.at(0).data))
		if size > 0 && size+next > maxFlush {
			break
		}
		m := o.queue.popFront()
		o.forget(&m)
		if m.expiry != 0 && m.expiry <= o.now() {
			expired = append(expired, m)
			continue
		}
		size += next
		o.flight = append(o.flight, flight{outbound: m})
	}
	return expired
}

// forget takes m out of the count.
func (o *outbox) forget(m *outbound) {
	if m.waiter == nil {
		o.count--
		o.bytes -= len(m.data)
	}
	if o.queue.len == 0 {
		o.block, o.grow = nil, 0
	}
}

// land settles the messages in flight: sent if the network took all their
// bytes, back to the front of the queue if it took none, and else unknown.
func (o *outbox) land(s *session, err error) {
	flight := o.flight
	o.flight = flight[:0]
	if err == nil {
		o.counters.messagesOut.Add(uint64(len(flight)))
		for i := range flight {
			flight[i].settle(nil)
		}
		clear(flight)
		return
	}
	// The session is detached and takes no more bytes before anything is
	// requeued: no message meets this connection again.
	o.detach(s)
	s.writeFailed(err)
	written := s.wire.writtenBytes()
	tried := len(flight)
	for tried > 0 && untouched(flight[tried-1].start, flight[tried-1].end, written) {
		tried--
	}
	o.requeue(flight[tried:])
	for i := range flight[:tried] {
		if m := &flight[i]; m.end <= written {
			o.counters.messagesOut.Add(1)
			m.settle(nil)
		} else {
			m.settle(ErrMaybeSent)
		}
	}
	clear(flight)
}

// requeue puts messages back to the front of the queue, but for those that
// nobody waits for any more.
func (o *outbox) requeue(unsent []flight) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := len(unsent) - 1; i >= 0; i-- {
		m := unsent[i].outbound
		switch {
		case m.waiter == beatWaiter:
			continue
		case m.waiter == nil:
			o.count++
			o.bytes += len(m.data)
		case m.waiter.ctx.Err() != nil:
			m.settle(notSent(m.waiter.ctx.Err()))
			continue
		}
		o.queue.pushFront(m)
		if m.expiry != 0 {
			o.sweepBy(m.expiry)
		}
	}
}

// release gives the token back.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if cap(o.flight) > 16 { // a burst's memory is not kept
		spare := o.flight
		flights.Put(&spare)
		o.flight = nil
	}
	o.token = false
	o.idle.Broadcast()
	o.start()
}

// beat sends a message of the heartbeat, ahead of the queue.
func (o *outbox) beat(s *session, typ MessageType, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session == s {
		o.beats = append(o.beats, outbound{typ: typ, data: slices.Clone(data), waiter: beatWaiter})
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
	for o.sweeping {
		o.idle.Wait()
	}
	for o.queue.len > 0 {
		m := o.queue.popFront()
		o.forget(&m)
		o.mu.Unlock()
		m.settle(ErrClosed)
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
	o.queue.filter(func(m *outbound) bool {
		switch {
		case m.expiry == 0:
		case m.expiry <= now:
			expired = append(expired, *m)
			return false
		case earliest == 0 || m.expiry < earliest:
			earliest = m.expiry
		}
		return true
	})
	for i := range expired {
		o.forget(&expired[i])
	}
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
