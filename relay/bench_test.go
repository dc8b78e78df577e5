package relay

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"path/filepath"
	"slices"
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
	for _, servers := range kindsOfServers {
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

// kindsOfServers are those that the benchmarks compare.
var kindsOfServers = []struct {
	name     string
	replicas int
	connect  func(b *testing.B) *nats.Conn
}{
	{"sync", 1, func(b *testing.B) *nats.Conn { return overTCP(b, false) }},
	{"no-sync", 1, func(b *testing.B) *nats.Conn { return overTCP(b, true) }},
	{"cluster", 3, func(b *testing.B) *nats.Conn { return startCluster(b).connect() }},
}

// BenchmarkStored writes messages of two sizes, and reports how many bytes each has in the
// stream, by which its limits count, and in the files.
//
//	go test -run '^$' -bench Stored -benchtime 100000x
func BenchmarkStored(b *testing.B) {
	for _, size := range []int{128, 1 << 10} {
		b.Run(fmt.Sprint(size, "B"), func(b *testing.B) {
			dir := b.TempDir()
			s, err := server.Start(server.Config{Dir: dir, NoSync: true})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(s.Close)
			conn, err := s.Connect()
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(conn.Close)
			w := startWriter(b, conn, 1)
			data := bytes.Repeat([]byte("x"), size)
			for n := range b.N {
				m := same(n)
				m.Data = data
				if err := w.append(b.Context(), m); err != nil {
					b.Fatal(err)
				}
			}
			if err := w.waiting.empty(b.Context()); err != nil {
				b.Fatal(err)
			}
			info, err := w.log.stream.Info(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(info.State.Bytes)/float64(info.State.Msgs), "B/message")
			b.ReportMetric(float64(sizeOfFiles(b, dir))/float64(info.State.Msgs), "file-B/message")
		})
	}
}

// sizeOfFiles returns how many bytes the files in a folder have.
func sizeOfFiles(b *testing.B, dir string) (size int64) {
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		size += info.Size()
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkHop reports how long a message takes from the client of the relay through
// JetStream to a worker, when each is under way alone: median and 99th percentile.
//
//	go test -run '^$' -bench Hop -benchtime 2000x
func BenchmarkHop(b *testing.B) {
	for _, servers := range kindsOfServers {
		b.Run(servers.name, func(b *testing.B) {
			conn := servers.connect(b)
			f, _ := startRelayOf(b, conn, servers.replicas)
			messages := consume(b, conn)
			took := make([]time.Duration, b.N)
			b.ResetTimer()
			for n := range took {
				f.Push(1)
				m, err := messages.Next()
				if err != nil {
					b.Fatal(err)
				}
				came, err := time.Parse(time.RFC3339Nano, m.Headers().Get(HeaderTime))
				if err != nil {
					b.Fatal(err)
				}
				took[n] = time.Since(came)
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[b.N/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[b.N*99/100].Microseconds()), "p99-µs")
		})
	}
}

// consume returns what a worker reads of the messages of a stream.
func consume(b *testing.B, conn *nats.Conn) jetstream.MessagesContext {
	js, err := jetstream.New(conn)
	if err != nil {
		b.Fatal(err)
	}
	consumer, err := js.OrderedConsumer(b.Context(), "ticks", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"ticks.msg.>"}})
	if err != nil {
		b.Fatal(err)
	}
	messages, err := consumer.Messages()
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(messages.Stop)
	return messages
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

// startWriter returns the writer of a term, which ends with the benchmark.
func startWriter(b *testing.B, conn *nats.Conn, replicas int) *writer {
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
	b.Cleanup(term.release)
	w, _, err := r.log.take(term.ctx, term)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.close)
	return w
}

func writeWriter(b *testing.B, conn *nats.Conn, replicas int) {
	w := startWriter(b, conn, replicas)
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
	f, r := startRelayOf(b, conn, replicas)
	b.ResetTimer()
	f.Push(uint64(b.N))
	eventually(b, "all written", func() bool { return r.Stats().Written >= uint64(b.N) })
	b.StopTimer()
	if got := r.Stats(); got.Gaps > 0 {
		b.Errorf("%+v", got)
	}
}

// startRelayOf returns a feed and a relay that is connected to it. Both end with the
// benchmark.
func startRelayOf(b *testing.B, conn *nats.Conn, replicas int) (*feed.Server, *Relay) {
	f := feed.New("e")
	f.SetPad(string(payload))
	s := httptest.NewServer(f)
	b.Cleanup(s.Close)
	b.Cleanup(f.Cut)
	url := "ws" + strings.TrimPrefix(s.URL, "http")
	r, err := New(Config{Conn: conn, Name: "ticks", URL: url, Read: feed.Read, Options: feed.Options(url), Stream: jetstream.StreamConfig{Replicas: replicas}})
	if err != nil {
		b.Fatal(err)
	}
	ctx := b.Context() // ends before what the benchmark cleans up
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	b.Cleanup(func() { <-done })
	eventually(b, "a session", func() bool { return f.Sessions() > 0 })
	return f, r
}
