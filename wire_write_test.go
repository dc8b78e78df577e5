package resock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// network is where a wireWriter writes to.
type network struct {
	mu      sync.Mutex
	taken   []byte
	writes  int
	room    int           // bytes until it fails; negative: no bound
	gate    chan struct{} // if not nil, every Write waits for a token
	started int           // writes that began
}

var errNetwork = errors.New("the network is gone")

func (n *network) Write(p []byte) (int, error) {
	n.mu.Lock()
	n.started++
	n.mu.Unlock()
	if n.gate != nil {
		<-n.gate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.writes++
	if n.room >= 0 && len(p) > n.room {
		n.taken = append(n.taken, p[:n.room]...)
		taken := n.room
		n.room = 0
		return taken, errNetwork
	}
	if n.room > 0 {
		n.room -= len(p)
	}
	n.taken = append(n.taken, p...)
	return len(p), nil
}

func (n *network) got() ([]byte, int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.taken), n.writes
}

func (n *network) Read([]byte) (int, error) { return 0, errNetwork }
func (n *network) Close() error             { return nil }

// bareWriter is a wireWriter without coder/websocket. In a bubble its goroutines
// are over when synctest.Wait returns.
func bareWriter(dst *network) *wireWriter {
	w := &wireWriter{
		clock:    clock{time.Now()},
		dst:      dst,
		timeout:  10 * time.Second,
		stalled:  func() {},
		spawn:    func(f func()) { go f() },
		counters: &counters{},
	}
	w.flushed.L = &w.mu
	return w
}

func write(t *testing.T, w *wireWriter, chunk []byte) {
	t.Helper()
	if n, err := w.Write(chunk); n != len(chunk) || err != nil {
		t.Fatalf("Write: %d, %v", n, err)
	}
}

func checkSent(t *testing.T, got []byte, want ...sentFrame) {
	t.Helper()
	if frames := sentFrames(t, got); !slices.Equal(frames, want) {
		t.Errorf("sent %v, want %v", frames, want)
	}
}

// TestWriteCoalesces counts the writes to the network, by way of
// coder/websocket.
func TestWriteCoalesces(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages int
		size     int
		writes   int
	}{
		{"a lone message", 1, 100, 1},
		{"a lone message, larger than coder/websocket's buffer", 1, 50_000, 1},
		{"a burst", 500, 100, 1},
		{"more than one write takes", 1, 3 * maxFlush, 4},
	} {
		n := &network{room: -1}
		s := wiredSession(t, setting{limit: 1}, n)
		payload := strings.Repeat("p", test.size)
		for range test.messages {
			if _, _, err := put(s, MessageBinary, payload); err != nil {
				t.Fatal(err)
			}
		}
		if _, writes := n.got(); writes != 0 {
			t.Errorf("%s: %d writes before the flush", test.name, writes)
		}
		if err := s.wire.flush(); err != nil {
			t.Error(err)
		}
		taken, writes := n.got()
		if writes != test.writes {
			t.Errorf("%s: %d writes", test.name, writes)
		}
		checkSent(t, taken, slices.Repeat([]sentFrame{{finBit | opBinary, payload}}, test.messages)...)
		if got := s.client.counters.bytesOut.Load(); got != uint64(len(taken)) {
			t.Errorf("%s: counted %d bytes of %d", test.name, got, len(taken))
		}
		if s.wire.flush(); writes != test.writes {
			t.Errorf("%s: an empty flush writes", test.name)
		}
		s.wire.stopWatch()
	}
}

func TestPingWaitsForTheFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1}
		w := bareWriter(n)
		time.Sleep(time.Second)
		message := masked(finBit|opBinary, strings.Repeat("m", 5000))
		write(t, w, message[:4096])
		w.ping()
		w.ping()
		synctest.Wait()
		if taken, _ := n.got(); len(taken) != 0 {
			t.Errorf("flushed %d bytes of a frame for a ping that is not in it", len(taken))
		}
		write(t, w, message[4096:])
		synctest.Wait()
		w.ping()
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opBinary, strings.Repeat("m", 5000)}, sentFrame{finBit | opPing, ""}, sentFrame{finBit | opPing, ""})

		time.Sleep(3 * time.Second)
		if roundTrip, ok := w.ponged(); !ok || roundTrip != 3*time.Second {
			t.Errorf("round trip %v, %v", roundTrip, ok)
		}
		if _, ok := w.ponged(); ok {
			t.Error("a pong that nobody asked for has a round trip")
		}
		w.stopWatch()
	})
}

func TestNoPingAfterTheCloseFrame(t *testing.T) {
	n := &network{room: -1}
	w := bareWriter(n)
	write(t, w, masked(finBit|opClose, closePayload(1000, "")))
	w.ping()
	if err := w.flush(); err != nil {
		t.Error(err)
	}
	taken, _ := n.got()
	checkSent(t, taken, sentFrame{finBit | opClose, closePayload(1000, "")})
	w.stopWatch()
}

// TestEveryPongIsFlushed: a pong that comes while another is being flushed must
// not wait for the next message.
func TestEveryPongIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		w := bareWriter(n)
		write(t, w, masked(finBit|opPong, "one"))
		synctest.Wait() // the first is under way
		write(t, w, masked(finBit|opPong, "two"))
		w.ping()
		n.gate <- struct{}{}
		synctest.Wait()
		select {
		case n.gate <- struct{}{}:
		default:
			t.Error("nobody flushes the second pong")
		}
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opPong, "one"}, sentFrame{finBit | opPong, "two"}, sentFrame{finBit | opPing, ""})
		w.stopWatch()
	})
}

// TestPongsAreDropped: a server that pings and does not read gets no pongs past
// the backlog, but nothing else is lost.
func TestPongsAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		w := bareWriter(n)
		pong := masked(finBit|opPong, strings.Repeat("p", maxControlPayload))
		for range 3 * maxFlush / len(pong) {
			write(t, w, pong)
		}
		w.mu.Lock()
		backlog := len(w.buf)
		w.mu.Unlock()
		if backlog > maxFlush+len(pong) {
			t.Errorf("%d bytes wait", backlog)
		}
		write(t, w, masked(finBit|opText, "kept"))
		close(n.gate)
		if err := w.flush(); err != nil {
			t.Error(err)
		}
		taken, _ := n.got()
		frames := sentFrames(t, taken)
		if last := frames[len(frames)-1]; last.payload != "kept" {
			t.Errorf("the last frame is %v", last)
		}
		synctest.Wait()
		w.stopWatch()
	})
}

// TestPongBehindALargeMessage: what waits to go out of our own is no reason to
// drop a pong.
func TestPongBehindALargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1}
		w := bareWriter(n)
		large := strings.Repeat("m", 2*maxFlush)
		write(t, w, masked(finBit|opBinary, large))
		write(t, w, masked(finBit|opPong, "still here"))
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opBinary, large}, sentFrame{finBit | opPong, "still here"})
		w.stopWatch()
	})
}

func TestCloseFrameIsFlushed(t *testing.T) {
	for _, test := range []struct {
		payload string
		code    StatusCode
	}{
		{"", websocket.StatusNoStatusRcvd},
		{closePayload(1001, ""), 1001},
		{closePayload(4999, strings.Repeat("r", maxReason)), 4999},
	} {
		n := &network{room: -1}
		w := bareWriter(n)
		if code, sent := w.closed(); code != 0 || sent {
			t.Errorf("before: %d, %v", code, sent)
		}
		write(t, w, masked(finBit|opText, "before"))
		write(t, w, masked(finBit|opClose, test.payload))
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opText, "before"}, sentFrame{finBit | opClose, test.payload})
		if code, sent := w.closed(); code != test.code || !sent {
			t.Errorf("got %d, %v, want %d", code, sent, test.code)
		}
		w.stopWatch()
	}
	n := &network{}
	w := bareWriter(n)
	if _, err := w.Write(masked(finBit|opClose, closePayload(1000, ""))); !errors.Is(err, errNetwork) {
		t.Errorf("got %v", err)
	}
	if code, sent := w.closed(); code != 1000 || sent {
		t.Errorf("after a failure: %d, %v", code, sent)
	}
	w.stopWatch()
}

// put writes one message, and tells its place in the stream.
func put(s *session, typ MessageType, text string) (start, end uint64, err error) {
	m := outbound{typ: typ, data: []byte(text)}
	err = s.write(&m)
	return m.start, m.end, err
}

// TestWritePositions lets the network fail at every byte of three messages. What
// their places in the stream say must agree with what it took.
func TestWritePositions(t *testing.T) {
	payloads := []string{"first", strings.Repeat("second", 1000), ""}
	sizes := []int{5 + 6, 6000 + 8, 6}
	for room := range 5 + 6 + 6000 + 8 + 6 {
		if room > 40 && room%97 != 0 && room < 6000 {
			continue
		}
		n := &network{room: room}
		s := wiredSession(t, setting{limit: 1}, n)
		at := 0
		var ends []uint64
		for i, payload := range payloads {
			start, end, err := put(s, MessageText, payload)
			if err != nil || start != uint64(at) || end != uint64(at+sizes[i]) {
				t.Fatalf("message %d is at %d to %d, %v", i, start, end, err)
			}
			at += sizes[i]
			ends = append(ends, end)
		}
		if err := s.wire.flush(); !errors.Is(err, errNetwork) {
			t.Fatalf("room for %d: %v", room, err)
		}
		if got := s.wire.writtenBytes(); got != uint64(room) {
			t.Errorf("room for %d: written %d", room, got)
		}
		start, end, err := put(s, MessageText, "after")
		if err == nil || start != end || start != ends[2] {
			t.Errorf("a message after the failure is at %d to %d, %v", start, end, err)
		}
		if err := s.wire.flush(); !errors.Is(err, errNetwork) {
			t.Errorf("a second flush: %v", err)
		}
		s.wire.stopWatch()
	}
}

// TestWriteUnfinished: a message of which only a part came into the wire may
// have been sent, but never counts as sent.
func TestWriteUnfinished(t *testing.T) {
	n := &network{room: -1}
	w := bareWriter(n)
	w.mark()
	if start, end := w.frame(); start != 0 || end != 0 {
		t.Errorf("nothing is at %d to %d", start, end)
	}
	write(t, w, masked(finBit|opText, strings.Repeat("m", 300))[:100])
	if err := w.flush(); err != nil {
		t.Error(err)
	}
	if start, end := w.frame(); start != 0 || end <= w.writtenBytes() {
		t.Errorf("a part is at %d to %d", start, end)
	}
	w.stopWatch()
	if _, err := bareWriter(n).Write([]byte{0x81}); !errors.Is(err, errFraming) {
		t.Errorf("half a header: %v", err)
	}
}

// TestFlushOfOthers: a flush returns when its bytes are taken, whoever wrote them.
func TestFlushOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		w := bareWriter(n)
		var wait sync.WaitGroup
		for range 8 {
			write(t, w, masked(finBit|opText, "m"))
			wait.Go(func() {
				if err := w.flush(); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(n.gate)
		wait.Wait()
		taken, writes := n.got()
		if len(sentFrames(t, taken)) != 8 || writes != 2 {
			t.Errorf("%d bytes in %d writes", len(taken), writes)
		}
		w.stopWatch()
	})
}

func TestWriteTimeout(t *testing.T) {
	const timeout = 10 * time.Second
	for _, test := range []struct {
		name  string
		takes []time.Duration // by each write, an hour apart
		want  time.Duration   // into the last write; 0: never
	}{
		{"a first write that hangs", []time.Duration{time.Hour}, timeout},
		{"slow writes", []time.Duration{timeout - 1, timeout - 1, timeout - 1}, 0},
		{"a later write that hangs", []time.Duration{0, time.Second, 0, time.Hour}, timeout},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{room: -1, gate: make(chan struct{})}
			w := bareWriter(n)
			var stalledAt time.Time
			w.stalled = func() { stalledAt = time.Now() }
			var last time.Time
			for _, d := range test.takes {
				write(t, w, masked(finBit|opText, "m"))
				last = time.Now()
				time.AfterFunc(d, func() { n.gate <- struct{}{} })
				_ = w.flush()
				time.Sleep(time.Hour)
				synctest.Wait()
			}
			switch {
			case test.want == 0 && !stalledAt.IsZero():
				t.Errorf("%s: stalled", test.name)
			case test.want != 0 && stalledAt.Sub(last) != test.want:
				t.Errorf("%s: stalled after %v", test.name, stalledAt.Sub(last))
			}
			w.stopWatch()
		})
	}
}

// TestWriteTimeoutOfABusyWriter: writes without a pause, each in time; then one
// that hangs.
func TestWriteTimeoutOfABusyWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		w := bareWriter(n)
		var stalledAt time.Time
		w.stalled = func() { stalledAt = time.Now(); close(n.gate) }
		for range 100 {
			write(t, w, masked(finBit|opText, "m"))
			time.AfterFunc(700*time.Millisecond, func() { n.gate <- struct{}{} })
			if err := w.flush(); err != nil || !stalledAt.IsZero() {
				t.Fatalf("%v, stalled at %v", err, stalledAt)
			}
		}
		began := time.Now()
		write(t, w, masked(finBit|opText, "m"))
		_ = w.flush()
		if got := stalledAt.Sub(began); got != w.timeout {
			t.Errorf("stalled after %v", got)
		}
		w.stopWatch()
	})
}

// TestPingFlood: pongs are written while a message is, and none of it mixes.
func TestPingFlood(t *testing.T) {
	n := &network{room: -1}
	s := wiredSession(t, setting{limit: 1}, n)
	var wait sync.WaitGroup
	wait.Go(func() {
		for range 500 {
			s.wire.ping()
		}
	})
	payload := bytes.Repeat([]byte("m"), 10_000)
	for range 200 {
		if err := s.conn.Write(context.Background(), MessageBinary, payload); err != nil {
			t.Error(err)
		}
		if err := s.wire.flush(); err != nil {
			t.Error(err)
		}
	}
	wait.Wait()
	s.finish(errEnd)
	taken, _ := n.got()
	pings, messages := 0, 0
	for _, f := range sentFrames(t, append(taken, s.wire.pending()...)) {
		switch {
		case f == sentFrame{finBit | opPing, ""}:
			pings++
		case f == sentFrame{finBit | opBinary, string(payload)}:
			messages++
		}
	}
	if pings == 0 || messages != 200 { // pings during one frame are one
		t.Errorf("%d pings, %d messages", pings, messages)
	}
}

// What a broken network still holds is read, although no ping in it can be
// answered.
func TestPongForABrokenNetwork(t *testing.T) {
	src := &script{in: join(frame(finBit|opPing, "ping"), frame(finBit|opText, "last words")), end: io.EOF}
	s := wiredSession(t, setting{limit: 100}, src)
	collected := collect(t, s)
	s.wire.wireWriter.err = io.ErrClosedPipe
	e := s.finish(s.read())
	if got := collected(); len(got) != 1 || got[0].data != "last words" {
		t.Errorf("read %v", got)
	}
	if e.phase != PhaseRead {
		t.Errorf("ended by %v: %v", e.phase, e.err)
	}
	if written := src.written(); len(written) != 0 {
		t.Errorf("written: % x", written)
	}
}

// TestWriteSizes: whatever way and size a message has, its place in the stream is
// where it is.
func TestWriteSizes(t *testing.T) {
	for _, extension := range []string{"", deflateExtension} {
		for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 100_000} {
			s := wiredSession(t, setting{limit: 1, extension: extension}, &script{})
			payload := strings.Repeat("p", size)
			for range 2 {
				before := uint64(len(s.wire.pending()))
				m := outbound{typ: MessageBinary, data: []byte(payload)}
				err := s.write(&m)
				if after := uint64(len(s.wire.pending())); m.start != before || m.end != after || err != nil {
					t.Errorf("%q, %d bytes: from %d to %d, %v; want %d to %d", extension, size, m.start, m.end, err, before, after)
				}
			}
			if frames := sentFrames(t, s.wire.pending()); extension == "" && !slices.Equal(frames, slices.Repeat([]sentFrame{{finBit | opBinary, payload}}, 2)) {
				t.Errorf("%d bytes: sent %v", size, frames)
			}
		}
	}
}

// TestChunkIsNoHeader: the rest of a message may look like a pong, and is not
// dropped as one.
func TestChunkIsNoHeader(t *testing.T) {
	n := &network{room: -1}
	w := bareWriter(n)
	w.spawn = func(func()) {} // nobody flushes
	pong := masked(finBit|opPong, strings.Repeat("x", 125))
	for range 2 * maxFlush / len(pong) {
		write(t, w, pong)
	}
	pongs := len(w.buf)
	message := masked(finBit|opBinary, strings.Repeat("m", 100)+string(pong))
	write(t, w, message[:len(message)-len(pong)])
	copy(message[len(message)-len(pong):], pong)
	write(t, w, message[len(message)-len(pong):])
	if !bytes.Equal(w.buf[pongs:], message) {
		t.Errorf("of %d bytes, %d will be sent", len(message), len(w.buf)-pongs)
	}
}

// TestWrittenBytesWaits: what is being flushed is neither written nor not.
func TestWrittenBytesWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		w := bareWriter(n)
		message := masked(finBit|opBinary, "message")
		write(t, w, message)
		go w.flush()
		synctest.Wait()
		written := make(chan uint64, 1)
		go func() { written <- w.writtenBytes() }()
		synctest.Wait()
		if len(written) != 0 {
			t.Errorf("told %d while the network decides", <-written)
		}
		n.gate <- struct{}{}
		if got := <-written; got != uint64(len(message)) {
			t.Errorf("%d bytes written of %d", got, len(message))
		}
		w.stopWatch()
	})
}

// TestOneGoroutineFlushesControlFrames, however many there are: none is started
// while somebody does it.
func TestOneGoroutineFlushesControlFrames(t *testing.T) {
	for name, first := range map[string]func(*wireWriter){
		"ping":     (*wireWriter).ping,
		"pingWait": func(w *wireWriter) { go w.pingWait() },
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{room: -1, gate: make(chan struct{})}
			w := bareWriter(n)
			started := 0
			w.spawn = func(f func()) { started++; go f() }
			first(w)
			synctest.Wait()
			before := started
			for range 100 {
				w.ping()
				write(t, w, masked(finBit|opPong, "pong"))
			}
			if started != before {
				t.Errorf("%s: %d goroutines more", name, started-before)
			}
			close(n.gate)
			synctest.Wait()
			if taken, _ := n.got(); len(sentFrames(t, taken)) != 201 {
				t.Errorf("%s: sent %d frames", name, len(sentFrames(t, taken)))
			}
			w.stopWatch()
		})
	}
}

// TestDuePingIsSentOnce, and masked by a key of its own.
func TestDuePingIsSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1}
		w := bareWriter(n)
		message := masked(finBit|opBinary, "message")
		write(t, w, message[:10])
		w.ping()
		write(t, w, message[10:])
		write(t, w, message)
		synctest.Wait()
		if err := w.flush(); err != nil {
			t.Error(err)
		}
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opBinary, "message"}, sentFrame{finBit | opPing, ""}, sentFrame{finBit | opBinary, "message"})
		keys := map[string]bool{}
		for range 10 {
			w.ping()
			synctest.Wait()
			taken, _ = n.got()
			keys[string(taken[len(taken)-4:])] = true
		}
		if len(keys) < 9 {
			t.Errorf("%d keys of 10 pings", len(keys))
		}
		w.stopWatch()
	})
}

// TestOneCloseFrame is all that is sent, whoever sends it first, and none when
// the network is gone.
func TestOneCloseFrame(t *testing.T) {
	first := closePayload(1000, "first")
	for name, send := range map[string]func(w *wireWriter){
		"coder/websocket": func(w *wireWriter) { write(t, w, masked(finBit|opClose, first)) },
		"sendClose":       func(w *wireWriter) { w.sendClose(1000, "first") },
	} {
		n := &network{room: -1}
		w := bareWriter(n)
		send(w)
		w.sendClose(1001, "second")
		w.ping()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opClose, first})
		if code, sent := w.closed(); code != 1000 || !sent {
			t.Errorf("%s: closed by %d, sent: %v", name, code, sent)
		}
		w.stopWatch()
	}
	n := &network{}
	w := bareWriter(n)
	write(t, w, masked(finBit|opBinary, "message"))
	if err := w.flush(); err != errNetwork {
		t.Errorf("flush: %v", err)
	}
	w.sendClose(1001, "")
	if code, sent := w.closed(); code != 0 || sent {
		t.Errorf("closed by %d, sent: %v", code, sent)
	}
	w.stopWatch()
}
