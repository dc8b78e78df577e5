package resock

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/ring"
	"github.com/resock/resock/internal/wire"
)

// outbound is an item of the outbound queue: a message, or a Flush.
type outbound struct {
	wire.Outgoing
	kind    kind
	expiry  time.Duration // by the outbox's clock, or 0
	result  func(error)   // the function of WithResult, or nil
	waiter  *waiter       // the Send or Flush that waits for the outcome, or nil
	session *session      // the only session that may take the item, or nil
}

// kind is what an outbound is.
type kind uint8

const (
	kindMessage kind = iota
	kindBeat         // a message of the heartbeat, worth nothing on another connection
	kindFlush        // waits for everything before it
	kindGone         // was given up, and only keeps its place
)

func newOutbound(typ MessageType, data []byte) outbound {
	return outbound{Outgoing: wire.Outgoing{Type: wire.Type(typ), Data: data}}
}

// waiter is a Send or a Flush that waits for its outcome. The outbox's mu guards
// everything but ctx, expiry and outcome.
type waiter struct {
	ctx     context.Context
	expiry  time.Duration // the message's, or 0
	outcome chan error    // has room for the one outcome

	batch *batch // the batch that holds the message, or nil if it is not in the queue
	at    int    // the index of the message in batch
	over  error  // why the waiting ended; the outcome of a message that comes back unsent

	since   *session // of a Flush: the latest session when it began, or nil
	greeted uint64   // of a Flush: flow.greeted of that session then
	asked   *session // of a Flush: the session that is to answer it, or nil
}

func newWaiter(ctx context.Context, expiry time.Duration) *waiter {
	return &waiter{ctx: ctx, expiry: expiry, outcome: make(chan error, 1)}
}

// settle reports one outcome of all messages, exactly once for each. The functions of
// [WithResult] are told before a Send returns.
func (o *outbox) settle(all []outbound, err error) {
	waited := false
	for i := range all {
		switch m := &all[i]; {
		case m.waiter != nil:
			waited = true
		case m.result != nil:
			o.tellers().tell(m.result, err)
		}
	}
	if !waited {
		return
	}
	o.awaitTold()
	for i := range all {
		if w := all[i].waiter; w != nil {
			w.outcome <- err
		}
	}
}

// outbox is the outbound queue. Whoever holds the token writes: a Send that finds the
// queue empty and the token free, else a goroutine of the session that drains the queue.
type outbox struct {
	clock       wire.Clock
	maxMessages int
	maxBytes    int
	counters    *counters
	limiter     interface{ Wait(context.Context) error } // or nil
	hooks       *hooks
	teller      atomic.Pointer[teller] // nil until there is a result to tell
	unsent      atomic.Int64           // messages that were accepted and certainly not sent

	// mu guards what follows, and each session's flow. It is separate from the client's
	// because every Send and Enqueue takes it.
	mu       sync.Mutex
	queue    ring.Ring[*batch] // no batch in it is empty
	load     load              // of the queue, and of what is early
	session  *session          // the session that takes messages, or nil
	latest   *session          // the session in OnOpen, open or closing, or nil
	lanes    *lanes            // nil without WithHandover
	given    uint64            // number of the last session in OnOpen
	token    *session          // that somebody writes into, or nil
	asked    *batch            // the batch that the limiter is asked for; nil once it has left the queue
	beats    []outbound        // messages of the heartbeat, which go ahead of the queue
	asking   bool              // somebody asks the limiter
	closed   bool              // no message is accepted any more
	finished bool              // no session comes any more
	before   int64             // unsent when closed was set
	drained  chan struct{}     // closed when all that was accepted is settled; nil before Shutdown, and after that
	idle     sync.Cond         // the queue, the session or the token changed

	sweeper *time.Timer
	sweepAt time.Duration // when the sweeper is due, or 0
}

// flow is what the outbox knows of a session. The outbox's mu guards it, except spoken,
// which the holder of the token sets.
type flow struct {
	stopped bool               // the session takes no more messages
	secret  bool               // the number was a failed connection's, and OnOpen has not used the session yet
	dead    bool               // the session is cut: it answers no more pings
	lost    bool               // every Flush was told what dead means for it
	unask   context.CancelFunc // ends the wait for the limiter, or nil

	// Places in the stream of bytes.
	greeted  uint64             // the end of the last message of OnOpen
	spoken   uint64             // the end of the last message of the outbox that the network began to take
	asked    uint64             // how far the last ping for a Flush asks
	awaiting map[*waiter]uint64 // how far each Flush that waits for an answer asks
}

func (o *outbox) now() time.Duration { return o.clock.Now() }

// expiry is when a message with a TTL expires, by the outbox's clock. A TTL of 0 is none,
// and so is an expiry of 0.
func (o *outbox) expiry(ttl time.Duration) time.Duration {
	if ttl == 0 {
		return 0
	}
	return o.now() + min(ttl, forever)
}

// send writes m at once if nobody else writes, or queues it and waits for the outcome.
func (o *outbox) send(ctx context.Context, m *outbound, session uint64) error {
	if err := ctx.Err(); err != nil {
		return notSent(err)
	}
	o.mu.Lock()
	if err := o.accept(m, session); err != nil {
		o.mu.Unlock()
		return err
	}
	lane := o.lane(m)
	if o.session != nil && o.token == nil && lane == &o.queue && lane.Len() == 0 && o.limiter == nil {
		s := o.session
		o.token = s
		o.mu.Unlock()
		if o.writeDirect(ctx, s, m) {
			return nil
		}
		return o.wait(m.waiter, notSent) // back in the queue, if it was not written
	}
	w := newWaiter(ctx, m.expiry)
	m.waiter = w
	o.push(o.tail(lane, len(m.Data)), m)
	o.start()
	o.mu.Unlock()
	return o.wait(w, notSent)
}

// accept rejects a message that cannot be taken at all, and binds it to the session with
// the given number, unless that is 0; mu is held.
func (o *outbox) accept(m *outbound, number uint64) error {
	switch {
	case o.closed:
		return ErrClosed
	case number == 0:
		return nil
	}
	for _, s := range []*session{o.latest, o.coming()} {
		if s != nil && s.id == number && !s.flow.stopped && !s.flow.secret {
			m.session = s // the connection: another may get the same number
			return nil
		}
	}
	return ErrSessionOver
}

// writeDirect writes the message of a Send that holds the token. It reports false when
// the outcome comes through m's waiter.
func (o *outbox) writeDirect(ctx context.Context, s *session, m *outbound) bool {
	err := s.write(m)
	if err == nil {
		err = s.wire.Flush()
	}
	if err == nil {
		o.counters.messagesOut.Add(1)
		s.flow.spoken = m.End()
		o.release()
		return true
	}
	m.waiter = newWaiter(ctx, m.expiry)
	b := newBatch()
	b.add(m)
	o.land(s, b, err)
	o.release()
	return false
}

// wait waits for the outcome of a queued Send or Flush. If its context ends first, wrap
// makes the error.
func (o *outbox) wait(w *waiter, wrap func(error) error) error {
	var expired <-chan time.Time
	if w.expiry != 0 {
		timer := time.NewTimer(w.expiry - o.now())
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case err := <-w.outcome:
		return err
	case <-w.ctx.Done():
		return o.leave(w, wrap(w.ctx.Err()))
	case <-expired:
		return o.leave(w, ErrExpired)
	}
}

// leave ends the wait of w with err. A message that is being written is waited for: its
// outcome is not known before.
func (o *outbox) leave(w *waiter, err error) error {
	o.mu.Lock()
	switch {
	case w.batch != nil:
		o.bury(w)
	case w.asked != nil:
		delete(w.asked.flow.awaiting, w)
		w.asked = nil
	default:
		w.over = err // if it comes back unsent
		o.mu.Unlock()
		return <-w.outcome
	}
	defer o.mu.Unlock()
	o.changed()
	return err
}

// bury gives up the item of w. Its place in the queue is kept until half of all places
// are such: otherwise many Sends that end together would scan the queue for each of them;
// mu is held.
func (o *outbox) bury(w *waiter) {
	b := w.batch
	o.unsent.Add(int64(b.load.messages()))
	o.load.sub(b.load)
	b.bury(w.at)
	o.load.add(b.load)
	o.unsent.Add(-int64(b.load.messages()))
	w.batch = nil
	if o.load.gone >= o.load.live {
		o.remove((*outbound).gone)
	}
}

// notSent wraps the reason for which a message was certainly not sent.
func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

// drop is refuse for messages that are taken out of the queue: when others see the queue
// empty, the teller must have the outcomes. It does not wait; mu is held.
func (o *outbox) drop(all []outbound, err error) {
	o.unsent.Add(int64(len(all)))
	for i := range all {
		switch m := &all[i]; {
		case m.waiter != nil:
			m.waiter.outcome <- err
		case m.result != nil:
			o.tellers().tell(m.result, err)
		}
	}
}

// tellers returns the teller, which most clients never need.
func (o *outbox) tellers() *teller {
	if t := o.teller.Load(); t != nil {
		return t
	}
	o.teller.CompareAndSwap(nil, &teller{hooks: o.hooks})
	return o.teller.Load()
}

// awaitTold waits until the outcomes that are known now are told, for patience at most.
func (o *outbox) awaitTold() {
	if t := o.teller.Load(); t != nil {
		t.wait()
	}
}

// allTold waits until all outcomes are told, however long that takes.
func (o *outbox) allTold() {
	if t := o.teller.Load(); t != nil {
		t.join()
	}
}

// refuse settles messages that were accepted and are certainly not sent.
func (o *outbox) refuse(all []outbound, err error) {
	o.unsent.Add(int64(len(all)))
	o.settle(all, err)
}

// enqueue queues m with a copy of data, if there is room.
func (o *outbox) enqueue(m *outbound, data []byte, session uint64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.accept(m, session); err != nil {
		return err
	}
	if o.load.count >= o.maxMessages || len(data) > o.maxBytes-o.load.bytes {
		return ErrQueueFull
	}
	if m.expiry != 0 {
		o.sweepBy(m.expiry)
	}
	b := o.tail(o.lane(m), len(data))
	m.Data = b.copy(data)
	o.push(b, m)
	o.start()
	return nil
}

// lane returns the queue for a message; mu is held.
func (o *outbox) lane(m *outbound) *ring.Ring[*batch] {
	if m.session != nil && m.session == o.coming() {
		return &o.lanes.early
	}
	return &o.queue
}

// tail returns the batch for the next message in a queue, of n bytes; mu is held.
func (o *outbox) tail(queue *ring.Ring[*batch], n int) *batch {
	if last := queue.Len() - 1; last >= 0 && o.limiter == nil && (*queue.At(last)).fits(n) {
		return *queue.At(last)
	}
	b := new(batch) // grows as needed: it may be kept for long while the client is down
	if o.session != nil || queue.Len() > 0 {
		b = newBatch()
	}
	queue.PushBack(b)
	return b
}

// push adds a message to a batch of the queue; mu is held.
func (o *outbox) push(b *batch, m *outbound) {
	if m.plain() {
		b.addPlain(m)
		o.load.addPlain(len(m.Data))
		return
	}
	o.load.add(b.add(m))
	if w := m.waiter; w != nil {
		w.batch, w.at = b, len(b.items)-1
	}
}

// pop takes the first batch out of the queue, without the items that were given up; mu is
// held.
func (o *outbox) pop() *batch {
	b := o.queue.PopFront()
	o.removed(b)
	o.load.sub(b.load)
	if b.load.gone > 0 {
		b.remove((*outbound).gone)
	}
	if b.awaited() {
		for i := range b.items {
			if w := b.items[i].waiter; w != nil {
				w.batch = nil
			}
		}
	}
	return b
}

// removed notes that a batch left the queue, so that the limiter's answer is not for it;
// mu is held.
func (o *outbox) removed(b *batch) {
	if o.asked == b {
		o.asked = nil
	}
}

// front returns the first batch of the queue that holds more than items that were given
// up, or nil; mu is held.
func (o *outbox) front() *batch {
	for o.queue.Len() > 0 {
		if b := *o.queue.At(0); b.load.live > 0 {
			return b
		}
		o.pop().recycle()
	}
	return nil
}

// remove removes the queued items for which drop is true, and those that were given up;
// mu is held.
func (o *outbox) remove(drop func(*outbound) bool) {
	dropped := func(m *outbound) bool {
		if m.kind == kindGone {
			return true
		}
		if !drop(m) {
			return false
		}
		if m.waiter != nil {
			m.waiter.batch = nil
		}
		return true
	}
	keep := func(next **batch) bool {
		b := *next
		o.load.sub(b.load)
		b.remove(dropped)
		o.load.add(b.load)
		left := len(b.items) > 0
		if !left {
			o.removed(b)
			b.recycle()
		}
		return left
	}
	o.queue.Filter(keep)
	if o.lanes != nil {
		o.lanes.early.Filter(keep)
	}
}

// start makes sure that somebody writes what is queued, or asks the limiter for it; mu is
// held.
func (o *outbox) start() {
	s := o.session
	if s == nil || o.token != nil {
		return
	}
	if len(o.beats) == 0 {
		b := o.front()
		if b == nil {
			return
		}
		if !o.passes(b) {
			o.startAsking(s)
			return
		}
	}
	o.token = s
	s.spawn(func() { o.drain(s) })
}

// drain writes what is queued until nothing is left or the session ends. The token is
// held.
func (o *outbox) drain(s *session) {
	for b := o.take(s); b != nil && o.write(s, b); {
		if t := o.teller.Load(); t != nil && t.untold() > maxUntold {
			t.wait()
		}
		b = o.take(s)
	}
	o.awaitTold()
	o.release()
}

// take returns the next batch for session s, beats first, or nil.
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
	if b := o.front(); b == nil || !o.passes(b) {
		return nil
	}
	return o.pop()
}

// write writes a batch and settles it. It reports whether session s takes more.
func (o *outbox) write(s *session, b *batch) bool {
	err := error(nil)
	if b.load.flushes > 0 {
		err = o.probe(s, b)
	} else {
		o.refuse(b.expire(o.now()), ErrExpired)
		if err = s.writeAll(b.items); err == nil {
			if len(b.items) > 0 && b.items[0].kind == kindBeat {
				s.wire.Mark()
			}
			err = s.wire.Flush()
		}
	}
	o.land(s, b, err)
	return err == nil
}

// land settles the messages of a batch after a write. A message is sent if the network
// took all its bytes, goes back to the front of the queue if it took none, and gets
// ErrMaybeSent otherwise.
func (o *outbox) land(s *session, b *batch, err error) {
	if err == nil {
		s.flow.spoke(b.items)
		o.sent(b.items)
		if b.watched {
			o.settle(b.items, nil)
		}
		b.recycle()
		return
	}
	// The session is detached, and takes no more bytes, before anything is requeued: no
	// message meets this connection again.
	o.detach(s)
	taken := s.wire.Taken()
	tried := len(b.items)
	for tried > 0 && b.items[tried-1].Untouched(taken) {
		tried--
	}
	begun := slices.Clone(b.items[:tried])
	s.flow.spoke(begun)
	o.requeue(s, b, tried)
	whole := 0
	for whole < len(begun) && begun[whole].Taken(taken) {
		whole++
	}
	o.sent(begun[:whole])
	o.settle(begun[:whole], nil)
	o.settle(begun[whole:], ErrMaybeSent)
}

// spoke notes where the last message ends that the network began to take. The token is
// held.
func (f *flow) spoke(all []outbound) {
	if n := len(all); n > 0 && all[n-1].kind == kindMessage {
		f.spoken = all[n-1].End()
	}
}

// sent counts messages that the network has taken. Either all of them are beats, or none.
func (o *outbox) sent(all []outbound) {
	if len(all) > 0 && all[0].kind != kindBeat {
		o.counters.messagesOut.Add(uint64(len(all)))
	}
}

// requeue puts what session s did not take of a batch, all but its first tried items,
// back to the front of the queue. Beats, messages whose Send has left, and messages bound
// to s are not sent any more.
func (o *outbox) requeue(s *session, b *batch, tried int) {
	var bound []outbound
	o.mu.Lock()
	b.remove(func(m *outbound) bool {
		switch {
		case tried > 0:
			tried--
		case m.kind == kindBeat:
		case m.waiter != nil && m.waiter.over != nil:
			o.unsent.Add(1)
			m.waiter.outcome <- m.waiter.over
		case m.session == s:
			bound = append(bound, *m)
		default:
			return false
		}
		return true
	})
	o.putBack(b)
	o.drop(bound, ErrSessionOver)
	o.mu.Unlock()
}

// putBack puts a batch to the front of the queue; mu is held.
func (o *outbox) putBack(b *batch) {
	if len(b.items) == 0 {
		b.recycle()
		return
	}
	o.queue.PushFront(b)
	o.load.add(b.load)
	for i := range b.items {
		m := &b.items[i]
		if m.waiter != nil {
			m.waiter.batch, m.waiter.at = b, i
		} else if m.expiry != 0 {
			o.sweepBy(m.expiry)
		}
	}
}

// release gives the token back.
func (o *outbox) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.token
	o.token = nil
	if s.flow.dead {
		o.lose(s)
	}
	o.changed()
	o.start()
}

// changed wakes whoever waits for the queue, the session or the token to change; mu is
// held.
func (o *outbox) changed() {
	o.idle.Broadcast()
	if o.drained != nil && o.token == nil && o.load.messages() == 0 {
		close(o.drained)
		o.drained = nil
	}
}

// beat sends a message of the heartbeat, ahead of the queue.
func (o *outbox) beat(s *session, typ MessageType, data []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.session == s {
		m := newOutbound(typ, slices.Clone(data))
		m.kind = kindBeat
		o.beats = append(o.beats, m)
		o.start()
	}
}

// prepare makes session s, which is in OnOpen, the one that messages may be bound to. If
// its number was that of a connection whose OnOpen failed, a message that names it may
// still mean that connection: s is secret until its hook uses it, or it is open.
func (o *outbox) prepare(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !s.flow.stopped {
		s.flow.secret = s.id == o.given
		o.given = s.id
		if o.lanes != nil && o.latest != nil {
			o.lanes.coming = s
		} else {
			o.latest = s
		}
	}
}

// disclose notes that the application knows session s.
func (o *outbox) disclose(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	s.flow.secret = false
}

// attach lets messages flow into session s, unless it was detached before.
func (o *outbox) attach(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.flow.stopped {
		return
	}
	o.attachLocked(s)
}

// attachLocked is attach; mu is held.
func (o *outbox) attachLocked(s *session) {
	o.fold()
	o.session, o.latest = s, s
	s.flow.secret = false
	o.start()
}

// fold ends the wait for the session that was coming, and puts what waited for it ahead of
// all else; mu is held.
func (o *outbox) fold() {
	l := o.lanes
	if l == nil {
		return
	}
	l.coming = nil
	for last := l.early.Len() - 1; last >= 0; last-- {
		o.queue.PushFront(*l.early.At(last))
		l.early.Cut(last, 1)
	}
}

// detach stops the flow into session s for good. What is in flight lands; queued messages
// that are bound to s get ErrSessionOver.
func (o *outbox) detach(s *session) {
	o.mu.Lock()
	if s.flow.stopped {
		o.mu.Unlock()
		return
	}
	s.flow.stopped = true
	unask := s.flow.unask
	if o.session == s {
		o.session = nil
		o.beats = nil
	}
	var bound []outbound
	o.remove(func(m *outbound) bool {
		over := m.session == s
		if over {
			bound = append(bound, *m)
		}
		return over
	})
	o.drop(bound, ErrSessionOver)
	o.changed()
	o.mu.Unlock()
	if unask != nil {
		unask()
	}
}

// flush waits until all that is queued was sent, or session s takes no more.
func (o *outbox) flush(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.session == s && (o.token != nil || o.queue.Len() > 0) {
		o.idle.Wait()
	}
}

// join waits until nobody writes into a session any more, which is detached.
func (o *outbox) join(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.token == s {
		o.idle.Wait()
	}
}

// seal makes Send and Enqueue return ErrClosed. What is queued stays.
func (o *outbox) seal() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealLocked()
}

// sealLocked is seal; mu is held.
func (o *outbox) sealLocked() {
	if !o.closed {
		o.closed, o.before = true, o.unsent.Load()
	}
}

// finish ends the queue: what is left gets ErrClosed.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealLocked()
	o.finished = true
	if o.sweeper != nil {
		o.sweeper.Stop()
	}
	o.fold()
	for o.queue.Len() > 0 {
		b := o.pop()
		o.mu.Unlock()
		o.unsent.Add(int64(b.load.messages()))
		o.settle(b.items, ErrClosed)
		b.recycle()
		o.mu.Lock()
	}
}

// sweepEvery is the least time between two sweeps.
const sweepEvery = 10 * time.Millisecond

// sweepBy makes sure that a message that expires at the time at is dropped soon after, and
// not only when its turn comes; mu is held.
func (o *outbox) sweepBy(at time.Duration) {
	if o.sweepAt != 0 && o.sweepAt <= at || o.finished {
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

// sweep drops the expired messages of the queue.
func (o *outbox) sweep() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sweepAt = 0
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
	o.drop(expired, ErrExpired)
	o.changed()
}

// size returns how many messages of Enqueue are queued, and their bytes.
func (o *outbox) size() (messages, bytes int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.load.count, o.load.bytes
}
