package relay

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/relay/internal/feed"
)

// TestTermsLeaveNothing ends many terms of one relay, and the relay: no goroutine and no
// consumer stays.
func TestTermsLeaveNothing(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	config.Out, config.Standby = &Out{Read: feed.ReadAck}, 100
	js := jetStream(t, connect(t, s))
	for _, opened := range []jetstream.JetStream{js, jetStream(t, config.Conn)} {
		if _, err := opened.AccountInfo(t.Context()); err != nil { // starts what answers need
			t.Fatal(err)
		}
	}
	before := goroutines()
	r := startRelay(t, config)
	stop := u.push(time.Millisecond)
	defer stop()
	for terms := range uint64(3) {
		eventually(t, "a leader", func() bool { return r.Stats().Terms > terms && r.Stats().Written > 0 })
		if _, err := js.Publish(t.Context(), "ticks.gap", []byte(`{}`)); err != nil { // as another leader
			t.Fatal(err)
		}
	}
	eventually(t, "one more term", func() bool { return r.Stats().Terms > 3 })
	eventually(t, "consumers to end", func() bool { return consumers(t, js, "ticks") == 0 && consumers(t, js, "ticks-out") <= 1 })
	r.stop()
	eventually(t, "goroutines to end", func() bool { return goroutines() <= before })
}

func consumers(t *testing.T, js jetstream.JetStream, stream string) int {
	t.Helper()
	opened, err := js.Stream(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	return opened.CachedInfo().State.Consumers
}

// goroutines returns how many there are of this package, its client and the client of NATS.
func goroutines() (n int) {
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "/resock.") || strings.Contains(g, "/relay.(") || strings.Contains(g, "nats%2ego") || strings.Contains(g, "nats.go") {
			n++
		}
	}
	return n
}

// TestRelayEndsWithoutNATS ends relays while NATS is away: a leader whose feed is blocked by
// that, and one that stands by.
func TestRelayEndsWithoutNATS(t *testing.T) {
	u, s := startFeed(t), startTCP(t)
	var replicas []*replica
	for range 2 {
		config := u.config(s.connect())
		config.TTL, config.Unacknowledged, config.Standby = time.Minute, 10, 100
		config.Out = &Out{Read: feed.ReadAck}
		replicas = append(replicas, startRelay(t, config))
		eventually(t, "a leader", func() bool { return replicas[0].Stats().Leading })
	}
	eventually(t, "two sessions", func() bool { return u.Sessions() == 2 })
	s.stop()
	u.Push(1000)
	eventually(t, "backpressure", func() bool { return replicas[0].Stats().Unacknowledged == 10 })
	for _, r := range replicas {
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("ended after %v", took)
		}
	}
}

// TestOutOverARestart restarts NATS while messages are on their way back.
func TestOutOverARestart(t *testing.T) {
	u, s := startFeed(t), startTCP(t)
	conn := s.connect()
	config := u.config(conn)
	config.TTL, config.Out = time.Minute, &Out{Read: feed.ReadAck}
	r := startRelay(t, config)
	eventually(t, "a leader", func() bool { return r.Stats().Leading })
	js := jetStream(t, conn)
	for round := range 3 {
		for n := range 50 {
			id := fmt.Sprint(50*round + n)
			if _, err := js.Publish(t.Context(), "ticks.out.a", []byte(id+" x"), jetstream.WithMsgID(id)); err != nil {
				t.Fatal(err)
			}
		}
		s.stop()
		s.start()
		eventually(t, "a connection", conn.IsConnected)
	}
	eventually(t, "all at the server", func() bool { return len(u.Received()) == 150 })
	eventually(t, "all acknowledged", func() bool { return r.Stats().Outgoing == 150 })
}
