package resock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
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
	o.token = true
	o.land(s, net.ErrClosed)
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
