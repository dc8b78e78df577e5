package resock_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A stable session resets the backoff and the count of attempts, even if the application
// ends it.
func TestStableSessionRestartsTheCount(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(), resocktest.Drop(), resocktest.Hold(), resocktest.Drop())
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(3))
		client.Fail(resock.PhaseUpgrade)
		client.Fail(resock.PhaseUpgrade)
		client.Open()
		time.Sleep(time.Minute)
		client.Reconnect()
		client.Closed(resock.StatusNormalClosure, "", false)
		if fail := client.Fail(resock.PhaseUpgrade); fail.Attempt != 1 || fail.Next != resock.StateWaiting {
			t.Errorf("after a stable session: attempt %d, next %v, want attempt 1, waiting", fail.Attempt, fail.Next)
		}
	})
}

// A canceled context is not a failed attempt: the policy is not asked, and Run returns
// the error of the context.
func TestCancellationIsNotAFailure(t *testing.T) {
	for range 200 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.StallUpgrade())
			asked := false
			client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(1),
				resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
					asked = true
					return resock.DefaultRetryPolicy(f)
				}))
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- client.Run(ctx) }()
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) || asked {
				t.Fatalf("Run: got %v, policy asked: %v, want Canceled, and not asked", err, asked)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// Downtime lasts until the next session opens, not until its attempt begins.
func TestDowntimeIncludesTheAttempt(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(rig.LateUpgrade(3*time.Second, 0), rig.LateUpgrade(3*time.Second, time.Minute))
		client := rig.Start(t, s.URL, rig.Reach(s))
		client.Open()
		lost := client.Fail(resock.PhaseRead)
		open := client.Open()
		if want := open.Time.Sub(lost.Time); open.Downtime != want || want < 3*time.Second {
			t.Errorf("Downtime = %v, was down for %v", open.Downtime, want)
		}
		if down := client.Stats().Downtime; down != open.Downtime {
			t.Errorf("Stats().Downtime = %v, want %v", down, open.Downtime)
		}
	})
}

// The length of a session is measured up to its last byte: the time that closing takes
// after that cannot make it stable.
func TestClosingTimeIsNotUptime(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			c.IgnoreClose()
			_ = c.Raw(resocktest.Frame(rig.Fin|3, nil)) // a reserved opcode
		})
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithStableAfter(500*time.Millisecond))
		for attempt := 1; attempt <= 5; attempt++ {
			client.Open()
			fail := client.Fail(resock.PhaseProtocol)
			if fail.Took >= 500*time.Millisecond || fail.Attempt != attempt {
				t.Fatalf("attempt %d took %v, want attempt %d, and less than 500ms: it ended at once", fail.Attempt, fail.Took, attempt)
			}
			if again := attempt > 1; again != (fail.Rule == "repeated close code") {
				t.Errorf("attempt %d: rule %q, want \"repeated close code\": %t", attempt, fail.Rule, again)
			}
		}
	})
}

// Reconnect never makes the client wait longer than it would have.
func TestReconnectNeverDelays(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop())
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithBackoff(time.Minute, time.Minute))
		fail := client.Fail(resock.PhaseUpgrade)
		client.Reconnect()
		next := client.Fail(resock.PhaseUpgrade)
		if waited := next.Time.Sub(fail.Time); waited > fail.RetryIn {
			t.Errorf("waited %v, want at most the %v announced", waited, fail.RetryIn)
		}
	})
}

// An attempt is told why the previous session ended.
func TestAttemptIsToldTheLastEnd(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(), resocktest.Hold())
		var told []error
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				told = append(told, a.Err)
				return resock.Endpoint{}, nil
			}))
		client.Fail(resock.PhaseUpgrade)
		client.Open()
		client.Reconnect()
		client.Closed(resock.StatusNormalClosure, "", false)
		client.Open()
		if len(told) != 3 || told[0] != nil || told[1] == nil || told[2] != nil {
			t.Errorf("the attempts were told %v, want the second of them to be told an error", told)
		}
	})
}

// After an event whose Next is connecting, the client connects, or a further event says
// why not.
func TestConnectingIsFollowedUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithBackoff(time.Minute, time.Minute))
		client.Open()
		client.Reconnect()
		if next := rig.Next[resock.CloseEvent](client).Next; next != resock.StateConnecting {
			t.Fatalf("next is %v, want connecting", next)
		}
		synctest.Wait()
		client.Suspend()
		if next := rig.Next[resock.FailEvent](client).Next; next != resock.StateSuspended {
			t.Errorf("next is %v, want suspended", next)
		}
		client.Close(resock.StatusNormalClosure, "")
		if event, ok := <-client.Events; ok {
			t.Errorf("got %#v from a client closed while suspended, want no event", event)
		}
	})
}

// When the channel closes, the client is closed, and Err says why.
func TestChannelEndsWithTheClient(t *testing.T) {
	for range 100 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Drop())
			client := rig.Start(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(1))
			for range client.Events {
			}
			var giveUp *resock.GiveUpError
			if err := client.Err(); !errors.As(err, &giveUp) {
				t.Errorf("Err: got %v, want a GiveUpError", err)
			}
			if state := client.State(); state != resock.StateClosed {
				t.Errorf("state %v, want closed", state)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// The error of WaitOpen contains the last failure, however soon the next attempt follows
// it.
func TestWaitOpenReportsTheLastFailure(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.StallUpgrade())
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithDialTimeout(time.Second),
			resock.WithBackoffPolicy(func() backoff.BackOff { return new(backoff.ZeroBackOff) }))
		go client.Run(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		err := client.WaitOpen(ctx)
		var dial *resock.DialError
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &dial) {
			t.Errorf("WaitOpen: got %v, want DeadlineExceeded and the DialError", err)
		}
	})
}

// stateHandler is a log handler that calls methods of the client.
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
	client, err := resock.New("ws://server.test", resock.WithMaxAttempts(1),
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
		t.Error("Run did not return within 10s: the log handler deadlocks")
	}
}

// The delays of the application's own policy are used as they are, however long.
// Reconnect ends the wait.
func TestReconnectEndsTheWait(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(rig.LateUpgrade(time.Second, 10*time.Second))
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithBackoffPolicy(func() backoff.BackOff { return backoff.NewConstantBackOff(time.Hour) }))
		if open := client.Open(); open.Took != time.Second {
			t.Errorf("the attempt took %v, want 1s", open.Took)
		}
		if lost := client.Fail(resock.PhaseRead); lost.RetryIn != time.Hour {
			t.Errorf("RetryIn is %v, want the hour of the policy", lost.RetryIn)
		}
		time.Sleep(time.Minute)
		if down := client.Stats().Downtime; down != time.Minute {
			t.Errorf("Stats().Downtime is %v, want 1m", down)
		}
		client.Reconnect()
		if open := client.Open(); open.Downtime != time.Minute+time.Second {
			t.Errorf("Downtime is %v, want 1m1s", open.Downtime)
		}
	})
}

// Reconnect dials at most once per initial backoff, but the limit does not delay the
// retries after a failed attempt.
func TestReconnectDelaysOneAttemptOnly(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Hold(), resocktest.Drop(), resocktest.Drop(), resocktest.Drop(), resocktest.Hold())
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithBackoffPolicy(func() backoff.BackOff { return new(backoff.ZeroBackOff) }))
		first := client.Open()
		client.Reconnect()
		client.Closed(resock.StatusNormalClosure, "", false)
		for range 3 {
			fail := client.Fail(resock.PhaseUpgrade)
			if waited := fail.Time.Sub(first.Time); waited != 500*time.Millisecond || fail.Next != resock.StateConnecting {
				t.Errorf("attempt %d failed %v after the first, next is %v, want 500ms, connecting", fail.Attempt, waited, fail.Next)
			}
		}
		client.Open()
	})
}

// A session is stable once it has lasted as long as WithStableAfter says, and not a
// moment earlier.
func TestStableAfterIsExact(t *testing.T) {
	for uptime, attempt := range map[time.Duration]int{10*time.Second - 1: 2, 10 * time.Second: 1} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) {
				time.Sleep(uptime)
				c.Drop()
			})
			client := rig.Start(t, s.URL, rig.Reach(s), resock.WithStableAfter(10*time.Second))
			client.Open()
			client.Fail(resock.PhaseRead)
			if open := client.Open(); open.Attempt != attempt {
				t.Errorf("attempt %d after a session of %v, want attempt %d", open.Attempt, uptime, attempt)
			}
		})
	}
}

// Failure.Repeats counts sessions in a row that ended with the same close code, none of
// them stable.
func TestRepeatsOfACloseCode(t *testing.T) {
	type end struct {
		code    resock.StatusCode // 0: the connection drops
		stable  bool
		repeats int
	}
	ends := []end{
		{1002, false, 1},
		{1002, false, 2},
		{1002, true, 0},
		{1002, false, 1},
		{1003, false, 1},
		{1003, false, 2},
		{0, false, 1},
		{0, false, 1},
		{1003, false, 1},
	}
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var steps []resocktest.Step
		for _, end := range ends {
			steps = append(steps, resocktest.Serve(func(c *resocktest.Conn) {
				if end.stable {
					time.Sleep(10 * time.Second)
				}
				if end.code == 0 {
					c.Drop()
				} else {
					_ = c.Close(end.code, "")
				}
			}))
		}
		s.Script(append(steps, resocktest.Drop())...)
		told := make(chan int, len(ends)+1)
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
				told <- f.Repeats
				return resock.Decision{}
			}))
		for i, end := range ends {
			client.Open()
			client.Next()
			if repeats := <-told; repeats != end.repeats {
				t.Errorf("session %d, %+v: Repeats is %d, want %d", i+1, end, repeats, end.repeats)
			}
		}
	})
}

// An attempt that Suspend ended is not reported to the next one as a failure.
func TestAttemptIsNotToldOfASuspend(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(), resocktest.StallUpgrade(), resocktest.Drop())
		var told []error
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				told = append(told, a.Err)
				return resock.Endpoint{}, nil
			}))
		client.Fail(resock.PhaseUpgrade)
		for client.State() != resock.StateConnecting {
			time.Sleep(time.Millisecond)
		}
		client.Suspend()
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateSuspended {
			t.Fatalf("next is %v, want suspended", fail.Next)
		}
		client.Resume()
		client.Fail(resock.PhaseUpgrade)
		if len(told) != 3 || told[1] == nil || told[2] != nil {
			t.Errorf("the attempts were told %v, want an error told to the second only", told)
		}
	})
}

// If a hook stops the client, the attempt ends in the state that was asked for and
// leaves no connection, whatever the hook returns and whoever is faster.
func TestHooksMayStopTheClient(t *testing.T) {
	endpoint := func(f func() error) resock.Option {
		return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, f() })
	}
	onOpen := func(f func() error) resock.Option {
		return resock.WithOnOpen(func(context.Context, *resock.Session) error { return f() })
	}
	for name, hook := range map[string]func(func() error) resock.Option{"endpoint": endpoint, "OnOpen": onOpen} {
		for _, result := range []error{nil, errors.New("no")} {
			for range 30 {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					var client *rig.Client
					client = rig.Prepare(t, s.URL, rig.Reach(s), hook(func() error { client.Suspend(); return result }))
					client.Go()
					fail := rig.Next[resock.FailEvent](client)
					if fail.Next != resock.StateSuspended || fail.Err == nil {
						t.Errorf("%s returned %v: next is %v, error %v, want suspended, with an error", name, result, fail.Next, fail.Err)
					}
					if name == "OnOpen" {
						select {
						case <-s.Accept().Done():
						case <-time.After(time.Minute):
							t.Error("a connection is still open after a minute")
						}
					}
				})
				if t.Failed() {
					return
				}
			}
		}
	}
}

// The contexts given to hooks end with the attempt, so that whatever a hook started with
// them ends, too.
func TestContextsEndWithTheAttempt(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var contexts []context.Context
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithDialLimiter(rig.Limiter(func(ctx context.Context) error {
				contexts = append(contexts, ctx)
				return nil
			})),
			resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
				contexts = append(contexts, ctx)
				return resock.Endpoint{}, nil
			}),
			resock.WithOnOpen(func(ctx context.Context, _ *resock.Session) error {
				contexts = append(contexts, ctx)
				return nil
			}))
		client.Open()
		if len(contexts) != 3 {
			t.Fatalf("%d hooks were called, want 3", len(contexts))
		}
		for i, ctx := range contexts {
			if ctx.Err() == nil {
				t.Errorf("context %d did not end with its attempt", i)
			}
		}
	})
}

// Suspend works while the client takes down a lost session.
func TestSuspendWhileASessionIsTakenDown(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach)
		client.Open()
		(<-lines).Limit(1 << 10)
		var outcome error
		err := client.Enqueue(resock.MessageBinary, make([]byte, 1<<16), resock.WithResult(func(err error) {
			outcome = err
			time.Sleep(rig.Patience / 2) // delays the end of the session
			client.Suspend()
		}))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.Accept().Drop()
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateSuspended || !errors.Is(outcome, resock.ErrMaybeSent) {
			t.Errorf("next is %v, outcome %v, want suspended, ErrMaybeSent", fail.Next, outcome)
		}
	})
}

// A backoff policy of the application may give up.
func TestBackoffPolicyGivesUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop())
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithBackoffPolicy(func() backoff.BackOff {
				return backoff.WithMaxRetries(backoff.NewConstantBackOff(time.Second), 2)
			}))
		for _, next := range []resock.State{resock.StateWaiting, resock.StateWaiting, resock.StateClosed} {
			if fail := client.Fail(resock.PhaseUpgrade); fail.Next != next {
				t.Errorf("after attempt %d: next is %v, want %v", fail.Attempt, fail.Next, next)
			}
		}
		<-client.Returned()
		var giveUp *resock.GiveUpError
		if err := client.Err(); !errors.As(err, &giveUp) || giveUp.Rule != "backoff policy" || giveUp.Attempts != 3 {
			t.Errorf("Run: got %v, want a GiveUpError by the backoff policy after 3 attempts", err)
		}
	})
}

// The log tells the life of a client: its states, the end of each session and attempt,
// and the rule that decided what followed.
func TestLog(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(
			resocktest.Serve(func(c *resocktest.Conn) { _ = c.Close(1012, "") }),
			resocktest.Serve((*resocktest.Conn).Drop),
			resocktest.Drop())
		var log strings.Builder
		handler := slog.NewTextHandler(&log, &slog.HandlerOptions{
			Level: slog.LevelDebug,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				switch a.Key {
				case slog.TimeKey, "took", "in", "err":
					return slog.Attr{}
				}
				return a
			},
		})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithLogger(slog.New(handler)), resock.WithStableAfter(0), resock.WithMaxAttempts(1))
		if err := client.Run(t.Context()); err == nil {
			t.Error("Run returned nil, want a GiveUpError by the attempt limit")
		}
		want := strings.TrimLeft(`
level=DEBUG msg=state from=idle to=connecting
level=DEBUG msg=state from=connecting to=open
level=INFO msg=open session=1 url=ws://server.test attempt=1
level=WARN msg=retry rule="server busy"
level=INFO msg=close session=1 code=1012 reason="" clean=true next=waiting
level=DEBUG msg=state from=open to=waiting
level=DEBUG msg=state from=waiting to=connecting
level=DEBUG msg=state from=connecting to=open
level=INFO msg=open session=2 url=ws://server.test attempt=1
level=WARN msg=retry rule=connection
level=WARN msg=fail session=2 attempt=1 phase=read next=waiting
level=DEBUG msg=state from=open to=waiting
level=DEBUG msg=state from=waiting to=connecting
level=ERROR msg="give up" rule="attempt limit" attempts=1
level=WARN msg=fail session=0 attempt=1 phase=upgrade next=closed
level=DEBUG msg=state from=connecting to=closed
`, "\n")
		if log.String() != want {
			t.Errorf("log:\n%swant:\n%s", log.String(), want)
		}
	})
}

// Resume dials at once, even after a Reconnect whose attempt was delayed.
func TestResumeIsNotDelayed(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithBackoff(time.Minute, time.Minute))
		first := client.Open()
		client.Reconnect()
		client.Closed(resock.StatusNormalClosure, "", false)
		client.Suspend()
		rig.Next[resock.FailEvent](client)
		client.Resume()
		if open := client.Open(); !open.Time.Equal(first.Time) {
			t.Errorf("reopened after %v, want at once", open.Time.Sub(first.Time))
		}
	})
}

// Whoever receives an event finds the client in the state that it announces, or in a
// later one.
func TestStateIsNotBehindTheEvents(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop())
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := client.Subscribe(t.Context(), resock.WithBuffer(0))
		go client.Run(t.Context())
		synctest.Wait() // until the FailEvent waits to be received
		if state := client.State(); state != resock.StateWaiting {
			t.Errorf("state %v, want waiting", state)
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		for event := range new(grammar.Checker).All(t, events) {
			if fail, ok := event.(resock.FailEvent); !ok || fail.Next != resock.StateWaiting {
				t.Errorf("got %#v, want a FailEvent, and then waiting", event)
			}
		}
	})
}

// A subscriber that does not read delays a client that gives up by the close timeout at
// most.
func TestGivingUpIsBounded(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop())
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(1), resock.WithCloseTimeout(3*time.Second))
		events := client.Subscribe(t.Context(), resock.WithBuffer(0))
		began := time.Now()
		var giveUp *resock.GiveUpError
		if err := client.Run(t.Context()); !errors.As(err, &giveUp) {
			t.Errorf("Run: got %v, want a GiveUpError", err)
		}
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("giving up took %v, want 3s", took)
		}
		for event := range new(grammar.Checker).All(t, events) {
			t.Errorf("got %#v after the end, want no event", event)
		}
	})
}

// A retry policy is told the server's close code and reason, both during OnOpen and
// later.
func TestFailureHasTheServersCloseCode(t *testing.T) {
	register := resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
		_, _, err := s.Receive(ctx)
		return err
	})
	closes := func(c *resocktest.Conn) { _ = c.Close(1008, "who are you?") }
	violates := func(c *resocktest.Conn) { _ = c.Raw(resocktest.Frame(rig.Fin|3, nil)) } // a reserved opcode
	for _, tt := range []struct {
		name   string
		option resock.Option
		server func(*resocktest.Conn)
		phase  resock.Phase
		code   resock.StatusCode
		reason string
	}{
		{"close while registering", register, closes, resock.PhaseSetup, 1008, "who are you?"},
		{"close", resock.WithStableAfter(0), closes, 0, 1008, "who are you?"},
		{"violation while registering", register, violates, resock.PhaseProtocol, 1002, ""},
		{"violation", resock.WithStableAfter(0), violates, resock.PhaseProtocol, 1002, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(tt.server)
				var told resock.Failure
				client := rig.Bare(t, s.URL, rig.Reach(s), tt.option,
					resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
						told = f
						return resock.Decision{Action: resock.ActionStop}
					}))
				err := client.Run(t.Context())
				if told.Phase != tt.phase || told.Code != tt.code || told.Reason != tt.reason {
					t.Errorf("the policy got %+v, want what the server said", told)
				}
				if tt.reason != "" && websocket.CloseStatus(err) != tt.code {
					t.Errorf("Run: got %v, want the close code", err)
				}
			})
		})
	}
}

// The client waits for the server's close frame until the close timeout, except when it
// reconnects.
func TestServerThatDoesNotAnswerTheClose(t *testing.T) {
	for name, tt := range map[string]struct {
		act  func(*resock.Client)
		took time.Duration
		next resock.State
	}{
		"Suspend":   {(*resock.Client).Suspend, 3 * time.Second, resock.StateSuspended},
		"Close":     {func(c *resock.Client) { _ = c.Close(resock.StatusNormalClosure, "") }, 3 * time.Second, resock.StateClosed},
		"Reconnect": {(*resock.Client).Reconnect, 0, resock.StateConnecting},
	} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle((*resocktest.Conn).IgnoreClose)
			client := rig.Start(t, s.URL, rig.Reach(s), resock.WithCloseTimeout(3*time.Second))
			client.Open()
			synctest.Wait() // the server ignores close frames from now on
			began := time.Now()
			tt.act(client.Client)
			end := rig.Next[resock.CloseEvent](client)
			if took := end.Time.Sub(began); took != tt.took || end.Clean || end.Next != tt.next {
				t.Errorf("%s: closed after %v, clean %v, next %v, want %v, not clean, and %v", name, took, end.Clean, end.Next, tt.took, tt.next)
			}
		})
	}
}

// Attempt.Err tells how the last session ended, not what had failed before it opened.
func TestAttemptErrAfterSuspend(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		var last resock.Attempt
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			last = a
			return resock.Endpoint{}, nil
		}))
		rig.Next[resock.FailEvent](client)
		s.Restart()
		client.Open()
		client.Suspend()
		rig.Next[resock.CloseEvent](client)
		client.Resume()
		client.Open()
		if last.Err != nil || last.Session != 1 {
			t.Errorf("told %+v, want session 1 and no error", last)
		}
	})
}

// The default policy decides as documented for every phase, status and close code.
func TestDefaultRetryPolicy(t *testing.T) {
	check := func(f resock.Failure, action resock.Action, after time.Duration, spread float64) {
		t.Helper()
		d := resock.DefaultRetryPolicy(f)
		if d.Action != action || d.After != after || max(d.Spread, 1) != spread || d.Rule == "" {
			t.Errorf("%+v for %+v, want action %d after %v, spread %v", d, f, action, after, spread)
		}
	}
	const retry, slow = resock.ActionRetry, resock.ActionRetrySlow
	for phase := resock.PhaseEndpoint; phase <= resock.PhaseProtocol; phase++ {
		for _, attempt := range []int{1, 2, 1000000} {
			check(resock.Failure{Phase: phase, Err: rig.ErrTest, Code: -1, Attempt: attempt}, retry, 0, 1)
		}
	}
	for status := 100; status <= 599; status++ {
		action := retry
		if status >= 300 && status <= 499 && status != 408 && status != 425 && status != 429 {
			action = slow
		}
		for given, want := range map[time.Duration]time.Duration{
			0: 0, 7 * time.Second: 7 * time.Second, time.Hour: 5 * time.Minute, -time.Second: 0,
		} {
			check(resock.Failure{Phase: resock.PhaseUpgrade, Status: status, RetryAfter: given, Code: -1}, action, want, 1)
		}
	}
	for code := resock.StatusCode(0); code <= 5000; code++ {
		for _, phase := range []resock.Phase{0, resock.PhaseProtocol, resock.PhaseSetup} {
			for repeats := 0; repeats <= 7; repeats++ {
				action, spread := retry, 1.0
				switch code {
				case 1012, 1013:
					spread = 2
				case 1008:
					action = slow
				case 1002, 1003, 1007, 1009, 1010:
					if repeats >= 2 {
						action = slow
					}
				}
				check(resock.Failure{Phase: phase, Code: code, Repeats: repeats}, action, 0, spread)
			}
		}
	}
}

// The client does what the application's own policy decides.
func TestRetryPolicyDecides(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			if f.Phase != resock.PhaseTCP {
				t.Errorf("the policy got %+v, want phase TCP", f)
			}
			d := resock.DefaultRetryPolicy(f)
			switch f.Attempt {
			case 1:
				d.After = time.Minute
			case 2:
				d.Action = resock.ActionRetrySlow
			case 3:
				d.Action, d.Rule = resock.ActionStop, "three is enough"
			}
			return d
		}))
		if fail := rig.Next[resock.FailEvent](client); fail.RetryIn < time.Minute || fail.RetryIn > time.Minute+500*time.Millisecond {
			t.Errorf("retry in %v, want 1 min and some jitter", fail.RetryIn)
		}
		if fail := rig.Next[resock.FailEvent](client); fail.RetryIn < 15*time.Second || fail.RetryIn > 30*time.Second {
			t.Errorf("retry in %v, want 15 s to 30 s", fail.RetryIn)
		}
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateClosed {
			t.Errorf("got %+v, want closed next", fail)
		}
		<-client.Done()
		var giveUp *resock.GiveUpError
		if err := client.Err(); !errors.As(err, &giveUp) || giveUp.Rule != "three is enough" {
			t.Errorf("Err: got %v, want a GiveUpError by the rule of the policy", err)
		}
	})
}

func TestOfflineFromTheStart(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := rig.Offline()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
		client.Quiet(time.Hour / 2)
		network.Set(false) // an announcement without a change
		client.Quiet(time.Hour / 2)
		client.Is(resock.StateOffline)
		if stats := client.Stats(); stats.Attempts != 0 || len(s.Attempts()) != 0 {
			t.Errorf("%d attempts and %d dials without a network, want none", stats.Attempts, len(s.Attempts()))
		}
		began := time.Now()
		network.Set(true)
		if open := client.Open(); open.Attempt != 1 {
			t.Errorf("got %+v, want attempt 1", open)
		}
		rig.Within(t, began, 0, 500*time.Millisecond)
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Returned()
		if begun, stopped := network.Subscriptions(); begun != 1 || stopped != 1 {
			t.Errorf("%d subscriptions to the network, %d stopped, want 1 and 1", begun, stopped)
		}
	})
}

func TestOfflineWhileWaiting(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			return resock.Decision{After: time.Minute}
		}))
		if fail := rig.Next[resock.FailEvent](client); fail.Attempt != 1 || fail.Next != resock.StateWaiting {
			t.Errorf("got %+v, want attempt 1, waiting", fail)
		}
		network.Set(false)
		client.Is(resock.StateOffline)
		client.Quiet(10 * time.Second)
		began := time.Now()
		network.Set(true)
		client.Is(resock.StateWaiting)
		// Being offline is not an attempt, and the delay that the server asked for holds.
		if fail := rig.Next[resock.FailEvent](client); fail.Attempt != 2 {
			t.Errorf("attempt %d, want 2", fail.Attempt)
		}
		rig.Within(t, began, 49*time.Second, 51*time.Second)

		s.Script(resocktest.StallDial()) // the network is lost during an attempt
		s.Restart()
		began = time.Now()
		client.Quiet(time.Minute + time.Second)
		client.Is(resock.StateConnecting)
		network.Set(false)
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateOffline || fail.RetryIn != 0 {
			t.Errorf("got %+v, want offline next, without a delay", fail)
		}
		rig.Within(t, began, time.Minute, 71*time.Second)
	})
}

// An attempt to reach this machine never waits for the network.
func TestLoopbackNeedsNoNetwork(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "localhost"} {
		t.Run(host, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				network := rig.Offline()
				client := rig.Start(t, "ws://"+host+":8080/", rig.Reach(s), resock.WithNetwork(network))
				began := time.Now()
				client.Open()
				network.Set(false)
				client.Quiet(time.Minute)
				client.Reconnect()
				rig.Next[resock.CloseEvent](client)
				client.Open()
				rig.Within(t, began, time.Minute, time.Minute)
			})
		})
	}
}

func TestRetryAfterIsHonored(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusServiceUnavailable, http.Header{"Retry-After": {"3"}}, "full"), resocktest.Hold())
		r := rig.Reaching(t, s)
		fail := r.Fail(resock.PhaseUpgrade)
		r.Open()
		attempts := s.Attempts()
		if waited := attempts[1].Time.Sub(attempts[0].Time); waited < 3*time.Second || waited > 3020*time.Millisecond || waited != fail.RetryIn {
			t.Errorf("dialed again after %v, announced as %v, want 3 s and the jitter of the first backoff", waited, fail.RetryIn)
		}
	})
}

func TestAttemptLimit(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		r := rig.Reaching(t, s, resock.WithMaxAttempts(10))
		queued := r.Queue("never sent")
		for attempt := 1; attempt <= 10; attempt++ {
			fail := r.Fail(resock.PhaseTCP)
			if last := fail.Next == resock.StateClosed; fail.Attempt != attempt || last != (attempt == 10) {
				t.Errorf("attempt %d: got %+v, want the client closed after attempt 10", attempt, fail)
			}
		}
		if _, more := <-r.Events; more {
			t.Error("got an event after StateClosed")
		}
		<-r.Done()
		var gaveUp *resock.GiveUpError
		if !errors.As(r.Err(), &gaveUp) || gaveUp.Attempts != 10 || gaveUp.Rule != "attempt limit" || gaveUp.Err == nil {
			t.Errorf("%v, want to give up by the attempt limit", r.Err())
		}
		if err := <-queued; !errors.Is(err, resock.ErrClosed) {
			t.Errorf("the queued message: got %v, want ErrClosed", err)
		}
		if n := len(s.Attempts()); n != 10 {
			t.Errorf("%d attempts, want 10", n)
		}
	})
}

// A thousand clients that lose their connections at the same instant dial again at times
// spread uniformly below the first bound, as full jitter promises.
func TestFleetSpreads(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		const clients, bound, slots = 1000, 10 * time.Second, 10
		all := make([]*resock.Client, clients)
		for i := range all {
			client, err := resock.New(s.URL, rig.Reach(s), resock.WithBackoff(bound, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			all[i] = client
			go client.Run(t.Context())
		}
		time.Sleep(time.Minute) // until all are open and stable
		cut := time.Now()
		for _, c := range s.Conns() {
			c.Drop()
		}
		time.Sleep(time.Minute)
		var counts [slots]int
		again := s.Attempts()[clients:]
		for _, attempt := range again {
			counts[min(slots-1, int(attempt.Time.Sub(cut)*slots/bound))]++
		}
		if len(again) != clients {
			t.Fatalf("%d clients dialed again, want all", len(again))
		}
		// Pearson's chi-squared test: with 9 degrees of freedom, a uniform distribution
		// exceeds 33.7 once in ten thousand runs.
		squares := 0.0
		for _, n := range counts {
			squares += float64((n-clients/slots)*(n-clients/slots)) / (clients / slots)
		}
		if squares > 33.7 {
			t.Errorf("dials per second %v, chi-squared %.1f, want at most 33.7", counts, squares)
		}
		for _, client := range all {
			if client.State() != resock.StateOpen {
				t.Errorf("a client is %v, want open", client.State())
			}
			_ = client.Close(resock.StatusNormalClosure, "")
		}
		for _, client := range all {
			<-client.Done()
		}
	})
}

// The last event and the error of Run name the rule that ended the client.
func TestPermanentError(t *testing.T) {
	transport := &url.Error{Op: "Post", URL: rig.WithSecrets("https://tokens.test"), Err: rig.ErrTest}
	endpoint := func(err error) resock.Option {
		return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, err })
	}
	onOpen := func(err error) resock.Option {
		return resock.WithOnOpen(func(context.Context, *resock.Session) error { return err })
	}
	for name, tt := range map[string]struct {
		hook  resock.Option
		phase resock.Phase
	}{
		"endpoint":          {endpoint(backoff.Permanent(rig.ErrTest)), resock.PhaseEndpoint},
		"endpoint, wrapped": {endpoint(fmt.Errorf("token: %w", backoff.Permanent(rig.ErrTest))), resock.PhaseEndpoint},
		"endpoint, a URL":   {endpoint(backoff.Permanent(transport)), resock.PhaseEndpoint},
		"OnOpen":            {onOpen(backoff.Permanent(rig.ErrTest)), resock.PhaseSetup},
		"OnOpen, after a violation": {resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			_, _, _ = s.Receive(ctx)
			return backoff.Permanent(rig.ErrTest)
		}), resock.PhaseSetup},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) { _ = c.Raw(resocktest.Frame(rig.Fin|3, nil)) })
				r := rig.Start(t, s.URL, rig.Reach(s), tt.hook, resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
					t.Error("the policy is asked")
					return resock.Decision{}
				}))
				if fail := r.Fail(tt.phase); fail.Next != resock.StateClosed || fail.Rule != "permanent" || !errors.Is(fail.Err, rig.ErrTest) {
					t.Errorf("%+v", fail)
				}
				<-r.Done()
				var giveUp *resock.GiveUpError
				if err := r.Err(); !errors.As(err, &giveUp) || giveUp.Rule != "permanent" || giveUp.Attempts != 1 || !errors.Is(err, rig.ErrTest) {
					t.Errorf("Run returned %v", err)
				}
			})
		})
	}
}

// A dialer is not the one to decide: that may be a library's, with retries of its own.
func TestPermanentErrorOfADialer(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, resock.WithHTTPClient(&http.Client{Transport: &http.Transport{
			DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, backoff.Permanent(rig.ErrTest) },
		}}))
		if fail := r.Fail(resock.PhaseTCP); fail.Next != resock.StateWaiting {
			t.Errorf("%+v", fail)
		}
	})
}

// What a hook returns after the application called Suspend is not looked at.
func TestPermanentErrorAfterSuspend(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			<-ctx.Done()
			return resock.Endpoint{}, backoff.Permanent(ctx.Err())
		}))
		synctest.Wait()
		r.Suspend()
		if fail := r.Fail(resock.PhaseEndpoint); fail.Next != resock.StateSuspended || fail.Rule != "" {
			t.Errorf("%+v", fail)
		}
	})
}

// Run returns nil when the retry policy finishes the client, be it on a failed attempt,
// a lost session or a close.
func TestActionFinish(t *testing.T) {
	for name, step := range map[string]resocktest.Step{
		"attempt": resocktest.Drop(),
		"session": resocktest.Serve((*resocktest.Conn).Drop),
		"close":   resocktest.Serve(func(c *resocktest.Conn) { _ = c.Close(4000, "all done") }),
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(step)
				r := rig.Start(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(1), resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
					return resock.Decision{Action: resock.ActionFinish, Rule: "done"}
				}))
				var last resock.Event
				for event := range r.Events {
					last = event
				}
				var next resock.State
				var rule string
				switch e := last.(type) {
				case resock.FailEvent:
					next, rule = e.Next, e.Rule
				case resock.CloseEvent:
					next, rule = e.Next, e.Rule
				}
				if next != resock.StateClosed || rule != "done" {
					t.Errorf("the last event is %+v", last)
				}
				<-r.Returned()
				if err := r.Err(); err != nil {
					t.Errorf("Run returned %v", err)
				}
				if err := r.WaitOpen(t.Context()); err != resock.ErrClosed {
					t.Errorf("WaitOpen: %v", err)
				}
			})
		})
	}
}

// Each event that ends an attempt or a session tells the rule that decided.
func TestRuleInEvents(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(),
			resocktest.Serve(func(c *resocktest.Conn) { _ = c.Close(1012, "") }),
			resocktest.Serve((*resocktest.Conn).Drop),
			resocktest.Drop(), resocktest.Hold())
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			if f.Attempt == 4 {
				return resock.Decision{}
			}
			return resock.DefaultRetryPolicy(f)
		}))
		if fail := r.Fail(resock.PhaseUpgrade); fail.Rule != "connection" {
			t.Errorf("%+v", fail)
		}
		r.Open()
		if e := r.Closed(1012, "", true); e.Rule != "server busy" {
			t.Errorf("%+v", e)
		}
		r.Open()
		if fail := r.Fail(resock.PhaseRead); fail.Rule != "connection" {
			t.Errorf("%+v", fail)
		}
		if fail := r.Fail(resock.PhaseUpgrade); fail.Rule != "retry policy" {
			t.Errorf("a decision without a name: %+v", fail)
		}
		r.Open()
		r.Reconnect()
		if e := rig.Next[resock.CloseEvent](r); e.Rule != "" {
			t.Errorf("%+v", e)
		}
		r.Open()
		_ = r.Close(resock.StatusNormalClosure, "")
		if e := rig.Next[resock.CloseEvent](r); e.Rule != "" {
			t.Errorf("%+v", e)
		}
	})
}

// Neither the silence in which a heartbeat is missed, nor a write that stalls, nor a server
// that does not answer a close frame makes a session stable.
func TestSilenceMakesNoSessionStable(t *testing.T) {
	stable := resock.WithStableAfter(3 * time.Second)
	for name, tt := range map[string]struct {
		opts  []resock.Option
		phase resock.Phase
		send  bool
	}{
		"heartbeat":   {[]resock.Option{resock.WithHeartbeat(2*time.Second, 3*time.Second)}, resock.PhaseHeartbeat, false},
		"a late beat": {[]resock.Option{resock.WithHeartbeat(time.Minute, 3*time.Second)}, resock.PhaseHeartbeat, false},
		"idle":        {[]resock.Option{resock.WithIdleTimeout(5 * time.Second)}, resock.PhaseHeartbeat, false},
		"write":       {[]resock.Option{resock.WithWriteTimeout(5 * time.Second), resock.WithHeartbeat(0, 0)}, resock.PhaseWrite, true},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) {
					c.IgnorePings()
					c.StopReading()
				})
				r := rig.Start(t, s.URL, append(tt.opts, rig.Reach(s), stable, resock.WithMaxAttempts(3))...)
				for attempt := 1; attempt <= 3; attempt++ {
					if open := r.Open(); open.Attempt != attempt {
						t.Errorf("attempt %d, want %d", open.Attempt, attempt)
					}
					if tt.send {
						r.Outcomes.Go(func() { _ = r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20)) })
					}
					if fail := r.Fail(tt.phase); fail.Took < 3*time.Second {
						t.Errorf("%+v", fail)
					}
				}
				<-r.Done()
			})
		})
	}
	t.Run("age", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Drop(), resocktest.Drop(), resocktest.Serve((*resocktest.Conn).IgnoreClose), resocktest.Drop(), resocktest.Hold())
			r := rig.Start(t, s.URL, rig.Reach(s), stable, resock.WithMaxSessionAge(time.Second), resock.WithCloseTimeout(5*time.Second))
			r.Fail(resock.PhaseUpgrade)
			r.Fail(resock.PhaseUpgrade)
			r.Open()
			r.Closed(resock.StatusNormalClosure, "", false)
			if fail := r.Fail(resock.PhaseUpgrade); fail.Attempt != 3 {
				t.Errorf("attempt %d after a session of a second, want 3", fail.Attempt)
			}
		})
	})
	t.Run("after blocked delivery", func(t *testing.T) { // which is no silence, and no health
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) {
				c.IgnorePings()
				_ = c.Push("takes long")
			})
			r := rig.Start(t, s.URL, rig.Reach(s), stable, resock.WithHeartbeat(10*time.Second, 3*time.Second), resock.WithMaxAttempts(1),
				resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { time.Sleep(time.Minute) }))
			r.Open()
			if fail := r.Fail(resock.PhaseHeartbeat); fail.Next != resock.StateClosed {
				t.Errorf("%+v without a second of health", fail)
			}
		})
	})
	t.Run("a byte before it", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Start(t, s.URL, rig.Reach(s), stable, resock.WithHeartbeat(time.Minute, 3*time.Second), resock.WithMaxAttempts(1))
			c := s.Accept()
			c.IgnorePings()
			r.Open()
			r.Quiet(time.Second)
			_ = c.Push("the last word")
			r.Message("the last word")
			if fail := r.Fail(resock.PhaseHeartbeat); fail.Next != resock.StateClosed {
				t.Errorf("%+v after a second of health", fail)
			}
		})
	})
	t.Run("pongs", func(t *testing.T) { // are bytes
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Start(t, s.URL, rig.Reach(s), stable, resock.WithHeartbeat(2*time.Second, 3*time.Second), resock.WithMaxAttempts(1))
			c := s.Accept()
			r.Open()
			time.Sleep(10 * time.Second)
			c.IgnorePings()
			if fail := r.Fail(resock.PhaseHeartbeat); fail.Next != resock.StateWaiting {
				t.Errorf("%+v after ten seconds of health", fail)
			}
		})
	})
}
