package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

// serves runs "resock serve" and returns it with its URL.
func serves(t *testing.T, args ...string) (*process, string) {
	t.Helper()
	p := start(t, append([]string{"serve", "-listen", "127.0.0.1:0"}, args...)...)
	p.stdout.await(t, "\n")
	return p, strings.TrimSpace(p.stdout.String())
}

// dial connects with coder/websocket, as a client that knows nothing of resock.
func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	conn, _, err := websocket.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	return conn
}

// says sends a message.
func says(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

// hears expects a message.
func hears(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, data, err := conn.Read(ctx)
	if err != nil {
		t.Fatalf("%v, want %q", err, want)
	}
	if string(data) != want {
		t.Fatalf("got %q, want %q", data, want)
	}
}

// ends expects the end of the connection.
func ends(t *testing.T, conn *websocket.Conn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, data, err := conn.Read(ctx)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("got %q and %v, want the end", data, err)
	}
	return err
}

// lives runs a resock client and returns its events.
func lives(t *testing.T, url string, opts ...resock.Option) (*resock.Client, <-chan resock.Event) {
	t.Helper()
	client, err := resock.New(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan resock.Event)
	checked := new(grammar.Checker).All(t, client.Subscribe(context.Background()))
	go func() {
		defer close(events)
		for e := range checked {
			events <- e
		}
	}()
	go client.Run(context.Background())
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		for range events {
		}
	})
	return client, events
}

// await returns the next event of type E.
func await[E resock.Event](t *testing.T, events <-chan resock.Event) E {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case e, ok := <-events:
			if wanted, is := e.(E); is {
				return wanted
			}
			if !ok {
				t.Fatal("the client is closed")
			}
		case <-deadline:
			t.Fatalf("no %T", *new(E))
		}
	}
}

func TestServeEchoes(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"off", "context", "message"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			p, url := serves(t, "-compression", mode, "-subprotocol", "chat.v2")
			conn, response, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{
				CompressionMode: websocket.CompressionContextTakeover, Subprotocols: []string{"chat.v2"},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.CloseNow()
			if deflated := response.Header.Get("Sec-WebSocket-Extensions") != ""; deflated != (mode != "off") {
				t.Errorf("extensions: %q", response.Header.Get("Sec-WebSocket-Extensions"))
			}
			conn.SetReadLimit(-1)
			long := strings.Repeat("a long message ", 1<<16)
			for _, text := range []string{"", "hello", long} {
				says(t, conn, text)
				hears(t, conn, text)
			}
			if err := conn.Write(t.Context(), websocket.MessageBinary, []byte{0, 1, 255}); err != nil {
				t.Fatal(err)
			}
			if typ, data, err := conn.Read(t.Context()); err != nil || typ != websocket.MessageBinary || string(data) != "\x00\x01\xff" {
				t.Errorf("got %v %q %v", typ, data, err)
			}
			if err := conn.Close(websocket.StatusNormalClosure, "bye"); err != nil {
				t.Error(err)
			}
			p.stderr.await(t, `#1 closed by the client: 1000 "bye"`)
			p.stderr.has(t, "subprotocol chat.v2")
		})
	}
}

func TestServePushes(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-push", "10ms", "-push-text", "{n} of {m} at {time}")
	conn := dial(t, url)
	for n := 1; n <= 3; n++ {
		_, data, err := conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		prefix := fmt.Sprintf("%d of {m} at ", n)
		at, ok := strings.CutPrefix(string(data), prefix)
		if _, err := time.Parse(time.RFC3339, at); err != nil || !ok {
			t.Errorf("got %q, want %q and a time", data, prefix)
		}
	}
}

func TestServePushesSizedBinaryAndCounted(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-push", "100000/s", "-push-size", "70k", "-push-binary", "-push-count", "5", "-echo")
	conn := dial(t, url)
	conn.SetReadLimit(-1)
	for n := 1; n <= 5; n++ {
		typ, data, err := conn.Read(t.Context())
		if err != nil || typ != websocket.MessageBinary || len(data) != 70<<10 || !strings.HasPrefix(string(data), fmt.Sprintf("push %d..", n)) {
			t.Fatalf("got %v, %d bytes, %.20q, %v", typ, len(data), data, err)
		}
	}
	says(t, conn, "nothing after them")
	hears(t, conn, "nothing after them")
}

// faultTests say what clients see of the faults that hit a connection. Each is asked for
// by the client, typed at the server, and set by a flag.
var faultTests = []struct {
	fault string
	coder func(error) bool // what ends the connection
	event func(resock.Event) bool
}{
	{"drop", isReset, failsIn(resock.PhaseRead)},
	{"end", isEOF, failsIn(resock.PhaseRead)},
	{"close 1012 restart", closesWith(1012, "restart"), closedWith(1012, "restart")},
	{"close 4001", closesWith(4001, ""), closedWith(4001, "")},
	{"close", closesWith(websocket.StatusNoStatusRcvd, ""), closedWith(websocket.StatusNoStatusRcvd, "")},
	{"close 1005 odd", isOdd, failsIn(resock.PhaseProtocol)},
	{"close 2999", isOdd, failsIn(resock.PhaseProtocol)},
	{"garbage", isOdd, failsIn(resock.PhaseProtocol)},
	{"half", isEOF, failsIn(resock.PhaseRead)},
}

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) || runtime.GOOS == "windows" }
func isEOF(err error) bool   { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
func isOdd(err error) bool   { return err != nil && !isReset(err) && !errors.Is(err, io.EOF) }

func closesWith(code websocket.StatusCode, reason string) func(error) bool {
	return func(err error) bool {
		closed := websocket.CloseError{}
		return errors.As(err, &closed) && closed.Code == code && closed.Reason == reason
	}
}

func closedWith(code resock.StatusCode, reason string) func(resock.Event) bool {
	return func(e resock.Event) bool {
		closed, ok := e.(resock.CloseEvent)
		return ok && closed.Code == code && closed.Reason == reason && closed.Clean
	}
}

func failsIn(phase resock.Phase) func(resock.Event) bool {
	return func(e resock.Event) bool {
		failed, ok := e.(resock.FailEvent)
		return ok && failed.Phase == phase && failed.Session > 0
	}
}

func TestFaultsOnDemand(t *testing.T) {
	t.Parallel()
	for _, test := range faultTests {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			p, url := serves(t)
			conn := dial(t, url)
			says(t, conn, "hello")
			hears(t, conn, "hello")
			says(t, conn, "/"+test.fault)
			if err := ends(t, conn); !test.coder(err) {
				t.Errorf("asked for: %v", err)
			}
			p.stderr.await(t, "#1 fault: "+test.fault)

			conn = dial(t, url)
			says(t, conn, "hello")
			hears(t, conn, "hello")
			p.enter(test.fault)
			if err := ends(t, conn); !test.coder(err) {
				t.Errorf("typed: %v", err)
			}
			p.stderr.await(t, "#2 fault: "+test.fault)
			wantEnded(t, p, 2)
		})
	}
}

// wantEnded waits until the server has told how a connection ended.
func wantEnded(t *testing.T, p *process, n int) {
	t.Helper()
	p.stderr.until(t, fmt.Sprintf("the end of #%d", n), func(all string) bool {
		for line := range strings.Lines(all) {
			if _, line, _ = strings.Cut(line, " "); strings.HasPrefix(line, fmt.Sprintf("#%d ended by the server", n)) ||
				strings.HasPrefix(line, fmt.Sprintf("#%d closed by the", n)) || strings.HasPrefix(line, fmt.Sprintf("#%d lost", n)) {
				return true
			}
		}
		return false
	})
}

func TestFaultsAgainstResock(t *testing.T) {
	t.Parallel()
	for _, test := range faultTests {
		t.Run(test.fault, func(t *testing.T) {
			t.Parallel()
			_, url := serves(t, "-fault", "after 50ms "+test.fault)
			_, events := lives(t, url, resock.WithBackoff(time.Millisecond, 10*time.Millisecond))
			await[resock.OpenEvent](t, events)
			if e := <-events; !test.event(e) {
				t.Errorf("got %#v", e)
			}
			if open := await[resock.OpenEvent](t, events); open.Session != 2 {
				t.Errorf("session %d, want 2", open.Session)
			}
		})
	}
}

// TestFaultsThatSilence lets a client find out by its heartbeat.
func TestFaultsThatSilence(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"stall", "deaf", "no-pongs"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			_, url := serves(t, "-fault", "after 50ms "+fault)
			_, events := lives(t, url, resock.WithHeartbeat(50*time.Millisecond, 200*time.Millisecond),
				resock.WithBackoff(time.Millisecond, 10*time.Millisecond))
			if e := await[resock.FailEvent](t, events); e.Phase != resock.PhaseHeartbeat || !errors.Is(e.Err, resock.ErrHeartbeat) {
				t.Errorf("got %+v", e)
			}
			await[resock.OpenEvent](t, events)
		})
	}
}

func TestFaultsThatLastAndEnd(t *testing.T) {
	t.Parallel()
	for _, fault := range []string{"stall", "deaf"} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			p, url := serves(t)
			conn := dial(t, url)
			began := time.Now()
			says(t, conn, "/"+fault+" for 100ms")
			p.stderr.await(t, "fault: "+fault) // else it may have read what follows already
			says(t, conn, "hello")
			hears(t, conn, "hello")
			if took := time.Since(began); took < 100*time.Millisecond {
				t.Errorf("heard after %v", took)
			}
			says(t, conn, "/"+fault)
			p.stderr.until(t, "the second fault", func(all string) bool { return strings.Count(all, "fault: "+fault) == 2 })
			says(t, conn, "hello again")
			p.enter("ok")
			hears(t, conn, "hello again")
		})
	}
}

func TestFaultSilence(t *testing.T) {
	t.Parallel()
	_, url := serves(t)
	conn := dial(t, url)
	for _, text := range []string{"/silence", "not heard", "/ok", "heard"} {
		says(t, conn, text)
	}
	hears(t, conn, "heard")
}

func TestSilenceStopsPushes(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-push", "1ms", "-fault", "silence")
	conn := dial(t, url)
	reading := conn.CloseRead(t.Context()) // a message would end the connection
	for range 10 {
		if err := conn.Ping(reading); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSlow(t *testing.T) {
	t.Parallel()
	p, url := serves(t)
	conn := dial(t, url)
	conn.SetReadLimit(-1)
	says(t, conn, "/slow 10000")
	p.stderr.await(t, "fault: slow")
	began := time.Now()
	text := strings.Repeat("x", 5000)
	says(t, conn, text)
	hears(t, conn, text)
	if took := time.Since(began); took < 800*time.Millisecond { // half a second each way
		t.Errorf("5000 bytes there and back at 10000 a second took %v", took)
	}
}

// TestSlowEnds checks that what was read, and waits to be slow, goes on when the fault ends.
func TestSlowEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		g := newGate(ours)
		defer g.Close()
		go func() {
			time.Sleep(time.Second)
			g.change(func() { g.slow.begin(0); g.rate = 1 })
			_, _ = theirs.Write(make([]byte, 1000))
			time.Sleep(time.Second)
			g.change(func() { g.slow.clear() })
		}()
		began := time.Now()
		if n, err := g.Read(make([]byte, 1000)); n != 1000 || err != nil {
			t.Errorf("got %d bytes, %v", n, err)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestEndlessBursts checks that the messages of a burst are no reason for the next one.
func TestEndlessBursts(t *testing.T) {
	t.Parallel()
	p, url := serves(t, "-fault", "every 10 messages burst 20")
	conn := dial(t, url)
	for range 5 { // and their echoes
		says(t, conn, "hello")
		hears(t, conn, "hello")
	}
	for n := range 20 {
		hears(t, conn, fmt.Sprintf("burst %d of 20", n+1))
	}
	says(t, conn, "/explode") // the answer is the last message
	if _, data, err := conn.Read(t.Context()); err != nil || strings.HasPrefix(string(data), "burst") {
		t.Errorf("got %q, %v", data, err)
	}
	if n := strings.Count(p.stderr.String(), "fault: "); n != 1 {
		t.Errorf("%d bursts", n)
	}
}

// TestCloseIsTheLastFrame checks that pushes end with the close frame, whether the client
// answers it or not.
func TestCloseIsTheLastFrame(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-push", "100000/s", "-fault", "after 50ms close 1012")
	c, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(url, "ws:"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	want := appendFrame(nil, opClose, []byte{1012 >> 8, 1012 & 0xff})
	if !bytes.HasSuffix(all, want) {
		t.Errorf("after the close frame came %d bytes", len(all)-len(want)-bytes.LastIndex(all, want))
	}
}

func TestBurstAndCount(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-fault", "every 3 messages burst 1 20")
	conn := dial(t, url)
	says(t, conn, "one") // and its echo: two messages
	hears(t, conn, "one")
	says(t, conn, "two")
	seen := map[string]bool{}
	for range 2 {
		_, data, err := conn.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[string(data)] = true
	}
	if !seen["two"] || !seen["burst 1 of 1........"] {
		t.Errorf("got %v", seen)
	}
}

func TestNewConnectionsFail(t *testing.T) {
	t.Parallel()
	p, url := serves(t, "-fault", "status 503 retry-after 90ms 1 times")
	_, response, err := websocket.Dial(t.Context(), url, nil)
	if err == nil || response.StatusCode != http.StatusServiceUnavailable || response.Header.Get("Retry-After") != "1" {
		t.Fatalf("got %v", err)
	}
	says(t, dial(t, url), "/refuse 2 times")
	p.stderr.await(t, "refuse 2 times") // taken on the reading goroutine
	for range 2 {
		fresh := &http.Client{Transport: new(http.Transport)} // http.DefaultTransport may have a connection already
		_, response, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: fresh})
		if err == nil || response != nil {
			t.Fatalf("connected, or %v", err)
		}
	}
	_ = dial(t, url).CloseNow()

	p.enter("hang")
	p.stderr.await(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := websocket.Dial(ctx, url, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	answered := make(chan error, 1)
	go func() {
		conn, _, err := websocket.Dial(t.Context(), url, nil)
		if err == nil {
			_ = conn.CloseNow()
		}
		answered <- err
	}()
	p.stderr.until(t, "both requests", func(all string) bool { return strings.Count(all, ": hang\n") >= 3 })
	p.enter("ok")
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestServeRequires(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-require-header", "X-Key: a,b", "-require-token", "s3cret")
	for _, test := range []struct {
		query, key, authorization string
		ok                        bool
	}{
		{"", "", "", false},
		{"", "a,b", "", false},
		{"", "", "Bearer s3cret", false},
		{"", "a,b", "Bearer s3cret", true},
		{"?token=s3cret", "a,b", "", true},
		{"?token=other", "a,b", "", false},
	} {
		header := http.Header{}
		header.Set("X-Key", test.key)
		header.Set("Authorization", test.authorization)
		conn, response, err := websocket.Dial(t.Context(), url+test.query, &websocket.DialOptions{HTTPHeader: header})
		if (err == nil) != test.ok || err != nil && response.StatusCode != http.StatusUnauthorized {
			t.Errorf("%+v: %v", test, err)
		}
		if err == nil {
			_ = conn.CloseNow()
		}
	}
}

func TestServeTLS(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	_, url := serves(t, "-tls", "-cert-out", file, "-fault", "after 2 messages drop")
	if !strings.HasPrefix(url, "wss://") {
		t.Fatal(url)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		t.Fatal("no certificate")
	}
	conn, _, err := websocket.Dial(t.Context(), url, &websocket.DialOptions{HTTPClient: &http.Client{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	says(t, conn, "hello")
	hears(t, conn, "hello")
	if err := ends(t, conn); !isReset(err) {
		t.Errorf("got %v, want a reset, beneath TLS too", err)
	}
}

// TestServeEverywhere checks that the URL of a server on all addresses can be used.
func TestServeEverywhere(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca.pem")
	_, url := serves(t, "-listen", ":0", "-tls", "-cert-out", file)
	runs(t, 0, "-E", "-cacert", file, "-attempts", "1", url)
}

// TestServeLogIsPlain checks that a client can neither control the terminal nor write lines
// of its own.
func TestServeLogIsPlain(t *testing.T) {
	t.Parallel()
	p, url := serves(t)
	conn := dial(t, url+"%1b%5b31mred%0aforged")
	p.stderr.await(t, `to /\x1b[31mred\x0aforged`+"\n")
	says(t, conn, "/close 4001 \x1b[31m")
	_ = ends(t, conn)
	p.stderr.await(t, `fault: close 4001 \x1b[31m`)
}

// TestEveryMessagesOK checks that a fault that waits for messages leaves new connections,
// which have none, alone.
func TestEveryMessagesOK(t *testing.T) {
	t.Parallel()
	p, url := serves(t)
	conn := dial(t, url)
	p.stderr.await(t, "#1 connected") // else what is typed may come too early for it
	p.enter("status 503", "every 2 messages ok", "slow 100000000")
	p.stderr.await(t, "fault: slow")
	says(t, conn, "hello")
	hears(t, conn, "hello")
	p.stderr.await(t, "#1 fault: every 2 messages ok")
	if text := p.stderr.String(); strings.Count(text, "messages ok") != 1 {
		t.Errorf("got %s", text)
	}
}

func TestServePings(t *testing.T) {
	t.Parallel()
	p, url := serves(t, "-ping", "20ms")
	conn := dial(t, url)
	go conn.Read(t.Context()) // answers pings
	p.stderr.await(t, "#1 pong after")
	deaf := dial(t, url)
	p.stderr.await(t, "#2 no pong within 20ms")
	_ = deaf.CloseNow()
}

func TestServeGoesAway(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("no signals")
	}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		p, url := serves(t)
		conn := dial(t, url)
		p.stderr.await(t, "#1 connected")
		stalled := dial(t, url)
		says(t, stalled, "/stall")
		p.stderr.await(t, "fault: stall")
		if err := p.command.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := ends(t, conn); !closesWith(websocket.StatusGoingAway, goingAway)(err) {
			t.Errorf("got %v", err)
		}
		p.exits(exitDone) // though one connection stands still
		p.stderr.has(t, "#1 closed by the server (it is going away)")
	}
}

func TestServeUsage(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	garbage := filepath.Join(t.TempDir(), "garbage")
	if err := os.WriteFile(garbage, []byte("no recording\nat all\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		code int
		says string
		args []string
	}{
		{exitFailed, "in use", []string{taken.Addr().String()}},
		{exitUsage, "one address", []string{"127.0.0.1:0", "b"}},
		{exitUsage, "given twice", []string{"-listen", "127.0.0.1:0", "127.0.0.1:0"}},
		{exitUsage, "none of drop", []string{"-fault", "explode"}},
		{exitUsage, "no number of messages", []string{"-fault", "after x messages drop"}},
		{exitUsage, "a duration is wanted", []string{"-fault", "after soon drop"}},
		{exitUsage, "is missing", []string{"-fault", "after 1s"}},
		{exitUsage, "not expected", []string{"-fault", "drop now"}},
		{exitUsage, "no close code", []string{"-fault", "close soon"}},
		{exitUsage, "at most 123", []string{"-fault", "close 1000 " + strings.Repeat("x", 124)}},
		{exitUsage, "HTTP status", []string{"-fault", "status 99"}},
		{exitUsage, "new connections", []string{"-fault", "after 3 messages refuse"}},
		{exitUsage, "must be positive", []string{"-fault", "stall for 0s"}},
		{exitUsage, "bytes per second", []string{"-fault", "slow 0"}},
		{exitUsage, "-key needs -cert", []string{"-key", "x"}},
		{exitUsage, "-cert-out needs -tls", []string{"-cert-out", "x"}},
		{exitUsage, "need -replay", []string{"-loop"}},
		{exitUsage, "need -push", []string{"-push-size", "10"}},
		{exitUsage, "a rate is wanted", []string{"-push", "fast/s"}},
		{exitUsage, "must be positive", []string{"-push", "0"}},
		{exitUsage, "-compression", []string{"-compression", "zip"}},
		{exitUsage, "-require-header", []string{"-require-header", "x"}},
		{exitUsage, "-ping -1s: must not be negative", []string{"-ping", "-1"}},
		{exitUsage, "-speed NaN", []string{"-speed", "NaN", "-replay", garbage}},
		{exitFailed, "no such file", []string{"-replay", "/nowhere"}},
		{exitFailed, "line 1 is no line of a recording", []string{"-replay", garbage}},
	} {
		p := runs(t, test.code, append([]string{"serve"}, test.args...)...)
		p.stderr.has(t, test.says)
		p.stdout.is(t, "")
	}
}

func TestServeTellsMistakes(t *testing.T) {
	t.Parallel()
	p, url := serves(t)
	conn := dial(t, url)
	says(t, conn, "/explode")
	hears(t, conn, `resock serve: fault "explode": "explode" is none of `+faultNames()+"; help lists all")
	says(t, conn, "/help")
	hears(t, conn, faultHelp())
	p.enter("explode", "help", "drop")
	if err := ends(t, conn); !isReset(err) {
		t.Errorf("got %v", err)
	}
	p.stderr.await(t, `"explode" is none of`)
	p.stderr.await(t, faultHelp())
}

func TestServeWithoutCommands(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-commands", "")
	conn := dial(t, url)
	says(t, conn, "/drop")
	hears(t, conn, "/drop")
}
