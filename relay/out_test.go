package relay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/outbox"
	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/resocktest"
)

// newSender returns a sender without a client, so that nothing is acknowledged, and the
// context that JetStream is asked with.
func newSender(t *testing.T) (*sender, context.Context) {
	t.Helper()
	js := jetStream(t, connect(t, startServer(t)))
	r, err := New(Config{Conn: js.Conn(), Name: "ticks", URL: "ws://a", Out: &Out{Read: feed.ReadAck}})
	if err != nil {
		t.Fatal(err)
	}
	r.log = log{js: js, names: subjects{"ticks"}}
	if err := r.prepareOut(t.Context(), js); err != nil {
		t.Fatal(err)
	}
	s := &sender{relay: r, window: 64, byID: make(map[string][]jetstream.Msg), known: make(map[uint64]bool)}
	if s.box, err = outbox.Open(outbox.Config{Read: feed.ReadAck, Done: s.done}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.box.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return s, ctx
}

// publish publishes messages for the server of the feed.
func publish(t *testing.T, s *sender, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if _, err := s.relay.log.js.Publish(t.Context(), "ticks.out.a", []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

func consumerOf(ctx context.Context, t *testing.T, s *sender, term uint64) jetstream.Consumer {
	t.Helper()
	c, err := s.consumer(ctx, term)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// next returns the next message of a consumer, which is not acknowledged.
func next(t *testing.T, c jetstream.Consumer) jetstream.Msg {
	t.Helper()
	m, err := c.Next(jetstream.FetchMaxWait(5 * time.Second))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestOutInterrupted interrupts a consumer that has messages which the outbox was not given:
// they come again first.
func TestOutInterrupted(t *testing.T) {
	s, ctx := newSender(t)
	publish(t, s, "1", "2", "3")
	c := consumerOf(ctx, t, s, 1)
	next(t, c)
	next(t, c)
	c = consumerOf(ctx, t, s, 1)
	for n := 1; n <= 3; n++ {
		if got := string(next(t, c).Data()); got != fmt.Sprint(n) {
			t.Fatalf("%s comes again, want %d", got, n)
		}
	}
}

// TestOutFencesEarlierTerms has a leader that was stopped and goes on: it leaves the consumer
// of the later one alone.
func TestOutFencesEarlierTerms(t *testing.T) {
	s, ctx := newSender(t)
	consumerOf(ctx, t, s, 9)
	later := consumerOf(ctx, t, s, 10)
	if _, err := s.consumer(ctx, 9); !errors.Is(err, errLost) {
		t.Errorf("an earlier term took the way back: %v", err)
	}
	if _, err := later.Info(ctx); err != nil {
		t.Errorf("the consumer of the later term: %v", err)
	}
}

// empty waits until JetStream has nothing left for the server of the feed.
func empty(ctx context.Context, t *testing.T, s *sender) {
	t.Helper()
	eventually(t, "an empty stream", func() bool {
		info, err := s.relay.out.Info(ctx)
		return err == nil && info.State.Msgs == 0
	})
}

// TestOutForgets has a message that cannot be sent, and that JetStream brings again since the
// refusal was lost; and later ones, for which the first is forgotten.
func TestOutForgets(t *testing.T) {
	s, ctx := newSender(t)
	publish(t, s, "\xff")
	m := next(t, consumerOf(ctx, t, s, 1))
	if err := s.put(ctx, m); err != nil {
		t.Fatal(err)
	}
	if len(s.byID) != 0 || !s.known[1] {
		t.Errorf("kept after a refusal: %d, done %t", len(s.byID), s.known[1])
	}
	if err := s.relay.out.Purge(ctx, jetstream.WithPurgeSequence(recentOut+1)); err != nil {
		t.Fatal(err)
	}
	publish(t, s, "later")
	if err := s.put(ctx, next(t, consumerOf(ctx, t, s, 1))); err != nil {
		t.Fatal(err)
	}
	if _, known := s.known[1]; known || len(s.known) != 1 {
		t.Errorf("known: %v", s.known)
	}
}

// TestOutAgain has a message that JetStream brings again: while it is under way it is sent
// once, and when it is done JetStream is told again.
func TestOutAgain(t *testing.T) {
	for name, result := range map[string]outbox.Result{
		"acknowledged": {}, "refused": {Err: outbox.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			s, ctx := newSender(t)
			publish(t, s, "a")
			for range 2 {
				if err := s.put(ctx, next(t, consumerOf(ctx, t, s, 1))); err != nil {
					t.Fatal(err)
				}
			}
			if n := s.box.Stats().Messages; n != 1 {
				t.Errorf("%d messages to send", n)
			}
			again := next(t, consumerOf(ctx, t, s, 1))
			if info, err := s.relay.out.Info(ctx); err != nil || info.State.Msgs != 1 {
				t.Fatalf("forgotten before the server has it: %v", err)
			}
			s.take("1") // as if the acknowledgement was lost
			if err := s.put(ctx, again); err != nil {
				t.Fatal(err)
			}
			empty(ctx, t, s)
			publish(t, s, "b")
			for range 2 {
				if err := s.put(ctx, next(t, consumerOf(ctx, t, s, 1))); err != nil {
					t.Fatal(err)
				}
			}
			result.ID = "2"
			s.done(result)
			empty(ctx, t, s)
			if len(s.byID) != 0 {
				t.Errorf("%d under way", len(s.byID))
			}
		})
	}
}

// TestOutOverLosses has a server that is lost many times before it acknowledges a message:
// JetStream does not forget it.
func TestOutOverLosses(t *testing.T) {
	upstream := resocktest.NewServer(t)
	config := upstream1(upstream.URL, connect(t, startServer(t)))
	config.Options = quick
	config.Out = &Out{Read: feed.ReadAck}
	r := startRelay(t, config)
	eventually(t, "a leader", func() bool { return r.Stats().Leading })
	if _, err := jetStream(t, config.Conn).Publish(t.Context(), "ticks.out.a", []byte("1 x")); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		conn := upstream.Accept()
		if _, err := conn.Read(); err != nil {
			t.Fatal(err)
		}
		conn.Drop()
	}
	conn := upstream.Accept()
	if m, err := conn.Read(); err != nil || string(m.Data) != "1 x" {
		t.Fatalf("got %q, %v", m.Data, err)
	}
	if err := conn.Push("ack 1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an acknowledgement", func() bool { return r.Stats().Outgoing == 1 })
}
