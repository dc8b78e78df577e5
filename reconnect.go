package resock

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"

	"github.com/resock/resock/internal/delay"
	"github.com/resock/resock/internal/redact"
)

// State is what the client is doing.
//
//	Idle ──Run──▶ Connecting ──opened──▶ Open
//	                 ▲  │ failed          │ lost or closed
//	                 │  ▼                 ▼
//	                 └─Waiting◀───────────┘
//
// In place of Connecting or Waiting, the client is Offline while there is no network and
// Suspended while the application needs no connection. Closed is final.
type State int

const (
	StateIdle       State = iota // Run has not been called yet
	StateConnecting              // an attempt is under way
	StateOpen                    // a session is open
	StateWaiting                 // for the next attempt
	StateOffline                 // there is no network (WithNetwork)
	StateSuspended               // Suspend was called
	StateClosed                  // closed for good
)

func (s State) String() string {
	names := [...]string{"idle", "connecting", "open", "waiting", "offline", "suspended", "closed"}
	if s < 0 || int(s) >= len(names) {
		return "unknown"
	}
	return names[s]
}

// step is the next state, and what it is entered with.
type step struct {
	state   State
	wait    time.Duration // for StateWaiting
	rule    string        // that decided on it; empty if only the application did
	session *session      // for StateOpen
	err     error         // for StateClosed: what Run returns, unless the client is closed already
}

// loop is the state machine. What changes in it, the backoff included, belongs to the one
// goroutine that runs advance or handOver; only atomics and channels are shared. While a
// session is open, and is not being replaced, there is no such goroutine.
type loop struct {
	c        *Client
	ctx      context.Context
	ready    chan *session           // hands a session to the reader, the goroutine of Run
	reading  atomic.Pointer[session] // the reader's session, also after it was taken; or nil
	strays   atomic.Int32            // attempts that were left behind
	unwatch  func() bool             // stops watching the context of Run, or nil
	unlisten chan func()             // holds what OnChange of the network returned
	backoff  backoff.BackOff
	schedule delay.Schedule

	failures  int        // failed attempts in a row
	dialedAt  time.Time  // when the last attempt began
	dueAt     time.Time  // when the next attempt is due, as the last failure decided
	resumedAt time.Time  // when the attempt of the last Resume might begin, unless StateSuspended preceded it
	requested bool       // the application asked for the next attempt
	denied    bool       // the last attempt or session was refused for its credentials
	repeats   int        // unstable sessions in a row that ended by code
	code      StatusCode // the close code of the last unstable session
	lastErr   error      // why the last attempt or session ended; nil if the application ended it
	handover  *handover  // nil without WithHandover
}

// begin prepares the state machine and starts it.
func (l *loop) begin(ctx context.Context) {
	c := l.c
	l.code = unknownPeerCode
	l.schedule.Max = c.config.backoffMax
	l.backoff = delay.Bounds(c.config.backoffInitial, c.config.backoffMax)
	l.watch(ctx)
	if policy := c.config.backoffPolicy; policy != nil {
		switch made := ask(c, hookBackoffPolicy, l.backoff, policy); made {
		case nil:
			c.stop(&OptionError{"WithBackoffPolicy", nil, "its function returned nil"}, StatusNormalClosure, "", false)
		case l.backoff: // the fallback: the function has not returned in time
		default:
			l.backoff, l.schedule.Verbatim = made, true
		}
	}
	l.advance(nil)
}

// watch arranges to hear of the end of Run's context and of changes of the network.
func (l *loop) watch(ctx context.Context) {
	c := l.c
	canceled := func() { c.stop(ctx.Err(), StatusGoingAway, "", false) }
	if ctx.Err() != nil {
		canceled()
	}
	if ctx.Done() != nil {
		l.unwatch = context.AfterFunc(ctx, canceled)
	}
	if network := c.config.network; network != nil {
		l.unlisten = make(chan func(), 1)
		ask(c, hookNetwork, false, func() bool {
			l.unlisten <- network.OnChange(c.networkChanged)
			return true
		})
	}
}

// ignoreNetwork stops hearing of the network. Run calls it when all hooks have returned:
// an OnChange that took its time is stopped, too.
func (l *loop) ignoreNetwork() {
	select {
	case stop := <-l.unlisten:
		if stop != nil {
			stop()
		}
	default:
	}
}

// run reads one session after another until the client is closed, on the goroutine of
// Run. An idle client keeps this goroutine: what is on its stack while it reads must fit
// into the smallest stack that the runtime gives.
func (l *loop) run(ctx context.Context, c *Client) {
	l.c = c
	// The end of Run's context closes the client. It must not cancel what the client
	// does, which would look like a failure.
	l.ctx = context.WithoutCancel(ctx)
	l.ready = make(chan *session, 1)
	defer l.died()
	go l.begin(ctx)
	for s := range l.ready {
		l.reading.Store(s)
		if s.arrive() {
			s.read()
		}
		l.reading.Store(nil)
		l.left(s)
	}
}

// left moves the state machine on when the reader is done with a session, or releases
// the wire of a session that was taken from the reader.
func (l *loop) left(s *session) {
	if !s.leave() {
		s.release()
	}
}

// died closes the client when a function of the application has ended the goroutine of
// Run (runtime.Goexit).
func (l *loop) died() {
	if s := l.reading.Swap(nil); s != nil {
		l.c.stop(errHandlerExited, websocket.StatusInternalError, "", false)
		l.left(s)
	}
}

// advance takes down the last session, if there is one, and goes from state to state
// until the next session is open or the client is closed. It runs on a goroutine of its
// own, started by Run, by the reader at the end of a session, or by session.take when
// the reader does not return in time.
func (l *loop) advance(last *session) {
	next := step{state: StateConnecting}
	if last != nil {
		next = l.takeDown(last)
	}
	l.steps(next)
}

// steps goes from state to state.
func (l *loop) steps(next step) {
	for {
		switch next.state {
		case StateClosed:
			l.end(next.err)
			return
		case StateOpen:
			l.open(next.session)
			return
		case StateWaiting:
			next = l.wait(next.wait)
		case StateOffline:
			next = l.offline()
		case StateSuspended:
			next = l.suspended()
		default:
			next = l.connect()
		}
	}
}

// end finishes the client, with err if it is not closed already. Run returns when its
// reader does.
func (l *loop) end(err error) {
	l.c.stop(err, StatusNormalClosure, "", false)
	l.withdraw()
	if l.unwatch != nil {
		l.unwatch()
	}
	l.c.finish()
	close(l.ready)
}

// withdraw releases a session that was handed over and never read.
func (l *loop) withdraw() {
	select {
	case stale := <-l.ready:
		stale.release()
	default:
	}
}

// connect makes one attempt.
func (l *loop) connect() step {
	// An attempt that an event has announced is made, or reported as failed.
	announced := l.c.State() == StateConnecting
	if next, ok := l.held(l.c.wanted()); ok && !announced {
		return next
	}
	l.c.setState(StateConnecting)
	began := time.Now()
	s, err, canceled := l.dial()
	return l.conclude(s, err, canceled, began)
}

// conclude is what follows an attempt.
func (l *loop) conclude(s *session, err error, canceled bool, began time.Time) step {
	if err == nil {
		now := time.Now()
		s.event.Took, s.event.Time = now.Sub(s.event.Time), now
		if l.c.opened(s) {
			return step{state: StateOpen, session: s}
		}
		// Closed or suspended just before it was open.
		s.discard(context.Canceled)
		err, canceled = &DialError{Phase: PhaseUpgrade, Err: context.Canceled}, true
	}

	f := dialFailure(err, l.failures+1)
	event := FailEvent{Attempt: f.Attempt, Phase: f.Phase, Err: err, Took: time.Since(began)}
	var next step
	if canceled {
		l.lastErr = nil
		next = l.stopped()
	} else {
		l.lastErr = err
		f.Renewable = l.renewable(f)
		next = l.after(f, false)
	}
	l.failed(event, next)
	return next
}

// renewable reports whether the failure is the first in a row that may be one of the
// credentials, and a hook may bring fresh ones to the next attempt.
func (l *loop) renewable(f Failure) bool {
	again, config := l.denied, &l.c.config
	early := f.Status == http.StatusUnauthorized || f.Status == http.StatusForbidden
	late := f.Code == StatusPolicyViolation // after the upgrade, where OnOpen may log in
	l.denied = early || late
	return l.denied && !again && (config.endpoint != nil || late && config.onOpen != nil)
}

// dial makes one attempt. It fails, with canceled set, when the application no longer
// wants this connection.
func (l *loop) dial() (s *session, err error, canceled bool) {
	if !l.pace() {
		return nil, &DialError{Phase: PhaseEndpoint, Err: context.Canceled}, true
	}
	l.c.begins()
	l.requested = false
	l.dialedAt, l.dueAt = time.Now(), time.Time{}
	if strays := l.strays.Load(); strays >= maxStrays {
		return nil, &DialError{Phase: PhaseEndpoint, Err: fmt.Errorf("%d attempts are stuck in hooks or dialers that have not returned", strays)}, false
	}
	c := l.c
	last, downtime := c.lastSession()
	attempt := Attempt{N: l.failures + 1, Session: last, Downtime: downtime, Err: l.lastErr}
	if limiter := c.config.dialLimiter; limiter != nil {
		ctx, cancel := context.WithCancel(l.ctx)
		_, err, canceled = l.attempt(ctx, cancel, nil, func() (*session, error) {
			if err := limiter.Wait(ctx); err != nil {
				return nil, &DialError{Phase: PhaseEndpoint, Err: redact.Error(err)}
			}
			return nil, nil
		})
		if err == nil && canceled {
			err = &DialError{Phase: PhaseEndpoint, Err: context.Canceled}
		}
		if err != nil {
			return nil, err, canceled
		}
	}
	c.counters.attempts.Add(1)
	ctx, cancel := context.WithTimeout(l.ctx, c.config.dialTimeout)
	at := new(atomic.Int32)
	at.Store(int32(PhaseEndpoint))
	return l.attempt(ctx, cancel, at, func() (*session, error) { return c.dial(ctx, attempt, at) })
}

// open reports the new session, starts it and hands it to the reader. After that the
// state machine no longer belongs to this goroutine.
func (l *loop) open(s *session) {
	l.c.setState(StateOpen)
	l.c.log().Info("open", "session", s.id, "url", s.event.URL, "attempt", s.event.Attempt, "took", s.event.Took)
	l.c.events.lifecycle(s.event)
	s.begin()
	l.withdraw()
	l.ready <- s
	s.expect()
}

// takeDown finishes a session that is no longer read, decides what follows, and reports
// both.
func (l *loop) takeDown(s *session) step {
	// The silence that ends a session, closing and blocked delivery do not count as
	// uptime: none says anything about the server's health.
	lasted, blocked := time.Since(s.event.Time), l.c.blockedSum()-s.blocked
	e := s.finish()
	uptime := lasted - blocked
	if e.phase == PhaseHeartbeat { // blocked delivery is no silence
		uptime -= e.silence
	}
	if !e.at.IsZero() {
		uptime = min(uptime, e.at.Sub(s.event.Time))
	}
	uptime = max(0, uptime)
	if blocked >= time.Second {
		if e.err != nil {
			e.err = &blockedError{e.err, blocked, lasted}
		}
		l.c.log().Warn("delivery was blocked", "session", s.id, "for", blocked, "of", lasted)
	}
	l.c.ended(s)

	attempt := s.event.Attempt
	l.failures = min(l.failures, attempt-1) // without the handovers that failed
	f := sessionFailure(e, attempt, uptime)
	l.lastErr = f.Err
	stable := uptime >= l.c.config.stableAfter
	if stable || !e.requested {
		l.count(&f, stable)
	}
	f.Renewable = l.renewable(f)
	var next step
	if e.requested {
		l.requested = true
		l.lastErr = nil
		next = l.stopped()
	} else {
		next = l.after(f, stable)
	}
	if h := l.handover; h != nil && s == h.old {
		next = h.goesOn(next)
		h.robbed = h.robbed || !e.requested && (e.closing || e.phase == PhaseRead)
	}
	if e.closing {
		l.closed(CloseEvent{Session: s.id, Code: e.code, Reason: e.reason, Clean: e.clean, Took: lasted}, next)
	} else {
		l.failed(FailEvent{Session: s.id, Attempt: attempt, Phase: e.phase, Err: e.err, Took: lasted}, next)
	}
	return next
}

// count forgets what was before a stable session, and counts unstable sessions in a
// row that ended by the same close code.
func (l *loop) count(f *Failure, stable bool) {
	if stable {
		l.reset()
		l.repeats, l.code, l.denied = 0, unknownPeerCode, false
		return
	}
	if f.Code == unknownPeerCode || f.Code != l.code {
		l.repeats = 0
	}
	l.repeats++
	l.code = f.Code
	f.Repeats = l.repeats
}

// reset forgets past failures.
func (l *loop) reset() {
	l.failures = 0
	if !l.schedule.Verbatim {
		l.backoff.Reset()
		return
	}
	ask(l.c, hookBackoffPolicy, false, func() bool { l.backoff.Reset(); return true })
}

// decide asks the retry policy, unless a hook has decided already.
func (l *loop) decide(f Failure) Decision {
	if hook := f.Phase == PhaseEndpoint || f.Phase == PhaseSetup; hook && permanent(f.Err) {
		return Decision{Action: ActionStop, Rule: "permanent"}
	}
	policy := l.c.config.retryPolicy
	if policy == nil {
		return DefaultRetryPolicy(f)
	}
	d := ask(l.c, hookRetryPolicy, DefaultRetryPolicy(f), func() Decision { return policy(f) })
	d.Rule = cmp.Or(d.Rule, "retry policy")
	return d
}

// nextBackOff asks the backoff policy.
func (l *loop) nextBackOff() time.Duration {
	if !l.schedule.Verbatim {
		return l.backoff.NextBackOff()
	}
	return ask(l.c, hookBackoffPolicy, l.c.config.backoffMax, l.backoff.NextBackOff)
}

// judge returns the decision on a failure, within the limits, and the bound of the delay.
func (l *loop) judge(f Failure) (d Decision, bound time.Duration) {
	d, bound = l.decide(f), l.nextBackOff()
	switch limit := l.c.config.maxAttempts; {
	case d.Action == ActionStop, d.Action == ActionFinish:
	case limit > 0 && l.failures >= limit:
		d.Action, d.Rule = ActionStop, "attempt limit"
	case bound < 0:
		d.Action, d.Rule = ActionStop, "backoff policy"
	}
	return d, bound
}

// after decides what follows a failure that the application did not ask for. The end of
// a stable session does not count as a failed attempt.
func (l *loop) after(f Failure, stable bool) step {
	if !l.c.wanted().allows() {
		return l.stopped()
	}
	if !stable {
		l.failures++
	}
	d, bound := l.judge(f)
	switch d.Action {
	case ActionStop:
		l.c.log().Error("give up", "rule", d.Rule, "attempts", l.failures, "err", f.Err)
		return step{state: StateClosed, rule: d.Rule, err: &GiveUpError{Attempts: l.failures, Rule: d.Rule, Err: f.Err}}
	case ActionFinish:
		l.c.log().Info("finish", "rule", d.Rule, "err", f.Err)
		return step{state: StateClosed, rule: d.Rule}
	}
	wait := l.schedule.Draw(d.wish(), bound, rand.Float64())
	l.dueAt = time.Now().Add(wait)
	if l.c.wanted().reconnect {
		wait = min(wait, time.Until(l.soonest()))
	}
	l.c.log().Warn("retry", "rule", d.Rule, "in", wait) // what happened is logged as fail or close
	switch {
	case !l.c.online():
		return step{state: StateOffline, rule: d.Rule}
	case wait <= 0:
		return step{state: StateConnecting, rule: d.Rule}
	}
	return step{state: StateWaiting, wait: wait, rule: d.Rule}
}

// stopped is what follows an end that the application asked for.
func (l *loop) stopped() step {
	next, _ := l.held(l.c.wanted())
	return next
}

// held returns the state that keeps the client from dialing: closed, suspended or
// offline. If nothing does, it returns StateConnecting and false.
func (l *loop) held(wanted intent) (next step, ok bool) {
	if next, ok = unwanted(wanted); !ok && !l.c.online() {
		return step{state: StateOffline}, true
	}
	return next, ok
}

// unwanted is held, but does not ask for the network: a hook that is asked may ask for
// something itself, and must not be asked again for that.
func unwanted(wanted intent) (next step, ok bool) {
	switch {
	case wanted.closed:
		return step{state: StateClosed}, true
	case wanted.suspended:
		return step{state: StateSuspended}, true
	}
	return step{state: StateConnecting}, false
}

// pace delays a reconnect that the application asked for until the initial backoff has
// passed since the last attempt began. It reports whether the client may dial.
func (l *loop) pace() bool {
	for {
		if _, ok := unwanted(l.c.wanted()); ok || l.fated() {
			return false
		}
		if l.resume() { // the application may do this again and again
			at := time.Now()
			l.requested = at.Before(l.resumedAt.Add(l.c.config.backoffInitial))
			if soonest := l.soonest(); l.requested && soonest.After(at) {
				at = soonest
			}
			l.resumedAt = at
		}
		if l.requested && l.sleep(time.Until(l.soonest())) {
			continue
		}
		_, ok := l.held(l.c.wanted())
		return !ok
	}
}

// soonest is when an attempt that the application asks for may begin.
func (l *loop) soonest() time.Time { return l.dialedAt.Add(l.c.config.backoffInitial) }

// wait waits for d before the next attempt, or until the application asks for something
// else.
func (l *loop) wait(d time.Duration) step {
	until := time.Now().Add(d)
	l.c.setState(StateWaiting)
	for {
		wanted := l.c.wanted()
		if next, ok := l.held(wanted); ok {
			return next
		}
		if wanted.resume {
			return step{state: StateConnecting}
		}
		if soonest := l.soonest(); wanted.reconnect && soonest.Before(until) {
			until = soonest
		}
		if !l.sleep(time.Until(until)) {
			return step{state: StateConnecting}
		}
	}
}

// offline waits for the network, and then for a random delay, since many clients see it
// return at the same moment, and at least until the next attempt was due anyway. It asks
// for the network when it is woken, at most once per initial backoff.
func (l *loop) offline() step {
	l.c.setState(StateOffline)
	var soonest time.Time
	for {
		l.resume()
		if next, ok := unwanted(l.c.wanted()); ok {
			return next
		}
		if l.sleep(time.Until(soonest)) {
			continue
		}
		if l.c.online() {
			spread := delay.Scale(l.c.config.backoffInitial, rand.Float64())
			return step{state: StateWaiting, wait: max(spread, time.Until(l.dueAt))}
		}
		soonest = time.Now().Add(l.c.config.backoffInitial)
		<-l.c.wake
	}
}

// suspended waits until the application needs a connection again.
func (l *loop) suspended() step {
	l.c.setState(StateSuspended)
	for {
		wanted := l.c.wanted()
		if wanted.closed {
			return step{state: StateClosed}
		}
		if !wanted.suspended {
			l.resume()
			return step{state: StateConnecting}
		}
		<-l.c.wake
	}
}

// resume grants a Resume, if there is one: a fresh backoff and count of attempts.
func (l *loop) resume() (granted bool) {
	if !l.c.takeResume() {
		return false
	}
	l.reset()
	l.requested, l.denied, l.dueAt = false, false, time.Time{}
	return true
}

// sleep waits for d. It reports whether it was woken before that.
func (l *loop) sleep(d time.Duration) bool {
	if d <= 0 {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-l.c.wake:
		return true
	}
}

// failed enters the next state and reports the failure.
func (l *loop) failed(event FailEvent, next step) {
	event.Time, event.Next, event.RetryIn, event.Rule = time.Now(), next.state, next.wait, next.rule
	l.c.failed(event.Err)
	l.c.log().Warn("fail", "session", event.Session, "attempt", event.Attempt, "phase", event.Phase, "err", event.Err, "next", next.state)
	l.announce(event, next)
}

// closed enters the next state and reports the close.
func (l *loop) closed(event CloseEvent, next step) {
	event.Time, event.Next, event.RetryIn, event.Rule = time.Now(), next.state, next.wait, next.rule
	l.c.log().Info("close", "session", event.Session, "code", int(event.Code), "reason", event.Reason, "clean", event.Clean, "next", next.state)
	l.announce(event, next)
}

// announce enters the next state and delivers the event. StateClosed is entered only
// after the last event, by finish.
func (l *loop) announce(event Event, next step) {
	if next.state != StateClosed {
		l.c.setState(next.state)
	} else {
		l.c.limitClosing()
	}
	l.c.events.lifecycle(event)
}
