package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/urfave/cli/v3"

	"github.com/resock/resock/resocktest"
)

// soon makes attempts follow each other fast.
const soon = "-backoff=10ms"

// file writes a file for one test, and returns its name.
func file(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestHeader(t *testing.T) {
	server := resocktest.NewServer(t)
	more := file(t, "header", "X-File: from a file\n\nX-Both: two\r\n")
	start(t, "-H", "X-Comma: a, b,c", "-header", "X-Both:one", server.URL, "--header=Authorization: Bearer xyz", "-H", "@"+more)
	header := server.Accept().Request().Header
	for name, want := range map[string]string{"X-Comma": "a, b,c", "X-Both": "one|two", "Authorization": "Bearer xyz", "X-File": "from a file"} {
		if got := strings.Join(header.Values(name), "|"); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// TestHeaderIsReadAnew checks that an attempt has what the file says by then.
func TestHeaderIsReadAnew(t *testing.T) {
	server := resocktest.NewServer(t)
	token := file(t, "token", "Authorization: Bearer one\n")
	p := start(t, "-H", "@"+token, "-H", "X-Fixed: yes", soon, server.URL)
	conn := server.Accept()
	if got := conn.Request().Header.Get("Authorization"); got != "Bearer one" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(token, []byte("Authorization: Bearer two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn.Drop()
	conn = server.Accept()
	if got := conn.Request().Header; got.Get("Authorization") != "Bearer two" || got.Get("X-Fixed") != "yes" {
		t.Errorf("got %q", got)
	}
	if err := os.WriteFile(token, []byte("@"+token), 0o600); err != nil { // no file within a file
		t.Fatal(err)
	}
	conn.Drop()
	p.stderr.await(t, `-header wants "Name: value"; next attempt`)
}

func TestCloseCode(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-n", "1", "-close-code", "4001", "-close-reason", "seen enough", server.URL)
	conn := server.Accept()
	push(t, conn, "hello")
	<-conn.Done()
	if closed := conn.Received().Close; closed == nil || closed.Code != 4001 || closed.Reason != "seen enough" {
		t.Errorf("got %v", closed)
	}
	p.exits(exitDone)
}

func TestSubprotocol(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Upgrade(http.Header{"Sec-Websocket-Protocol": {"second"}}, nil))
	p := start(t, "-s", "first", "-subprotocol", "second", server.URL)
	if got := server.Accept().Request().Header.Get("Sec-WebSocket-Protocol"); got != "first, second" && got != "first,second" {
		t.Errorf("offered: %q", got)
	}
	p.stderr.await(t, "subprotocol second")
}

func TestCompression(t *testing.T) {
	for mode, offer := range map[string]struct{ with, without string }{
		"off":     {"", "permessage-deflate"},
		"context": {"permessage-deflate", "server_no_context_takeover"},
		"message": {"server_no_context_takeover", "\n"},
	} {
		t.Run(mode, func(t *testing.T) {
			text := strings.Repeat("compress me ", 1000)
			offered := make(chan string, 1)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				offered <- r.Header.Get("Sec-WebSocket-Extensions")
				conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
				if err != nil {
					return
				}
				_ = conn.Write(r.Context(), websocket.MessageText, []byte(text))
				_, _, _ = conn.Read(r.Context())
			}))
			defer server.Close()
			p := runs(t, 0, "-compression", mode, "-n", "1", "ws"+strings.TrimPrefix(server.URL, "http"))
			p.stdout.is(t, text+"\n")
			if got := <-offered; !strings.Contains(got, offer.with) || strings.Contains(got, offer.without) {
				t.Errorf("offered %q", got)
			}
		})
	}
}

// proxy is an HTTP proxy that counts its tunnels.
func proxy(t *testing.T, tunnels chan<- string) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tunnels <- r.Method + " " + r.Host
		there, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go io.Copy(there, bufio.NewReader(buffer))
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestProxy(t *testing.T) {
	tunnels := make(chan string, 1)
	url := proxy(t, tunnels)
	server := resocktest.NewServer(t)
	server.Script(resocktest.Echo())
	runs(t, 0, "-x", url, "-request", "hi", server.URL).stdout.is(t, "hi\n")
	if got, want := <-tunnels, "CONNECT "+strings.TrimPrefix(server.URL, "ws://"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	runs(t, 0, "-proxy", "none", "-request", "hi", server.URL)
	if len(tunnels) > 0 {
		t.Error(`-proxy none went through the proxy`)
	}
	for _, wrong := range []string{"http://user:secret%zz@proxy", "ftp://proxy", "proxy:3128"} {
		p := runs(t, exitUsage, "-proxy", wrong, server.URL)
		if strings.Contains(p.stderr.String(), "secret") {
			t.Error("a secret is told")
		}
	}
}

func TestTrust(t *testing.T) {
	server := resocktest.NewTLSServer(t)
	server.Script(resocktest.Echo())
	certificate := server.TLS.Certificates[0].Certificate[0]
	ca := file(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})))
	runs(t, 0, "-cacert", ca, "-request", "hi", server.URL).stdout.is(t, "hi\n")
	runs(t, 0, "-k", "-request", "hi", server.URL).stdout.is(t, "hi\n")
	runs(t, exitFailed, "-attempts", "1", server.URL).stderr.has(t, "certificate")
	runs(t, exitUsage, "-cacert", file(t, "empty.pem", "nothing"), server.URL).stderr.has(t, "no certificate in")
	runs(t, exitUsage, "-cacert", ca+".missing", server.URL).stderr.has(t, "-cacert")
}

// writeCertificate writes a client certificate with a serial number, and its key.
func writeCertificate(t *testing.T, serial int64, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "client"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			err = pem.Encode(f, &pem.Block{Type: kind, Bytes: der})
			_ = f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	_, _ = os.Remove(certFile), os.Remove(keyFile)
	write(certFile, "CERTIFICATE", certificate)
	write(keyFile, "PRIVATE KEY", private)
}

// TestClientCertificate checks that a renewed certificate counts at the next attempt.
func TestClientCertificate(t *testing.T) {
	for _, files := range []int{1, 2} {
		t.Run(fmt.Sprint(files), func(t *testing.T) {
			server := resocktest.NewTLSServer(t)
			serials := make(chan int64, 10)
			server.TLS.ClientAuth = tls.RequireAnyClientCert
			server.TLS.VerifyConnection = func(state tls.ConnectionState) error {
				serials <- state.PeerCertificates[0].SerialNumber.Int64()
				return nil
			}
			server.Script(resocktest.Hold()) // after the configuration was changed
			cert := filepath.Join(t.TempDir(), "cert.pem")
			key, args := cert, []string{"-k", "-cert", cert, soon, server.URL}
			if files == 2 {
				key = filepath.Join(t.TempDir(), "key.pem")
				args = append([]string{"-key", key}, args...)
			}
			writeCertificate(t, 1, cert, key)
			p := start(t, args...)
			conn := server.Accept()
			p.stderr.await(t, "connected")
			writeCertificate(t, 2, cert, key)
			conn.Drop()
			server.Accept()
			if first, second := <-serials, <-serials; first != 1 || second != 2 {
				t.Errorf("the server saw the certificates %d and %d", first, second)
			}
		})
	}
	server := resocktest.NewServer(t)
	runs(t, exitUsage, "-cert", "missing.pem", server.URL).stderr.has(t, "-cert")
	runs(t, exitUsage, "-key", "missing.pem", server.URL).stderr.has(t, "-key needs -cert")
}

func TestConnectTimeout(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.StallUpgrade())
	p := runs(t, exitFailed, "-connect-timeout", "0.05", "-attempts", "1", server.URL)
	p.stderr.has(t, "took longer than -connect-timeout 50ms")
}

func TestHeartbeat(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-heartbeat", "50ms", "-heartbeat-timeout", "100ms", soon, server.URL)
	conn := server.Accept()
	p.stderr.await(t, "connected")
	conn.IgnorePings()
	p.stderr.await(t, "heartbeat timed out")
	p.stderr.await(t, "connected again")
	if len(conn.Received().Pings) == 0 {
		t.Error("no ping came")
	}
}

func TestHeartbeatText(t *testing.T) {
	server := resocktest.NewServer(t)
	start(t, "-ping-interval", "20ms", "-ping-timeout", "0", "-heartbeat-text", `{"op":"ping"}`, server.URL)
	conn := server.Accept()
	for range 2 {
		if got := read(t, conn); got != `{"op":"ping"}` {
			t.Errorf("got %q", got)
		}
	}
	if n := len(conn.Received().Pings); n > 0 {
		t.Errorf("%d pings came, too", n)
	}
}

func TestIdleTimeout(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-idle-timeout", "50ms", soon, server.URL)
	p.stderr.await(t, "connected again")
	p.stderr.has(t, "heartbeat timed out")
}

func TestAttempts(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Status(http.StatusServiceUnavailable, nil, ""))
	p := runs(t, exitFailed, "-attempts", "3", soon, server.URL)
	if n := len(server.Attempts()); n != 3 {
		t.Errorf("%d attempts", n)
	}
	p.stderr.has(t, "attempt 3 failed")
	p.stderr.has(t, "gave up after 3 failed attempts")
}

func TestBackoff(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Refuse())
	p := start(t, "-json", "-backoff", "1ms", "-backoff-max", "3ms", server.URL)
	p.stdout.until(t, "ten attempts", func(text string) bool { return strings.Count(text, "\n") >= 10 })
	text := p.stdout.String()
	for _, e := range entries(t, text[:strings.LastIndex(text, "\n")+1]) {
		if e.RetryIn > 0.003 {
			t.Errorf("the next attempt is in %v s", e.RetryIn)
		}
	}
	runs(t, exitUsage, "-backoff", "2s", "-backoff-max", "1s", server.URL).stderr.has(t, "-backoff 1s: the maximum is below the initial delay")
	p = start(t, "-backoff-max", "100ms", server.URL) // below the default of -backoff
	p.stderr.await(t, "attempt 2 failed")
}

func TestReadLimit(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-read-limit", "1k", soon, server.URL)
	conn := server.Accept()
	push(t, conn, strings.Repeat("x", 1024))
	p.stdout.await(t, "xxx\n")
	push(t, conn, strings.Repeat("x", 1025))
	p.stderr.await(t, "1009: a message is larger than -read-limit 1024; next attempt")
}

// TestPreamble checks that a preamble is sent on every connection, before lines that wait.
func TestPreamble(t *testing.T) {
	server := resocktest.NewServer(t)
	lines := file(t, "preamble", "from a file\nand more, with a comma\n")
	p := start(t, "-preamble", "login", "-preamble", "subscribe a,b", "-preamble-file", lines, soon, server.URL)
	want := []string{"from a file", "and more, with a comma", "login", "subscribe a,b"}
	conn := server.Accept()
	for _, text := range want {
		if got := read(t, conn); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	p.stderr.await(t, "connected")
	server.Stop()
	p.stderr.await(t, "failed")
	p.enter("typed meanwhile")
	server.Restart()
	conn = server.Accept()
	for _, text := range append(want, "typed meanwhile") {
		if got := read(t, conn); got != text {
			t.Errorf("got %q, want %q", got, text)
		}
	}
	runs(t, exitUsage, "-preamble-file", lines+".missing", server.URL).stderr.has(t, "-preamble-file")
}

func TestRequest(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-request", "question", "-preamble", "login", soon, server.URL)
	for range 2 { // the first connection is lost before the answer
		conn := server.Accept()
		if got := read(t, conn) + " " + read(t, conn); got != "login question" {
			t.Errorf("got %q", got)
		}
		p.stdout.is(t, "")
		if len(server.Attempts()) == 1 {
			conn.Drop()
			continue
		}
		if err := conn.Raw(append(resocktest.Frame(0x81, []byte("answer")), resocktest.Frame(0x81, []byte("no answer"))...)); err != nil {
			t.Fatal(err)
		}
	}
	p.exits(0)
	p.stdout.is(t, "answer\n")
	runs(t, exitTimeout, "-request", "", "-silence", "0.1", server.URL).stderr.has(t, "no answer for 100ms")
}

func TestBinary(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-b", server.URL)
	p.enter("line")
	m, err := server.Accept().Read()
	if err != nil || m.Type != websocket.MessageBinary || string(m.Data) != "line" {
		t.Errorf("got %v %q, %v", m.Type, m.Data, err)
	}
}

func TestCount(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-n", "2", server.URL)
	conn := server.Accept()
	var frames []byte
	for _, text := range []string{"one", "two", "three"} {
		frames = append(frames, resocktest.Frame(0x81, []byte(text))...)
	}
	if err := conn.Raw(frames); err != nil {
		t.Fatal(err)
	}
	p.exits(0)
	p.stdout.is(t, "one\ntwo\n")
	<-conn.Done()
	if c := conn.Received().Close; c == nil || c.Code != websocket.StatusNormalClosure {
		t.Errorf("close: %+v", c)
	}
}

// TestSilence checks that the silence counts from the last message.
func TestSilence(t *testing.T) {
	server := resocktest.NewServer(t)
	began := time.Now()
	p := start(t, "-silence", "300ms", server.URL)
	conn := server.Accept()
	p.stderr.await(t, "connected")
	push(t, conn, "a message")
	pushed := time.Now()
	p.exits(exitTimeout)
	if since := time.Since(pushed); since < 280*time.Millisecond {
		t.Errorf("it took %v from the message, %v in all", since, time.Since(began))
	}
	p.stdout.is(t, "a message\n")
	p.stderr.has(t, "no message for 300ms")
	server.Stop()
	runs(t, exitTimeout, "-silence", "50ms", server.URL) // without a connection
}

// TestExitOnEOF checks that all is sent, and read by the server, before the program ends.
func TestExitOnEOF(t *testing.T) {
	const lines = 10000
	received := make(chan int, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		for n := 0; ; n++ {
			_, data, err := conn.Read(context.Background())
			if err != nil {
				received <- n
				return
			}
			if string(data) != fmt.Sprint(n+1) {
				t.Errorf("line %d is %q", n+1, data)
			}
		}
	}))
	defer server.Close()
	var input strings.Builder
	for n := range lines {
		fmt.Fprintln(&input, n+1)
	}
	p := prepare(t, "-E", "ws"+strings.TrimPrefix(server.URL, "http"))
	p.command.Stdin = strings.NewReader(strings.TrimSuffix(input.String(), "\n")) // the last line is one, too
	p.run()
	p.exits(0)
	if n := <-received; n != lines {
		t.Errorf("%d of %d lines came", n, lines)
	}
	runs(t, exitUsage, "-E", "-request", "x", "ws://127.0.0.1:1")
}

// TestExitOnEOFWhenLost checks that it is told, and seen in the exit code, if the server may
// not have read everything.
func TestExitOnEOFWhenLost(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-E", soon, server.URL)
	conn := server.Accept()
	conn.IgnorePings()
	p.enter("a line")
	_ = p.stdin.Close()
	read(t, conn)
	for len(conn.Received().Pings) == 0 { // the program asks whether it was read
		if err := conn.Ping(""); err != nil {
			t.Fatal(err)
		}
	}
	conn.Drop()
	p.exits(exitFailed)
	p.stderr.has(t, "resock: what was sent last may not have arrived: ")
}

func TestControl(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-control", "-heartbeat", "20ms", server.URL)
	conn := server.Accept()
	p.stderr.await(t, "pong")
	if err := conn.Ping("are you there"); err != nil {
		t.Fatal(err)
	}
	p.stderr.await(t, `ping "are you there"`)
	p.stderr.await(t, ", round trip ")
	if err := conn.Close(4000, "enough \x1b[2J"); err != nil {
		t.Fatal(err)
	}
	p.stderr.await(t, `code 4000, reason "enough \x1b[2J"; next attempt in`)
	p.stdout.is(t, "")

	p = start(t, "-json", "-control", server.URL)
	conn = server.Accept()
	if err := conn.Ping("x"); err != nil {
		t.Fatal(err)
	}
	p.stdout.await(t, `"event":"ping","session":1,"binary":"eA=="`)
}

// TestControlInOrder checks that a ping stands before the messages that came after it, and
// within its session.
func TestControlInOrder(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Handle(func(c *resocktest.Conn) {
		_ = c.Ping("first")
		for n := range 200 {
			_ = c.Push(fmt.Sprint(n))
			_ = c.Ping(fmt.Sprint(n))
		}
		_ = c.Ping("last")
		_ = c.Close(websocket.StatusGoingAway, "")
	})
	p := runs(t, exitTimeout, "-json", "-control", "-heartbeat", "0", "-backoff", "1h", "-backoff-max", "1h", "-silence", "1s", server.URL)
	all := entries(t, p.stdout.String())
	if len(all) != 404 || all[0].Event != "open" || string(all[1].Binary) != "first" || all[403].Event != "close" {
		t.Fatalf("%d entries: %+v … %+v", len(all), all[0], all[len(all)-1])
	}
	messages, pings := 0, 0
	for _, e := range all[2:403] {
		if e.Event == "message" {
			messages++
			continue
		}
		want := fmt.Sprint(pings)
		if pings == 200 {
			want = "last"
		}
		if string(e.Binary) != want || messages > pings+1 {
			t.Fatalf("ping %s is the %dth and comes after %d messages", e.Binary, pings, messages)
		}
		pings++
	}
}

func TestRoundTrips(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-rtt", "-q", "-heartbeat", "20ms", server.URL)
	conn := server.Accept()
	p.stderr.await(t, "resock: round trip ")
	if err := conn.Pong("unasked"); err != nil {
		t.Fatal(err)
	}
	push(t, conn, "after the pong")
	p.stdout.await(t, "after the pong")
	if text := p.stderr.String(); strings.Contains(text, "unasked") || strings.Contains(text, "pong") {
		t.Error("frames are told")
	}
}

func TestQuiet(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Refuse(), resocktest.Echo())
	p := start(t, "-q", "-n", "1", soon, server.URL)
	p.enter("\xff", "text")
	p.exits(exitFailed) // a line was not sent, and that is told
	p.stdout.is(t, "text\n")
	if text := p.stderr.String(); strings.Count(text, "\n") != 1 || !strings.HasPrefix(text, "resock: line 1 was not sent: ") {
		t.Errorf("got %q", text)
	}
}

// TestReadme checks that the documents have each flag, and nothing else that looks like
// one.
func TestReadme(t *testing.T) {
	client, server := flagNames(new(settings).flags()), flagNames(new(serveSettings).flags())
	for file, own := range map[string]map[string]bool{"README.md": client, "SERVE.md": server} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, first := range own {
			if first && !strings.Contains(string(data), "`"+name) {
				t.Errorf("%s: %s is missing", file, name)
			}
		}
		for _, code := range regexp.MustCompile("`[^`\n]*`").FindAllString(string(data), -1) {
			known := own
			switch {
			case strings.HasPrefix(code, "`resock serve"):
				known = server
			case strings.HasPrefix(code, "`resock "):
				known = client
			case strings.HasPrefix(code, "`go "), strings.HasPrefix(code, "`hexdump "):
				continue
			}
			for _, m := range regexp.MustCompile("[\\s`](-[a-zA-Z][a-z-]*)").FindAllStringSubmatch(code, -1) {
				if _, ok := known[m[1]]; !ok && m[1] != "-flag" && m[1] != "-cacert" {
					t.Errorf("%s: %s is no flag, in %s", file, m[1], code)
				}
			}
		}
	}
}

// flagNames are the names of flags, and whether each is the first of its flag.
func flagNames(flags []cli.Flag) map[string]bool {
	names := map[string]bool{}
	for _, f := range flags {
		for i, name := range f.Names() {
			names["-"+name] = i == 0
		}
	}
	return names
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"one", "two"}, {"http://example.com"}, {"ws://x", "-nonsense"}, {"ws://x", "-n"}, {"ws://x", "-n", "-1"},
		{"ws://x", "-json", "-hex"}, {"ws://x", "-compression", "zip"}, {"ws://x", "-H", "secret"}, {"ws://x", "-H", "Bad Name: x"},
		{"ws://x", "-heartbeat", "soon"}, {"ws://x", "-read-limit", "10X"}, {"ws://x", "-silence", "-1s"}, {"ws://x", "-H", "@/missing"},
		{"ws://x", "-close-code", "1005"}, {"ws://x", "-close-reason", strings.Repeat("x", 124)},
		{"ws://x", "-HAuthorization: secret"}, {"ws://x", "-Hname=secret"}, {"ws://x", "-preamble", "\xff"}, {"ws://x", "-request", "\xff"},
		{"ws://x", "-heartbeat-text", "\xff"}, {"ws://x", "-close-reason", "\xff"}, {"ws://x", "-preamble-file", "/dev/null", "-n", "x"},
	} {
		p := runs(t, exitUsage, args...)
		text := p.stderr.String()
		if !strings.HasPrefix(text, "resock: ") || strings.Count(text, "\n") != 1 || strings.Contains(text, "With") || strings.Contains(text, "secret") {
			t.Errorf("%q: %q", args, text)
		}
		p.stdout.is(t, "")
	}
}
