package faults

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// cancelTogether cancels many Sends that wait behind a queued message, and returns how
// long it takes until all of them have returned.
func cancelTogether(t *testing.T, senders int) time.Duration {
	client, err := resock.New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Enqueue(resock.MessageText, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var began, over sync.WaitGroup
	began.Add(senders)
	for range senders {
		over.Go(func() {
			began.Done()
			if err := client.Send(ctx, resock.MessageText, []byte("waits")); !errors.Is(err, context.Canceled) || !errors.Is(err, resock.ErrNotSent) {
				t.Errorf("Send: got %v, want ErrNotSent and Canceled", err)
			}
		})
	}
	began.Wait()
	started := time.Now()
	cancel()
	over.Wait()
	took := time.Since(started)
	if messages := client.Stats().Queued; messages != 1 {
		t.Errorf("%d messages are queued, want 1", messages)
	}
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	return took
}

// comeAndGo adds n subscribers, which then leave together, and returns how long this
// takes.
func comeAndGo(t *testing.T, n int) time.Duration {
	client, err := resock.New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	started := time.Now()
	var streams []<-chan resock.Event
	for range n {
		streams = append(streams, rig.Abandon(ctx, client, resock.WithBuffer(0)))
	}
	leave()
	for _, stream := range streams {
		<-stream
	}
	return time.Since(started)
}

func TestFault82_ManyAtOnce(t *testing.T) {
	const many, parts = 16_000, 16
	for name, together := range map[string]func(*testing.T, int) time.Duration{
		"Sends": cancelTogether, "subscribers": comeAndGo,
	} {
		// Only the growth is checked, on the same machine at the same time. If each one
		// looked at all others, it would be 16 in every round, not only in a disturbed one.
		grew := math.Inf(1)
		for round := 0; round < 10 && grew > parts/2; round++ {
			few, all := together(t, many/parts), together(t, many)
			grew = min(grew, float64(all)/float64(parts*few))
		}
		if grew > parts/2 {
			t.Errorf("of %d %s each takes %.1f times as long as of %d, want at most %d", many, name, grew, many/parts, parts/2)
		}
	}
}

func TestFault84_ReplyToALostSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		first := s.Accept()
		r.Open()
		if err := first.Push("question"); err != nil {
			t.Fatal(err)
		}
		question := r.Next().(resock.MessageEvent)
		first.Drop()
		r.Fail(resock.PhaseRead)
		second := s.Accept()
		r.Open()
		answer := resock.WithSession(question.Session)
		if err := r.Send(context.Background(), resock.MessageText, []byte("answer"), answer); err != resock.ErrSessionOver {
			t.Errorf("Send: got %v, want ErrSessionOver", err)
		}
		if err := r.Enqueue(resock.MessageText, []byte("answer"), answer); err != resock.ErrSessionOver {
			t.Errorf("Enqueue: got %v, want ErrSessionOver", err)
		}
		if err := r.Send(context.Background(), resock.MessageText, []byte("other")); err != nil {
			t.Errorf("Send without a session: got %v, want nil", err)
		}
		if got := fmt.Sprint(rig.Payloads(second)); got != "[other]" {
			t.Errorf("session 2 received %s, want [other]", got)
		}
	})
}

func TestFault89_Counters(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(time.Second, 0),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }))
		c := s.Accept()
		r.Open()
		if err := r.Send(context.Background(), resock.MessageText, []byte("message")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if got := rig.Payloads(c); len(got) < 10 {
			t.Errorf("the server received %q, want at least 10 messages", got)
		}
		if sent := r.Stats().MessagesOut; sent != 1 {
			t.Errorf("MessagesOut is %d, want 1: heartbeat messages do not count", sent)
		}
	})
	checkLossesStay(t)
}

// checkLossesStay checks that messages lost in one session are not counted in the next.
func checkLossesStay(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		rig.Flooding(s, 1, 100, (*resocktest.Conn).Drop)
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := client.Subscribe(context.Background(), resock.WithBuffer(5), resock.WithOverflow(resock.OverflowDropOldest))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 2, time.Minute)
		synctest.Wait()
		checker := grammar.Checker{}
		lost, messages := map[uint64]uint64{}, map[uint64]int{}
		go func() {
			time.Sleep(time.Second)
			_ = client.Close(resock.StatusNormalClosure, "")
		}()
		for event := range checker.All(t, events) {
			if m, ok := event.(resock.MessageEvent); ok {
				lost[m.Session] += m.Lost
				messages[m.Session]++
			}
		}
		if lost[2] != 0 || messages[2] != 1 || client.Stats().Dropped < 90 {
			t.Errorf("by session %v lost and %v delivered, %d dropped; want none lost and 1 delivered in session 2, at least 90 dropped", lost, messages, client.Stats().Dropped)
		}
	})
}

func TestFault92_CloseWithMessagesQueued(t *testing.T) {
	for name, first := range map[string]resocktest.Step{
		"connecting": resocktest.StallUpgrade(),
		"waiting":    resocktest.Status(503, nil, "later"),
	} {
		for _, way := range []string{"Close", "Shutdown"} {
			t.Run(name+"/"+way, func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					s.Script(first, resocktest.Hold())
					r := rig.Reaching(t, s)
					synctest.Wait()
					queued := r.Queue("queued")
					began := time.Now()
					if way == "Close" {
						_ = r.Close(resock.StatusNormalClosure, "")
						<-r.Done()
						if err := <-queued; err != resock.ErrClosed || time.Since(began) > time.Second {
							t.Errorf("Close: the message got %v after %v, want ErrClosed within 1s", err, time.Since(began))
						}
						return
					}
					if err := r.Shutdown(context.Background()); err != nil {
						t.Errorf("Shutdown: got %v, want nil", err)
					}
					if err := <-queued; err != nil {
						t.Errorf("Shutdown: the message got %v, want nil", err)
					}
					if got := fmt.Sprint(rig.Payloads(s.Accept())); got != "[queued]" {
						t.Errorf("the server received %s, want [queued]", got)
					}
				})
			})
		}
	}
}
