package resock_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// TestStaleToken: a 401 becomes a success, since every attempt asks for a token.
func TestStaleToken(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusUnauthorized, nil, "stale\n"), resocktest.Hold())
		var attempts []resock.Attempt
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				attempts = append(attempts, a)
				token := "sEcReT"
				var dial *resock.DialError
				if errors.As(a.Err, &dial) && dial.Status == http.StatusUnauthorized {
					token = "fresh"
				}
				return resock.Endpoint{Header: http.Header{"Authorization": {"Bearer " + token}}}, nil
			}))
		fail := rig.Next[resock.FailEvent](client)
		var dial *resock.DialError
		if !errors.As(fail.Err, &dial) || dial.Status != 401 || string(dial.Body) != "stale\n" || fail.Phase != resock.PhaseUpgrade {
			t.Errorf("failed by %#v in phase %v", fail.Err, fail.Phase)
		}
		if fail.Next != resock.StateWaiting || strings.Contains(fmt.Sprintf("%v %+v", fail.Err, fail), "sEcReT") {
			t.Errorf("%+v", fail)
		}
		if open := rig.Next[resock.OpenEvent](client); open.Session != 1 || open.Attempt != 2 {
			t.Errorf("%+v", open)
		}
		if len(attempts) != 2 || attempts[0].Err != nil || attempts[0].N != 1 || attempts[1].N != 2 {
			t.Errorf("attempts %+v", attempts)
		}
		for i, want := range []string{"Bearer sEcReT", "Bearer fresh"} {
			if got := s.Attempts()[i].Request.Header.Get("Authorization"); got != want {
				t.Errorf("attempt %d came with %q, want %q", i+1, got, want)
			}
		}
	})
}

// failover is an endpoint hook that goes to the next host after a failed attempt.
func failover(hosts ...string) resock.Option {
	current := 0
	return resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
		var dial *resock.DialError
		if errors.As(a.Err, &dial) {
			current = (current + 1) % len(hosts)
		}
		return resock.Endpoint{URL: "ws://" + hosts[current] + "/"}, nil
	})
}

func TestFailoverAndBack(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		hosts := map[string]*resocktest.Server{"a": s, "b": resocktest.NewMemory(t)}
		hosts["b"].Stop()
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(address)
			return hosts[host].Client().Transport.(*http.Transport).DialContext(ctx, network, address)
		}
		client := rig.Start(t, "", failover("a", "b"), resock.WithDialOptions(&websocket.DialOptions{
			HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
		}))
		from := func(host string) {
			t.Helper()
			if open := rig.Next[resock.OpenEvent](client); open.URL != "ws://"+host+"/" {
				t.Errorf("open at %s, want %s", open.URL, host)
			}
		}
		from("a")
		for _, turn := range [][2]string{{"a", "b"}, {"b", "a"}} {
			dead, alive := turn[0], turn[1]
			hosts[alive].Restart()
			hosts[dead].Stop()
			if lost := rig.Next[resock.FailEvent](client); lost.Session == 0 {
				t.Errorf("%+v, want the end of a session", lost)
			}
			if refused := rig.Next[resock.FailEvent](client); refused.Phase != resock.PhaseTCP || !errors.Is(refused.Err, syscall.ECONNREFUSED) {
				t.Errorf("%+v, want a refused connection", refused)
			}
			from(alive)
		}
	})
}

// TestAttemptErrAfterSuspend: what went wrong before a session says nothing about
// its end.
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
		rig.Next[resock.OpenEvent](client)
		client.Suspend()
		rig.Next[resock.CloseEvent](client)
		client.Resume()
		rig.Next[resock.OpenEvent](client)
		if last.Err != nil || last.Session != 1 {
			t.Errorf("told %+v, want session 1 and no error", last)
		}
	})
}

func TestEndpointError(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		answers := []struct {
			endpoint resock.Endpoint
			err      error
		}{
			{err: fmt.Errorf("no token: %w", rig.ErrTest)},
			{endpoint: resock.Endpoint{URL: "https://a/?token=sEcReT"}},
			{endpoint: resock.Endpoint{URL: "ws://a:b/?token=sEcReT"}},
			{endpoint: resock.Endpoint{URL: "ws://a/"}},
		}
		client := rig.Start(t, "", rig.Reach(s), resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			answer := answers[a.N-1]
			return answer.endpoint, answer.err
		}))
		for i := range 3 {
			fail := rig.Next[resock.FailEvent](client)
			var dial *resock.DialError
			if fail.Phase != resock.PhaseEndpoint || fail.Next != resock.StateWaiting || fail.Attempt != i+1 || !errors.As(fail.Err, &dial) {
				t.Errorf("%+v", fail)
			}
			if is := errors.Is(fail.Err, rig.ErrTest); is != (i == 0) {
				t.Errorf("%d: %v", i, fail.Err)
			}
			if strings.Contains(fail.Err.Error(), "sEcReT") {
				t.Errorf("a secret in %v", fail.Err)
			}
		}
		if open := rig.Next[resock.OpenEvent](client); open.Attempt != 4 {
			t.Errorf("%+v", open)
		}
		if len(s.Attempts()) != 1 {
			t.Errorf("%d dials, want 1", len(s.Attempts()))
		}
	})
}

func TestEndpointHangs(t *testing.T) {
	hang := resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
		<-ctx.Done()
		return resock.Endpoint{}, ctx.Err()
	})
	t.Run("until the dial timeout", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			client := rig.Start(t, "ws://a/", rig.Reach(s), hang, resock.WithDialTimeout(3*time.Second))
			fail := rig.Next[resock.FailEvent](client)
			if fail.Phase != resock.PhaseEndpoint || !errors.Is(fail.Err, context.DeadlineExceeded) || fail.Took != 3*time.Second {
				t.Errorf("%+v", fail)
			}
		})
	})
	t.Run("until Close", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			began := time.Now()
			client := rig.Start(t, "ws://a/", rig.Reach(s), hang)
			client.Is(resock.StateConnecting)
			_ = client.Close(resock.StatusNormalClosure, "")
			fail := rig.Next[resock.FailEvent](client)
			if fail.Phase != resock.PhaseEndpoint || fail.Next != resock.StateClosed {
				t.Errorf("%+v", fail)
			}
			<-client.Done()
			rig.Within(t, began, 0, 0)
			if err := client.Err(); err != nil {
				t.Error(err)
			}
		})
	})
}

// TestHeadersStayHome: no header of one endpoint reaches another.
func TestHeadersStayHome(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusTemporaryRedirect, http.Header{"Location": {"ws://elsewhere/"}}, ""))
		const secret, common = "X-Secret", "X-Common"
		steps := []struct {
			endpoint                       resock.Endpoint
			secret, common, authentication string
		}{
			{resock.Endpoint{URL: "ws://a/", Header: http.Header{secret: {"a"}, "Authorization": {"Bearer a"}}}, "a", "", "Bearer a"},
			{resock.Endpoint{URL: "ws://user:pass@b/", Header: http.Header{secret: {"b"}}}, "b", "", "Basic dXNlcjpwYXNz"},
			{resock.Endpoint{URL: "ws://c/"}, "", "all", ""},
			{resock.Endpoint{URL: "ws://d/", Header: http.Header{}}, "", "", ""},
			{resock.Endpoint{URL: "ws://e/"}, "", "all", ""},
		}
		given := &websocket.DialOptions{
			HTTPClient: s.Client(),
			HTTPHeader: http.Header{common: {"all"}},
		}
		client := rig.Start(t, "", resock.WithDialOptions(given), resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			return steps[min(a.N, len(steps))-1].endpoint, nil
		}))
		given.HTTPHeader.Set(secret, "set after New")
		for i, step := range steps {
			fail := rig.Next[resock.FailEvent](client)
			if header := s.Attempts()[i].Request.Header; header.Get(secret) != step.secret || header.Get(common) != step.common || header.Get("Authorization") != step.authentication {
				t.Errorf("%s got %v", step.endpoint.URL, header)
			}
			if strings.Contains(fmt.Sprint(fail), "pass") {
				t.Errorf("a password in %v", fail)
			}
			if n := len(step.endpoint.Header); step.secret == "" && n != 0 {
				t.Errorf("the application's header was changed: %v", step.endpoint.Header)
			}
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		for _, attempt := range s.Attempts() {
			if request := attempt.Request; request.Host == "elsewhere" {
				t.Errorf("a redirect was followed, with %v", request.Header)
			}
		}
	})
}

// TestRegistration: what OnOpen does not receive is delivered after the OpenEvent,
// and what was queued goes out after OnOpen.
func TestRegistration(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		received := make(chan string, 64)
		s.Handle(func(c *resocktest.Conn) {
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
		})
		r := rig.Prepare(t, "ws://a/", rig.Reach(s), resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			if s.Header().Get("Sec-Websocket-Accept") == "" {
				t.Error("no header of the response")
			}
			if err := s.Send(ctx, resock.MessageText, fmt.Appendf(nil, "register %d", s.ID())); err != nil {
				return err
			}
			_, data, err := s.Receive(ctx)
			if string(data) != "welcome" {
				t.Errorf("received %q, %v", data, err)
			}
			return err
		}))
		sent := make(chan error, 1)
		enqueue := func(text string) {
			t.Helper()
			if err := r.Enqueue(resock.MessageText, []byte(text)); err != nil {
				t.Error(err)
			}
		}
		enqueue("before")
		go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("waiting")) }()
		synctest.Wait()
		r.Go()
		for session := uint64(1); session <= 3; session++ {
			r.Is(resock.StateConnecting) // inside OnOpen
			enqueue("during")
			if open := rig.Next[resock.OpenEvent](r); open.Session != session {
				t.Errorf("%+v", open)
			}
			for _, want := range []string{"one", "two", "three"} {
				if message := rig.Next[resock.MessageEvent](r); string(message.Data) != want || message.Session != session {
					t.Errorf("message %q of session %d, want %q", message.Data, message.Session, want)
				}
			}
			want := []string{fmt.Sprint("register ", session), "before", "waiting", "during"}
			if session > 1 {
				want = []string{want[0], "between", "during"}
			}
			for _, want := range want {
				if got := <-received; got != want {
					t.Errorf("session %d: the server got %q, want %q", session, got, want)
				}
			}
			r.Suspend()
			if event := rig.Next[resock.CloseEvent](r); !event.Clean {
				t.Errorf("%+v", event)
			}
			enqueue("between")
			if session < 3 {
				r.Resume()
			}
		}
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

func TestOnOpenError(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		calls := 0
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithBackoff(time.Second, time.Hour),
			resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
				if s.ID() != 1 {
					t.Errorf("session %d", s.ID())
				}
				if calls++; calls <= 6 {
					return rig.ErrTest
				}
				return nil
			}))
		for i := range 6 {
			fail := rig.Next[resock.FailEvent](client)
			if fail.Phase != resock.PhaseSetup || fail.Session != 0 || fail.Attempt != i+1 || !errors.Is(fail.Err, rig.ErrTest) {
				t.Errorf("%+v", fail)
			}
			if fail.Next != resock.StateWaiting || fail.RetryIn > time.Second<<i {
				t.Errorf("next %v in %v", fail.Next, fail.RetryIn)
			}
		}
		if open := rig.Next[resock.OpenEvent](client); open.Session != 1 || open.Attempt != 7 {
			t.Errorf("%+v", open)
		}
		if stats := client.Stats(); stats.Opens != 1 || stats.Attempts != 7 || stats.Fails != 6 {
			t.Errorf("%+v", stats)
		}
	})
}

func TestOnOpenGivesUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithMaxAttempts(2),
			resock.WithOnOpen(func(context.Context, *resock.Session) error { return rig.ErrTest }))
		rig.Next[resock.FailEvent](client)
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateClosed {
			t.Errorf("%+v", fail)
		}
		<-client.Done()
		var giveUp *resock.GiveUpError
		if err := client.Err(); !errors.As(err, &giveUp) || giveUp.Attempts != 2 || !errors.Is(err, rig.ErrTest) {
			t.Errorf("ended by %v", err)
		}
	})
}

// TestReceiveFails: an error of Receive fails the attempt, whatever the hook
// makes of it.
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
					t.Errorf("%+v", fail)
				}
				if test.is != nil && !errors.Is(fail.Err, test.is) {
					t.Errorf("failed by %v, want %v", fail.Err, test.is)
				}
				if f := <-failures; f.Code != test.code || f.Phase != resock.PhaseSetup {
					t.Errorf("the policy was told %+v", f)
				}
			})
		})
	}
}

// TestDefaultRetryPolicy goes through every phase, status and close code.
func TestDefaultRetryPolicy(t *testing.T) {
	check := func(f resock.Failure, action resock.Action, after time.Duration, spread float64) {
		t.Helper()
		d := resock.DefaultRetryPolicy(f)
		if d.Action != action || d.After != after || max(d.Spread, 1) != spread || d.Rule == "" {
			t.Errorf("%+v for %+v, want action %d after %v, spread %v", d, f, action, after, spread)
		}
	}
	const retry, slow, stop = resock.ActionRetry, resock.ActionRetrySlow, resock.ActionStop
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
					switch {
					case repeats >= 5:
						action = stop
					case repeats >= 2:
						action = slow
					}
				}
				check(resock.Failure{Phase: phase, Code: code, Repeats: repeats}, action, 0, spread)
			}
		}
	}
}

// TestRetryPolicyDecides: a policy's own decision is what happens.
func TestRetryPolicyDecides(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			if f.Phase != resock.PhaseTCP {
				t.Errorf("%+v", f)
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
			t.Errorf("%+v", fail)
		}
		<-client.Done()
		var giveUp *resock.GiveUpError
		if err := client.Err(); !errors.As(err, &giveUp) || giveUp.Rule != "three is enough" {
			t.Errorf("ended by %v", err)
		}
	})
}

// twice calls f again, which must change nothing.
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
			t.Error("dialed while suspended")
		}
		began := time.Now()
		twice(r.Resume)
		if open := rig.Next[resock.OpenEvent](r); open.Attempt != 1 {
			t.Errorf("%+v", open)
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
					t.Errorf("%+v", fail)
				}
				rig.Within(t, began, 0, 0)
				client.Quiet(time.Hour)
				client.Is(resock.StateSuspended)
				s.Script(resocktest.Hold())
				hang = false
				began = time.Now()
				twice(client.Resume)
				if open := rig.Next[resock.OpenEvent](client); open.Attempt != 1 || open.Session != 1 {
					t.Errorf("%+v", open)
				}
				rig.Within(t, began, 0, 0)
			})
		})
	}
}

func TestSuspendOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s))
		rig.Next[resock.OpenEvent](client)
		s.Accept()
		client.Resume() // no-op
		client.Is(resock.StateOpen)
		twice(client.Suspend)
		if event := rig.Next[resock.CloseEvent](client); event.Code != 1000 || !event.Clean || event.Next != resock.StateSuspended {
			t.Errorf("%+v", event)
		}
		if err := client.Enqueue(resock.MessageText, []byte("later")); err != nil {
			t.Error(err)
		}
		client.Quiet(time.Hour)
		client.Is(resock.StateSuspended)
		began := time.Now()
		twice(client.Resume)
		if open := rig.Next[resock.OpenEvent](client); open.Session != 2 || open.Attempt != 1 || open.Downtime != time.Hour {
			t.Errorf("%+v", open)
		}
		if message, err := s.Accept().Read(); err != nil || string(message.Data) != "later" {
			t.Errorf("received %q, %v", message.Data, err)
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

		// A Resume right behind the Suspend does no less.
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

		// Without a Suspend it does nothing.
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
			t.Error("dialed without a network")
		}
		network.Set(true)
		rig.Next[resock.OpenEvent](client)
	})
}

func TestSuspendClosed(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s))
		rig.Next[resock.OpenEvent](client)
		client.Suspend()
		rig.Next[resock.CloseEvent](client)
		client.Is(resock.StateSuspended)
		_ = client.Close(resock.StatusNormalClosure, "")
		if event, more := <-client.Events; more {
			t.Errorf("%#v after a Close while suspended", event)
		}
		<-client.Done()
		twice(client.Suspend)
		twice(client.Resume)
		client.Is(resock.StateClosed)
		if len(s.Attempts()) != 1 {
			t.Errorf("%d dials", len(s.Attempts()))
		}
	})
}

func TestMaxSessionAge(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithMaxSessionAge(10*time.Minute),
			resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
				t.Errorf("asked about %+v, which is no failure", f)
				return resock.Decision{}
			}))
		ages := make(map[time.Duration]bool)
		for session := uint64(1); session <= 5; session++ {
			if open := rig.Next[resock.OpenEvent](client); open.Session != session || open.Attempt != 1 {
				t.Errorf("%+v", open)
			}
			event := rig.Next[resock.CloseEvent](client)
			if event.Code != 1000 || !event.Clean || event.Next != resock.StateConnecting || event.RetryIn != 0 {
				t.Errorf("%+v", event)
			}
			if event.Took < 9*time.Minute || event.Took > 10*time.Minute {
				t.Errorf("session %d lived for %v", session, event.Took)
			}
			ages[event.Took] = true
		}
		if len(ages) < 2 {
			t.Error("every session lived equally long")
		}
	})
}

// gate is a dial limiter that lets an attempt pass for every token.
type gate struct {
	tokens chan error
	asked  chan struct{}
}

func (g *gate) Wait(ctx context.Context) error {
	g.asked <- struct{}{}
	select {
	case err := <-g.tokens:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestDialLimiter(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		g := &gate{make(chan error), make(chan struct{}, 10)}
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithDialLimiter(g))
		<-g.asked
		client.Quiet(30 * time.Minute) // far longer than the dial timeout
		client.Is(resock.StateConnecting)
		if attempts := client.Stats().Attempts; attempts != 0 || len(s.Attempts()) != 0 {
			t.Errorf("%d attempts and %d dials before the limiter agreed", attempts, len(s.Attempts()))
		}
		g.tokens <- rig.ErrTest
		if fail := rig.Next[resock.FailEvent](client); fail.Phase != resock.PhaseEndpoint || !errors.Is(fail.Err, rig.ErrTest) {
			t.Errorf("%+v", fail)
		}
		<-g.asked
		g.tokens <- nil
		rig.Next[resock.OpenEvent](client)

		// A second client shares it, and is freed from it by Close and Suspend.
		other := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithDialLimiter(g))
		<-g.asked
		other.Suspend()
		if fail := rig.Next[resock.FailEvent](other); fail.Next != resock.StateSuspended {
			t.Errorf("%+v", fail)
		}
		other.Resume()
		<-g.asked
		_ = other.Close(resock.StatusNormalClosure, "")
		if fail := rig.Next[resock.FailEvent](other); fail.Next != resock.StateClosed {
			t.Errorf("%+v", fail)
		}
		<-other.Done()
		if len(s.Attempts()) != 1 {
			t.Errorf("%d dials, want 1", len(s.Attempts()))
		}
	})
}

func TestOfflineFromTheStart(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := rig.Offline()
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network))
		client.Quiet(time.Hour / 2)
		network.Set(false) // a change to no better
		client.Quiet(time.Hour / 2)
		client.Is(resock.StateOffline)
		if stats := client.Stats(); stats.Attempts != 0 || len(s.Attempts()) != 0 {
			t.Errorf("%d attempts and %d dials without a network", stats.Attempts, len(s.Attempts()))
		}
		began := time.Now()
		network.Set(true)
		if open := rig.Next[resock.OpenEvent](client); open.Attempt != 1 {
			t.Errorf("%+v", open)
		}
		rig.Within(t, began, 0, 500*time.Millisecond)
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Returned()
		if begun, stopped := network.Subscriptions(); begun != 1 || stopped != 1 {
			t.Errorf("%d subscriptions, %d of them ended", begun, stopped)
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
			t.Errorf("%+v", fail)
		}
		network.Set(false)
		client.Is(resock.StateOffline)
		client.Quiet(10 * time.Second)
		began := time.Now()
		network.Set(true)
		client.Is(resock.StateWaiting)
		// Offline was no attempt, and what the server asked for still holds.
		if fail := rig.Next[resock.FailEvent](client); fail.Attempt != 2 {
			t.Errorf("attempt %d, want 2", fail.Attempt)
		}
		rig.Within(t, began, 49*time.Second, 51*time.Second)

		s.Script(resocktest.StallDial()) // and lost during an attempt
		s.Restart()
		began = time.Now()
		client.Quiet(time.Minute + time.Second)
		client.Is(resock.StateConnecting)
		network.Set(false)
		if fail := rig.Next[resock.FailEvent](client); fail.Next != resock.StateOffline || fail.RetryIn != 0 {
			t.Errorf("%+v", fail)
		}
		rig.Within(t, began, time.Minute, 71*time.Second)
	})
}

// TestNetworkLostWhileOpen: the probe finds the dead connection, and the client
// waits for the network.
func TestNetworkLostWhileOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Minute, 5*time.Second))
		rig.Next[resock.OpenEvent](client)
		client.Quiet(time.Minute - time.Second)
		s.Accept().StopReading()
		began := time.Now()
		network.Set(false)
		fail := rig.Next[resock.FailEvent](client)
		if fail.Phase != resock.PhaseHeartbeat || !errors.Is(fail.Err, resock.ErrHeartbeat) || fail.Next != resock.StateOffline || fail.RetryIn != 0 {
			t.Errorf("%+v", fail)
		}
		rig.Within(t, began, 5*time.Second, 5*time.Second)
		client.Quiet(time.Minute)
		began = time.Now()
		network.Set(true)
		if open := rig.Next[resock.OpenEvent](client); open.Session != 2 || open.Attempt != 1 {
			t.Errorf("%+v", open)
		}
		rig.Within(t, began, 0, 500*time.Millisecond)
	})
}

// TestProbe: a change of the network finds a dead connection within the heartbeat
// timeout, whenever the next beat is due.
func TestProbe(t *testing.T) {
	text := func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }
	heartbeats := map[string][]resock.Option{
		"15 s":                  {resock.WithHeartbeat(15*time.Second, 10*time.Second)},
		"1 h":                   {resock.WithHeartbeat(time.Hour, 10*time.Second)},
		"none":                  {resock.WithHeartbeat(0, 0)}, // a probe has a timeout of its own: 10 s
		"beats without answers": {resock.WithHeartbeat(15*time.Second, 0), resock.WithHeartbeatMessage(text)},
	}
	for name, heartbeat := range heartbeats {
		t.Run(name, func(t *testing.T) {
			for after := time.Duration(0); after < 40*time.Second; after += 1300 * time.Millisecond {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					network := new(rig.Network)
					client := rig.Start(t, "ws://a/", append(heartbeat, rig.Reach(s), resock.WithNetwork(network))...)
					rig.Next[resock.OpenEvent](client)
					client.Quiet(after)
					s.Accept().StopReading()
					began := time.Now()
					network.Set(true)
					if fail := rig.Next[resock.FailEvent](client); !errors.Is(fail.Err, resock.ErrHeartbeat) {
						t.Errorf("%+v", fail)
					}
					if took := time.Since(began); took > 10*time.Second+2*time.Millisecond { // looks are at least 1 ms apart
						t.Errorf("change after %v: dead connection found after %v, want 10 s", after, took)
					}
				})
			}
		})
	}
}

// TestProbeFlapping: changes that never end do not put off the verdict.
func TestProbeFlapping(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(time.Hour, 10*time.Second))
		rig.Next[resock.OpenEvent](client)
		s.Accept().StopReading()
		began := time.Now()
		for range 10 {
			network.Set(true)
			select {
			case <-client.Events:
				rig.Within(t, began, 10*time.Second, 10*time.Second)
				return
			case <-time.After(3 * time.Second):
			}
		}
		t.Error("a dead connection lives on")
	})
}

// TestProbeBesideBeats: the server gets the messages that it asked for at their
// time, however often the network changes.
func TestProbeBesideBeats(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Second, 5*time.Second),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }))
		rig.Next[resock.OpenEvent](client)
		for range 100 {
			network.Set(true)
			client.Quiet(time.Second)
		}
		if beats := len(s.Accept().Received().Messages); beats < 9 || beats > 11 {
			t.Errorf("%d beats in 100 s, want one per 10 s", beats)
		}
	})
}

// TestProbeHealthy: changes do no harm to a connection that is well.
func TestProbeHealthy(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(0, 0))
		rig.Next[resock.OpenEvent](client)
		for range 20 {
			out := client.Stats().BytesOut
			network.Set(true)
			client.Quiet(7 * time.Second)
			if sent := client.Stats().BytesOut - out; sent != 10 {
				t.Errorf("%d bytes sent, want those of one ping", sent)
			}
		}
		client.Quiet(time.Hour / 2)
		client.Is(resock.StateOpen)
	})
}

// TestLoopbackNeedsNoNetwork: a target on this machine is never held back.
func TestLoopbackNeedsNoNetwork(t *testing.T) {
	for _, host := range []string{"127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "localhost"} {
		t.Run(host, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				network := rig.Offline()
				client := rig.Start(t, "ws://"+host+":8080/", rig.Reach(s), resock.WithNetwork(network))
				began := time.Now()
				rig.Next[resock.OpenEvent](client)
				network.Set(false)
				client.Quiet(time.Minute)
				client.Reconnect()
				rig.Next[resock.CloseEvent](client)
				rig.Next[resock.OpenEvent](client)
				rig.Within(t, began, time.Minute, time.Minute)
			})
		})
	}
}
