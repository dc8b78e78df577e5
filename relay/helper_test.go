package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/relay/server"
	"github.com/resock/resock/resume"
)

// startServer returns a server that ends with the test.
func startServer(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.Start(server.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func connect(t *testing.T, s *server.Server) *nats.Conn {
	t.Helper()
	conn, err := s.Connect(nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	return conn
}

// tcpServer is a server that listens, and can go away and come back.
type tcpServer struct {
	t       *testing.T
	config  server.Config
	running *server.Server
}

// startTCP returns a server that ends with the test.
func startTCP(t *testing.T) *tcpServer {
	t.Helper()
	s := &tcpServer{t: t, config: server.Config{
		Dir: t.TempDir(), Addr: fmt.Sprintf("127.0.0.1:%d", freePort(t)), NoSync: true,
	}}
	s.start()
	t.Cleanup(func() { s.running.Close() })
	return s
}

func (s *tcpServer) start() {
	s.t.Helper()
	var err error
	if s.running, err = server.Start(s.config); err != nil {
		s.t.Fatal(err)
	}
}

func (s *tcpServer) stop() { s.running.Close() }

func (s *tcpServer) connect() *nats.Conn {
	s.t.Helper()
	conn, err := nats.Connect("nats://"+s.config.Addr, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(conn.Close)
	return conn
}

// freePort returns a port where nobody listens. No connection gets it while a server is
// away: systems take those above 32767 for connections.
func freePort(t testing.TB) int {
	t.Helper()
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			defer l.Close()
			return l.Addr().(*net.TCPAddr).Port
		}
	}
	t.Fatal(err)
	return 0
}

func jetStream(t *testing.T, conn *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline, ticks := time.After(20*time.Second), time.NewTicker(5*time.Millisecond)
	defer ticks.Stop()
	for !holds() {
		select {
		case <-ticks.C:
		case <-deadline:
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

// quick are options of a client that dials again soon.
func quick(*resume.Feed) []resock.Option {
	return []resock.Option{resock.WithBackoff(10*time.Millisecond, 20*time.Millisecond)}
}
