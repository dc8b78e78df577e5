package resock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/ring"
)

// patience is how long the client waits for a hook that does not return, since it may be
// waiting for the client. After that the client goes on without it.
const patience = time.Second

// hooks joins the functions of the application that run on goroutines of their own, so
// that the client can leave them behind.
type hooks struct {
	sync.WaitGroup
	abort <-chan struct{} // closed when no hook is waited for any more
	log   *slog.Logger
	asked atomic.Uint32 // bits of the hooks that ask has called and that have not returned
}

// overstays logs that a hook does not return.
func (h *hooks) overstays(hook string) { h.log.Error("a hook does not return", "hook", hook) }

// hook is a function of the application that answers a question. Each has a bit.
type hook uint32

const (
	hookRetryPolicy hook = 1 << iota
	hookBackoffPolicy
	hookNetwork
	hookHeartbeatMessage
)

func (h hook) String() string {
	switch h {
	case hookRetryPolicy:
		return "WithRetryPolicy"
	case hookBackoffPolicy:
		return "WithBackoffPolicy"
	case hookNetwork:
		return "WithNetwork"
	}
	return "WithHeartbeatMessage"
}

// ask returns the answer of a hook, or the fallback if there is none in time. A hook is
// not called again before it has returned.
func ask[T any](c *Client, h hook, fallback T, f func() T) T {
	if c.hooks.asked.Or(uint32(h))&uint32(h) != 0 {
		return fallback
	}
	answer := make(chan T, 1)
	c.hooks.Go(func() {
		v := fallback // stays if the hook ends its goroutine
		defer func() {
			c.hooks.asked.And(^uint32(h))
			answer <- v
		}()
		v = f()
	})
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-answer:
		return v
	case <-timer.C:
	case <-c.hooks.abort:
	}
	c.hooks.overstays(h.String())
	return fallback
}

// waitFor runs a hook that must return when ctx ends. If it does not, it is left behind.
func waitFor(ctx context.Context, hooks *hooks, name string, wait func(context.Context) error) error {
	outcome := make(chan error, 1)
	hooks.Go(func() {
		err := errHookExited
		defer func() { outcome <- err }()
		err = wait(ctx)
	})
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-outcome:
		return err
	case <-timer.C:
	case <-hooks.abort:
	}
	hooks.overstays(name)
	return fmt.Errorf("%w: the function of %s has not returned", ctx.Err(), name)
}

// patientHandler waits no longer than patience for the application's log handler. While a
// record is stuck there, others are dropped.
type patientHandler struct {
	slog.Handler
	turn *turn
}

func newPatientHandler(h slog.Handler) patientHandler {
	return patientHandler{h, &turn{taken: make(chan struct{}, 1)}}
}

// turn is shared by a patientHandler and those that are derived from it.
type turn struct {
	taken chan struct{} // holds a token while a record is being handled
	stuck atomic.Bool   // that record overstays
}

// Enabled leaves the question to Handle, since the application's answer may wait for the
// client too.
func (h patientHandler) Enabled(context.Context, slog.Level) bool { return !h.turn.stuck.Load() }

func (h patientHandler) Handle(ctx context.Context, r slog.Record) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case h.turn.taken <- struct{}{}:
	case <-timer.C:
		return nil
	}
	done := make(chan struct{})
	go func() {
		defer func() {
			close(done)
			h.turn.stuck.Store(false)
			<-h.turn.taken
		}()
		if h.Handler.Enabled(ctx, r.Level) {
			_ = h.Handler.Handle(ctx, r)
		}
	}()
	select {
	case <-done:
		return nil
	case <-timer.C:
	}
	h.turn.stuck.Store(true)
	select {
	case <-done: // just before stuck was set
		h.turn.stuck.Store(false)
	default:
	}
	return nil
}

func (h patientHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return patientHandler{h.Handler.WithAttrs(attrs), h.turn}
}

func (h patientHandler) WithGroup(name string) slog.Handler {
	return patientHandler{h.Handler.WithGroup(name), h.turn}
}

// maxUntold is how many outcomes may wait to be told before sending waits for the teller.
const maxUntold = 1024

// told is an outcome, and the function of [WithResult] that is to hear it.
type told struct {
	done func(error)
	err  error
}

// teller tells outcomes to the functions of [WithResult], in order. It has a goroutine
// while there are any, since such a function may wait for the client.
type teller struct {
	hooks *hooks

	mu      sync.Mutex // guards what follows; no lock is taken under it
	queue   ring.Ring[told]
	running bool
	stuck   bool   // the function that runs has overstayed
	added   uint64 // number of outcomes added so far
	told    uint64 // number of outcomes told so far
	waits   ring.Ring[toldWait]
}

// toldWait is a wait until upTo outcomes are told.
type toldWait struct {
	upTo uint64
	over chan struct{} // closed then
}

// tell adds an outcome. It does not wait.
func (t *teller) tell(done func(error), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added++
	t.queue.PushBack(told{done, err})
	if !t.running {
		t.running = true
		go t.run()
	}
}

// run tells all there is to tell. If a function ends the goroutine, another goes on with
// the next one.
func (t *teller) run() {
	over := false
	defer func() {
		if !over {
			t.done()
			go t.run()
		}
	}()
	for next, ok := t.next(); ok; next, ok = t.next() {
		next.done(next.err)
		t.done()
	}
	over = true
}

// done notes that an outcome was told.
func (t *teller) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told++
	t.stuck = false
	for t.waits.Len() > 0 && t.waits.At(0).upTo <= t.told {
		close(t.waits.PopFront().over)
	}
}

// next returns the next outcome. It reports false when there is none.
func (t *teller) next() (next told, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue.Len() == 0 { // an idle client keeps no memory for what may come
		t.running = false
		t.queue, t.waits = ring.Ring[told]{}, ring.Ring[toldWait]{}
		return next, false
	}
	return t.queue.PopFront(), true
}

// untold is how many outcomes wait.
func (t *teller) untold() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queue.Len()
}

// untilTold returns a channel that is closed when all that there is now is told, and how
// many outcomes were told before. The channel is nil if all are told already, or if a
// function has overstayed and the caller does not wait for ever.
func (t *teller) untilTold(forever bool) (over chan struct{}, told uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == t.added || t.stuck && !forever {
		return nil, t.told
	}
	over = make(chan struct{})
	t.waits.PushBack(toldWait{t.added, over})
	return over, t.told
}

// wait waits until all that there is now is told, for patience at most.
func (t *teller) wait() {
	all, told := t.untilTold(false)
	if all == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-all:
	case <-t.hooks.abort:
	case <-timer.C:
		t.late(told)
	}
}

// late notes that a wait has timed out. told is how many outcomes were told when the wait
// began: if no more were told since, the function that runs overstays.
func (t *teller) late(told uint64) {
	t.mu.Lock()
	overstays := t.running && !t.stuck && t.told == told
	t.stuck = t.running
	t.mu.Unlock()
	if overstays {
		t.hooks.overstays("WithResult")
	}
}

// join waits until all is told.
func (t *teller) join() {
	for all, told := t.untilTold(true); all != nil; all, told = t.untilTold(true) {
		timer := time.AfterFunc(patience, func() { t.late(told) })
		<-all
		timer.Stop()
	}
}
