package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// alive returns how many of the server's connections have not ended.
func alive(s *resocktest.Server) (n int) {
	for _, c := range s.Conns() {
		select {
		case <-c.Done():
		default:
			n++
		}
	}
	return n
}

// slowly makes the client's end of each connection wait before its first read, as if the
// server's answer took that long.
func slowly(s *resocktest.Server, wait func() time.Duration) resock.Option {
	return rig.ReachBy(s, func(conn net.Conn) net.Conn { return &lateReader{Conn: conn, wait: wait()} })
}

type lateReader struct {
	net.Conn
	wait time.Duration
}

func (r *lateReader) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	time.Sleep(r.wait)
	r.wait = 0
	return n, err
}

// The application meddles at random while connections take their time. In the end there
// is one connection, on both sides.
func TestThreadOneConnection(t *testing.T) {
	for seed := range uint64(50) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			random := rand.New(rand.NewPCG(seed, 39))
			upTo := func(n int) time.Duration { return time.Duration(random.IntN(n)) * time.Millisecond }
			waits := make(chan time.Duration, 1000)
			for range cap(waits) {
				waits <- upTo(300)
			}
			r := rig.Quick(t, s.URL, slowly(s, func() time.Duration { return <-waits }))
			for range 30 {
				time.Sleep(upTo(200))
				switch random.IntN(3) {
				case 0:
					r.Reconnect()
				case 1:
					r.Suspend()
				case 2:
					if conns := s.Conns(); len(conns) > 0 {
						conns[len(conns)-1].Drop()
					}
				}
				r.Resume()
			}
			time.Sleep(10 * time.Second)
			r.Is(resock.StateOpen)
			if n := alive(s); n != 1 {
				t.Errorf("seed %d: %d connections are alive, want 1", seed, n)
			}
		})
	}
}

// The server has accepted the connection, and the client does not know it yet.
func TestThreadDisconnectBeforeConnected(t *testing.T) {
	for name, leave := range map[string]func(*rig.Client){
		"Suspend": func(r *rig.Client) { r.Suspend() },
		"Close":   func(r *rig.Client) { _ = r.Close(resock.StatusNormalClosure, "") },
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Quick(t, s.URL, slowly(s, func() time.Duration { return 100 * time.Millisecond }))
				s.Accept()
				leave(r)
				r.Fail(resock.PhaseUpgrade)
				time.Sleep(time.Second)
				if alive(s) != 0 {
					t.Error("the server still has the connection")
				}
			})
		})
	}
}

// The user logs in as somebody else while the hook still asks for the old token. The hook
// does not listen to its context.
func TestThreadTokenSwitch(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var user atomic.Value
		user.Store("old")
		r := rig.Reaching(t, s, resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			name := user.Load().(string)
			time.Sleep(3 * time.Second)
			return resock.Endpoint{URL: s.URL + "/" + name}, nil
		}))
		time.Sleep(time.Second)
		user.Store("new")
		r.Suspend()
		r.Resume()
		r.Fail(resock.PhaseEndpoint)
		r.Open()
		r.Quiet(time.Minute)
		for i, attempt := range s.Attempts() {
			if path := attempt.Request.URL.Path; path != "/new" || i > 0 {
				t.Errorf("attempt %d dials %s, want one attempt for /new", i+1, path)
			}
		}
	})
}

// A hook asks for a new token only if the old one was refused.
func TestThreadTokenIsKept(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		drop := resocktest.Serve(func(c *resocktest.Conn) { time.Sleep(time.Minute); c.Drop() })
		s.Script(drop, resocktest.Refuse(), drop, resocktest.Status(401, nil, ""), resocktest.Hold())
		token := 1
		r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			var refused *resock.DialError
			if errors.As(a.Err, &refused) && refused.Status == 401 {
				token++
			}
			return resock.Endpoint{URL: fmt.Sprintf("ws://a/%d", token)}, nil
		}))
		r.Open()
		r.Fail(resock.PhaseRead)
		r.Fail(resock.PhaseTCP)
		r.Open()
		r.Fail(resock.PhaseRead)
		r.Fail(resock.PhaseUpgrade)
		r.Open()
		var paths []string
		for _, attempt := range s.Attempts() {
			if attempt.Request != nil {
				paths = append(paths, attempt.Request.URL.Path)
			}
		}
		if want := []string{"/1", "/1", "/1", "/2"}; !slices.Equal(paths, want) {
			t.Errorf("dialed %q, want %q", paths, want)
		}
	})
}

// TestFault98 has a server that closes when the token has expired, or is a bad one.
func TestFault98_TokenExpires(t *testing.T) {
	expired := resocktest.Serve(func(c *resocktest.Conn) {
		time.Sleep(time.Minute)
		_ = c.Close(resock.StatusPolicyViolation, "token expired")
	})
	rejected := resocktest.Serve(func(c *resocktest.Conn) { _ = c.Close(resock.StatusPolicyViolation, "bad token") })
	hook := resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, nil })
	login := resock.WithOnOpen(func(context.Context, *resock.Session) error { return nil })
	for name, tt := range map[string]struct {
		steps []resocktest.Step
		opts  []resock.Option
		slow  []bool // of each close
	}{
		"a fresh token":     {[]resocktest.Step{expired, expired}, []resock.Option{hook}, []bool{false, false}},
		"a login in OnOpen": {[]resocktest.Step{expired, expired}, []resock.Option{login}, []bool{false, false}},
		"no fresh token":    {[]resocktest.Step{expired}, nil, []bool{true}},
		"rejected at once":  {[]resocktest.Step{rejected, rejected, rejected}, []resock.Option{hook}, []bool{false, true, true}},
		"expired, rejected": {[]resocktest.Step{expired, rejected}, []resock.Option{hook}, []bool{false, true}},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(append(tt.steps, resocktest.Hold())...)
				r := rig.Start(t, "ws://a/", append(tt.opts, rig.Reach(s))...)
				for i, want := range tt.slow {
					r.Open()
					closed := rig.Next[resock.CloseEvent](r)
					if slow := closed.RetryIn >= 15*time.Second; slow != want {
						t.Errorf("close %d: %+v, slow %t, want %t", i+1, closed, slow, want)
					}
				}
				r.Open()
			})
		})
	}
}

// The server sends its close frame and leaves the TCP connection as it is, also when it
// has the answer.
func TestThreadServerKeepsTCPOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s))
		c := s.Accept()
		r.Open()
		c.IgnoreClose()
		time.Sleep(time.Minute)
		began := time.Now()
		_ = c.Raw(resocktest.Frame(rig.Fin|8, []byte("\x03\xe9bye")))
		r.Closed(resock.StatusGoingAway, "bye", true)
		r.Open()
		rig.Within(t, began, 0, time.Second)
		select {
		case <-c.Done():
		case <-time.After(5 * time.Second):
			t.Error("the client still has the old connection")
		}
	})
}

// TestFault97 has a network that reports changes in bursts, whatever the client is doing.
func TestFault97_BurstOfNetworkChanges(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Refuse(), resocktest.Hold())
		network := new(rig.Network)
		r := rig.Start(t, "ws://a/", rig.ReachBy(s, func(conn net.Conn) net.Conn { return &lateReader{Conn: conn, wait: 2 * time.Second} }),
			resock.WithNetwork(network), resock.WithHeartbeat(0, 0))
		burst := func() {
			for range 100 {
				network.Set(true)
			}
		}
		burst()
		r.Fail(resock.PhaseTCP)
		burst() // while waiting
		c := s.Accept()
		burst() // while connecting
		r.Open()
		c.IgnorePings()
		burst()
		r.Quiet(time.Second)
		_ = c.Push("alive")
		r.Message("alive")
		r.Quiet(time.Minute)
		if n := len(s.Conns()); n != 1 || r.Stats().Attempts != 2 {
			t.Errorf("%d connections, %d attempts; want 1 and 2", n, r.Stats().Attempts)
		}
		if n := len(c.Received().Pings); n != 1 {
			t.Errorf("%d pings for a burst of changes, want 1", n)
		}
	})
}

// The server never answers a close frame, and the application reconnects all the time.
func TestThreadGhostConnections(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle((*resocktest.Conn).IgnoreClose)
		r := rig.Start(t, s.URL, rig.Reach(s))
		go func() {
			for range r.Events {
			}
		}()
		most := 0
		for range 600 {
			time.Sleep(100 * time.Millisecond)
			r.Reconnect()
			synctest.Wait()
			most = max(most, alive(s))
		}
		if limit := 12; most > limit { // one per 500 ms, for 5 s each
			t.Errorf("%d connections at once, want at most %d", most, limit)
		}
		time.Sleep(6 * time.Second)
		if n := alive(s); n != 1 {
			t.Errorf("%d connections are left, want 1", n)
		}
	})
}

// What was to happen to the old connection does not happen to the new one.
func TestThreadOldTimers(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s), resock.WithMaxSessionAge(time.Minute), resock.WithIdleTimeout(50*time.Second), resock.WithHeartbeat(0, 0))
		r.Open()
		time.Sleep(40 * time.Second)
		r.Reconnect()
		r.Closed(resock.StatusNormalClosure, "", false)
		began := r.Open().Time
		s.Accept()
		c := s.Accept()
		r.Quiet(40 * time.Second)
		_ = c.Push("alive")
		r.Message("alive")
		r.Closed(resock.StatusNormalClosure, "", true)
		rig.Within(t, began, 54*time.Second, time.Minute)
	})
}

// A long-running program on a bad line has no more goroutines and descriptors in the end.
func TestThreadManyReconnects(t *testing.T) {
	rig.CheckLeaks(t)
	s := resocktest.NewServer(t)
	r := rig.Quick(t, s.URL, resock.WithBackoff(time.Millisecond, time.Millisecond), resock.WithCloseTimeout(100*time.Millisecond),
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{URL: s.URL}, nil
		}),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			return s.Send(ctx, resock.MessageText, []byte("register"))
		}))
	round := func() {
		for _, end := range []func(*resocktest.Conn){
			(*resocktest.Conn).Drop,
			(*resocktest.Conn).Reset,
			func(c *resocktest.Conn) { _ = c.Close(websocket.StatusInternalError, "") },
			func(*resocktest.Conn) { r.Reconnect() },
			func(*resocktest.Conn) { r.Suspend(); r.Resume() },
			func(c *resocktest.Conn) { c.IgnoreClose(); r.Reconnect() },
		} {
			c := s.Accept()
			r.Open()
			end(c)
			r.Next()
		}
	}
	round()
	goroutines, descriptors := rig.Resources()
	for range 50 {
		round()
	}
	g, d := rig.Resources()
	for deadline := time.After(5 * time.Second); g > goroutines || d > descriptors; g, d = rig.Resources() {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%d goroutines and %d descriptors after 300 reconnects, %d and %d after 6", g, d, goroutines, descriptors)
		}
	}
}

// TestFault99 has a consumer that starts anew at each event. Its attempts go on, and do
// not become a storm.
func TestFault99_StartsAnewAtEachFailure(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		const refusals = 60
		s.Script(append(slices.Repeat([]resocktest.Step{resocktest.Refuse()}, refusals), resocktest.Hold())...)
		r := rig.Start(t, s.URL, rig.Reach(s))
		began := time.Now()
		for {
			if _, open := r.Next().(resock.OpenEvent); open {
				break
			}
			r.Suspend()
			r.Resume()
		}
		// One attempt per initial backoff, except for those of a client that has just come to
		// suspend itself: Resume grants them at once.
		const pace = 500 * time.Millisecond
		rig.Within(t, began, refusals*pace*2/3, refusals*pace)
		r.Quiet(time.Minute)
		if n := len(s.Attempts()); n != refusals+1 {
			t.Errorf("%d attempts, want %d", n, refusals+1)
		}
	})
}

// Silence, the end of the connection, a close frame and the application end the session in
// the same moment.
func TestThreadEndsForEveryReason(t *testing.T) {
	for range 20 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			network := new(rig.Network)
			r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network),
				resock.WithIdleTimeout(30*time.Second), resock.WithHeartbeat(0, 0))
			c := s.Accept()
			r.Open()
			time.Sleep(30 * time.Second)
			for _, end := range []func(){
				c.Drop, c.Reset, r.Reconnect, r.Reconnect,
				func() { _ = c.Close(websocket.StatusServiceRestart, "") },
				func() { network.Set(false); network.Set(true) },
				func() { r.Suspend(); r.Resume() },
			} {
				go end()
			}
			r.Next()
			for {
				if _, ok := r.Next().(resock.OpenEvent); ok {
					break
				}
			}
			time.Sleep(20 * time.Second)
			if n := alive(s); n != 1 {
				t.Errorf("%d connections are alive, want 1", n)
			}
		})
	}
}

// The network changes while an attempt hangs: what it has sent goes nowhere.
func TestThreadNetworkSwitchWhileConnecting(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve(func(c *resocktest.Conn) { time.Sleep(time.Minute); c.Drop() }), resocktest.StallDial(), resocktest.Hold())
		network := new(rig.Network)
		r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
		r.Open()
		lost := r.Fail(resock.PhaseRead).Time
		time.Sleep(time.Second)
		r.Is(resock.StateConnecting)
		network.Set(false)
		time.Sleep(time.Second)
		network.Set(true)
		if fail := r.Fail(resock.PhaseTCP); fail.Next != resock.StateWaiting {
			t.Errorf("%+v, want to wait", fail)
		}
		r.Open()
		rig.Within(t, lost, 10*time.Second, 12*time.Second) // the dial timeout, and two short delays
	})
}

// Many clients share a limiter. Those that are suspended or closed leave it at once, and
// take nothing from the others.
func TestThreadSharedLimiter(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		tickets := make(chan struct{})
		limiter := rig.Limiter(func(ctx context.Context) error {
			select {
			case <-tickets:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		var clients []*rig.Client
		for range 3 {
			clients = append(clients, rig.Start(t, s.URL, rig.Reach(s), resock.WithDialLimiter(limiter)))
		}
		time.Sleep(time.Minute)
		began := time.Now()
		clients[0].Suspend()
		clients[0].Fail(resock.PhaseEndpoint)
		_ = clients[1].Close(resock.StatusNormalClosure, "")
		clients[1].Fail(resock.PhaseEndpoint)
		<-clients[1].Done()
		tickets <- struct{}{}
		clients[2].Open()
		clients[0].Resume()
		clients[0].Quiet(time.Minute)
		tickets <- struct{}{}
		clients[0].Open()
		rig.Within(t, began, time.Minute, time.Minute)
		if n := len(s.Attempts()); n != 2 {
			t.Errorf("%d attempts, want 2", n)
		}
	})
}

// The old connection goes on sending after Reconnect, and ends when the new one is open.
func TestThreadOldConnectionSpeaks(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve(func(c *resocktest.Conn) {
			c.IgnoreClose()
			for c.Push("old") == nil {
				time.Sleep(10 * time.Millisecond)
			}
		}), resocktest.Hold())
		r := rig.Start(t, s.URL, rig.Reach(s))
		r.Open()
		r.Message("old")
		time.Sleep(time.Second)
		r.Reconnect()
		for event := r.Next(); ; event = r.Next() {
			if _, closed := event.(resock.CloseEvent); closed {
				break
			}
		}
		r.Open()
		r.Quiet(time.Minute) // neither messages nor the end of the old connection
		if s.Accept(); alive(s) != 1 {
			t.Error("the old connection is still there")
		}
		_ = s.Accept().Push("new")
		r.Message("new")
	})
}

// The server asks for a reconnect and closes by itself soon. A consumer that is late must
// not replace the next session, too.
func TestThreadServerAsksToReconnect(t *testing.T) {
	for name, late := range map[string]bool{"in time": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(resocktest.Serve(func(c *resocktest.Conn) {
					_ = c.Push("reconnect")
					time.Sleep(30 * time.Second)
					_ = c.Close(4000, "")
				}), resocktest.Hold())
				r := rig.Start(t, s.URL, rig.Reach(s))
				r.Open()
				asked := r.Message("reconnect")
				if late {
					time.Sleep(time.Minute)
				}
				if r.Stats().Session == asked.Session {
					r.Reconnect()
				}
				if closed := rig.Next[resock.CloseEvent](r); (closed.Code == 4000) != late {
					t.Errorf("%+v, want the close of the server only if the consumer is late", closed)
				}
				r.Open()
				r.Quiet(time.Hour)
			})
		})
	}
}
