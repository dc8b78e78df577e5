package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// answers is the step of a server that answers the upgrade request with text.
func answers(text string) resocktest.Step {
	return resocktest.Answer(func(conn net.Conn, _ *http.Request) { _, _ = io.WriteString(conn, text) })
}

// A server, or a proxy, may say what is wrong in the text behind the status, and nowhere
// else.
func TestFault100_StatusText(t *testing.T) {
	const head = "HTTP/1.1 400 the parameter symbol is missing\r\n"
	if err := scripted(t, answers(head+"\r\n")); !strings.Contains(err.Error(), "400 the parameter symbol is missing") {
		t.Errorf("%v, want the server's text", err)
	}
	if err := scripted(t, answers("HTTP/1.1 400 no account for "+rig.Secret+"\r\n\r\n")); !strings.Contains(err.Error(), "400 Bad Request") {
		t.Errorf("%v, want the standard text in place of one that repeats what was sent", err)
	}
	for _, target := range []string{"ws://server.test/", "wss://server.test/"} {
		err := proxied(t, target, func(conn net.Conn) {
			_, _ = io.WriteString(conn, "HTTP/1.1 502 Proxy Error ( The host was not found. )\r\n\r\n")
		})
		if !strings.Contains(err.Error(), "502 Proxy Error ( The host was not found. )") {
			t.Errorf("%s: %v, want the proxy's text", target, err)
		}
	}
}

// Who answers in another protocol is named, since the URL has to change.
func TestFault101_AnotherProtocol(t *testing.T) {
	for name, tt := range map[string]struct{ answer, want string }{
		"TLS, as old as it gets":  {"\x15\x03\x01\x00\x02\x02\x0a", "is TLS, not HTTP: use wss"},
		"TLS 1.2, a long alert":   {"\x15\x03\x03\x00\x1a\x02\x46" + strings.Repeat("\x00", 24), "is TLS, not HTTP: use wss"},
		"HTTP/2":                  {"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff", "is HTTP/2"},
		"HTTP/2 without settings": {"\x00\x00\x00\x04\x00\x00\x00\x00\x00", "is HTTP/2"},
	} {
		t.Run(name, func(t *testing.T) {
			for where, err := range map[string]error{
				"server": scripted(t, answers(tt.answer)),
				"proxy":  proxied(t, "ws://server.test/", func(conn net.Conn) { _, _ = io.WriteString(conn, tt.answer) }),
			} {
				if !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: %v, want %q", where, err, tt.want)
				}
			}
		})
	}
}

// Whatever took too long, the error says so in the way of package net.
func TestFault102_TimeoutsAreTimeouts(t *testing.T) {
	silent := resocktest.Serve(func(c *resocktest.Conn) { c.IgnorePings(); <-c.Done() })
	for name, err := range map[string]error{
		"dialing":       scripted(t, resocktest.StallDial()),
		"the upgrade":   scripted(t, resocktest.StallUpgrade()),
		"the heartbeat": scripted(t, silent),
		"no messages":   scripted(t, resocktest.Hold(), resock.WithHeartbeat(0, 0), resock.WithIdleTimeout(time.Minute)),
		"a write":       stalledWrite(t),
	} {
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Errorf("%s: %v is no net.Error that is a timeout", name, err)
		}
	}
	var timeout net.Error
	if err := scripted(t, resocktest.Serve((*resocktest.Conn).Reset)); errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("%v is a timeout", err)
	}
}

// While the server is away, the log tells each error once, and which attempt it was.
func TestFault103_LogTellsEachErrorOnce(t *testing.T) {
	const attempts = 20
	var log rig.Log
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(503, nil, "closed for lunch"))
		r := rig.Reaching(t, s, resock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))), resock.WithMaxAttempts(attempts))
		for range attempts {
			r.Fail(resock.PhaseUpgrade)
		}
	})
	for n := 1; n < attempts; n++ {
		told := 0
		for line := range strings.Lines(log.String()) {
			if strings.Contains(line, "closed for lunch") && strings.Contains(line, fmt.Sprintf(" attempt=%d ", n)) {
				told++
			}
		}
		if told != 1 {
			t.Errorf("the log tells the error of attempt %d %d times, want once", n, told)
		}
	}
	// The last one is told twice: it is why the client gave up, too.
	if n := strings.Count(log.String(), "closed for lunch"); n != attempts+1 {
		t.Errorf("the log tells the error %d times, want %d", n, attempts+1)
	}
}

// Where no header can be set, a token is sent as a subprotocol. No error tells it.
func TestFault104_TokenAsSubprotocol(t *testing.T) {
	const token = "base64url.bearer.authorization.k8s.io." + rig.Secret
	const encoded = "base64url.bearer.authorization.k8s.io.bXl0b2tlbg"
	offered := resock.WithSubprotocols("base64.binary.k8s.io", token, encoded)
	leaks := func(err error) bool {
		text := err.Error()
		return strings.Contains(text, rig.Secret) || strings.Contains(text, "bXl0b2tlbg") || strings.Contains(text, "mytoken")
	}
	chosen := func(names ...string) resocktest.Step {
		return resocktest.Upgrade(http.Header{"Sec-Websocket-Protocol": names}, nil)
	}
	for name, tt := range map[string]struct {
		step resocktest.Step
		tell string
	}{
		"none is chosen":            {resocktest.Hold(), "base64.binary.k8s.io"},
		"another one is chosen":     {chosen("chat"), "base64.binary.k8s.io"},
		"both are chosen":           {chosen(token + ", base64.binary.k8s.io"), "Sec-WebSocket-Protocol"},
		"the name is repeated":      {resocktest.Status(401, nil, "unknown: "+encoded), "401"},
		"a token is repeated":       {resocktest.Status(401, nil, "unknown token bXl0b2tlbg"), "401"},
		"a token is decoded":        {resocktest.Status(401, nil, "unknown token mytoken"), "401"},
		"the status text tells it":  {answers("HTTP/1.1 401 no " + encoded + "\r\n\r\n"), "401"},
		"a short name is no secret": {resocktest.Status(400, nil, "no base64.binary.k8s.io here"), "no base64.binary.k8s.io here"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := scripted(t, tt.step, offered); !strings.Contains(err.Error(), tt.tell) || leaks(err) {
				t.Errorf("%v, want %q and no secret", err, tt.tell)
			}
		})
	}
	const padded = token + "==" // no token of HTTP
	_, err := resock.New("ws://server.test", resock.WithSubprotocols(padded))
	if err == nil || leaks(err) {
		t.Errorf("New: %v, want an error without a secret", err)
	}
	err = scripted(t, resocktest.Hold(), resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
		return resock.Endpoint{Subprotocols: []string{padded}}, nil
	}))
	if leaks(err) {
		t.Errorf("WithEndpoint: %v", err)
	}
}

// Whoever waits in vain is told why there is no session, and which limit ended the wait:
// the attempts may have failed by a limit of their own.
func TestFault105_WaitInVain(t *testing.T) {
	text := []byte("text")
	for call, wait := range map[string]func(*rig.Client, context.Context) error{
		"Send": func(r *rig.Client, ctx context.Context) error { return r.Send(ctx, resock.MessageText, text) },
		"Flush": func(r *rig.Client, ctx context.Context) error {
			_ = r.Enqueue(resock.MessageText, text)
			return r.Flush(ctx)
		},
		"WaitOpen": func(r *rig.Client, ctx context.Context) error { return r.WaitOpen(ctx) },
	} {
		for _, canceled := range []bool{false, true} {
			t.Run(fmt.Sprint(call, ", canceled ", canceled), func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					s.Script(resocktest.StallUpgrade())
					r := rig.Reaching(t, s, resock.WithDialTimeout(time.Second))
					r.Fail(resock.PhaseUpgrade)
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					want, other := context.DeadlineExceeded, context.Canceled
					if canceled {
						want, other = other, want
						time.AfterFunc(30*time.Second, cancel)
					}
					err := wait(r, ctx)
					var dial *resock.DialError
					if !errors.As(err, &dial) || !strings.Contains(err.Error(), "WithDialTimeout(1s)") {
						t.Errorf("%v, want the last failure in it", err)
					}
					if !errors.Is(err, want) || errors.Is(err, other) {
						t.Errorf("%v, want %v and not %v", err, want, other)
					}
					if call == "Send" && (!errors.Is(err, resock.ErrNotSent) || errors.Is(err, resock.ErrMaybeSent)) {
						t.Errorf("%v, want an ErrNotSent", err)
					}
				})
			})
		}
	}
}

// A client that does not even try says so, in place of a failure that is long past.
func TestFault106_WaitWithoutAnAttempt(t *testing.T) {
	for want, prepare := range map[string]func(*rig.Client, *rig.Network){
		"Run has not been called": func(*rig.Client, *rig.Network) {},
		"suspended":               func(r *rig.Client, _ *rig.Network) { r.Go(); r.Fail(resock.PhaseUpgrade); r.Suspend() },
		"no network":              func(r *rig.Client, n *rig.Network) { r.Go(); r.Fail(resock.PhaseUpgrade); n.Set(false) },
	} {
		t.Run(want, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				network := new(rig.Network)
				s.Script(resocktest.Status(503, nil, "long past"))
				r := rig.Prepare(t, s.URL, rig.Reach(s), resock.WithNetwork(network))
				prepare(r, network)
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				errs := make(chan error, 2)
				go func() { errs <- r.Send(ctx, resock.MessageText, []byte("text")) }()
				go func() { errs <- r.WaitOpen(ctx) }()
				for range cap(errs) {
					if err := <-errs; !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "long past") || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("%v, want that %s", err, want)
					}
				}
			})
		})
	}
}

// An outcome of the last hook is none of a Send that waits now.
func TestThreadOutcomeOfAnotherCall(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithOnOpen(func(context.Context, *resock.Session) error {
			return fmt.Errorf("login: %w", resock.ErrMaybeSent)
		}))
		r.Fail(resock.PhaseSetup)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Send(ctx, resock.MessageText, []byte("text")); !errors.Is(err, resock.ErrNotSent) || errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("%v, want an ErrNotSent that is no ErrMaybeSent", err)
		}
	})
}

// A reset may follow the server's close frame at once, while the client is writing. The
// close frame says why, and the reset does not.
func TestThreadResetBehindTheCloseFrame(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", secure), func(t *testing.T) {
			rig.CheckLeaks(t)
			start := resocktest.NewServer
			if secure {
				start = resocktest.NewTLSServer
			}
			s := start(t)
			s.Handle(func(c *resocktest.Conn) {
				_, _ = c.Read()
				c.StopReading() // what is unread makes the reset
				_ = c.Close(1001, "stream end encountered")
				c.Reset()
			})
			r := rig.Quick(t, s.URL, resock.WithHTTPClient(s.Client()))
			r.Open()
			_ = r.Enqueue(resock.MessageText, []byte("first"))
			for range 100 {
				_ = r.Enqueue(resock.MessageBinary, make([]byte, 16<<10))
			}
			if e := rig.Next[resock.CloseEvent](r); e.Code != 1001 || e.Reason != "stream end encountered" {
				t.Errorf("closed with %d %q, want what the server sent", e.Code, e.Reason)
			}
		})
	}
}

// The end of one Send's context concerns neither the connection nor another Send.
func TestThreadContextOfAnotherCall(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		r := rig.Quick(t, s.URL, reach, resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(time.Minute))
		c := s.Accept()
		r.Open()
		line := <-lines
		line.Limit(10)
		send := func(ctx context.Context, text string) <-chan error {
			outcome := make(chan error, 1)
			go func() { outcome <- r.Send(ctx, resock.MessageText, []byte(text)) }()
			synctest.Wait()
			return outcome
		}
		written, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		queued, stop := context.WithCancel(t.Context())
		first, second, third := send(written, strings.Repeat("x", 100)), send(queued, "given up"), send(t.Context(), "kept")
		stop()
		time.Sleep(2 * time.Second)
		if err := <-second; !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a Send that was canceled: %v, want that it was not sent, and canceled", err)
		}
		line.Unlimit()
		if err := <-third; err != nil {
			t.Errorf("a Send after one whose context ended: %v", err)
		}
		if err := <-first; err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a Send whose context ended while it was written: %v, want its deadline or nothing", err)
		}
		r.Quiet(time.Second)
		if got := rig.Payloads(c); len(got) != 2 || got[1] != "kept" {
			t.Errorf("the server received %d messages, want the first and the last", len(got))
		}
	})
}

// A limit of time and a cancellation are told apart, wherever the attempt was.
func TestThreadTimeoutOrCancellation(t *testing.T) {
	waiting := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	endpoint := resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
		return resock.Endpoint{}, waiting(ctx)
	})
	onOpen := resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
		_, _, err := s.Receive(ctx)
		return err
	})
	for name, tt := range map[string]struct {
		step resocktest.Step
		opts []resock.Option
	}{
		"endpoint": {resocktest.Hold(), []resock.Option{endpoint}},
		"dial":     {resocktest.StallDial(), nil},
		"TLS":      {resocktest.StallTLS(), nil},
		"upgrade":  {resocktest.StallUpgrade(), nil},
		"setup":    {resocktest.Hold(), []resock.Option{onOpen}},
	} {
		for how, end := range map[string]func(*rig.Client){
			"timeout": func(*rig.Client) {},
			"close":   func(r *rig.Client) { _ = r.Close(resock.StatusNormalClosure, "") },
			"suspend": func(r *rig.Client) { r.Suspend() },
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					s.Script(tt.step)
					r := rig.Reaching(t, s, tt.opts...)
					synctest.Wait()
					end(r)
					err := rig.Next[resock.FailEvent](r).Err
					timeout, canceled := errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled)
					if timeout != (how == "timeout") || canceled == timeout {
						t.Errorf("%v: a timeout %v, canceled %v", err, timeout, canceled)
					}
				})
			})
		}
	}
}

// The body of a refusal may have no length and no end. The status is told all the same.
func TestThreadBodyThatDoesNotEnd(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Answer(func(conn net.Conn, _ *http.Request) {
			_, _ = io.WriteString(conn, "HTTP/1.1 401 Unauthorized\r\nConnection: keep-alive\r\n\r\nno such user")
			_, _ = io.Copy(io.Discard, conn)
		}))
		r := rig.Reaching(t, s)
		began := time.Now()
		err := r.DialError(resock.PhaseUpgrade)
		if err.Status != http.StatusUnauthorized || !strings.Contains(err.Error(), "no such user") {
			t.Errorf("%v, want the status and what came of the body", err)
		}
		rig.Within(t, began, 0, 10*time.Second)
	})
}

// The close code is found in every error that a close led to.
func TestThreadCloseCodeThroughWrapping(t *testing.T) {
	const code, reason = 4401, "token expired"
	is := func(t *testing.T, where string, err error) {
		t.Helper()
		var closed websocket.CloseError
		if websocket.CloseStatus(err) != code || !errors.As(err, &closed) || closed.Reason != reason {
			t.Errorf("%s: no code %d and reason %q in %v", where, code, reason, err)
		}
	}
	stop := resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
		is(t, "Failure", f.Err)
		return resock.Decision{Action: resock.ActionStop}
	})
	login := resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
		_, _, err := s.Receive(ctx)
		is(t, "Receive", err)
		return fmt.Errorf("login: %w", err)
	})
	for name, opts := range map[string][]resock.Option{"open": {stop}, "setup": {stop, login}} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) { _ = c.Close(code, reason) })
				r := rig.Reaching(t, s, opts...)
				sent := r.Send(t.Context(), resock.MessageText, []byte("late"))
				<-r.Done()
				if sent != nil && !errors.Is(sent, resock.ErrNotSent) && !errors.Is(sent, resock.ErrMaybeSent) {
					t.Errorf("Send: %v", sent)
				}
				is(t, "Err", r.Err())
				is(t, "WaitOpen", r.WaitOpen(t.Context()))
			})
		})
	}
}

// A server that cuts its reason at 123 bytes may cut a character in two. The code, and
// what is whole of the reason, are told.
func TestThreadReasonCutWithinACharacter(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reason := (strings.Repeat("x", 122) + "é")[:123]
		s.Handle(func(c *resocktest.Conn) { _ = c.Close(1011, reason) })
		r := rig.Reaching(t, s)
		r.Open()
		var closed websocket.CloseError
		err := r.ProtocolError(1007).Err
		if !errors.As(err, &closed) || closed.Code != 1011 || !strings.HasPrefix(closed.Reason, reason[:122]) || !utf8.ValidString(closed.Reason) {
			t.Errorf("%v, want code 1011 and the reason", err)
		}
	})
}

// The application may close with the text of any error as the reason. The server gets the
// code, and as much of the text as a close frame holds.
func TestThreadReasonOfAnyText(t *testing.T) {
	for name, reason := range map[string]string{
		"too long":                  strings.Repeat("x", 500),
		"cut within a character":    strings.Repeat("x", 122) + "é and more",
		"not UTF-8":                 "open \xff\xfe: no such file",
		"too long when it is UTF-8": strings.Repeat("\xff", 123),
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s)
				c := s.Accept()
				r.Open()
				if err := r.Close(4000, reason); err != nil {
					t.Fatal(err)
				}
				e := rig.Next[resock.CloseEvent](r)
				<-c.Done()
				got := c.Received().Close
				if got == nil || got.Code != 4000 || len(got.Reason) > 123 || !utf8.ValidString(got.Reason) || got.Reason == "" {
					t.Errorf("the server received %+v", got)
				}
				if !e.Clean || e.Code != 4000 {
					t.Errorf("%+v, want a clean close", e)
				}
			})
		})
	}
}

// A name with several addresses fails for several reasons. All are found, and
// the text tells each address.
func TestThreadSeveralAddresses(t *testing.T) {
	refused := func(ip string, err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 443}, Err: err}
	}
	err := scripted(t, resocktest.Hold(), rig.Dial(func(context.Context) (net.Conn, error) {
		return nil, errors.Join(refused("2001:db8::1", syscall.ENETUNREACH), refused("192.0.2.1", syscall.ECONNREFUSED))
	}))
	for _, want := range []error{syscall.ENETUNREACH, syscall.ECONNREFUSED} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not found in %v", want, err)
		}
	}
	for _, want := range []string{"[2001:db8::1]:443", "192.0.2.1:443"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

// However a session ends, everybody who is told of it is told why: the event, the retry
// policy and the next attempt.
func TestThreadEveryEndHasAnError(t *testing.T) {
	ends := map[string]func(*resocktest.Conn){
		"close":   func(c *resocktest.Conn) { _ = c.Close(1000, "") },
		"no code": func(c *resocktest.Conn) { _ = c.Raw([]byte{rig.Fin | 8, 0}) },
		"drop":    (*resocktest.Conn).Drop,
		"reset":   (*resocktest.Conn).Reset,
		"silence": func(c *resocktest.Conn) { c.IgnorePings() },
		"garbage": func(c *resocktest.Conn) { _ = c.Raw([]byte("\xff\xff")) },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			var asked, policy atomic.Pointer[error]
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s,
					resock.WithHeartbeat(time.Second, time.Second),
					resock.WithRetryPolicy(func(f resock.Failure) resock.Decision { policy.Store(&f.Err); return resock.DefaultRetryPolicy(f) }),
					resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
						asked.Store(&a.Err)
						return resock.Endpoint{}, nil
					}))
				r.Open()
				end(s.Accept())
				if e, failed := r.Next().(resock.FailEvent); failed && e.Err == nil {
					t.Error("the FailEvent has no error")
				}
				r.Open()
				told, judged := *asked.Load(), *policy.Load()
				if told == nil || judged == nil || told.Error() != judged.Error() {
					t.Errorf("the attempt was told %v, the policy %v", told, judged)
				}
			})
		})
	}
}

// A SOCKS proxy has words of its own. The error names it, and says what it answered, so
// that it is plain who refused.
func TestThreadSOCKSProxyRefuses(t *testing.T) {
	for want, answers := range map[string][]string{
		"connection refused": {"\x05\x00", "\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"},
		"not allowed":        {"\x05\x00", "\x05\x02\x00\x01\x00\x00\x00\x00\x00\x00"},
		"authentication":     {"\x05\xff"},
		"password":           {"\x05\x02", "\x01\x01"},
		"EOF":                {},
	} {
		t.Run(want, func(t *testing.T) {
			rig.CheckLeaks(t)
			address := rig.Listen(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 4096)) // what is unread would make the end a reset
				for _, answer := range answers {
					_, _ = io.WriteString(conn, answer)
					_, _ = conn.Read(make([]byte, 4096))
				}
			})
			proxy := &url.URL{Scheme: "socks5", User: url.UserPassword("user", rig.Secret), Host: address}
			r := rig.Quick(t, "ws://server.test", resock.WithHTTPClient(&http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}}))
			err := r.DialError(resock.PhaseTCP)
			if text := err.Error(); !strings.Contains(text, want) || !strings.Contains(text, "proxy socks5://redacted@"+address) {
				t.Errorf("%v, want the proxy and %q", err, want)
			}
		})
	}
}

// A close code that may not be sent is refused aloud, and changes nothing.
func TestThreadCloseCodeThatMayNotBeSent(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		c := s.Accept()
		r.Open()
		for _, code := range []resock.StatusCode{-1, 0, 999, 1004, 1005, 1006, 1015, 5000, 65536 + 1000} {
			var refused *resock.OptionError
			if err := r.Close(code, "gone"); !errors.As(err, &refused) {
				t.Errorf("Close(%d): %v, want an OptionError", code, err)
			}
		}
		if err := r.Send(t.Context(), resock.MessageText, []byte("still here")); err != nil {
			t.Error(err)
		}
		if got := rig.Payloads(c); len(got) != 1 {
			t.Errorf("the server received %q, want one message", got)
		}
		_ = r.Close(4000, "gone")
		r.Closed(4000, "gone", true)
	})
}

// What the old connection still does after a Reconnect concerns nobody: no event, no
// failure, and the new session stays.
func TestThreadErrorOfTheOldConnection(t *testing.T) {
	for name, late := range map[string]func(*resocktest.Conn){
		"data after the close": func(c *resocktest.Conn) { _ = c.Push("late") },
		"garbage":              func(c *resocktest.Conn) { _ = c.Raw([]byte("\xff\xff")) },
		"a close":              func(c *resocktest.Conn) { _ = c.Close(4401, "token expired") },
		"a reset":              (*resocktest.Conn).Reset,
		"nothing":              func(*resocktest.Conn) {},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				r := rig.Reaching(t, s)
				before := s.Accept()
				r.Open()
				before.IgnoreClose()
				r.Reconnect()
				r.Closed(resock.StatusNormalClosure, "", false)
				c := s.Accept()
				if e := r.Open(); e.Session != 2 {
					t.Fatalf("session %d is open, want 2", e.Session)
				}
				late(before)
				r.Quiet(time.Minute)
				if err := r.Send(t.Context(), resock.MessageText, []byte("still here")); err != nil {
					t.Error(err)
				}
				if got := rig.Payloads(c); len(got) != 1 {
					t.Errorf("the new connection received %q, want one message", got)
				}
				if stats := r.Stats(); stats.Fails != 0 || stats.LastErr != nil || stats.Session != 2 {
					t.Errorf("%d failures, %v, session %d, want none in session 2", stats.Fails, stats.LastErr, stats.Session)
				}
			})
		})
	}
}
