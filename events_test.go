package resock_test

import (
	"context"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A subscriber that reads gets the final CloseEvent even if the server does not answer
// the close frame.
func TestFinalCloseReachesEverySubscriber(t *testing.T) {
	for _, overflow := range []resock.Overflow{resock.OverflowBlock, resock.OverflowDropOldest} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Handle((*resocktest.Conn).IgnoreClose)
			client := rig.Bare(t, s.URL, rig.Reach(s))
			events := grammar.Tee(t, client, resock.WithOverflow(overflow))
			go client.Run(context.Background())
			rig.Await[resock.OpenEvent](t, events)
			synctest.Wait() // the server ignores close frames from now on
			client.Close(resock.StatusNormalClosure, "")
			if closed := rig.Await[resock.CloseEvent](t, events); closed.Clean || closed.Next != resock.StateClosed {
				t.Errorf("got %+v, want it not clean, and then closed", closed)
			}
			if event, ok := <-events; ok {
				t.Errorf("got %+v after the last event, want a closed channel", event)
			}
		})
	}
}

// A late, unbuffered subscriber that has not received its OpenEvent blocks delivery
// like any other: Stats shows it, and it ends when the subscriber leaves.
func TestLateUnbufferedSubscriberBlocks(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s))
		c := s.Accept()
		client.Open()
		synctest.Wait() // until the client reads

		ctx, leave := context.WithCancel(context.Background())
		late := client.Subscribe(ctx, resock.WithBuffer(0))
		_ = c.Push("one")
		client.Message("one")
		done := make(chan struct{})
		go func() {
			defer close(done)
			select {
			case <-time.After(time.Minute):
			case <-t.Context().Done():
			}
			if client.Stats().BlockedSince.IsZero() {
				t.Error("BlockedSince is zero while a late subscriber blocks delivery")
			}
			leave()
		}()
		_ = c.Push("two")
		<-done
		client.Message("two")
		for event := range (&grammar.Checker{Late: true}).All(t, late) {
			t.Errorf("got %+v after the subscriber left, want a closed channel", event)
		}
	})
}

// The messages delivered and those counted as lost add up, however slow the subscriber.
func TestDropOldestCountsExactly(t *testing.T) {
	const messages = 1000
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		pushes := resocktest.Serve(func(c *resocktest.Conn) {
			for i := range messages {
				_ = c.Push(strconv.Itoa(i))
				if i%97 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			c.Drop()
		})
		s.Script(pushes, pushes, pushes, resocktest.Drop())
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := client.Subscribe(context.Background(), resock.WithOverflow(resock.OverflowDropOldest), resock.WithBuffer(7))
		go client.Run(context.Background())
		seen, session := 0, uint64(0)
		for event := range new(grammar.Checker).All(t, events) {
			switch e := event.(type) {
			case resock.OpenEvent:
				session = e.Session
			case resock.MessageEvent:
				i, _ := strconv.Atoi(string(e.Data))
				at := int(e.Session-1)*messages + i
				if e.Session != session || at != seen+int(e.Lost) {
					t.Fatalf("message %d of session %d (in %d) came after %d seen and %d lost, want them to add up", i, e.Session, session, seen, e.Lost)
				}
				if seen = at + 1; seen == 3*messages {
					client.Close(resock.StatusNormalClosure, "")
				}
				time.Sleep(10 * time.Microsecond)
			}
		}
	})
}

// A closing handshake that begins while a message is being delivered is no data race.
// A synctest bubble would hide the race, and so would any signal from the delivery:
// hence the many rounds.
func TestCloseDuringDelivery(t *testing.T) {
	for range 100 {
		s := resocktest.NewMemory(t)
		release := make(chan struct{})
		client := rig.Bare(t, s.URL, rig.Reach(s),
			resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-release }))
		s.Script(resocktest.Serve(func(c *resocktest.Conn) {
			client.WaitOpen(t.Context())
			_ = c.Raw(resocktest.Frame(rig.Text, []byte("a fragmented ")))
			_ = c.Raw(resocktest.Frame(rig.Fin, []byte("message")))
			for range 100 {
				runtime.Gosched()
			}
			client.Close(resock.StatusNormalClosure, "")
			<-c.Done()
			close(release)
		}), resocktest.Drop())
		events := client.Subscribe(context.Background())
		client.Run(context.Background())
		seen := slices.Collect(new(grammar.Checker).All(t, events))
		if closed, ok := seen[len(seen)-1].(resock.CloseEvent); len(seen) != 2 || !ok || !closed.Clean {
			t.Errorf("got %+v, want an OpenEvent and a clean CloseEvent", seen)
		}
		s.Close()
	}
}
