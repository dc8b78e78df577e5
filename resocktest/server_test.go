package resocktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

func TestScript(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		s.Script(
			Refuse(),
			Status(http.StatusServiceUnavailable, http.Header{"Retry-After": {"7"}}, "later"),
			Drop(),
			Serve((*Conn).Drop),
			Echo(),
		)
		_, err := tryDial(t, s, time.Minute)
		wantError(t, err, syscall.ECONNREFUSED)

		_, response, err := websocket.Dial(context.Background(), s.URL, &websocket.DialOptions{HTTPClient: s.Client()})
		if err == nil || response == nil {
			t.Fatalf("got response %v, error %v", response, err)
		}
		body, _ := io.ReadAll(response.Body)
		wantEqual(t, response.StatusCode, http.StatusServiceUnavailable)
		wantEqual(t, response.Header.Get("Retry-After"), "7")
		wantEqual(t, string(body), "later")

		if _, err := tryDial(t, s, time.Minute); err == nil {
			t.Error("dial succeeded though the connection was dropped")
		}
		conn, err := tryDial(t, s, time.Minute)
		if err == nil { // the upgrade may be lost with the connection
			_, _, err = conn.Read(context.Background())
		}
		wantEOF(t, err)

		for range 2 { // the last step repeats
			conn := dial(t, s)
			write(t, conn, "hello")
			wantEqual(t, read(t, conn), "hello")
		}
		attempts := s.Attempts()
		wantEqual(t, len(attempts), 6)
		wantEqual(t, attempts[0].Request == nil, true)
		wantEqual(t, attempts[1].Request == nil, false)
		wantEqual(t, len(s.Conns()), 3)
	})
}

func TestStalls(t *testing.T) {
	for name, step := range map[string]Step{"dial": StallDial(), "TLS": StallTLS(), "upgrade": StallUpgrade()} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *Server) {
				s.Script(step)
				ctx, leave := context.WithCancel(context.Background())
				failed := make(chan error)
				go func() {
					_, _, err := websocket.Dial(ctx, s.URL, &websocket.DialOptions{HTTPClient: s.Client()})
					failed <- err
				}()
				awaitAttempts(s, 1)
				leave()
				wantError(t, <-failed, context.Canceled)
				wantEqual(t, len(s.Attempts()), 1)
			})
		})
	}
}

func TestStallsTakeNoRealTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory(t)
		s.Script(StallUpgrade())
		start := time.Now()
		_, err := tryDial(t, s, time.Hour)
		wantError(t, err, context.DeadlineExceeded)
		wantEqual(t, time.Since(start), time.Hour)
	})
}

func TestStopAndRestart(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		s.Script(Refuse(), Hold())
		_, err := tryDial(t, s, time.Minute)
		wantError(t, err, syscall.ECONNREFUSED)

		conn := dial(t, s)
		c := s.Accept()
		s.Stop()
		s.Stop()
		_, _, err = conn.Read(context.Background())
		wantEOF(t, err)
		<-c.Done()
		wantEqual(t, c.Received().Err, net.ErrClosed)
		_, err = tryDial(t, s, time.Minute)
		wantError(t, err, syscall.ECONNREFUSED)

		s.Restart()
		s.Restart()
		conn = dial(t, s)
		if err := s.Accept().Push("back"); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, read(t, conn), "back")
		wantEqual(t, len(s.Attempts()), 4)
	})
}

func TestCloseEndsEverything(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		s.Script(StallDial(), StallTLS(), StallUpgrade(), Echo(), Hold())
		failed := make(chan error)
		for range 3 {
			go func() {
				_, err := tryDial(t, s, time.Hour)
				failed <- err
			}()
		}
		awaitAttempts(s, 3)
		echoed, held := dial(t, s), dial(t, s)
		s.Accept()
		c := s.Accept()
		c.StopReading()
		s.Close()
		s.Close()
		s.Restart()
		for range 3 {
			if err := <-failed; err == nil {
				t.Error("a stalled dial succeeded")
			}
		}
		for _, conn := range []*websocket.Conn{echoed, held} {
			_, _, err := conn.Read(context.Background())
			wantEOF(t, err)
		}
		_, err := c.Read()
		wantError(t, err, io.EOF)
		_, err = tryDial(t, s, time.Minute)
		wantError(t, err, syscall.ECONNREFUSED)
	})
}

func TestUpgradeHeader(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		s.Script(
			Upgrade(http.Header{"sec-websocket-protocol": {"chat"}}, (*Conn).Echo),
			Upgrade(http.Header{"Sec-WebSocket-Accept": {"wrong"}}, (*Conn).Drop),
			Upgrade(http.Header{"Upgrade": nil}, (*Conn).Drop),
		)
		conn, _, err := websocket.Dial(context.Background(), s.URL, &websocket.DialOptions{
			HTTPClient:   s.Client(),
			Subprotocols: []string{"chat"},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.CloseNow()
		wantEqual(t, conn.Subprotocol(), "chat")
		for _, fault := range []string{"Sec-WebSocket-Accept", "Upgrade header"} {
			_, err := tryDial(t, s, time.Minute)
			if err == nil || !strings.Contains(err.Error(), fault) {
				t.Errorf("got error %v, want one about %s", err, fault)
			}
		}
	})
}

func TestAnswer(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		s.Script(Answer(func(conn net.Conn, request *http.Request) {
			fmt.Fprintf(conn, "garbage for %s\r\n\r\n", request.URL.Path)
		}))
		_, err := tryDial(t, s, time.Minute)
		if err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("got error %v, want one about a malformed response", err)
		}
	})
}

func TestNoUpgrade(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		response, err := s.Client().Get("http" + strings.TrimPrefix(s.URL, "ws"))
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		wantEqual(t, response.StatusCode, http.StatusUpgradeRequired)
	})
}

func TestCertificateIsChecked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewTLSMemory(t)
		wrongName := strings.Replace(s.URL, memoryHost, "other.test", 1)
		_, _, err := websocket.Dial(context.Background(), wrongName, &websocket.DialOptions{HTTPClient: s.Client()})
		if err == nil {
			t.Error("a certificate for another host was accepted")
		}
		stranger := s.Client()
		stranger.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
		_, _, err = websocket.Dial(context.Background(), s.URL, &websocket.DialOptions{HTTPClient: stranger})
		if err == nil {
			t.Error("an unknown authority was accepted")
		}
		wantEqual(t, s.CertPool() != nil, true)
	})
}

// recorder is a testing.TB that records the failure instead of failing the test.
type recorder struct {
	testing.TB
	failed chan string
}

func (r *recorder) Helper()        {}
func (r *recorder) Cleanup(func()) {}
func (r *recorder) Fatalf(format string, args ...any) {
	r.failed <- fmt.Sprintf(format, args...)
	runtime.Goexit() // like testing.T
}

func TestAcceptFailsTheTest(t *testing.T) {
	r := &recorder{TB: t, failed: make(chan string, 1)}
	s := NewServer(r)
	go s.Accept()
	s.Close()
	if text := <-r.failed; !strings.Contains(text, "closed") {
		t.Errorf("got %q", text)
	}
}

func TestWithoutTest(t *testing.T) {
	s := NewServer(nil)
	s.Close()
	defer func() {
		if recover() == nil {
			t.Error("Accept did not panic")
		}
	}()
	s.Accept()
}

func TestCloseDuringRestarts(t *testing.T) {
	s := NewServer(t)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for range 20 {
			s.Stop()
			s.Restart()
		}
	}()
	_, _ = tryDial(t, s, time.Second)
	s.Close()
	<-over
	if _, err := tryDial(t, s, time.Second); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a closed server answers: %v", err)
	}
}
