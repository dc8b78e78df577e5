package outbox_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/outbox/journal"
	"github.com/resock/resock/resocktest"
)

// TestOneLoss sets aside only the message that was the first one under way.
func TestOneLoss(t *testing.T) {
	bubble(t, outbox.Config{MaxLosses: 1}, func(w *world) {
		w.put("1", "2", "3")
		w.gets("1", "2", "3")
		w.again()
		w.gets("2", "3")
		w.ends("1 set aside")
		w.push("all 3")
		w.ends("1 set aside, 2, 3")
	})
}

// TestPlannedAndLost counts a loss, although a planned session came before it was seen.
func TestPlannedAndLost(t *testing.T) {
	bubble(t, outbox.Config{MaxLosses: 2}, func(w *world) {
		w.put("1")
		for range 3 { // of which none counts
			w.gets("1")
			w.client.Suspend()
			w.client.Resume()
			w.next()
		}
		for range 2 {
			w.gets("1")
			w.again()
		}
		w.getsNothing()
		w.ends("1 set aside")
	})
}

// TestSlowWrite does not hold against the server that a message takes long to be written.
func TestSlowWrite(t *testing.T) {
	bubble(t, outbox.Config{AckTimeout: 3 * time.Second}, func(w *world) {
		w.put("1")
		w.gets("1")
		w.conn.StopReading()
		large := strings.Repeat("x", 1<<20)
		if err := w.box.Put(context.Background(), "large", resock.MessageText, []byte(large)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		w.push("ok 1")
		time.Sleep(7 * time.Second)
		w.conn.StartReading()
		w.gets(large)
		w.push("ok large")
		w.ends("1, large")
		if n := w.client.Stats().Session; n != 1 {
			t.Errorf("session %d, want the first", n)
		}
	})
}

// TestBlockedNowAndThen ends a session without progress although delivery was blocked for
// a while in each period: only that time does not count.
func TestBlockedNowAndThen(t *testing.T) {
	bubble(t, outbox.Config{AckTimeout: 10 * time.Second}, func(w *world) {
		started := time.Now()
		events := w.client.Subscribe(context.Background(), resock.WithBuffer(0))
		go func() {
			for range new(grammar.Checker).All(w, events) {
				time.Sleep(time.Second)
			}
		}()
		go func(conn *resocktest.Conn) {
			for conn.Push("a push") == nil && conn.Push("another") == nil && conn.Push("a third") == nil {
				time.Sleep(7 * time.Second)
			}
		}(w.conn)
		w.put("1")
		w.gets("1")
		w.next()
		if took, blocked := time.Since(started), w.client.Stats().Blocked; blocked == 0 || took < 10*time.Second || took > 10*time.Second+blocked+2*time.Second {
			t.Errorf("the session lasted %v, of which %v was blocked", took, blocked)
		}
		_ = w.client.Close(resock.StatusNormalClosure, "")
		time.Sleep(10 * time.Second) // until the goroutines are through
	})
}

// TestBlockedBefore excuses only what was blocked since there was progress.
func TestBlockedBefore(t *testing.T) {
	bubble(t, outbox.Config{AckTimeout: 10 * time.Second}, func(w *world) {
		started := time.Now()
		events := w.client.Subscribe(context.Background(), resock.WithBuffer(0))
		go func() {
			pause := 5 * time.Second
			for range new(grammar.Checker).All(w, events) {
				time.Sleep(pause) // after the first
				pause = 0
			}
		}()
		w.push("a push", "another")
		w.put("1", "2")
		w.gets("1", "2")
		time.Sleep(9 * time.Second)
		w.push("ok 1")
		w.next()
		if took := time.Since(started); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the session lasted %v, want 19s to 21s", took)
		}
	})
}

// TestNothingUnderWay has nothing under way while there is no session.
func TestNothingUnderWay(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		w.put("1")
		w.gets("1")
		w.server.Stop()
		synctest.Wait()
		if got, want := w.box.Stats(), (outbox.Stats{Messages: 1, Bytes: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestCloseWithinDone closes the box from the function that it is waited for.
func TestCloseWithinDone(t *testing.T) {
	var w *world
	var closed chan error
	bubble(t, outbox.Config{Done: func(outbox.Result) { closed <- w.box.Close() }}, func(in *world) {
		w, closed = in, make(chan error, 1)
		w.put("1")
		w.gets("1")
		w.push("ok 1")
		if err := <-closed; err == nil || !strings.Contains(err.Error(), "Config.Done") {
			t.Errorf("got %v, want an error that names Config.Done", err)
		}
		synctest.Wait()
		if err := w.box.Close(); err != nil {
			t.Errorf("Close, after Done returned: %v", err)
		}
		if n := w.box.Stats().Messages; n != 0 {
			t.Errorf("%d messages are stored", n)
		}
	})
}

// TestCloseWithinRead closes the box on the reading goroutine. What was not told by then
// is left to the next box.
func TestCloseWithinRead(t *testing.T) {
	var w *world
	bubble(t, outbox.Config{Read: func(m resock.MessageEvent, found *outbox.Found) bool {
		if err := w.box.Close(); err != nil {
			t.Error(err)
		}
		return read(m, found)
	}}, func(in *world) {
		w = in
		w.put("1")
		w.gets("1")
		w.push("ok 1")
		w.ends("")
		if got, want := w.box.Stats(), (outbox.Stats{Messages: 1, Bytes: 1, UnderWay: 0}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestMethodsWithinDone calls the others there.
func TestMethodsWithinDone(t *testing.T) {
	var w *world
	bubble(t, outbox.Config{Done: func(r outbox.Result) {
		if n := w.box.Stats().Messages; n != 1 {
			t.Errorf("%d messages are stored while %s is told, want itself", n, r.ID)
		}
		if r.ID == "1" {
			w.put("2")
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.box.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush, which waits for itself: got %v", err)
		}
		w.done(r)
	}}, func(in *world) {
		w = in
		w.put("1")
		w.gets("1")
		w.push("ok 1")
		w.gets("2")
		w.push("ok 2")
		if err := w.box.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		w.ends("1, 2")
	})
}

// TestImpossibleMessages are rejected at once.
func TestImpossibleMessages(t *testing.T) {
	bubble(t, outbox.Config{MaxBytes: 10}, func(w *world) {
		for _, test := range []struct {
			typ        resock.MessageType
			data, want string
		}{{resock.MessageText, "\xff", `"order-17": the text is not valid UTF-8`}, {resock.MessageBinary, "eleven long", `"order-17": the message has 11 bytes, more than Config.MaxBytes (10)`}} {
			err := w.box.Put(context.Background(), "order-17", test.typ, []byte(test.data))
			if err == nil || errors.Is(err, outbox.ErrFull) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		}
		if err := w.box.Put(context.Background(), "1", resock.MessageBinary, []byte("\xff")); err != nil {
			t.Error(err)
		}
		w.gets("\xff")
	})
}

// TestTwoBoxes are bound to one client.
func TestTwoBoxes(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		_ = w.client.Close(resock.StatusNormalClosure, "")
		<-w.client.Done()
		synctest.Wait()
		first, second := w.box, &world{T: w.T}
		second.open(outbox.Config{Read: func(m resock.MessageEvent, found *outbox.Found) bool {
			id, ok := strings.CutPrefix(string(m.Data), "second ")
			if ok {
				found.Acked(id)
			}
			return !ok
		}, Done: second.done})
		w.client = w.bind(resock.WithFilter(second.box.Filter))
		if err := second.box.Bind(w.client); err != nil { // while it runs, and is open
			t.Error(err)
		}
		w.put("1")
		w.gets("1")
		second.put("2")
		w.gets("2")
		w.again()
		if a, b := w.message(), w.message(); a+b != "12" && a+b != "21" {
			t.Errorf("the server got %s, %s", a, b)
		}
		w.push("ok 1", "second 2")
		w.ends("1")
		second.ends("2")
		if err := first.Close(); err != nil {
			t.Error(err)
		}
	})
}

func (w *world) message() string {
	m, err := w.conn.Read()
	if err != nil {
		w.Error(err)
	}
	w.got++
	return string(m.Data)
}

// TestWithMessageHandler finds the acknowledgements before the handler gets messages.
func TestWithMessageHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: resocktest.NewMemory(t)}
		w.open(outbox.Config{Read: read, Done: w.done})
		var mu sync.Mutex
		var handled []string
		w.client = w.bind(resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) {
			mu.Lock()
			defer mu.Unlock()
			handled = append(handled, string(m.Data))
		}))
		w.put("1")
		w.gets("1")
		w.push("a push", "ok 1")
		w.ends("1")
		mu.Lock()
		defer mu.Unlock()
		if got := strings.Join(handled, ", "); got != "a push" {
			t.Errorf("the handler got %q", got)
		}
	})
}

// TestClosedClient lets another one be bound at once.
func TestClosedClient(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		_ = w.client.Close(resock.StatusNormalClosure, "")
		<-w.client.Done()
		synctest.Wait()
		if err := w.box.Bind(w.client); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		client, err := resock.New(w.server.URL, resock.WithFilter(w.box.Filter), resock.WithDialOptions(&websocket.DialOptions{HTTPClient: w.server.Client()}))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		go client.Run(ctx)
		w.next()
		synctest.Wait() // it is open
		w.put("1")
		if err := w.box.Bind(client); err != nil {
			t.Error(err)
		}
		w.gets("1")
		cancel()
		<-client.Done()
	})
}

// TestFlushWhatWasLeft waits for what an earlier process left, and not for what is put
// after Flush began.
func TestFlushWhatWasLeft(t *testing.T) {
	for _, name := range []string{"nothing is put", "another is put"} {
		t.Run(name, func(t *testing.T) {
			bubble(t, outbox.Config{}, func(w *world) {
				random := rand.New(rand.NewPCG(1, 1))
				store := newDisk().start(random, -1, 10, false)
				if _, err := store.Put(context.Background(), "1", resock.MessageText, []byte("1")); err != nil {
					t.Fatal(err)
				}
				_ = w.client.Close(resock.StatusNormalClosure, "")
				<-w.client.Done()
				synctest.Wait()
				w.open(outbox.Config{Read: read, Done: w.done, Store: store})
				flushed := make(chan error, 1)
				go func() { flushed <- w.box.Flush(context.Background()) }()
				w.client = w.bind()
				w.gets("1")
				if name == "another is put" {
					w.put("2")
					w.gets("2")
				}
				select {
				case err := <-flushed:
					t.Errorf("Flush returned too early: %v", err)
				default:
				}
				w.push("ok 1")
				select {
				case err := <-flushed:
					if err != nil {
						t.Error(err)
					}
				default:
					t.Error("Flush did not return")
				}
			})
		})
	}
}

// TestCloseTellsTheRest tells at the end what was read before.
func TestCloseTellsTheRest(t *testing.T) {
	for range 10 {
		var w *world
		bubble(t, outbox.Config{Done: func(r outbox.Result) {
			time.Sleep(100 * time.Millisecond)
			w.done(r)
		}}, func(in *world) {
			w = in
			w.put("1", "2")
			w.gets("1", "2")
			w.push("ok 1")
			w.push("ok 2") // while 1 is told
			if err := w.box.Close(); err != nil {
				t.Error(err)
			}
			w.ends("1, 2")
		})
	}
}

// TestNotSent does not take for sent what was put while the session was closing.
func TestNotSent(t *testing.T) {
	bubble(t, outbox.Config{MaxLosses: 1}, func(w *world) {
		w.conn.IgnoreClose()
		w.client.Suspend()
		synctest.Wait()
		w.put("1")
		synctest.Wait()
		w.client.Resume()
		w.next()
		w.gets("1")
		if got, want := w.box.Stats(), (outbox.Stats{Messages: 1, Bytes: 1, UnderWay: 1}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// gate is a limiter that lets nothing pass until it is open.
type gate struct {
	open   chan struct{}
	passes atomic.Int32 // that it lets through
}

func (g *gate) Wait(ctx context.Context) error {
	if g.passes.Add(-1) >= 0 {
		return nil
	}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestLostBeforeItWasWritten does not count the sessions that were lost while a message
// waited to be written.
func TestLostBeforeItWasWritten(t *testing.T) {
	bubble(t, outbox.Config{MaxLosses: 1}, func(w *world) {
		_ = w.client.Close(resock.StatusNormalClosure, "")
		<-w.client.Done()
		synctest.Wait()
		g := &gate{open: make(chan struct{})}
		w.client = w.bind(resock.WithSendLimiter(g))
		g.passes.Store(2)
		w.put("1")
		for range 2 {
			w.gets("1")
			w.client.Reconnect() // which does not count either
			w.next()
		}
		for range 20 {
			w.getsNothing()
			w.again()
		}
		close(g.open)
		w.gets("1")
		w.push("ok 1")
		w.ends("1")
		if n := w.box.Stats().Resent; n != 2 {
			t.Errorf("%d messages were sent again, want 2", n)
		}
	})
}

// unreadable is a store that cannot read its second message any more.
type unreadable struct{ outbox.Store }

func (u unreadable) Next(after uint64) (outbox.Record, bool, error) {
	if after == 1 {
		return outbox.Record{Number: 2, ID: "2"}, false, errors.New("damaged")
	}
	return u.Store.Next(after)
}

// TestUnreadable tells of a message that cannot be read, and goes on with the rest.
func TestUnreadable(t *testing.T) {
	store, err := journal.Open(t.TempDir(), journal.Config{Sync: journal.SyncNever})
	if err != nil {
		t.Fatal(err)
	}
	bubble(t, outbox.Config{Store: unreadable{store}}, func(w *world) {
		w.put("1", "2", "3")
		w.gets("1", "3")
		w.ends("2 " + outbox.ErrUnreadable.Error() + ": damaged")
		if err := w.box.Stats().StoreErr; err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("the store's failure is %v", err)
		}
		w.push("all 3")
		w.ends("2 " + outbox.ErrUnreadable.Error() + ": damaged, 1, 3")
	})
}
