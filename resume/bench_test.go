package resume_test

import (
	"context"
	"encoding/binary"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// BenchmarkFollow compares a feed with a loop over the events that looks at the numbers
// by hand: a message from a server over the loopback interface to the loop.
func BenchmarkFollow(b *testing.B) {
	b.Run("by hand", func(b *testing.B) {
		client, conn := dial(b)
		events := client.Subscribe(b.Context())
		measure(b, conn, func() {
			last := uint64(0)
			for event := range events {
				m, ok := event.(resock.MessageEvent)
				if !ok {
					continue
				}
				if seq := binary.BigEndian.Uint64(m.Data); seq != last+1 {
					b.Fatal("a hole")
				} else if last = seq; seq == uint64(b.N) {
					return
				}
			}
		})
	})
	b.Run("feed", func(b *testing.B) {
		feed, err := resume.New(b.Context(), resume.Config{Read: func(m resock.MessageEvent, found *resume.Found) {
			found.Message(resume.Position{Seq: binary.BigEndian.Uint64(m.Data)}, m.Data)
		}})
		if err != nil {
			b.Fatal(err)
		}
		client, conn := dial(b)
		events, err := feed.Follow(b.Context(), client)
		if err != nil {
			b.Fatal(err)
		}
		measure(b, conn, func() {
			for event := range events {
				switch e := event.(type) {
				case resume.Gap:
					b.Fatal("a hole")
				case resume.Message:
					_ = feed.Commit(e.Position)
					if e.Position.Seq == uint64(b.N) {
						return
					}
				}
			}
		})
	})
}

func dial(b *testing.B) (*resock.Client, *resocktest.Conn) {
	server := resocktest.NewServer(b)
	client, err := resock.New(server.URL)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	go client.Run(context.Background())
	return client, server.Accept()
}

// measure sends numbered messages, until receive has them.
func measure(b *testing.B, conn *resocktest.Conn, receive func()) {
	const burst = 1000
	frames := make([]byte, 0, burst*(128+4))
	b.ReportAllocs()
	b.ResetTimer()
	go func() {
		message := make([]byte, 128)
		for sent := 0; sent < b.N; {
			frames = frames[:0]
			for range min(burst, b.N-sent) {
				sent++
				binary.BigEndian.PutUint64(message, uint64(sent))
				frames = append(frames, resocktest.Frame(0x82, message)...)
			}
			if conn.Raw(frames) != nil {
				return
			}
		}
	}()
	receive()
	b.StopTimer()
}
