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

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

// allocations fails the test if f, which does something the given number of times,
// allocates more than most for each of them. Counts, unlike times, are the same on every
// machine. AllocsPerRun rounds down, so what happens only now and then, such as a
// garbage collection that empties a pool, does not count.
func allocations(t *testing.T, most float64, times int, f func()) {
	t.Helper()
	if got := testing.AllocsPerRun(20, f) / float64(times); got > most {
		t.Errorf("%.3f allocations each, want at most %.3f", got, most)
	}
}

func skipUnderRace(t *testing.T) {
	if rig.Race {
		t.Skip("the race detector allocates")
	}
}

func TestAllocsReceive(t *testing.T) {
	skipUnderRace(t)
	for _, test := range []struct {
		size int
		most float64
	}{
		{16, 1.1}, // the event; the payloads share blocks
		{128, 1.1},
		{1 << 10, 1.1},
		{16 << 10, 2.05},
	} {
		t.Run(fmt.Sprint(test.size), func(t *testing.T) {
			client, next := openClient(t, rawServer(t, flood(test.size)))
			if err := client.Send(t.Context(), resock.MessageText, []byte("go")); err != nil {
				t.Fatal(err)
			}
			const times = 2000
			allocations(t, test.most, times, func() {
				for range times {
					if _, ok := next().(resock.MessageEvent); !ok {
						t.Fatal("got another event, want a MessageEvent")
					}
				}
			})
		})
	}
}

func TestAllocsMessages(t *testing.T) {
	skipUnderRace(t)
	for _, borrowed := range []bool{false, true} {
		for _, size := range []int{16, 128, 1 << 10} {
			t.Run(fmt.Sprint(size, " borrowed ", borrowed), func(t *testing.T) {
				opts := []resock.SubscribeOption{resock.WithBuffer(256)}
				if borrowed {
					opts = append(opts, resock.WithBorrowedData())
				}
				client, err := resock.New(rawServer(t, flood(size)), resock.WithCloseTimeout(50*time.Millisecond))
				if err != nil {
					t.Fatal(err)
				}
				all := client.Messages(context.Background(), opts...)
				const times = 2000
				n, done := 0, make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					for range all {
						if n++; n%times == 0 {
							select {
							case done <- struct{}{}:
							case <-client.Done():
								return
							}
						}
					}
				}()
				go client.Run(context.Background())
				if err := client.Send(t.Context(), resock.MessageText, []byte("go")); err != nil {
					t.Fatal(err)
				}
				most := 0.1
				if borrowed {
					most = 0.01
				}
				allocations(t, most, times, func() { <-done })
				_ = client.Close(resock.StatusNormalClosure, "")
				<-client.Done()
				<-ended
			})
		}
	}
}

func TestAllocsHandler(t *testing.T) {
	skipUnderRace(t)
	for _, size := range []int{16, 128, 1 << 10, 16 << 10, 64 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			const times = 500
			n, done := 0, make(chan struct{})
			handler := resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {
				if n++; n%times != 0 {
					return
				}
				select {
				case done <- struct{}{}:
				case <-t.Context().Done():
				}
			})
			client, _ := openClient(t, rawServer(t, flood(size)), handler)
			if err := client.Send(t.Context(), resock.MessageText, []byte("go")); err != nil {
				t.Fatal(err)
			}
			allocations(t, 0, times, func() { <-done })
		})
	}
}

func TestAllocsSend(t *testing.T) {
	skipUnderRace(t)
	client, _ := openClient(t, rawServer(t, discard))
	data := make([]byte, 128)
	const times = 100
	allocations(t, 0, times, func() {
		for range times {
			if err := client.Send(context.Background(), resock.MessageBinary, data); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAllocsEnqueue(t *testing.T) {
	skipUnderRace(t)
	client, _ := openClient(t, rawServer(t, discard))
	data := make([]byte, 128)
	sent := make(chan error, 1)
	result := resock.WithResult(func(err error) { sent <- err })
	const times = 1000
	allocations(t, 0.03, times, func() {
		for range times - 1 {
			if err := client.Enqueue(resock.MessageBinary, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := client.Enqueue(resock.MessageBinary, data, result); err != nil {
			t.Fatal(err)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
	})
}

func TestAllocsHeartbeat(t *testing.T) {
	skipUnderRace(t)
	const times = 20
	beaten := make(chan struct{})
	server := rawServer(t, func(conn net.Conn, in *bufio.Reader) {
		pong := []byte{0x8A, 0}
		for n := 1; ; n++ {
			if _, err := in.Discard(2 + 4); err != nil { // an empty ping, masked
				return
			}
			if _, err := conn.Write(pong); err != nil {
				return
			}
			if n%times != 0 {
				continue
			}
			select {
			case beaten <- struct{}{}:
			case <-t.Context().Done():
				return
			}
		}
	})
	openClient(t, server, resock.WithHeartbeat(2*time.Millisecond, time.Minute))
	allocations(t, 0, times, func() { <-beaten })
}

// openClient returns a client with an open session, and a function that returns the next
// of the events after the OpenEvent, and checks it. The client is closed when the test
// ends, without waiting long for a server that does not read.
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

// rawServer starts a server that does the opening handshake by hand and then calls
// serve. It returns the server's URL. The server is closed when the test ends.
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

// flood returns a handler that, once it has received something, sends messages of one
// size as fast as it can.
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

// binaryFrame returns a server's frame with a binary message of the given size.
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
