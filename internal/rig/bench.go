package rig

import (
	"context"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// BenchmarkMessage measures what a message costs, from a socket to a handler, while watch
// has something look at the client.
func BenchmarkMessage(b *testing.B, watch func(*resock.Client)) {
	left, done := b.N, make(chan struct{})
	server := resocktest.NewServer(b)
	client, err := resock.New(server.URL, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {
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
