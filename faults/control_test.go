package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/delay"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

func TestFault41_CloseWhileThePeerMisbehaves(t *testing.T) {
	for name, misbehave := range map[string]func(*resocktest.Conn){
		"silent": func(c *resocktest.Conn) { c.IgnoreClose() },
		"stalled mid-frame": func(c *resocktest.Conn) {
			c.IgnoreClose()
			_ = c.Raw(resocktest.Frame(rig.Fin|rig.Binary, make([]byte, 1000))[:500])
		},
		"announces a large frame": func(c *resocktest.Conn) {
			c.IgnoreClose()
			_ = c.Raw(resocktest.Frame(2, make([]byte, 100_000))[:100])
		},
		"streaming": func(c *resocktest.Conn) {
			c.IgnoreClose()
			for c.Push("more") == nil {
				time.Sleep(time.Millisecond)
			}
		},
		"not reading": func(c *resocktest.Conn) { c.StopReading() },
	} {
		for scheme, start := range map[string]func(testing.TB) *resocktest.Server{"TCP": resocktest.NewMemory, "TLS": resocktest.NewTLSMemory} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := start(t)
					s.Handle(misbehave)
					r := rig.Quick(t, s.URL, rig.Reach(s), resock.WithWriteTimeout(time.Hour))
					r.Open()
					if name == "not reading" {
						for range 500 {
							r.Queue(strings.Repeat("x", 1000))
						}
					}
					time.Sleep(100 * time.Millisecond)
					started := time.Now()
					_ = r.Close(4000, "enough")
					for {
						if e, ok := r.Next().(resock.CloseEvent); ok {
							if e.Code != 4000 || e.Reason != "enough" || e.Clean || e.Next != resock.StateClosed {
								t.Errorf("got %+v, want code 4000, reason enough, not clean, and then closed", e)
							}
							break
						}
					}
					<-r.Done()
					if took := time.Since(started); took > time.Second {
						t.Errorf("closing took %v, want at most the close timeout of 1s", took)
					}
				})
			})
		}
	}
}

// TestFault42 closes the client in each of its states; the rig checks that this is in
// time.
func TestFault42_CloseAnywhere(t *testing.T) {
	untilDone := func(ctx context.Context) { <-ctx.Done() }
	for name, tt := range map[string]struct {
		step resocktest.Step
		opts []resock.Option
		last resock.Phase // of the final FailEvent, or 0 if there is none
	}{
		"dial":    {resocktest.StallDial(), nil, resock.PhaseTCP},
		"upgrade": {resocktest.StallUpgrade(), nil, resock.PhaseUpgrade},
		"backoff": {resocktest.Refuse(), []resock.Option{resock.WithBackoffPolicy(constantly(time.Hour))}, 0},
		"endpoint": {resocktest.Hold(), []resock.Option{resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			untilDone(ctx)
			return resock.Endpoint{}, ctx.Err()
		})}, resock.PhaseEndpoint},
		"OnOpen": {resocktest.Hold(), []resock.Option{resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			_, _, err := s.Receive(ctx)
			return err
		})}, resock.PhaseSetup},
		"OnOpen, blocked in Send": {resocktest.Serve((*resocktest.Conn).StopReading), []resock.Option{resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			return s.Send(ctx, resock.MessageBinary, make([]byte, 1<<20))
		})}, resock.PhaseSetup},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(tt.step)
				r := rig.Reaching(t, s, tt.opts...)
				time.Sleep(time.Second)
				started := time.Now()
				_ = r.Close(resock.StatusNormalClosure, "")
				var last resock.Event
				for event := range r.Events {
					if _, open := event.(resock.OpenEvent); open {
						t.Errorf("got %+v after Close", event)
					}
					last = event
				}
				if took := time.Since(started); took > time.Second {
					t.Errorf("closing took %v, want at most 1s", took)
				}
				if fail, ok := last.(resock.FailEvent); tt.last != 0 && (!ok || fail.Phase != tt.last || fail.Next != resock.StateClosed) {
					t.Errorf("the last event is %T %+v, want a FailEvent in phase %v", last, last, tt.last)
				}
			})
		})
	}
	t.Run("message handler", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) { _ = c.Push("handle me") })
			var r *rig.Client
			closing := make(chan struct{})
			r = rig.Reaching(t, s, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-closing }))
			r.Open()
			time.Sleep(time.Second)
			_ = r.Close(resock.StatusNormalClosure, "")
			close(closing) // handlers must return when the client closes
			r.Closed(resock.StatusNormalClosure, "", true)
		})
	})
}

func TestFault43_CloseRaces(t *testing.T) {
	for seed := range uint64(50) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			random := rand.New(rand.NewPCG(seed, 43))
			delay := time.Duration(random.IntN(4)) * time.Millisecond
			s.Handle(func(c *resocktest.Conn) {
				time.Sleep(delay)
				c.Drop()
			})
			r := rig.Reaching(t, s)
			time.Sleep(time.Duration(random.IntN(8)) * time.Millisecond)
			var closers sync.WaitGroup
			for i := range 10 {
				closers.Go(func() { _ = r.Close(resock.StatusCode(4000+i), "") })
			}
			closers.Wait()
			final := 0
			for event := range r.Events {
				switch e := event.(type) {
				case resock.FailEvent:
					if e.Next == resock.StateClosed {
						final++
					}
				case resock.CloseEvent:
					if e.Next == resock.StateClosed {
						final++
					}
				}
			}
			if final > 1 {
				t.Errorf("seed %d: %d final events, want at most 1", seed, final)
			}
		})
	}
}

func TestFault44_DropDuringSend(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		c.StopReading()
		sent := make(chan error, 1)
		go func() {
			sent <- r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20))
		}()
		synctest.Wait()
		queued := r.Queue("behind it")
		c.Reset()
		if err := <-sent; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("the Send in progress: got %v, want ErrMaybeSent", err)
		}
		if err := <-queued; err != nil {
			t.Errorf("the message behind it: got %v, want nil", err)
		}
		r.Next()
		r.Open()
	})
}

func TestFault47_ProxyIdleTimeout(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			time.Sleep(10 * time.Second) // shorter than the heartbeat
			c.Drop()
		})
		r := rig.Reaching(t, s, resock.WithHeartbeat(time.Minute, 10*time.Second))
		for range 5 {
			r.Open()
			if fail := r.Fail(resock.PhaseRead); fail.RetryIn > 20*time.Millisecond {
				t.Errorf("retry in %v after a stable session, want at most 20ms", fail.RetryIn)
			}
		}
	})
}

// TestFault48 simulates a fleet with the delays of the library. The simulation in the
// benchmarks module has more cases.
func TestFault48_ThunderingHerd(t *testing.T) {
	const clients, outage = 10_000, 10 * time.Second
	peak := func(wait func(bound time.Duration) time.Duration) int {
		seconds := map[time.Duration]int{}
		for range clients {
			bounds, at := delay.Bounds(500*time.Millisecond, 30*time.Second), time.Duration(0)
			for {
				at += wait(bounds.NextBackOff())
				if at >= outage {
					break
				}
			}
			seconds[at.Truncate(time.Second)]++
		}
		most := 0
		for _, n := range seconds {
			most = max(most, n)
		}
		return most
	}
	random := rand.New(rand.NewPCG(4, 8))
	schedule := delay.Schedule{Max: 30 * time.Second}
	jittered := peak(func(bound time.Duration) time.Duration {
		return schedule.Draw(delay.Wish{}, bound, random.Float64())
	})
	plain := peak(func(bound time.Duration) time.Duration { return bound })
	if jittered > plain/5 {
		t.Errorf("%d attempts in the worst second, and %d without jitter, want at most a fifth", jittered, plain)
	}
}

func TestFault49_HooksFailOrHang(t *testing.T) {
	broken := errors.New("broken hook")
	endpoint := func(hook func(context.Context) error) resock.Option {
		return resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{}, hook(ctx)
		})
	}
	onOpen := func(hook func(context.Context) error) resock.Option {
		return resock.WithOnOpen(func(ctx context.Context, _ *resock.Session) error { return hook(ctx) })
	}
	for name, tt := range map[string]struct {
		with  func(func(context.Context) error) resock.Option
		phase resock.Phase
	}{
		"endpoint": {endpoint, resock.PhaseEndpoint},
		"OnOpen":   {onOpen, resock.PhaseSetup},
	} {
		t.Run(name+" fails", func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s, tt.with(func(context.Context) error { return broken }))
				for attempt := 1; attempt <= 3; attempt++ {
					if fail := r.Fail(tt.phase); !errors.Is(fail.Err, broken) || fail.Attempt != attempt || fail.Session != 0 {
						t.Errorf("got %+v, want attempt %d to fail by the error of the hook", fail, attempt)
					}
				}
			})
		})
		t.Run(name+" hangs", func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s, resock.WithDialTimeout(3*time.Second), tt.with(func(ctx context.Context) error {
					<-ctx.Done()
					return ctx.Err()
				}))
				if fail := r.Fail(tt.phase); fail.Took != 3*time.Second || !errors.Is(fail.Err, context.DeadlineExceeded) {
					t.Errorf("got %+v, want the dial timeout", fail)
				}
			})
		})
	}
}

// TestFault50 ends the context of Run at every moment of a run in which the client
// waits at every place where it can.
func TestFault50_CancelAnywhere(t *testing.T) {
	for moment := range 120 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(
				resocktest.Refuse(), resocktest.StallUpgrade(),
				resocktest.Serve(func(c *resocktest.Conn) { _ = c.Push("one"); time.Sleep(20 * time.Millisecond); c.Drop() }),
				resocktest.Serve(func(c *resocktest.Conn) { c.StopReading() }),
				resocktest.Echo(),
			)
			client, err := resock.New(s.URL, rig.QuickOptions(rig.Reach(s),
				resock.WithDialTimeout(20*time.Millisecond),
				resock.WithWriteTimeout(20*time.Millisecond),
				resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
					select {
					case <-time.After(5 * time.Millisecond):
					case <-ctx.Done():
					}
					return ctx.Err()
				}))...)
			if err != nil {
				t.Fatal(err)
			}
			outcomes := make(chan error, 400)
			for range 200 {
				_ = client.Enqueue(resock.MessageText, []byte(strings.Repeat("x", 1000)), resock.WithResult(func(err error) { outcomes <- err }))
			}
			events := grammar.Tee(t, client)
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(moment)*2*time.Millisecond+time.Microsecond)
			defer cancel()
			go func() {
				for range events {
				}
			}()
			if err := client.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("moment %d: Run: got %v, want DeadlineExceeded", moment, err)
			}
			deadline, _ := ctx.Deadline()
			if late := time.Since(deadline); late > time.Second {
				t.Errorf("moment %d: Run returned after %v, want at most 1s", moment, late)
			}
			if len(outcomes) != 200 {
				t.Errorf("moment %d: %d outcomes, want one for each of 200 messages", moment, len(outcomes))
			}
			if client.State() != resock.StateClosed || client.Err() == nil {
				t.Errorf("moment %d: state %v, error %v, want closed, with an error", moment, client.State(), client.Err())
			}
		})
	}
}

func TestFault51_SubscribersComeAndGo(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()

		for _, opts := range [][]resock.SubscribeOption{nil, {resock.WithBuffer(0)}, {resock.WithOverflow(resock.OverflowDropOldest)}} {
			ctx, leave := context.WithCancel(context.Background())
			late := (&grammar.Checker{Late: true, Cut: true}).Tee(ctx, t, r.Client, opts...)
			if open, ok := (<-late).(resock.OpenEvent); !ok || open.Session != 1 {
				t.Errorf("a late subscriber: got %+v, want the session's OpenEvent first", open)
			}
			_ = c.Push("for both")
			r.Message("for both")
			if message, ok := (<-late).(resock.MessageEvent); !ok || string(message.Data) != "for both" {
				t.Errorf("a late subscriber: got %+v, want the message for both", message)
			}
			leave()
			if _, more := <-late; more {
				t.Error("got an event after the subscriber had left")
			}
		}

		// A subscriber that does not read delays the others until it leaves.
		ctx, leave := context.WithCancel(context.Background())
		lazy := r.Subscribe(ctx, resock.WithBuffer(1))
		for i := range 10 {
			_ = c.Push(fmt.Sprint(i))
		}
		time.Sleep(time.Minute)
		if r.Stats().BlockedSince.IsZero() {
			t.Error("BlockedSince is zero while a subscriber blocks delivery")
		}
		leave()
		for i := range 10 {
			r.Message(fmt.Sprint(i))
		}
		for range (&grammar.Checker{Late: true, Cut: true}).All(t, lazy) { // the channel is closed
		}
		if !r.Stats().BlockedSince.IsZero() {
			t.Error("BlockedSince is set after the blocking subscriber has left")
		}
	})
}

// TestFault52 calls the control methods at random, while connections drop and messages
// are sent.
func TestFault52_ControlRaces(t *testing.T) {
	for seed := range uint64(100) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			random := rand.New(rand.NewPCG(seed, 52))
			s.Handle(func(c *resocktest.Conn) {
				for c.Push("push") == nil {
					time.Sleep(7 * time.Millisecond)
				}
			})
			r := rig.Reaching(t, s)
			var sent atomic.Int64
			for range 100 {
				switch random.IntN(8) {
				case 0:
					r.Suspend()
				case 1, 2:
					r.Resume()
				case 3:
					r.Reconnect()
				case 4:
					for _, c := range s.Conns() {
						c.Drop()
					}
				case 5:
					r.Outcomes.Add(1)
					if r.Enqueue(resock.MessageText, []byte("q"), resock.WithResult(func(error) { r.Outcomes.Done() })) != nil {
						r.Outcomes.Done()
					}
				case 6:
					r.Outcomes.Go(func() {
						ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
						defer cancel()
						if r.Send(ctx, resock.MessageText, []byte("s")) == nil {
							sent.Add(1)
						}
					})
				}
				for range random.IntN(4) {
					select {
					case <-r.Events:
					case <-time.After(time.Millisecond):
					}
				}
			}
			r.Resume()
			for open := false; !open; {
				open = r.WaitOpen(t.Context()) == nil
			}
		})
	}
}

// constantly returns a backoff policy that neither grows nor has jitter.
func constantly(d time.Duration) func() backoff.BackOff {
	return func() backoff.BackOff { return backoff.NewConstantBackOff(d) }
}

// A server may send pings and messages until it has read our close frame; they must not
// disturb the closing handshake.
func TestPingDuringTheClosingHandshake(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		c.IgnoreClose()
		r.Open()
		r.Suspend()
		for range 3 {
			synctest.Wait()
			_ = c.Ping("are you there?")
			_ = c.Push("still here")
			r.Message("still here")
		}
		_ = c.Close(4000, "bye")
		r.Closed(4000, "bye", true)
	})
}

// If several options are nil, the error names the first that no later one replaces.
func TestFault81_NilOptions(t *testing.T) {
	endpoint := func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, nil }
	for _, opts := range [][]resock.Option{
		{resock.WithOnOpen(nil), resock.WithEndpoint(nil), resock.WithEndpoint(endpoint)},
		{resock.WithEndpoint(nil), resock.WithOnOpen(nil), resock.WithEndpoint(endpoint)},
		{resock.WithEndpoint(endpoint), resock.WithOnOpen(nil)},
	} {
		var option *resock.OptionError
		if _, err := resock.New("ws://server.test", opts...); !errors.As(err, &option) || option.Option != "WithOnOpen" {
			t.Errorf("New: got %v, want an OptionError for WithOnOpen", err)
		}
	}
}

// TestFault77 asks for a connection in states in which another one ends or begins.
func TestFault77_WishesInEveryState(t *testing.T) {
	for name, test := range map[string]func(*testing.T, *resocktest.Server){
		"Resume while connecting":                   resumeWhileConnecting,
		"Resume while open":                         resumeWhileOpen,
		"Reconnect while a session is taken down":   reconnectInTeardown,
		"Reconnect while connecting":                reconnectWhileConnecting,
		"Reconnect before Run, and again and again": reconnectBeforeRun,
		"Reconnect while offline":                   reconnectWhileOffline,
	} {
		t.Run(name, func(t *testing.T) { rig.Virtual(t, test) })
	}
}

func resumeWhileConnecting(t *testing.T, s *resocktest.Server) {
	s.Script(resocktest.Drop(), resocktest.Drop(), resocktest.StallUpgrade(), resocktest.Drop(), resocktest.Hold())
	r := rig.Reaching(t, s)
	r.Fail(resock.PhaseUpgrade)
	r.Fail(resock.PhaseUpgrade)
	time.Sleep(time.Second)
	r.Is(resock.StateConnecting)
	r.Suspend()
	r.Resume()
	if fail := r.Fail(resock.PhaseUpgrade); fail.Attempt != 3 || fail.Next != resock.StateConnecting || fail.Rule != "" {
		t.Errorf("the attempt under way: %+v", fail)
	}
	if fail := r.Fail(resock.PhaseUpgrade); fail.Attempt != 1 {
		t.Errorf("attempt %d after Resume, want a fresh count", fail.Attempt)
	}
	r.Open()
}

func resumeWhileOpen(t *testing.T, s *resocktest.Server) {
	s.Script(resocktest.Drop(), resocktest.Drop(), resocktest.Hold(), resocktest.Drop(), resocktest.Hold())
	r := rig.Reaching(t, s)
	r.Fail(resock.PhaseUpgrade)
	r.Fail(resock.PhaseUpgrade)
	open := r.Open()
	s.Accept().IgnoreClose() // the answer might be faster than Resume
	r.Suspend()
	r.Resume()
	r.Closed(resock.StatusNormalClosure, "", false)
	if fail := r.Fail(resock.PhaseUpgrade); fail.Attempt != 1 || !fail.Time.Equal(open.Time) {
		t.Errorf("attempt %d, %v after the session, want a fresh count at once", fail.Attempt, fail.Time.Sub(open.Time))
	}
	r.Open()
}

func reconnectInTeardown(t *testing.T, s *resocktest.Server) {
	reach, lines := rig.ReachLines(s)
	r := rig.Quick(t, s.URL, reach, resock.WithBackoffPolicy(constantly(time.Hour)))
	r.Open()
	(<-lines).Limit(1 << 10)
	err := r.Enqueue(resock.MessageBinary, make([]byte, 1<<16), resock.WithResult(func(error) {
		time.Sleep(500 * time.Millisecond) // the session's end waits for it
		r.Reconnect()
	}))
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	s.Accept().Drop()
	if fail := rig.Next[resock.FailEvent](r); fail.Next != resock.StateConnecting || fail.RetryIn != 0 {
		t.Errorf("%+v, want to connect at once", fail)
	}
	r.Open()
}

func reconnectWhileConnecting(t *testing.T, s *resocktest.Server) {
	s.Script(resocktest.StallUpgrade(), resocktest.Hold())
	r := rig.Reaching(t, s, resock.WithBackoffPolicy(constantly(time.Hour)))
	time.Sleep(time.Second)
	r.Is(resock.StateConnecting)
	r.Reconnect()
	if fail := r.Fail(resock.PhaseUpgrade); fail.Next != resock.StateConnecting || fail.Rule != "connection" {
		t.Errorf("%+v, want to connect at once", fail)
	}
	r.Open()
	r.Quiet(time.Minute) // the wish was granted
}

func reconnectBeforeRun(t *testing.T, s *resocktest.Server) {
	slowly := resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
		time.Sleep(time.Second) // the attempt lasts longer than the calls
		return resock.Endpoint{URL: s.URL}, nil
	})
	r := rig.Prepare(t, s.URL, rig.Reach(s), slowly)
	r.Reconnect()
	r.Go()
	r.Open()
	r.Quiet(time.Minute)
	for range 10 {
		r.Reconnect()
	}
	r.Closed(resock.StatusNormalClosure, "", false)
	r.Open()
	r.Quiet(time.Minute)
}

func reconnectWhileOffline(t *testing.T, s *resocktest.Server) {
	s.Script(resocktest.Status(503, http.Header{"Retry-After": {"60"}}, ""), resocktest.Hold())
	network := new(rig.Network)
	r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
	r.Fail(resock.PhaseUpgrade)
	network.Set(false)
	r.Is(resock.StateOffline)
	r.Reconnect()
	r.Quiet(time.Second)
	began := time.Now()
	network.Set(true)
	r.Open()
	rig.Within(t, began, 0, 0)
}

// doubling is a backoff policy without jitter, whose delays tell whether it was reset.
type doubling struct{ next time.Duration }

func (p *doubling) Reset() { p.next = time.Second }

func (p *doubling) NextBackOff() time.Duration {
	p.next *= 2
	return p.next / 2
}

// Resume forgets all that went before: the delays, a status 401 and a Retry-After.
func TestResumeForgets(t *testing.T) {
	restart := func(r *rig.Client) {
		r.Suspend()
		synctest.Wait()
		r.Resume()
	}
	t.Run("the delays", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Drop())
			policy := resock.WithBackoffPolicy(func() backoff.BackOff { return &doubling{time.Second} })
			r := rig.Reaching(t, s, policy)
			for _, restarts := range []func(*rig.Client){restart, func(r *rig.Client) { r.Suspend(); r.Resume() }} {
				for want := time.Second; want <= 8*time.Second; want *= 2 {
					if fail := r.Fail(resock.PhaseUpgrade); fail.RetryIn != want {
						t.Errorf("retry in %v, want %v", fail.RetryIn, want)
					}
				}
				restarts(r)
			}
		})
	})
	t.Run("a status 401", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Status(401, nil, ""))
			r := rig.Reaching(t, s, resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
				return resock.Endpoint{}, nil
			}))
			for range 2 {
				for _, want := range []string{"fresh credentials", "refused"} {
					if fail := r.Fail(resock.PhaseUpgrade); fail.Rule != want {
						t.Errorf("rule %q, want %q", fail.Rule, want)
					}
				}
				restart(r)
			}
		})
	})
	t.Run("a Retry-After", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Status(503, http.Header{"Retry-After": {"60"}}, ""), resocktest.Hold())
			network := new(rig.Network)
			r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
			r.Fail(resock.PhaseUpgrade)
			network.Set(false)
			r.Is(resock.StateOffline)
			restart(r)
			r.Quiet(time.Second)
			began := time.Now()
			network.Set(true)
			r.Open()
			rig.Within(t, began, 0, 500*time.Millisecond)
		})
	})
}

// TestFault79 counts the attempts of an hour.
func TestFault79_FlappingNetwork(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(403, nil, ""))
		network := new(rig.Network)
		r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
		for range 3600 / 2 {
			time.Sleep(time.Second)
			network.Set(false)
			time.Sleep(time.Second)
			network.Set(true)
		}
		const most = 3600/15 + 1 // slow retries take at least 15 s
		if n := r.Stats().Attempts; n > most || n < 3600/60 {
			t.Errorf("%d attempts in an hour, want at most %d", n, most)
		}
	})
}

// TestFault90 has a hook with a fresh token for each attempt.
func TestFault90_ExpiredToken(t *testing.T) {
	refused := func(status int) resocktest.Step { return resocktest.Status(status, nil, "") }
	hook := resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
		return resock.Endpoint{}, nil
	})
	for name, tt := range map[string]struct {
		steps []resocktest.Step
		opts  []resock.Option
		slow  []bool // of each failure
	}{
		"the first":             {[]resocktest.Step{refused(401)}, []resock.Option{hook}, []bool{false}},
		"the second":            {[]resocktest.Step{refused(401), refused(401), refused(403)}, []resock.Option{hook}, []bool{false, true, true}},
		"another kind":          {[]resocktest.Step{refused(403), refused(401)}, []resock.Option{hook}, []bool{false, true}},
		"not in a row":          {[]resocktest.Step{refused(403), resocktest.Drop(), refused(403)}, []resock.Option{hook}, []bool{false, false, false}},
		"another status":        {[]resocktest.Step{refused(404)}, []resock.Option{hook}, []bool{true}},
		"no hook":               {[]resocktest.Step{refused(401)}, nil, []bool{true}},
		"a policy around it":    {[]resocktest.Step{refused(401), refused(401)}, []resock.Option{hook, resock.WithRetryPolicy(resock.DefaultRetryPolicy)}, []bool{false, true}},
		"an hour after another": {[]resocktest.Step{refused(401), resocktest.Serve(func(c *resocktest.Conn) { time.Sleep(time.Hour); c.Drop() }), refused(401)}, []resock.Option{hook}, []bool{false, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(append(tt.steps, resocktest.Hold())...)
				r := rig.Start(t, "ws://a/", append(tt.opts, rig.Reach(s))...)
				for i, want := range tt.slow {
					event := r.Next()
					if _, open := event.(resock.OpenEvent); open {
						time.Sleep(time.Hour)
						event = r.Next()
					}
					fail, ok := event.(resock.FailEvent)
					if slow := fail.RetryIn >= 15*time.Second; !ok || slow != want {
						t.Errorf("failure %d: %+v, slow %t, want %t", i+1, event, slow, want)
					}
				}
				r.Open()
			})
		})
	}
}

// After Close, also while the closing handshake goes on, no session is worth waiting for.
func TestWaitOpenAfterClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).IgnoreClose)
		r := rig.Reaching(t, s)
		r.Open()
		synctest.Wait() // the server ignores close frames from now on
		_ = r.Close(resock.StatusNormalClosure, "")
		if err := r.WaitOpen(t.Context()); !errors.Is(err, resock.ErrClosed) {
			t.Errorf("WaitOpen while the session is closed: %v", err)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.StallUpgrade())
		release := make(chan struct{})
		r := rig.Reaching(t, s, resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			<-release
			return resock.Endpoint{}, nil
		}))
		began := time.Now()
		waits := make(chan error, 1)
		go func() { waits <- r.WaitOpen(context.Background()) }()
		synctest.Wait()
		_ = r.Close(resock.StatusNormalClosure, "")
		if err := <-waits; err != resock.ErrClosed {
			t.Errorf("a WaitOpen that waits: %v", err)
		}
		rig.Within(t, began, 0, 0)
		close(release)
	})
}

// A WaitOpen after Reconnect waits for the next session.
func TestWaitOpenAfterReconnect(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		r.Open()
		r.Reconnect()
		if err := r.WaitOpen(t.Context()); err != nil || r.Stats().Session != 2 {
			t.Errorf("%v, session %d is open", err, r.Stats().Session)
		}
	})
}

// meddler is a network whose Online calls the client, but no more than 1000 times.
type meddler struct {
	online bool
	calls  atomic.Int64
	meddle func()
}

func (n *meddler) Online() bool {
	if n.calls.Add(1) < 1000 {
		n.meddle()
	}
	return n.online
}

func (*meddler) OnChange(func()) (stop func()) { return nil }

// Online is asked in many states, and may ask for something each time.
func TestOnlineCallsTheClient(t *testing.T) {
	for name, meddle := range map[string]func(*rig.Client){
		"Reconnect":          func(r *rig.Client) { r.Reconnect() },
		"Suspend and Resume": func(r *rig.Client) { r.Suspend(); r.Resume() },
	} {
		for _, online := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, online %t", name, online), func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					s.Script(resocktest.Status(403, nil, ""))
					network := &meddler{online: online}
					r := rig.Prepare(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
					network.meddle = func() { meddle(r) }
					r.Go()
					time.Sleep(10 * time.Second)
					if calls := network.calls.Load(); calls > 200 { // an attempt each 500 ms
						t.Errorf("asked %d times in 10 s", calls)
					}
					if n := r.Stats().Attempts; n > 21 {
						t.Errorf("%d attempts in 10 s", n)
					}
				})
			})
		}
	}
}

// Reconnect sends a close frame and goes on, whatever the server makes of it. The old
// connection is gone within the close timeout.
func TestReconnectDoesNotWait(t *testing.T) {
	for name, tt := range map[string]struct {
		serve func(*resocktest.Conn)
		holds bool // the connection, until the close timeout
	}{
		"answers": {func(*resocktest.Conn) {}, false},
		"silent":  {(*resocktest.Conn).IgnoreClose, true},
		"announces a large frame": {func(c *resocktest.Conn) {
			c.IgnoreClose()
			_ = c.Raw(resocktest.Frame(2, make([]byte, 100_000))[:100])
		}, true},
		"streaming": {func(c *resocktest.Conn) {
			c.IgnoreClose()
			for c.Push("more") == nil {
				time.Sleep(time.Millisecond)
			}
		}, true},
	} {
		for scheme, start := range map[string]func(testing.TB) *resocktest.Server{"TCP": resocktest.NewMemory, "TLS": resocktest.NewTLSMemory} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s := start(t)
					s.Script(resocktest.Serve(tt.serve), resocktest.Hold())
					r := rig.Quick(t, s.URL, rig.Reach(s))
					c := s.Accept()
					r.Open()
					time.Sleep(100 * time.Millisecond)
					began := time.Now()
					r.Reconnect()
					event := r.Next()
					for ; event != nil; event = r.Next() {
						if _, message := event.(resock.MessageEvent); !message {
							break
						}
					}
					if e, ok := event.(resock.CloseEvent); !ok || e.Clean || e.Code != resock.StatusNormalClosure || e.Next != resock.StateConnecting {
						t.Errorf("%+v", event)
					}
					r.Open()
					rig.Within(t, began, 0, 0)
					<-c.Done()
					if closed := c.Received().Close; closed == nil || closed.Code != resock.StatusNormalClosure {
						t.Errorf("the server got the close frame %+v", closed)
					}
					if tt.holds {
						rig.Within(t, began, time.Second, time.Second+time.Millisecond)
					} else {
						rig.Within(t, began, 0, 0)
					}
				})
			})
		}
	}
}

// A close frame of the server that comes at the same time is not the answer.
func TestReconnectWhileTheServerCloses(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { time.Sleep(time.Millisecond) }))
		c := s.Accept()
		r.Open()
		message, bye := resocktest.Frame(rig.Fin|rig.Text, []byte("last")), resocktest.Frame(rig.Fin|8, []byte("\x03\xe9bye"))
		_ = c.Raw(append(message, bye...))
		synctest.Wait()
		r.Reconnect()
		r.Closed(resock.StatusNormalClosure, "", false)
		r.Open()
	})
}

// timeless is a connection that ignores read deadlines.
type timeless struct{ net.Conn }

func (timeless) SetReadDeadline(time.Time) error { return nil }

// replace reconnects, and checks how long it takes until the next session is open. The
// server's answer to the close frame is not waited for.
func replace(t *testing.T, r *rig.Client, least, most time.Duration) (began time.Time) {
	t.Helper()
	began = time.Now()
	r.Reconnect()
	r.Closed(resock.StatusNormalClosure, "", false)
	r.Open()
	rig.Within(t, began, least, most)
	return began
}

// A connection that ignores deadlines delays Reconnect by no more than a moment.
func TestReconnectWithoutDeadlines(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.ReachBy(s, func(conn net.Conn) net.Conn { return timeless{conn} }))
		c := s.Accept()
		c.IgnoreClose()
		r.Open()
		time.Sleep(time.Second)
		began := replace(t, r, time.Second, time.Second)
		<-c.Done()
		rig.Within(t, began, time.Second, time.Second)
	})
}

// A network that takes no bytes, and a handler that does not return, delay Reconnect by no
// more than a moment.
func TestReconnectOfAStuckSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve((*resocktest.Conn).StopReading), resocktest.Hold())
		r := rig.Quick(t, s.URL, rig.Reach(s), resock.WithCloseTimeout(time.Minute), resock.WithWriteTimeout(time.Hour), resock.WithHeartbeat(0, 0))
		r.Open()
		synctest.Wait() // the server reads no more
		sent := make(chan error, 1)
		go func() { sent <- r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20)) }()
		synctest.Wait()
		queued := r.Queue("behind it")
		replace(t, r, 0, time.Second)
		if err := <-sent; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("the Send under way: %v", err)
		}
		if err := <-queued; err != nil {
			t.Errorf("the message behind it: %v", err)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { _ = c.Push("handle me") })
		release := make(chan struct{})
		defer close(release)
		r := rig.Quick(t, s.URL, rig.Reach(s), resock.WithCloseTimeout(time.Minute),
			resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-release }))
		r.Open()
		time.Sleep(time.Second)
		replace(t, r, 0, time.Second)
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve(func(c *resocktest.Conn) {
			for c.Push("more") == nil {
				time.Sleep(time.Millisecond)
			}
		}), resocktest.Hold())
		r := rig.Reaching(t, s)
		unread := rig.Abandon(t.Context(), r.Client)
		r.Open()
		time.Sleep(time.Minute) // a subscriber that does not read blocks delivery
		began := time.Now()
		r.Reconnect()
		if err := r.WaitOpen(t.Context()); err != nil {
			t.Error(err)
		}
		rig.Within(t, began, 0, 0)
		_ = unread
	})
}

// A connection that was left to the server does not outlive Run, nor keep it for longer
// than the close timeout.
func TestCloseAfterReconnect(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).IgnoreClose)
		r := rig.Reaching(t, s)
		old := s.Accept()
		r.Open()
		time.Sleep(time.Second)
		r.Reconnect()
		time.Sleep(500 * time.Millisecond)
		began := time.Now()
		_ = r.Close(resock.StatusNormalClosure, "")
		<-r.Returned()
		rig.Within(t, began, 0, time.Second)
		<-old.Done()
		rig.Within(t, began, 0, time.Second)
	})
}

// A Resume that comes after Close does not make it longer.
func TestResumeAfterClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).IgnoreClose)
		r := rig.Reaching(t, s)
		r.Open()
		synctest.Wait() // the server ignores close frames
		r.Suspend()
		began := time.Now()
		_ = r.Close(resock.StatusNormalClosure, "")
		time.Sleep(time.Second / 2)
		r.Resume()
		<-r.Returned()
		rig.Within(t, began, time.Second, time.Second)
	})
}

// Resume does not wait for the answer to the close frame of Suspend.
func TestResumeDoesNotWait(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve((*resocktest.Conn).IgnoreClose), resocktest.Hold())
		r := rig.Quick(t, s.URL, rig.Reach(s), resock.WithCloseTimeout(5*time.Second))
		r.Open()
		synctest.Wait() // the server ignores close frames from now on
		began := time.Now()
		r.Suspend()
		time.Sleep(100 * time.Millisecond)
		r.Resume()
		if e := r.Closed(resock.StatusNormalClosure, "", false); e.Next != resock.StateConnecting {
			t.Errorf("%+v", e)
		}
		r.Open()
		rig.Within(t, began, 100*time.Millisecond, 100*time.Millisecond)
		time.Sleep(5 * time.Second) // the old connection is gone
	})
}

// Nor does Reconnect, when the client closes a session already.
func TestReconnectOfAnOldSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).IgnoreClose)
		r := rig.Quick(t, s.URL, rig.Reach(s), resock.WithMaxSessionAge(time.Minute), resock.WithCloseTimeout(time.Second))
		c := s.Accept()
		r.Open()
		for c.Received().Close == nil {
			time.Sleep(time.Millisecond)
		}
		replace(t, r, 0, 0)
		time.Sleep(time.Second) // the old connection is gone
	})
}

// A server gets everything that was sent before Reconnect, once, also over a real socket.
func TestReconnectLosesNothing(t *testing.T) {
	const messages = 2000
	test := func(t *testing.T, s *resocktest.Server, pause func()) {
		r := rig.Reaching(t, s, resock.WithQueue(messages, 1<<20), resock.WithCloseTimeout(time.Minute))
		r.Open()
		go func() {
			for range r.Events {
			}
		}()
		outcomes := make([]<-chan error, messages)
		for i := range outcomes {
			outcomes[i] = r.Queue(fmt.Sprint(i))
			if i%100 == 50 {
				r.Reconnect()
				pause()
			}
		}
		for i, outcome := range outcomes {
			if err := <-outcome; err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if err := r.Flush(t.Context()); err != nil { // the last connection
			t.Error(err)
		}
		for _, c := range s.Conns()[:len(s.Conns())-1] {
			<-c.Done() // the others
		}
		counts := make([]int, messages)
		last := -1
		for _, c := range s.Conns() {
			for _, m := range c.Received().Messages {
				i, _ := strconv.Atoi(string(m.Data))
				if counts[i]++; i <= last {
					t.Errorf("message %d after %d", i, last)
				}
				last = i
			}
		}
		for i, n := range counts {
			if n != 1 {
				t.Errorf("message %d came %d times", i, n)
			}
		}
		if n := len(s.Conns()); n < 3 {
			t.Errorf("%d connections", n)
		}
	}
	t.Run("memory", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			test(t, s, func() { time.Sleep(30 * time.Millisecond) })
		})
	})
	t.Run("TCP", func(t *testing.T) {
		rig.CheckLeaks(t)
		s := resocktest.NewServer(t)
		test(t, s, func() { <-time.After(30 * time.Millisecond) })
	})
}

// Whoever calls Reconnect, and however often, there is at most one attempt per initial
// backoff, and where nothing asks for more, a session stays.
func TestReconnectFromEverywhere(t *testing.T) {
	const initial, span = 500 * time.Millisecond, 20 * time.Second
	for name, tt := range map[string]struct {
		option func(reconnect func()) resock.Option
		stays  bool // the first session
	}{
		"endpoint": {func(f func()) resock.Option {
			return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { f(); return resock.Endpoint{}, nil })
		}, true},
		"OnOpen": {func(f func()) resock.Option {
			return resock.WithOnOpen(func(context.Context, *resock.Session) error { f(); return nil })
		}, true},
		"dial limiter": {func(f func()) resock.Option {
			return resock.WithDialLimiter(rig.Limiter(func(context.Context) error { f(); return nil }))
		}, true},
		"handler": {func(f func()) resock.Option {
			return resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { f() })
		}, false},
		"filter": {func(f func()) resock.Option {
			return resock.WithFilter(func(context.Context, resock.MessageEvent) bool { f(); return true })
		}, false},
		"ping": {func(f func()) resock.Option {
			return resock.WithDialOptions(&websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { f(); return true }})
		}, false},
		"heartbeat message": {func(f func()) resock.Option {
			return resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { f(); return resock.MessageText, nil })
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) {
					_ = c.Push("reconnect")
					_ = c.Ping("reconnect")
				})
				var r *rig.Client
				r = rig.Prepare(t, "ws://a/", tt.option(func() { r.Reconnect() }), resock.WithHTTPClient(s.Client()), resock.WithHeartbeat(time.Second, time.Second))
				go func() {
					for range r.Events {
					}
				}()
				r.Go()
				time.Sleep(span)
				n := r.Stats().Opens
				if most := uint64(span/initial) + 1; n > most || !tt.stays && n < 3 || tt.stays && n != 1 {
					t.Errorf("%d sessions in %v", n, span)
				}
			})
		})
	}
}

// A retry policy that calls Reconnect each time makes attempts sooner, but no more than one
// per initial backoff.
func TestReconnectByTheRetryPolicy(t *testing.T) {
	const initial, span = 500 * time.Millisecond, 20 * time.Second
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		var r *rig.Client
		r = rig.Prepare(t, "ws://a/", rig.Reach(s), resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			r.Reconnect()
			return resock.Decision{Action: resock.ActionRetrySlow}
		}))
		r.Go()
		time.Sleep(span)
		if n := r.Stats().Attempts; n > uint64(span/initial)+1 || n < 30 {
			t.Errorf("%d attempts in %v", n, span)
		}
	})
}

// Nor does a consumer that calls Reconnect on each Open.
func TestReconnectOnEachOpen(t *testing.T) {
	const initial = 500 * time.Millisecond
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, "ws://a/", rig.Reach(s))
		began := time.Now()
		for range 10 {
			r.Open()
			r.Reconnect()
			r.Closed(resock.StatusNormalClosure, "", false)
		}
		rig.Within(t, began, 9*initial, 10*initial)
	})
}

// Suspend and Resume while the client waits make one attempt, not two.
func TestResumeWhileWaiting(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Drop(), resocktest.Hold())
		r := rig.Reaching(t, s, resock.WithBackoffPolicy(constantly(time.Hour)))
		r.Fail(resock.PhaseUpgrade)
		began := time.Now()
		for range 3 {
			r.Suspend()
			r.Resume()
			r.Reconnect()
		}
		if r.State() != resock.StateWaiting {
			return // the client was quicker, and had more than one wish to grant
		}
		if open := r.Open(); open.Attempt != 1 {
			t.Errorf("attempt %d, want a fresh count", open.Attempt)
		}
		rig.Within(t, began, 0, 0)
		r.Quiet(2 * time.Hour)
		if n := len(s.Attempts()); n != 2 {
			t.Errorf("%d attempts", n)
		}
	})
}

// Neither Reconnect nor Resume brings a closed client back, nor Reconnect a suspended one.
func TestReconnectAfterTheEnd(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		r.Open()
		r.Suspend()
		r.Reconnect()
		r.Closed(resock.StatusNormalClosure, "", true)
		r.Quiet(time.Hour)
		r.Is(resock.StateSuspended)
		_ = r.Close(resock.StatusNormalClosure, "")
		r.Reconnect()
		r.Resume()
		<-r.Returned()
		if n := len(s.Attempts()); n != 1 || r.State() != resock.StateClosed {
			t.Errorf("%d attempts, state %v", n, r.State())
		}
	})
}

// What waits when a client ends by a rule has an outcome, and Shutdown tells of it.
func TestShutdownOfAClientThatEnds(t *testing.T) {
	for name, opt := range map[string]resock.Option{
		"finish": resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
			return resock.Decision{Action: resock.ActionFinish, Rule: "done"}
		}),
		"permanent": resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{}, backoff.Permanent(errors.New("revoked"))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Stop()
				r := rig.Prepare(t, "ws://a/", rig.Reach(s), opt)
				queued := r.Queue("never sent")
				sent := make(chan error, 1)
				go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("never sent")) }()
				synctest.Wait()
				r.Go()
				if err := r.Shutdown(t.Context()); !errors.Is(err, resock.ErrNotSent) {
					t.Errorf("Shutdown: %v", err)
				}
				if err := <-queued; !errors.Is(err, resock.ErrClosed) {
					t.Errorf("the queued message: %v", err)
				}
				if err := <-sent; !errors.Is(err, resock.ErrClosed) {
					t.Errorf("the Send: %v", err)
				}
			})
		})
	}
}
