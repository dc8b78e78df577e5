package trials

import (
	"context"
	"encoding/binary"
	"flag"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resume"
)

var handovers = flag.Int("resock.handovers", 60, "how many sessions TestHandoverUnderLoad replaces; 1000 tells more")

const (
	handoverRate  = 5000 // messages per second
	handoverEvery = time.Millisecond
)

// TestHandoverUnderLoad replaces session after session under load, in both directions, on
// real sockets: nothing is lost and nothing comes twice, and the client is never down.
func TestHandoverUnderLoad(t *testing.T) {
	for name, start := range map[string]func(http.Handler) *httptest.Server{"plain": httptest.NewServer, "TLS": httptest.NewTLSServer} {
		t.Run(name, func(t *testing.T) {
			f := newNumbers(t)
			server := start(f)
			defer server.Close()
			defer f.stop()
			n := *handovers
			if name == "TLS" {
				n = min(n, 60)
			}
			testHandovers(t, f, server, n)
		})
	}
}

func testHandovers(t *testing.T, f *numbers, server *httptest.Server, n int) {
	feed, err := resume.New(t.Context(), resume.Config{AutoCommit: true, Read: func(m resock.MessageEvent, found *resume.Found) {
		found.Message(resume.Position{Seq: binary.BigEndian.Uint64(m.Data)}, m.Data)
	}})
	if err != nil {
		t.Fatal(err)
	}
	client, err := resock.New("ws"+strings.TrimPrefix(server.URL, "http"), resock.WithHandover(5*time.Second), resock.WithHTTPClient(server.Client()),
		resock.WithBackoff(5*time.Millisecond, time.Second),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			return s.Send(ctx, resock.MessageBinary, number(feed.Cursor("").Seq))
		}))
	if err != nil {
		t.Fatal(err)
	}
	events, err := feed.Follow(t.Context(), client)
	if err != nil {
		t.Fatal(err)
	}
	checked := client.Subscribe(t.Context())
	var stats resock.Stats // just before the end
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for range new(grammar.Checker).All(t, checked) {
		}
	})
	tasks.Go(func() { _ = client.Run(t.Context()) })
	tasks.Go(func() {
		defer client.Close(resock.StatusNormalClosure, "")
		for i := range n {
			client.Handover()
			for deadline := time.Now().Add(30 * time.Second); client.Stats().Handovers <= uint64(i); {
				if time.Now().After(deadline) {
					t.Errorf("handover %d does not end: %+v", i+1, client.Stats())
					return
				}
				<-time.After(time.Millisecond)
				client.Handover() // does nothing while one is under way
			}
		}
		if err := client.Flush(t.Context()); err != nil {
			t.Error(err)
		}
		stats = client.Stats()
	})
	sent := uint64(0)
	tasks.Go(func() {
		for ; client.Send(t.Context(), resock.MessageBinary, number(sent+1)) == nil; sent++ {
			<-time.After(handoverEvery)
		}
	})
	began, last := time.Now(), uint64(0)
	for event := range events {
		last = follow(t, event, last)
	}
	tasks.Wait()

	t.Logf("%d handovers in %v, %d messages in, %d out, %d came twice on the wire", stats.Handovers, time.Since(began), last, sent, feed.Stats().Duplicates)
	if stats.Downtime != 0 || stats.Fails != 0 || stats.Opens != stats.Handovers+1 || stats.Handovers < uint64(n) {
		t.Errorf("got %+v", stats)
	}
	if f.stop(); f.got != sent {
		t.Errorf("the server got %d messages, want %d", f.got, sent)
	}
}

// follow checks one event of the feed, and returns the number of the last message.
func follow(t *testing.T, event resume.Event, last uint64) uint64 {
	t.Helper()
	switch e := event.(type) {
	case resume.Message:
		if e.Position.Seq != last+1 {
			t.Errorf("message %d came after message %d", e.Position.Seq, last)
		}
		return e.Position.Seq
	case resume.Lifecycle:
		switch e := e.Event.(type) {
		case resock.OpenEvent:
			if e.Downtime != 0 {
				t.Errorf("got %+v, want no downtime", e)
			}
		case resock.CloseEvent:
			if !e.Clean || e.Code != resock.StatusNormalClosure {
				t.Errorf("got %+v, want a clean close", e)
			}
		default:
			t.Errorf("got %+v", e)
		}
	default:
		t.Errorf("got %+v", e)
	}
	return last
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

// numbers is a server of a feed of numbers, which it sends again from where a client asks.
type numbers struct {
	t      *testing.T
	began  time.Time
	end    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	mu  sync.Mutex
	got uint64 // the last number that a client has sent
}

func newNumbers(t *testing.T) *numbers {
	f := &numbers{t: t, began: time.Now()}
	f.end, f.cancel = context.WithCancel(context.Background())
	return f
}

// stop ends all connections.
func (f *numbers) stop() {
	f.cancel()
	f.tasks.Wait()
}

// head is the number of the last message of the feed.
func (f *numbers) head() uint64 {
	return uint64(time.Since(f.began) * handoverRate / time.Second)
}

func (f *numbers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.tasks.Add(1)
	defer f.tasks.Done()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		f.t.Error(err)
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(f.end)
	defer cancel()
	_, hello, err := conn.Read(ctx)
	if err != nil {
		return
	}
	f.tasks.Go(func() {
		defer cancel()
		f.read(ctx, conn)
	})
	for next := binary.BigEndian.Uint64(hello) + 1; ; {
		for ; next <= f.head(); next++ {
			if conn.Write(ctx, websocket.MessageBinary, number(next)) != nil {
				return
			}
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return
		}
	}
}

// read checks that the numbers of the clients come in order, on whatever connection.
func (f *numbers) read(ctx context.Context, conn *websocket.Conn) {
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		f.mu.Lock()
		if n := binary.BigEndian.Uint64(data); n != f.got+1 {
			f.t.Errorf("the server got message %d after message %d", n, f.got)
		}
		f.got = binary.BigEndian.Uint64(data)
		f.mu.Unlock()
	}
}
