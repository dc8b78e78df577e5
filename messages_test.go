package resock_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// numbered scripts a server that pushes numbered messages of one size, as many for each
// value in batches.
func numbered(s *resocktest.Server, size int, batches <-chan int) {
	n := 0
	s.Handle(func(c *resocktest.Conn) {
		for {
			select {
			case batch := <-batches:
				var frames []byte
				for range batch {
					n++
					frames = append(frames, resocktest.Frame(rig.Fin|rig.Text, numberOf(n, size))...)
				}
				_ = c.Raw(frames)
			case <-c.Done():
				return
			}
		}
	})
}

func numberOf(n, size int) []byte {
	return fmt.Appendf(nil, "%0*d", size, n)
}

func TestMessages(t *testing.T) {
	for name, opts := range map[string][]resock.SubscribeOption{
		"owned":      nil,
		"borrowed":   {resock.WithBorrowedData()},
		"small":      {resock.WithBuffer(3), resock.WithBorrowedData()},
		"unbuffered": {resock.WithBuffer(0)},
	} {
		for _, size := range []int{20, 3000, 100_000} {
			t.Run(fmt.Sprint(name, " ", size), func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					batches := make(chan int, 1)
					numbered(s, size, batches)
					client := rig.Bare(t, s.URL, rig.Reach(s))
					all := client.Messages(context.Background(), opts...)
					go client.Run(context.Background())
					batches <- 300
					n := 0
					var kept [][]byte
					for m := range all {
						n++
						if want := numberOf(n, size); !bytes.Equal(m.Data, want) || m.Session != 1 || m.Type != resock.MessageText || m.Lost != 0 || len(m.Data) != cap(m.Data) {
							t.Fatalf("message %d: session %d, lost %d, type %v, %.30q, want the text pushed, in session 1", n, m.Session, m.Lost, m.Type, m.Data)
						}
						kept = append(kept, m.Data)
						if n%300 == 0 && n < 900 {
							batches <- 300
						}
						if n == 900 {
							_ = client.Close(resock.StatusNormalClosure, "")
						}
					}
					if n != 900 {
						t.Errorf("the loop ended after %d messages, want 900", n)
					}
					if strings.Contains(name, "owned") {
						for i, data := range kept {
							if !bytes.Equal(data, numberOf(i+1, size)) {
								t.Fatalf("the data of message %d was overwritten", i+1)
							}
						}
					}
				})
			})
		}
	}
}

// Loops over Messages and channels get the same messages, whoever else comes and leaves.
func TestMessagesBesideSubscribers(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		batches := make(chan int, 1)
		numbered(s, 20, batches)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		var got [4][]string
		ends := make(chan int)
		take := func(i int, opts ...resock.SubscribeOption) {
			all := client.Messages(context.Background(), opts...)
			go func() {
				for m := range all {
					got[i] = append(got[i], string(m.Data))
				}
				ends <- i
			}()
		}
		take(0, resock.WithBorrowedData())
		take(1)
		go client.Run(context.Background())
		batches <- 100
		synctest.Wait()
		take(2, resock.WithBorrowedData())
		r := grammarReader(t, client, &got[3], ends)
		batches <- 100
		synctest.Wait()
		r()
		synctest.Wait()
		batches <- 100
		synctest.Wait()
		_ = client.Close(resock.StatusNormalClosure, "")
		for range 4 {
			<-ends
		}
		for i, want := range [][2]int{{1, 300}, {1, 300}, {101, 300}, {101, 200}} {
			var all []string
			for n := want[0]; n <= want[1]; n++ {
				all = append(all, string(numberOf(n, 20)))
			}
			if !slices.Equal(got[i], all) {
				t.Errorf("subscriber %d got %d messages, want all: %.100q", i, len(got[i]), got[i])
			}
		}
	})
}

// grammarReader subscribes by a channel, and collects the messages until it leaves.
func grammarReader(t *testing.T, client *resock.Client, got *[]string, ends chan<- int) (leave func()) {
	ctx, leave := context.WithCancel(context.Background())
	events := client.Subscribe(ctx)
	go func() {
		checker := grammar.Checker{Late: true, Cut: true}
		for event := range checker.All(t, events) {
			if m, ok := event.(resock.MessageEvent); ok {
				*got = append(*got, string(m.Data))
			}
		}
		ends <- 3
	}()
	return leave
}

func TestMessagesServeOneRange(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		batches := make(chan int, 1)
		numbered(s, 20, batches)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		ctx, cancel := context.WithCancel(context.Background())
		broken, canceled := client.Messages(context.Background()), client.Messages(ctx)
		go client.Run(context.Background())
		batches <- 1000
		for range broken {
			break
		}
		for range broken {
			t.Fatal("a second range over Messages got a message")
		}
		n := 0
		defer cancel()
		for range canceled {
			if n++; n == 5 {
				cancel()
				synctest.Wait()
			}
		}
		if n > 6 {
			t.Errorf("%d messages after the end of the context, want at most 1", n-5)
		}
		// Both loops have ended, so nothing blocks delivery.
		synctest.Wait()
		if stats := client.Stats(); !stats.BlockedSince.IsZero() || stats.MessagesIn != 1000 {
			t.Errorf("got %+v, want 1000 messages in, and delivery not blocked", stats)
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		for range client.Messages(context.Background()) {
			t.Fatal("got a message from a closed client")
		}
	})
}

func TestMessagesDropOldest(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		batches := make(chan int, 1)
		numbered(s, 20, batches)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		all := client.Messages(context.Background(), resock.WithBuffer(10), resock.WithOverflow(resock.OverflowDropOldest))
		go client.Run(context.Background())
		batches <- 1000
		time.Sleep(time.Second)
		got, lost := 0, uint64(0)
		for m := range all {
			if got++; got == 1 && m.Lost != 990 {
				t.Errorf("%d messages lost before the first, want 990", m.Lost)
			}
			if want := numberOf(990+got, 20); string(m.Data) != string(want) {
				t.Errorf("got %s, want %s", m.Data, want)
			}
			if lost += m.Lost; got == 10 {
				break
			}
		}
		if dropped := client.Stats().Dropped; lost != 990 || dropped != 990 {
			t.Errorf("%d lost, %d dropped, want 990", lost, dropped)
		}
	})
	// What was lost in a session is not reported in the next one, not even if it was
	// lost after the last message delivered.
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 1, 100, (*resocktest.Conn).Drop)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		all := client.Messages(context.Background(), resock.WithBuffer(1), resock.WithOverflow(resock.OverflowDropOldest))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 2, time.Minute)
		synctest.Wait()
		for m := range all {
			if m.Session != 2 || m.Lost != 0 {
				t.Errorf("got %+v, want session 2, none lost", m)
			}
			break
		}
		if dropped := client.Stats().Dropped; dropped != 100 {
			t.Errorf("%d dropped, want 100", dropped)
		}
	})
}

// A Messages sequence over which nobody ranges blocks delivery, and nothing else; Stats
// names it. A later range begins with the messages parked when the session ended.
func TestMessagesNeverRanged(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 1, 1000, (*resocktest.Conn).Drop)
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(time.Second, time.Second))
		all := client.Messages(context.Background(), resock.WithBuffer(5), resock.WithLabel("forgotten"))
		go client.Run(context.Background())
		time.Sleep(time.Second / 2)
		if stats := client.Stats(); stats.BlockedBy != "forgotten" {
			t.Errorf("got %+v, want it blocked by forgotten", stats)
		}
		client.Suspend() // reads on until the server has closed
		time.Sleep(time.Second)
		client.Resume()
		rig.OpensWithin(t, client, 2, time.Minute)
		time.Sleep(time.Hour)
		if stats := client.Stats(); stats.Session != 2 || stats.BlockedBy != "forgotten" || stats.Blocked < time.Hour {
			t.Errorf("got %+v, want session 2, blocked by forgotten for an hour", stats)
		}
		n, session := 0, uint64(0)
		for m := range all {
			if n++; m.Session < session || m.Session == 1 && string(m.Data) != fmt.Sprint("push ", n-1) {
				t.Fatalf("message %d: got %+v, want the pushes of each session in order", n, m)
			}
			if session = m.Session; session == 2 {
				break
			}
		}
		if n != 1001 {
			t.Errorf("%d messages, want 1001", n)
		}
	})
}

func TestMessagesEmpty(t *testing.T) {
	var log bytes.Buffer
	client, err := resock.New("ws://server.test", resock.WithLogger(slog.New(slog.NewTextHandler(&log, nil))),
		resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {}))
	if err != nil {
		t.Fatal(err)
	}
	for range client.Messages(context.Background(), resock.WithLabel("feed")) {
		t.Error("got a message, want none with WithMessageHandler")
	}
	if !strings.Contains(log.String(), "label=feed") {
		t.Errorf("the log has %q, want a warning with label=feed", log.String())
	}
}

// Filters run in order, and what one keeps reaches no later filter and no subscriber. It
// counts neither as lost nor as dropped.
func TestFilters(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		batches := make(chan int, 1)
		numbered(s, 20, batches)
		var order []string
		odd := func(name string, every byte) resock.Option {
			return resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool {
				order = append(order, name)
				return m.Data[19]%every != 0
			})
		}
		client := rig.Bare(t, s.URL, rig.Reach(s), odd("two", 2), odd("three", 3))
		all := client.Messages(context.Background())
		go client.Run(context.Background())
		batches <- 9
		var got []byte
		for m := range all {
			got = append(got, m.Data[19])
			if m.Lost != 0 {
				t.Errorf("got %+v, want none lost", m)
			}
			if len(got) == 3 {
				_ = client.Close(resock.StatusNormalClosure, "")
			}
		}
		if string(got) != "157" { // '3' and '9' are multiples of three, as bytes too
			t.Errorf("got %s, want 157", got)
		}
		// Of the bytes '1' to '9' the first filter lets every second one pass.
		if want := "two three two two three two two three two two three two two three"; strings.Join(order, " ") != want {
			t.Errorf("the filters were called in the order %v, want %s", order, want)
		}
		if stats := client.Stats(); stats.MessagesIn != 9 || stats.Dropped != 0 {
			t.Errorf("got %+v, want 9 messages in, none dropped", stats)
		}
	})
}

// Delivery that waits for a loop continues when the loop ends.
func TestMessagesLeftWhileBlocking(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		batches := make(chan int, 1)
		numbered(s, 20, batches)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		left := client.Messages(context.Background(), resock.WithBuffer(1))
		other := client.Messages(context.Background())
		go client.Run(context.Background())
		n := 0
		over := make(chan struct{})
		go func() {
			defer close(over)
			for range other {
				n++
			}
		}()
		batches <- 10
		for range left {
			synctest.Wait() // until delivery of the rest of the burst blocks
			break
		}
		synctest.Wait()
		if by := client.Stats().BlockedBy; by != "" || n != 10 {
			t.Errorf("blocked by %q, the other loop got %d messages, want nobody and 10", by, n)
		}
		_ = client.Close(resock.StatusNormalClosure, "")
		<-over
	})
}
