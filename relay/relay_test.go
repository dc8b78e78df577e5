package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// upstream is the server of a feed.
type upstream struct {
	*feed.Server
	url string
}

func startFeed(t *testing.T) upstream {
	t.Helper()
	f := feed.New("e")
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	t.Cleanup(f.Cut)
	return upstream{f, "ws" + strings.TrimPrefix(s.URL, "http")}
}

// push pushes messages without a pause until the function that it returns is called.
func (u upstream) push(every time.Duration) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var pushing sync.WaitGroup
	pushing.Go(func() {
		ticks := time.NewTicker(every)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				u.Push(5)
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); pushing.Wait() }
}

// replica is a relay that runs.
type replica struct {
	*Relay
	conn   *nats.Conn
	cancel context.CancelFunc
	done   chan error
}

func (u upstream) config(conn *nats.Conn) Config {
	options := feed.Options(u.url)
	return Config{
		Conn: conn, Name: "ticks", URL: u.url, Read: feed.Read, TTL: time.Second,
		Options: func(f *resume.Feed) []resock.Option {
			return append(options(f), resock.WithBackoff(10*time.Millisecond, 50*time.Millisecond))
		},
	}
}

func startRelay(t *testing.T, config Config) *replica {
	t.Helper()
	relay, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &replica{relay, config.Conn, cancel, make(chan error, 1)}
	go func() { r.done <- relay.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

// stop ends a replica as a rolling update does.
func (r *replica) stop() {
	r.cancel()
	r.done <- <-r.done
}

// kill ends it as SIGKILL does: it writes nothing any more, and releases nothing.
func (r *replica) kill() {
	r.conn.Close()
	r.stop()
}

// records returns the numbers in the stream, and its gaps, once it has all up to last.
func records(t *testing.T, conn *nats.Conn, last uint64) (numbers []uint64, gaps []Gap) {
	t.Helper()
	consumer, err := jetStream(t, conn).OrderedConsumer(t.Context(), "ticks", jetstream.OrderedConsumerConfig{})
	if err != nil {
		t.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		t.Fatal(err)
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextMaxWait(20 * time.Second))
		if err != nil {
			t.Fatalf("after %d numbers: %v", len(numbers), err)
		}
		var read feed.Message
		var gap Gap
		switch {
		case m.Subject() == "ticks.gap":
			_ = json.Unmarshal(m.Data(), &gap)
			gaps = append(gaps, gap)
		case json.Unmarshal(m.Data(), &read) == nil && read.Seq > 0:
			numbers = append(numbers, read.Seq)
		}
		if meta, _ := m.Metadata(); read.Seq >= last && meta.NumPending == 0 {
			return numbers, gaps
		}
	}
}

// unbroken fails the test unless the stream has each number once, in order, and no gap.
func unbroken(t *testing.T, conn *nats.Conn, last uint64) {
	t.Helper()
	all, gaps := records(t, conn, last)
	for i, n := range all {
		if n != all[0]+uint64(i) {
			t.Fatalf("%d follows %d", n, all[i-1])
		}
	}
	if len(gaps) > 0 {
		t.Errorf("gaps: %+v", gaps)
	}
	t.Logf("%d numbers", len(all))
}

func TestRelayWritesTheFeed(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	conn := connect(t, s)
	config := u.config(conn)
	config.TTL = time.Minute
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(10_000) // more than one checkpoint
	unbroken(t, conn, 10_000)
	eventually(t, "all acknowledged", func() bool { return r.Stats().Unacknowledged == 0 })
	if stats := r.Stats(); !stats.Leading || stats.Written != 10_000+2 {
		t.Errorf("%+v", stats)
	}
	r.stop()
	if r.Stats().Leading {
		t.Error("leads after its end")
	}
}

// TestRelayKilled kills leaders, ends others in order, and cuts the feed, while it goes on.
func TestRelayKilled(t *testing.T) {
	for _, standby := range []int{0, 10_000} {
		t.Run(fmt.Sprintf("standby %d", standby), func(t *testing.T) {
			s, u := startServer(t), startFeed(t)
			start := func() *replica {
				config := u.config(connect(t, s))
				config.Standby = standby
				return startRelay(t, config)
			}
			replicas := []*replica{start(), start(), start()}
			leader := func() (at int) {
				eventually(t, "a leader", func() bool {
					for at = range replicas {
						if replicas[at].Stats().Leading {
							return true
						}
					}
					return false
				})
				return at
			}
			leader()
			eventually(t, "a session", func() bool { return u.Sessions() > 0 && u.Sessions() >= min(standby, 3) })
			stop := u.push(time.Millisecond)
			for range 4 {
				for _, end := range []func(*replica){(*replica).kill, (*replica).stop} {
					i := leader()
					before := u.Last()
					u.Cut()
					eventually(t, "more messages", func() bool { return u.Last() > before+100 })
					end(replicas[i])
					replicas[i] = start()
				}
			}
			stop()
			unbroken(t, connect(t, s), u.Last())
		})
	}
}

// TestRelayWithoutNATS takes NATS away while the feed goes on: the relay stops reading, and
// goes on where it was.
func TestRelayWithoutNATS(t *testing.T) {
	u, s := startFeed(t), startTCP(t)
	conn := s.connect()
	config := u.config(conn)
	config.TTL, config.Unacknowledged = time.Minute, 100
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	stop := u.push(time.Millisecond)
	for range 3 {
		before := u.Last()
		eventually(t, "more messages", func() bool { return r.Stats().Written > before })
		s.stop()
		blocked := r.Stats().Blocked
		eventually(t, "backpressure", func() bool { return r.Stats().Unacknowledged == 100 })
		eventually(t, "the time of that", func() bool { return r.Stats().Blocked > blocked })
		s.start()
	}
	stop()
	unbroken(t, conn, u.Last())
	if stats := r.Stats(); stats.Blocked == 0 || stats.Terms != 1 {
		t.Errorf("%+v", stats)
	}
}

// TestRelayDrops takes NATS away from a relay that drops: it reads on, and a gap names
// just what is missing.
func TestRelayDrops(t *testing.T) {
	u, s := startFeed(t), startTCP(t)
	conn := s.connect()
	config := u.config(conn)
	config.TTL, config.Unacknowledged, config.Overflow = time.Minute, 100, Drop
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(10)
	eventually(t, "10 in the log", func() bool { return r.Stats().Written == 10 })
	s.stop()
	u.Push(1000)
	eventually(t, "drops", func() bool { return r.Stats().Dropped == 900 })
	s.start()
	eventually(t, "110 in the log", func() bool { return r.Stats().Unacknowledged == 0 })
	u.Push(10)
	all, gaps := records(t, conn, 1020)
	if want := []Gap{{Reason: ReasonOverflow, From: 111, To: 1010, Messages: 900}}; !slices.Equal(gaps, want) {
		t.Errorf("gaps: %+v, want %+v", gaps, want)
	}
	for i, n := range all {
		want := uint64(i + 1)
		if i >= 110 {
			want += 900
		}
		if n != want {
			t.Fatalf("%d at %d", n, i)
		}
	}
	if len(all) != 120 || u.Sessions() != 1 {
		t.Errorf("%d numbers, %d sessions", len(all), u.Sessions())
	}
}

// TestRelayWithoutPositions checks that each session, and so each takeover, is a gap if
// messages have no positions, and that there is none before the first.
func TestRelayWithoutPositions(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	config.Read = nil
	config.Options = func(*resume.Feed) []resock.Option {
		return []resock.Option{resock.WithBackoff(10*time.Millisecond, 50*time.Millisecond)}
	}
	first := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(100)
	eventually(t, "100 in the log", func() bool { return first.Stats().Written == 100 })
	u.Cut()
	eventually(t, "another session", func() bool { return u.Sessions() == 2 })
	u.Push(100)
	eventually(t, "200 in the log", func() bool { return first.Stats().Written == 201 })
	first.stop()
	u.Push(100) // nobody sees these
	config.Conn = connect(t, s)
	second := startRelay(t, config)
	eventually(t, "a third session", func() bool { return u.Sessions() == 3 })
	u.Push(100)
	all, gaps := records(t, second.conn, 400)
	if want := []Gap{{Reason: ReasonSession}, {Reason: ReasonSession}}; !slices.Equal(gaps, want) {
		t.Errorf("gaps: %+v, want %+v", gaps, want)
	}
	if len(all) != 300 || all[199] != 200 || all[200] != 301 {
		t.Errorf("%d numbers: %v", len(all), all)
	}
}

// TestRelayAfterAPurge has a log of which nothing is left: what is missing is a gap.
func TestRelayAfterAPurge(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	first := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(100)
	eventually(t, "100 in the log", func() bool { return first.Stats().Written == 100 })
	first.stop()
	config.Conn = connect(t, s)
	stream, err := jetStream(t, config.Conn).Stream(t.Context(), "ticks")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	u.Push(100) // nobody sees these
	startRelay(t, config)
	eventually(t, "another session", func() bool { return u.Sessions() == 2 })
	u.Push(100)
	all, gaps := records(t, config.Conn, 300)
	if len(all) != 100 || len(gaps) != 1 || gaps[0].Reason != ReasonSession {
		t.Errorf("%d numbers, gaps: %+v", len(all), gaps)
	}
}

// TestRelayWritesWhatItHas ends a relay in order, just after it has read: nothing of that is
// lost, although no position can bring it again.
func TestRelayWritesWhatItHas(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	config.Read, config.Options = nil, nil
	read := make(chan struct{}, 5000)
	config.Topic = func(resume.Message) string {
		read <- struct{}{}
		return "all"
	}
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(5000)
	for range 2000 {
		<-read
	}
	r.stop()
	all, _ := records(t, connect(t, s), 1)
	if most := 2000 + len(read); len(all) < 2000 || len(all) < most-1 {
		t.Errorf("%d numbers in the log, %d were read", len(all), most)
	}
}

// TestRelayRefused has a message that the stream does not take: a gap stands for it.
func TestRelayRefused(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	config.Stream.MaxMsgSize = 1000
	r := startRelay(t, config)
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	u.Push(10)
	eventually(t, "10 in the log", func() bool { return r.Stats().Written == 10 })
	u.SetPad(strings.Repeat("x", 2000))
	u.Push(1)
	eventually(t, "a refusal", func() bool { return r.Stats().Refused == 1 })
	u.SetPad("")
	u.Push(50)
	all, gaps := records(t, config.Conn, 61)
	if len(all) != 60 || len(gaps) != 1 || gaps[0].From != 11 || gaps[0].To != 11 || gaps[0].Messages != 1 {
		t.Errorf("%d numbers, gaps: %+v", len(all), gaps)
	}
}

// TestRelayGapsAreNotUndone has a gap at the end of the log when a term ends: the next leader
// goes on behind it, although the feed has now what the log takes.
func TestRelayGapsAreNotUndone(t *testing.T) {
	for reason, size := range map[string]int{"refused": 2000, ReasonTooLarge: 3 << 20} {
		t.Run(reason, func(t *testing.T) {
			s, u := startServer(t), startFeed(t)
			config := u.config(connect(t, s))
			config.Options = func(f *resume.Feed) []resock.Option {
				return append(feed.Options(u.url)(f), resock.WithReadLimit(8<<20))
			}
			config.Stream.MaxMsgSize = 1000
			first := startRelay(t, config)
			eventually(t, "a session", func() bool { return u.Sessions() == 1 })
			u.Push(10)
			eventually(t, "10 in the log", func() bool { return first.Stats().Written == 10 })
			u.SetPad(strings.Repeat("x", size))
			u.Push(1)
			eventually(t, "a gap", func() bool { return first.Stats().Written == 11 })
			first.stop()
			u.SetPad("")
			config.Conn = connect(t, s)
			startRelay(t, config)
			u.Push(1)
			all, gaps := records(t, config.Conn, 12)
			if len(all) != 11 || len(gaps) != 1 || !strings.HasPrefix(gaps[0].Reason, reason) || gaps[0].From != 11 || gaps[0].To != 11 {
				t.Errorf("%d, gaps: %+v", all, gaps)
			}
		})
	}
}

// TestRelaySnapshots has numbers that fall within an epoch, as a snapshot lets them: nothing
// is taken for a message that had the same number before, by the next leader neither.
func TestRelaySnapshots(t *testing.T) {
	s := startServer(t)
	upstream := resocktest.NewServer(t)
	config := upstream1(upstream.URL, connect(t, s))
	first := startRelay(t, config)
	conn := upstream.Accept()
	written := uint64(0)
	send := func(r *replica, conn *resocktest.Conn, messages ...string) {
		for _, m := range messages {
			if err := conn.Push(m); err != nil {
				t.Fatal(err)
			}
			written++
		}
		eventually(t, "all written", func() bool { return r.Stats().Written == written })
	}
	send(first, conn, "10", "11", "12", "snapshot 10", "11", "snapshot 11", "12", "13", "14")
	first.stop()
	config.Conn = connect(t, s)
	written = 0
	send(startRelay(t, config), upstream.Accept(), "15", "snapshot 12", "13", "14", "15", "16")
	messages := payloads(t, config.Conn)
	if got, want := strings.Join(messages, ","), "10,11,12,snapshot 10,11,snapshot 11,12,13,14,15,snapshot 12,13,14,15,16"; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// upstream1 is the configuration for a feed of numbers, some of which are snapshots.
func upstream1(url string, conn *nats.Conn) Config {
	return Config{Conn: conn, Name: "ticks", URL: url, TTL: time.Second, Read: func(m resock.MessageEvent, found *resume.Found) {
		text, snapshot := strings.CutPrefix(string(m.Data), "snapshot ")
		seq, err := strconv.ParseUint(text, 10, 64)
		switch {
		case err != nil:
		case snapshot:
			found.Snapshot(resume.Position{Epoch: "e", Seq: seq}, m.Data)
		default:
			found.Message(resume.Position{Epoch: "e", Seq: seq}, m.Data)
		}
	}}
}

// payloads returns the messages in the stream.
func payloads(t *testing.T, conn *nats.Conn) (messages []string) {
	t.Helper()
	consumer, err := jetStream(t, conn).OrderedConsumer(t.Context(), "ticks", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"ticks.msg.>"}})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := consumer.FetchNoWait(1000)
	if err != nil {
		t.Fatal(err)
	}
	for m := range batch.Messages() {
		messages = append(messages, string(m.Data()))
	}
	return messages
}

func TestRelayOut(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	start := func() *replica {
		config := u.config(connect(t, s))
		config.Out = &Out{Read: feed.ReadAck}
		return startRelay(t, config)
	}
	first := start()
	eventually(t, "a session", func() bool { return u.Sessions() == 1 })
	js := jetStream(t, connect(t, s))
	for n := range 200 {
		if _, err := js.Publish(t.Context(), "ticks.out.orders", fmt.Appendf(nil, "order-%d x", n), jetstream.WithMsgID(fmt.Sprintf("order-%d", n))); err != nil {
			t.Fatal(err)
		}
		if n == 100 {
			u.Cut()
			first.kill()
			start()
		}
	}
	eventually(t, "all at the server", func() bool { return len(u.Received()) == 200 })
	eventually(t, "all acknowledged", func() bool {
		out, err := js.Stream(t.Context(), "ticks-out")
		if err != nil {
			return false
		}
		return out.CachedInfo().State.Msgs == 0
	})
}

// TestRelayOutRefusesWhatCannotBeSent ends a text that is none, and goes on with the next.
func TestRelayOutRefusesWhatCannotBeSent(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	config.Out = &Out{Read: feed.ReadAck}
	r := startRelay(t, config)
	eventually(t, "a leader", func() bool { return r.Stats().Leading })
	js := jetStream(t, connect(t, s))
	for _, data := range []string{"\xff", "order-1 x"} {
		if _, err := js.Publish(t.Context(), "ticks.out.orders", []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the good one at the server", func() bool { return u.Received()["order-1"] == 1 })
	if len(u.Received()) != 1 {
		t.Errorf("received %v", u.Received())
	}
}

// TestRelayOfAClosedConnection ends when NATS can never be there again.
func TestRelayOfAClosedConnection(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	closed := connect(t, s)
	closed.Close()
	if err := Run(t.Context(), u.config(closed)); err == nil || !strings.Contains(err.Error(), "CLOSED") {
		t.Errorf("ended by %v", err)
	}
	leader := startRelay(t, u.config(connect(t, s)))
	eventually(t, "a leader", func() bool { return leader.Stats().Leading })
	for _, r := range []*replica{startRelay(t, u.config(connect(t, s))), leader} {
		r.conn.Close()
		err := <-r.done
		if r.done <- err; !errors.Is(err, nats.ErrConnectionClosed) {
			t.Errorf("ended by %v", err)
		}
	}
}

// TestRelayWithoutACluster ends when a server that is alone is to keep three replicas.
func TestRelayWithoutACluster(t *testing.T) {
	config := startFeed(t).config(connect(t, startServer(t)))
	config.Stream.Replicas = 3
	if err := Run(t.Context(), config); err == nil || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("ended by %v", err)
	}
}

// TestRelayGivesUp ends when the client does.
func TestRelayGivesUp(t *testing.T) {
	config := startFeed(t).config(connect(t, startServer(t)))
	config.URL = "ws://127.0.0.1:1"
	config.Options = func(*resume.Feed) []resock.Option { return []resock.Option{resock.WithMaxAttempts(1)} }
	var gaveUp *resock.GiveUpError
	if err := Run(t.Context(), config); !errors.As(err, &gaveUp) {
		t.Errorf("ended by %v", err)
	}
}

// TestRelayWithAnOptionThatCannotWork ends: another term would not help.
func TestRelayWithAnOptionThatCannotWork(t *testing.T) {
	config := startFeed(t).config(connect(t, startServer(t)))
	config.Options = func(*resume.Feed) []resock.Option { return []resock.Option{nil} }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var wrong *resock.OptionError
	if err := Run(ctx, config); !errors.As(err, &wrong) {
		t.Errorf("ended by %v", err)
	}
}

// TestRelayEndsWhileItTakesTheLog ends a relay that cannot begin its term.
func TestRelayEndsWhileItTakesTheLog(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	config := u.config(connect(t, s))
	js := jetStream(t, config.Conn)
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "ticks", Subjects: []string{"ticks.term"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish(t.Context(), "ticks.term", []byte("none of a relay")); err != nil {
		t.Fatal(err)
	}
	r := startRelay(t, config)
	eventually(t, "a holder of the lease", func() bool {
		bucket, err := js.KeyValue(t.Context(), "ticks-lease")
		if err != nil {
			return false
		}
		_, err = bucket.Get(t.Context(), "leader")
		return err == nil
	})
	r.cancel()
	select {
	case err := <-r.done:
		r.done <- err
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended by %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not end")
	}
}
