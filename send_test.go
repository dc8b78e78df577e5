package resock_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

// A Send whose message comes back unsent from a lost connection is waiting
// again: a context that ended meanwhile ends it.
func TestSendReturnsWhenItsContextEndedInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithBackoff(time.Hour, time.Hour), resock.WithWriteTimeout(10*time.Second),
			inMemoryRoom(4<<10, func(n int, p *peer) {
				p.upgrade()
				time.Sleep(time.Second)
				p.next() // from now on three messages are written at once
				time.Sleep(15 * time.Second)
			}))
		go client.Run(context.Background())
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		big := []byte(strings.Repeat("x", 5<<10))
		var errs [4]error
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		started := time.Now()
		for i := range errs {
			wg.Go(func() { errs[i] = client.Send(ctx, resock.MessageBinary, big) })
			synctest.Wait()
		}
		wg.Wait()
		if took := time.Since(started); took > 12*time.Second {
			t.Errorf("Send took %v with a context of 5 s and a write timeout of 10 s", took)
		}
		if err := errs[3]; !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the last Send: %v", err)
		}
	})
}

// A message that expired in flight and comes back unsent is given up at once.
func TestTTLEndsInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithBackoff(time.Hour, time.Hour),
			inMemoryRoom(4<<10, func(n int, p *peer) {
				p.upgrade()
				time.Sleep(15 * time.Second)
			}))
		go client.Run(context.Background())
		client.WaitOpen(t.Context())
		big := []byte(strings.Repeat("x", 3<<10))
		outcome := make(chan error, 10)
		var last time.Time
		for range 5 {
			client.Enqueue(resock.MessageBinary, big, resock.WithTTL(5*time.Second), resock.WithResult(func(err error) {
				last = time.Now()
				outcome <- err
			}))
		}
		started := time.Now()
		for range 5 {
			<-outcome
		}
		if took := last.Sub(started); took > 11*time.Second {
			t.Errorf("the last outcome came after %v", took)
		}
	})
}

// A slow result function does not stop the expiry of other messages.
func TestTTLSurvivesASlowResult(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t)
		expired := make(chan time.Duration, 10)
		enqueued := time.Now()
		enqueue := func(ttl time.Duration, then func()) {
			client.Enqueue(resock.MessageText, nil, resock.WithTTL(ttl), resock.WithResult(func(error) {
				expired <- time.Since(enqueued)
				then()
			}))
		}
		enqueue(time.Second, func() {
			enqueue(20*time.Millisecond, func() {})
			time.Sleep(time.Second)
		})
		time.Sleep(time.Minute)
		enqueue(time.Second, func() {})
		time.Sleep(time.Minute)
		if len(expired) != 3 {
			t.Errorf("%d of 3 messages expired", len(expired))
		}
	})
}

// While a result function takes its time, other messages expire. They are told
// after it, and all before the client is done.
func TestSlowResultIsWaitedFor(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t)
		var told []string
		enqueue := func(text string, ttl, takes time.Duration) {
			client.Enqueue(resock.MessageText, []byte(text), resock.WithTTL(ttl), resock.WithResult(func(error) {
				time.Sleep(takes)
				told = append(told, text)
			}))
		}
		enqueue("slow", time.Second, time.Minute)
		enqueue("behind it", time.Second, 0)
		enqueue("meanwhile", 2*time.Second, 0)
		time.Sleep(3 * time.Second)
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		if want := []string{"slow", "behind it", "meanwhile"}; !slices.Equal(told, want) {
			t.Errorf("results of %q, want of %q", told, want)
		}
	})
}

// A server that closes while the client sends is a close with its code, and no
// failed write.
func TestCloseByTheServerWhileSending(t *testing.T) {
	for range 300 {
		bubble(t, func(t *testing.T) {
			client := newClient(t, inMemory(func(n int, p *peer) {
				if n > 1 || !p.upgrade() {
					return
				}
				for range 5 {
					p.next()
				}
				p.close(resock.StatusServiceRestart)
				io.Copy(io.Discard, p)
			}))
			events := grammar.Tee(t, client)
			go client.Run(context.Background())
			rig.Await[resock.OpenEvent](t, events)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var senders sync.WaitGroup
			for range 4 {
				senders.Go(func() {
					for client.Send(ctx, resock.MessageText, []byte("x")) == nil {
					}
				})
			}
			if closed := rig.Await[resock.CloseEvent](t, events); closed.Code != resock.StatusServiceRestart || !closed.Clean {
				t.Errorf("%+v", closed)
			}
			senders.Wait()
		})
		if t.Failed() {
			return
		}
	}
}

// Suspend closes cleanly also while somebody sends.
func TestSuspendWhileSending(t *testing.T) {
	for range 300 {
		bubble(t, func(t *testing.T) {
			client := newClient(t, inMemory(func(n int, p *peer) {
				if p.upgrade() {
					p.echoClose(nil)
				}
			}))
			events := grammar.Tee(t, client)
			go client.Run(context.Background())
			rig.Await[resock.OpenEvent](t, events)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var senders sync.WaitGroup
			sent := make(chan struct{}, 1)
			for range 4 {
				senders.Go(func() {
					for client.Send(ctx, resock.MessageText, []byte("x")) == nil {
						select {
						case sent <- struct{}{}:
						default:
						}
					}
				})
			}
			<-sent
			client.Suspend()
			if closed := rig.Await[resock.CloseEvent](t, events); !closed.Clean {
				t.Errorf("%+v", closed)
			}
			senders.Wait()
		})
		if t.Failed() {
			return
		}
	}
}

// What is queued is flushed by Close as soon as the session is open, also while
// a subscriber has not taken the OpenEvent yet.
func TestCloseFlushesBeforeOpenIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var got []string
		client := newClient(t, inMemory(func(n int, p *peer) {
			if p.upgrade() {
				p.echoClose(func(payload string) { got = append(got, payload) })
			}
		}))
		events := client.Subscribe(context.Background(), resock.WithBuffer(0))
		outcome := make(chan error, 1)
		client.Enqueue(resock.MessageText, []byte("hello"), resock.WithResult(func(err error) { outcome <- err }))
		go client.Run(context.Background())
		synctest.Wait()
		client.Close(resock.StatusNormalClosure, "")
		time.Sleep(time.Second)
		seen := slices.Collect(new(grammar.Checker).All(t, events))
		if closed, ok := seen[len(seen)-1].(resock.CloseEvent); len(seen) != 2 || !ok || !closed.Clean {
			t.Errorf("%+v", seen)
		}
		if err := <-outcome; err != nil || len(got) != 1 {
			t.Errorf("outcome %v, the server got %q", err, got)
		}
	})
}

// A write that fails does not hide what the server said before it went.
func TestCloseIsReadAfterAFailedWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, inMemory(func(n int, p *peer) {
			if n == 1 && p.upgrade() {
				p.Write([]byte(strings.Repeat("\x81\x01x", 50) + "\x88\x02\x0f\xa1"))
			}
		}))
		events := client.Subscribe(context.Background(), resock.WithBuffer(0))
		go client.Run(context.Background())
		messages, ended := 0, false
		for event := range new(grammar.Checker).All(t, events) {
			switch e := event.(type) {
			case resock.OpenEvent:
				synctest.Wait()
				go client.Send(t.Context(), resock.MessageText, []byte("x"))
			case resock.MessageEvent:
				messages++
			case resock.CloseEvent:
				if ended = true; e.Code != 4001 || messages != 50 {
					t.Errorf("after %d messages: %+v", messages, e)
				}
				client.Close(resock.StatusNormalClosure, "")
			case resock.FailEvent: // of the next attempt
				if !ended {
					t.Fatalf("after %d messages: %+v", messages, e)
				}
			}
			time.Sleep(time.Millisecond)
		}
		if !ended {
			t.Error("no CloseEvent")
		}
	})
}
