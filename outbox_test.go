package resock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock/internal/wire"
)

// script is a transport whose server has already sent everything. If room is not
// negative, a Write fails after that many bytes.
type script struct {
	in   []byte
	end  error
	room int

	mu  sync.Mutex
	out bytes.Buffer
}

// silentScript returns a script whose server sends nothing and hangs up.
func silentScript() *script { return &script{end: io.EOF, room: -1} }

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, s.end
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room >= 0 && len(p) > s.room {
		n, _ := s.out.Write(p[:s.room])
		s.room = 0
		return n, io.ErrClosedPipe
	}
	if s.room > 0 {
		s.room -= len(p)
	}
	return s.out.Write(p)
}

func (s *script) Close() error { return nil }

func (s *script) written() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.out.Bytes())
}

// frame returns an unmasked frame with a short payload, as a server sends it.
func frame(first byte, payload string) []byte {
	return append([]byte{first, byte(len(payload))}, payload...)
}

// wiredSession returns a session over src, ready to be read.
func wiredSession(t testing.TB, src io.ReadWriteCloser) *session {
	t.Helper()
	client, err := New("ws://server.test", WithReadLimit(100))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{client: client, id: 1}
	s.start(src, nil, wire.Deflate{}, nil)
	return s
}

// text returns an outbound text message.
func text(data string) outbound { return newOutbound(MessageText, []byte(data)) }

func batchOf(all ...outbound) *batch {
	b := new(batch)
	for i := range all {
		b.add(&all[i])
	}
	return b
}

// A message refused because of the closing handshake was not sent, even if the close
// frame has gone out by then.
func TestRefusedByAClosingHandshake(t *testing.T) {
	src := silentScript()
	s := wiredSession(t, src)
	o := &s.client.outbox
	o.token = s
	s.wire.SendClose(1000, "")
	settled := errors.New("not settled")
	m := text("x")
	m.result = func(err error) { settled = err }
	b := batchOf(m)
	err := s.writeAll(b.items)
	if err != wire.ErrClosing {
		t.Errorf("got %v, want wire.ErrClosing", err)
	}
	o.land(s, b, err)
	if messages, bytes := o.size(); messages != 1 || bytes != 1 {
		t.Errorf("%d messages of %d bytes wait for the next session, outcome %v, want 1 of 1 byte, and none", messages, bytes, settled)
	}
	if s.ending != nil {
		t.Errorf("the session ends by %+v, want it still open", s.ending)
	}
	if written := src.written(); len(written) != 8 {
		t.Errorf("wrote % x, want only the close frame", written)
	}
}

// A write breaks off somewhere among five messages of 10 bytes: those before that place
// are sent, the one at it may be, and those behind it are not.
func TestLandBetween(t *testing.T) {
	const size = 10
	for room := range 5 * size {
		s := wiredSession(t, &script{end: io.EOF, room: room})
		o := &s.client.outbox
		pending := errors.New("pending")
		outcomes := []error{pending, pending, pending, pending, pending}
		var all []outbound
		for i := range outcomes {
			m := text("four")
			m.result = func(err error) { outcomes[i] = err }
			all = append(all, m)
		}
		o.session, o.token = s, s
		if o.write(s, batchOf(all...)) {
			t.Errorf("room for %d bytes: the session goes on after a failed write", room)
		}
		o.allTold()
		if s.ending == nil || s.ending.phase != PhaseWrite || o.session != nil {
			t.Errorf("room for %d bytes: the session ends by %+v, want a failure in phase write", room, s.ending)
		}
		sent, begun := room/size, min(1, room%size)
		for i, got := range outcomes {
			want := pending
			switch {
			case i < sent:
				want = nil
			case i < sent+begun:
				want = ErrMaybeSent
			}
			if got != want {
				t.Errorf("room for %d: message %d: got %v, want %v", room, i, got, want)
			}
		}
		if messages, _ := o.size(); messages != 5-sent-begun {
			t.Errorf("room for %d bytes: %d messages wait, want all that were not begun", room, messages)
		}
		if n := s.client.counters.messagesOut.Load(); n != uint64(sent) {
			t.Errorf("room for %d bytes: %d messages counted as sent, want those sent completely", room, n)
		}
		o.session = s
		if b := o.take(s); b != nil {
			for _, m := range b.items[len(b.items):cap(b.items)] {
				if m.Data != nil || m.result != nil {
					t.Error("a settled message is kept reachable")
				}
			}
		}
	}
}

func TestQueueBounds(t *testing.T) {
	client, err := New("ws://server.test", WithQueue(3, 10))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		text  string
		fits  bool
		bytes int // queued then
	}{
		{"1234", true, 4}, {"1234567", false, 4}, {"123456", true, 10}, {"1", false, 10}, {"", true, 10}, {"", false, 10},
	} {
		err := client.Enqueue(MessageText, []byte(tt.text))
		if tt.fits && err != nil || !tt.fits && err != ErrQueueFull {
			t.Errorf("%q: got %v, want nil if it fits, and else ErrQueueFull", tt.text, err)
		}
		if _, bytes := client.outbox.size(); bytes != tt.bytes {
			t.Errorf("%q: %d bytes are queued, want %d", tt.text, bytes, tt.bytes)
		}
	}
	if !errors.Is(ErrQueueFull, ErrNotSent) {
		t.Error("ErrQueueFull is no ErrNotSent")
	}
	var option *OptionError
	if err := client.Enqueue(MessageText, []byte("12345678901")); !errors.As(err, &option) || !errors.Is(err, ErrNotSent) || errors.Is(err, ErrQueueFull) {
		t.Errorf("a message that can never fit: got %v, want an OptionError and ErrNotSent, and not ErrQueueFull", err)
	}
}

// Small messages of a batch are copied into shared blocks, and never share bytes.
func TestBatchCopies(t *testing.T) {
	var b batch
	type pair struct{ own, want []byte }
	var all []pair
	for i, size := range []int{0, 1, 100, 28, 200, 2000, 9000, maxCopy - 1, maxCopy, maxCopy + 1, 100_000, 1, 30_000, 16_000, 16_000, 16_000} {
		data := bytes.Repeat([]byte{byte(i + 1)}, size)
		all = append(all, pair{b.copy(data), bytes.Clone(data)})
		clear(data)
		if len(b.block) > maxBlock {
			t.Fatalf("a block of %d bytes, want at most maxBlock", len(b.block))
		}
	}
	for i, c := range all {
		if !bytes.Equal(c.own, c.want) || cap(c.own) != len(c.own) && len(c.own) <= maxCopy {
			t.Errorf("copy %d of %d bytes has %d, room for %d", i, len(c.want), len(c.own), cap(c.own))
		}
	}
}

// A batch that was sent is used again, by any client: it keeps its memory, and nothing of
// the messages that it held.
func TestBatchRecycled(t *testing.T) {
	b := new(batch)
	for range 100 {
		m := newOutbound(MessageText, b.copy([]byte("text")))
		m.result, m.expiry = func(error) {}, 1
		b.add(&m)
	}
	items, block := b.items, b.block
	b.recycle()
	for i := range items {
		if items[i].Data != nil || items[i].result != nil {
			t.Fatalf("item %d is kept reachable", i)
		}
	}
	if len(b.items)+b.size+b.load.live+b.load.count+b.load.bytes+b.used != 0 || b.watched || b.timed || cap(b.items) != cap(items) || &b.block[0] != &block[0] {
		t.Errorf("got %+v, want an empty batch with its memory", b)
	}
}

// Each message expires when its TTL is over, whatever its place in the queue.
func TestSweep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := New("ws://server.test")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		lives := []time.Duration{500, 100, 300, 0, 305, 200, 400, 100, 50, 1000}
		for i := range lives {
			lives[i] *= time.Millisecond
		}
		took := make([]time.Duration, len(lives))
		for i, ttl := range lives {
			opts := []SendOption{WithResult(func(err error) {
				if took[i] = time.Since(began); err != ErrExpired {
					t.Errorf("message %d: got %v, want ErrExpired", i, err)
				}
			})}
			if ttl > 0 {
				opts = append(opts, WithTTL(ttl))
			}
			if err := client.Enqueue(MessageText, []byte("four"), opts...); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(450 * time.Millisecond)
		synctest.Wait() // until the timer's goroutine has run
		if messages, bytes := client.outbox.size(); messages != 3 || bytes != 12 {
			t.Errorf("%d messages of %d bytes are left, want 3 of 12", messages, bytes)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, ttl := range lives {
			if took[i] < ttl || took[i] > ttl+sweepEvery {
				t.Errorf("message %d with a TTL of %v expired after %v", i, ttl, took[i])
			}
		}
		if client.outbox.queue.Len() != 1 {
			t.Errorf("%d batches are left, want 1", client.outbox.queue.Len())
		}
	})
}

// The client is not done before the result function of an expired message has returned.
func TestFinishWaitsForResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := New("ws://server.test")
		if err != nil {
			t.Fatal(err)
		}
		over := false
		err = client.Enqueue(MessageText, nil, WithTTL(time.Second), WithResult(func(error) {
			time.Sleep(time.Minute)
			over = true
		}))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		client.finish()
		if !over {
			t.Error("finish returned while a result function was running")
		}
	})
}

// flush waits for the queue and for the writer, but not for another session.
func TestFlushWaits(t *testing.T) {
	for name, tt := range map[string]struct {
		queued int
		token  bool
		waits  bool
	}{
		"nothing":          {0, false, false},
		"a writer":         {0, true, true},
		"a queued message": {1, false, true},
		"both":             {1, true, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := wiredSession(t, silentScript())
			o := &s.client.outbox
			o.session = s
			if tt.token {
				o.token = s
			}
			for range tt.queued {
				o.tail(&o.queue, 0).add(&outbound{})
			}
			o.flush(wiredSession(t, silentScript()))
			done := make(chan struct{})
			go func() {
				o.flush(s)
				close(done)
			}()
			synctest.Wait()
			waits := true
			select {
			case <-done:
				waits = false
			default:
			}
			if waits != tt.waits {
				t.Errorf("flush waits for %s: %t, want %t", name, waits, tt.waits)
			}
			o.detach(s)
			<-done
		})
	}
}

// The messages that a lost connection did not take go back to the queue, except those
// that were canceled or bound to its session.
func TestRequeue(t *testing.T) {
	s := wiredSession(t, silentScript())
	o := &s.client.outbox
	o.session = s
	o.beats = []outbound{{kind: kindBeat}}
	left, waits := newWaiter(context.Background(), 0), newWaiter(context.Background(), 0)
	left.over = notSent(context.Canceled)
	beat, bound := text("x"), text("x")
	beat.kind = kindBeat
	var session error
	bound.session, bound.result = s, func(err error) { session = err }
	all := []outbound{beat, bound}
	for _, waiter := range []*waiter{left, waits, nil} {
		m := text("x")
		m.waiter = waiter
		all = append(all, m)
	}
	o.land(s, batchOf(all...), net.ErrClosed)
	if err := <-left.outcome; err != left.over {
		t.Errorf("the Send that has left: got %v, want its own error", err)
	}
	o.allTold()
	if session != ErrSessionOver || o.unsent.Load() != 2 {
		t.Errorf("the message bound to the session: got %v, with %d unsent, want ErrSessionOver and 2", session, o.unsent.Load())
	}
	if messages, bytes := o.size(); messages != 1 || bytes != 1 || o.queue.Len() != 1 {
		t.Errorf("%d messages of %d bytes wait in %d batches, want 1 of 1 in 1", messages, bytes, o.queue.Len())
	}
	if again := o.queue.PopFront(); len(again.items) != 2 || again.items[0].waiter != waits || again.load.count != 1 || again.size != 14 {
		t.Errorf("got %+v, want the waiting Send and the one message", again)
	}
	if len(o.beats) != 0 {
		t.Error("a heartbeat message waits for the next connection")
	}
}

// The sweeper goes through the whole queue while all senders wait, so it must not
// allocate for each message that stays.
func TestSweepAllocatesLittle(t *testing.T) {
	client, err := New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	o := &client.outbox
	for range 1000 {
		if err := client.Enqueue(MessageText, []byte("x"), WithTTL(time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if allocations := testing.AllocsPerRun(10, o.sweep); allocations > 10 {
		t.Errorf("%.0f allocations, want at most 10", allocations)
	}
	if messages, bytes := o.size(); messages != 1000 || bytes != 1000 {
		t.Errorf("%d messages of %d bytes are left, want 1000 of 1000", messages, bytes)
	}
	o.finish()
}

// A batch holds as many messages as fit into the write buffer; heartbeat messages go
// first.
func TestTake(t *testing.T) {
	s := wiredSession(t, silentScript())
	o := &s.client.outbox
	o.session, o.token = s, s // so that nobody drains the queue
	o.beats = []outbound{text(strings.Repeat("b", 20<<10))}
	o.beats[0].kind = kindBeat
	large := make([]byte, 30<<10)
	queued := [][]byte{large, large, large, []byte("small"), make([]byte, 100<<10), []byte("last")}
	for range maxBatch {
		queued = append(queued, nil)
	}
	for _, data := range queued {
		if err := o.enqueue(&outbound{}, data, 0); err != nil {
			t.Fatal(err)
		}
	}
	taken := 0
	for _, want := range []int{1, 2, 2, 1, maxBatch, 1} { // the heartbeat; two large ones; another and the small one; the largest; the others
		b := o.take(s)
		if len(b.items) != want {
			t.Errorf("%d messages taken, want %d", len(b.items), want)
		}
		taken += b.load.count
	}
	if b := o.take(s); b != nil || taken != len(queued) {
		t.Errorf("%d messages taken, and then %+v, want all, and then nothing", taken, b)
	}
	if messages, bytes := o.size(); messages != 0 || bytes != 0 {
		t.Errorf("%d messages of %d bytes are left, want none", messages, bytes)
	}
}

// A single message that waits for a session does not hold a batch that grew large in a
// burst of another client.
func TestBatchOfOneThatWaits(t *testing.T) {
	for range 100 { // under the race detector, a sync.Pool drops some items at random
		b := new(batch)
		for range maxBatch {
			m := newOutbound(MessageText, b.copy(make([]byte, 100)))
			b.add(&m)
		}
		b.recycle()
	}
	client, err := New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	o := &client.outbox
	if err := client.Enqueue(MessageText, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if b := *o.queue.At(0); cap(b.items) > 8 || len(b.block) > minBlock {
		t.Errorf("room for %d messages and %d bytes, want a small batch", cap(b.items), len(b.block))
	}
}

// Expired messages are not sent.
func TestExpire(t *testing.T) {
	const now = time.Hour
	var outcomes []error
	result := func(err error) { outcomes = append(outcomes, err) }
	late, inTime := text("x"), text("in time")
	late.expiry, late.result, inTime.expiry = now, result, now+1
	b := batchOf(outbound{expiry: now - 1, result: result}, outbound{}, late, inTime)
	o := new(outbox)
	o.refuse(b.expire(now), ErrExpired)
	if len(b.items) != 2 || string(b.items[1].Data) != "in time" || b.load.count != 2 || b.load.bytes != 7 || !b.timed || b.watched {
		t.Errorf("got %+v, want the batch without the expired messages", b)
	}
	o.allTold()
	if len(outcomes) != 2 || outcomes[0] != ErrExpired || outcomes[1] != ErrExpired {
		t.Errorf("outcomes %v, want ErrExpired twice", outcomes)
	}
	alone := batchOf(outbound{expiry: now, result: result})
	o.refuse(alone.expire(now), ErrExpired)
	o.allTold()
	if len(alone.items) != 0 || len(outcomes) != 3 {
		t.Errorf("got %+v, want an empty batch", alone)
	}
}

// Messages that were queued during a write are sent after it.
func TestReleaseDrainsTheQueue(t *testing.T) {
	src := silentScript()
	s := wiredSession(t, src)
	o := &s.client.outbox
	o.session, o.token = s, s
	outcome := make(chan error, 1)
	m := text("")
	m.result = func(err error) { outcome <- err }
	if err := o.enqueue(&m, []byte("next"), 0); err != nil {
		t.Fatal(err)
	}
	o.release()
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	o.join(s)
	if sent := src.written(); len(sent) != wire.FrameSize(len("next")) {
		t.Errorf("sent % x, want one more frame", sent)
	}
}

// A Send that comes after our close frame does not hide why the session ends.
func TestLateSendIsNoWriteFailure(t *testing.T) {
	src := silentScript()
	src.in = frame(0x83, "") // a reserved opcode
	s := wiredSession(t, src)
	s.read()
	s.wire.Close()
	o := &s.client.outbox
	o.attach(s)
	if queued := o.enqueue(&outbound{}, []byte("late"), 0); queued != nil {
		t.Fatalf("enqueue: got %v, want nil", queued)
	}
	o.flush(s)
	if e := s.finish(); e.phase != PhaseProtocol || e.code != StatusProtocolError {
		t.Errorf("got phase %v, code %d: %v, want protocol, 1002", e.phase, e.code, e.err)
	}
	if messages, _ := o.size(); messages != 1 {
		t.Errorf("%d messages wait for the next session, want 1", messages)
	}
}

// A finished session starts nothing more, and why it ended does not change.
func TestFinishedSession(t *testing.T) {
	s := wiredSession(t, silentScript())
	s.read()
	if e := s.finish(); e.phase != PhaseRead {
		t.Fatalf("ended by %+v, want phase read", e)
	}
	s.spawned(func() { t.Error("a finished session ran a function") })
	s.spawn(func() { t.Error("a finished session started a goroutine") })
	if s.end(ending{closing: true}) {
		t.Error("a finished session ended again")
	}
	s.tasks.Wait()
}

// When many Sends are canceled together, their messages no longer hold memory, and the
// places they leave in the queue never outnumber the messages that remain.
func TestCanceledMessagesHoldNoMemory(t *testing.T) {
	client, err := New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	o := &client.outbox
	const n = 1000
	var waiters []*waiter
	o.mu.Lock()
	for range n {
		w := newWaiter(context.Background(), 0)
		m := newOutbound(MessageBinary, make([]byte, 1<<10))
		m.waiter = w
		o.push(o.tail(&o.queue, len(m.Data)), &m)
		waiters = append(waiters, w)
	}
	o.mu.Unlock()
	for i, w := range waiters {
		_ = o.leave(w, ErrExpired)
		items, held, gone := 0, 0, 0
		for at := range o.queue.Len() {
			for _, m := range (*o.queue.At(at)).items {
				items++
				held += len(m.Data)
				if m.gone() {
					gone++
				}
			}
		}
		if left := n - 1 - i; held != left<<10 || o.load.live != left || o.load.gone != gone || gone > left || items != left+gone {
			t.Fatalf("%d waiting Sends: load %+v, %d items, %d of them gone, holding %d bytes, want only places", left, o.load, items, gone, held)
		}
	}
	if o.queue.Len() != 0 || o.unsent.Load() != n {
		t.Errorf("%d batches are left, want none; %d messages were not sent, want all", o.queue.Len(), o.unsent.Load())
	}
}

// A session that is over before it opens takes no message, and none can be bound to it.
func TestAttachTooLate(t *testing.T) {
	for name, meets := range map[string]func(*outbox, *session){"prepare": (*outbox).prepare, "attach": (*outbox).attach} {
		s := wiredSession(t, silentScript())
		o := &s.client.outbox
		s.kill()
		meets(o, s)
		if err := o.enqueue(&outbound{}, nil, s.id); err != ErrSessionOver || o.session != nil {
			t.Errorf("%s: got %v, want ErrSessionOver", name, err)
		}
	}
}
