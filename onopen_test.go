package resock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A heartbeat that the server dictates holds for its session only.
func TestSetHeartbeat(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		sessions := 0
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				if sessions++; sessions == 1 {
					return session.SetHeartbeat(10*time.Second, time.Second)
				}
				return nil
			}))
		client.Open()
		time.Sleep(time.Minute)
		first := s.Conns()[0]
		if pings := len(first.Received().Pings); pings < 5 || pings > 8 {
			t.Errorf("%d pings in a minute, one every 10 s is wanted", pings)
		}
		first.IgnorePings()
		if fail := client.Fail(resock.PhaseHeartbeat); !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Errorf("got %+v, want ErrHeartbeat", fail)
		}
		client.Open()
		time.Sleep(time.Minute)
		if pings := len(s.Conns()[1].Received().Pings); pings > 0 {
			t.Errorf("%d pings in the next session, want none", pings)
		}
	})
}

func TestSetIdleTimeout(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error { return session.SetIdleTimeout(time.Minute) }))
		open := client.Open()
		fail := client.Fail(resock.PhaseHeartbeat)
		if idle := fail.Time.Sub(open.Time); idle != time.Minute || !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Errorf("got %+v after %v, want ErrHeartbeat after a minute", fail, idle)
		}
	})
}

// An invalid heartbeat or idle timeout is refused by an OptionError, and changes nothing.
func TestSetPulseRefuses(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				for _, err := range []error{
					session.SetHeartbeat(-1, time.Second), session.SetHeartbeat(time.Second, -1), session.SetHeartbeat(time.Second, 0),
				} {
					wantOption(t, err, "Session.SetHeartbeat")
				}
				wantOption(t, session.SetIdleTimeout(-1), "Session.SetIdleTimeout")
				return nil
			}))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Minute)
		time.Sleep(time.Hour)
		if pings := len(s.Conns()[0].Received().Pings); pings > 0 || client.Stats().Session != 1 {
			t.Errorf("%d pings, %+v, want none, and session 1", pings, client.Stats())
		}
	})
}

func wantOption(t *testing.T, err error, name string) {
	t.Helper()
	var option *resock.OptionError
	if !errors.As(err, &option) || option.Option != name {
		t.Errorf("%v, want an OptionError for %s", err, name)
	}
}

func TestSessionSubprotocol(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Upgrade(map[string][]string{"Sec-WebSocket-Protocol": {"two"}}, nil))
		chosen := make(chan string, 1)
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithSubprotocols("one", "two"),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				chosen <- session.Subprotocol()
				return nil
			}))
		go client.Run(context.Background())
		if got := <-chosen; got != "two" {
			t.Errorf("Subprotocol: got %q, want two", got)
		}
	})
}

// While a subscriber blocks delivery, heartbeats are still sent, and the server is not
// taken for dead.
func TestBeatsWhileDeliveryIsBlocked(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(10*time.Second, 5*time.Second))
		rig.Abandon(context.Background(), client, resock.WithBuffer(0))
		go client.Run(context.Background())
		c := s.Accept()
		for range 10 {
			if err := c.Push("push"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		if pings := len(c.Received().Pings); pings < 58 || pings > 61 {
			t.Errorf("%d pings in 10 minutes, want one every 10 s", pings)
		}
		if stats := client.Stats(); stats.State != resock.StateOpen || stats.Session != 1 || stats.Blocked < 9*time.Minute {
			t.Errorf("got %+v, want session 1 open, blocked for 9m", stats)
		}
	})
}

// Messages that OnOpen does not receive are delivered after the OpenEvent, and queued
// messages go out only after OnOpen.
func TestRegistration(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		received := make(chan string, 64)
		s.Handle(func(c *resocktest.Conn) { greet(c, received) })
		r := rig.Prepare(t, "ws://a/", rig.Reach(s), resock.WithOnOpen(register))
		enqueue := func(text string) {
			t.Helper()
			if err := r.Enqueue(resock.MessageText, []byte(text)); err != nil {
				t.Errorf("Enqueue: got %v, want nil", err)
			}
		}
		enqueue("before")
		sent := make(chan error, 1)
		go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("waiting")) }()
		synctest.Wait()
		r.Go()
		for session := uint64(1); session <= 3; session++ {
			r.Is(resock.StateConnecting) // while OnOpen runs
			enqueue("during")
			if open := r.Open(); open.Session != session {
				t.Errorf("got %+v, want session %d", open, session)
			}
			for _, want := range []string{"one", "two", "three"} {
				if message := r.Message(want); message.Session != session {
					t.Errorf("got %+v, want session %d", message, session)
				}
			}
			want := []string{fmt.Sprint("register ", session), "before", "waiting", "during"}
			if session > 1 {
				want = []string{want[0], "between", "during"}
			}
			for _, want := range want {
				if got := <-received; got != want {
					t.Errorf("session %d: the server received %q, want %q", session, got, want)
				}
			}
			r.Suspend()
			r.Closed(resock.StatusNormalClosure, "", true)
			enqueue("between")
			if session < 3 {
				r.Resume()
			}
		}
		if err := <-sent; err != nil {
			t.Errorf("Send: got %v, want nil", err)
		}
	})
}

// greet answers the first message on a connection by a greeting, with pushes right
// behind it. All messages go to received.
func greet(c *resocktest.Conn, received chan<- string) {
	for i := 0; ; i++ {
		message, err := c.Read()
		if err != nil {
			return
		}
		received <- string(message.Data)
		if i > 0 {
			continue
		}
		time.Sleep(time.Second)
		for _, text := range []string{"welcome", "one", "two", "three"} {
			_ = c.Push(text)
		}
	}
}

// register is an OnOpen hook that registers and waits for the greeting.
func register(ctx context.Context, s *resock.Session) error {
	if s.Header().Get("Sec-Websocket-Accept") == "" {
		return errors.New("Header is empty, want that of the upgrade response")
	}
	if err := s.Send(ctx, resock.MessageText, fmt.Appendf(nil, "register %d", s.ID())); err != nil {
		return err
	}
	_, data, err := s.Receive(ctx)
	if err == nil && string(data) != "welcome" {
		return fmt.Errorf("received %q, want welcome", data)
	}
	return err
}

func TestOnOpenError(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		calls := 0
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithBackoff(time.Second, time.Hour),
			resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
				if s.ID() != 1 {
					t.Errorf("got session %d in OnOpen, want 1", s.ID())
				}
				if calls++; calls <= 6 {
					return rig.ErrTest
				}
				return nil
			}))
		for i := range 6 {
			fail := rig.Next[resock.FailEvent](client)
			if fail.Phase != resock.PhaseSetup || fail.Session != 0 || fail.Attempt != i+1 || !errors.Is(fail.Err, rig.ErrTest) {
				t.Errorf("got %+v, want the error of OnOpen in phase setup, without a session", fail)
			}
			if fail.Next != resock.StateWaiting || fail.RetryIn > time.Second<<i {
				t.Errorf("next is %v in %v, want waiting, within the backoff", fail.Next, fail.RetryIn)
			}
		}
		if open := client.Open(); open.Session != 1 || open.Attempt != 7 {
			t.Errorf("got %+v, want session 1, attempt 7", open)
		}
		if stats := client.Stats(); stats.Opens != 1 || stats.Attempts != 7 || stats.Fails != 6 {
			t.Errorf("got %+v, want 1 open, 7 attempts, 6 fails", stats)
		}
	})
}

func TestOnOpenGivesUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithMaxAttempts(2),
			resock.WithOnOpen(func(context.Context, *resock.Session) error { return rig.ErrTest }))
		rig.Next[resock.FailEvent](client)
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateClosed {
			t.Errorf("got %+v, want closed next", fail)
		}
		<-client.Done()
		var giveUp *resock.GiveUpError
		if err := client.Err(); !errors.As(err, &giveUp) || giveUp.Attempts != 2 || !errors.Is(err, rig.ErrTest) {
			t.Errorf("Err: got %v, want a GiveUpError after 2 attempts, by ErrTest", err)
		}
	})
}

// An error of Receive fails the attempt, whatever the hook returns.
func TestReceiveFails(t *testing.T) {
	ignore := func(ctx context.Context, s *resock.Session) {
		if _, _, err := s.Receive(ctx); err == nil {
			panic("received something")
		}
	}
	for _, test := range []struct {
		name   string
		server resocktest.Step
		hook   func(context.Context, *resock.Session)
		took   time.Duration
		is     error
		code   resock.StatusCode
	}{
		{"its context ends", resocktest.Hold(), func(ctx context.Context, s *resock.Session) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			ignore(ctx, s)
		}, time.Second, context.DeadlineExceeded, -1},
		{"the dial timeout", resocktest.Hold(), ignore, 10 * time.Second, context.DeadlineExceeded, -1},
		{"the server leaves", resocktest.Serve((*resocktest.Conn).Drop), ignore, 0, nil, -1},
		{"the server closes", resocktest.Serve(func(c *resocktest.Conn) {
			_ = c.Close(resock.StatusPolicyViolation, "who are you?")
		}), ignore, 0, nil, resock.StatusPolicyViolation},
	} {
		t.Run(test.name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(test.server)
				failures := make(chan resock.Failure, 1)
				client := rig.Start(t, "ws://a/", rig.Reach(s),
					resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
						test.hook(ctx, s)
						return nil
					}),
					resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
						failures <- f
						return resock.Decision{Action: resock.ActionStop}
					}))
				fail := rig.Next[resock.FailEvent](client)
				if fail.Phase != resock.PhaseSetup || fail.Session != 0 || fail.Took != test.took {
					t.Errorf("got %+v, want a failure in phase setup, without a session", fail)
				}
				if test.is != nil && !errors.Is(fail.Err, test.is) {
					t.Errorf("failed by %v, want %v", fail.Err, test.is)
				}
				if f := <-failures; f.Code != test.code || f.Phase != resock.PhaseSetup {
					t.Errorf("the policy got %+v, want phase setup and the close code", f)
				}
			})
		})
	}
}

// On every connection, in a thousand random schedules, the registration by OnOpen
// precedes everything that was sent or queued.
func TestRegistrationComesFirst(t *testing.T) {
	for seed := range uint64(1000) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			random := rand.New(rand.NewPCG(seed, 3))
			s.Handle(func(c *resocktest.Conn) {
				if _, err := c.Read(); err != nil {
					return
				}
				_ = c.Push("welcome")
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				c.Drop()
			})
			client, err := resock.New(s.URL, rig.QuickOptions(rig.Reach(s), resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				if err := session.Send(ctx, resock.MessageText, fmt.Append(nil, "register ", session.ID())); err != nil {
					return err
				}
				_, _, err := session.Receive(ctx)
				return err
			}))...)
			if err != nil {
				t.Fatal(err)
			}
			go client.Run(t.Context())
			for i := range 20 {
				switch random.IntN(3) {
				case 0:
					go func() { _ = client.Send(t.Context(), resock.MessageText, fmt.Append(nil, "sent ", i)) }()
				case 1:
					_ = client.Enqueue(resock.MessageText, fmt.Append(nil, "queued ", i))
				default:
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				}
			}
			time.Sleep(time.Second)
			_ = client.Close(resock.StatusNormalClosure, "")
			<-client.Done()
			synctest.Wait()
			for i, c := range s.Conns() {
				messages := c.Received().Messages
				registered := slices.IndexFunc(messages, func(m resocktest.Message) bool { return strings.HasPrefix(string(m.Data), "register ") })
				if registered > 0 || registered < 0 && len(messages) > 0 {
					t.Errorf("seed %d, connection %d: %q came before the registration", seed, i, messages[0].Data)
				}
			}
		})
	}
}
