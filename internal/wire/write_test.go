package wire

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestWriteCoalesces counts the writes to the transport.
func TestWriteCoalesces(t *testing.T) {
	for _, test := range []struct {
		name     string
		messages int
		size     int
		writes   int
	}{
		{"a single message", 1, 100, 1},
		{"a single message of 50 kB", 1, 50_000, 1},
		{"a burst", 500, 100, 1},
		{"a frame of MaxFlush bytes", 1, MaxFlush - maxHeader + 6, 1},
		{"a frame of one byte more", 1, MaxFlush - maxHeader + 7, 2},
		{"a message of three times MaxFlush", 1, 3 * MaxFlush, 4},
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
			t.Errorf("%s: %d writes of up to %d bytes, want %d of at most MaxFlush", test.name, writes, n.most, test.writes)
		}
		checkSent(t, taken, slices.Repeat([]sentFrame{{finBit | opBinary, payload}}, test.messages)...)
		if got := c.config.Counters.BytesOut.Load(); got != uint64(len(taken)) || c.Taken() != got {
			t.Errorf("%s: counted %d bytes, Taken returns %d, want %d", test.name, got, c.Taken(), len(taken))
		}
		flush(t, c)
		if _, again := n.got(); again != writes {
			t.Errorf("%s: a flush of nothing writes", test.name)
		}
		c.Release()
	}
}

// TestWriteFrames checks that each message becomes one frame of its type, and gets the
// position of that frame in the stream.
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
					t.Errorf("%q, %d bytes: message %d has the position %d to %d, want %d to %d", extension, size, i, m.start, m.end, before, after)
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

// TestWriteCompressed checks which messages are compressed.
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

// noGain returns data that compression makes neither smaller nor larger.
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

// TestWriteAll checks that WriteAll does the same as a Write of each message in order.
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
				t.Errorf("%q: message %d has the position %d to %d", extension, i, m.start, m.end)
			}
			at = m.end
		}
		c.SendClose(1000, "")
		if err := c.WriteAll(0, nil); err != nil {
			t.Errorf("no message: %v", err)
		}
		if err := c.WriteAll(1, func(i int) *Outgoing { return &messages[i] }); err != ErrClosing {
			t.Errorf("a message after the close frame: %v", err)
		}
		c.Release()
	}
}

// TestPositions has the network fail at every byte of three messages, and checks that their
// positions tell which of them it has accepted.
func TestPositions(t *testing.T) {
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
			checkPositions(t, c, room, messages, payloads)
			checkRefused(t, c, errNetwork)
			if err := c.Flush(); err != errNetwork {
				t.Errorf("a second flush: %v", err)
			}
			c.Release()
		}
	}
}

func checkPositions(t *testing.T, c *Conn, room int, messages []Outgoing, payloads []string) {
	t.Helper()
	taken := c.Taken()
	if taken != uint64(room) || c.config.Counters.BytesOut.Load() != taken {
		t.Errorf("room for %d: Taken returns %d, counted %d", room, taken, c.config.Counters.BytesOut.Load())
	}
	at := 0
	for i, m := range messages {
		end := at + FrameSize(len(payloads[i]))
		if m.Untouched(taken) != (room <= at) || m.Taken(taken) != (room >= end) {
			t.Errorf("room for %d: message %d, at %d to %d, is untouched: %v, taken: %v",
				room, i, at, end, m.Untouched(taken), m.Taken(taken))
		}
		at = end
	}
}

// TestFlushReportsOnlyWhatIsLost checks that a network that fails after a flush is
// reported by the next flush, and not before.
func TestFlushReportsOnlyWhatIsLost(t *testing.T) {
	n := &network{room: FrameSize(1)}
	c, _ := start(t, setting{}, n)
	put(t, c, Text, "m")
	flush(t, c)
	put(t, c, Text, "m")
	if broken(c) {
		t.Error("broken before a write has failed")
	}
	if err := c.Flush(); err != errNetwork || !broken(c) {
		t.Errorf("flush: %v, broken: %v", err, broken(c))
	}
	c.Release()
}

// TestErrorWithAllBytes checks that a transport write that accepts everything and yet
// fails loses nothing, but is the last.
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

// TestShortWrites checks that the rest of a short write is written by the next one.
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

// TestConcurrentFlushes checks that concurrent flushes share a write, and that all return.
func TestConcurrentFlushes(t *testing.T) {
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

// TestFlushDoesNotWaitForLaterBytes checks that a flush does not wait for bytes that
// were written after it was called.
func TestFlushDoesNotWaitForLaterBytes(t *testing.T) {
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
			t.Error("the second flush has not returned")
		}
		c.Release()
	})
}

// TestTakenWaits checks that Taken waits for a flush in progress, whose outcome is open.
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
			t.Errorf("Taken returned %d during a flush", <-taken)
		}
		n.gate <- struct{}{}
		if got := <-taken; got != uint64(FrameSize(len("message"))) {
			t.Errorf("Taken returned %d", got)
		}
		finish(c, o)
	})
}

func TestWriteTimeout(t *testing.T) {
	const timeout = writeTimeout
	for _, test := range []struct {
		name  string
		takes []time.Duration // how long each write takes; they are an hour apart
		want  time.Duration   // when the last write counts as stalled; 0 for never
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
				t.Errorf("%s: stalled %d times, after %v, want once after %v", test.name, o.stalls.Load(), stalledAt.Sub(last), test.want)
			}
			c.Release()
		})
	}
}

// TestWriteTimeoutOfABusyWriter writes without a pause: many writes that are in time, and
// then one that hangs.
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
			t.Errorf("stalled after %v, want %v", got, writeTimeout)
		}
		c.Release()
	})
}

// TestWriteTimeoutOfEachWrite checks that a large message may take longer than the write
// timeout, as long as each write of it is in time.
func TestWriteTimeoutOfEachWrite(t *testing.T) {
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

// TestWriteTimeoutIsLazy checks that the timer fires at most once per timeout, and not at
// all on a connection that is idle or released.
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
			t.Error("the timer runs after Release")
		}
		if o.stalls.Load() != 0 {
			t.Error("stalled")
		}
	})
}

// TestWriteMemory checks that the write buffer returns to its pool after a flush.
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
		t.Error("the buffer was not returned to its pool")
	}
	if c.out.buf != nil {
		t.Error("an idle connection holds a buffer")
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
	// The race detector makes pools drop items now and then, but a compressor is much
	// larger than this.
	if got/times > 400<<10 {
		t.Errorf("%d bytes allocated per round", got/times)
	}
	c.Release()
}

// TestWriteAllocations checks that writing small messages, pings and pongs allocates
// nothing, apart from the goroutines of the owner.
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
	if got > 5 { // the race detector makes pools drop items
		t.Error(fmt.Sprint(got, " allocations"))
	}
	c.Release()
}

// TestTakenWaitsForTheCloseFrame checks that a message that goes out together with our
// close frame does not count as untouched: its sender asks after its next message was
// refused.
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
				t.Error("a message written before the close frame is untouched")
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
