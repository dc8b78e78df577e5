package faults

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// httpProxy is a proxy that tunnels what asks for CONNECT, and shows the requests.
type httpProxy struct {
	*url.URL
	established string // the line by which it agrees
	requests    chan *http.Request
}

// newProxy starts a proxy. refuse returns what it answers in place of a tunnel, or
// nothing. A proxy with a certificate speaks TLS.
func newProxy(t *testing.T, certificate *tls.Certificate, refuse func(*http.Request) string) httpProxy {
	t.Helper()
	return newProxyThatSays(t, "HTTP/1.1 200 Connection established", certificate, refuse)
}

// newProxyThatSays is newProxy with another line by which it agrees.
func newProxyThatSays(t *testing.T, established string, certificate *tls.Certificate, refuse func(*http.Request) string) httpProxy {
	t.Helper()
	p := httpProxy{&url.URL{Scheme: "http"}, established, make(chan *http.Request, 100)}
	p.Host = rig.Listen(t, func(conn net.Conn) {
		if certificate != nil {
			conn = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{*certificate}})
		}
		p.serve(conn, refuse)
	})
	if certificate != nil {
		p.Scheme = "https"
	}
	return p
}

func (p httpProxy) serve(conn net.Conn, refuse func(*http.Request) string) {
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return
	}
	p.requests <- request
	if answer := refuse(request); answer != "" {
		_, _ = io.WriteString(conn, answer)
		untilClosed(conn)
		return
	}
	target, err := net.Dial("tcp", request.Host)
	if err != nil || request.Method != http.MethodConnect {
		return
	}
	defer target.Close()
	_, _ = io.WriteString(conn, p.established+"\r\n\r\n")
	relayBoth(conn, target)
}

// relayBoth copies in both directions until one ends.
func relayBoth(conn, target net.Conn) {
	go func() {
		tunnel(target, conn)
		target.Close()
	}()
	tunnel(conn, target)
}

// tunnel copies without splice, whose pipes outlive the connections.
func tunnel(to io.Writer, from io.Reader) {
	_, _ = io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
}

// only returns what a proxy refuses that wants these credentials.
func only(authorization string) func(*http.Request) string {
	return func(r *http.Request) string {
		if r.Header.Get("Proxy-Authorization") != authorization {
			return "HTTP/1.1 407 Proxy Authentication Required\r\nRetry-After: 2\r\nContent-Length: 3\r\n\r\nno\n"
		}
		return ""
	}
}

// served returns the URL of an echo server without and with TLS, and what trusts it.
func served(t *testing.T, scheme string) (target string, pool *x509.CertPool) {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		accept(w, r, untilGone)
	}))
	t.Cleanup(server.Close)
	if scheme == "ws" {
		server.Start()
		return "ws" + strings.TrimPrefix(server.URL, "http"), nil
	}
	cert, pool := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	return "wss" + strings.TrimPrefix(server.URL, "https"), pool
}

func TestFault72_ThroughAProxy(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS to the proxy %t", scheme, secure), func(t *testing.T) {
				target, pool := served(t, scheme)
				if pool == nil {
					pool = x509.NewCertPool()
				}
				var cert *tls.Certificate
				if secure {
					made, trusted := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
					leaf, _ := x509.ParseCertificate(made.Certificate[0])
					pool.AddCert(leaf)
					_, cert = trusted, &made
				}
				proxy := newProxy(t, cert, only("Basic dXNlcjpzM2NyM3Q="))
				at := *proxy.URL
				at.User = url.UserPassword("user", rig.Secret)
				answers := make(chan int, 10)
				r := rig.Quick(t, rig.WithSecrets(target), dialOptions(&http.Transport{
					Proxy:              http.ProxyURL(&at),
					TLSClientConfig:    &tls.Config{RootCAs: pool},
					ProxyConnectHeader: http.Header{"X-Proxy": {"hello"}},
					OnProxyConnectResponse: func(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
						answers <- answer.StatusCode
						return nil
					},
				}))
				r.Open()
				request := <-proxy.requests
				if request.Method != http.MethodConnect || !strings.HasSuffix(target, request.Host) {
					t.Errorf("%s %s, want CONNECT", request.Method, request.Host)
				}
				if request.Header.Get("X-Proxy") != "hello" || request.Header.Get("Authorization") != "" {
					t.Errorf("the proxy got %v", request.Header)
				}
				if status := <-answers; status != http.StatusOK {
					t.Errorf("OnProxyConnectResponse saw %d", status)
				}
				if err := r.Send(t.Context(), resock.MessageText, []byte("through")); err != nil {
					t.Error(err)
				}
			})
		}
	}
	for _, scheme := range []string{"ws", "wss"} {
		t.Run("refused "+scheme, func(t *testing.T) {
			proxy := newProxy(t, nil, only("none"))
			at := *proxy.URL
			at.User = url.UserPassword("user", rig.Secret)
			r := rig.Quick(t, rig.WithSecrets(scheme+"://feed.example"), dialOptions(&http.Transport{Proxy: http.ProxyURL(&at)}))
			dial := r.DialError(resock.PhaseTCP)
			if dial.Status != http.StatusProxyAuthRequired || !strings.Contains(dial.Error(), proxy.Host) || !strings.Contains(dial.Error(), "407") {
				t.Errorf("%v with status %d, want 407 of %s", dial, dial.Status, proxy.Host)
			}
			if dial.RetryAfter != 2*time.Second {
				t.Errorf("RetryAfter %v, want 2 s", dial.RetryAfter)
			}
		})
		for name, answer := range map[string]string{"hangs up": "", "is no proxy": "SSH-2.0-OpenSSH_9.2\r\n"} {
			t.Run(name+" "+scheme, func(t *testing.T) {
				address := rig.ListenHTTP(t, func(conn net.Conn, _ *http.Request) { fmt.Fprint(conn, answer) })
				r := rig.Quick(t, scheme+"://feed.example", dialOptions(&http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: address})}))
				if dial := r.DialError(resock.PhaseTCP); dial.Status != 0 || !strings.Contains(dial.Error(), address) {
					t.Errorf("%v, want it to name %s", dial, address)
				}
			})
		}
	}
	t.Run("its header is asked for", func(t *testing.T) {
		target, _ := served(t, "ws")
		proxy := newProxy(t, nil, only("Bearer fresh"))
		asked := 0
		r := rig.Quick(t, target, dialOptions(&http.Transport{
			Proxy: http.ProxyURL(proxy.URL),
			GetProxyConnectHeader: func(_ context.Context, at *url.URL, target string) (http.Header, error) {
				if asked++; asked == 1 {
					return nil, rig.ErrTest
				}
				return http.Header{"Proxy-Authorization": {"Bearer fresh"}}, nil
			},
		}))
		if fail := r.Fail(resock.PhaseTCP); !errors.Is(fail.Err, rig.ErrTest) {
			t.Errorf("%v, want the hook's error", fail.Err)
		}
		r.Open()
	})
}

func through(proxy *url.URL) *http.Transport { return &http.Transport{Proxy: http.ProxyURL(proxy)} }

func agrees(*http.Request) string { return "" }

// More that proxies do, and that a transport may have beside its proxy.
func TestOddProxies(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		for _, established := range []string{"HTTP/1.0 200 Connection established", "HTTP/1.1 204 No Content", "HTTP/1.1 200 OK\r\nContent-Length: 10", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"} {
			t.Run(scheme+" "+established, func(t *testing.T) {
				target, pool := served(t, scheme)
				transport := through(newProxyThatSays(t, established, nil, agrees).URL)
				transport.TLSClientConfig = &tls.Config{RootCAs: pool}
				rig.Quick(t, target, dialOptions(transport)).Open()
			})
		}
		for target, want := range map[string]string{"feed.example": "feed.example:", "[2001:db8::1]": "[2001:db8::1]:", "[2001:db8::1]:81": "[2001:db8::1]:81"} {
			t.Run("asks for "+target+" by "+scheme, func(t *testing.T) {
				proxy := newProxy(t, nil, only("none"))
				r := rig.Quick(t, scheme+"://"+target, dialOptions(through(proxy.URL)))
				r.DialError(resock.PhaseTCP)
				if strings.HasSuffix(want, ":") {
					want += map[string]string{"ws": "80", "wss": "443"}[scheme]
				}
				if request := <-proxy.requests; request.Host != want {
					t.Errorf("asked for %s, want %s", request.Host, want)
				}
			})
		}
		t.Run("a hook refuses its answer, "+scheme, func(t *testing.T) {
			target, _ := served(t, scheme)
			transport := through(newProxy(t, nil, agrees).URL)
			transport.OnProxyConnectResponse = func(context.Context, *url.URL, *http.Request, *http.Response) error { return rig.ErrTest }
			r := rig.Quick(t, target, dialOptions(transport))
			if fail := r.Fail(resock.PhaseTCP); !errors.Is(fail.Err, rig.ErrTest) {
				t.Errorf("%v, want the hook's error", fail.Err)
			}
		})
		t.Run("is not there, "+scheme, func(t *testing.T) {
			r := rig.Quick(t, rig.WithSecrets(scheme+"://feed.example"), dialOptions(through(&url.URL{Scheme: "http", User: url.UserPassword("user", rig.Secret), Host: "127.0.0.1:1"})))
			if fail := r.Fail(resock.PhaseTCP); !errors.Is(fail.Err, syscall.ECONNREFUSED) || !strings.Contains(fail.Err.Error(), "proxy http://redacted@127.0.0.1:1") {
				t.Errorf("%v, want it to name the proxy", fail.Err)
			}
		})
		t.Run("is not trusted, "+scheme, func(t *testing.T) {
			made, _ := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
			proxy := newProxy(t, &made, agrees)
			dial := rig.Quick(t, scheme+"://feed.example", dialOptions(through(proxy.URL))).DialError(resock.PhaseTLS)
			if !strings.Contains(dial.Error(), "proxy "+proxy.String()) {
				t.Errorf("%v, want it to name the proxy", dial)
			}
		})
	}
	t.Run("says too much", func(t *testing.T) {
		proxy := newProxyThatSays(t, "HTTP/1.1 200 OK\r\n\r\nhello", nil, agrees)
		target, _ := served(t, "ws")
		if dial := rig.Quick(t, target, dialOptions(through(proxy.URL))).DialError(resock.PhaseTCP); !strings.Contains(dial.Error(), proxy.Host) {
			t.Errorf("%v, want it to name the proxy", dial)
		}
	})
	t.Run("beside a dialer of TLS", func(t *testing.T) {
		target, pool := served(t, "wss")
		transport := through(newProxy(t, nil, agrees).URL)
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
		transport.DialTLSContext = func(context.Context, string, string) (net.Conn, error) { return nil, rig.ErrTest }
		rig.Quick(t, target, dialOptions(transport)).Open()
	})
	t.Run("by a dialer of TLS", func(t *testing.T) {
		made, pool := certificate(t, "127.0.0.1", time.Now().Add(time.Hour))
		target, _ := served(t, "ws")
		transport := through(newProxy(t, &made, agrees).URL)
		transport.DialTLSContext = (&tls.Dialer{Config: &tls.Config{RootCAs: pool}}).DialContext
		rig.Quick(t, target, dialOptions(transport)).Open()
	})
	t.Run("gives no credentials to the server", func(t *testing.T) {
		seen := make(chan http.Header, 1)
		target := serve(t, func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header
			accept(w, r, untilGone)
		})
		proxy := *newProxy(t, nil, agrees).URL
		proxy.User = url.UserPassword("user", rig.Secret)
		rig.Quick(t, target, dialOptions(through(&proxy))).Open()
		if header := <-seen; header.Get("Proxy-Authorization") != "" {
			t.Errorf("the server got %v", header)
		}
	})
}

// socks serves SOCKS5 (RFC 1928) to one client, without authentication.
func socks(conn net.Conn) {
	greeting := make([]byte, 3)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return
	}
	_, _ = conn.Write([]byte{5, 0})
	relaySOCKS(conn)
}

// relaySOCKS serves the request of a SOCKS5 client that is welcome.
func relaySOCKS(conn net.Conn) {
	request := make([]byte, 10) // to an IPv4 address
	if _, err := io.ReadFull(conn, request); err != nil {
		return
	}
	target, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: request[4:8], Port: int(request[8])<<8 | int(request[9])})
	if err != nil {
		return
	}
	defer target.Close()
	_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	relayBoth(conn, target)
}

func TestSOCKSProxy(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			target, pool := served(t, scheme)
			transport := through(&url.URL{Scheme: "socks5", Host: rig.Listen(t, socks)})
			transport.TLSClientConfig = &tls.Config{RootCAs: pool}
			transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, address)
				return nameless{conn}, err
			}
			rig.Quick(t, target, dialOptions(transport)).Open()
		})
	}
}

// TestFault118 has for a proxy what net/http makes of HTTPS_PROXY=http://user:secret@ho st:1,
// which is no URL: with another http:// before it, it is one.
func TestFault118_ProxyVariableThatIsNoURL(t *testing.T) {
	proxy, err := url.Parse("http://http://user:" + rig.Secret + "@ho%20st:1")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Host = "127.0.0.1:1" // in place of the host named http
	r := rig.Quick(t, "wss://feed.example", dialOptions(&http.Transport{Proxy: http.ProxyURL(proxy)}))
	fail, ok := r.Next().(resock.FailEvent)
	if !ok || !strings.Contains(fail.Err.Error(), "proxy http://127.0.0.1:1") || strings.Contains(fail.Err.Error(), rig.Secret) {
		t.Errorf("got %+v", fail)
	}
}
