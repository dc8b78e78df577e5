package trials

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

// BenchmarkReceive compares the channel of a subscriber with a bare read loop
// on the same stream. The module in benchmarks compares more, with the server in
// a process of its own.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{16, 128, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("channel/%d", size), func(b *testing.B) { receiveEvents(b, size) })
		b.Run(fmt.Sprintf("coder/%d", size), func(b *testing.B) { receiveBare(b, size) })
	}
}

func receiveEvents(b *testing.B, size int) {
	client, next := openClient(b, rawServer(b, flood(size)))
	if err := client.Send(b.Context(), resock.MessageText, []byte("go")); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if message, ok := next().(resock.MessageEvent); !ok || len(message.Data) != size {
			b.Fatal("not a whole message")
		}
	}
}

func receiveBare(b *testing.B, size int) {
	ctx := context.Background() // one that can end costs twice the time
	conn, _, err := websocket.Dial(ctx, rawServer(b, flood(size)), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer conn.CloseNow()
	if err := conn.Write(ctx, websocket.MessageText, []byte("go")); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	for b.Loop() {
		if _, data, err := conn.Read(ctx); err != nil || len(data) != size {
			b.Fatal("not a whole message", err)
		}
	}
}

// openClient returns a client with an open session, and what reads and checks the
// events that follow its OpenEvent, from a buffer of 256. The client ends with the
// test, without waiting long for a server that does not listen.
func openClient(tb testing.TB, url string, opts ...resock.Option) (client *resock.Client, next func() resock.Event) {
	tb.Helper()
	client, err := resock.New(url, append(opts, resock.WithCloseTimeout(50*time.Millisecond))...)
	if err != nil {
		tb.Fatal(err)
	}
	ctx := context.Background()
	events := client.Subscribe(ctx, resock.WithBuffer(256))
	go client.Run(ctx)
	checker := &grammar.Checker{Cut: true}
	tb.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		for range checker.All(tb, events) {
		}
	})
	next = func() resock.Event {
		event := <-events
		if err := checker.Event(event); err != nil {
			tb.Fatal(err)
		}
		return event
	}
	if event, ok := next().(resock.OpenEvent); !ok {
		tb.Fatal("not open:", event)
	}
	return client, next
}

// rawServer returns the URL of a server that does the opening handshake by hand
// and leaves the connection to serve. It ends with the test.
func rawServer(tb testing.TB, serve func(net.Conn, *bufio.Reader)) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		request, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		_, _ = conn.Write(rig.Upgraded(request))
		serve(conn, in)
	}()
	tb.Cleanup(func() {
		_ = listener.Close()
		<-done
	})
	return "ws://" + listener.Addr().String()
}

// flood serves messages of one size, as fast as they are taken, once the client
// has said something.
func flood(size int) func(net.Conn, *bufio.Reader) {
	frame := binaryFrame(size)
	var chunk []byte
	for len(chunk) < 256<<10 {
		chunk = append(chunk, frame...)
	}
	return func(conn net.Conn, in *bufio.Reader) {
		if _, err := in.ReadByte(); err != nil {
			return
		}
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}
}

// discard reads until the client leaves.
func discard(_ net.Conn, in *bufio.Reader) { _, _ = io.Copy(io.Discard, in) }

// binaryFrame returns a frame from a server.
func binaryFrame(size int) []byte {
	frame := []byte{0x82}
	switch {
	case size < 126:
		frame = append(frame, byte(size))
	case size <= 0xFFFF:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(size))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(size))
	}
	return append(frame, make([]byte, size)...)
}
