package outbox_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resocktest"
)

// read reads a protocol that the tests are written in: lines "ok 7", "all 7" and "no 7".
// Anything else is for the subscribers.
func read(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	for line := range strings.SplitSeq(string(m.Data), "\n") {
		what, id, _ := strings.Cut(line, " ")
		switch what {
		case "ok":
			found.Acked(id)
		case "all":
			found.AckedUpTo(id)
		case "no":
			found.Refused(id, errors.New("too late"))
		default:
			pass = true
		}
	}
	return pass
}

// world is a box that is bound to a client of a server, in virtual time.
type world struct {
	*testing.T
	server *resocktest.Server
	client *resock.Client
	box    *outbox.Box
	conn   *resocktest.Conn
	got    int // messages of this connection that were expected

	mu   sync.Mutex
	told []string
}

func bubble(t *testing.T, config outbox.Config, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: resocktest.NewMemory(t)}
		if config.Read == nil {
			config.Read = read
		}
		if config.Done == nil {
			config.Done = w.done
		}
		w.open(config)
		w.client = w.bind()
		f(w)
	})
}

func (w *world) open(config outbox.Config) {
	w.Helper()
	box, err := outbox.Open(config)
	if err != nil {
		w.Fatal(err)
	}
	w.box = box
	w.Cleanup(func() {
		if err := box.Close(); err != nil {
			w.Error(err)
		}
	})
}

func (w *world) done(r outbox.Result) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := r.ID
	switch {
	case errors.Is(r.Err, outbox.ErrRefused):
		text += " refused"
	case errors.Is(r.Err, outbox.ErrSetAside):
		text += " set aside"
	case r.Err != nil:
		text += " " + r.Err.Error()
	}
	w.told = append(w.told, text)
}

// bind binds the box to a new client, which runs.
func (w *world) bind(opts ...resock.Option) *resock.Client {
	w.Helper()
	opts = append(opts, resock.WithFilter(w.box.Filter), resock.WithBackoff(time.Second, time.Second),
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: w.server.Client()}))
	client, err := resock.New(w.server.URL, opts...)
	if err != nil {
		w.Fatal(err)
	}
	if err := w.box.Bind(client); err != nil {
		w.Fatal(err)
	}
	go client.Run(context.Background())
	w.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	w.conn, w.got = w.server.Accept(), 0
	return client
}

func (w *world) put(ids ...string) {
	w.Helper()
	for _, id := range ids {
		if err := w.box.Put(context.Background(), id, resock.MessageText, []byte(id)); err != nil {
			w.Error(err)
		}
	}
}

// gets expects what the server gets.
func (w *world) gets(want ...string) {
	w.Helper()
	for _, want := range want {
		m, err := w.conn.Read()
		if err != nil || string(m.Data) != want {
			w.Fatalf("the server read %q, %v; want %q", m.Data, err, want)
		}
		w.got++
	}
	w.getsNothing()
}

// getsNothing expects that the server gets nothing more.
func (w *world) getsNothing() {
	w.Helper()
	synctest.Wait()
	for _, m := range w.conn.Received().Messages[w.got:] {
		w.Errorf("the server got %q", m.Data)
	}
}

func (w *world) push(texts ...string) {
	w.Helper()
	for _, text := range texts {
		if err := w.conn.Push(text); err != nil {
			w.Fatal(err)
		}
	}
	synctest.Wait()
}

// again ends the session, and waits for the next.
func (w *world) again() {
	w.Helper()
	w.conn.Drop()
	w.next()
}

func (w *world) next() {
	w.Helper()
	w.conn, w.got = w.server.Accept(), 0
}

// ends expects what was told.
func (w *world) ends(want string) {
	w.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := strings.Join(w.told, ", "); got != want {
		w.Errorf("told were %q, want %q", got, want)
	}
}

func TestPutAndAck(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		w.put("1", "2", "3")
		w.gets("1", "2", "3")
		w.push("ok 2")
		w.ends("2")
		w.again()
		w.gets("1", "3")
		w.put("4", "5")
		w.gets("4", "5")
		w.push("all 4", "unknown", "ok 9", "all 9", "ok 2")
		w.ends("2, 1, 3, 4")
		w.push("no 5")
		w.ends("2, 1, 3, 4, 5 refused")
		w.again()
		w.getsNothing()
		want := outbox.Stats{Acked: 4, Refused: 1, Resent: 2}
		if got := w.box.Stats(); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestWindow has no more than so many messages under way, also while they go again.
func TestWindow(t *testing.T) {
	bubble(t, outbox.Config{Window: 2}, func(w *world) {
		w.put("1", "2", "3", "4")
		w.gets("1", "2")
		w.again()
		w.gets("1", "2")
		w.push("ok 2")
		w.gets("3")
		w.push("all 3")
		w.gets("4")
		w.push("no 4")
		w.ends("2, 1, 3, 4 refused")
	})
}

// TestAckDuringTheReplay takes an acknowledgement of a message that has not gone again.
func TestAckDuringTheReplay(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		w.put("1", "2", "3")
		w.gets("1", "2", "3")
		large := strings.Repeat("x", 1<<20)
		if err := w.box.Put(context.Background(), "large", resock.MessageBinary, []byte(large)); err != nil {
			t.Fatal(err)
		}
		w.gets(large)
		w.put("4", "5")
		w.gets("4", "5")
		w.again()
		w.conn.StopReading()
		w.push("ok 5") // the large one is still on its way
		w.ends("5")
		w.conn.StartReading()
		w.gets("1", "2", "3", large, "4")
	})
}

// TestNoProgress replaces a session in which the first message is not acknowledged, and
// only then.
func TestNoProgress(t *testing.T) {
	bubble(t, outbox.Config{AckTimeout: 10 * time.Second, MaxLosses: 2}, func(w *world) {
		started := time.Now()
		w.put("1", "2")
		w.gets("1", "2")
		time.Sleep(9 * time.Second)
		w.push("ok 1") // progress
		time.Sleep(9 * time.Second)
		w.put("3")
		w.gets("3")
		w.push("ok 3") // none: the first is 2
		w.next()
		if took := time.Since(started); took != 19*time.Second {
			t.Errorf("the session lasted %v, want 19s", took)
		}
		w.gets("2")
		w.next()
		if took := time.Since(started); took != 29*time.Second {
			t.Errorf("the session lasted until %v, want 29s", took)
		}
		w.getsNothing()
		w.ends("1, 3, 2 set aside")
		time.Sleep(time.Hour)
		if got := w.box.Stats(); got.UnderWay != 0 || w.client.Stats().Session != 3 {
			t.Errorf("got %+v in session %d", got, w.client.Stats().Session)
		}
	})
}

// TestPoison sets a message aside after so many sessions, in which nothing else was
// acknowledged, and goes on with the rest.
func TestPoison(t *testing.T) {
	bubble(t, outbox.Config{MaxLosses: 3}, func(w *world) {
		w.put("1", "2")
		w.gets("1", "2")
		w.again()
		w.gets("1", "2")
		w.again()
		w.gets("1", "2")
		w.push("ok 2") // this session does not count
		w.again()
		w.put("3")
		w.gets("1", "3")
		w.again()
		w.gets("1", "3")
		w.client.Reconnect() // nor does this one
		w.next()
		w.gets("1", "3")
		w.again()
		w.gets("1", "3")
		w.again()
		w.gets("3")
		w.ends("2, 1 set aside")
		w.push("ok 1", "ok 3")
		w.ends("2, 1 set aside, 3")
		if got, want := w.box.Stats(), (outbox.Stats{Acked: 2, SetAside: 1, Resent: 12}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestBlockedDelivery does not hold against the server that nobody reads its answers.
func TestBlockedDelivery(t *testing.T) {
	bubble(t, outbox.Config{AckTimeout: 10 * time.Second}, func(w *world) {
		events := w.client.Subscribe(context.Background(), resock.WithBuffer(0))
		go func() {
			pause := time.Minute
			for range new(grammar.Checker).All(w, events) {
				time.Sleep(pause) // after the first
				pause = 0
			}
		}()
		w.push("a push", "another", "a third")
		w.put("1")
		w.gets("1")
		w.push("ok 1")
		time.Sleep(30 * time.Second)
		w.ends("")
		time.Sleep(31 * time.Second)
		w.ends("1")
		if n := w.client.Stats().Session; n != 1 {
			t.Errorf("session %d, want the first", n)
		}
	})
}

// TestAnotherClient goes on through another client, when the first is closed for good.
func TestAnotherClient(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		w.put("1", "2")
		w.gets("1", "2")
		if err := w.box.Bind(w.client); err == nil {
			t.Error("bound twice")
		}
		w.again()
		w.gets("1", "2")
		_ = w.client.Close(resock.StatusNormalClosure, "")
		<-w.client.Done()
		synctest.Wait()
		w.put("3")
		w.client = w.bind()
		w.gets("1", "2", "3")
		w.push("all 3")
		w.ends("1, 2, 3")
	})
}

func TestFull(t *testing.T) {
	bubble(t, outbox.Config{MaxMessages: 3, MaxBytes: 100, Window: 1}, func(w *world) {
		put := func(id string, n int) error {
			return w.box.Put(context.Background(), id, resock.MessageBinary, make([]byte, n))
		}
		for _, test := range []struct {
			id   string
			size int
			full bool
		}{{"1", 1, false}, {"2", 1, false}, {"large", 99, true}, {"3", 98, false}, {"4", 0, true}} {
			err := put(test.id, test.size)
			if test.full != (err != nil) || test.full && (!errors.Is(err, resock.ErrQueueFull) || !errors.Is(err, outbox.ErrFull)) {
				t.Errorf("%s: got %v", test.id, err)
			}
		}
		synctest.Wait() // it is under way
		w.push("ok 1")
		w.ends("1")
		if err := put("4", 1); err != nil {
			t.Error(err)
		}
	})
}

func TestBadInput(t *testing.T) {
	for _, config := range []outbox.Config{{}, {Read: read, MaxMessages: -1}, {Read: read, MaxBytes: -1}, {Read: read, Window: -1}} {
		if _, err := outbox.Open(config); err == nil || !strings.Contains(err.Error(), "Config.") {
			t.Errorf("got %v, want an error that names the field", err)
		}
	}
	bubble(t, outbox.Config{}, func(w *world) {
		if err := w.box.Put(context.Background(), "", resock.MessageText, nil); err == nil {
			t.Error("no id")
		}
		if err := w.box.Put(context.Background(), "1", 7, nil); err == nil {
			t.Error("no type")
		}
		if err := w.box.Bind(nil); err == nil {
			t.Error("no client")
		}
		w.getsNothing()
		if err := w.box.Close(); err != nil {
			t.Error(err)
		}
		if err := w.box.Put(context.Background(), "1", resock.MessageText, nil); !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Put after Close: got %v", err)
		}
		if err := w.box.Bind(w.client); !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("Bind after Close: got %v", err)
		}
		if err := w.box.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestFlush waits for what was put before, and no more.
func TestFlush(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		if err := w.box.Flush(context.Background()); err != nil {
			t.Error(err)
		}
		w.put("1", "2")
		w.gets("1", "2")
		flushed := make(chan error, 1)
		go func() { flushed <- w.box.Flush(context.Background()) }()
		synctest.Wait()
		w.put("3")
		w.push("ok 2")
		select {
		case err := <-flushed:
			t.Errorf("Flush returned too early: %v", err)
		default:
		}
		w.push("ok 1")
		if err := <-flushed; err != nil {
			t.Error(err)
		}
		w.ends("2, 1")
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.box.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "1 message") {
			t.Errorf("got %v, want the deadline and what is left", err)
		}
		go func() { flushed <- w.box.Flush(context.Background()) }()
		synctest.Wait()
		_ = w.box.Close()
		if err := <-flushed; !errors.Is(err, outbox.ErrClosed) {
			t.Errorf("got %v, want ErrClosed", err)
		}
	})
}

// TestSubscribersGetTheRest keeps from them what is nothing but receipts.
func TestSubscribersGetTheRest(t *testing.T) {
	bubble(t, outbox.Config{}, func(w *world) {
		messages := w.client.Messages(context.Background())
		w.put("1", "2")
		w.gets("1", "2")
		w.push("ok 1", "ok 1", "a push", "ok 2\nanother", "ok 2")
		w.ends("1, 2")
		var got []string
		for m := range messages {
			if got = append(got, string(m.Data)); len(got) == 2 {
				break
			}
		}
		if got := strings.Join(got, ", "); got != "a push, ok 2\nanother" {
			t.Errorf("the subscriber got %q", got)
		}
	})
}
