package wire

import (
	"bytes"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestPingFlood writes pings, pongs and messages concurrently, and checks that their
// frames do not mix.
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

// TestControlFramesAreFlushed checks that pings and pongs are sent without a call of
// Flush, and that the caller does not wait.
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

// TestPingWaitWaits checks that PingWait waits for the network, unless another goroutine
// is flushing control frames.
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
			t.Errorf("took %v, with %d goroutines", got, o.spawned.Load())
		}
		c.Ping()
		synctest.Wait()
		if got := took(); got != 0 || o.spawned.Load() != 1 {
			t.Errorf("while a ping is being sent: took %v, with %d goroutines", got, o.spawned.Load())
		}
		time.Sleep(time.Hour)
		checkSent(t, l.written(), sentFrame{finBit | opPing, ping(1)}, sentFrame{finBit | opPing, ping(2)}, sentFrame{finBit | opPing, ping(3)})
		if got := took(); got != time.Second || o.spawned.Load() != 1 {
			t.Errorf("when everything is sent: took %v, with %d goroutines", got, o.spawned.Load())
		}
		finish(c, o)
	})
}

// TestEveryPongIsFlushed checks that control frames appended during a flush of others do
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
			t.Error("the second pong was not flushed")
		}
		synctest.Wait()
		taken, _ := n.got()
		checkSent(t, taken, sentFrame{finBit | opPong, "one"}, sentFrame{finBit | opPong, "two"}, sentFrame{finBit | opPing, ping(1)})
		finish(c, o)
	})
}

// TestMessagesAreNotFlushedForOthers checks that the flush of a control frame includes
// the messages before it, but not those after it.
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

// TestPongsAreDropped checks that the backlog of pongs for a server that does not read is
// bounded, and that nothing else is dropped.
func TestPongsAreDropped(t *testing.T) {
	const payload = 64 - 6 // so that MaxFlush is a multiple of the size of the frame
	n := &network{room: -1}
	c, o := start(t, setting{}, n)
	c.owner = idle{o} // so that nothing is flushed
	pong := []byte(strings.Repeat("p", payload))
	for range 3 * MaxFlush / 64 {
		c.pong(pong)
	}
	const want = MaxFlush/64 + 1
	if got := len(pending(c)); got != want*64 {
		t.Errorf("%d bytes are pending, want %d", got, want*64)
	}
	put(t, c, Text, "kept")
	flush(t, c)
	c.pong(pong) // the flush has made room for it
	taken, _ := n.got()
	frames := sentFrames(t, append(taken, pending(c)...))
	if len(frames) != want+2 || frames[want].payload != "kept" || frames[want+1].first != finBit|opPong {
		t.Errorf("sent %d frames", len(frames))
	}
	c.Release()
}

// TestPongBehindALargeMessage checks that no pong is dropped because of pending messages.
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

// TestPongForABrokenNetwork checks that after a write error everything that has arrived
// is still read, although no ping can be answered.
func TestPongForABrokenNetwork(t *testing.T) {
	src := &script{in: join(frame(finBit|opPing, "ping"), frame(finBit|opText, "last words")), end: io.EOF}
	c, o := start(t, setting{limit: 100}, src)
	c.out.err = io.ErrClosedPipe
	messages, err := readAll(t, c)
	if got := messages(); len(got) != 1 || got[0].data != "last words" {
		t.Errorf("got %v", got)
	}
	if endOf(err) != endLost {
		t.Errorf("Next returned %v", err)
	}
	finish(c, o)
	if written := append(src.written(), pending(c)...); len(written) != 0 || o.spawned.Load() != 0 {
		t.Errorf("written: % x", written)
	}
}

// TestOneGoroutineFlushesControlFrames checks that no goroutine is started while another
// is flushing control frames.
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
				t.Errorf("%s: %d more goroutines", name, more)
			}
			close(n.gate)
			synctest.Wait()
			if taken, _ := n.got(); len(sentFrames(t, taken)) != 201 {
				t.Errorf("%s: sent %d frames", name, len(sentFrames(t, taken)))
			}
			c.Ping() // needs a new goroutine
			synctest.Wait()
			if taken, _ := n.got(); len(sentFrames(t, taken)) != 202 || o.spawned.Load() != before+1 {
				t.Errorf("%s: a later ping was not sent", name)
			}
			finish(c, o)
		})
	}
}

// TestRoundTrips checks that a pong counts once for the ping that it answers, if that is
// one of the last four.
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
				t.Errorf("at %v, pong %q: round trip %v, want %v", c.Now(), payload, got, want)
			}
		}
		for _, unsolicited := range []string{"", "pong", ping(0), ping(1), ping(1<<32 - 1)} {
			answer(unsolicited, unchanged)
		}
		for range 5 { // pings 1 to 5, at 1 to 5 seconds
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
		for _, unanswering := range []string{
			ping(1),                                                      // too late
			ping(0), ping(6), ping(7), ping(8), ping(9), ping(1<<31 + 2), // never sent, or not yet
			"", ping(3)[:3], ping(3) + "\x00", "\x00" + ping(3),
		} {
			answer(unanswering, unchanged)
		}
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
		answer(ping(2), unchanged) // ping 6 has taken its index
		answer(ping(6), time.Minute)

		if len(o.pongs) != 25 {
			t.Errorf("the owner saw %d pongs", len(o.pongs))
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestRoundTripsWithinMessages checks that a pong between fragments counts, too.
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

// TestFirstPing checks that a ping sent at time 0 of the clock has a round trip, too.
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

// TestAnswered checks that pongs advance the position that the server has reached, and
// never move it back.
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
			t.Errorf("Answered returns %d before any pong", c.Answered())
		}
		for _, pong := range []struct {
			payload string
			want    uint64
		}{
			{"", 0}, {ping(7), 0}, {ping(2), 0}, // not ours; not sent; too old
			{ping(4), ends[3]}, {ping(4), ends[3]}, {ping(3), ends[3]}, {ping(6), ends[5]}, {ping(5), ends[5]},
		} {
			l.server <- frame(finBit|opPong, pong.payload)
			synctest.Wait()
			if got := c.Answered(); got != pong.want {
				t.Errorf("after pong %x: Answered returns %d, want %d", pong.payload, got, pong.want)
			}
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestPingNumbersWrap checks round trips while the number of a ping wraps around.
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
				t.Errorf("ping %d: round trip %v, want %v", number, got, want)
			}
		}
		close(l.server)
		o.join()
		c.Release()
	})
}

// TestNothingAfterTheCloseFrame checks that no frame is sent after our close frame.
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
				t.Errorf("close frame sent: %v", !flushed)
			}
			checkRefused(t, c, ErrClosing)
			c.Ping()
			c.PingWait()
			c.pong([]byte("pong"))
			if broken(c) || o.spawned.Load() != 0 || len(pending(c)) > 0 {
				t.Errorf("broken: %v, %d goroutines, %d bytes pending", broken(c), o.spawned.Load(), len(pending(c)))
			}
			if !flushed {
				close(n.gate)
			}
			c.SendClose(1001, "second")
			flush(t, c)
			if taken, _ := n.got(); !c.CloseSent() {
				t.Error("the close frame was not sent")
			} else {
				checkSent(t, taken, sentFrame{finBit | opText, "before"}, sentFrame{finBit | opClose, closePayload(1000, "first")})
			}
			finish(c, o)
		})
	}
}

// TestSendClose checks the payload of the close frame.
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
			t.Error("CloseSent is true before SendClose")
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

// TestCloseFrameOfABrokenNetwork checks that CloseSent is false if the network has not
// accepted all of the close frame.
func TestCloseFrameOfABrokenNetwork(t *testing.T) {
	n := &network{}
	c, _ := start(t, setting{}, n)
	c.SendClose(1000, "")
	if c.CloseSent() || !broken(c) {
		t.Errorf("sent: %v, broken: %v", c.CloseSent(), broken(c))
	}
	checkRefused(t, c, errNetwork) // rather than ErrClosing
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
		t.Errorf("sent: %v, %d bytes pending", c.CloseSent(), len(pending(c)))
	}
	c.Release()
}

// TestPingWriteError checks that a write error ends the goroutine that flushes control
// frames.
func TestPingWriteError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := start(t, setting{}, &network{})
		c.Ping()
		synctest.Wait()
		if !broken(c) || c.out.relief {
			t.Errorf("broken: %v, a goroutine flushes: %v", broken(c), c.out.relief)
		}
		finish(c, o)
	})
}
