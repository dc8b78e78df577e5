package relay

import (
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
