package resock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

func batchOf(all ...outbound) *batch {
	b := new(batch)
	for i := range all {
		b.add(&all[i])
	}
	return b
}

// A message that the closing handshake refused was not sent, even if the close
// frame has gone out since.
func TestRefusedByAClosingHandshake(t *testing.T) {
	src := &script{end: io.EOF}
	s := wiredSession(t, setting{limit: 100}, src)
	o := &s.client.outbox
	o.token = true
	s.wire.mark()
	start, end := s.wire.frame()
	if _, err := s.wire.Write(masked(finBit|opClose, closePayload(1000, ""))); err != nil {
		t.Fatal(err)
	}
	settled := errors.New("not settled")
	o.land(s, batchOf(outbound{typ: MessageText, data: []byte("x"), result: func(err error) { settled = err }, start: start, end: end}), net.ErrClosed)
	if messages, bytes := o.size(); messages != 1 || bytes != 1 {
		t.Errorf("%d messages of %d bytes wait for the next session, outcome %v", messages, bytes, settled)
	}
	if written := src.written(); len(written) != 8 {
		t.Errorf("written: % x", written)
	}
}

func TestUntouched(t *testing.T) {
	for _, tt := range []struct {
		start, end, written uint64
		want                bool
	}{
		{10, 20, 5, true}, {10, 20, 10, true}, {10, 20, 11, false}, {10, 20, 20, false}, {10, 20, 30, false},
		{10, 10, 30, true}, // refused
	} {
		m := outbound{start: tt.start, end: tt.end}
		if got := m.untouched(tt.written); got != tt.want {
			t.Errorf("bytes %d to %d of %d written: %t", tt.start, tt.end, tt.written, got)
		}
	}
}

// A broken write ends in the middle of a message: before it all are sent, behind
// it none is.
func TestLandBetween(t *testing.T) {
	s := wiredSession(t, setting{limit: 100}, &script{end: io.EOF})
	o := &s.client.outbox
	outcomes := make([]error, 5)
	pending := errors.New("pending")
	var all []outbound
	for i := range outcomes {
		outcomes[i] = pending
		all = append(all, outbound{
			data:   []byte("x"),
			result: func(err error) { outcomes[i] = err },
			start:  uint64(10 * i),
			end:    uint64(10*i + 10),
		})
	}
	s.wire.written = 20
	s.wire.wireWriter.err = io.ErrClosedPipe
	o.token = true
	o.land(s, batchOf(all...), io.ErrClosedPipe)
	if s.ending == nil || s.ending.phase != PhaseWrite {
		t.Errorf("the session ends by %+v", s.ending)
	}
	if got := outcomes[:2]; got[0] != nil || got[1] != nil {
		t.Errorf("what was written has the outcomes %v", got)
	}
	if messages, _ := o.size(); messages != 3 {
		t.Errorf("%d messages wait, want 3: %v", messages, outcomes)
	}
	if n := s.client.counters.messagesOut.Load(); n != 2 {
		t.Errorf("%d messages counted", n)
	}

	o.session = s
	b := o.take(s)
	for _, m := range b.items[len(b.items):cap(b.items)] {
		if m.data != nil || m.result != nil {
			t.Error("a settled message is kept alive")
		}
	}
	for i := range b.items {
		b.items[i].start, b.items[i].end = 20, 30
	}
	s.wire.written = 21
	o.land(s, b, net.ErrClosed)
	for i, err := range outcomes[2:] {
		if err != ErrMaybeSent {
			t.Errorf("message %d, half written: %v", i, err)
		}
	}
	if o.session != nil {
		t.Error("the session still takes messages")
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
		{"12345678901", false, 0}, {"1234", true, 4}, {"1234567", false, 4}, {"123456", true, 10}, {"1", false, 10}, {"", true, 10}, {"", false, 10},
	} {
		err := client.Enqueue(MessageText, []byte(tt.text))
		if tt.fits && err != nil || !tt.fits && err != ErrQueueFull {
			t.Errorf("%q: %v", tt.text, err)
		}
		if _, bytes := client.outbox.size(); bytes != tt.bytes {
			t.Errorf("%q: %d bytes are queued, want %d", tt.text, bytes, tt.bytes)
		}
	}
}

// Copies of a batch share blocks up to a size, never bytes.
func TestBatchCopies(t *testing.T) {
	var b batch
	type pair struct{ own, want []byte }
	var all []pair
	for i, size := range []int{0, 1, 100, 28, 200, 2000, 9000, maxCopy - 1, maxCopy, maxCopy + 1, 100_000, 1, 30_000, 16_000, 16_000, 16_000} {
		data := bytes.Repeat([]byte{byte(i + 1)}, size)
		all = append(all, pair{b.copy(data), bytes.Clone(data)})
		clear(data)
		if len(b.block) > maxBlock {
			t.Fatalf("a block of %d bytes", len(b.block))
		}
	}
	for i, c := range all {
		if !bytes.Equal(c.own, c.want) || cap(c.own) != len(c.own) && len(c.own) <= maxCopy {
			t.Errorf("copy %d of %d bytes has %d, room for %d", i, len(c.want), len(c.own), cap(c.own))
		}
	}
}

// A batch that was sent serves another client, keeps its memory and nothing of what
// was in it.
func TestBatchRecycled(t *testing.T) {
	b := new(batch)
	for range 100 {
		b.add(&outbound{data: b.copy([]byte("text")), result: func(error) {}, expiry: 1})
	}
	items, block := b.items, b.block
	b.recycle()
	for i := range items {
		if items[i].data != nil || items[i].result != nil {
			t.Fatalf("item %d is kept alive", i)
		}
	}
	if len(b.items)+b.size+b.count+b.bytes+b.used != 0 || b.watched || b.timed || cap(b.items) != cap(items) || &b.block[0] != &block[0] {
		t.Errorf("%+v", b)
	}
}

// Each message expires in its time, whatever the order of the queue.
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
			opts := []EnqueueOption{WithResult(func(err error) {
				if took[i] = time.Since(began); err != ErrExpired {
					t.Errorf("message %d: %v", i, err)
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
		synctest.Wait() // and see what the timer's goroutine wrote
		if messages, bytes := client.outbox.size(); messages != 3 || bytes != 12 {
			t.Errorf("%d messages of %d bytes are left", messages, bytes)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		for i, ttl := range lives {
			if took[i] < ttl || took[i] > ttl+sweepEvery {
				t.Errorf("message %d of %v expired after %v", i, ttl, took[i])
			}
		}
		if client.outbox.queue.len != 1 {
			t.Errorf("%d messages are left", client.outbox.queue.len)
		}
	})
}

// The end waits for a result function that was called for an expired message.
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
		client.outbox.finish()
		if !over {
			t.Error("it still runs")
		}
	})
}

// flush waits for the queue and for the writer, and not for another session.
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
			s := wiredSession(t, setting{limit: 100}, &script{end: io.EOF})
			o := &s.client.outbox
			o.session, o.token = s, tt.token
			for range tt.queued {
				o.tail(0).add(&outbound{})
			}
			o.flush(wiredSession(t, setting{limit: 100}, &script{end: io.EOF}))
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
				t.Errorf("flush waits for %s: %t", name, waits)
			}
			o.detach(s)
			<-done
		})
	}
}

// What a lost connection leaves behind goes back to the queue, but for what
// nobody wants any more.
func TestRequeue(t *testing.T) {
	s := wiredSession(t, setting{limit: 100}, &script{end: io.EOF})
	o := &s.client.outbox
	o.session = s
	o.beats = []outbound{{data: []byte("beat"), waiter: beatWaiter}}
	gone, leave := context.WithCancel(context.Background())
	leave()
	left, waits := newWaiter(gone), newWaiter(context.Background())
	var all []outbound
	for _, m := range []outbound{{data: []byte("beat"), waiter: beatWaiter}, {waiter: left}, {waiter: waits}, {data: []byte("x")}} {
		m.start, m.end = 10, 20
		all = append(all, m)
	}
	o.land(s, batchOf(all...), net.ErrClosed)
	if err := <-left.outcome; !errors.Is(err, ErrNotSent) {
		t.Errorf("who has left gets %v", err)
	}
	if messages, bytes := o.size(); messages != 1 || bytes != 1 || o.queue.len != 1 {
		t.Errorf("%d messages of %d bytes wait in %d batches", messages, bytes, o.queue.len)
	}
	if again := o.queue.popFront(); len(again.items) != 2 || again.items[0].waiter != waits || again.count != 1 || again.size != 13 {
		t.Errorf("%+v", again)
	}
	if len(o.beats) != 0 {
		t.Error("a beat waits for another connection")
	}
}

// Every Send whose context ends looks through the whole queue, and so does the sweeper,
// with all other senders waiting: it costs nothing for what stays.
func TestLookingThroughTheQueue(t *testing.T) {
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
		t.Errorf("%.0f allocations", allocations)
	}
	if messages, bytes := o.size(); messages != 1000 || bytes != 1000 {
		t.Errorf("%d messages of %d bytes are left", messages, bytes)
	}
	o.finish()
}

// A batch holds what fits into the buffer of the wire; beats go first.
func TestTake(t *testing.T) {
	s := wiredSession(t, setting{limit: 100}, &script{end: io.EOF})
	o := &s.client.outbox
	o.session, o.token = s, true // nobody drains
	o.beats = []outbound{{data: make([]byte, 20<<10), waiter: beatWaiter}}
	large := make([]byte, 30<<10)
	queued := [][]byte{large, large, large, []byte("small"), make([]byte, 100<<10), []byte("last")}
	for range maxBatch {
		queued = append(queued, nil)
	}
	for _, data := range queued {
		if err := o.enqueue(&outbound{typ: MessageBinary}, data); err != nil {
			t.Fatal(err)
		}
	}
	taken := 0
	for _, want := range []int{1, 2, 2, 1, maxBatch, 1} { // the beat; two large ones; another and the small one; the largest; the others
		b := o.take(s)
		if len(b.items) != want {
			t.Errorf("%d messages taken, want %d", len(b.items), want)
		}
		taken += b.count
	}
	if b := o.take(s); b != nil || taken != len(queued) {
		t.Errorf("%d messages taken, then %+v", taken, b)
	}
	if messages, bytes := o.size(); messages != 0 || bytes != 0 {
		t.Errorf("%d messages of %d bytes are left", messages, bytes)
	}
}

// What another client's burst grew to is not held by one message that waits for a
// session.
func TestBatchOfOneThatWaits(t *testing.T) {
	for range 100 { // a pool of one would forget at random under the race detector
		b := new(batch)
		for range maxBatch {
			b.add(&outbound{data: b.copy(make([]byte, 100))})
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
	if b := *o.queue.at(0); cap(b.items) > 8 || len(b.block) > minBlock {
		t.Errorf("room for %d messages and %d bytes", cap(b.items), len(b.block))
	}
}

// Nothing that has expired is sent.
func TestExpire(t *testing.T) {
	const now = time.Hour
	var outcomes []error
	result := func(err error) { outcomes = append(outcomes, err) }
	b := batchOf(outbound{expiry: now - 1, result: result}, outbound{}, outbound{expiry: now, data: []byte("x"), result: result},
		outbound{expiry: now + 1, data: []byte("in time")})
	b.expire(now)
	if len(b.items) != 2 || string(b.items[1].data) != "in time" || b.count != 2 || b.bytes != 7 || !b.timed || b.watched {
		t.Errorf("left: %+v", b)
	}
	if len(outcomes) != 2 || outcomes[0] != ErrExpired || outcomes[1] != ErrExpired {
		t.Errorf("outcomes %v", outcomes)
	}
	alone := batchOf(outbound{expiry: now, result: result})
	alone.expire(now)
	if len(alone.items) != 0 || len(outcomes) != 3 {
		t.Errorf("left: %+v", alone)
	}
}

// What was queued while somebody wrote is sent after it.
func TestReleaseGoesOn(t *testing.T) {
	src := &script{end: io.EOF}
	s := wiredSession(t, setting{limit: 100}, src)
	o := &s.client.outbox
	o.session, o.token = s, true
	outcome := make(chan error, 1)
	if err := o.enqueue(&outbound{typ: MessageText, result: func(err error) { outcome <- err }}, []byte("next")); err != nil {
		t.Fatal(err)
	}
	o.release()
	if err := <-outcome; err != nil {
		t.Error(err)
	}
	o.join()
	if sent := sentFrames(t, src.written()); len(sent) != 1 || sent[0].payload != "next" {
		t.Errorf("sent %v", sent)
	}
}
