package resock_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

// A stable session restarts the count of attempts and the backoff, also when
// the application itself ends it.
func TestStableSessionRestartsTheCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithMaxAttempts(3), inMemory(func(n int, p *peer) {
			if n == 3 && p.upgrade() {
				p.echoClose(nil)
			}
		}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		await[resock.FailEvent](t, events)
		await[resock.FailEvent](t, events)
		await[resock.OpenEvent](t, events)
		time.Sleep(time.Minute)
		client.Reconnect()
		await[resock.CloseEvent](t, events)
		if fail := await[resock.FailEvent](t, events); fail.Attempt != 1 || fail.Next != resock.StateWaiting {
			t.Errorf("after a minute of health: attempt %d, next %v", fail.Attempt, fail.Next)
		}
	})
}

// A cancelled context is no failed attempt: the policy is not asked, and Run
// returns the context's error.
func TestCancellationIsNoFailure(t *testing.T) {
	for range 200 {
		bubble(t, func(t *testing.T) {
			asked := false
			client := newClient(t, resock.WithMaxAttempts(1),
				resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
					asked = true
					return resock.DefaultRetryPolicy(f)
				}),
				inMemory(func(_ int, p *peer) { io.Copy(io.Discard, p) }))
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- client.Run(ctx) }()
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || asked {
				t.Fatalf("Run returned %v; policy asked: %v", err, asked)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Downtime ends when the next session opens, not when its attempt begins.
func TestDowntimeIncludesTheAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, inMemory(func(n int, p *peer) {
			time.Sleep(3 * time.Second)
			if p.upgrade() && n > 1 {
				p.echoClose(nil)
			}
		}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		await[resock.OpenEvent](t, events)
		lost := await[resock.FailEvent](t, events)
		open := await[resock.OpenEvent](t, events)
		if want := open.Time.Sub(lost.Time); open.Downtime != want {
			t.Errorf("Downtime = %v, was down for %v", open.Downtime, want)
		}
		if down := client.Stats().Downtime; down != open.Downtime {
			t.Errorf("Stats().Downtime = %v, want %v", down, open.Downtime)
		}
	})
}

// A session's length ends with its last byte: what closing takes after that
// makes no session stable.
func TestClosingMakesNoSessionStable(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithStableAfter(500*time.Millisecond), inMemory(func(n int, p *peer) {
			p.upgrade()
			p.frame(0x83, "") // a reserved opcode
			time.Sleep(10 * time.Second)
		}))
		events := grammar.Tee(t, client)
		done := make(chan error, 1)
		go func() { done <- client.Run(t.Context()) }()
		for range 5 {
			await[resock.OpenEvent](t, events)
			if fail := await[resock.FailEvent](t, events); fail.Took >= 500*time.Millisecond {
				t.Fatalf("a session that ended at once took %v", fail.Took)
			}
		}
		var giveUp *resock.GiveUpError
		if err := <-done; !errors.As(err, &giveUp) || giveUp.Rule != "poison loop" {
			t.Errorf("Run returned %v", err)
		}
	})
}

// Reconnect never makes the client wait longer than it would have.
func TestReconnectNeverDelays(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithBackoff(time.Minute, time.Minute), inMemory(func(n int, p *peer) {}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		fail := await[resock.FailEvent](t, events)
		client.Reconnect()
		next := await[resock.FailEvent](t, events)
		if waited := next.Time.Sub(fail.Time); waited > fail.RetryIn {
			t.Errorf("waited %v instead of %v", waited, fail.RetryIn)
		}
	})
}

// An attempt is told why the session before it ended.
func TestAttemptIsToldTheLastEnd(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var told []error
		client := newClient(t,
			resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				told = append(told, a.Err)
				return resock.Endpoint{}, nil
			}),
			inMemory(func(n int, p *peer) {
				if n > 1 && p.upgrade() {
					p.echoClose(nil)
				}
			}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		await[resock.FailEvent](t, events)
		await[resock.OpenEvent](t, events)
		client.Reconnect()
		await[resock.CloseEvent](t, events)
		await[resock.OpenEvent](t, events)
		if len(told) != 3 || told[0] != nil || told[1] == nil || told[2] != nil {
			t.Errorf("attempts were told %v", told)
		}
	})
}

// A client that said it connects does so, or says why not.
func TestConnectingIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithBackoff(time.Minute, time.Minute), inMemory(func(n int, p *peer) {
			p.upgrade()
			p.echoClose(nil)
		}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		await[resock.OpenEvent](t, events)
		client.Reconnect()
		if next := await[resock.CloseEvent](t, events).Next; next != resock.StateConnecting {
			t.Fatalf("next is %v", next)
		}
		synctest.Wait()
		client.Suspend()
		if next := await[resock.FailEvent](t, events).Next; next != resock.StateSuspended {
			t.Errorf("next is %v", next)
		}
		client.Close(resock.StatusNormalClosure, "")
		if event, ok := <-events; ok {
			t.Errorf("a suspended client that is closed says %#v", event)
		}
	})
}

// The end of the channel is the end of the client.
func TestChannelEndsWithTheClient(t *testing.T) {
	for range 100 {
		bubble(t, func(t *testing.T) {
			client := newClient(t, resock.WithMaxAttempts(1), inMemory(func(n int, p *peer) {}))
			events := grammar.Tee(t, client)
			go client.Run(t.Context())
			for range events {
			}
			var giveUp *resock.GiveUpError
			if err := client.Err(); !errors.As(err, &giveUp) {
				t.Errorf("Err() = %v", err)
			}
			if state := client.State(); state != resock.StateClosed {
				t.Errorf("State() = %v", state)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// WaitOpen tells the last failure, however soon the next attempt follows it.
func TestWaitOpenTellsTheLastFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithDialTimeout(time.Second),
			resock.WithBackoffPolicy(func() backoff.BackOff { return new(backoff.ZeroBackOff) }),
			inMemory(func(n int, p *peer) { time.Sleep(10 * time.Second) }))
		go client.Run(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := client.WaitOpen(ctx)
		var dial *resock.DialError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &dial) {
			t.Errorf("WaitOpen: %v", err)
		}
	})
}

// stateHandler is a log handler that looks at the client.
type stateHandler struct {
	slog.Handler
	client **resock.Client
}

func (h stateHandler) Enabled(context.Context, slog.Level) bool { return true }
func (h stateHandler) Handle(context.Context, slog.Record) error {
	(*h.client).Stats()
	return nil
}

// A log handler may call any method of the client.
func TestLogHandlerMayCallTheClient(t *testing.T) {
	var client *resock.Client
	client, err := resock.New("ws://memory.test", resock.WithMaxAttempts(1),
		resock.WithLogger(slog.New(stateHandler{slog.DiscardHandler, &client})),
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{}, errors.New("no")
		}))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- client.Run(context.Background()) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("deadlock")
	}
}
