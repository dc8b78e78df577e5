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

// registering makes OnOpen take d.
func registering(d time.Duration) resock.Option {
	return resock.WithOnOpen(func(context.Context, *resock.Session) error {
		time.Sleep(d)
		return nil
	})
}

// TestReconnectAtTheSwitch asks for a reconnect while the server has not yet answered for
// what the old session took: the session that is coming is what was asked for.
func TestReconnectAtTheSwitch(t *testing.T) {
	for ms := range 8 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) { c.IgnorePings() })
			r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second))
			r.Open()
			time.Sleep(time.Minute)
			if err := r.Enqueue(resock.MessageText, []byte("x")); err != nil {
				t.Error(err)
			}
			r.Handover()
			time.Sleep(time.Second + time.Duration(ms)*100*time.Millisecond)
			r.Reconnect()
			r.Next()
			if open := r.Open(); open.Session != 2 {
				t.Errorf("session %d", open.Session)
			}
			time.Sleep(3 * time.Second)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := r.WaitOpen(ctx); err != nil {
				t.Errorf("a reconnect after %d ms: %v, and the client is %v", ms*100, err, r.State())
			}
		})
	}
}

// TestCloseAtTheSwitch closes the client while a handler of the old session does not
// return.
func TestCloseAtTheSwitch(t *testing.T) {
	const closeIn = time.Second
	for ms := range 15 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			release := make(chan struct{})
			handler := resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-release })
			r := rig.Start(t, s.URL, rig.Reach(s), handler, registering(0), resock.WithHandover(closeIn), resock.WithCloseTimeout(closeIn))
			defer close(release)
			first := s.Accept()
			r.Open()
			time.Sleep(time.Minute)
			_ = first.Push("hang")
			r.Handover()
			time.Sleep(time.Duration(ms) * 100 * time.Millisecond)
			began := time.Now()
			_ = r.Close(resock.StatusNormalClosure, "")
			<-r.Done()
			if took := time.Since(began); took > closeIn {
				t.Errorf("closing took %v, %d ms after the handover began", took, ms*100)
			}
		})
	}
}

// TestFlushAtTheSwitch flushes while the old session is neither alive nor lost, and the
// next one is in OnOpen.
func TestFlushAtTheSwitch(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), registering(700*time.Millisecond), resock.WithHandover(time.Second),
			resock.WithHeartbeat(0, 0), resock.WithCloseTimeout(time.Second), resock.WithQueue(1, 10<<20))
		first := s.Accept()
		r.Open()
		time.Sleep(time.Minute)
		first.IgnorePings()
		first.IgnoreClose()
		first.StopReading()
		outcome := make(chan error, 1)
		if err := r.Enqueue(resock.MessageBinary, make([]byte, 10<<20), resock.WithResult(func(err error) { outcome <- err })); err != nil {
			t.Error(err)
		}
		r.Handover()
		time.Sleep(900 * time.Millisecond)
		r.Reconnect()
		time.Sleep(200 * time.Millisecond)
		if err := r.Flush(t.Context()); !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("Flush: got %v, want ErrMaybeSent", err)
		}
		if err := <-outcome; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("got %v, want ErrMaybeSent", err)
		}
		r.Next()
		r.Open()
	})
}

// TestFailedHandoversAreNoAttempts reconnects after as many handovers failed as there may be
// attempts.
func TestFailedHandoversAreNoAttempts(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Hold(), resocktest.Drop(), resocktest.Drop(), resocktest.Hold())
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithHandover(time.Second), resock.WithMaxAttempts(2), resock.WithStableAfter(time.Hour))
		first := s.Accept()
		r.Open()
		r.Handover()
		r.Quiet(time.Minute)
		if got := r.Stats(); got.Attempts != 3 || got.Fails != 2 {
			t.Errorf("got %+v", got)
		}
		first.Drop()
		if fail := r.Fail(resock.PhaseRead); fail.Next != resock.StateWaiting || fail.Attempt != 1 {
			t.Errorf("got %+v", fail)
		}
		if open := r.Open(); open.Attempt != 2 {
			t.Errorf("got %+v", open)
		}
	})
}

// TestHandoverWithFreshCredentials tries once more when it is refused.
func TestHandoverWithFreshCredentials(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Hold(), resocktest.Status(401, nil, ""), resocktest.Hold())
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(time.Second))
		r.Open()
		r.Handover()
		began := time.Now()
		replaced(t, r)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestDeadLinesAreNoRivals does not blame the server for a line that is dead.
func TestDeadLinesAreNoRivals(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), registering(time.Second), resock.WithHandover(time.Second), resock.WithHeartbeat(200*time.Millisecond, 100*time.Millisecond))
		for range 5 {
			c := s.Accept()
			r.Open()
			time.Sleep(time.Minute)
			c.IgnorePings()
			r.Handover()
			if fail := r.Fail(resock.PhaseHeartbeat); fail.Next != resock.StateConnecting {
				t.Errorf("got %+v", fail)
			}
		}
		r.Open()
		if r.Stats().HandoverOff {
			t.Error("handover is off")
		}
	})
}

// TestSendsAreHeldBackForOverlap holds no message back for longer than overlap where the old
// line is dead.
func TestSendsAreHeldBackForOverlap(t *testing.T) {
	const overlap = time.Second
	for _, size := range []int{10, 10 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Start(t, s.URL, rig.Reach(s), resock.WithHandover(overlap), resock.WithHeartbeat(0, 0), resock.WithQueue(100, 64<<20))
				first := s.Accept()
				r.Open()
				time.Sleep(time.Minute)
				first.StopReading()
				first.IgnorePings()
				if err := r.Enqueue(resock.MessageBinary, make([]byte, size)); err != nil {
					t.Error(err)
				}
				if err := r.Enqueue(resock.MessageBinary, make([]byte, size), resock.WithSession(1)); err != nil {
					t.Error(err)
				}
				synctest.Wait()
				r.Handover()
				time.Sleep(10 * time.Millisecond)
				began := time.Now()
				if err := r.Send(t.Context(), resock.MessageText, []byte("x")); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > overlap {
					t.Errorf("Send took %v", took)
				}
				r.Next()
				r.Open()
			})
		})
	}
}

// TestFlushWaitsForTheComingSession flushes while something was sent to the session that is
// coming, and not yet read.
func TestFlushWaitsForTheComingSession(t *testing.T) {
	for name, test := range map[string]struct {
		greets bool
		err    error // of OnOpen
		want   error
	}{
		"bound":                 {},
		"greeted":               {greets: true},
		"bound, and it fails":   {err: rig.ErrTest},
		"greeted, and it fails": {greets: true, err: rig.ErrTest, want: resock.ErrMaybeSent},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				ready := make(chan struct{})
				var client *resock.Client
				onOpen := resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
					if session.ID() == 1 {
						return nil
					}
					if test.greets {
						if err := session.Send(ctx, resock.MessageText, []byte("hello")); err != nil {
							t.Error(err)
						}
					} else if err := client.Enqueue(resock.MessageText, []byte("bound"), resock.WithSession(2)); err != nil {
						t.Error(err)
					}
					close(ready)
					time.Sleep(time.Second)
					return test.err
				})
				r := rig.Prepare(t, s.URL, rig.Reach(s), onOpen, resock.WithHandover(time.Second), resock.WithRetryPolicy(func(resock.Failure) resock.Decision {
					return resock.Decision{Action: resock.ActionStop} // no second handover
				}))
				client = r.Client
				r.Go()
				r.Open()
				r.Handover()
				<-ready
				began := time.Now()
				if err := r.Flush(t.Context()); !errors.Is(err, test.want) {
					t.Errorf("Flush: got %v, want %v", err, test.want)
				}
				if took := time.Since(began); took < time.Second {
					t.Errorf("Flush took %v", took)
				}
			})
		})
	}
}

// TestNewSessionFailsUnread loses the new session before it is read: what came on it, and
// why the server left, is not lost.
func TestNewSessionFailsUnread(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), slowly(s), resock.WithHandover(5*time.Second))
		first := s.Accept()
		first.IgnoreClose() // so that it takes all of overlap
		r.Open()
		time.Sleep(time.Minute)
		r.Handover()
		second := s.Accept()
		time.Sleep(time.Second)
		_ = second.Push("the last one")
		_ = second.Close(resock.StatusServiceRestart, "bye")
		second.Drop()
		for range 2 { // the first one finds out
			_ = r.Send(t.Context(), resock.MessageText, []byte("in vain"))
			synctest.Wait()
		}
		if err := r.Enqueue(resock.MessageText, []byte("later"), resock.WithSession(2)); !errors.Is(err, resock.ErrSessionOver) {
			t.Errorf("the session takes more: %v", err)
		}
		r.Closed(resock.StatusNormalClosure, "", false)
		if open := r.Open(); open.Session != 2 || open.Downtime != 0 {
			t.Errorf("got %+v", open)
		}
		r.Message("the last one")
		r.Closed(resock.StatusServiceRestart, "bye", false)
		r.Open()
	})
}

// TestHandoverWithAHangingHook keeps the old session, and closes in time, whatever hook of
// the new one does not return.
func TestHandoverWithAHangingHook(t *testing.T) {
	for name, hang := range map[string]func(s *resocktest.Server, do func()) resock.Option{
		"OnOpen": func(_ *resocktest.Server, do func()) resock.Option {
			return resock.WithOnOpen(func(context.Context, *resock.Session) error { do(); return nil })
		},
		"endpoint": func(s *resocktest.Server, do func()) resock.Option {
			return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
				do()
				return resock.Endpoint{URL: s.URL}, nil
			})
		},
		"limiter": func(_ *resocktest.Server, do func()) resock.Option {
			return resock.WithDialLimiter(rig.Limiter(func(context.Context) error { do(); return nil }))
		},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				release, calls := make(chan struct{}), 0
				do := func() {
					if calls++; calls == 2 {
						<-release
					}
				}
				r := rig.Start(t, s.URL, rig.Reach(s), hang(s, do), resock.WithHandover(time.Second), resock.WithMaxSessionAge(time.Minute),
					resock.WithDialTimeout(10*time.Hour), resock.WithCloseTimeout(time.Second))
				first := s.Accept()
				r.Open()
				for range 10 {
					time.Sleep(time.Minute)
					_ = first.Push("x")
					r.Message("x")
					if err := r.Send(t.Context(), resock.MessageText, []byte("y")); err != nil {
						t.Error(err)
					}
					if err := r.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
				began := time.Now()
				_ = r.Close(resock.StatusNormalClosure, "")
				<-r.Done()
				if took := time.Since(began); took > time.Second {
					t.Errorf("closing took %v", took)
				}
				close(release)
			})
		})
	}
}

// TestRivalsAtTheSwitch notices a server that ends the old session after the new one is
// ready, and before the client does.
func TestRivalsAtTheSwitch(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var last atomic.Pointer[resocktest.Conn]
		s.Handle(func(c *resocktest.Conn) {
			c.IgnorePings() // the client waits for an answer to what it sent
			if old := last.Swap(c); old != nil {
				time.Sleep(10 * time.Millisecond)
				_ = old.Close(4001, "another session")
			}
		})
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithHandover(time.Second), resock.WithHeartbeat(0, 0))
		r.Open()
		for range 3 {
			if r.Stats().HandoverOff {
				t.Error("off already")
			}
			time.Sleep(time.Minute)
			if err := r.Send(t.Context(), resock.MessageText, []byte("x")); err != nil {
				t.Error(err)
			}
			r.Handover()
			r.Closed(4001, "another session", true)
			r.Open()
		}
		if !r.Stats().HandoverOff {
			t.Errorf("got %+v", r.Stats())
		}
	})
}
