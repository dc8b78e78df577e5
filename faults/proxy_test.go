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
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// httpProxy is a proxy that tunnels what asks for CONNECT, and shows the requests.
type httpProxy struct {
	*url.URL
	requests chan *http.Request
}

// newProxy starts a proxy. refuse returns what it answers in place of a tunnel, or
// nothing. A proxy with a certificate speaks TLS.
func newProxy(t *testing.T, certificate *tls.Certificate, refuse func(*http.Request) string) httpProxy {
	t.Helper()
	p := httpProxy{&url.URL{Scheme: "http"}, make(chan *http.Request, 100)}
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
	_, _ = io.WriteString(conn, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		relay(target, conn)
		target.Close()
	}()
	relay(conn, target)
}

// relay copies without splice, whose pipes outlive the connections.
func relay(to io.Writer, from io.Reader) {
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
				address := rig.Listen(t, func(conn net.Conn) {
					readUpgrade(conn)
					fmt.Fprint(conn, answer)
				})
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
