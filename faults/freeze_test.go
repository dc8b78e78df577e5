package faults

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// echo subscribes and answers every message by Send, as many applications do. It checks
// the events.
func echo(t *testing.T, client *resock.Client, tasks *sync.WaitGroup, opts ...resock.SubscribeOption) {
	events := client.Subscribe(context.Background(), opts...)
	tasks.Go(func() {
		for event := range new(grammar.Checker).All(t, events) {
			if _, ok := event.(resock.MessageEvent); !ok {
				continue
			}
			err := client.Send(context.Background(), resock.MessageText, []byte("answer"))
			if err != nil && !errors.Is(err, resock.ErrNotSent) && !errors.Is(err, resock.ErrMaybeSent) {
				t.Errorf("Send: got %v, want nil, ErrNotSent or ErrMaybeSent", err)
			}
		}
	})
}

// A deadlock to avoid: a consumer that replies by Send waits for a session, which only
// the client can open, and the client must not wait for the consumer.
func TestFault53_ConsumerSends(t *testing.T) {
	for name, drop := range map[string]func(*resocktest.Conn){
		"drop":  (*resocktest.Conn).Drop,
		"reset": (*resocktest.Conn).Reset,
		"close": func(c *resocktest.Conn) { _ = c.Close(resock.StatusGoingAway, "") },
		"stall": func(c *resocktest.Conn) { c.StopReading(); c.IgnorePings() },
	} {
		for _, buffer := range []int{0, 1, 64} {
			t.Run(fmt.Sprint(name, " ", buffer), func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					rig.Flooding(s, 3, 200, drop)
					client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithWriteTimeout(time.Second))
					var tasks sync.WaitGroup
					echo(t, client, &tasks, resock.WithBuffer(buffer))
					go client.Run(context.Background())
					rig.OpensWithin(t, client, 4, 10*time.Minute)
					time.Sleep(time.Second)
					if answers := len(s.Conns()[3].Received().Messages); answers == 0 {
						t.Error("no reply arrived in the last session")
					}
					rig.ClosesWithin(t, client, 5*time.Second)
					tasks.Wait()
				})
			})
		}
	}
	for name, consume := range map[string]func(<-chan resock.Event){
		"never read": func(<-chan resock.Event) {},
		"break": func(events <-chan resock.Event) {
			for event := range events {
				if _, ok := event.(resock.MessageEvent); ok {
					break
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				rig.Flooding(s, 3, 200, (*resocktest.Conn).Drop)
				client := rig.Bare(t, s.URL, rig.Reach(s))
				events := grammar.Tee(t, client)
				abandoned := rig.Abandon(context.Background(), client)
				go consume(abandoned)
				go client.Run(context.Background())
				for range 3 {
					for event := range events {
						if _, over := event.(resock.FailEvent); over {
							break
						}
					}
				}
				rig.OpensWithin(t, client, 4, 10*time.Minute)
				rig.ClosesWithin(t, client, 5*time.Second)
			})
		})
	}
}

func TestFault54_HandlerSends(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 3, 2, (*resocktest.Conn).Drop)
		var client *resock.Client
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithMessageHandler(func(ctx context.Context, _ resock.MessageEvent) {
			_ = client.Send(context.WithoutCancel(ctx), resock.MessageText, []byte("answer"))
		}))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 4, 10*time.Minute)
		rig.ClosesWithin(t, client, 5*time.Second)
	})
	// The server goes on pushing before it answers our close frame.
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		push := make(chan struct{})
		s.Handle(func(c *resocktest.Conn) {
			c.IgnoreClose()
			<-push
			for range 100 {
				_ = c.Push("more")
			}
			<-c.Done()
		})
		var client *resock.Client
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithMessageHandler(func(ctx context.Context, _ resock.MessageEvent) {
			_ = client.Send(context.Background(), resock.MessageText, []byte("answer"))
		}))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Minute)
		go func() {
			time.Sleep(time.Second)
			close(push)
		}()
		rig.ClosesWithin(t, client, 5*time.Second)
	})
	// The context of the handler ends as soon as the client is suspended.
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 1, 1, func(c *resocktest.Conn) { <-c.Done() })
		var client *resock.Client
		errs := make(chan error, 1)
		type key struct{}
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithMessageHandler(func(ctx context.Context, m resock.MessageEvent) {
			if ctx.Value(key{}) != "value" || m.Session > 2 {
				t.Errorf("got value %v, session %d, want the value of Run's context, session 1 or 2", ctx.Value(key{}), m.Session)
			}
			<-ctx.Done()
			if m.Session == 1 {
				errs <- ctx.Err()
			}
		}))
		go client.Run(context.WithValue(context.Background(), key{}, "value"))
		rig.OpensWithin(t, client, 1, time.Minute)
		client.Suspend()
		began := time.Now()
		if err := <-errs; err != context.Canceled || time.Since(began) > 5*time.Second {
			t.Errorf("the context of the handler: got %v after %v, want Canceled within 5s", err, time.Since(began))
		}
		client.Resume()
		rig.OpensWithin(t, client, 2, time.Minute)
	})
}

func TestFault55_SessionAgeUnderLoad(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			for c.Push("tick") == nil {
				time.Sleep(time.Millisecond)
			}
		})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMaxSessionAge(10*time.Second))
		var tasks sync.WaitGroup
		echo(t, client, &tasks)
		go client.Run(context.Background())
		began := time.Now()
		rig.OpensWithin(t, client, 30, 6*time.Minute)
		if took := time.Since(began); took > 5*time.Minute+30*time.Second {
			t.Errorf("30 sessions of 10s took %v, want at most 5m30s", took)
		}
		rig.ClosesWithin(t, client, 5*time.Second)
		tasks.Wait()
	})
}

func TestFault56_UnreadSubscriptions(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		unread := []<-chan resock.Event{
			rig.Abandon(context.Background(), client, resock.WithoutMessages()),
			rig.Abandon(context.Background(), client, resock.WithOverflow(resock.OverflowDropOldest)),
			rig.Abandon(context.Background(), client, resock.WithBuffer(0), resock.WithoutMessages()),
			rig.Abandon(context.Background(), client),
		}
		s.Stop()
		go client.Run(context.Background())
		time.Sleep(24 * time.Hour)
		s.Restart()
		rig.OpensWithin(t, client, 1, time.Minute)
		rig.ClosesWithin(t, client, 5*time.Second)
		for i, events := range unread {
			checker, n := grammar.Checker{Behind: true, Cut: true}, 0
			for event := range checker.All(t, events) {
				if n++; n > 64+64 {
					t.Fatalf("subscriber %d: event %d is %+v, want at most 128 kept", i, n, event)
				}
			}
		}
	})
}

// An OnOpen hook that waits for the client waits for itself. It is abandoned, and the
// log tells the developer which hook it was.
func TestFault57_OnOpenCallsClientSend(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).Echo)
		var client *resock.Client
		wrong := true
		log := new(rig.Log)
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithDialTimeout(3*time.Second), resock.WithLogger(slog.New(slog.NewTextHandler(log, nil))),
			resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				if wrong {
					wrong = false
					return client.Send(context.Background(), resock.MessageText, []byte("hello"))
				}
				return session.Send(ctx, resock.MessageText, []byte("hello"))
			}))
		events := grammar.Tee(t, client)
		go client.Run(context.Background())
		fail := rig.Await[resock.FailEvent](t, events)
		if fail.Phase != resock.PhaseSetup || fail.Took > 4*time.Second || !errors.Is(fail.Err, context.DeadlineExceeded) || !strings.Contains(fail.Err.Error(), "WithOnOpen") {
			t.Errorf("got %+v, want a failure of WithOnOpen by the dial timeout", fail)
		}
		if !strings.Contains(log.String(), "WithOnOpen") {
			t.Errorf("the log does not name the hook:\n%s", log)
		}
		rig.Await[resock.OpenEvent](t, events)
		rig.ClosesWithin(t, client, 5*time.Second)
	})
	// Hooks that never return pile up only to a limit, and Close is still in time.
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).Echo)
		var client *resock.Client
		var calls atomic.Int32
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithDialTimeout(time.Second),
			resock.WithOnOpen(func(context.Context, *resock.Session) error {
				calls.Add(1)
				return client.Send(context.Background(), resock.MessageText, []byte("hello"))
			}))
		go client.Run(context.Background())
		time.Sleep(time.Hour)
		if n := calls.Load(); n != 4 {
			t.Errorf("OnOpen was called %d times, want 4", n)
		}
		if err := client.Stats().LastErr; !strings.Contains(err.Error(), "have not returned") {
			t.Errorf("LastErr: got %v, want that hooks have not returned", err)
		}
		rig.ClosesWithin(t, client, 5*time.Second)
	})
}

// exits are the ways in which a hook may end without returning.
var exits = map[string]func(){
	"panic":  func() { panic("of the application") },
	"Goexit": runtime.Goexit,
}

// A hookOption makes a hook of a function.
type hookOption func(do func()) resock.Option

// hooksOnRun are the hooks that the client calls on the goroutine of Run.
var hooksOnRun = map[string]hookOption{
	"handler": func(do func()) resock.Option {
		return resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { do() })
	},
	"filter": func(do func()) resock.Option {
		return resock.WithFilter(func(context.Context, resock.MessageEvent) bool { do(); return true })
	},
	"ping": rig.OnPing,
	"pong": rig.OnPong,
}

// hooksBesideRun are the hooks that the client calls on goroutines of their own.
var hooksBesideRun = map[string]hookOption{
	"endpoint": func(do func()) resock.Option {
		return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			do()
			return resock.Endpoint{}, nil
		})
	},
	"OnOpen": func(do func()) resock.Option {
		return resock.WithOnOpen(func(context.Context, *resock.Session) error { do(); return nil })
	},
	"dial limiter": func(do func()) resock.Option {
		return resock.WithDialLimiter(rig.Limiter(func(context.Context) error { do(); return nil }))
	},
	"retry policy": func(do func()) resock.Option {
		return resock.WithRetryPolicy(func(f resock.Failure) resock.Decision { do(); return resock.Decision{} })
	},
	"backoff policy": func(do func()) resock.Option {
		return resock.WithBackoffPolicy(func() backoff.BackOff { return rig.BackOff(func() time.Duration { do(); return time.Second }) })
	},
	"heartbeat message": func(do func()) resock.Option {
		return resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { do(); return resock.MessageText, nil })
	},
	"network": func(do func()) resock.Option {
		return resock.WithNetwork(rig.Online(func() bool { do(); return true }))
	},
}

// On the goroutine of Run, a panic or Goexit in a hook closes the client. A hook on
// another goroutine that exits by Goexit counts as failed; a panic there ends the
// program, as everywhere in Go, and so is not tested.
func TestFault78_HooksPanicOrExit(t *testing.T) {
	for name, option := range hooksOnRun {
		for how, exit := range exits {
			t.Run(name+" "+how, func(t *testing.T) { closesTheClient(t, option(exit)) })
		}
	}
	for name, option := range hooksBesideRun {
		t.Run(name+" Goexit", func(t *testing.T) {
			calls := 0
			survives(t, option(func() {
				if calls++; calls <= 3 {
					runtime.Goexit()
				}
			}))
		})
	}
}

// closesTheClient checks that a hook which exits closes the client with an error.
func closesTheClient(t *testing.T, hook resock.Option) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			_ = c.Ping("ping")
			_ = c.Pong("pong")
			_ = c.Push("message")
			<-c.Done()
		})
		client := rig.Bare(t, s.URL, resock.WithHTTPClient(s.Client()), hook)
		events := grammar.Tee(t, client)
		go func() {
			defer func() { _ = recover() }()
			_ = client.Run(context.Background())
			t.Error("Run returned, want the panic or Goexit to pass through")
		}()
		<-client.Done()
		for range events { // the channel is closed
		}
		if err := client.Err(); err == nil {
			t.Error("Err is nil after a hook closed the client")
		}
	})
}

// survives checks that a client opens in spite of a hook which exits a few times.
func survives(t *testing.T, hook resock.Option) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(), resocktest.Serve((*resocktest.Conn).Drop), resocktest.Echo())
		client := rig.Bare(t, s.URL, resock.WithHTTPClient(s.Client()), hook)
		events := grammar.Tee(t, client)
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Hour)
		rig.ClosesWithin(t, client, 5*time.Second)
		for range events { // the channel is closed
		}
	})
}

// A session that lasted only because its consumer was slow is not stable: it must not
// reset the backoff.
func TestFault80_BlockedTimeIsNotUptime(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			_ = c.Push("hello")
			c.Drop()
		})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(3))
		events := client.Subscribe(context.Background(), resock.WithBuffer(0))
		ran := make(chan error, 1)
		go func() { ran <- client.Run(context.Background()) }()
		for range (&grammar.Checker{Cut: true}).All(t, events) {
			time.Sleep(6 * time.Second)
		}
		var gaveUp *resock.GiveUpError
		if err := <-ran; !errors.As(err, &gaveUp) || gaveUp.Attempts != 3 {
			t.Errorf("Run: got %v, want a GiveUpError after 3 attempts", err)
		}
		if opens := client.Stats().Opens; opens != 3 {
			t.Errorf("%d sessions, want 3", opens)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			_ = c.Push("hello")
			c.Drop()
		})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(3),
			resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { time.Sleep(6 * time.Second) }))
		var gaveUp *resock.GiveUpError
		if err := client.Run(context.Background()); !errors.As(err, &gaveUp) || gaveUp.Attempts != 3 {
			t.Errorf("Run: got %v, want a GiveUpError after 3 attempts", err)
		}
	})
}

func TestFault85_PushesBeforeTheReply(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			if _, err := c.Read(); err != nil {
				return
			}
			for _, text := range []string{"push 1", "push 2", "answer", "push 3"} {
				_ = c.Push(text)
			}
			<-c.Done()
		})
		filtered := 0
		var kept *resock.Session
		r := rig.Reaching(t, s,
			resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool { filtered++; return true }),
			resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				kept = session
				if err := session.Send(ctx, resock.MessageText, []byte("subscribe")); err != nil {
					return err
				}
				for {
					typ, data, err := session.Receive(ctx)
					if err != nil || string(data) == "answer" {
						return err
					}
					session.Unread(typ, data)
					clear(data) // Unread has copied it
				}
			}))
		r.Open()
		for _, text := range []string{"push 1", "push 2", "push 3"} {
			r.Message(text)
		}
		kept.Unread(resock.MessageText, []byte("too late"))
		if err := kept.SetHeartbeat(time.Second, time.Second); err == nil {
			t.Error("SetHeartbeat after OnOpen: got nil, want an error")
		}
		if err := kept.SetIdleTimeout(time.Second); err == nil {
			t.Error("SetIdleTimeout after OnOpen: got nil, want an error")
		}
		synctest.Wait()
		if filtered != 3 {
			t.Errorf("the filter saw %d messages, want 3", filtered)
		}
		s.Conns()[0].Drop()
		r.Fail(resock.PhaseRead)
		r.Open()
		for _, text := range []string{"push 1", "push 2", "push 3"} {
			r.Message(text)
		}
	})
}

// A subscription has no goroutine of its own. It would leak if the client is never run
// nor closed.
func TestFault87_NoGoroutineWithoutRun(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 100 {
		client, err := resock.New("ws://server.test")
		if err != nil {
			t.Fatal(err)
		}
		rig.Abandon(context.Background(), client, resock.WithOverflow(resock.OverflowDropOldest))
		rig.Abandon(context.Background(), client)
		client.Messages(context.Background())
	}
	if now := runtime.NumGoroutine(); now > before+5 {
		t.Errorf("%d goroutines, want the %d from before", now, before)
	}
}

// The context of a handler ends when a write fails, so a handler that sends with it
// does not delay the end of the session.
func TestHandlerContextEndsWithAFailedWrite(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { _ = c.Push("question") })
		var client *resock.Client
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithMessageHandler(func(ctx context.Context, m resock.MessageEvent) {
			s.Conns()[0].Reset() // nothing is read meanwhile, so the write finds out
			_ = client.Send(ctx, resock.MessageText, []byte("answer"))
		}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		open := rig.Await[resock.OpenEvent](t, events)
		if fail := rig.Await[resock.FailEvent](t, events); fail.Phase != resock.PhaseWrite || !fail.Time.Equal(open.Time) {
			t.Errorf("got %+v after %v, want a FailEvent in phase write at once", fail, fail.Time.Sub(open.Time))
		}
	})
}

// A handler that does not return blocks delivery in the following sessions, too, and
// errors and Stats name it.
func TestHandlerBlocksTheNextSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 2, 1, func(c *resocktest.Conn) {
			time.Sleep(time.Second)
			c.Reset()
		})
		release := make(chan struct{})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-release }))
		events := client.Subscribe(context.Background())
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 3, 10*time.Minute)
		var took time.Duration
		for event := range new(grammar.Checker).All(t, events) {
			if e, ok := event.(resock.FailEvent); ok && e.Session == 2 {
				took = e.Took.Round(time.Millisecond)
				if want := fmt.Sprintf("was blocked for %v of %v", took, took); !strings.Contains(e.Err.Error(), want) {
					t.Errorf("got %v, want %q in it", e.Err, want)
				}
				break
			}
		}
		began := time.Now()
		if err := client.Send(context.Background(), resock.MessageText, []byte("hello")); err != nil {
			t.Errorf("Send: got %v, want nil", err)
		}
		if err := client.Flush(context.Background()); err == nil || !strings.Contains(err.Error(), "by WithMessageHandler") || time.Since(began) > 10*time.Second {
			t.Errorf("Flush: got %v after %v, want an error that names WithMessageHandler within 10s", err, time.Since(began))
		}
		if stats := client.Stats(); stats.BlockedBy != "WithMessageHandler" || stats.Blocked <= took || stats.Blocked != time.Since(stats.BlockedSince) {
			t.Errorf("got %+v, want it blocked by WithMessageHandler for longer than session 2, and still", stats)
		}
		close(release)
		rig.ClosesWithin(t, client, 5*time.Second)
	})
}

// lateTransport returns its first response late, whatever the context says.
type lateTransport struct {
	base http.RoundTripper
	late atomic.Bool
}

func (l *lateTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if l.late.Swap(true) {
		return l.base.RoundTrip(r)
	}
	response, err := l.base.RoundTrip(r.WithContext(context.WithoutCancel(r.Context())))
	time.Sleep(time.Minute)
	return response, err
}

// An attempt whose transport was abandoned does not call OnOpen when it returns after
// all, and does not affect the session that is open by then.
func TestLateTransport(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		calls := 0
		client := rig.Bare(t, s.URL, resock.WithHTTPClient(&http.Client{Transport: &lateTransport{base: s.Client().Transport}}),
			resock.WithOnOpen(func(context.Context, *resock.Session) error { calls++; return nil }))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Minute)
		time.Sleep(time.Minute)
		s.Conns()[1].IgnorePings()
		if err := client.Send(context.Background(), resock.MessageText, []byte("hello"), resock.WithSession(1)); err != nil || calls != 1 {
			t.Errorf("Send: got %v after %d calls of OnOpen, want nil after 1", err, calls)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := client.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush that is not answered: got %v, want DeadlineExceeded", err)
		}
		rig.ClosesWithin(t, client, 5*time.Second)
	})
}

// A filter that returns when its context ends is not abandoned, and the messages that
// it lets pass are delivered before the end of the session.
func TestFilterReturnsInTime(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve(func(c *resocktest.Conn) {
			_ = c.Raw(append(resocktest.Frame(rig.Fin|rig.Text, []byte("1")), resocktest.Frame(rig.Fin|rig.Text, []byte("2"))...))
			time.Sleep(time.Second)
			c.Reset()
		}), resocktest.Echo())
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithFilter(func(ctx context.Context, _ resock.MessageEvent) bool {
			<-ctx.Done()
			return true
		}))
		events := client.Subscribe(context.Background())
		go client.Run(context.Background())
		got := ""
		for event := range new(grammar.Checker).All(t, events) {
			switch e := event.(type) {
			case resock.MessageEvent:
				got += string(e.Data)
			case resock.FailEvent:
				if got != "12" || e.Phase != resock.PhaseWrite {
					t.Errorf("received %q before %+v, want 12 before a FailEvent in phase write", got, e)
				}
				_ = client.Close(resock.StatusNormalClosure, "")
			}
		}
	})
}

// slowLog is a log handler that takes 10 ms for each record.
type slowLog struct {
	slog.Handler
	records *atomic.Int32
}

func (h slowLog) Handle(context.Context, slog.Record) error {
	time.Sleep(10 * time.Millisecond)
	h.records.Add(1)
	return nil
}

// Log records from several goroutines wait for each other, and none is dropped.
func TestSlowLogger(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		records := new(atomic.Int32)
		log := slog.New(slowLog{slog.NewTextHandler(new(rig.Log), nil), records})
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithLogger(log))
		for range 3 {
			go client.Messages(context.Background(), resock.WithoutMessages()) // logs a warning
		}
		time.Sleep(time.Second)
		if n := records.Load(); n != 3 {
			t.Errorf("%d records, want 3", n)
		}
	})
}

// curiousLog is a log handler that calls the client before each record.
type curiousLog struct {
	slog.Handler
	client *atomic.Pointer[resock.Client]
}

func (h curiousLog) Enabled(context.Context, slog.Level) bool {
	if client := h.client.Load(); client != nil {
		_ = client.Stats()
	}
	return true
}

// No lock is held while a log handler runs, so it may call the client.
func TestLoggerCallsTheClient(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 1, 1, func(c *resocktest.Conn) { <-c.Done() })
		h := curiousLog{slog.NewTextHandler(new(rig.Log), nil), new(atomic.Pointer[resock.Client])}
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithLogger(slog.New(h)))
		h.client.Store(client)
		rig.Abandon(context.Background(), client, resock.WithBuffer(0), resock.WithLabel("blocks"))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Minute)
		time.Sleep(time.Second)
		if by := client.Stats().BlockedBy; by != "blocks" {
			t.Errorf("blocked by %q, want blocks", by)
		}
		rig.ClosesWithin(t, client, 5*time.Second)
	})
}

// startUnread starts a client whose one subscriber nobody reads.
func startUnread(t *testing.T, s *resocktest.Server, opts ...resock.SubscribeOption) (*resocktest.Conn, *resock.Client, <-chan resock.Event) {
	t.Helper()
	client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(10*time.Second, 5*time.Second))
	events := rig.Abandon(t.Context(), client, opts...)
	go client.Run(context.Background())
	rig.OpensWithin(t, client, 1, time.Second)
	return s.Accept(), client, events
}

// pongs waits until all goroutines are blocked, and returns how many pongs came.
func pongs(c *resocktest.Conn) int {
	synctest.Wait()
	return len(c.Received().Pongs)
}

// While delivery is blocked nothing is read, so a ping behind the blocked message gets
// its pong only when the subscriber reads on. If the server does not wait for that and
// cuts the connection, the heartbeat notices. A subscriber without a pending message, or
// one that drops the oldest, delays no pong.
func TestFault94_ServerPingsABlockedClient(t *testing.T) {
	t.Run("blocks", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			c, client, events := startUnread(t, s, resock.WithBuffer(1))
			_ = c.Ping("before")
			_ = c.Push("one")
			_ = c.Ping("behind")
			time.Sleep(time.Hour)
			if n := pongs(c); n != 1 || client.State() != resock.StateOpen {
				t.Fatalf("%d pongs, state %v; want only the first pong, and open", n, client.State())
			}
			rig.Await[resock.OpenEvent](t, events)
			if n := pongs(c); n != 2 {
				t.Errorf("%d pongs after the subscriber has read on, want 2", n)
			}
		})
	})
	t.Run("is cut", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			c, client, events := startUnread(t, s, resock.WithBuffer(1))
			_ = c.Push("one")
			_ = c.Push("two")
			synctest.Wait()
			c.Drop() // for want of a pong
			rig.OpensWithin(t, client, 2, 30*time.Second)
			rig.Await[resock.OpenEvent](t, events)
			rig.Await[resock.MessageEvent](t, events)
			rig.Await[resock.MessageEvent](t, events)
			if fail := rig.Await[resock.FailEvent](t, events); fail.Phase != resock.PhaseWrite {
				t.Errorf("got %+v, want a FailEvent in phase write", fail)
			}
		})
	})
	for name, opts := range map[string][]resock.SubscribeOption{
		"takes no event":  {resock.WithBuffer(0)},
		"may lose some":   {resock.WithBuffer(1), resock.WithOverflow(resock.OverflowDropOldest)},
		"has no messages": {resock.WithBuffer(0), resock.WithoutMessages()},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				c, client, _ := startUnread(t, s, opts...)
				if name != "takes no event" {
					for range 10 {
						_ = c.Push("push")
					}
				}
				_ = c.Ping("")
				if n := pongs(c); n != 1 {
					t.Errorf("%d pongs, want 1; %+v", n, client.Stats())
				}
			})
		})
	}
}
