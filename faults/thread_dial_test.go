package faults

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// dialTo is a transport whose connections all go to the address of target, a URL,
// whatever was asked for. It tells each address that was asked for.
func dialTo(target string) (*http.Transport, <-chan string) {
	asked := make(chan string, 100)
	u, _ := url.Parse(target)
	return &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		asked <- address
		return new(net.Dialer).DialContext(ctx, network, u.Host)
	}}, asked
}

// untilHeard reads until the client sends something, such as its close frame.
func untilHeard(conn net.Conn) { _, _ = conn.Read(make([]byte, 4096)) }

// rawRequests starts a server that upgrades every connection and tells each request, up to
// the empty line, as it came.
func rawRequests(t *testing.T) (target string, requests <-chan string) {
	t.Helper()
	raw := make(chan string, 100)
	address := rig.Listen(t, func(conn net.Conn) {
		var came bytes.Buffer
		request, err := http.ReadRequest(bufio.NewReader(io.TeeReader(conn, &came)))
		if err != nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n"+err.Error())
			return
		}
		raw <- came.String()
		_, _ = conn.Write(rig.Upgraded(request))
		untilHeard(conn)
	})
	return "ws://" + address, raw
}

// upgrade101 starts a server whose 101 response has an extra header, and which sends a
// message in the same segment.
func upgrade101(t *testing.T, before, extra string) string {
	t.Helper()
	return "ws://" + rig.ListenHTTP(t, func(conn net.Conn, request *http.Request) {
		head := strings.TrimSuffix(string(rig.Upgraded(request)), "\r\n")
		_, _ = io.WriteString(conn, before+head+extra+"\r\n"+"\x81\x05hello")
		untilHeard(conn)
	})
}

func TestThreadInternationalName(t *testing.T) {
	rig.CheckLeaks(t)
	const ascii = "xn--bcher-kva.example"
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			seen := make(chan *http.Request, 10)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r
				accept(w, r, untilGone)
			}))
			cert, pool := certificate(t, ascii, time.Now().Add(time.Hour))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			if scheme == "ws" {
				server.Start()
			} else {
				server.StartTLS()
			}
			t.Cleanup(server.Close)
			transport, asked := dialTo(server.URL)
			transport.TLSClientConfig = &tls.Config{RootCAs: pool}
			rig.Quick(t, scheme+"://bücher.example:81", dialOptions(transport)).Open()
			request := <-seen
			if got := <-asked; got != ascii+":81" || request.Host != ascii+":81" {
				t.Errorf("dialed %s with Host %s, want %s", got, request.Host, ascii)
			}
			if scheme == "wss" && request.TLS.ServerName != ascii {
				t.Errorf("the server name is %s", request.TLS.ServerName)
			}
		})
	}
}

func TestThreadQueryWithoutPath(t *testing.T) {
	rig.CheckLeaks(t)
	target, requests := rawRequests(t)
	rig.Quick(t, target+"?user=me").Open()
	if request := <-requests; !strings.HasPrefix(request, "GET /?user=me HTTP/1.1\r\n") {
		t.Errorf("the request is\n%s", request)
	}
}

func TestThreadBodyHeadersOf101(t *testing.T) {
	rig.CheckLeaks(t)
	for _, extra := range []string{"Content-Length: 0", "Content-Length: 7", "Transfer-Encoding: chunked", "Content-Encoding: gzip"} {
		t.Run(extra, func(t *testing.T) {
			r := rig.Quick(t, upgrade101(t, "", extra+"\r\n"))
			r.Open()
			r.Message("hello")
		})
	}
}

func TestThreadInterimResponses(t *testing.T) {
	rig.CheckLeaks(t)
	for _, before := range []string{
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\n\r\n",
	} {
		r := rig.Quick(t, upgrade101(t, before, ""))
		r.Open()
		r.Message("hello")
	}
}

func TestThreadHandshakeFieldsTwice(t *testing.T) {
	rig.CheckLeaks(t)
	for _, extra := range []string{
		"Upgrade: websocket\r\nConnection: upgrade\r\n",
		"Connection: keep-alive\r\n",
		"Sec-WebSocket-Extensions: \r\n",
		"Sec-WebSocket-Protocol: \r\n",
	} {
		t.Run(extra, func(t *testing.T) { rig.Quick(t, upgrade101(t, "", extra)).Open() })
	}
}

func TestThreadStickyCookie(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			came := make(chan string, 10)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				came <- r.Header.Get("Cookie")
				http.SetCookie(w, &http.Cookie{Name: "AWSALB", Value: rig.Secret, Path: "/", Secure: scheme == "wss", HttpOnly: true})
				accept(w, r, untilGone)
			}))
			server.StartTLS()
			if scheme == "ws" {
				server.Close()
				server = httptest.NewServer(server.Config.Handler)
			}
			t.Cleanup(server.Close)
			jar, _ := cookiejar.New(nil)
			client := &http.Client{Transport: server.Client().Transport, Jar: jar}
			r := rig.Quick(t, scheme+strings.TrimLeft(server.URL, "htps"), resock.WithHTTPClient(client))
			r.Open()
			r.Reconnect()
			rig.Next[resock.CloseEvent](r)
			r.Open()
			if first, second := <-came, <-came; first != "" || second != "AWSALB="+rig.Secret {
				t.Errorf("the server got %q, then %q", first, second)
			}
		})
	}
}

// socksWithPassword is socks for clients that know the name and the password (RFC 1929).
func socksWithPassword(name, password string) func(net.Conn) {
	return func(conn net.Conn) {
		greeting := make([]byte, 2)
		if _, err := io.ReadFull(conn, greeting); err != nil {
			return
		}
		_, _ = io.CopyN(io.Discard, conn, int64(greeting[1]))
		_, _ = conn.Write([]byte{5, 2})
		credentials := make([]byte, 3+len(name)+len(password))
		if _, err := io.ReadFull(conn, credentials); err != nil {
			return
		}
		if string(credentials) != fmt.Sprintf("\x01%c%s%c%s", len(name), name, len(password), password) {
			_, _ = conn.Write([]byte{1, 1})
			return
		}
		_, _ = conn.Write([]byte{1, 0})
		relaySOCKS(conn)
	}
}

func TestThreadProxyPasswordIsEncoded(t *testing.T) {
	rig.CheckLeaks(t)
	const name, password = "alice@corp", "p@ss:w#rd%"
	user := strings.NewReplacer("@", "%40", "#", "%23", "%", "%25", ":", "%3A")
	wanted := "Basic " + base64.StdEncoding.EncodeToString([]byte(name+":"+password))
	for _, scheme := range []string{"ws", "wss"} {
		for _, kind := range []string{"http", "socks5"} {
			t.Run(scheme+" by "+kind, func(t *testing.T) {
				target, pool := served(t, scheme)
				address := newProxy(t, nil, only(wanted)).Host
				if kind == "socks5" {
					address = rig.Listen(t, socksWithPassword(name, password))
				}
				proxy, err := url.Parse(kind + "://" + user.Replace(name) + ":" + user.Replace(password) + "@" + address)
				if err != nil {
					t.Fatal(err)
				}
				transport := through(proxy)
				transport.TLSClientConfig = &tls.Config{RootCAs: pool}
				rig.Quick(t, target, dialOptions(transport)).Open()
			})
		}
	}
}

func TestThreadUnixSocket(t *testing.T) {
	rig.CheckLeaks(t)
	directory, err := os.MkdirTemp("", "s") // short: a path has 107 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	path := filepath.Join(directory, "socket")
	seen := make(chan *http.Request, 10)
	addresses := make(chan string, 10)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	r := rig.Quick(t, "ws://localhost/feed", resock.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}}),
		resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
			addresses <- s.RemoteAddr()
			return nil
		}))
	r.Fail(resock.PhaseTCP) // there is no socket yet
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		accept(w, r, untilGone)
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	for {
		if _, ok := r.Next().(resock.OpenEvent); ok {
			break
		}
	}
	if request := <-seen; request.Host != "localhost" || request.URL.Path != "/feed" {
		t.Errorf("the request is for %s%s", request.Host, request.URL)
	}
	if got := <-addresses; got != path {
		t.Errorf("RemoteAddr is %q, want %q", got, path)
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestThreadClientCertificateRotates(t *testing.T) {
	rig.CheckLeaks(t)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			old, _ := certificate(t, "old.example", time.Now().Add(time.Hour))
			fresh, _ := certificate(t, "fresh.example", time.Now().Add(time.Hour))
			seen := make(chan string, 10)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r.TLS.PeerCertificates[0].DNSNames[0]
				accept(w, r, untilGone)
			}))
			server.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: version}
			server.StartTLS()
			t.Cleanup(server.Close)
			var rotated atomic.Bool
			config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if rotated.Load() {
					return &fresh, nil
				}
				return &old, nil
			}
			r := rig.Quick(t, "wss"+strings.TrimPrefix(server.URL, "https"), dialOptions(&http.Transport{TLSClientConfig: config}))
			r.Open()
			rotated.Store(true)
			r.Reconnect()
			rig.Next[resock.CloseEvent](r)
			r.Open()
			if first, second := <-seen, <-seen; first != "old.example" || second != "fresh.example" {
				t.Errorf("the server got the certificate of %s, then that of %s", first, second)
			}
		})
	}
}

func TestThreadPinnedAddress(t *testing.T) {
	rig.CheckLeaks(t)
	cert, _ := certificate(t, "edge.example", time.Now().Add(time.Hour))
	leaf, _ := x509.ParseCertificate(cert.Certificate[0])
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	seen := make(chan *http.Request, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		accept(w, r, untilGone)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	t.Cleanup(server.Close)
	pinned, _ := dialTo(server.URL)
	pinned.TLSClientConfig = &tls.Config{RootCAs: pool}
	named := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "edge.example"}}
	for name, r := range map[string]*rig.Client{
		"by a dialer":      rig.Quick(t, "wss://edge.example", dialOptions(pinned)),
		"by a server name": rig.Quick(t, "wss"+strings.TrimPrefix(server.URL, "https"), resock.WithHTTPClient(&http.Client{Transport: named}), resock.WithHeader(http.Header{"Host": {"edge.example"}})),
	} {
		r.Open()
		if request := <-seen; request.Host != "edge.example" || request.TLS.ServerName != "edge.example" {
			t.Errorf("%s: Host %s and server name %s, want edge.example", name, request.Host, request.TLS.ServerName)
		}
	}
}

func TestFault107_HandshakeNames(t *testing.T) {
	rig.CheckLeaks(t)
	target, requests := rawRequests(t)
	rig.Quick(t, target, resock.WithSubprotocols("one"), resock.WithCompression(2), resock.WithMaxAttempts(1)).Next()
	request := <-requests
	for _, name := range []string{"Sec-WebSocket-Key: ", "Sec-WebSocket-Version: ", "Sec-WebSocket-Protocol: ", "Sec-WebSocket-Extensions: "} {
		if strings.Count(request, "\r\n"+name) != 1 || strings.Count(strings.ToLower(request), "\r\n"+strings.ToLower(name)) != 1 {
			t.Errorf("want %sonce, spelled like this:\n%s", name, request)
		}
	}
}

func TestFault108_OddQuery(t *testing.T) {
	rig.CheckLeaks(t)
	seen := make(chan *url.URL, 10)
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.URL
		accept(w, r, untilGone)
	})
	for query, want := range map[string]string{
		`name=Jane Doe`:          `name=Jane%20Doe`,
		`filter={"a":[1]}|b`:     `filter=%7B%22a%22:[1]%7D%7Cb`,
		`q=é&w=%C3%A9`:           `q=%C3%A9&w=%C3%A9`,
		`t=100%&u=%zz&v=a+b%20c`: `t=100%&u=%zz&v=a+b%20c`,
	} {
		t.Run(query, func(t *testing.T) {
			rig.Quick(t, target+"/my feed?"+query).Open()
			if got := <-seen; got.RawQuery != want || got.Path != "/my feed" {
				t.Errorf("the server got %s, want %s", got, want)
			}
		})
	}
}

func TestFault109_DefaultPort(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		seen := make(chan string, 10)
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Host
			accept(w, r, untilGone)
		}))
		t.Cleanup(server.Close)
		if server.Start(); scheme == "wss" {
			server.Close()
			server = httptest.NewTLSServer(server.Config.Handler)
			t.Cleanup(server.Close)
		}
		own := map[string]string{"ws": "80", "wss": "443"}[scheme]
		other := map[string]string{"ws": "443", "wss": "80"}[scheme]
		for authority, want := range map[string]string{
			"iot.example:" + own:   "iot.example",
			"[2001:db8::1]:" + own: "[2001:db8::1]",
			"iot.example:" + other: "iot.example:" + other,
			"iot.example:":         "iot.example",
			"iot.example:8" + own:  "iot.example:8" + own,
		} {
			t.Run(scheme+"://"+authority, func(t *testing.T) {
				transport, _ := dialTo(server.URL)
				transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
				rig.Quick(t, scheme+"://"+authority+"/", resock.WithHTTPClient(&http.Client{Transport: transport})).Open()
				if got := <-seen; got != want {
					t.Errorf("Host is %s, want %s", got, want)
				}
			})
		}
	}
}

func TestFault110_LowerCaseHeaders(t *testing.T) {
	rig.CheckLeaks(t)
	target, requests := rawRequests(t)
	jar, _ := cookiejar.New(nil)
	at, _ := url.Parse(strings.Replace(target, "ws", "http", 1))
	jar.SetCookies(at, []*http.Cookie{{Name: "sticky", Value: "node1"}})
	rig.Quick(t, strings.Replace(target, "://", "://user:"+rig.Secret+"@", 1), resock.WithHTTPClient(&http.Client{Transport: &http.Transport{}, Jar: jar}),
		resock.WithHeader(http.Header{"user-agent": {"Mozilla/5.0"}, "authorization": {"Bearer token"}, "accept-encoding": {"br"}, "cookie": {"a=b"}, "X-API-KEY": {"k"}})).Open()
	request := <-requests
	for name, want := range map[string]string{"User-Agent": "Mozilla/5.0", "Authorization": "Bearer token", "Accept-Encoding": "br", "Cookie": "a=b; sticky=node1"} {
		if !strings.Contains(request, "\r\n"+name+": "+want+"\r\n") || strings.Count(strings.ToLower(request), "\r\n"+strings.ToLower(name)+":") != 1 {
			t.Errorf("want %s: %s, once:\n%s", name, want, request)
		}
	}
	if !strings.Contains(request, "\r\nX-API-KEY: k\r\n") {
		t.Errorf("want other names as they were given:\n%s", request)
	}
}

func TestFault111_CompressedRefusal(t *testing.T) {
	rig.CheckLeaks(t)
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(w, "access denied")
	_ = w.Close()
	target := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "" {
			http.Error(w, "access denied", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write(zipped.Bytes())
	})
	t.Run("that nobody asked for", func(t *testing.T) {
		dial := rig.Quick(t, target, dialOptions(&http.Transport{})).DialError(resock.PhaseUpgrade)
		if !strings.HasSuffix(dial.Error(), `: "access denied"`) {
			t.Errorf("%v, want it to quote the body", dial)
		}
	})
	t.Run("that the application asked for", func(t *testing.T) {
		dial := rig.Quick(t, target, resock.WithHeader(http.Header{"Accept-Encoding": {"gzip, deflate, br"}})).DialError(resock.PhaseUpgrade)
		if !bytes.Equal(dial.Body, zipped.Bytes()) || !strings.HasSuffix(dial.Error(), "WithEndpoint)") {
			t.Errorf("%v with the body %q, want the body as it came, and nothing of it in the text", dial, dial.Body)
		}
	})
}

// countedTLS is a TLS connection in a wrapper, as those of applications that count bytes.
type countedTLS struct{ *tls.Conn }

// otherTLS is a connection of a library that has types of its own for what crypto/tls has,
// as those that imitate browsers do.
type otherTLS struct{ *tls.Conn }

type otherState struct{ NegotiatedProtocol string }

func (c otherTLS) ConnectionState() otherState {
	return otherState{c.Conn.ConnectionState().NegotiatedProtocol}
}

func TestFault112_WrappedHTTP2(t *testing.T) {
	rig.CheckLeaks(t)
	protocols := make(chan string, 10)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protocols <- r.TLS.NegotiatedProtocol
		accept(w, r, untilGone)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	target := "wss" + strings.TrimPrefix(server.URL, "https")
	config := server.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	t.Run("offered by the application", func(t *testing.T) {
		transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
		rig.Quick(t, target, dialOptions(transport)).Open()
		if got := <-protocols; got == "h2" {
			t.Errorf("the protocol is %q", got)
		}
	})
	for name, wrap := range map[string]func(*tls.Conn) net.Conn{
		"agreed on by a dialer that wraps":      func(conn *tls.Conn) net.Conn { return countedTLS{conn} },
		"agreed on by a dialer of another type": func(conn *tls.Conn) net.Conn { return otherTLS{conn} },
	} {
		t.Run(name, func(t *testing.T) {
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, network, address)
				if err != nil {
					return nil, err
				}
				return wrap(conn.(*tls.Conn)), nil
			}
			fail := rig.Quick(t, target, dialOptions(&http.Transport{DialTLSContext: dial})).DialError(resock.PhaseTCP)
			if !strings.Contains(fail.Error(), "leave h2 out of its NextProtos") {
				t.Errorf("%v, want it to name HTTP/2", fail)
			}
		})
	}
}

func TestFault113_ApplicationProtocol(t *testing.T) {
	rig.CheckLeaks(t)
	offered := make(chan []string, 10)
	config := &tls.Config{NextProtos: []string{"x-amzn-http-ca"}}
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		offered <- hello.SupportedProtos
		return nil, nil
	}
	address, pool := rig.ListenTLS(t, config, func(conn net.Conn) {
		if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			_, _ = conn.Write(rig.Upgraded(request))
			untilHeard(conn)
		}
	})
	own := &tls.Config{RootCAs: pool, NextProtos: []string{"h2", "x-amzn-http-ca"}}
	t.Run("to the server", func(t *testing.T) {
		rig.Quick(t, "wss://"+address, dialOptions(&http.Transport{TLSClientConfig: own})).Open()
		if got := <-offered; !slices.Equal(got, own.NextProtos[1:]) {
			t.Errorf("the client offered %q, want what the application gave, without h2", got)
		}
	})
	t.Run("not to a proxy", func(t *testing.T) {
		proxy := &url.URL{Scheme: "https", Host: address}
		rig.Quick(t, "wss://feed.example", dialOptions(&http.Transport{TLSClientConfig: own, Proxy: http.ProxyURL(proxy)})).Next()
		if got := <-offered; got != nil {
			t.Errorf("the client offered %q", got)
		}
	})
	t.Run("to a server that says nothing", func(t *testing.T) {
		silent := rig.Listen(t, untilClosed)
		r := rig.Quick(t, "wss://"+silent, dialOptions(&http.Transport{TLSClientConfig: own}), resock.WithDialTimeout(50*time.Millisecond))
		if fail := r.Fail(resock.PhaseTLS); !errors.Is(fail.Err, context.DeadlineExceeded) {
			t.Errorf("%v, want the dial timeout", fail.Err)
		}
	})
	t.Run("with a certificate for another name", func(t *testing.T) {
		transport := &http.Transport{TLSClientConfig: own, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
		rig.Quick(t, "wss://other.example", dialOptions(transport)).DialError(resock.PhaseTLS)
	})
}

func TestFault114_IPv6Zone(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			seen := make(chan string, 10)
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				seen <- r.Host
				accept(w, r, untilGone)
			}))
			cert, pool := certificate(t, "fe80::1", time.Now().Add(time.Hour))
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			if scheme == "ws" {
				server.Start()
			} else {
				server.StartTLS()
			}
			t.Cleanup(server.Close)
			transport, asked := dialTo(server.URL)
			transport.TLSClientConfig = &tls.Config{RootCAs: pool}
			rig.Quick(t, scheme+"://[fe80::1%25eth0]:8443/", dialOptions(transport)).Open()
			if got := <-asked; got != "[fe80::1%eth0]:8443" {
				t.Errorf("dialed %s", got)
			}
			if got := <-seen; got != "[fe80::1]:8443" {
				t.Errorf("Host is %s, want it without the zone (RFC 6874, section 4)", got)
			}
		})
	}
}

func TestFault115_SubprotocolInAnotherCase(t *testing.T) {
	rig.CheckLeaks(t)
	for answer, want := range map[string]string{"mqtt": "MQTT", "MQTT": "MQTT", "mqttv3.1": "mqttv3.1", "MqttV3.1": "MQTTv3.1"} {
		t.Run(answer, func(t *testing.T) {
			header := make(chan string, 1)
			r := rig.Quick(t, upgrade101(t, "", "Sec-WebSocket-Protocol: "+answer+"\r\n"), resock.WithSubprotocols("MQTT", "MQTTv3.1", "mqttv3.1"),
				resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
					if s.Subprotocol() != want {
						t.Errorf("the session has %q, want %q", s.Subprotocol(), want)
					}
					header <- s.Header().Get("Sec-WebSocket-Protocol")
					return nil
				}))
			if open := r.Open(); open.Subprotocol != want {
				t.Errorf("the event has %q, want %q as it was offered", open.Subprotocol, want)
			}
			if got := <-header; got != answer {
				t.Errorf("the header has %q, want it as it came", got)
			}
		})
	}
}

func TestThreadPasswordIsEncoded(t *testing.T) {
	rig.CheckLeaks(t)
	target, requests := rawRequests(t)
	for user, want := range map[string]string{
		"usr:pass%23@":           "usr:pass#",
		"u%40corp:a:b%2F%C3%A9@": "u@corp:a:b/é",
		"token@":                 "token:",
		":key@":                  ":key",
	} {
		r := rig.Quick(t, strings.Replace(target, "://", "://"+user, 1))
		if open := r.Open(); strings.Contains(open.URL, "pass") || strings.Contains(open.URL, "token") {
			t.Errorf("the event has the URL %s", open.URL)
		}
		if request := <-requests; !strings.Contains(request, "\r\nAuthorization: Basic "+base64.StdEncoding.EncodeToString([]byte(want))+"\r\n") {
			t.Errorf("%s: want the credentials %s:\n%s", user, want, request)
		}
	}
}

func TestThreadOddResponseHeads(t *testing.T) {
	rig.CheckLeaks(t)
	for name, change := range map[string]func(head string) string{
		"names in lower case": func(head string) string {
			line, fields, _ := strings.Cut(head, "\r\n")
			for _, name := range []string{"Connection", "Upgrade", "Sec-WebSocket-Accept"} {
				fields = strings.Replace(fields, name+":", strings.ToLower(name)+":", 1)
			}
			return line + "\r\n" + fields
		},
		"names in upper case": func(head string) string {
			return strings.Replace(head, "Sec-WebSocket-Accept", "SEC-WEBSOCKET-ACCEPT", 1)
		},
		"another reason": func(head string) string {
			return strings.Replace(head, "Switching Protocols", "Web Socket Protocol Handshake", 1)
		},
		"no reason": func(head string) string { return strings.Replace(head, " Switching Protocols", "", 1) },
		"HTTP/1.0":  func(head string) string { return strings.Replace(head, "HTTP/1.1", "HTTP/1.0", 1) },
		"bare LF":   func(head string) string { return strings.ReplaceAll(head, "\r\n", "\n") },
		"no spaces": func(head string) string { return strings.ReplaceAll(head, ": ", ":") },
		"more spaces": func(head string) string {
			return strings.ReplaceAll(strings.TrimSuffix(head, "\r\n"), "\r\n", " \t\r\n") + "\r\n"
		},
		"WebSocket":    func(head string) string { return strings.Replace(head, "Upgrade: websocket", "Upgrade: WebSocket", 1) },
		"byte by byte": nil,
	} {
		t.Run(name, func(t *testing.T) {
			target := "ws://" + rig.ListenHTTP(t, func(conn net.Conn, request *http.Request) {
				head := string(rig.Upgraded(request))
				if change != nil {
					_, _ = io.WriteString(conn, change(head)+"\x81\x05hello")
				} else {
					for i := range len(head) {
						_, _ = io.WriteString(conn, head[i:i+1])
					}
					_, _ = io.WriteString(conn, "\x81\x05hello")
				}
				untilHeard(conn)
			})
			r := rig.Quick(t, target)
			r.Open()
			r.Message("hello")
		})
	}
}

func TestThreadRefusalThatDoesNotEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		status int
		first  string
	}{
		"a body that does not come": {"HTTP/1.1 401 Unauthorized\r\nRetry-After: 7\r\nContent-Length: 2000\r\n\r\n", 401, ""},
		"an event stream":           {"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n:ping\n\r\n", 200, ":ping\n"},
		"no length":                 {"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n\r\nbusy", 503, "busy"},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(resocktest.Answer(func(conn net.Conn, _ *http.Request) {
					_, _ = io.WriteString(conn, tt.answer)
					untilClosed(conn)
				}))
				r := rig.Start(t, s.URL, rig.Reach(s))
				began := time.Now()
				dial := r.DialError(resock.PhaseUpgrade)
				if dial.Status != tt.status || string(dial.Body) != tt.first {
					t.Errorf("%v with status %d and body %q, want %d and %q", dial, dial.Status, dial.Body, tt.status, tt.first)
				}
				if want := strings.Contains(tt.answer, "Retry-After"); (dial.RetryAfter == 7*time.Second) != want {
					t.Errorf("RetryAfter is %v", dial.RetryAfter)
				}
				rig.Within(t, began, 0, 4*time.Second)
				_ = r.Close(resock.StatusNormalClosure, "")
			})
		})
	}
}

// proxiedByEnvironment tells which addresses a client dials for targets, in a process of
// its own: net/http reads the environment once.
func proxiedByEnvironment(t *testing.T, environment []string, targets ...string) (dialed []string) {
	t.Helper()
	const role = "RESOCK_TEST_PROXIED"
	if os.Getenv(role) != "" {
		for _, target := range targets {
			transport := http.DefaultTransport.(*http.Transport).Clone()
			transport.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
				fmt.Println("dialed", address)
				return nil, rig.ErrTest
			}
			client, err := resock.New(target, resock.WithHTTPClient(&http.Client{Transport: transport}), resock.WithMaxAttempts(1))
			if err != nil {
				t.Fatal(err)
			}
			_ = client.Run(context.Background())
		}
		os.Exit(0)
	}
	command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	command.Env = append(environment, role+"=1")
	output, err := command.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(output)) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "dialed "); ok {
			dialed = append(dialed, address)
		}
	}
	return dialed
}

func TestThreadNoProxy(t *testing.T) {
	dialed := proxiedByEnvironment(t,
		[]string{"http_proxy=http://user:p%40ss@plain.proxy:3128", "HTTPS_PROXY=secure.proxy:3129", "NO_PROXY=foo.example , .corp.example,10.0.0.0/8, only.example:81"},
		"ws://feed.example", "wss://feed.example", "wss://foo.example", "ws://a.corp.example:8080", "ws://10.1.2.3", "ws://only.example:81", "ws://only.example", "ws://localhost:9", "ws://[::1]:9")
	want := []string{"plain.proxy:3128", "secure.proxy:3129", "foo.example:443", "a.corp.example:8080", "10.1.2.3:80", "only.example:81", "plain.proxy:3128", "localhost:9", "[::1]:9"}
	if !slices.Equal(dialed, want) {
		t.Errorf("dialed %q, want %q", dialed, want)
	}
}

// zipping is the ResponseWriter of a gzip middleware: its connection cannot be taken over.
type zipping struct {
	http.ResponseWriter
	zip *gzip.Writer
}

func (z zipping) Write(p []byte) (int, error) { return z.zip.Write(p) }

func TestFault116_ServerThatZips(t *testing.T) {
	rig.CheckLeaks(t)
	for _, scheme := range []string{"ws", "wss"} {
		t.Run(scheme, func(t *testing.T) {
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
					w.Header().Set("Content-Encoding", "gzip")
					w = zipping{w, gzip.NewWriter(w)}
				}
				accept(w, r, untilGone)
			}))
			if scheme == "ws" {
				server.Start()
			} else {
				server.StartTLS()
			}
			t.Cleanup(server.Close)
			rig.Quick(t, scheme+strings.TrimLeft(server.URL, "htps"), resock.WithHTTPClient(&http.Client{Transport: server.Client().Transport})).Open()
		})
	}
}

func TestThreadEncodedURLIsKept(t *testing.T) {
	rig.CheckLeaks(t)
	target, requests := rawRequests(t)
	for _, sent := range []string{"/a%2Fb%20c;v=1?x=%2B%25&y=a+b%20c", "/%C3%A9/", "/a//b/../c?u=http://x/?y&z", "/?a=1&&b=&=c;d", "/[x]?i[]=1&j='(!*)'", "/a%2fb?c%2fd"} {
		rig.Quick(t, target+sent).Open()
		if line, _, _ := strings.Cut(<-requests, "\r\n"); line != "GET "+sent+" HTTP/1.1" {
			t.Errorf("%s, want %s", line, sent)
		}
	}
}

func TestFault117_UpgradeThatCloses(t *testing.T) {
	rig.CheckLeaks(t)
	for _, extra := range []string{"close, Upgrade", "Upgrade, close"} {
		target := "ws://" + rig.ListenHTTP(t, func(conn net.Conn, request *http.Request) {
			_, _ = io.WriteString(conn, strings.Replace(string(rig.Upgraded(request)), "Connection: Upgrade", "Connection: "+extra, 1))
			untilClosed(conn)
		})
		if dial := rig.Quick(t, target).DialError(resock.PhaseProtocol); !strings.Contains(dial.Error(), "Connection has close") {
			t.Errorf("%v, want it to say what came", dial)
		}
	}
}
