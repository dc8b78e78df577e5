package faults

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"

	"crypto/tls"
	"crypto/x509"

	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// untilClosed reads until the peer has closed the connection.
func untilClosed(conn net.Conn) {
	for scratch := make([]byte, 4096); ; {
		if _, err := conn.Read(scratch); err != nil {
			return
		}
	}
}

// serve starts an HTTP server and returns its ws URL.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

// dialOptions returns the option to dial by transport and to send the secret.
func dialOptions(transport *http.Transport) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{
		HTTPHeader: rig.SecretHeader(),
		HTTPClient: &http.Client{Transport: transport},
	})
}

func TestFault01_Refused(t *testing.T) {
	rig.CheckLeaks(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	r := rig.Quick(t, rig.WithSecrets("ws://"+address), dialOptions(&http.Transport{}))
	for attempt := 1; attempt <= 3; attempt++ {
		fail := r.Fail(resock.PhaseTCP)
		if !errors.Is(fail.Err, syscall.ECONNREFUSED) || fail.Attempt != attempt || fail.Next != resock.StateWaiting {
			t.Errorf("attempt %d: got %+v, want ECONNREFUSED and a retry", attempt, fail)
		}
	}
}

func TestFault02_SYNBlackHole(t *testing.T) {
	rig.CheckLeaks(t)
	hang := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done() // as when no SYN is answered
		return nil, ctx.Err()
	}
	r := rig.Quick(t, rig.WithSecrets("ws://192.0.2.1"), dialOptions(&http.Transport{DialContext: hang}), resock.WithDialTimeout(50*time.Millisecond))
	if fail := r.Fail(resock.PhaseTCP); !errors.Is(fail.Err, context.DeadlineExceeded) || fail.Took > time.Second {
		t.Errorf("got %+v, want the dial timeout", fail)
	}
}

func TestFault03_NameNotFound(t *testing.T) {
	rig.CheckLeaks(t)
	for name, cause := range map[string]*net.DNSError{
		"NXDOMAIN": {Err: "no such host", Name: "feed.example", IsNotFound: true},
		"SERVFAIL": {Err: "server misbehaving", Name: "feed.example", IsTemporary: true},
	} {
		t.Run(name, func(t *testing.T) {
			resolve := func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: cause}
			}
			r := rig.Quick(t, rig.WithSecrets("ws://feed.example"), dialOptions(&http.Transport{DialContext: resolve}))
			for range 3 {
				if fail := r.Fail(resock.PhaseDNS); fail.Next != resock.StateWaiting || fail.RetryIn > 100*time.Millisecond {
					t.Errorf("got %+v, want a retry by the ordinary backoff", fail)
				}
			}
		})
	}
}

func TestFault04_NameMoves(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	answers := []string{"127.0.0.1:1", strings.TrimPrefix(target, "ws://")}
	var lookups atomic.Int64
	dialer := func(ctx context.Context, network, _ string) (net.Conn, error) {
		answer := answers[min(int(lookups.Add(1)), len(answers))-1]
		return new(net.Dialer).DialContext(ctx, network, answer)
	}
	r := rig.Quick(t, "ws://feed.example", dialOptions(&http.Transport{DialContext: dialer}))
	r.Fail(resock.PhaseTCP)
	r.Open() // the second attempt resolved again
}

// accept upgrades the connection, which is closed when handle returns.
func accept(w http.ResponseWriter, r *http.Request, handle func(*websocket.Conn)) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	handle(conn)
}

// untilGone reads until the connection ends, and so answers pings and the close frame.
func untilGone(conn *websocket.Conn) {
	for {
		if _, _, err := conn.Read(context.Background()); err != nil {
			return
		}
	}
}

func TestFault05_NoDescriptors(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	var missing atomic.Bool
	missing.Store(true)
	dialer := func(ctx context.Context, network, address string) (net.Conn, error) {
		if missing.Load() {
			if strings.HasPrefix(address, "localhost") { // a resolver reports EMFILE like this
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "localhost", IsNotFound: true}}
			}
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: syscall.EMFILE}
		}
		return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(target, "ws://"))
	}
	for name, phase := range map[string]resock.Phase{"127.0.0.1": resock.PhaseTCP, "localhost": resock.PhaseDNS} {
		t.Run(name, func(t *testing.T) {
			missing.Store(true)
			r := rig.Quick(t, "ws://"+name+":9", dialOptions(&http.Transport{DialContext: dialer}))
			r.Fail(phase)
			r.Fail(phase)
			missing.Store(false)
			for {
				if _, ok := r.Next().(resock.OpenEvent); ok {
					return
				}
			}
		})
	}
}

// certificate returns a self-signed certificate for host, and a pool that trusts it.
func certificate(t *testing.T, host string, notAfter time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestFault06_BadCertificate(t *testing.T) {
	rig.CheckLeaks(t)
	for _, tt := range []struct {
		name, host string
		notAfter   time.Time
		trusted    bool
	}{
		{"unknown authority", "127.0.0.1", time.Now().Add(time.Hour), false},
		{"expired", "127.0.0.1", time.Now().Add(-time.Hour), true},
		{"wrong name", "other.example", time.Now().Add(time.Hour), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, pool := certificate(t, tt.host, tt.notAfter)
			if !tt.trusted {
				pool = x509.NewCertPool()
			}
			var plaintext atomic.Bool
			address := rig.Listen(t, func(conn net.Conn) {
				first := make([]byte, 1)
				if n, _ := conn.Read(first); n == 1 && first[0] != 22 { // a TLS handshake record
					plaintext.Store(true)
				}
				server := tls.Server(&replay{conn, first}, &tls.Config{Certificates: []tls.Certificate{cert}})
				_ = server.Handshake()
				untilClosed(server)
			})
			r := rig.Quick(t, rig.WithSecrets("wss://"+address), dialOptions(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}))
			dial := r.DialError(resock.PhaseTLS)
			if d := resock.DefaultRetryPolicy(resock.Failure{Phase: dial.Phase, Err: dial, Code: -1}); d.Action != resock.ActionRetrySlow {
				t.Errorf("%v: got %+v, want a slow retry", dial, d)
			}
			if plaintext.Load() {
				t.Error("the client sent plaintext, want nothing but TLS")
			}
		})
	}
}

// replay is a connection whose first bytes were read before, and are read again.
type replay struct {
	net.Conn
	first []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.first) > 0 {
		n := copy(p, r.first)
		r.first = r.first[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

func TestFault07_TLSStalls(t *testing.T) {
	rig.CheckLeaks(t)
	gone := make(chan struct{}, 100)
	address := rig.Listen(t, func(conn net.Conn) {
		untilClosed(conn)
		gone <- struct{}{}
	})
	r := rig.Quick(t, rig.WithSecrets("wss://"+address), dialOptions(&http.Transport{}), resock.WithDialTimeout(50*time.Millisecond))
	if fail := r.Fail(resock.PhaseTLS); !errors.Is(fail.Err, context.DeadlineExceeded) || fail.Took > time.Second {
		t.Errorf("got %+v, want the dial timeout", fail)
	}
	<-gone // the connection does not outlive the attempt
}

func TestFault08_UpgradeStalls(t *testing.T) {
	rig.CheckLeaks(t)
	for name, answer := range map[string]string{"silent": "", "slow headers": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"} {
		t.Run(name, func(t *testing.T) {
			gone := make(chan struct{}, 100)
			address := rig.ListenHTTP(t, func(conn net.Conn, _ *http.Request) {
				fmt.Fprint(conn, answer)
				untilClosed(conn)
				gone <- struct{}{}
			})
			r := rig.Quick(t, rig.WithSecrets("ws://"+address), dialOptions(&http.Transport{}), resock.WithDialTimeout(50*time.Millisecond))
			if fail := r.Fail(resock.PhaseUpgrade); !errors.Is(fail.Err, context.DeadlineExceeded) || fail.Took > time.Second {
				t.Errorf("got %+v, want the dial timeout", fail)
			}
			<-gone
		})
	}
}

func TestFault09_Unauthorized(t *testing.T) {
	rig.CheckLeaks(t)
	for _, status := range []int{http.StatusUnauthorized, http.StatusForbidden} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer "+rig.Secret+"-3" {
					http.Error(w, "no", status)
					return
				}
				accept(w, r, untilGone)
			})
			r := rig.Quick(t, target, resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				token := fmt.Sprintf("Bearer %s-%d", rig.Secret, a.N) // fresh on each attempt
				return resock.Endpoint{Header: http.Header{"Authorization": {token}}}, nil
			}))
			for range 2 {
				if dial := r.DialError(resock.PhaseUpgrade); dial.Status != status {
					t.Errorf("got %+v, want status %d", dial, status)
				}
			}
			if open := r.Open(); open.Attempt != 3 {
				t.Errorf("got %+v, want the third attempt", open)
			}
		})
	}
}

func TestFault10_RetryAfter(t *testing.T) {
	rig.CheckLeaks(t)
	for value, want := range map[string][2]time.Duration{ // the shortest and the longest delay
		"3": {3 * time.Second, 3100 * time.Millisecond},
		time.Now().Add(time.Hour).UTC().Format(http.TimeFormat): {5 * time.Minute, 5*time.Minute + 100*time.Millisecond},
		"-3":      {0, 100 * time.Millisecond},
		"9999999": {5 * time.Minute, 5*time.Minute + 100*time.Millisecond},
		"":        {0, 100 * time.Millisecond},
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(fmt.Sprint(status, " ", value), func(t *testing.T) {
				target := serve(t, func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Retry-After", value)
					w.WriteHeader(status)
				})
				r := rig.Quick(t, target)
				fail := r.Fail(resock.PhaseUpgrade)
				if fail.RetryIn < want[0] || fail.RetryIn > want[1] {
					t.Errorf("retry in %v, want %v to %v", fail.RetryIn, want[0], want[1])
				}
			})
		}
	}
}

func TestFault11_NotAWebSocketServer(t *testing.T) {
	rig.CheckLeaks(t)
	for _, status := range []int{http.StatusNotFound, http.StatusUpgradeRequired, http.StatusOK} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			target := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(status)
				_, _ = w.Write([]byte(strings.Repeat("x", 5000)))
			})
			r := rig.Quick(t, rig.WithSecrets(target), dialOptions(&http.Transport{}))
			dial := r.DialError(resock.PhaseUpgrade)
			if dial.Status != status || len(dial.Body) != 1024 {
				t.Errorf("got status %d and %d bytes of the body, want %d and 1024", dial.Status, len(dial.Body), status)
			}
		})
	}
}

func TestFault12_RedirectLoop(t *testing.T) {
	rig.CheckLeaks(t)
	var requests atomic.Int64
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		http.Redirect(w, r, "/again?token="+rig.Secret, http.StatusFound)
	})
	r := rig.Quick(t, target, resock.WithMaxAttempts(1))
	dial := r.DialError(resock.PhaseUpgrade)
	if dial.Status != http.StatusFound || !strings.Contains(dial.Location, "/again") {
		t.Errorf("got %+v, want the redirect", dial)
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests in one attempt, want 1", n)
	}
}

func TestFault13_RedirectElsewhere(t *testing.T) {
	rig.CheckLeaks(t)
	var visits atomic.Int64
	elsewhere := serve(t, func(http.ResponseWriter, *http.Request) { visits.Add(1) })
	for name, location := range map[string]string{
		"another host": strings.Replace(elsewhere, "ws://", "http://", 1) + "/?token=" + rig.Secret,
		"a ws URL":     elsewhere,
		"malformed":    "http://[" + rig.Secret,
	} {
		t.Run(name, func(t *testing.T) {
			cert, pool := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Location", location)
				w.WriteHeader(http.StatusTemporaryRedirect)
			}))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			server.StartTLS()
			t.Cleanup(server.Close)
			r := rig.Quick(t, rig.WithSecrets("ws"+strings.TrimPrefix(server.URL, "http")), dialOptions(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}))
			if dial := r.DialError(resock.PhaseUpgrade); dial.Status != http.StatusTemporaryRedirect || strings.Contains(dial.Location, rig.Secret) {
				t.Errorf("got %+v, want the redirect without its secret", dial)
			}
		})
	}
	if n := visits.Load(); n != 0 {
		t.Errorf("the target of the redirect received %d requests, want none", n)
	}
}

func TestFault14_BadHandshake(t *testing.T) {
	rig.CheckLeaks(t)
	const head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	for name, answer := range map[string]func(accept string) string{
		"bad accept": func(string) string { return head + "Sec-WebSocket-Accept: " + rig.Secret + "\r\n\r\n" },
		"no accept":  func(string) string { return head + "\r\n" },
		"unoffered subprotocol": func(accept string) string {
			return head + accept + "Sec-WebSocket-Protocol: " + rig.Secret + "\r\n\r\n"
		},
		"unoffered extension": func(accept string) string {
			return head + accept + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
		},
		"no upgrade": func(accept string) string { return "HTTP/1.1 101 Switching Protocols\r\n" + accept + "\r\n" },
	} {
		t.Run(name, func(t *testing.T) {
			address := rig.ListenHTTP(t, func(conn net.Conn, request *http.Request) {
				fmt.Fprint(conn, answer("Sec-WebSocket-Accept: "+rig.AcceptKey(request)+"\r\n"))
				untilClosed(conn)
			})
			r := rig.Quick(t, rig.WithSecrets("ws://"+address), dialOptions(&http.Transport{}), resock.WithDialTimeout(5*time.Second))
			if fail := r.Fail(resock.PhaseProtocol); fail.Took > time.Second {
				t.Errorf("the attempt took %v, want it to fail at once", fail.Took)
			}
		})
	}
}

func TestFault15_GarbageHeaders(t *testing.T) {
	rig.CheckLeaks(t)
	for name, answer := range map[string]string{
		"huge":    "HTTP/1.1 101 Switching Protocols\r\nX: " + strings.Repeat("x", 1<<20) + "\r\n",
		"endless": "HTTP/1.1 101 Switching Protocols\r\n" + strings.Repeat("X: y\r\n", 1<<18),
		"garbage": "\x16\x03\x01\xff\xff\xff\xff\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			address := rig.ListenHTTP(t, func(conn net.Conn, _ *http.Request) {
				fmt.Fprint(conn, answer)
				untilClosed(conn)
			})
			r := rig.Quick(t, rig.WithSecrets("ws://"+address), dialOptions(&http.Transport{}), resock.WithDialTimeout(2*time.Second))
			r.Fail(resock.PhaseUpgrade)
		})
	}
}

func TestFault16_Proxy(t *testing.T) {
	rig.CheckLeaks(t)
	for name, answer := range map[string]string{
		"407":    "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n",
		"502":    "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
		"stalls": "",
	} {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				address := rig.ListenHTTP(t, func(conn net.Conn, _ *http.Request) {
					fmt.Fprint(conn, answer)
					untilClosed(conn)
				})
				proxy := &url.URL{Scheme: "http", User: url.UserPassword("user", rig.Secret), Host: address}
				r := rig.Quick(t, rig.WithSecrets(scheme+"://feed.example"), dialOptions(&http.Transport{Proxy: http.ProxyURL(proxy)}), resock.WithDialTimeout(200*time.Millisecond))
				for range 2 {
					if fail, ok := r.Next().(resock.FailEvent); !ok || fail.Next != resock.StateWaiting || fail.Took > time.Second {
						t.Errorf("got %+v, want a FailEvent and a retry", fail)
					}
				}
			})
		}
	}
}

// tied returns a connection that lives as long as the context it was dialed with.
func tied(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err == nil {
		context.AfterFunc(ctx, func() { conn.Close() })
	}
	return conn, err
}

func TestFault67_DialersContext(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	t.Run("lives with the session", func(t *testing.T) {
		var dialing atomic.Pointer[context.Context]
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			dialing.Store(&ctx)
			return tied(ctx, network, address)
		}
		r := rig.Quick(t, target, dialOptions(&http.Transport{DialContext: dial}))
		r.Open()
		if err := r.Flush(t.Context()); err != nil {
			t.Errorf("the connection died: %v", err)
		}
		ctx := *dialing.Load()
		if err := ctx.Err(); err != nil {
			t.Errorf("the dialer's context ended with %v while the session is open", err)
		}
		r.Reconnect()
		<-ctx.Done()
	})
	t.Run("ends with a failed attempt", func(t *testing.T) {
		refusing := serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusTeapot) })
		contexts := make(chan context.Context, 100)
		dial := func(ctx context.Context, network, address string) (net.Conn, error) {
			contexts <- ctx
			return new(net.Dialer).DialContext(ctx, network, address)
		}
		r := rig.Quick(t, refusing, dialOptions(&http.Transport{DialContext: dial}))
		r.DialError(resock.PhaseUpgrade)
		<-(<-contexts).Done()
	})
	t.Run("tells a timeout as such", func(t *testing.T) {
		ended := make(chan error, 100)
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			ended <- ctx.Err()
			return nil, ctx.Err()
		}
		rig.Quick(t, "ws://feed.example", dialOptions(&http.Transport{DialContext: dial}), resock.WithDialTimeout(10*time.Millisecond)).DialError(resock.PhaseTCP)
		if err := <-ended; err != context.DeadlineExceeded {
			t.Errorf("%v, want the deadline", err)
		}
	})
	t.Run("has a deadline", func(t *testing.T) {
		// What net.Dialer does with two addresses: half of the time is the first one's.
		dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
			deadline, ok := ctx.Deadline()
			if !ok {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			first, cancel := context.WithTimeout(ctx, time.Until(deadline)/2)
			defer cancel()
			<-first.Done() // a black hole
			return new(net.Dialer).DialContext(ctx, network, strings.TrimPrefix(target, "ws://"))
		}
		r := rig.Quick(t, "ws://feed.example", dialOptions(&http.Transport{DialContext: dial}), resock.WithDialTimeout(time.Second))
		if open := r.Open(); open.Attempt != 1 {
			t.Errorf("%+v, want the first attempt", open)
		}
	})
}

// nameless is a connection that does not know its addresses.
type nameless struct{ net.Conn }

func (nameless) RemoteAddr() net.Addr { return nil }
func (nameless) LocalAddr() net.Addr  { return nil }

func TestFault70_NoRemoteAddress(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		return nameless{conn}, err
	}
	addresses := make(chan string, 1)
	r := rig.Quick(t, target, dialOptions(&http.Transport{DialContext: dial}), resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
		addresses <- s.RemoteAddr()
		return nil
	}))
	r.Open()
	if address := <-addresses; address != "" {
		t.Errorf("RemoteAddr is %q", address)
	}
}

func TestFault71_NoClientCertificate(t *testing.T) {
	rig.CheckLeaks(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			cert, pool := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
			address := rig.Listen(t, func(conn net.Conn) {
				server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MaxVersion: version})
				_ = server.Handshake()
				untilClosed(conn)
			})
			r := rig.Quick(t, rig.WithSecrets("wss://"+address), dialOptions(&http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}))
			dial := r.DialError(resock.PhaseTLS)
			if d := resock.DefaultRetryPolicy(resock.Failure{Phase: dial.Phase, Err: dial, Code: -1}); version == tls.VersionTLS13 && d.Action != resock.ActionRetrySlow {
				t.Errorf("%v: %+v, want a slow retry", dial, d)
			}
		})
	}
}

func TestFault86_NoSubprotocol(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	r := rig.Quick(t, rig.WithSecrets(target), dialOptions(&http.Transport{}), resock.WithSubprotocols("chat.v2", "chat.v1"))
	dial := r.DialError(resock.PhaseProtocol)
	for _, want := range []string{"subprotocol", "chat.v2", "chat.v1"} {
		if !strings.Contains(dial.Error(), want) {
			t.Errorf("%v, want it to say %q", dial, want)
		}
	}
}

// defaultTransport lets a test change http.DefaultTransport.
func defaultTransport(t *testing.T) *http.Transport {
	t.Helper()
	before := http.DefaultTransport
	own := before.(*http.Transport).Clone()
	http.DefaultTransport = own
	t.Cleanup(func() { http.DefaultTransport = before })
	return own
}

func TestFault88_DefaultTransportChanges(t *testing.T) {
	rig.CheckLeaks(t)
	for name, change := range map[string]func(own *http.Transport, config *tls.Config){
		"in place":          func(own *http.Transport, config *tls.Config) { own.TLSClientConfig = config },
		"within its config": func(own *http.Transport, config *tls.Config) { own.TLSClientConfig.RootCAs = config.RootCAs },
		"another transport": func(_ *http.Transport, config *tls.Config) {
			http.DefaultTransport = &http.Transport{TLSClientConfig: config}
		},
		"of the default client": func(_ *http.Transport, config *tls.Config) {
			http.DefaultClient = &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			own := defaultTransport(t)
			own.TLSClientConfig = &tls.Config{RootCAs: x509.NewCertPool()}
			client := http.DefaultClient
			t.Cleanup(func() { http.DefaultClient = client })
			target, pool := served(t, "wss")
			r := rig.Quick(t, target, resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
				if a.N == 2 {
					change(own, &tls.Config{RootCAs: pool})
				}
				return resock.Endpoint{}, nil
			}))
			r.DialError(resock.PhaseTLS)
			r.Open()
		})
	}
}

// leaky is an error of the application that tells a URL.
func leaky(u string) error {
	return fmt.Errorf("no token: %w", errors.Join(rig.ErrTest, &url.Error{Op: "Get", URL: u, Err: io.ErrUnexpectedEOF}))
}

func TestFault68_HookTellsAURL(t *testing.T) {
	rig.CheckLeaks(t)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) })
	hook := leaky("https://user:" + rig.Secret + "@token.example/?code=" + rig.Secret)
	for name, opt := range map[string]resock.Option{
		"WithEndpoint":    resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, hook }),
		"WithOnOpen":      resock.WithOnOpen(func(context.Context, *resock.Session) error { return hook }),
		"WithDialLimiter": resock.WithDialLimiter(rig.Limiter(func(context.Context) error { return hook })),
		"dialer":          dialOptions(&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, hook }}),
		"dialer, unjoined": dialOptions(&http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return nil, fmt.Errorf("%w: %w", rig.ErrTest, errors.Unwrap(hook).(interface{ Unwrap() []error }).Unwrap()[1])
		}}),
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.Quick(t, target, opt)
			fail := rig.Next[resock.FailEvent](r)
			if !errors.Is(fail.Err, rig.ErrTest) {
				t.Errorf("the sentinel is not in %v", fail.Err)
			}
			if !strings.Contains(fail.Err.Error(), rig.ErrTest.Error()) {
				t.Errorf("%v does not say what failed", fail.Err)
			}
		})
	}
}

func TestFault69_ErrorsThatTellTheRequest(t *testing.T) {
	rig.CheckLeaks(t)
	t.Run("a proxy function's", func(t *testing.T) {
		bad := &url.Error{Op: "parse", URL: "http://user:" + rig.Secret + "@proxy:" + rig.Secret, Err: fmt.Errorf("invalid port %q after host", rig.Secret)}
		for _, err := range []error{fmt.Errorf("%w: invalid proxy http://user:%s@host:x", rig.ErrTest, rig.Secret), errors.Join(rig.ErrTest, bad)} {
			for _, scheme := range []string{"ws", "wss"} {
				r := rig.Quick(t, scheme+"://feed.example", dialOptions(&http.Transport{Proxy: func(*http.Request) (*url.URL, error) { return nil, err }}))
				if fail := r.Fail(resock.PhaseTCP); !errors.Is(fail.Err, rig.ErrTest) {
					t.Errorf("%v, want the function's error", fail.Err)
				}
			}
		}
	})
	for name, answer := range map[string]func(request string) string{
		"first line": func(request string) string { return request },
		"header":     func(request string) string { return "HTTP/1.1 200 OK\r\n" + request },
		"header, continued": func(request string) string {
			return "HTTP/1.1 200 OK\r\nX: y\r\n" + strings.ReplaceAll(request, ": ", " ")
		},
		"status":   func(request string) string { return "HTTP/1.1 " + rig.Secret + "\r\n\r\n" },
		"reason":   func(request string) string { return "HTTP/1.1 401 " + rig.Secret + "\r\n\r\n" },
		"length":   func(request string) string { return "HTTP/1.1 401 No\r\nContent-Length: " + rig.Secret + "\r\n\r\n" },
		"encoding": func(request string) string { return "HTTP/1.1 401 No\r\nTransfer-Encoding: " + rig.Secret + "\r\n\r\n" },
		"body":     func(request string) string { return "HTTP/1.1 401 No\r\n\r\n" + request },
		"upgrade": func(request string) string {
			return "HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: " + rig.Secret + "\r\n\r\n"
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := rig.Listen(t, func(conn net.Conn) {
				var request strings.Builder
				parsed, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_ = parsed.Write(&request)
				_, _ = io.WriteString(conn, answer(request.String()))
			})
			r := rig.Quick(t, rig.WithSecrets("ws://"+address), dialOptions(&http.Transport{}))
			rig.Next[resock.FailEvent](r)
		})
	}
}

func TestFault91_LoginTakesTooLong(t *testing.T) {
	login := resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
		if err := s.Send(ctx, resock.MessageText, []byte("login")); err != nil {
			return err
		}
		if _, _, err := s.Receive(ctx); err != nil {
			return fmt.Errorf("login failed: %v", err) // %v: the application hides the cause
		}
		return nil
	})
	t.Run("longer than the dial timeout", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Start(t, s.URL, rig.Reach(s), login, resock.WithDialTimeout(3*time.Second))
			dial := r.DialError(resock.PhaseSetup)
			if !strings.Contains(dial.Error(), "WithDialTimeout(3s)") || !errors.Is(dial, context.DeadlineExceeded) {
				t.Errorf("%v, want it to name the option", dial)
			}
		})
	})
	t.Run("a close during it", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle(func(c *resocktest.Conn) { _ = c.Close(4401, "token expired") })
			r := rig.Start(t, s.URL, rig.Reach(s), login)
			dial := r.DialError(resock.PhaseSetup)
			var closed websocket.CloseError
			if !errors.As(dial, &closed) || closed.Code != 4401 || !strings.Contains(dial.Error(), "4401") || !strings.Contains(dial.Error(), "token expired") {
				t.Errorf("%v, want it to tell the code and the reason", dial)
			}
		})
	})
}
