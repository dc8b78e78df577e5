package trials

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// allocations fails the test if f, which does something times times, allocates
// more than most for each. These are counts and not times, so they hold on any
// machine. AllocsPerRun rounds down, to none if there is not one in each run: that
// is for what happens once in a while, as when the garbage collector empties a pool.
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
						t.Fatal("not a message")
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
