package resock_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// TestMainJob is what the package is for: a program subscribes once, receives pushes,
// survives a dropped connection and a server restart, and closes cleanly.
func TestMainJob(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(15*time.Second, 10*time.Second))
		first := s.Accept()
		if open := r.Open(); open.Session != 1 || open.Attempt != 1 || open.Downtime != 0 {
			t.Errorf("got %+v, want session 1, attempt 1, no downtime", open)
		}
		_ = first.Push("one")
		r.Message("one")
		time.Sleep(time.Hour) // heartbeats
		first.Drop()
		if fail := r.Fail(resock.PhaseRead); fail.Session != 1 || fail.Took != time.Hour || !errors.Is(fail.Err, io.EOF) {
			t.Errorf("got %+v, want session 1 to end by io.EOF after an hour", fail)
		}

		second := s.Accept()
		if open := r.Open(); open.Session != 2 || open.Downtime == 0 {
			t.Errorf("got %+v, want session 2, with its downtime", open)
		}
		_ = second.Push("two")
		r.Message("two")
		s.Stop()
		r.Fail(resock.PhaseRead)
		r.Fail(resock.PhaseTCP)
		sent := make(chan error, 1)
		go func() { sent <- r.Send(t.Context(), resock.MessageText, []byte("while you were away")) }()
		s.Restart()
		third := s.Accept()
		if message, err := third.Read(); err != nil || string(message.Data) != "while you were away" {
			t.Errorf("got %q, %v, want the message that was queued while the client was down", message.Data, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("Send: %v", err)
		}

		_ = r.Close(resock.StatusNormalClosure, "thank you")
		for {
			if e, ok := r.Next().(resock.CloseEvent); ok {
				if e.Session != 3 || e.Code != 1000 || e.Reason != "thank you" || !e.Clean || e.Next != resock.StateClosed {
					t.Errorf("got %+v, want session 3, 1000 thank you, clean, and then closed", e)
				}
				break
			}
		}
		<-r.Done()
		stats := r.Stats()
		if r.Err() != nil || stats.State != resock.StateClosed || stats.Opens != 3 || stats.MessagesIn != 2 || stats.MessagesOut != 1 {
			t.Errorf("Run: got %v and %+v, want nil, closed, 3 opens, 2 messages in, 1 out", r.Err(), stats)
		}
		if closed := third.Received().Close; closed == nil || closed.Code != 1000 || closed.Reason != "thank you" {
			t.Errorf("the server received the close frame %+v, want 1000 thank you", closed)
		}
	})
}

func TestRunTwice(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		go client.Run(t.Context())
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := client.Run(t.Context()); !errors.Is(err, resock.ErrAlreadyRun) {
			t.Errorf("a second Run: got %v, want ErrAlreadyRun", err)
		}
		if client.Err() != nil || client.State() != resock.StateOpen {
			t.Errorf("after a second Run: state %v, error %v, want open, nil", client.State(), client.Err())
		}
	})
}

func TestCloseBeforeRun(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := grammar.Tee(t, client)
		outcome := make(chan error, 1)
		if err := client.Enqueue(resock.MessageText, nil, resock.WithResult(func(err error) { outcome <- err })); err != nil {
			t.Fatal(err)
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done() // without a call of Run
		if event, more := <-events; more {
			t.Errorf("got %+v, want a closed channel", event)
		}
		if err := <-outcome; !errors.Is(err, resock.ErrClosed) {
			t.Errorf("the queued message: got %v, want ErrClosed", err)
		}
		if err := client.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
		for event := range new(grammar.Checker).All(t, client.Subscribe(t.Context())) {
			t.Errorf("a subscription of a closed client: got %+v, want no event", event)
		}
		if err := client.Send(t.Context(), resock.MessageText, nil); !errors.Is(err, resock.ErrClosed) || !errors.Is(err, resock.ErrNotSent) {
			t.Errorf("Send: got %v, want ErrClosed and ErrNotSent", err)
		}
		if len(s.Attempts()) != 0 {
			t.Error("the client dialed, though Close came before Run")
		}
	})
}

func TestCancel(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- client.Run(ctx) }()
		c := s.Accept()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(client.Err(), context.Canceled) {
			t.Errorf("Run: got %v, Err: got %v, want Canceled from both", err, client.Err())
		}
		<-c.Done()
		if closed := c.Received().Close; closed == nil || closed.Code != resock.StatusGoingAway {
			t.Errorf("the server received the close frame %+v, want 1001", closed)
		}
	})
}

func TestWaitOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client := rig.Bare(t, s.URL, rig.Reach(s))
		go client.Run(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var dial *resock.DialError
		if err := client.WaitOpen(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &dial) {
			t.Errorf("WaitOpen while the server is down: got %v, want DeadlineExceeded and the DialError", err)
		}
		s.Restart()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Errorf("WaitOpen after the restart: got %v, want nil", err)
		}
		synctest.Wait()
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		if err := client.WaitOpen(t.Context()); !errors.Is(err, resock.ErrClosed) {
			t.Errorf("WaitOpen after Close: got %v, want ErrClosed", err)
		}
	})
}

// twice calls f two times; the second call must change nothing.
func twice(f func()) {
	f()
	f()
}

func TestSuspendIdle(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Prepare(t, "ws://a/", rig.Reach(s))
		r.Resume() // no-op
		twice(r.Suspend)
		r.Is(resock.StateIdle)
		r.Go()
		r.Quiet(time.Hour)
		r.Is(resock.StateSuspended)
		if len(s.Attempts()) != 0 {
			t.Error("the client dialed while suspended")
		}
		began := time.Now()
		twice(r.Resume)
		if open := r.Open(); open.Attempt != 1 {
			t.Errorf("got %+v, want attempt 1", open)
		}
		rig.Within(t, began, 0, 0)
	})
}

func TestSuspendConnecting(t *testing.T) {
	for _, where := range []string{"dial", "hook"} {
		t.Run(where, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				hang := where == "hook"
				if !hang {
					s.Script(resocktest.StallDial())
				}
				client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
					if hang {
						_, _, err := s.Receive(ctx)
						return err
					}
					return nil
				}))
				client.Is(resock.StateConnecting)
				began := time.Now()
				twice(client.Suspend)
				if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateSuspended || fail.Session != 0 || fail.RetryIn != 0 {
					t.Errorf("got %+v, want no session, and then suspended", fail)
				}
				rig.Within(t, began, 0, 0)
				client.Quiet(time.Hour)
				client.Is(resock.StateSuspended)
				s.Script(resocktest.Hold())
				hang = false
				began = time.Now()
				twice(client.Resume)
				if open := client.Open(); open.Attempt != 1 || open.Session != 1 {
					t.Errorf("got %+v, want session 1, attempt 1", open)
				}
				rig.Within(t, began, 0, 0)
			})
		})
	}
}

func TestSuspendOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s))
		client.Open()
		s.Accept()
		client.Resume() // no-op
		client.Is(resock.StateOpen)
		twice(client.Suspend)
		if event := rig.Next[resock.CloseEvent](client); event.Code != 1000 || !event.Clean || event.Next != resock.StateSuspended {
			t.Errorf("got %+v, want 1000, clean, and then suspended", event)
		}
		if err := client.Enqueue(resock.MessageText, []byte("later")); err != nil {
			t.Error(err)
		}
		client.Quiet(time.Hour)
		client.Is(resock.StateSuspended)
		began := time.Now()
		twice(client.Resume)
		if open := client.Open(); open.Session != 2 || open.Attempt != 1 || open.Downtime != time.Hour {
			t.Errorf("got %+v, want session 2, attempt 1, down for an hour", open)
		}
		if message, err := s.Accept().Read(); err != nil || string(message.Data) != "later" {
			t.Errorf("received %q, %v, want the message that was sent while suspended", message.Data, err)
		}
		rig.Within(t, began, 0, 0)
	})
}

func TestSuspendWaiting(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
			return resock.Decision{After: 10 * time.Hour}
		}))
		rig.Next[resock.FailEvent](client)
		client.Is(resock.StateWaiting)
		twice(client.Suspend)
		client.Is(resock.StateSuspended)
		client.Quiet(20 * time.Minute)
		began := time.Now()
		twice(client.Resume)
		if fail := rig.Next[resock.FailEvent](client); fail.Attempt != 1 {
			t.Errorf("attempt %d after Resume, want 1", fail.Attempt)
		}
		rig.Within(t, began, 0, 0)

		// A Resume right after the Suspend restarts the count, too.
		client.Is(resock.StateWaiting)
		client.Suspend()
		client.Resume()
		if fail := rig.Next[resock.FailEvent](client); fail.Attempt != 1 {
			t.Errorf("attempt %d after Suspend and Resume, want 1", fail.Attempt)
		}
		rig.Within(t, began, 0, 0)
		client.Is(resock.StateWaiting)
		if dials := len(s.Attempts()); dials != 3 {
			t.Errorf("%d dials, want 3", dials)
		}

		// A Resume without a Suspend does nothing.
		client.Resume()
		client.Quiet(time.Hour)
		client.Is(resock.StateWaiting)
	})
}

func TestSuspendOffline(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := rig.Offline()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
		client.Is(resock.StateOffline)
		twice(client.Suspend)
		client.Is(resock.StateSuspended)
		network.Set(true)
		client.Quiet(time.Minute)
		client.Is(resock.StateSuspended)
		network.Set(false)
		twice(client.Resume)
		client.Is(resock.StateOffline)
		client.Quiet(time.Minute)
		if len(s.Attempts()) != 0 {
			t.Error("the client dialed without a network")
		}
		network.Set(true)
		client.Open()
	})
}

func TestSuspendClosed(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s))
		client.Open()
		client.Suspend()
		rig.Next[resock.CloseEvent](client)
		client.Is(resock.StateSuspended)
		_ = client.Close(resock.StatusNormalClosure, "")
		if event, more := <-client.Events; more {
			t.Errorf("got %#v after a Close while suspended, want no event", event)
		}
		<-client.Done()
		twice(client.Suspend)
		twice(client.Resume)
		client.Is(resock.StateClosed)
		if len(s.Attempts()) != 1 {
			t.Errorf("%d dials, want 1", len(s.Attempts()))
		}
	})
}

// TestDowntimeNeverDecreases reads Stats while sessions open: a counter that is made of it
// would take a decrease for a restart of the program.
func TestDowntimeNeverDecreases(t *testing.T) {
	s := resocktest.NewServer(t)
	s.Handle(func(c *resocktest.Conn) { c.Drop() })
	client, err := resock.New(s.URL, resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
		return resock.Decision{After: time.Microsecond, Spread: 1e-9}
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	}()
	go client.Run(t.Context())
	for last := time.Duration(0); client.Stats().Opens < 1000; {
		for range 1000 {
			downtime := client.Stats().Downtime
			if downtime < last {
				t.Fatalf("%v after %v", downtime, last)
			}
			last = downtime
		}
	}
}
