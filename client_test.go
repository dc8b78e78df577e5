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

// TestMainJob is the story of the package: a program registers once, receives
// pushes, survives a drop and a restart, and closes cleanly.
func TestMainJob(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(15*time.Second, 10*time.Second))
		first := s.Accept()
		if open := r.Open(); open.Session != 1 || open.Attempt != 1 || open.Downtime != 0 {
			t.Errorf("%+v", open)
		}
		_ = first.Push("one")
		r.Message("one")
		time.Sleep(time.Hour) // heartbeats
		first.Drop()
		if fail := r.Fail(resock.PhaseRead); fail.Session != 1 || fail.Took != time.Hour || !errors.Is(fail.Err, io.EOF) {
			t.Errorf("%+v", fail)
		}

		second := s.Accept()
		if open := r.Open(); open.Session != 2 || open.Downtime == 0 {
			t.Errorf("%+v", open)
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
			t.Errorf("%q, %v", message.Data, err)
		}
		if err := <-sent; err != nil {
			t.Errorf("Send: %v", err)
		}

		_ = r.Close(resock.StatusNormalClosure, "thank you")
		for {
			if e, ok := r.Next().(resock.CloseEvent); ok {
				if e.Session != 3 || e.Code != 1000 || e.Reason != "thank you" || !e.Clean || e.Next != resock.StateClosed {
					t.Errorf("%+v", e)
				}
				break
			}
		}
		<-r.Done()
		stats := r.Stats()
		if r.Err() != nil || stats.State != resock.StateClosed || stats.Opens != 3 || stats.MessagesIn != 2 || stats.MessagesOut != 1 {
			t.Errorf("%v, %+v", r.Err(), stats)
		}
		if closed := third.Received().Close; closed == nil || closed.Code != 1000 || closed.Reason != "thank you" {
			t.Errorf("the server got the close frame %+v", closed)
		}
	})
}

func newVirtualClient(t *testing.T, s *resocktest.Server) *resock.Client {
	t.Helper()
	client, err := resock.New(s.URL, rig.Reach(s))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestRunTwice(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := newVirtualClient(t, s)
		go client.Run(t.Context())
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := client.Run(t.Context()); !errors.Is(err, resock.ErrAlreadyRun) {
			t.Errorf("a second Run: %v", err)
		}
		if client.Err() != nil || client.State() != resock.StateOpen {
			t.Errorf("after it: %v, %v", client.State(), client.Err())
		}
	})
}

func TestCloseBeforeRun(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := newVirtualClient(t, s)
		events := grammar.Tee(t, client)
		outcome := make(chan error, 1)
		if err := client.Enqueue(resock.MessageText, nil, resock.WithResult(func(err error) { outcome <- err })); err != nil {
			t.Fatal(err)
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done() // nobody has to call Run for it
		if event, more := <-events; more {
			t.Errorf("an event: %+v", event)
		}
		if err := <-outcome; !errors.Is(err, resock.ErrClosed) {
			t.Errorf("the queued message: %v", err)
		}
		if err := client.Run(t.Context()); err != nil {
			t.Errorf("Run: %v", err)
		}
		for event := range new(grammar.Checker).All(t, client.Subscribe(t.Context())) {
			t.Errorf("a subscription of a closed client has the event %+v", event)
		}
		if err := client.Send(t.Context(), resock.MessageText, nil); !errors.Is(err, resock.ErrClosed) || !errors.Is(err, resock.ErrNotSent) {
			t.Errorf("Send: %v", err)
		}
		if len(s.Attempts()) != 0 {
			t.Error("it dialed")
		}
	})
}

func TestCancel(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := newVirtualClient(t, s)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- client.Run(ctx) }()
		c := s.Accept()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || !errors.Is(client.Err(), context.Canceled) {
			t.Errorf("Run: %v, Err: %v", err, client.Err())
		}
		<-c.Done()
		if closed := c.Received().Close; closed == nil || closed.Code != resock.StatusGoingAway {
			t.Errorf("the server got the close frame %+v, want 1001", closed)
		}
	})
}

func TestWaitOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client := newVirtualClient(t, s)
		go client.Run(t.Context())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var dial *resock.DialError
		if err := client.WaitOpen(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &dial) {
			t.Errorf("while the server is away: %v, want both reasons", err)
		}
		s.Restart()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Errorf("after its return: %v", err)
		}
		synctest.Wait()
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		if err := client.WaitOpen(t.Context()); !errors.Is(err, resock.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
