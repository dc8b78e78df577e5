package resock_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// slowly makes an attempt last a second.
func slowly(s *resocktest.Server) resock.Option {
	return resock.WithEndpoint(func(ctx context.Context, a resock.Attempt) (resock.Endpoint, error) {
		if a.Session > 0 {
			time.Sleep(time.Second)
		}
		return resock.Endpoint{URL: s.URL}, nil
	})
}

// replaced expects the end of a session that was replaced, and the next one.
func replaced(t *testing.T, r *rig.Client) resock.OpenEvent {
	t.Helper()
	if e := r.Closed(resock.StatusNormalClosure, "", true); e.Next != resock.StateConnecting || e.RetryIn != 0 {
		t.Errorf("got %+v", e)
	}
	open := r.Open()
	if open.Downtime != 0 {
		t.Errorf("the downtime is %v, want 0", open.Downtime)
	}
	return open
}

// TestHandover delivers from the old session while the next one is dialed, and to its end.
func TestHandover(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(5*time.Second))
		first := s.Accept()
		r.Open()
		time.Sleep(time.Minute)
		r.Handover()
		r.Handover() // one at a time
		for n := range 9 {
			time.Sleep(100 * time.Millisecond)
			_ = first.Push(fmt.Sprint(n))
			r.Message(fmt.Sprint(n))
		}
		if err := r.Send(t.Context(), resock.MessageText, []byte("on the old one")); err != nil {
			t.Error(err)
		}
		second := s.Accept()
		_ = second.Push("on the new one")
		if m, err := first.Read(); err != nil || string(m.Data) != "on the old one" {
			t.Errorf("the old one got %q, %v", m.Data, err)
		}
		open := replaced(t, r)
		if open.Session != 2 || open.Attempt != 1 {
			t.Errorf("got %+v", open)
		}
		r.Message("on the new one")
		if err := r.Send(t.Context(), resock.MessageText, []byte("hello")); err != nil {
			t.Error(err)
		}
		if m, err := second.Read(); err != nil || string(m.Data) != "hello" {
			t.Errorf("the new one got %q, %v", m.Data, err)
		}
		if stats := r.Stats(); stats.Handovers != 1 || stats.Downtime != 0 || stats.Session != 2 || stats.HandoverOff {
			t.Errorf("got %+v", stats)
		}
		time.Sleep(time.Minute)
		if n := len(s.Conns()); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
	})
}

// TestHandoverByAge replaces sessions again and again, and sends all the time.
func TestHandoverByAge(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second), resock.WithMaxSessionAge(time.Minute))
		r.Open()
		for range 10 {
			replaced(t, r)
		}
		if got := r.Stats(); got.Downtime != 0 || got.Handovers != 10 || got.Opens != 11 || got.Attempts != 11 {
			t.Errorf("got %+v", got)
		}
	})
}

// TestHandoverFails keeps the old session, and tries again after the backoff.
func TestHandoverFails(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Hold(), resocktest.Status(503, nil, ""), resocktest.Drop(), resocktest.Hold())
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second))
		first := s.Accept()
		r.Open()
		r.Handover()
		time.Sleep(1800 * time.Millisecond)
		_ = first.Push("still there")
		r.Message("still there")
		if got := r.Stats(); got.Fails == 0 || got.LastErr == nil || got.State != resock.StateOpen {
			t.Errorf("got %+v", got)
		}
		replaced(t, r)
		if got := r.Stats(); got.Fails != 2 || got.Attempts != 4 {
			t.Errorf("got %+v", got)
		}
	})
}

// TestHandoverIsNotTriedAgain keeps the old session when the policy gives up on the new one.
func TestHandoverIsNotTriedAgain(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Hold(), resocktest.Status(403, nil, ""))
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithHandover(time.Second), resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
			return resock.Decision{Action: resock.ActionStop}
		}))
		r.Open()
		r.Handover()
		r.Quiet(time.Hour)
		if got := r.Stats(); got.Attempts != 2 || got.State != resock.StateOpen {
			t.Errorf("got %+v", got)
		}
	})
}

// TestOldSessionDies makes the attempt that is under way the reconnect.
func TestOldSessionDies(t *testing.T) {
	for name, test := range map[string]struct {
		steps []resocktest.Step
		after time.Duration // of the handover's beginning
		open  bool
	}{
		"while the new one is dialed": {[]resocktest.Step{resocktest.Hold(), resocktest.Hold()}, 500 * time.Millisecond, true},
		"and the new one is refused":  {[]resocktest.Step{resocktest.Hold(), resocktest.Drop(), resocktest.Hold()}, 500 * time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(test.steps...)
				r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second))
				first := s.Accept()
				r.Open()
				time.Sleep(time.Minute)
				r.Handover()
				time.Sleep(test.after)
				first.Drop()
				if fail := r.Fail(resock.PhaseRead); fail.Next != resock.StateConnecting || fail.RetryIn != 0 {
					t.Errorf("got %+v", fail)
				}
				if !test.open {
					if fail := r.Fail(resock.PhaseUpgrade); fail.Session != 0 || fail.Next != resock.StateWaiting {
						t.Errorf("got %+v", fail)
					}
				}
				open := r.Open()
				if test.open && open.Downtime != time.Second-test.after {
					t.Errorf("the downtime is %v", open.Downtime)
				}
				if open.Session != 2 {
					t.Errorf("session %d", open.Session)
				}
			})
		})
	}
}

// TestRivals switches handover off when the server ends each session whose successor
// registers.
func TestRivals(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var last atomic.Pointer[resocktest.Conn]
		s.Handle(func(c *resocktest.Conn) {
			if old := last.Swap(c); old != nil {
				_ = old.Close(4001, "another session")
			}
		})
		onOpen := resock.WithOnOpen(func(context.Context, *resock.Session) error {
			time.Sleep(10 * time.Millisecond)
			return nil
		})
		r := rig.Start(t, s.URL, rig.Reach(s), onOpen, resock.WithHandover(time.Second), resock.WithMaxSessionAge(time.Minute))
		r.Open()
		for range 3 {
			if got := r.Stats(); got.HandoverOff {
				t.Error("off already")
			}
			if e := r.Closed(4001, "another session", true); e.Next != resock.StateConnecting {
				t.Errorf("got %+v", e)
			}
			r.Open()
		}
		if got := r.Stats(); !got.HandoverOff || got.Handovers != 0 {
			t.Errorf("got %+v", got)
		}
		r.Closed(resock.StatusNormalClosure, "", true) // by age, as without handover
		r.Open()
		r.Handover()
		r.Closed(resock.StatusNormalClosure, "", false) // as by Reconnect
		r.Open()
	})
}

// TestHandoverAndWishes asks for something else at each moment of a handover.
func TestHandoverAndWishes(t *testing.T) {
	for name, wish := range map[string]func(*rig.Client){
		"Close":     func(r *rig.Client) { _ = r.Close(resock.StatusGoingAway, "bye") },
		"Suspend":   func(r *rig.Client) { r.Suspend() },
		"Reconnect": func(r *rig.Client) { r.Reconnect() },
		"Resume":    func(r *rig.Client) { r.Suspend(); r.Resume() },
	} {
		for ms := range 16 {
			t.Run(fmt.Sprintf("%s after %d ms", name, 100*ms), func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					s.Handle(func(c *resocktest.Conn) { c.IgnoreClose() }) // the old one takes until the end of overlap
					r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(400*time.Millisecond))
					r.Open()
					r.Handover()
					time.Sleep(time.Duration(ms) * 100 * time.Millisecond)
					if err := r.Enqueue(resock.MessageText, []byte("queued")); err != nil {
						t.Error(err)
					}
					wish(r)
					go func() {
						for range r.Events {
						}
					}()
					time.Sleep(time.Minute)
					switch state := r.State(); {
					case name == "Close" && state != resock.StateClosed, name == "Suspend" && state != resock.StateSuspended:
						t.Errorf("the client is %v", state)
					case name != "Close" && name != "Suspend" && state != resock.StateOpen:
						t.Errorf("the client is %v", state)
					}
					if name != "Suspend" {
						sent := 0
						for _, c := range s.Conns() {
							sent += len(c.Received().Messages)
						}
						if sent != 1 {
							t.Errorf("the queued message was sent %d times", sent)
						}
					}
				})
			})
		}
	}
}

// TestSendsDuringAHandover loses none, and sends none twice.
func TestSendsDuringAHandover(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second), resock.WithMaxSessionAge(5*time.Second))
		const messages = 3000
		go func() {
			for range r.Events {
			}
		}()
		for n := range messages {
			time.Sleep(10 * time.Millisecond)
			if n%10 == 0 {
				if err := r.Enqueue(resock.MessageText, fmt.Append(nil, n)); err != nil {
					t.Error(err)
				}
			} else if err := r.Send(t.Context(), resock.MessageText, fmt.Append(nil, n)); err != nil {
				t.Error(err)
			}
			if n%100 == 0 {
				if err := r.Flush(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
		synctest.Wait()
		next := 0
		for _, c := range s.Conns() {
			for _, m := range c.Received().Messages {
				if got := string(m.Data); got != fmt.Sprint(next) {
					t.Fatalf("got %s, want %d", got, next)
				}
				next++
			}
		}
		if got := r.Stats(); next != messages || got.Handovers < 4 {
			t.Errorf("%d arrived; %+v", next, got)
		}
	})
}

// TestSessionsOfAHandover binds messages to each of the two.
func TestSessionsOfAHandover(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var client *resock.Client
		bound := func(n uint64) error {
			return client.Enqueue(resock.MessageText, fmt.Append(nil, n), resock.WithSession(n))
		}
		r := rig.Prepare(t, s.URL, rig.Reach(s), resock.WithHandover(time.Second), resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
			if session.ID() == 1 {
				if p := session.Predecessor(); p != 0 {
					t.Errorf("the predecessor of 1 is %d", p)
				}
				return nil
			}
			if p := session.Predecessor(); p != 1 {
				t.Errorf("the predecessor of 2 is %d", p)
			}
			if err := errors.Join(bound(1), bound(2)); err != nil {
				t.Error(err)
			}
			return nil
		}))
		client = r.Client
		r.Go()
		r.Open()
		r.Handover()
		replaced(t, r)
		synctest.Wait()
		for n, c := range s.Conns() {
			got := c.Received().Messages
			if len(got) != 1 || string(got[0].Data) != fmt.Sprint(n+1) {
				t.Errorf("session %d got %v", n+1, got)
			}
		}
		if err := bound(1); !errors.Is(err, resock.ErrSessionOver) {
			t.Errorf("got %v", err)
		}
	})
}
