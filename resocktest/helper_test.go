package resocktest

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// onBoth runs a test on TCP, and in memory inside a bubble.
func onBoth(t *testing.T, test func(t *testing.T, s *Server)) {
	t.Run("loopback", func(t *testing.T) {
		t.Cleanup(func() { noGoroutines(t) })
		test(t, NewServer(t))
	})
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, NewMemory(t)) })
	})
	t.Run("loopback TLS", func(t *testing.T) {
		t.Cleanup(func() { noGoroutines(t) })
		test(t, NewTLSServer(t))
	})
	t.Run("memory TLS", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, NewTLSMemory(t)) })
	})
}

// noGoroutines fails the test if a goroutine of a server is still running after Close.
// Those that dial belong to net/http.
func noGoroutines(t *testing.T) {
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	for _, stack := range strings.Split(string(stacks), "\n\n") {
		ours := strings.Contains(stack, "resocktest.(*Server)") || strings.Contains(stack, "resocktest.acceptAll")
		if ours && !strings.Contains(stack, "(*Transport).dial") {
			t.Errorf("still running: %s", stack)
		}
	}
}

func tryDial(t *testing.T, s *Server, timeout time.Duration) (*websocket.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, s.URL, &websocket.DialOptions{HTTPClient: s.Client()})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseNow() })
	}
	return conn, err
}

func dial(t *testing.T, s *Server) *websocket.Conn {
	t.Helper()
	conn, err := tryDial(t, s, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func read(t *testing.T, conn *websocket.Conn) string {
	t.Helper()
	_, data, err := conn.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func write(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	if err := conn.Write(context.Background(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func wantEqual[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

// awaitAttempts waits until n attempts are recorded.
func awaitAttempts(s *Server, n int) {
	for len(s.Attempts()) < n {
		runtime.Gosched()
	}
}

// wantEOF wants the end of the stream, between frames or within one.
func wantEOF(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got error %v, want the end of the stream", err)
	}
}
