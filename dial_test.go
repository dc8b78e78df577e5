package resock_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A server that sends our request back as its response must not get our secrets into
// an error.
func TestEchoedRequestIsRedacted(t *testing.T) {
	for _, prefix := range []string{"", "HTTP/1.1 200 OK\r\n"} {
		client := rig.Quick(t, rig.WithSecrets("ws://"+rig.Listen(t, func(conn net.Conn) {
			io.WriteString(conn, prefix)
			io.Copy(conn, conn)
		})), resock.WithMaxAttempts(1),
			resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: rig.SecretHeader()}))
		if fail := client.Fail(resock.PhaseUpgrade); strings.Contains(fail.Err.Error(), rig.Secret) {
			t.Errorf("%q: got %v, want no secret in it", prefix, fail.Err)
		}
	}
}

// The error about a URL that cannot be dialed does not contain its secrets.
func TestBadURLIsRedacted(t *testing.T) {
	for _, bad := range []string{
		"ws://user:" + rig.Secret + "?x@host/push",
		"ws://user:" + rig.Secret + "#x@host/push",
		"ws://host:port?x=@" + rig.Secret,
		"user:" + rig.Secret + "@host/push",
		"https://user:" + rig.Secret + "@host/push?token=" + rig.Secret,
		"ws://host/\x7f?token=" + rig.Secret,
	} {
		if _, err := resock.New(bad); err == nil || strings.Contains(err.Error(), rig.Secret) {
			t.Errorf("New(%q): got %v, want an error without a secret", bad, err)
		}
	}
}

// The endpoint hook is called for every attempt, so a fresh token cures a 401.
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
			t.Errorf("got %#v in phase %v, want a DialError with status 401 and the body stale", fail.Err, fail.Phase)
		}
		if fail.Next != resock.StateWaiting || strings.Contains(fmt.Sprintf("%v %+v", fail.Err, fail), "sEcReT") {
			t.Errorf("got %+v, want a retry, and no secret in it", fail)
		}
		if open := client.Open(); open.Session != 1 || open.Attempt != 2 {
			t.Errorf("got %+v, want session 1, attempt 2", open)
		}
		if len(attempts) != 2 || attempts[0].Err != nil || attempts[0].N != 1 || attempts[1].N != 2 {
			t.Errorf("the hook was called for %+v, want attempts 1 and 2, the first without an error", attempts)
		}
		for i, want := range []string{"Bearer sEcReT", "Bearer fresh"} {
			if got := s.Attempts()[i].Request.Header.Get("Authorization"); got != want {
				t.Errorf("attempt %d came with %q, want %q", i+1, got, want)
			}
		}
	})
}

// failover returns an endpoint hook that moves on to the next host after a failed
// attempt.
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
			if open := client.Open(); open.URL != "ws://"+host+"/" {
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
				t.Errorf("got %+v, want a DialError in phase endpoint and a retry", fail)
			}
			if is := errors.Is(fail.Err, rig.ErrTest); is != (i == 0) {
				t.Errorf("endpoint %d: got %v, want ErrTest of the first one only", i, fail.Err)
			}
			if strings.Contains(fail.Err.Error(), "sEcReT") {
				t.Errorf("got %v, want no secret in it", fail.Err)
			}
		}
		if open := client.Open(); open.Attempt != 4 {
			t.Errorf("got %+v, want attempt 4", open)
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
				t.Errorf("got %+v, want the dial timeout after 3s in phase endpoint", fail)
			}
		})
	})
	t.Run("and then tells its own error", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
				<-ctx.Done()
				return resock.Endpoint{}, rig.ErrTest
			}))
			if fail := client.Fail(resock.PhaseEndpoint); !errors.Is(fail.Err, context.DeadlineExceeded) || !errors.Is(fail.Err, rig.ErrTest) {
				t.Errorf("%v, want the dial timeout and the hook's error", fail.Err)
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
				t.Errorf("got %+v, want a FailEvent in phase endpoint, and then closed", fail)
			}
			<-client.Done()
			rig.Within(t, began, 0, 0)
			if err := client.Err(); err != nil {
				t.Error(err)
			}
		})
	})
}

// The headers of one endpoint, credentials among them, never reach another one.
func TestHeadersStayWithTheirEndpoint(t *testing.T) {
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
				t.Errorf("%s: the request has %v, want its own headers or the common ones", step.endpoint.URL, header)
			}
			if strings.Contains(fmt.Sprint(fail), "pass") {
				t.Errorf("got %v, want no password in it", fail)
			}
			if n := len(step.endpoint.Header); step.secret == "" && n != 0 {
				t.Errorf("the header of the application is %v, want it unchanged", step.endpoint.Header)
			}
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		for _, attempt := range s.Attempts() {
			if request := attempt.Request; request.Host == "elsewhere" {
				t.Errorf("the client followed a redirect, with the header %v", request.Header)
			}
		}
	})
}

// gate is a dial limiter that lets one attempt pass per token.
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
			t.Errorf("%d attempts and %d dials before the limiter let one pass, want none", attempts, len(s.Attempts()))
		}
		g.tokens <- rig.ErrTest
		if fail := rig.Next[resock.FailEvent](client); fail.Phase != resock.PhaseEndpoint || !errors.Is(fail.Err, rig.ErrTest) {
			t.Errorf("got %+v, want the error of the limiter in phase endpoint", fail)
		}
		<-g.asked
		g.tokens <- nil
		client.Open()

		// A second client shares the limiter. Suspend and Close end its wait.
		other := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithDialLimiter(g))
		<-g.asked
		other.Suspend()
		if fail := rig.Next[resock.FailEvent](other); fail.Next != resock.StateSuspended {
			t.Errorf("got %+v, want suspended next", fail)
		}
		other.Resume()
		<-g.asked
		_ = other.Close(resock.StatusNormalClosure, "")
		if fail := rig.Next[resock.FailEvent](other); fail.Next != resock.StateClosed {
			t.Errorf("got %+v, want closed next", fail)
		}
		<-other.Done()
		if len(s.Attempts()) != 1 {
			t.Errorf("%d dials, want 1", len(s.Attempts()))
		}
	})
}

// Messages of all sizes survive the way to a server of coder/websocket and back, for
// each pair of compression modes.
func TestCompressionWithCoder(t *testing.T) {
	modes := []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover}
	for _, ours := range modes {
		for _, theirs := range modes {
			t.Run(fmt.Sprint(ours, " and ", theirs), func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: theirs, CompressionThreshold: 1})
					if err != nil {
						return
					}
					defer conn.CloseNow()
					conn.SetReadLimit(-1)
					for err == nil {
						var typ websocket.MessageType
						var data []byte
						if typ, data, err = conn.Read(r.Context()); err == nil {
							err = conn.Write(r.Context(), typ, data)
						}
					}
				}))
				defer server.Close()
				client := rig.Start(t, webSocketURL(server), resock.WithCompression(ours))
				client.Open()
				random := rand.New(rand.NewPCG(1, 2))
				for _, size := range []int{0, 1, 100, 511, 512, 513, 5000, 32768, 40_000, 70_000, 500_000} {
					text := strings.Repeat("word ", size/5+1)[:size]
					noise := make([]byte, size)
					for i := range noise {
						noise[i] = byte(random.Uint32())
					}
					for typ, data := range map[resock.MessageType][]byte{resock.MessageText: []byte(text), resock.MessageBinary: noise} {
						if err := client.Send(t.Context(), typ, data); err != nil {
							t.Fatal(err)
						}
						if m := rig.Next[resock.MessageEvent](client); m.Type != typ || !slices.Equal(m.Data, data) {
							t.Errorf("a message of %d bytes came back with %d bytes and type %v", size, len(m.Data), m.Type)
						}
					}
				}
			})
		}
	}
}

// The client offers only the extension parameters that it supports, and checks the
// answer by RFC 7692, section 7.1. The application sees the answer as the server sent it.
func TestNegotiation(t *testing.T) {
	for _, tt := range []struct {
		mode   websocket.CompressionMode
		answer []string
		good   bool
	}{
		{websocket.CompressionContextTakeover, nil, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate"}, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; client_max_window_bits=10; server_max_window_bits=9"}, true},
		{websocket.CompressionNoContextTakeover, []string{"permessage-deflate; server_no_context_takeover"}, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; server_max_window_bits=99"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; client_max_window_bits"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate", "permessage-deflate"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-bzip2"}, false},
		{websocket.CompressionDisabled, []string{"permessage-deflate"}, false},
		{websocket.CompressionDisabled, nil, true},
	} {
		t.Run(fmt.Sprint(tt.mode, " ", tt.answer), func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				header := http.Header{}
				if tt.answer != nil {
					header["Sec-Websocket-Extensions"] = tt.answer
				}
				s.Script(resocktest.Upgrade(header, nil))
				var seen []string
				r := rig.Reaching(t, s, resock.WithCompression(tt.mode), resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
					seen = s.Header()["Sec-Websocket-Extensions"]
					return nil
				}))
				if tt.good {
					r.Open()
					if !slices.Equal(seen, tt.answer) {
						t.Errorf("the application sees the extensions %q, want %q", seen, tt.answer)
					}
				} else if e := r.DialError(resock.PhaseProtocol); e.Status != http.StatusSwitchingProtocols || !strings.Contains(e.Error(), "Sec-WebSocket-Extensions") {
					t.Errorf("got %v, want a DialError for Sec-WebSocket-Extensions", e)
				}
				offer := s.Attempts()[0].Request.Header.Get("Sec-WebSocket-Extensions")
				for parameter, want := range map[string]bool{
					"permessage-deflate":         tt.mode != websocket.CompressionDisabled,
					"client_no_context_takeover": tt.mode != websocket.CompressionDisabled,
					"client_max_window_bits":     tt.mode != websocket.CompressionDisabled,
					"server_no_context_takeover": tt.mode == websocket.CompressionNoContextTakeover,
				} {
					if got := strings.Contains(offer, parameter); got != want {
						t.Errorf("%s is in the offer %q: %t, want %t", parameter, offer, got, want)
					}
				}
			})
		})
	}
}

// A single option such as WithHeader overrides WithDialOptions, whatever their order,
// and keeps no reference to what the caller may change later.
func TestDialingOptions(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Upgrade(http.Header{"Sec-Websocket-Protocol": {"one"}}, nil))
		header, names := http.Header{"X-Which": {"ours"}}, []string{"one", "two"}
		r := rig.Quick(t, s.URL,
			resock.WithHeader(header), resock.WithSubprotocols(names...),
			resock.WithHTTPClient(s.Client()), resock.WithCompression(websocket.CompressionDisabled),
			resock.WithDialOptions(&websocket.DialOptions{
				HTTPHeader:      http.Header{"X-Which": {"theirs"}, "X-Other": {"theirs"}},
				Subprotocols:    []string{"three"},
				HTTPClient:      &http.Client{Transport: http.NewFileTransport(http.Dir("."))},
				CompressionMode: websocket.CompressionContextTakeover,
			}))
		header["X-Which"][0], names[0] = "changed", "changed"
		r.Open()
		got := s.Attempts()[0].Request.Header
		if got.Get("X-Which") != "ours" || got.Get("X-Other") != "" || got.Get("Sec-WebSocket-Protocol") != "one,two" || got.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("the request has %v, want what the single options say", got)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Upgrade(http.Header{"Sec-Websocket-Protocol": {"one"}}, nil))
		options := websocket.DialOptions{HTTPClient: s.Client(), HTTPHeader: http.Header{"X-Which": {"ours"}}, Subprotocols: []string{"one", "two"}}
		r := rig.Quick(t, s.URL, resock.WithDialOptions(&options))
		options.HTTPHeader["X-Which"][0], options.Subprotocols[0], options.HTTPClient = "changed", "changed", nil
		r.Open()
		if got := s.Attempts()[0].Request.Header; got.Get("X-Which") != "ours" || got.Get("Sec-WebSocket-Protocol") != "one,two" {
			t.Errorf("the request has %v, want what WithDialOptions was given", got)
		}
	})
}

func TestSubprotocolsAreChecked(t *testing.T) {
	for _, names := range [][]string{{""}, {"a", "a"}, {"a,b"}, {"a b"}, {"é"}, {"a\r\nX-Evil: 1"}, {"a/b"}} {
		var bad *resock.OptionError
		if _, err := resock.New("ws://server.test", resock.WithSubprotocols(names...)); !errors.As(err, &bad) || bad.Option != "WithSubprotocols" {
			t.Errorf("WithSubprotocols(%q): got %v, want an OptionError", names, err)
		}
	}
	if _, err := resock.New("ws://server.test", resock.WithSubprotocols("v1.example.com", "mqtt", "a!#$%&'*+-.^_`|~9")); err != nil {
		t.Error(err)
	}
}

// An endpoint may choose subprotocols and the Host too; what it leaves out is as in the
// options.
func TestEndpointSays(t *testing.T) {
	chosen := func(name string) resocktest.Step {
		return resocktest.Upgrade(http.Header{"Sec-Websocket-Protocol": {name}}, (*resocktest.Conn).Drop)
	}
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		steps := []struct {
			endpoint    resock.Endpoint
			subprotocol string
			host        string
		}{
			{resock.Endpoint{}, "option", "option.example"},
			{resock.Endpoint{Subprotocols: []string{"v2", "v1"}}, "v2", "option.example"},
			{resock.Endpoint{Host: "host.example:81"}, "option", "host.example:81"},
			{resock.Endpoint{Header: http.Header{"host": {"header.example"}}}, "option", "header.example"},
			{resock.Endpoint{Header: http.Header{"Host": {"header.example"}}, Host: "host.example"}, "option", "host.example"},
			{resock.Endpoint{Header: http.Header{}}, "option", "server.test"},
			{resock.Endpoint{Subprotocols: []string{}}, "option", "option.example"},
			{resock.Endpoint{URL: "ws://endpoint.test/", Header: http.Header{}}, "option", "endpoint.test"},
		}
		var script []resocktest.Step
		for _, step := range steps {
			script = append(script, chosen(step.subprotocol))
		}
		s.Script(script...)
		client := rig.Start(t, "ws://server.test/", resock.WithHTTPClient(s.Client()),
			resock.WithSubprotocols("option"), resock.WithHeader(http.Header{"Host": {"option.example"}}),
			resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				if int(a.Session) < len(steps) {
					return steps[a.Session].endpoint, nil
				}
				return resock.Endpoint{}, nil
			}))
		for i, step := range steps {
			if open := client.Open(); open.Subprotocol != step.subprotocol {
				t.Errorf("%+v: chose %q", step.endpoint, open.Subprotocol)
			}
			rig.Next[resock.FailEvent](client)
			if got := s.Attempts()[i].Request.Host; got != step.host {
				t.Errorf("%+v: Host is %q, want %q", step.endpoint, got, step.host)
			}
		}
	})
}

// The Host of WithDialOptions counts before one in the header beside it, and WithHeader's
// before both.
func TestHost(t *testing.T) {
	for want, opts := range map[string][]resock.Option{
		"server.test": nil,
		"field":       {resock.WithDialOptions(&websocket.DialOptions{Host: "field", HTTPHeader: http.Header{"Host": {"header"}}})},
		"header":      {resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: http.Header{"Host": {"header"}}})},
		"separate":    {resock.WithHeader(http.Header{"Host": {"separate"}}), resock.WithDialOptions(&websocket.DialOptions{Host: "field"})},
	} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			client := rig.Start(t, "ws://server.test/", append(opts, resock.WithHTTPClient(s.Client()))...)
			client.Open()
			request := s.Attempts()[0].Request
			if request.Host != want || request.Header.Get("Host") != "" {
				t.Errorf("Host is %q, want %q; header %v", request.Host, want, request.Header)
			}
		})
	}
}

// Headers that belong to the handshake, or that no request can have, are refused by New
// or fail the attempt, and the error tells no value.
func TestHeadersAreChecked(t *testing.T) {
	bad := map[string]http.Header{
		"Connection":          {"Connection": {"keep-alive"}},
		"connection":          {"connection": {"keep-alive"}},
		"Upgrade":             {"Upgrade": {"h2c"}},
		"Sec-WebSocket-Key":   {"Sec-WebSocket-Key": {rig.Secret}},
		"WithSubprotocols":    {"Sec-Websocket-Protocol": {"chat"}},
		"WithCompression":     {"Sec-Websocket-Extensions": {"permessage-deflate"}},
		"Sec-WebSocket-Token": {"Sec-WebSocket-Token": {rig.Secret}},
		"Content-Length":      {"Content-Length": {"1"}},
		"X-Token":             {"X-Token": {"a", rig.Secret + "\r\nX-Evil: 1"}},
		"X-Null":              {"X-Null": {rig.Secret + "\x00"}},
		`"Authorization"`:     {"Authorization: " + rig.Secret: {""}},
		`""`:                  {"": {""}},
		"Host":                {"Host": {"a b"}},
		"host":                {"host": {"http://" + rig.Secret}},
	}
	for name, header := range bad {
		for option, opt := range map[string]resock.Option{
			"WithHeader":      resock.WithHeader(header),
			"WithDialOptions": resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: header}),
		} {
			var fault *resock.OptionError
			if _, err := resock.New("ws://server.test", opt); !errors.As(err, &fault) || fault.Option != option || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), rig.Secret) {
				t.Errorf("%s(%q): %v, want an OptionError that names %s", option, header, err, name)
			}
		}
	}
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var name string
		endpoints := make(chan resock.Endpoint, 1)
		client := rig.Start(t, s.URL, resock.WithHTTPClient(s.Client()), resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return <-endpoints, nil
		}))
		fails := func(endpoint resock.Endpoint) {
			t.Helper()
			endpoints <- endpoint
			if dial := client.DialError(resock.PhaseEndpoint); !strings.Contains(dial.Error(), name) {
				t.Errorf("%v, want it to name %s", dial, name)
			}
		}
		for of, header := range bad {
			name = of
			fails(resock.Endpoint{Header: header})
		}
		name = "subprotocol"
		fails(resock.Endpoint{Subprotocols: []string{"a b"}})
		name = "Host"
		fails(resock.Endpoint{Host: "a/b"})
		if n := len(s.Attempts()); n != 0 {
			t.Errorf("%d requests", n)
		}
		endpoints <- resock.Endpoint{Header: http.Header{"X-Empty": {""}, "X-Odd": {"tab\tand é"}}}
		client.Open()
	})
	if _, err := resock.New("ws://server.test", resock.WithDialOptions(&websocket.DialOptions{Host: "a b"})); err == nil {
		t.Error("a Host with a space is taken")
	}
}

// resumes counts the sessions of TLS, and those of them that were resumed.
func resumes(t *testing.T, sessions int, change func(session int, own *http.Transport)) (resumed int) {
	t.Helper()
	all := make(chan bool, 100)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		all <- r.TLS.DidResume
		conn, err := websocket.Accept(w, r, nil)
		if err == nil {
			_, _, _ = conn.Read(context.Background())
		}
	}))
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	before := http.DefaultTransport
	defer func() { http.DefaultTransport, http.DefaultClient.Transport = before, nil }()
	own := before.(*http.Transport).Clone()
	own.TLSClientConfig = &tls.Config{RootCAs: roots}
	http.DefaultTransport = own
	client := rig.Quick(t, "wss"+strings.TrimPrefix(server.URL, "https"), resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
		if change != nil {
			change(int(a.Session)+1, own)
		}
		return resock.Endpoint{}, nil
	}))
	for range sessions {
		client.Open()
		if err := client.Flush(t.Context()); err != nil { // the ticket comes before the pong
			t.Fatal(err)
		}
		if <-all {
			resumed++
		}
		client.Reconnect()
		rig.Next[resock.CloseEvent](client)
	}
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	return resumed
}

// TLS sessions are resumed if the application gave no transport, and does not itself
// decide whom it trusts or who it is.
func TestTLSIsResumed(t *testing.T) {
	if n := resumes(t, 4, nil); n != 3 {
		t.Errorf("%d of 3 reconnects resumed their TLS session", n)
	}
	for name, change := range map[string]func(session int, own *http.Transport){
		"other roots": func(_ int, own *http.Transport) { own.TLSClientConfig.RootCAs = own.TLSClientConfig.RootCAs.Clone() },
		"a verification": func(_ int, own *http.Transport) {
			own.TLSClientConfig.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return nil }
		},
		"client certificates": func(_ int, own *http.Transport) {
			own.TLSClientConfig.Certificates = []tls.Certificate{{}}
		},
		"a cache of its own": func(_ int, own *http.Transport) {
			own.TLSClientConfig.ClientSessionCache = tls.NewLRUClientSessionCache(1) // a new one for each attempt
		},
		"a client certificate": func(_ int, own *http.Transport) {
			own.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
		},
		"a transport of its own": func(_ int, own *http.Transport) {
			http.DefaultClient.Transport = own
			http.DefaultTransport = &http.Transport{}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if n := resumes(t, 3, change); n != 0 {
				t.Errorf("%d reconnects resumed their TLS session", n)
			}
		})
	}
}

// A RoundTripper may add credentials to the request, as that of oauth2 does. They are kept
// like those of the options.
func TestSecretsOfARoundTripper(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusForbidden, nil, "bad token added"))
		base := s.Client().Transport
		client := rig.Start(t, s.URL, rig.RoundTrip(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.Header.Set("Authorization", "Bearer added")
			return base.RoundTrip(r)
		}))
		if fail := client.Fail(resock.PhaseUpgrade); strings.Contains(fail.Err.Error(), "added") {
			t.Errorf("%v tells what was sent", fail.Err)
		}
		client.Close(resock.StatusNormalClosure, "")
	})
}

// A redirect may repeat what was sent in its path.
func TestSecretsInALocation(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusFound, http.Header{"Location": {"https://login.test/back-to/" + rig.Secret}}, ""))
		client := rig.Start(t, s.URL, rig.Reach(s))
		if fail := client.DialError(resock.PhaseUpgrade); strings.Contains(fail.Location, rig.Secret) {
			t.Errorf("the Location is %s", fail.Location)
		}
		client.Close(resock.StatusNormalClosure, "")
	})
}

// Dialers that ignore their context are left behind, but not more than four at once, and
// Run waits for them.
func TestDialersThatDoNotReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running atomic.Int32
		client := rig.Start(t, "ws://server.test", rig.Dial(func(context.Context) (net.Conn, error) {
			running.Add(1)
			defer running.Add(-1)
			<-release
			return nil, rig.ErrTest
		}))
		for range 10 {
			rig.Next[resock.FailEvent](client)
		}
		if n := running.Load(); n != 4 {
			t.Errorf("%d dialers run, want 4", n)
		}
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		time.Sleep(time.Minute)
		select {
		case <-client.Returned():
			t.Errorf("Run has returned, and %d dialers run", running.Load())
		default:
		}
		close(release)
		<-client.Returned()
		if n := running.Load(); n != 0 {
			t.Errorf("%d dialers run after Run", n)
		}
	})
}

// A change of the transport counts at the next attempt, for TLS with a proxy too.
func TestTransportChangesWhileTheProxyIsDialed(t *testing.T) {
	address, pool := rig.ListenTLS(t, new(tls.Config), func(conn net.Conn) {
		_, _ = io.WriteString(conn, "HTTP/1.1 407 No\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn)
	})
	transport := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "https", Host: address}),
		TLSClientConfig: &tls.Config{RootCAs: pool},
	}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		transport.TLSClientConfig = new(tls.Config)
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	client := rig.Quick(t, "ws://server.test", resock.WithHTTPClient(&http.Client{Transport: transport}), resock.WithMaxAttempts(1))
	if fail := client.DialError(resock.PhaseTCP); fail.Status != http.StatusProxyAuthRequired {
		t.Errorf("%v, want status 407", fail)
	}
}
