package debug

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// BenchmarkMessage measures a message from a server over the loopback interface to a
// handler: of a client that is not registered, of one that is, and while a page is open.
func BenchmarkMessage(b *testing.B) {
	b.Run("none", func(b *testing.B) { rig.BenchmarkMessage(b, func(*resock.Client) {}) })
	b.Run("registered", func(b *testing.B) {
		rig.BenchmarkMessage(b, func(client *resock.Client) { register(b, new(Handler), client) })
	})
	b.Run("page", func(b *testing.B) {
		rig.BenchmarkMessage(b, func(client *resock.Client) {
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
