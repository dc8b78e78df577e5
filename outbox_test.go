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
	o.flight = []flight{{outbound{typ: MessageText, data: []byte("x"), result: func(err error) { settled = err }}, start, end}}
	o.land(s, net.ErrClosed)
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
		if got := untouched(tt.start, tt.end, tt.written); got != tt.want {
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
	for i := range outcomes {
		outcomes[i] = pending
		o.flight = append(o.flight, flight{outbound{data: []byte("x"), result: func(err error) { outcomes[i] = err }}, uint64(10 * i), uint64(10*i + 10)})
	}
	s.wire.written = 20
	s.wire.wireWriter.err = io.ErrClosedPipe
	o.token = true
	o.land(s, io.ErrClosedPipe)
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
	for i, f := range o.flight[:5] {
		if f.data != nil || f.result != nil {
			t.Errorf("message %d is kept alive", i)
		}
	}

	o.session = s
	for range 3 {
		m := o.queue.popFront()
		o.forget(&m)
		o.flight = append(o.flight, flight{m, 20, 30})
	}
	s.wire.written = 21
	o.land(s, net.ErrClosed)
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

// Copies share blocks up to a size, never bytes, and an empty queue keeps none.
func TestQueueCopies(t *testing.T) {
	var o outbox
	for _, size := range []int{0, 1, 100, 28, 2000, maxCarved - 1, maxCarved, maxCarved + 1, blockSize, 100_000, 1} {
		data := make([]byte, size)
		for i := range data {
			data[i] = byte(i)
		}
		own := o.copy(data)
		want := bytes.Clone(data)
		clear(data)
		for range 20 {
			o.copy([]byte{7, 7, 7})
		}
		if !bytes.Equal(own, want) || cap(own) != len(own) && size <= maxCarved {
			t.Errorf("a copy of %d bytes has %d, room for %d", size, len(own), cap(own))
		}
	}
	if len(o.block) == 0 {
		t.Error("no block is shared")
	}
	o.queue.pushBack(outbound{})
	m := o.queue.popFront()
	o.forget(&m)
	if o.block != nil || o.grow != 0 {
		t.Error("an empty queue keeps a block")
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
				o.queue.pushBack(outbound{})
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
	for _, m := range []outbound{{data: []byte("beat"), waiter: beatWaiter}, {waiter: left}, {waiter: waits}, {data: []byte("x")}} {
		o.flight = append(o.flight, flight{m, 10, 20})
	}
	o.land(s, net.ErrClosed)
	if err := <-left.outcome; !errors.Is(err, ErrNotSent) {
		t.Errorf("who has left gets %v", err)
	}
	if messages, bytes := o.size(); messages != 1 || bytes != 1 || o.queue.len != 2 || o.queue.at(0).waiter != waits {
		t.Errorf("%d messages of %d bytes wait, %d in all", messages, bytes, o.queue.len)
	}
	if len(o.beats) != 0 {
		t.Error("a beat waits for another connection")
	}
}

func TestReleaseGivesABurstsMemoryBack(t *testing.T) {
	var o outbox
	o.idle.L = &o.mu
	for _, room := range []int{16, 17, burst / 2} {
		o.token, o.flight = true, make([]flight, 0, room)
		o.release()
		if kept := o.flight != nil; kept != (room == 16) || o.token {
			t.Errorf("room for %d: kept %t", room, kept)
		}
	}
}

// A flush holds what fits into the buffer of the wire, beats first, and nothing
// that has expired.
func TestTake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := wiredSession(t, setting{limit: 100}, &script{end: io.EOF})
		o := &s.client.outbox
		o.session = s
		o.beats = []outbound{{data: make([]byte, 20<<10), waiter: beatWaiter}}
		time.Sleep(time.Second)
		large, now := make([]byte, 30<<10), o.now()
		for _, m := range []outbound{
			{data: large}, {data: large}, {data: large},
			{expiry: now - 1}, {expiry: now}, {expiry: now + 1, data: []byte("in time")},
			{data: make([]byte, 100<<10)}, {data: []byte("last")},
		} {
			o.count++
			o.bytes += len(m.data)
			o.queue.pushBack(m)
		}
		expired := 0
		for _, want := range []int{2, 3, 1, 1, 0} { // beat and large; two large ones and the small one; the largest; the last
			o.flight = nil
			expired += len(o.take(s))
			if len(o.flight) != want {
				t.Errorf("%d messages taken, want %d", len(o.flight), want)
			}
		}
		if expired != 2 {
			t.Errorf("%d expired", expired)
		}
		if messages, bytes := o.size(); messages != 0 || bytes != 0 {
			t.Errorf("%d messages of %d bytes are left", messages, bytes)
		}
	})
}

// What was queued while somebody wrote is sent after it, and not kept alive.
func TestReleaseGoesOn(t *testing.T) {
	src := &script{end: io.EOF}
	s := wiredSession(t, setting{limit: 100}, src)
	o := &s.client.outbox
	o.session, o.token = s, true
	outcome := make(chan error, 1)
	if err := o.enqueue(outbound{typ: MessageText, result: func(err error) { outcome <- err }}, []byte("next")); err != nil {
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
	for _, f := range o.flight[:cap(o.flight)] {
		if f.data != nil {
			t.Error("a message is kept alive")
		}
	}
}
