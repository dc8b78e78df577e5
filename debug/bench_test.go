package debug

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// BenchmarkMessage measures a message from a server over the loopback interface to a
// handler: of a client that is not registered, of one that is, and while a page is open.
func BenchmarkMessage(b *testing.B) {
	b.Run("none", func(b *testing.B) { benchmarkMessage(b, func(*resock.Client) {}) })
	b.Run("registered", func(b *testing.B) {
		benchmarkMessage(b, func(client *resock.Client) { register(b, new(Handler), client) })
	})
	b.Run("page", func(b *testing.B) {
		benchmarkMessage(b, func(client *resock.Client) {
			var h Handler
			register(b, &h, client)
			server := httptest.NewServer(&h)
			res, err := http.Get(server.URL + "/?events")
			if err != nil {
				b.Fatal(err)
			}
			go io.Copy(io.Discard, res.Body)
			b.Cleanup(func() { res.Body.Close(); server.Close() })
		})
	})
}

func register(b *testing.B, h *Handler, client *resock.Client) {
	remove, err := h.Add("feed", client)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(remove)
}

func benchmarkMessage(b *testing.B, watch func(*resock.Client)) {
	left, done := b.N, make(chan struct{})
	server := resocktest.NewServer(b)
	client, err := resock.New(server.URL, resock.WithHTTPClient(server.Client()),
		resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {
			if left--; left == 0 {
				close(done)
			}
		}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	watch(client)
	go client.Run(context.Background())
	conn := server.Accept()
	const burst = 1000
	message := resocktest.Frame(0x81, make([]byte, 128))
	var frames []byte
	for range burst {
		frames = append(frames, message...)
	}
	b.ResetTimer()
	for sent := 0; sent < b.N; sent += burst {
		n := min(burst, b.N-sent)
		if err := conn.Raw(frames[:n*len(message)]); err != nil {
			b.Fatal(err)
		}
	}
	<-done
	b.StopTimer()
}
