package resock

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// patience is how long the client waits for a hook that does not return, since it
// may be waiting for the client. Then the client goes on without it.
const patience = time.Second

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
	case <-c.events.abort:
	}
	c.log().Error("a hook does not return", "hook", h)
	return fallback
}

// waitFor runs a hook that is to return when ctx ends. If it does not, it is left
// behind, after abort at once.
func waitFor(ctx context.Context, abort <-chan struct{}, hooks *sync.WaitGroup, name string, wait func(context.Context) error) error {
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
	case <-abort:
	}
	return fmt.Errorf("%w: the function of %s has not returned", ctx.Err(), name)
}

// patientHandler is the application's log handler, which takes one record at a time.
// While one is stuck in it, others are dropped.
type patientHandler struct {
	slog.Handler
	*logTurns
}

// logTurns lets one record after the other pass.
type logTurns struct {
	turn chan struct{} // with room for one

	mu    sync.Mutex
	calls uint64 // that have returned
	stuck bool   // the one that has not
}

func newPatientHandler(h slog.Handler) patientHandler {
	return patientHandler{h, &logTurns{turn: make(chan struct{}, 1)}}
}

func (h patientHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	stuck := h.stuck
	h.mu.Unlock()
	if stuck {
		return nil
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case h.turn <- struct{}{}:
	case <-timer.C:
		return nil
	}
	h.mu.Lock()
	call := h.calls
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer h.returned()
		_ = h.Handler.Handle(ctx, r)
	}()
	select {
	case <-done:
	case <-timer.C:
		h.mu.Lock()
		defer h.mu.Unlock()
		h.stuck = h.calls == call
	}
	return nil
}

// returned lets the next record pass.
func (h patientHandler) returned() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.calls++
	h.stuck = false
	<-h.turn
}

func (h patientHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return patientHandler{h.Handler.WithAttrs(attrs), h.logTurns}
}

func (h patientHandler) WithGroup(name string) slog.Handler {
	return patientHandler{h.Handler.WithGroup(name), h.logTurns}
}
