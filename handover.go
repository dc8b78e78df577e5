package resock

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/ring"
)

// A handover replaces a session that lives: the next one is dialed and registered before
// the old one ends. Only for that the state machine runs while a session is open:
//
//	Open ──Handover──▶ Open, dialing ──registered──▶ Open, closing the old one ──▶ Connecting ─▶ Open
//	  ▲                   │      │                             its end
//	  └──────failed───────┘      └─the old one ended: the attempt goes on─▶ Connecting
//
// The session that is to be replaced belongs to its reader. When the reader is done with
// it, or is taken from it, the state machine is woken and takes it down. All else is as
// in a reconnect: so are the events.

// renewal tells whether a session is being replaced; the session's mu guards it.
type renewal uint8

const (
	renewalNone     renewal = iota
	renewalAsked            // before the session was handed to its reader
	renewalUnderWay         // the state machine runs; also after the session's end
)

// handover is what a client keeps for WithHandover.
type handover struct {
	// These belong to the state machine.
	old    *session // that is being replaced, until it is taken down; or nil
	fate   step     // what follows the end of the session that was being replaced
	handed bool     // its successor has its place
	robbed bool     // the server ended it

	closing closing       // how the session is to be closed, once the client is; its mu guards this
	count   atomic.Uint64 // sessions that were replaced
	rivals  atomic.Int32  // sessions in a row that the server ended when their successor registered
}

// closing is how a session is to be closed.
type closing struct {
	code   StatusCode
	reason string
	flush  bool
}

// lanes is what the outbox keeps for WithHandover; its mu guards it.
type lanes struct {
	early    ring.Ring[*batch] // what is bound to the session that is coming, and each Flush behind that
	coming   *session          // in OnOpen while there is a latest one, or nil
	past     *session          // was replaced before the server had answered for all; nil once it is lost, or never was
	settling *session          // that settled is about
	settled  chan struct{}     // closed when the server has answered for all, or the session is lost; or nil
}

// maxRivals is how many sessions in a row may end when their successor registers. Then the
// server allows one session only, and a handover is a way to lose it.
const maxRivals = 3

// Handover replaces the session that is open as [WithHandover] does, for a server that
// asks to move, say. While another handover is under way, or no session is open, it does
// nothing. There is at most one attempt per initial delay of [WithBackoff]. Without
// WithHandover, and where Stats.HandoverOff is set, it is [Client.Reconnect].
func (c *Client) Handover() {
	c.mu.Lock()
	s, wanted := c.session, c.intent
	c.mu.Unlock()
	switch {
	case !c.handsOver():
		c.Reconnect()
	case s != nil && wanted.allows() && !wanted.reconnect:
		s.renew()
	}
}

// handsOver reports whether sessions are replaced while they live.
func (c *Client) handsOver() bool {
	h := c.machine.handover
	return h != nil && h.rivals.Load() < maxRivals
}

// predecessor returns the number of the session that s will replace while that is open.
func (c *Client) predecessor(s *session) uint64 {
	c.mu.Lock()
	old := c.session
	c.mu.Unlock()
	if old == nil || old == s {
		return 0
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	if old.ending != nil || old.overLocked() {
		return 0
	}
	return old.id
}

// outlived ends a session that has reached WithMaxSessionAge.
func (c *Client) outlived(s *session) {
	if !c.handsOver() {
		s.close(StatusNormalClosure, "", false)
		return
	}
	s.renew()
}

// renew starts a handover of the session, unless there is one.
func (s *session) renew() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renewLocked()
}

// renewLocked is renew; mu is held.
func (s *session) renewLocked() {
	switch {
	case s.renewal != renewalNone, s.finished, s.ending != nil, s.overLocked():
	case s.reader == readerNone:
		s.renewal = renewalAsked
	default:
		s.renewal = renewalUnderWay
		go s.client.machine.handOver(s)
	}
}

// overLocked reports whether the state machine is to take the session down; mu is held.
func (s *session) overLocked() bool { return s.reader == readerLeft || s.reader == readerTaken }

// over is overLocked.
func (s *session) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overLocked()
}

// keep ends a handover that failed, and begins another one after wait, unless that is
// negative. It reports false if the session is over, so that the state machine has to go
// on.
func (s *session) keep(wait time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.overLocked() {
		return false
	}
	s.renewal = renewalNone
	if s.age != nil {
		s.age.Stop()
	}
	if wait >= 0 {
		s.age = time.AfterFunc(wait, s.renew)
	}
	return true
}

// proceed moves the state machine on at the end of a session: it runs already if the
// session is being replaced. mu of the session is held.
func (l *loop) proceed(s *session) {
	if s.renewal == renewalUnderWay {
		notify(l.c.wake)
		return
	}
	go l.advance(s)
}

// handOver replaces a session that is open. It runs on a goroutine of its own, to which
// the state machine belongs, as to that of advance.
func (l *loop) handOver(old *session) {
	h := l.handover
	h.old = old
	l.requested = true // not more often than the application may ask
	began := time.Now()
	s, err, canceled := l.dial()
	l.look()
	if err != nil && h.old != nil {
		l.keep(err, canceled)
		return
	}
	if h.old != nil {
		l.part(s)
		l.outwait()
	}
	switch {
	case err == nil && h.robbed:
		l.bereft(old)
	case h.handed:
		h.rivals.Store(0)
	}
	fate, handed := h.fate, h.handed
	h.fate, h.handed, h.robbed = step{}, false, false
	switch {
	case handed:
		s.event.Time = time.Now() // after the end of the old one
		l.steps(step{state: StateOpen, session: s})
	case fate.state != StateConnecting:
		if s != nil {
			s.discard(context.Canceled)
		}
		l.steps(fate)
	default:
		l.steps(l.conclude(s, err, canceled, began))
	}
}

// look takes the session that is being replaced down, if it is over.
func (l *loop) look() {
	if h := l.handover; h != nil && h.old != nil && h.old.over() {
		h.fate = l.takeDown(h.old)
		h.old = nil
	}
}

// fated looks at the session that is being replaced, and reports whether its end forbids
// to go on with the attempt.
func (l *loop) fated() bool {
	l.look()
	h := l.handover
	return h != nil && h.fate.state != StateIdle && h.fate.state != StateConnecting
}

// outwait waits for the end of the session that is being replaced, and for no function of
// the application after the close timeout.
func (l *loop) outwait() {
	abort := (<-chan struct{})(l.c.events.abort)
	for l.look(); l.handover.old != nil; l.look() {
		select {
		case <-l.c.wake:
		case <-abort:
			abort = nil
			l.handover.old.expire()
		}
	}
}

// goesOn is what follows the end of the session that is being replaced: the attempt that
// is under way, or the session that has its place, unless the client ends or pauses.
func (h *handover) goesOn(next step) step {
	if h.handed || next.state == StateWaiting || next.state == StateOffline {
		return step{state: StateConnecting, rule: next.rule}
	}
	return next
}

// part begins to close the old session, and lets messages flow into s in its place: after
// what the server has answered for, if it does so soon. If the old one ends anyway, s is
// the one that it is reconnected with.
func (l *loop) part(s *session) {
	old, c := l.handover.old, l.c
	if !old.end(ending{closing: true, requested: true, code: StatusNormalClosure, grace: min(c.config.overlap, c.config.closeTimeout)}) {
		return
	}
	old.heart.stop()
	c.outbox.flushBound(old)
	c.outbox.detach(old)
	c.outbox.join(old)
	c.outbox.settleWith(old, c.config.overlap/2)
	l.handover.robbed = old.over() && !old.life.has(stageKilled) // before we asked it to close
	now := time.Now()
	s.event.Took, s.event.Time = now.Sub(s.event.Time), now
	l.handover.handed = c.replaced(old, s)
	old.spawn(func() { old.wire.SendClose(int(StatusNormalClosure), "") }) // no message follows: it is detached
}

// unread gives a session more time whose network has failed, and that is not read yet since
// the one that it replaced is: what it has received counts. It reports whether it did.
func (s *session) unread() bool {
	c := s.client
	c.mu.Lock()
	open := c.session == s
	c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !open || c.events.aborted() || s.finished || s.reader != readerNone || s.ending == nil || s.ending.phase != PhaseWrite {
		return false
	}
	s.deadline.Reset(lingerAfterFailure)
	return true
}

// replaced makes s the open session in place of another, also to close it. It reports
// false if the application no longer wants a connection, or the time to close is over.
func (c *Client) replaced(old, s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != old || c.events.aborted() || !c.intent.closed && !c.intent.allows() {
		return false
	}
	c.session, c.intent.reconnect = s, false
	c.outbox.succeed(old, s)
	c.counters.opens.Add(1)
	h := c.machine.handover
	h.count.Add(1)
	if c.intent.closed {
		s.close(h.closing.code, h.closing.reason, h.closing.flush)
	}
	return true
}

// keep lets the old session go on, and tries again after the backoff.
func (l *loop) keep(err error, canceled bool) {
	old, wait := l.handover.old, l.c.config.backoffInitial
	l.handover.old = nil
	if !canceled {
		l.lastErr = err
		l.c.failed(err)
		wait = l.patienceWith(err)
		l.c.log().Warn("handover failed", "session", old.id, "err", err, "again", wait >= 0, "in", wait)
	}
	if !old.keep(wait) {
		l.advance(old)
	}
}

// patienceWith is how long to wait after a handover failed, or negative if it is not to be
// tried again in this session.
func (l *loop) patienceWith(err error) time.Duration {
	l.failures++
	f := dialFailure(err, l.failures)
	f.Renewable = l.renewable(f)
	d, bound := l.judge(f)
	if d.Action == ActionStop || d.Action == ActionFinish {
		return -1
	}
	return max(l.c.config.backoffInitial, l.schedule.Draw(d.wish(), bound, rand.Float64()))
}

// bereft notes that the server ended a session while its successor was under way.
func (l *loop) bereft(s *session) {
	if n := l.handover.rivals.Add(1); n == maxRivals {
		l.c.log().Warn("handover is off: the server ends a session when its successor registers", "session", s.id, "times", n)
	}
}

// flushBound waits until what is queued for one session alone was sent, or the session
// takes no more.
func (o *outbox) flushBound(s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.session == s && o.holds(s) {
		o.idle.Wait()
	}
}

// holds reports whether anything is queued for session s alone; mu is held.
func (o *outbox) holds(s *session) bool {
	for i := range o.queue.Len() {
		bound := func(m outbound) bool { return m.session == s && m.kind == kindMessage }
		if slices.ContainsFunc((*o.queue.At(i)).items, bound) {
			return true
		}
	}
	return false
}

// settleWith waits until the server has answered for all that a session took, for d at
// most: then Flush is not to wait for a session that is closing, and what the server
// answers at once has come. The session is detached.
func (o *outbox) settleWith(s *session, d time.Duration) {
	answered := o.unanswered(s)
	if answered == nil {
		return
	}
	s.wire.Ping()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	select {
	case <-answered:
	case <-deadline.C:
	}
}

// unanswered returns nil if the server has answered for all that a session took, or is
// lost, and else a channel that is closed then.
func (o *outbox) unanswered(s *session) <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.flow.lost || s.flow.reach() <= s.wire.Answered() {
		return nil
	}
	if o.lanes.settled == nil {
		o.lanes.settling, o.lanes.settled = s, make(chan struct{})
	}
	return o.lanes.settled
}

// heard tells those who wait for unanswered, and notes that a session that was replaced has
// been answered for or is lost; mu is held.
func (o *outbox) heard(s *session) {
	l := o.lanes
	if l == nil {
		return
	}
	if l.settling == s && l.settled != nil {
		close(l.settled)
		l.settling, l.settled = nil, nil
	}
	if l.past == s {
		l.past = nil
	}
}

// coming returns the session in OnOpen while there is a latest one, or nil; mu is held.
func (o *outbox) coming() *session {
	if o.lanes == nil {
		return nil
	}
	return o.lanes.coming
}

// awaitPast waits until the server has answered for what a session took that was replaced.
func (o *outbox) awaitPast(ctx context.Context, s *session) error {
	if answered := o.unanswered(s); answered != nil {
		select {
		case <-answered:
		case <-ctx.Done():
			return notFlushed(ctx.Err())
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.flow.reach() > s.wire.Answered() {
		return ErrMaybeSent
	}
	return nil
}

// succeed lets messages flow into s in place of another session, which is detached.
func (o *outbox) succeed(old, s *session) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !old.flow.lost && old.flow.reach() > old.wire.Answered() {
		o.lanes.past = old
		o.remove(func(m *outbound) bool {
			if m.kind != kindFlush {
				return false
			}
			m.waiter.outcome <- ErrMaybeSent
			return true
		})
	}
	if !s.flow.stopped {
		o.attachLocked(s)
	}
}
