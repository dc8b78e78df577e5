package faults

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"

	"crypto/tls"
	"crypto/x509"

	"errors"
	"fmt"
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
