package relay

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
	"github.com/resock/resock/resume"
)

// BenchmarkWrite writes the messages of a feed to a stream over TCP: by a loop of nats.go
// that publishes asynchronously, by the writer alone, and by a relay that reads them from
// a WebSocket in the same process. The servers of NATS are in this process, too: one that
// syncs each write, as by default; one that does not; and a cluster of three.
//
//	go test -run '^$' -bench Write -benchtime 100000x
func BenchmarkWrite(b *testing.B) {
	for _, servers := range []struct {
		name     string
		replicas int
		connect  func(b *testing.B) *nats.Conn
	}{
		{"sync", 1, func(b *testing.B) *nats.Conn { return overTCP(b, false) }},
		{"no-sync", 1, func(b *testing.B) *nats.Conn { return overTCP(b, true) }},
		{"cluster", 3, func(b *testing.B) *nats.Conn { return startCluster(b).connect() }},
	} {
		for _, way := range []struct {
			name string
			run  func(b *testing.B, conn *nats.Conn, replicas int)
		}{{"async", writeAsync}, {"writer", writeWriter}, {"relay", writeRelay}} {
			b.Run(servers.name+"/"+way.name, func(b *testing.B) {
				way.run(b, servers.connect(b), servers.replicas)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
			})
		}
	}
}

// overTCP connects to a server of NATS in this process.
func overTCP(b *testing.B, noSync bool) *nats.Conn {
	s, err := server.Start(server.Config{Dir: b.TempDir(), Addr: "127.0.0.1:0", NoSync: noSync})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(s.Close)
	conn, err := nats.Connect(s.URL())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	return conn
}

// payload is that of a message, of 128 bytes.
var payload = []byte(strings.Repeat("x", 128))

// same returns the message that a relay writes.
func same(n int) *nats.Msg {
	m := resume.Message{Position: resume.Position{Epoch: "e", Seq: uint64(n + 1)}}
	return &nats.Msg{
		Subject: "ticks.msg.all", Data: payload,
		Header: header(1, m, time.Now(), idOf(1, m, 0, false)),
	}
}

func writeAsync(b *testing.B, conn *nats.Conn, replicas int) {
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "ticks", Subjects: []string{"ticks.>"}, Replicas: replicas}); err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := range b.N {
		if _, err := js.PublishMsgAsync(same(n), jetstream.WithStallWait(time.Minute)); err != nil {
			b.Fatal(err)
		}
	}
	<-js.PublishAsyncComplete()
}

func writeWriter(b *testing.B, conn *nats.Conn, replicas int) {
	r, err := New(Config{Conn: conn, Name: "ticks", URL: "ws://unused", Stream: jetstream.StreamConfig{Replicas: replicas}})
	if err != nil {
		b.Fatal(err)
	}
	if err := r.prepare(b.Context()); err != nil {
		b.Fatal(err)
	}
	term, err := r.lease.acquire(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer term.release()
	w, _, err := r.log.take(term.ctx, term)
	if err != nil {
		b.Fatal(err)
	}
	defer w.close()
	b.ResetTimer()
	for n := range b.N {
		if err := w.append(b.Context(), same(n)); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.waiting.empty(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func writeRelay(b *testing.B, conn *nats.Conn, replicas int) {
	f := feed.New("e")
	f.SetPad(string(payload))
	s := httptest.NewServer(f)
	defer s.Close()
	defer f.Cut()
	url := "ws" + strings.TrimPrefix(s.URL, "http")
	r, err := New(Config{Conn: conn, Name: "ticks", URL: url, Read: feed.Read, Options: feed.Options(url), Stream: jetstream.StreamConfig{Replicas: replicas}})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error)
	ctx := b.Context()
	go func() { done <- r.Run(ctx) }()
	for f.Sessions() == 0 {
		time.Sleep(time.Millisecond)
	}
	b.ResetTimer()
	f.Push(uint64(b.N))
	for r.Stats().Written < uint64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.StopTimer()
	if got := r.Stats(); got.Gaps > 0 {
		b.Errorf("%+v", got)
	}
}
