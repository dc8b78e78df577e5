package trials

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// BenchmarkIn measures the path of a message from the connection to the application.
// Neither it nor BenchmarkOut has a network or a server: they measure the work of the
// client alone, so that benchstat can compare two versions of it. The benchmarks module
// compares it with other clients.
func BenchmarkIn(b *testing.B) {
	for _, size := range []int{16, 128, 1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("handler/%d", size), func(b *testing.B) {
			left, done := b.N, make(chan struct{})
			benchmarkIn(b, size, func(*resock.Client) { <-done }, resock.WithMessageHandler(
				func(context.Context, resock.MessageEvent) {
					if left--; left == 0 {
						close(done)
					}
				}))
		})
		b.Run(fmt.Sprintf("channel/%d", size), func(b *testing.B) {
			benchmarkIn(b, size, func(client *resock.Client) {
				events := client.Subscribe(b.Context(), resock.WithBuffer(256))
				<-events // Open
				for range b.N {
					<-events
				}
			})
		})
		b.Run(fmt.Sprintf("messages/%d", size), func(b *testing.B) { benchmarkMessages(b, size) })
		b.Run(fmt.Sprintf("borrowed/%d", size), func(b *testing.B) { benchmarkMessages(b, size, resock.WithBorrowedData()) })
	}
}

func benchmarkMessages(b *testing.B, size int, opts ...resock.SubscribeOption) {
	benchmarkIn(b, size, func(client *resock.Client) {
		left := b.N
		for range client.Messages(b.Context(), opts...) {
			if left--; left <= 0 {
				return
			}
		}
	})
}

func benchmarkIn(b *testing.B, size int, receive func(*resock.Client), opts ...resock.Option) {
	conn := newLoopConn(size)
	client := runOver(b, conn, opts...)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	close(conn.flood)
	receive(client)
	b.StopTimer()
}

// BenchmarkOut measures the path of a message from the application to the connection.
func BenchmarkOut(b *testing.B) {
	for _, size := range []int{128, 16 << 10} {
		data := make([]byte, size)
		b.Run(fmt.Sprintf("send/%d", size), func(b *testing.B) {
			client := runOver(b, newLoopConn(0))
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if err := client.Send(ctx, resock.MessageBinary, data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("enqueue/%d", size), func(b *testing.B) {
			client := runOver(b, newLoopConn(0))
			b.ReportAllocs()
			for b.Loop() {
				err := client.Enqueue(resock.MessageBinary, data)
				for errors.Is(err, resock.ErrQueueFull) {
					runtime.Gosched()
					err = client.Enqueue(resock.MessageBinary, data)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// runOver returns a client with an open session over conn.
func runOver(b *testing.B, conn net.Conn, opts ...resock.Option) *resock.Client {
	b.Helper()
	dial := func(context.Context, string, string) (net.Conn, error) { return conn, nil }
	opts = append(opts, resock.WithHTTPClient(&http.Client{Transport: &http.Transport{DialContext: dial}}),
		resock.WithCloseTimeout(time.Millisecond))
	client, err := resock.New("ws://memory.test", opts...)
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

// loopConn is the client's end of a connection. Its server upgrades it, sends the same
// frames for ever once flood is closed, and ignores what it receives.
type loopConn struct {
	flood  chan struct{}
	closed chan struct{}
	once   sync.Once
	answer chan []byte

	request []byte // nil once it is answered
	frames  []byte
	at      int
}

func newLoopConn(size int) *loopConn {
	c := &loopConn{flood: make(chan struct{}), closed: make(chan struct{}), answer: make(chan []byte, 1), request: []byte{}}
	for len(c.frames) < 256<<10 {
		c.frames = append(c.frames, binaryFrame(size)...)
	}
	return c
}

func (c *loopConn) Write(p []byte) (int, error) {
	if c.request == nil {
		return len(p), nil
	}
	c.request = append(c.request, p...)
	if request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(c.request))); err == nil {
		c.answer <- rig.Upgraded(request)
		c.request = nil
	}
	return len(p), nil
}

func (c *loopConn) Read(p []byte) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case answer := <-c.answer:
		return copy(p, answer), nil
	case <-c.flood:
	}
	n := copy(p, c.frames[c.at:])
	if c.at += n; c.at == len(c.frames) {
		c.at = 0
	}
	return n, nil
}

func (c *loopConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return nil
}

func (c *loopConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *loopConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *loopConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *loopConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *loopConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }
