package faults

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

var update = flag.Bool("update", false, "rewrite testdata/errors.txt")

// told is an error that a user can cause, and how.
type told struct {
	how string
	err error
}

// TestErrors compares the text of every error that a user can cause with
// testdata/errors.txt, which is there to be read: each line should say what came, what was
// expected and what to do. After a change of a text, -update rewrites the file.
func TestErrors(t *testing.T) {
	var text strings.Builder
	for _, part := range []struct {
		title string
		all   func(*testing.T) []told
	}{
		{"New", newErrors},
		{"An attempt, until there is a connection", dialErrors},
		{"An attempt, by way of a proxy", proxyErrors},
		{"An attempt, TLS", tlsErrors},
		{"An attempt, the upgrade", upgradeErrors},
		{"An attempt, hooks", hookErrors},
		{"A session", sessionErrors},
		{"Sending, waiting, the end", callErrors},
	} {
		fmt.Fprintf(&text, "# %s\n\n", part.title)
		for _, told := range part.all(t) {
			if told.err == nil {
				t.Errorf("%s: no error", told.how)
				continue
			}
			fmt.Fprintf(&text, "%s:\n    %s\n", told.how, strings.ReplaceAll(told.err.Error(), "\n", "\n    "))
		}
		text.WriteString("\n")
	}
	if strings.Contains(text.String(), rig.Secret) {
		t.Errorf("the secret is in\n%s", &text)
	}
	golden := filepath.Join("testdata", "errors.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(text.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	compareLines(t, text.String(), string(want))
}

// compareLines fails the test for each line that differs.
func compareLines(t *testing.T, got, want string) {
	t.Helper()
	gots, wants := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range max(len(gots), len(wants)) {
		var g, w string
		if i < len(gots) {
			g = gots[i]
		}
		if i < len(wants) {
			w = wants[i]
		}
		if g != w {
			t.Errorf("line %d is\n%s\nwant\n%s", i+1, g, w)
		}
	}
}

func newErrors(*testing.T) (all []told) {
	add := func(how, target string, opts ...resock.Option) {
		_, err := resock.New(target, opts...)
		all = append(all, told{how, err})
	}
	const secrets = "user:" + rig.Secret + "@host/?token=" + rig.Secret
	add("no URL", "")
	add("a URL of HTTP", "https://"+secrets)
	add("no URL at all", "ws://"+rig.Secret+" "+rig.Secret)
	add("no host", "ws:///path?token="+rig.Secret)
	add("a fragment", "ws://"+secrets+"#"+rig.Secret)
	const good = "ws://server.test"
	add("a nil option", good, nil)
	add("a nil hook", good, resock.WithOnOpen(nil))
	add("a zero timeout", good, resock.WithDialTimeout(0))
	add("a negative interval", good, resock.WithHeartbeat(-time.Second, time.Second))
	add("a heartbeat without timeout", good, resock.WithHeartbeat(time.Second, 0))
	add("a backoff that shrinks", good, resock.WithBackoff(time.Minute, time.Second))
	add("an empty queue", good, resock.WithQueue(0, 1))
	add("a bad subprotocol", good, resock.WithSubprotocols("a b"))
	add("a subprotocol twice", good, resock.WithSubprotocols("a", "a"))
	add("a header of the handshake", good, resock.WithHeader(http.Header{"Sec-Websocket-Protocol": {"chat"}}))
	add("a header that is split", good, resock.WithHeader(http.Header{"X-Token": {rig.Secret + "\n"}}))
	add("a header without a name", good, resock.WithHeader(http.Header{"X-Token: " + rig.Secret: {""}}))
	add("a Host that is a URL", good, resock.WithDialOptions(&websocket.DialOptions{Host: "http://server.test/"}))
	add("an unknown compression", good, resock.WithCompression(9))
	return all
}

// failure returns why the first attempt, or the first session, of a client fails.
func failure(t *testing.T, target string, opts ...resock.Option) error {
	t.Helper()
	client := rig.Start(t, target, append([]resock.Option{
		resock.WithHeader(http.Header{"X-Token": {rig.Secret}}),
	}, opts...)...)
	for {
		if fail, ok := client.Next().(resock.FailEvent); ok {
			_ = client.Close(resock.StatusNormalClosure, "")
			return fail.Err
		}
	}
}

const secretURL = "ws://user:" + rig.Secret + "@server.test/feed?token=" + rig.Secret

// scripted returns why the first attempt, or the first session, fails at a server in
// memory that does step.
func scripted(t *testing.T, step resocktest.Step, opts ...resock.Option) (err error) {
	t.Helper()
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(step)
		err = failure(t, secretURL, append([]resock.Option{resock.WithHTTPClient(s.Client())}, opts...)...)
	})
	return err
}

func dialErrors(t *testing.T) []told {
	cause := func(err error) error {
		return scripted(t, resocktest.Hold(), rig.Dial(func(context.Context) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80}, Err: err}
		}))
	}
	return []told{
		{"the name is not found", cause(&net.DNSError{Err: "no such host", Name: "server.test", IsNotFound: true})},
		{"nobody listens", cause(os.NewSyscallError("connect", syscall.ECONNREFUSED))},
		{"no descriptors", cause(os.NewSyscallError("socket", syscall.EMFILE))},
		{"nobody answers", scripted(t, resocktest.StallDial())},
		{"a dialer that fails", scripted(t, resocktest.Hold(), rig.Dial(func(context.Context) (net.Conn, error) { return nil, rig.ErrTest }))},
		{"a dialer that returns nothing", scripted(t, resocktest.Hold(), rig.Dial(func(context.Context) (net.Conn, error) { return nil, nil }))},
	}
}

// proxied returns why the first attempt fails by way of a proxy that does serve.
func proxied(t *testing.T, target string, serve func(net.Conn)) error {
	t.Helper()
	address := rig.Listen(t, func(conn net.Conn) {
		_, _ = conn.Read(make([]byte, 4096))
		serve(conn)
	})
	proxy := &url.URL{Scheme: "http", User: url.UserPassword("user", rig.Secret), Host: address}
	return anonymous(failure(t, target, resock.WithHTTPClient(&http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy)}})), address)
}

// anonymous is an error without an address that differs each time.
func anonymous(err error, address string) error {
	return errors.New(strings.ReplaceAll(err.Error(), address, "127.0.0.1:12345"))
}

func proxyErrors(t *testing.T) (all []told) {
	for _, scheme := range []string{"ws", "wss"} {
		target := strings.Replace(secretURL, "ws", scheme, 1)
		answers := func(answer string) error {
			return proxied(t, target, func(conn net.Conn) { _, _ = io.WriteString(conn, answer) })
		}
		function := resock.WithHTTPClient(&http.Client{Transport: &http.Transport{Proxy: func(*http.Request) (*url.URL, error) {
			return nil, fmt.Errorf("invalid proxy http://user:%s@:x", rig.Secret)
		}}})
		all = append(all, told{scheme + ", wants credentials", answers("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")},
			told{scheme + ", refuses", answers("HTTP/1.1 403 Forbidden\r\n\r\n")},
			told{scheme + ", is overloaded", answers("HTTP/1.1 503 No\r\nRetry-After: 7\r\n\r\n")},
			told{scheme + ", hangs up", answers("")},
			told{scheme + ", is no proxy", answers("SSH-2.0\r\n" + rig.Secret)},
			told{scheme + ", the Proxy function fails", failure(t, target, function)})
	}
	return all
}

func tlsErrors(t *testing.T) []told {
	discard := func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
	trusting := func(config *tls.Config) resock.Option {
		return resock.WithHTTPClient(&http.Client{Transport: &http.Transport{TLSClientConfig: config}})
	}
	address, pool := rig.ListenTLS(t, new(tls.Config), discard)
	strict, strictPool := rig.ListenTLS(t, &tls.Config{ClientAuth: tls.RequireAnyClientCert}, discard)
	modern, modernPool := rig.ListenTLS(t, &tls.Config{NextProtos: []string{"h2"}}, discard)
	plain := resocktest.NewServer(t)
	web := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	return []told{
		{"an authority that nobody knows", failure(t, "wss://"+address, trusting(&tls.Config{RootCAs: x509.NewCertPool()}))},
		{"a certificate for another name", failure(t, "wss://"+address, trusting(&tls.Config{RootCAs: pool, ServerName: "other.test"}))},
		{"no client certificate", anonymous(failure(t, "wss://"+strict, trusting(&tls.Config{RootCAs: strictPool})), strict)},
		{"a dialer that agrees on HTTP/2", failure(t, "wss://"+modern, agreeing(modernPool, "h2"))},
		{"wss to a server without TLS", failure(t, "wss"+strings.TrimPrefix(plain.URL, "ws"), trusting(nil))},
		{"wss to a web server without TLS", failure(t, "wss"+strings.TrimPrefix(web.URL, "http"), trusting(nil))},
		{"silence", failure(t, "wss://"+rig.Listen(t, discard), trusting(nil), resock.WithDialTimeout(250*time.Millisecond))},
	}
}

// agreeing is the option to dial TLS by a function that offers a protocol.
func agreeing(pool *x509.CertPool, protocol string) resock.Option {
	dialer := &tls.Dialer{Config: &tls.Config{RootCAs: pool, NextProtos: []string{protocol}}}
	return resock.WithHTTPClient(&http.Client{Transport: &http.Transport{DialTLSContext: dialer.DialContext}})
}

func upgradeErrors(t *testing.T) []told {
	status := func(code int, header http.Header, body string) error {
		return scripted(t, resocktest.Status(code, header, body))
	}
	raw := func(answer string, opts ...resock.Option) error {
		return scripted(t, resocktest.Answer(func(conn net.Conn, r *http.Request) {
			accept := strings.SplitAfter(string(rig.Upgraded(r)), "\r\n")[3]
			_, _ = io.WriteString(conn, strings.ReplaceAll(answer, "ACCEPT\r\n", accept))
		}), opts...)
	}
	const head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
	chat := resock.WithSubprotocols("chat.v2", "chat.v1")
	return []told{
		{"401", status(401, nil, "token expired\n")},
		{"403, with the request in the body", status(403, nil, "bad token "+rig.Secret)},
		{"404, a page", status(404, nil, "<html>\n<head><title>404 Not Found</title></head>\n<body>"+strings.Repeat("not here ", 50))},
		{"200", status(200, nil, "welcome")},
		{"400, no text", status(400, nil, "\x00\x01\xff")},
		{"429", status(429, http.Header{"Retry-After": {"30"}}, "slow down")},
		{"503, no date", status(503, nil, "")},
		{"a redirect", status(302, http.Header{"Location": {"https://other.test/feed?token=" + rig.Secret}}, "moved")},
		{"599", status(599, nil, "")},
		{"no answer", scripted(t, resocktest.StallUpgrade())},
		{"a connection that ends", raw("")},
		{"an echo", raw("GET /feed?token=" + rig.Secret + "\r\n")},
		{"TLS", raw("\x15\x03\x01\x00\x02\x02\x0a")},
		{"HTTP/2", raw("\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff")},
		{"a header that does not end", raw("HTTP/1.1 101 Go\r\nX: " + strings.Repeat("x", 300<<10))},
		{"101 without Connection", raw("HTTP/1.1 101 Go\r\nUpgrade: websocket\r\nACCEPT\r\n\r\n")},
		{"101 to another protocol", raw("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")},
		{"101 with a secret", raw("HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: " + rig.Secret + "\r\n\r\n")},
		{"101 with another key", raw(head + "Sec-WebSocket-Accept: x\r\n\r\n")},
		{"a subprotocol that was not offered", raw(head+"ACCEPT\r\nSec-WebSocket-Protocol: chat.v3\r\n\r\n", chat)},
		{"a subprotocol, none offered", raw(head + "ACCEPT\r\nSec-WebSocket-Protocol: chat.v3\r\n\r\n")},
		{"two subprotocols", raw(head+"ACCEPT\r\nSec-WebSocket-Protocol: chat.v2\r\nSec-WebSocket-Protocol: chat.v1\r\n\r\n", chat)},
		{"an empty subprotocol", raw(head+"ACCEPT\r\nSec-WebSocket-Protocol:\r\n\r\n", chat)},
		{"no subprotocol", raw(head+"ACCEPT\r\n\r\n", chat)},
		{"an extension that was not offered", raw(head + "ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")},
		{"an impossible window", raw(head+"ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n\r\n", resock.WithCompression(websocket.CompressionContextTakeover))},
		{"a RoundTripper that returns nothing", scripted(t, resocktest.Hold(), rig.RoundTrip(nothing))},
		{"a RoundTripper that hides the connection", scripted(t, resocktest.Hold(), rig.RoundTrip(hidden))},
		{"the Timeout of the HTTP client", scripted(t, resocktest.StallUpgrade(), timingOut(3*time.Second))},
	}
}

func nothing(*http.Request) (*http.Response, error) { return nil, nil }

// hidden upgrades, and hides the connection, as a RoundTripper does that wraps each body.
func hidden(r *http.Request) (*http.Response, error) {
	return http.ReadResponse(bufio.NewReader(bytes.NewReader(rig.Upgraded(r))), r)
}

// timingOut is the option of an HTTP client with a Timeout, whose server is silent.
func timingOut(d time.Duration) resock.Option {
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
	return resock.WithHTTPClient(&http.Client{Timeout: d, Transport: &http.Transport{DialContext: silent}})
}

func hookErrors(t *testing.T) []told {
	endpoint := func(e resock.Endpoint, err error) error {
		return scripted(t, resocktest.Hold(), resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return e, err }))
	}
	onOpen := func(step resocktest.Step, hook func(context.Context, *resock.Session) error) error {
		return scripted(t, step, resock.WithOnOpen(hook))
	}
	login := func(ctx context.Context, s *resock.Session) error {
		_, _, err := s.Receive(ctx)
		return err
	}
	leaky := fmt.Errorf("no token: %w", &url.Error{Op: "Get", URL: "https://login.test/?code=" + rig.Secret, Err: rig.ErrTest})
	return []told{
		{"WithEndpoint fails", endpoint(resock.Endpoint{}, rig.ErrTest)},
		{"WithEndpoint fails with a URL", endpoint(resock.Endpoint{}, leaky)},
		{"WithEndpoint returns a bad URL", endpoint(resock.Endpoint{URL: "https://server.test/?token=" + rig.Secret}, nil)},
		{"WithEndpoint returns a bad header", endpoint(resock.Endpoint{Header: http.Header{"X-Token": {rig.Secret + "\n"}}}, nil)},
		{"WithEndpoint returns a bad subprotocol", endpoint(resock.Endpoint{Subprotocols: []string{"a b"}}, nil)},
		{"WithEndpoint takes too long", scripted(t, resocktest.Hold(), resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			<-ctx.Done()
			return resock.Endpoint{}, ctx.Err()
		}))},
		{"WithEndpoint does not return", scripted(t, resocktest.Hold(), resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			<-time.After(12 * time.Second)
			return resock.Endpoint{}, nil
		}))},
		{"WithEndpoint ends its goroutine", scripted(t, resocktest.Hold(), resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			runtime.Goexit()
			return resock.Endpoint{}, nil
		}))},
		{"WithDialLimiter fails", scripted(t, resocktest.Hold(), resock.WithDialLimiter(rig.Limiter(func(context.Context) error { return rig.ErrTest })))},
		{"WithOnOpen fails", onOpen(resocktest.Hold(), func(context.Context, *resock.Session) error { return rig.ErrTest })},
		{"WithOnOpen takes too long", onOpen(resocktest.Hold(), login)},
		{"WithOnOpen does not return", onOpen(resocktest.Hold(), func(context.Context, *resock.Session) error { <-time.After(12 * time.Second); return nil })},
		{"the server closes during WithOnOpen", onOpen(resocktest.Serve(func(c *resocktest.Conn) { _ = c.Close(4401, "token expired") }), login)},
		{"the server hangs up during WithOnOpen", onOpen(resocktest.Serve((*resocktest.Conn).Drop), login)},
	}
}

func sessionErrors(t *testing.T) []told {
	raw := func(frame []byte, opts ...resock.Option) error {
		return scripted(t, resocktest.Serve(func(c *resocktest.Conn) { _ = c.Raw(frame); <-c.Done() }), opts...)
	}
	return []told{
		{"the server hangs up", scripted(t, resocktest.Serve((*resocktest.Conn).Drop))},
		{"the server resets the connection", scripted(t, resocktest.Serve((*resocktest.Conn).Reset))},
		{"a message that is too large", raw(resocktest.Frame(rig.Fin|rig.Text, make([]byte, 2<<20)))},
		{"a frame with reserved bits", raw(resocktest.Frame(rig.Fin|rig.RSV1|rig.Text, nil))},
		{"text that is none", raw(resocktest.Frame(rig.Fin|rig.Text, []byte("\xff")))},
		{"silence", scripted(t, resocktest.Serve(func(c *resocktest.Conn) { c.IgnorePings(); <-c.Done() }))},
		{"idleness", scripted(t, resocktest.Hold(), resock.WithHeartbeat(0, 0), resock.WithIdleTimeout(time.Minute))},
		{"a server that does not read", stalledWrite(t)},
	}
}

// stalledWrite returns why a session fails whose server does not read.
func stalledWrite(t *testing.T) (err error) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { c.StopReading(); <-c.Done() })
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0))
		client.Open()
		for range 8 {
			if err := client.Enqueue(resock.MessageBinary, make([]byte, 1<<20-1)); err != nil {
				t.Fatal(err)
			}
		}
		err = client.Fail(resock.PhaseWrite).Err
	})
	return err
}

func callErrors(t *testing.T) (all []told) {
	add := func(how string, err error) { all = append(all, told{how, err}) }
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		over, cancel := context.WithCancel(t.Context())
		cancel()
		text := []byte("text")
		s.Script(resocktest.Refuse())
		client := rig.Prepare(t, s.URL, rig.Reach(s), resock.WithMaxAttempts(1), resock.WithQueue(1, 100))
		add("Send of another type", client.Send(t.Context(), 9, text))
		add("Send of text that is none", client.Send(t.Context(), resock.MessageText, []byte("\xff")))
		add("Send that waits in vain", client.Send(over, resock.MessageText, text))
		add("Send with WithSession(0)", client.Send(t.Context(), resock.MessageText, text, resock.WithSession(0)))
		add("Send to a session that is over", client.Send(t.Context(), resock.MessageText, text, resock.WithSession(7)))
		expiring, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		add("Send that expires", client.Send(expiring, resock.MessageText, text, resock.WithTTL(time.Second)))
		add("Enqueue of too much at once", client.Enqueue(resock.MessageText, make([]byte, 101)))
		_ = client.Enqueue(resock.MessageText, text)
		add("Enqueue of too many", client.Enqueue(resock.MessageText, text))
		add("WaitOpen in vain", client.WaitOpen(over))
		add("Flush in vain", client.Flush(over))
		add("Close with a code that may not be sent", client.Close(1006, ""))
		client.Go()
		rig.Next[resock.FailEvent](client)
		<-client.Done()
		add("the end after WithMaxAttempts(1)", client.Err())
		add("Run again", client.Run(t.Context()))
		add("Send at the end", client.Send(t.Context(), resock.MessageText, text))
		add("WaitOpen at the end", client.WaitOpen(t.Context()))
		add("Shutdown at the end", client.Shutdown(t.Context()))
	})
	return all
}
