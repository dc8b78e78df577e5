package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
)

// peer is one of the servers in peers/.
type peer struct {
	name    string
	command func(t *testing.T, port, compression string) *exec.Cmd
}

var peers = []peer{{"node-ws", nodePeer}, {"python-websockets", pythonPeer}}

func nodePeer(t *testing.T, port, compression string) *exec.Cmd {
	t.Helper()
	node := program(t, "node")
	if _, err := os.Stat("peers/node/node_modules/ws/package.json"); err != nil {
		missing(t, "Node's ws is missing (%v)", err)
	}
	return exec.Command(node, "peers/node/server.js", port, compression)
}

func pythonPeer(t *testing.T, port, compression string) *exec.Cmd {
	t.Helper()
	// Debian's package is for Debian's Python, which need not be the first in PATH.
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import websockets").Run() == nil {
			return exec.Command(python, "peers/python/server.py", port, compression)
		}
	}
	missing(t, "Python's websockets is missing")
	return nil
}

// server is a running peer.
type server struct {
	*process
	peer        peer
	address     string
	compression string
}

func (p peer) start(t *testing.T, compression string) *server {
	t.Helper()
	s := &server{peer: p, address: address(t), compression: compression}
	s.restart(t)
	return s
}

// restart starts the peer again, on the same address.
func (s *server) restart(t *testing.T) {
	t.Helper()
	s.process = start(t, s.address, s.peer.command(t, port(s.address), s.compression))
}

// url returns a URL whose query has the id and the given pairs of names and values.
func (s *server) url(path, id string, query ...string) string {
	values := url.Values{"id": {id}}
	for i := 0; i < len(query); i += 2 {
		values.Set(query[i], query[i+1])
	}
	return "ws://" + s.address + path + "?" + values.Encode()
}

// eachPeer runs a test against each peer, without compression.
func eachPeer(t *testing.T, test func(t *testing.T, s *server)) {
	t.Helper()
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) { test(t, p.start(t, "none")) })
	}
}

// payload is a message with a name.
type payload struct {
	name string
	typ  resock.MessageType
	data []byte
}

// payloads cover both types and every length encoding.
func payloads() []payload {
	noise := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(noise)
	return []payload{
		{"empty text", resock.MessageText, nil},
		{"empty binary", resock.MessageBinary, nil},
		{"short text", resock.MessageText, []byte("Grüße, 世界 🌍")},
		{"7 bits", resock.MessageBinary, noise[:125]},
		{"16 bits", resock.MessageBinary, noise[:126]},
		{"16 bits, full", resock.MessageBinary, noise[:65535]},
		{"64 bits", resock.MessageBinary, noise[:65536]},
		{"1 MiB noise", resock.MessageBinary, noise},
		{"1 MiB text", resock.MessageText, bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)},
	}
}

// echoes sends every payload and expects it back.
func (c *client) echoes() {
	c.t.Helper()
	for _, p := range payloads() {
		c.t.Log(p.name)
		c.echo(p.typ, p.data)
	}
}

func TestEcho(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/echo", "echo"))
		next[resock.OpenEvent](c)
		c.echoes()
	})
}

func TestFragments(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/fragments", "fragments"))
		next[resock.OpenEvent](c)
		c.echoes()
	})
}

// TestCompression expects permessage-deflate to be negotiated and used in both
// directions, with context takeover and without.
func TestCompression(t *testing.T) {
	modes := []struct {
		server string
		client websocket.CompressionMode
		want   string // part of the server's answer
	}{
		{"takeover", websocket.CompressionContextTakeover, "permessage-deflate"},
		{"takeover", websocket.CompressionNoContextTakeover, "no_context_takeover"},
		{"no-takeover", websocket.CompressionContextTakeover, "no_context_takeover"},
		{"no-takeover", websocket.CompressionNoContextTakeover, "no_context_takeover"},
		{"none", websocket.CompressionContextTakeover, ""},
		{"takeover", websocket.CompressionDisabled, ""},
	}
	for _, p := range peers {
		for _, mode := range modes {
			name := fmt.Sprintf("%s/server %s, client %v", p.name, mode.server, compressionName(mode.client))
			t.Run(name, func(t *testing.T) {
				s := p.start(t, mode.server)
				for _, path := range []string{"/echo", "/fragments"} {
					testCompression(t, s.url(path, "deflate"), mode.client, mode.want)
				}
			})
		}
	}
}

func compressionName(mode websocket.CompressionMode) string {
	switch mode {
	case websocket.CompressionContextTakeover:
		return "takeover"
	case websocket.CompressionNoContextTakeover:
		return "no-takeover"
	}
	return "none"
}

func testCompression(t *testing.T, url string, mode websocket.CompressionMode, want string) {
	t.Helper()
	extensions := make(chan string, 1)
	c := run(t, url,
		resock.WithDialOptions(&websocket.DialOptions{CompressionMode: mode}),
		resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
			extensions <- s.Header().Get("Sec-WebSocket-Extensions")
			return nil
		}))
	next[resock.OpenEvent](c)
	got := <-extensions
	if !strings.Contains(got, want) || want == "" && got != "" {
		t.Fatalf("the server's extensions are %q, want %q", got, want)
	}
	var plain uint64
	for i := range 50 {
		text := strings.Repeat(fmt.Sprintf("message %d of a feed; ", i%3), 100)
		plain += uint64(len(text))
		c.echoText(text)
	}
	stats := c.Stats() // the last message may not be counted yet
	if compressed := stats.BytesIn < plain/4 && stats.BytesOut < plain/4; compressed != (want != "") {
		t.Errorf("%d bytes of text took %d bytes in and %d out", plain, stats.BytesIn, stats.BytesOut)
	}
	c.echoes()
}

// TestBurst expects many messages to arrive in order, in both directions.
func TestBurst(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/echo", "burst"), resock.WithQueue(2000, 1<<20))
		const n = 2000
		results := make(chan error, n)
		for i := range n { // before there is a session
			if err := c.Enqueue(resock.MessageText, fmt.Append(nil, i), resock.WithResult(func(err error) { results <- err })); err != nil {
				t.Fatal(err)
			}
		}
		next[resock.OpenEvent](c)
		for i := range n {
			if got := next[resock.MessageEvent](c); string(got.Data) != fmt.Sprint(i) {
				t.Fatalf("message %d is %q", i, got.Data)
			}
		}
		for range n {
			if err := <-results; err != nil {
				t.Errorf("a message that came back has the outcome %v", err)
			}
		}
	})
}

func TestSubprotocol(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/echo", "subprotocol"),
			resock.WithDialOptions(&websocket.DialOptions{Subprotocols: []string{"chat.v3", "chat.v2"}}))
		if open := next[resock.OpenEvent](c); open.Subprotocol != "chat.v2" {
			t.Errorf("subprotocol %q, want chat.v2", open.Subprotocol)
		}
	})
}

// TestPingFromServer expects a pong with the ping's payload.
func TestPingFromServer(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		payload := strings.Repeat("p", 125)
		c := run(t, s.url("/ping", "ping", "payload", payload))
		next[resock.OpenEvent](c)
		if got := next[resock.MessageEvent](c); string(got.Data) != "pong "+payload {
			t.Errorf("the server got %q", got.Data)
		}
	})
}

// TestPingFromClient expects answers to the pings of the heartbeat, and one session.
func TestPingFromClient(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		pongs := make(chan struct{}, 100)
		c := run(t, s.url("/echo", "beat"),
			resock.WithHeartbeat(20*time.Millisecond, 10*time.Second),
			resock.WithDialOptions(&websocket.DialOptions{OnPongReceived: func(context.Context, []byte) {
				select {
				case pongs <- struct{}{}:
				default:
				}
			}}))
		next[resock.OpenEvent](c)
		for range 3 {
			select {
			case <-pongs:
			case <-time.After(patience):
				t.Fatal("no pong")
			}
		}
		c.echoText("still here")
		if stats := c.Stats(); stats.RoundTrip <= 0 || stats.Session != 1 {
			t.Errorf("round trip %v in session %d", stats.RoundTrip, stats.Session)
		}
	})
}

func TestCloseFromServer(t *testing.T) {
	tests := []struct {
		code   resock.StatusCode
		reason string
	}{
		{1000, "done"},
		{1001, "going away"},
		{1008, "who are you?"},
		{1011, ""},
		{1012, "restart"},
		{1013, "try again later"},
		{3000, "registered"},
		{4999, strings.Repeat("ü", 61)},
	}
	eachPeer(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(fmt.Sprint(int(test.code)), func(t *testing.T) {
				id := fmt.Sprintf("server %d", test.code)
				c := run(t, s.url("/close", id, "code", fmt.Sprint(int(test.code)), "reason", test.reason),
					resock.WithBackoff(time.Minute, time.Minute))
				next[resock.OpenEvent](c)
				if got := next[resock.MessageEvent](c); string(got.Data) != "goodbye" {
					t.Errorf("the message before the close is %q", got.Data)
				}
				got := next[resock.CloseEvent](c)
				if got.Code != test.code || got.Reason != test.reason || !got.Clean || got.Next != resock.StateWaiting {
					t.Errorf("got %+v, want a clean %d %q and another attempt", got, test.code, test.reason)
				}
				if end := s.ended(id); end.Code != int(test.code) {
					t.Errorf("the server saw %+v", end)
				}
			})
		}
	})
}

// TestCloseWithoutStatus: the close frame is empty. Of the peers only Node's ws can
// send one.
func TestCloseWithoutStatus(t *testing.T) {
	s := peers[0].start(t, "none")
	c := run(t, s.url("/close", "empty"), resock.WithBackoff(time.Minute, time.Minute))
	next[resock.OpenEvent](c)
	got := next[resock.CloseEvent](c)
	if got.Code != websocket.StatusNoStatusRcvd || got.Reason != "" || !got.Clean {
		t.Errorf("got %+v, want a clean 1005", got)
	}
}

func TestCloseFromClient(t *testing.T) {
	tests := []struct {
		code   resock.StatusCode
		reason string
	}{
		{1000, ""},
		{1001, "bye"},
		{3000, "Tschüß"},
		{4321, strings.Repeat("x", 123)},
	}
	eachPeer(t, func(t *testing.T, s *server) {
		for _, test := range tests {
			t.Run(fmt.Sprint(int(test.code)), func(t *testing.T) {
				id := fmt.Sprintf("client %d", test.code)
				c := run(t, s.url("/echo", id))
				next[resock.OpenEvent](c)
				if err := c.Close(test.code, test.reason); err != nil {
					t.Fatal(err)
				}
				got := next[resock.CloseEvent](c)
				if got.Code != test.code || got.Reason != test.reason || !got.Clean || got.Next != resock.StateClosed {
					t.Errorf("got %+v, want a clean %d %q for good", got, test.code, test.reason)
				}
				if end := s.ended(id); end.Code != int(test.code) || end.Reason != test.reason {
					t.Errorf("the server saw %+v", end)
				}
			})
		}
	})
}

// TestOversized: a message one byte over the read limit is not delivered, and the
// server receives close code 1009.
func TestOversized(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		for _, path := range []string{"/echo", "/fragments"} {
			t.Run(strings.TrimPrefix(path, "/"), func(t *testing.T) {
				c := run(t, s.url(path, path), resock.WithReadLimit(1<<20), resock.WithBackoff(time.Minute, time.Minute))
				next[resock.OpenEvent](c)
				c.send(resock.MessageBinary, make([]byte, 1<<20+1))
				got := next[resock.FailEvent](c)
				var violation *resock.ProtocolError
				if got.Phase != resock.PhaseProtocol || !errors.As(got.Err, &violation) || violation.Code != websocket.StatusMessageTooBig {
					t.Errorf("got %+v, want 1009", got)
				}
				if end := s.ended(path); end.Code != int(websocket.StatusMessageTooBig) {
					t.Errorf("the server saw %+v", end)
				}
			})
		}
	})
}

// TestAbort: the server drops the connection without a close frame.
func TestAbort(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/abort", "abort"))
		next[resock.OpenEvent](c)
		c.send(resock.MessageText, []byte("drop me"))
		if got := next[resock.FailEvent](c); got.Phase != resock.PhaseRead || got.Session != 1 {
			t.Errorf("got %+v, want a lost session", got)
		}
		next[resock.OpenEvent](c)
	})
}

// TestRestart kills the server and starts it again.
func TestRestart(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/echo", "restart"))
		next[resock.OpenEvent](c)
		c.echoText("before")
		s.kill()
		if got := next[resock.FailEvent](c); got.Session != 1 {
			t.Errorf("got %+v, want a lost session", got)
		}
		// The dying process may still accept the first attempt, and reset it.
		for dialError(t, next[resock.FailEvent](c)).Phase != resock.PhaseTCP {
		}
		s.restart(t)
		if got := until[resock.OpenEvent](c); got.Session != 2 {
			t.Errorf("session %d, want 2", got.Session)
		}
		c.echoText("after")
	})
}

// TestFrozen suspends the server's process, which only the heartbeat can detect.
func TestFrozen(t *testing.T) {
	eachPeer(t, func(t *testing.T, s *server) {
		c := run(t, s.url("/echo", "frozen"),
			resock.WithHeartbeat(50*time.Millisecond, 200*time.Millisecond),
			resock.WithDialTimeout(5*time.Second))
		next[resock.OpenEvent](c)
		c.echoText("before")
		s.signal(syscall.SIGSTOP)
		got := next[resock.FailEvent](c)
		if got.Phase != resock.PhaseHeartbeat || !errors.Is(got.Err, resock.ErrHeartbeat) {
			t.Errorf("got %+v, want a heartbeat timeout", got)
		}
		s.signal(syscall.SIGCONT)
		until[resock.OpenEvent](c)
		for { // on a slow machine the heartbeat may fail once more
			c.send(resock.MessageText, []byte("after"))
			if _, ok := c.next().(resock.MessageEvent); ok {
				return
			}
			until[resock.OpenEvent](c)
		}
	})
}
