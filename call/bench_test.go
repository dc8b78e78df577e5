package call_test

import (
	"context"
	"encoding/binary"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/call"
)

// BenchmarkCall compares a call with the map of channels that one would write by hand
// over the same client: goroutines that each wait for the answer to their last request.
func BenchmarkCall(b *testing.B) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		for {
			typ, data, err := conn.Read(context.Background())
			if err != nil || conn.Write(context.Background(), typ, data) != nil {
				return
			}
		}
	}))
	defer server.Close()
	url := "ws" + strings.TrimPrefix(server.URL, "http")
	id := func(m resock.MessageEvent) (string, bool) { return string(m.Data[:8]), len(m.Data) >= 8 }

	b.Run("calls", func(b *testing.B) {
		calls := call.New(id)
		client := open(b, url, resock.WithFilter(calls.Filter))
		if err := calls.Bind(client); err != nil {
			b.Fatal(err)
		}
		measure(b, func(ctx context.Context, id string, data []byte) error {
			_, err := calls.Do(ctx, id, resock.MessageBinary, data)
			return err
		})
	})
	b.Run("by hand", func(b *testing.B) {
		h := &byHand{waiting: make(map[string]chan []byte)}
		h.client = open(b, url, resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool {
			id, _ := id(m)
			return h.answered(id, m.Data)
		}))
		measure(b, h.do)
	})
}

// byHand is what one would write: no call ends with its session.
type byHand struct {
	client  *resock.Client
	mu      sync.Mutex
	waiting map[string]chan []byte
}

func (h *byHand) answered(id string, data []byte) (pass bool) {
	h.mu.Lock()
	answer := h.waiting[id]
	delete(h.waiting, id)
	h.mu.Unlock()
	if answer == nil {
		return true
	}
	answer <- append([]byte(nil), data...)
	return false
}

func (h *byHand) do(ctx context.Context, id string, data []byte) error {
	answer := make(chan []byte, 1)
	h.mu.Lock()
	h.waiting[id] = answer
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.waiting, id)
		h.mu.Unlock()
	}()
	if err := h.client.Send(ctx, resock.MessageBinary, data); err != nil {
		return err
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func open(b *testing.B, url string, opts ...resock.Option) *resock.Client {
	b.Helper()
	client, err := resock.New(url, opts...)
	if err != nil {
		b.Fatal(err)
	}
	go client.Run(context.Background())
	b.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	if err := client.WaitOpen(b.Context()); err != nil {
		b.Fatal(err)
	}
	return client
}

// measure makes calls on 64 goroutines for each processor.
func measure(b *testing.B, do func(ctx context.Context, id string, data []byte) error) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var next atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		data := make([]byte, 64)
		for pb.Next() {
			binary.BigEndian.PutUint64(data, next.Add(1))
			if err := do(ctx, string(data[:8]), data); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
