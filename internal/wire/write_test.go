package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// idle is an owner whose goroutines never run.
type idle struct{ *owner }

func (o idle) Go(func()) { o.spawned.Add(1) }

// ping is the payload of our ping of a number.
func ping(number uint32) string { return string(binary.BigEndian.AppendUint32(nil, number)) }

func put(t testing.TB, c *Conn, typ Type, data string) {
	t.Helper()
	if err := c.Write(&Outgoing{Type: typ, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, c *Conn) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
}

// TestWriteCoalesces counts the writes to the network.
func TestWriteCoalesces(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages int
		size     int
		writes   int
	}{
		{"a lone message", 1, 100, 1},
		{"a lone message of 50 kB", 1, 50_000, 1},
		{"a burst", 500, 100, 1},
		{"just what one write takes", 1, MaxFlush - maxHeader + 6, 1},
		{"just more than one write takes", 1, MaxFlush - maxHeader + 7, 2},
		{"much more than one write takes", 1, 3 * MaxFlush, 4},
	} {
		n := &network{room: -1}
		c, _ := start(t, setting{}, n)
		payload := strings.Repeat("p", test.size)
		for range test.messages {
			put(t, c, Binary, payload)
		}
		if _, writes := n.got(); writes != 0 {
			t.Errorf("%s: %d writes before the flush", test.name, writes)
		}
		flush(t, c)
		taken, writes := n.got()
		if writes != test.writes || n.most > MaxFlush {
			t.Errorf("%s: %d writes of at most %d bytes", test.name, writes, n.most)
		}
		checkSent(t, taken, slices.Repeat([]sentFrame{{finBit | opBinary, payload}}, test.messages)...)
		if got := c.config.Counters.BytesOut.Load(); got != uint64(len(taken)) || c.Taken() != got {
			t.Errorf("%s: counted %d bytes of %d", test.name, got, len(taken))
		}
		flush(t, c)
		if _, again := n.got(); again != writes {
			t.Errorf("%s: an empty flush writes", test.name)
		}
		c.Release()
	}
}

// TestWriteFrames: each message is one frame of its type, and its place in the
// stream is where it is.
func TestWriteFrames(t *testing.T) {
	for _, extension := range []string{"", extension} {
		for _, size := range []int{0, 1, 125, 126, 127, 65535, 65536, 100_000} {
			c, _ := start(t, setting{extension: extension}, &script{})
			for i := range 2 {
				m := Outgoing{Type: Binary, Data: bytes.Repeat([]byte("p"), size)}
				before := uint64(len(pending(c)))
				if err := c.Write(&m); err != nil {
					t.Error(err)
				}
				if after := uint64(len(pending(c))); m.start != before || m.end != after || after == before {
					t.Errorf("%q, %d bytes: message %d is from %d to %d, want %d to %d", extension, size, i, m.start, m.end, before, after)
				}
			}
			want := sentFrame{finBit | opBinary, strings.Repeat("p", size)}
			if extension == "" {
				checkSent(t, pending(c), want, want)
			}
			c.Release()
		}
	}
}

// TestWriteCompressed: what is worth it is compressed, and only that.
func TestWriteCompressed(t *testing.T) {
	random := make([]byte, 1000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	same := strings.Repeat("s", 1000)
	for _, test := range []struct {
		name      string
		extension string
		data      string
		want      bool
	}{
		{"not negotiated", "", same, false},
		{"text", extension, same, true},
		{"just large enough", extension, same[:100], true},
		{"too small", extension, same[:99], false},
		{"random data", extension, string(random), false},
		{"no gain", extension, noGain(t), false},
	} {
		for _, all := range []bool{false, true} {
			c, _ := start(t, setting{extension: test.extension}, &script{})
			if c.config.CompressFrom = 100; test.name == "no gain" {
				c.config.CompressFrom = 0
			}
			m := Outgoing{Type: Text, Data: []byte(test.data)}
			if all {
				_ = c.WriteAll(1, func(int) *Outgoing { return &m })
			} else {
				_ = c.Write(&m)
			}
			f := sentFrames(t, pending(c))[0]
			if compressed := f.first == finBit|rsv1Bit|opText; compressed != test.want || !compressed && f.first != finBit|opText {
				t.Errorf("%s: sent %v", test.name, f)
			} else if compressed {
				f.payload = inflated(t, f.payload)
			}
			if f.payload != test.data {
				t.Errorf("%s: sent %v", test.name, f)
			}
			c.Release()
		}
	}
}

// noGain returns data that is as large when it is compressed.
func noGain(t *testing.T) string {
	z := compressors.Get().(*compressor)
	defer z.recycle()
	for n := range 100 {
		for same := range n + 1 {
			data := make([]byte, n)
			for i := same; i < n; i++ {
				data[i] = byte(37 * i)
			}
			if len(z.compress(data)) == n {
				return string(data)
			}
		}
	}
	t.Fatal("no data found")
	return ""
}

// TestWriteAll is Write for many, in order.
func TestWriteAll(t *testing.T) {
	for _, extension := range []string{"", extension} {
		c, _ := start(t, setting{extension: extension}, &script{})
		c.config.CompressFrom = 1000
		messages := make([]Outgoing, 5)
		var want []sentFrame
		for i := range messages {
			messages[i] = Outgoing{Type: Text + Type(i%2), Data: []byte(strings.Repeat("m", i))}
			want = append(want, sentFrame{finBit | byte(messages[i].Type), string(messages[i].Data)})
		}
		if err := c.WriteAll(len(messages), func(i int) *Outgoing { return &messages[i] }); err != nil {
			t.Error(err)
		}
		checkSent(t, pending(c), want...)
		at := uint64(0)
		for i, m := range messages {
			if m.start != at || m.end != at+uint64(FrameSize(i)) {
				t.Errorf("%q: message %d is from %d to %d", extension, i, m.start, m.end)
			}
			at = m.end
		}
		c.SendClose(1000, "")
		if err := c.WriteAll(0, nil); err != nil {
			t.Errorf("none: %v", err)
		}
		if err := c.WriteAll(1, func(i int) *Outgoing { return &messages[i] }); err != ErrClosing {
			t.Errorf("one after the close frame: %v", err)
		}
		c.Release()
	}
}

// TestPlaces lets the network fail at every byte of three messages. What their
// places in the stream say must agree with what it took.
func TestPlaces(t *testing.T) {
	payloads := []string{"first", strings.Repeat("second", 50), ""}
	const total = 5 + 6 + 300 + 8 + 6
	for _, all := range []bool{false, true} {
		for room := range total {
			n := &network{room: room}
			c, _ := start(t, setting{}, n)
			messages := make([]Outgoing, len(payloads))
			for i, payload := range payloads {
				messages[i] = Outgoing{Type: Text, Data: []byte(payload)}
				if !all {
					if err := c.Write(&messages[i]); err != nil {
						t.Fatal(err)
					}
				}
			}
			if all {
				if err := c.WriteAll(len(messages), func(i int) *Outgoing { return &messages[i] }); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.Flush(); err != errNetwork {
				t.Fatalf("room for %d: %v", room, err)
			}
			checkPlaces(t, c, room, messages, payloads)
			checkRefused(t, c, errNetwork)
			if err := c.Flush(); err != errNetwork {
				t.Errorf("a second flush: %v", err)
			}
			c.Release()
		}
	}
}

func checkPlaces(t *testing.T, c *Conn, room int, messages []Outgoing, payloads []string) {
	t.Helper()
	taken := c.Taken()
	if taken != uint64(room) || c.config.Counters.BytesOut.Load() != taken {
		t.Errorf("room for %d: the network took %d, counted %d", room, taken, c.config.Counters.BytesOut.Load())
	}
	at := 0
	for i, m := range messages {
		end := at + FrameSize(len(payloads[i]))
		if m.Untouched(taken) != (room <= at) || m.Taken(taken) != (room >= end) {
			t.Errorf("room for %d: message %d, from %d to %d, is untouched: %v, taken: %v",
				room, i, at, end, m.Untouched(taken), m.Taken(taken))
		}
		at = end
	}
}

// checkRefused checks that a message has no place any more.
func checkRefused(t *testing.T, c *Conn, want error) {
	t.Helper()
	pendingBefore := len(pending(c))
	messages := []Outgoing{{Type: Text, Data: []byte("refused")}, {Type: Binary}}
	if err := c.Write(&messages[0]); err != want {
		t.Errorf("a message: %v, want %v", err, want)
	}
	if err := c.WriteAll(2, func(i int) *Outgoing { return &messages[i] }); err != want {
		t.Errorf("two messages: %v, want %v", err, want)
	}
	for _, m := range messages {
		if m.start != m.end || !m.Untouched(c.Taken()) || !m.Untouched(1<<40) {
			t.Errorf("a message that was refused is from %d to %d", m.start, m.end)
		}
	}
	if got := len(pending(c)); got != pendingBefore {
		t.Errorf("%d bytes were written", got-pendingBefore)
	}
}

// TestFlushReportsOnlyWhatIsLost: when the network took all, and fails then, nobody
// is told before it matters.
func TestFlushReportsOnlyWhatIsLost(t *testing.T) {
	n := &network{room: FrameSize(1)}
	c, _ := start(t, setting{}, n)
	put(t, c, Text, "m")
	flush(t, c)
	put(t, c, Text, "m")
	if broken(c) {
		t.Error("broken too soon")
	}
	if err := c.Flush(); err != errNetwork || !broken(c) {
		t.Errorf("flush: %v, broken: %v", err, broken(c))
	}
	c.Release()
}

// TestErrorWithAllBytes: a write that fails although it took everything loses
// nothing, but is the last.
func TestErrorWithAllBytes(t *testing.T) {
	c, _ := start(t, setting{}, transportFunc(func(p []byte) (int, error) { return len(p), errNetwork }))
	put(t, c, Text, "m")
	flush(t, c)
	if !broken(c) || c.Taken() != uint64(FrameSize(1)) {
		t.Errorf("broken: %v, taken: %d", broken(c), c.Taken())
	}
	checkRefused(t, c, errNetwork)
	c.Release()
}

// TestShortWrites: what a write leaves is written by the next one.
func TestShortWrites(t *testing.T) {
	var taken []byte
	c, _ := start(t, setting{}, transportFunc(func(p []byte) (int, error) {
		n := min(len(p), 7)
		taken = append(taken, p[:n]...)
		return n, nil
	}))
	put(t, c, Text, "not so short a message")
	flush(t, c)
	checkSent(t, taken, sentFrame{finBit | opText, "not so short a message"})
	c.Release()
}

// TestFlushOfOthers: a flush returns when its bytes are taken, whoever wrote them.
func TestFlushOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, _ := start(t, setting{}, n)
		var wait sync.WaitGroup
		for range 8 {
			put(t, c, Text, "m")
			wait.Go(func() {
				if err := c.Flush(); err != nil {
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
		c.Release()
	})
}

// TestFlushIsOverWhenItsBytesAreTaken, though others keep the network busy.
func TestFlushIsOverWhenItsBytesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, _ := start(t, setting{}, n)
		put(t, c, Text, "1")
		first := make(chan error, 1)
		go func() { first <- c.Flush() }()
		synctest.Wait()
		put(t, c, Text, "2")
		second := make(chan error, 1)
		go func() { second <- c.Flush() }()
		synctest.Wait()
		n.gate <- struct{}{}
		synctest.Wait()
		if len(first) != 1 || len(second) != 0 {
			t.Errorf("flushed: the first: %v, the second: %v", len(first) == 1, len(second) == 1)
		}
		n.gate <- struct{}{}
		synctest.Wait()
		if len(second) != 1 {
			t.Error("the second flush waits on")
		}
		c.Release()
	})
}

// TestTakenWaits: what is being flushed is neither taken nor not.
func TestTakenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, o := start(t, setting{}, n)
		put(t, c, Binary, "message")
		o.running.Go(func() { _ = c.Flush() })
		synctest.Wait()
		taken := make(chan uint64, 1)
		go func() { taken <- c.Taken() }()
		synctest.Wait()
		if len(taken) != 0 {
			t.Errorf("told %d while the network decides", <-taken)
		}
		n.gate <- struct{}{}
		if got := <-taken; got != uint64(FrameSize(len("message"))) {
			t.Errorf("%d bytes taken", got)
		}
		finish(c, o)
	})
}

func TestWriteTimeout(t *testing.T) {
	const timeout = writeTimeout
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
			c, o := start(t, setting{}, n)
			var stalledAt time.Time
			o.stalled = func() { stalledAt = time.Now() }
			var last time.Time
			for _, d := range test.takes {
				put(t, c, Text, "m")
				last = time.Now()
				time.AfterFunc(d, func() { n.gate <- struct{}{} })
				flush(t, c)
				time.Sleep(time.Hour)
				synctest.Wait()
			}
			switch {
			case test.want == 0 && !stalledAt.IsZero():
				t.Errorf("%s: stalled", test.name)
			case test.want != 0 && (stalledAt.Sub(last) != test.want || o.stalls.Load() != 1):
				t.Errorf("%s: stalled %d times, after %v", test.name, o.stalls.Load(), stalledAt.Sub(last))
			}
			c.Release()
		})
	}
}

// TestWriteTimeoutOfABusyWriter: writes without a pause, each in time; then one
// that hangs.
func TestWriteTimeoutOfABusyWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, o := start(t, setting{}, n)
		var stalledAt time.Time
		o.stalled = func() { stalledAt = time.Now(); close(n.gate) }
		for range 100 {
			put(t, c, Text, "m")
			time.AfterFunc(700*time.Millisecond, func() { n.gate <- struct{}{} })
			if err := c.Flush(); err != nil || !stalledAt.IsZero() {
				t.Fatalf("%v, stalled at %v", err, stalledAt)
			}
		}
		began := time.Now()
		put(t, c, Text, "m")
		flush(t, c)
		if got := stalledAt.Sub(began); got != writeTimeout {
			t.Errorf("stalled after %v", got)
		}
		c.Release()
	})
}

// TestWriteTimeoutOfEachPiece: a large message may take longer than the timeout,
// when each write of it is in time.
func TestWriteTimeoutOfEachPiece(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		l.takes = writeTimeout - time.Second
		c, o := start(t, setting{}, l)
		began := time.Now()
		put(t, c, Binary, strings.Repeat("m", 5*MaxFlush))
		flush(t, c)
		if took := time.Since(began); took != 6*l.takes || o.stalls.Load() != 0 {
			t.Errorf("took %v, stalled %d times", took, o.stalls.Load())
		}
		c.Release()
	})
}

// TestWriteTimeoutIsLazy: its timer fires at most once per timeout, and not at all
// when the connection is idle, or released.
func TestWriteTimeoutIsLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{}, l)
		armed := func(what string, want bool) {
			t.Helper()
			if got := c.out.watching.Load(); got != want {
				t.Errorf("%s: the timer is armed: %v", what, got)
			}
		}
		armed("new", false)
		put(t, c, Text, "m")
		flush(t, c)
		armed("after a write", true)
		time.Sleep(writeTimeout - 1)
		synctest.Wait()
		armed("just before the timeout", true)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		armed("idle", false)
		put(t, c, Text, "m")
		flush(t, c)
		armed("after another write", true)
		c.Release()
		if c.out.watch.Stop() {
			t.Error("after the release, the timer runs")
		}
		if o.stalls.Load() != 0 {
			t.Error("stalled")
		}
	})
}

// TestPingFlood: pings are written while messages are, and nothing of it mixes.
func TestPingFlood(t *testing.T) {
	n := &network{room: -1}
	c, o := start(t, setting{}, n)
	var wait sync.WaitGroup
	wait.Go(func() {
		for range 500 {
			c.Ping()
			c.pong([]byte("pong"))
		}
	})
	payload := bytes.Repeat([]byte("m"), 10_000)
	for range 200 {
		put(t, c, Binary, string(payload))
		flush(t, c)
	}
	wait.Wait()
	o.join()
	taken, _ := n.got()
	pings, pongs, messages := uint32(0), 0, 0
	for _, f := range sentFrames(t, append(taken, pending(c)...)) {
		switch f {
		case sentFrame{finBit | opPing, ping(pings + 1)}:
			pings++
		case sentFrame{finBit | opPong, "pong"}:
			pongs++
		case sentFrame{finBit | opBinary, string(payload)}:
			messages++
		default:
			t.Errorf("sent %v", f)
		}
	}
	if pings != 500 || pongs != 500 || messages != 200 {
		t.Errorf("%d pings, %d pongs, %d messages", pings, pongs, messages)
	}
	c.Release()
}

// TestControlFramesAreFlushed without anybody asking for it, and without waiting.
func TestControlFramesAreFlushed(t *testing.T) {
	for name, test := range map[string]struct {
		send func(c *Conn)
		want sentFrame
	}{
		"ping":     {(*Conn).Ping, sentFrame{finBit | opPing, ping(1)}},
		"pingWait": {func(c *Conn) { go c.PingWait() }, sentFrame{finBit | opPing, ping(1)}},
		"pong":     {func(c *Conn) { c.pong([]byte("p")) }, sentFrame{finBit | opPong, "p"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{room: -1, gate: make(chan struct{})}
			c, o := start(t, setting{}, n)
			test.send(c)
			test.send(c)
			close(n.gate)
			synctest.Wait()
			taken, _ := n.got()
			frames := sentFrames(t, taken)
			if len(frames) != 2 || frames[0] != test.want {
				t.Errorf("%s: sent %v", name, frames)
			}
			finish(c, o)
		})
	}
}

// TestPingWaitWaits for the network, unless somebody else does it already.
func TestPingWaitWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		l.takes = time.Second
		c, o := start(t, setting{}, l)
		took := func() time.Duration {
			began := time.Now()
			c.PingWait()
			return time.Since(began)
		}
		if got := took(); got != time.Second || o.spawned.Load() != 0 {
			t.Errorf("took %v, with %d goroutines more", got, o.spawned.Load())
		}
		c.Ping()
		synctest.Wait()
		if got := took(); got != 0 || o.spawned.Load() != 1 {
			t.Errorf("while a ping is sent: took %v, with %d goroutines", got, o.spawned.Load())
		}
		time.Sleep(time.Hour)
		checkSent(t, l.written(), sentFrame{finBit | opPing, ping(1)}, sentFrame{finBit | opPing, ping(2)}, sentFrame{finBit | opPing, ping(3)})
		if got := took(); got != time.Second || o.spawned.Load() != 1 {
			t.Errorf("when all is sent: took %v, with %d goroutines", got, o.spawned.Load())
		}
		finish(c, o)
	})
}

// TestEveryPongIsFlushed: a pong that comes while another is being flushed must
// not wait for the next message.
func TestEveryPongIsFlushed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, o := start(t, setting{}, n)
		c.pong([]byte("one"))
		synctest.Wait() // the first is under way
		c.pong([]byte("two"))
		c.Ping()
		n.gate <- struct{}{}
		synctest.Wait()
		select {
		case n.gate <- struct{}{}:
		default:
			t.Error("nobody flushes the second pong")
		}
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opPong, "one"}, sentFrame{finBit | opPong, "two"}, sentFrame{finBit | opPing, ping(1)})
		finish(c, o)
	})
}

// TestMessagesAreNotFlushedForOthers: a control frame that comes while a message
// waits takes it along, but what comes behind it waits for its own flush.
func TestMessagesAreNotFlushedForOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, o := start(t, setting{}, n)
		put(t, c, Text, "before")
		c.Ping()
		synctest.Wait()
		put(t, c, Text, "behind")
		close(n.gate)
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opText, "before"}, sentFrame{finBit | opPing, ping(1)})
		checkSent(t, pending(c), sentFrame{finBit | opText, "behind"})
		finish(c, o)
	})
}

// TestPongsAreDropped: a server that pings and does not read gets no pongs past
// the backlog, but nothing else is lost.
func TestPongsAreDropped(t *testing.T) {
	const payload = 64 - 6 // MaxFlush is a multiple of its frame
	n := &network{room: -1}
	c, o := start(t, setting{}, n)
	c.owner = idle{o} // nobody flushes
	pong := []byte(strings.Repeat("p", payload))
	for range 3 * MaxFlush / 64 {
		c.pong(pong)
	}
	const want = MaxFlush/64 + 1
	if got := len(pending(c)); got != want*64 {
		t.Errorf("%d bytes wait", got)
	}
	put(t, c, Text, "kept")
	flush(t, c)
	c.pong(pong) // there is room again
	taken, _ := n.got()
	frames := sentFrames(t, append(taken, pending(c)...))
	if len(frames) != want+2 || frames[want].payload != "kept" || frames[want+1].first != finBit|opPong {
		t.Errorf("sent %d frames", len(frames))
	}
	c.Release()
}

// TestPongBehindALargeMessage: what waits to go out of our own is no reason to
// drop a pong.
func TestPongBehindALargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1}
		c, o := start(t, setting{}, n)
		large := strings.Repeat("m", 2*MaxFlush)
		put(t, c, Binary, large)
		c.pong([]byte("still here"))
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opBinary, large}, sentFrame{finBit | opPong, "still here"})
		finish(c, o)
	})
}

// TestPongForABrokenNetwork: what a broken network still holds is read, although
// no ping in it can be answered.
func TestPongForABrokenNetwork(t *testing.T) {
	src := &script{in: join(frame(finBit|opPing, "ping"), frame(finBit|opText, "last words")), end: io.EOF}
	c, o := start(t, setting{limit: 100}, src)
	c.out.err = io.ErrClosedPipe
	messages, err := readAll(t, c)
	if got := messages(); len(got) != 1 || got[0].data != "last words" {
		t.Errorf("read %v", got)
	}
	if endOf(err) != endLost {
		t.Errorf("ended by %v", err)
	}
	finish(c, o)
	if written := append(src.written(), pending(c)...); len(written) != 0 || o.spawned.Load() != 0 {
		t.Errorf("written: % x", written)
	}
}

// TestOneGoroutineFlushesControlFrames, however many there are: none is started
// while somebody does it.
func TestOneGoroutineFlushesControlFrames(t *testing.T) {
	for name, first := range map[string]func(*Conn){
		"ping":     (*Conn).Ping,
		"pong":     func(c *Conn) { c.pong([]byte("pong")) },
		"pingWait": func(c *Conn) { go c.PingWait() },
	} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{room: -1, gate: make(chan struct{})}
			c, o := start(t, setting{}, n)
			first(c)
			synctest.Wait()
			before := o.spawned.Load()
			for range 100 {
				c.Ping()
				c.pong([]byte("pong"))
			}
			if more := o.spawned.Load() - before; more != 0 {
				t.Errorf("%s: %d goroutines more", name, more)
			}
			close(n.gate)
			synctest.Wait()
			if taken, _ := n.got(); len(sentFrames(t, taken)) != 201 {
				t.Errorf("%s: sent %d frames", name, len(sentFrames(t, taken)))
			}
			// Later, there is a new one.
			c.Ping()
			synctest.Wait()
			if taken, _ := n.got(); len(sentFrames(t, taken)) != 202 || o.spawned.Load() != before+1 {
				t.Errorf("%s: a later ping is not sent", name)
			}
			finish(c, o)
		})
	}
}

// TestRoundTrips: a pong counts for the ping that it answers, once, if that is
// among the last four.
func TestRoundTrips(t *testing.T) {
	const unchanged = -7
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 100}, l)
		o.running.Go(func() { _ = drain(c) })
		roundTrip := &c.config.Counters.RoundTrip
		answer := func(payload string, want time.Duration) {
			t.Helper()
			roundTrip.Store(unchanged)
			l.server <- frame(finBit|opPong, payload)
			synctest.Wait()
			if got := time.Duration(roundTrip.Load()); got != want {
				t.Errorf("at %v, pong %q: %v, want %v", c.Now(), payload, got, want)
			}
		}
		for _, nobodys := range []string{"", "pong", ping(0), ping(1), ping(1<<32 - 1)} {
			answer(nobodys, unchanged)
		}
		for range 5 { // after 1 to 5 seconds
			time.Sleep(time.Second)
			c.Ping()
		}
		synctest.Wait()
		var want []sentFrame
		for i := range uint32(5) {
			want = append(want, sentFrame{finBit | opPing, ping(i + 1)})
		}
		checkSent(t, l.written(), want...)

		time.Sleep(time.Second)
		answer(ping(1), unchanged) // too late
		answer(ping(0), unchanged)
		answer(ping(6), unchanged) // not sent yet
		answer(ping(7), unchanged)
		answer(ping(8), unchanged)
		answer(ping(9), unchanged)
		answer(ping(1<<31+2), unchanged)
		answer("", unchanged)
		answer(ping(3)[:3], unchanged)
		answer(ping(3)+"\x00", unchanged)
		answer("\x00"+ping(3), unchanged)
		answer(ping(2), 4*time.Second)
		answer(ping(2), unchanged) // a duplicate
		time.Sleep(time.Second)
		answer(ping(5), 2*time.Second)
		answer(ping(5), unchanged)
		answer(ping(3), 4*time.Second)
		answer(ping(4), 3*time.Second)
		answer(ping(4), unchanged)

		c.Ping()
		time.Sleep(time.Minute)
		answer(ping(2), unchanged) // its place is that of number 6 now
		answer(ping(6), time.Minute)

		if len(o.pongs) != 25 {
			t.Errorf("the owner saw %d pongs", len(o.pongs))
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestRoundTripsWithinMessages: a pong counts where it comes between fragments, too.
func TestRoundTripsWithinMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(frame(opText, "half"))
		c, o := start(t, setting{limit: 100}, l)
		time.Sleep(time.Second)
		c.Ping()
		o.running.Go(func() { _ = drain(c) })
		time.Sleep(time.Second)
		l.server <- frame(finBit|opPong, ping(1))
		synctest.Wait()
		if got := time.Duration(c.config.Counters.RoundTrip.Load()); got != time.Second {
			t.Errorf("round trip %v", got)
		}
		c.Kill()
		o.join()
		c.Release()
	})
}

// TestFirstPing: one that is sent when the clock begins has a round trip, too.
func TestFirstPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 100}, l)
		c.Ping()
		time.Sleep(time.Second)
		l.server <- frame(finBit|opPong, ping(1))
		close(l.server)
		_ = drain(c)
		if got := time.Duration(c.config.Counters.RoundTrip.Load()); got.Round(time.Microsecond) != time.Second {
			t.Errorf("round trip %v", got)
		}
		finish(c, o)
	})
}

// TestAnswered: a pong tells how far the server has come, and nothing takes that back.
func TestAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 100}, l)
		o.running.Go(func() { _ = drain(c) })
		var ends []uint64
		for range 6 {
			m := Outgoing{Type: Text, Data: []byte("x")}
			if err := c.Write(&m); err != nil {
				t.Fatal(err)
			}
			ends = append(ends, m.End())
			c.Ping()
		}
		if c.Answered() != 0 {
			t.Errorf("%d is answered before any pong", c.Answered())
		}
		for _, pong := range []struct {
			payload string
			want    uint64
		}{
			{"", 0}, {ping(7), 0}, {ping(2), 0}, // never sent; too old
			{ping(4), ends[3]}, {ping(4), ends[3]}, {ping(3), ends[3]}, {ping(6), ends[5]}, {ping(5), ends[5]},
		} {
			l.server <- frame(finBit|opPong, pong.payload)
			synctest.Wait()
			if got := c.Answered(); got != pong.want {
				t.Errorf("after pong %x: %d is answered, want %d", pong.payload, got, pong.want)
			}
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestPingNumbersWrap around, and the round trips stay right.
func TestPingNumbersWrap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 100}, l)
		c.out.pings.number = 1<<32 - 3
		for range 4 {
			time.Sleep(time.Second)
			c.Ping()
		}
		o.running.Go(func() { _ = drain(c) })
		for number, want := range map[uint32]time.Duration{1<<32 - 2: 3 * time.Second, 1<<32 - 1: 2 * time.Second, 0: time.Second, 1: 0} {
			l.server <- frame(finBit|opPong, ping(number))
			synctest.Wait()
			if got := time.Duration(c.config.Counters.RoundTrip.Load()); got != want {
				t.Errorf("number %d: %v", number, got)
			}
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestNothingAfterTheCloseFrame is sent, by anybody.
func TestNothingAfterTheCloseFrame(t *testing.T) {
	for _, flushed := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			n := &network{room: -1, gate: make(chan struct{})}
			c, o := start(t, setting{limit: 100}, n)
			put(t, c, Text, "before")
			o.running.Go(func() { c.SendClose(1000, "first") })
			synctest.Wait()
			if flushed {
				close(n.gate)
				synctest.Wait()
			}
			if c.CloseSent() != flushed {
				t.Errorf("the close frame is sent: %v", !flushed)
			}
			checkRefusedWith := func() {
				messages := []Outgoing{{Type: Text, Data: []byte("refused")}, {Type: Binary}}
				if err := c.Write(&messages[0]); err != ErrClosing {
					t.Errorf("a message: %v", err)
				}
				if err := c.WriteAll(2, func(i int) *Outgoing { return &messages[i] }); err != ErrClosing {
					t.Errorf("two messages: %v", err)
				}
				for _, m := range messages {
					if m.start != m.end || !m.Untouched(0) || !m.Untouched(1<<40) {
						t.Errorf("a message that was refused is from %d to %d", m.start, m.end)
					}
				}
			}
			checkRefusedWith()
			c.Ping()
			c.PingWait()
			c.pong([]byte("pong"))
			if broken(c) || o.spawned.Load() != 0 || len(pending(c)) > 0 {
				t.Errorf("broken: %v, %d goroutines, %d bytes wait", broken(c), o.spawned.Load(), len(pending(c)))
			}
			if !flushed {
				close(n.gate)
			}
			c.SendClose(1001, "second")
			flush(t, c)
			if taken, _ := n.got(); !c.CloseSent() {
				t.Error("the close frame is not sent")
			} else {
				checkSent(t, taken, sentFrame{finBit | opText, "before"}, sentFrame{finBit | opClose, closePayload(1000, "first")})
			}
			finish(c, o)
		})
	}
}

// TestSendClose: what the close frame holds.
func TestSendClose(t *testing.T) {
	long := strings.Repeat("r", 200)
	for _, test := range []struct {
		code   int
		reason string
		want   string
	}{
		{codeNone, "", ""},
		{1001, "", closePayload(1001, "")},
		{4999, long, closePayload(4999, long[:maxReason])},
	} {
		n := &network{room: -1}
		c, _ := start(t, setting{}, n)
		if c.CloseSent() {
			t.Error("sent before it is")
		}
		put(t, c, Text, "before")
		c.SendClose(test.code, test.reason)
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opText, "before"}, sentFrame{finBit | opClose, test.want})
		if !c.CloseSent() {
			t.Errorf("%d: not sent", test.code)
		}
		c.Release()
	}
}

// TestCloseFrameOfABrokenNetwork is not sent, and not said to be.
func TestCloseFrameOfABrokenNetwork(t *testing.T) {
	n := &network{}
	c, _ := start(t, setting{}, n)
	c.SendClose(1000, "")
	if c.CloseSent() || !broken(c) {
		t.Errorf("sent: %v, broken: %v", c.CloseSent(), broken(c))
	}
	checkRefused(t, c, errNetwork) // and not for the close frame
	c.Release()

	n = &network{room: FrameSize(2) - 1} // all but the last byte
	c, _ = start(t, setting{}, n)
	c.SendClose(1000, "")
	if c.CloseSent() {
		t.Error("sent without its last byte")
	}
	c.Release()

	c, _ = start(t, setting{}, &network{})
	put(t, c, Binary, "message")
	if err := c.Flush(); err != errNetwork {
		t.Errorf("flush: %v", err)
	}
	c.SendClose(1001, "")
	c.Ping()
	c.PingWait()
	if c.CloseSent() || len(pending(c)) > 0 {
		t.Errorf("sent: %v, %d bytes wait", c.CloseSent(), len(pending(c)))
	}
	c.Release()
}

// TestPingsThatFail: a broken network ends whoever flushes control frames.
func TestPingsThatFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := start(t, setting{}, &network{})
		c.Ping()
		synctest.Wait()
		if !broken(c) || c.out.relief {
			t.Errorf("broken: %v, somebody flushes: %v", broken(c), c.out.relief)
		}
		finish(c, o)
	})
}

// TestWriteMemory: what is written is collected in memory that is given back when
// the network has it.
func TestWriteMemory(t *testing.T) {
	c, _ := start(t, setting{extension: extension}, transportFunc(func(p []byte) (int, error) { return len(p), nil }))
	c.config.CompressFrom = 100
	messages := []Outgoing{
		{Type: Text, Data: bytes.Repeat([]byte("small"), 10)},
		{Type: Text, Data: bytes.Repeat([]byte("large"), 1000)}, // compressed
	}
	if !recycled(&flushBuffers, func() *[MaxFlush]byte {
		_ = c.Write(&messages[0])
		used := (*[MaxFlush]byte)(c.out.buf[:MaxFlush])
		flush(t, c)
		return used
	}) {
		t.Error("the buffer is lost")
	}
	if c.out.buf != nil {
		t.Error("an idle connection has a buffer")
	}
	const times = 200
	got := allocated(func() {
		for range times {
			for i := range messages {
				_ = c.Write(&messages[i])
			}
			flush(t, c)
		}
	})
	// The race detector makes pools forget, now and then. What compresses has much
	// more than this.
	if got/times > 400<<10 {
		t.Errorf("%d bytes for each", got/times)
	}
	c.Release()
}

// TestWriteAllocations: to write small messages costs nothing, and to send pings or
// pongs neither, when the owner starts no goroutine.
func TestWriteAllocations(t *testing.T) {
	c, o := start(t, setting{}, transportFunc(func(p []byte) (int, error) { return len(p), nil }))
	c.owner = idle{o}
	messages := make([]Outgoing, 100)
	for i := range messages {
		messages[i] = Outgoing{Type: Text, Data: []byte("message")}
	}
	message := func(i int) *Outgoing { return &messages[i] }
	pong := []byte("pong")
	got := testing.AllocsPerRun(20, func() {
		for i := range messages {
			_ = c.Write(&messages[i])
		}
		_ = c.WriteAll(len(messages), message)
		c.PingWait()
		c.pong(pong)
		_ = c.Flush()
	})
	if got > 5 { // the race detector makes pools forget
		t.Error(fmt.Sprint(got, " allocations"))
	}
	c.Release()
}

// What stands before our close frame goes out with it, and is not taken for untouched
// by whose next message was refused.
func TestTakenWaitsForTheCloseFrame(t *testing.T) {
	for range 2000 {
		transport := &gated{tokens: make(chan struct{})}
		c := new(Conn)
		c.Start(transport, nil, Deflate{}, &Config{WriteTimeout: time.Minute, CloseTimeout: time.Minute, Counters: new(Counters)}, new(owner))
		var tasks sync.WaitGroup
		until := func(is func() bool) {
			for done := false; !done; runtime.Gosched() {
				c.out.mu.Lock()
				done = is()
				c.out.mu.Unlock()
			}
		}
		tasks.Go(c.PingWait)
		until(func() bool { return c.out.busy })
		written, refused := Outgoing{Type: Text}, Outgoing{Type: Text}
		if err := c.Write(&written); err != nil {
			t.Fatal(err)
		}
		tasks.Go(func() { c.SendClose(1000, "") })
		until(func() bool { return c.out.closeEnd > 0 })
		if err := c.Write(&refused); err != ErrClosing {
			t.Fatal(err)
		}
		tasks.Go(func() {
			if taken := c.Taken(); written.Untouched(taken) {
				t.Error("written before the close frame, and untouched")
			}
		})
		transport.tokens <- struct{}{}
		transport.tokens <- struct{}{}
		tasks.Wait()
		if t.Failed() {
			return
		}
	}
}
