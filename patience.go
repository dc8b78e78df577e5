package resock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long the client waits for a hook that does not return, since it
// may be waiting for the client. Then the client goes on without it.
const patience = time.Second

// hooks are the functions of the application that run on goroutines of their own, or did
// not return in time.
type hooks struct {
	sync.WaitGroup
	abort <-chan struct{} // closed when nobody waits for them any more
	log   *slog.Logger
}

// overstays says that a hook does not return.
func (h *hooks) overstays(hook string) { h.log.Error("a hook does not return", "hook", hook) }

// hook is a function of the application that answers a question, one bit each.
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

// ask returns the answer of a hook, or the fallback if it has none in time. A hook is
// not asked again before it has returned.
func ask[T any](c *Client, h hook, fallback T, f func() T) T {
	if c.asked.Or(uint32(h))&uint32(h) != 0 {
		return fallback
	}
	answer := make(chan T, 1)
	c.hooks.Go(func() {
		v := fallback // of a hook that ends its goroutine
		defer func() {
			c.asked.And(^uint32(h))
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

// waitFor runs a hook that is to return when ctx ends. If it does not, it is left
// behind.
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

// patientHandler is the application's log handler. While a record is stuck in it,
// others are dropped.
type patientHandler struct {
	slog.Handler
	turn *turn
}

func newPatientHandler(h slog.Handler) patientHandler {
	return patientHandler{h, &turn{taken: make(chan struct{}, 1)}}
}

// turn is what those who log have in common.
type turn struct {
	taken chan struct{} // has room for one, who logs
	stuck atomic.Bool   // that one does not return
}

// Enabled leaves the question to Handle, since the answer may wait for the client too.
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
	case <-done: // in the last moment
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
