package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{&Closed{1001, "bye"}, `closed by the server: 1001 "bye"`},
		{&Violation{Code: 1002, Text: "masked"}, "protocol error 1002: masked"},
		{&Lost{io.EOF}, "connection lost: EOF"},
	} {
		if test.err.Error() != test.want {
			t.Errorf("got %q", test.err)
		}
	}
	if err := error(&Lost{io.EOF}); !errors.Is(err, io.EOF) {
		t.Errorf("%v does not wrap its cause", err)
	}
}

// TestClose checks what Close sends for each end of reading.
func TestClose(t *testing.T) {
	long := strings.Repeat("r", maxReason)
	for name, test := range map[string]struct {
		stream []byte
		want   []sentFrame
	}{
		"a close frame":              {frame(finBit|opClose, closePayload(1001, "bye")), []sentFrame{{finBit | opClose, closePayload(1001, "bye")}}},
		"a close frame without code": {frame(finBit|opClose, ""), []sentFrame{{finBit | opClose, ""}}},
		"the longest reason":         {frame(finBit|opClose, closePayload(4000, long)), []sentFrame{{finBit | opClose, closePayload(4000, long)}}},
		"a violation":                {frame(finBit|opText, "\xff"), []sentFrame{{finBit | opClose, closePayload(1007, notUTF8)}}},
		"a lost connection":          {nil, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(test.stream)
			close(l.server)
			c, o := start(t, setting{limit: 100}, l)
			_ = drain(c)
			c.Close()
			checkSent(t, l.written(), test.want...)
			if c.CloseSent() != (test.want != nil) || broken(c) {
				t.Errorf("%s: close frame sent: %v, broken: %v", name, c.CloseSent(), broken(c))
			}
			time.Sleep(time.Hour)
			if l.cut() {
				t.Errorf("%s: the connection was killed", name)
			}
			o.join()
			c.Release()
		})
	}
}

// TestCloseLingers checks that after a violation Close gives the server time to read
// the close frame, but not much.
func TestCloseLingers(t *testing.T) {
	violation := frame(finBit|opText, "\xff")
	more := slices.Repeat([][]byte{make([]byte, 2000)}, 5)
	for name, test := range map[string]struct {
		pieces    [][]byte
		hangsUp   time.Duration // 0: never
		timeout   time.Duration // of Close
		want      time.Duration
		cut, half bool // expected of the connection
	}{
		"a silent server":                {[][]byte{violation}, 0, closeTimeout, time.Second, true, true},
		"a server that sends on":         {append([][]byte{violation}, more...), 0, closeTimeout, time.Second, true, true},
		"a server that hangs up":         {append([][]byte{violation}, more...), 300 * time.Millisecond, closeTimeout, 300 * time.Millisecond, false, true},
		"a short timeout":                {[][]byte{violation}, 0, 200 * time.Millisecond, 200 * time.Millisecond, true, true},
		"a close frame":                  {[][]byte{frame(finBit|opClose, "")}, 0, closeTimeout, 0, false, false},
		"a lost connection":              {nil, 1, closeTimeout, 0, false, false},
		"a server that hangs up at once": {[][]byte{violation}, 1, closeTimeout, 1, false, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &halves{line: newLine(test.pieces...)}
			c, o := start(t, setting{limit: 100}, h)
			c.config.CloseTimeout = test.timeout
			if test.hangsUp > 0 {
				time.AfterFunc(test.hangsUp, func() { close(h.server) })
			}
			_ = drain(c)
			began := time.Now()
			c.Close()
			if took := time.Since(began); took != test.want {
				t.Errorf("%s: took %v, want %v", name, took, test.want)
			}
			if h.cut() != test.cut || h.half != test.half {
				t.Errorf("%s: killed: %v, half closed: %v", name, h.cut(), h.half)
			}
			if len(h.server)+len(h.rest) > 0 {
				t.Errorf("%s: %d pieces were not read", name, len(h.server))
			}
			time.Sleep(time.Hour)
			if h.cut() != test.cut {
				t.Errorf("%s: killed after Close had returned", name)
			}
			o.join()
			c.Release()
		})
	}
}

// TestCloseIsBounded checks that the close timeout bounds Close if the network accepts
// nothing.
func TestCloseIsBounded(t *testing.T) {
	for name, stream := range map[string][]byte{
		"a close frame": frame(finBit|opClose, closePayload(1000, "")),
		"a violation":   frame(finBit|3, ""),
	} {
		for _, hidden := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				h := &halves{line: newLine(stream)}
				h.deaf = true
				var transport io.ReadWriteCloser = h
				if hidden {
					transport = unknown{h.line}
				}
				c, o := start(t, setting{limit: 100}, transport)
				_ = drain(c)
				began := time.Now()
				c.Close()
				if took := time.Since(began); took != closeTimeout {
					t.Errorf("%s: took %v, want %v", name, took, closeTimeout)
				}
				if c.CloseSent() || !broken(c) || !h.cut() {
					t.Errorf("%s: close frame sent: %v, broken: %v, killed: %v", name, c.CloseSent(), broken(c), h.cut())
				}
				o.join()
				c.Release()
			})
		}
	}
}

// TestCloseWaitsForOurOwnCloseFrame covers both sides closing at once: our close frame
// is still being written when the server's arrives.
func TestCloseWaitsForOurOwnCloseFrame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(frame(finBit|opClose, closePayload(1000, "bye")))
		l.takes = 100 * time.Millisecond
		c, o := start(t, setting{limit: 100}, l)
		began := time.Now()
		o.running.Go(func() { c.SendClose(1000, "bye") })
		synctest.Wait()
		if err := drain(c); endOf(err) != endClosed(1000, "bye") || c.CloseSent() {
			t.Errorf("Next returned %v, close frame sent: %v", err, c.CloseSent())
		}
		c.Close()
		if took := time.Since(began); took != l.takes || !c.CloseSent() {
			t.Errorf("close frame sent: %v, after %v", c.CloseSent(), took)
		}
		checkSent(t, l.written(), sentFrame{finBit | opClose, closePayload(1000, "bye")})
		o.join()
		c.Release()
	})
}

// TestCloseWaitsForPong covers a pong that is still being written
// when Close is called.
func TestCloseWaitsForPong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(join(frame(finBit|opPing, "ping"), frame(finBit|opClose, "")))
		l.takes = 100 * time.Millisecond
		c, o := start(t, setting{limit: 100}, l)
		_ = drain(c)
		synctest.Wait() // the pong is under way
		c.Close()
		if !c.CloseSent() {
			t.Error("the close frame was not sent")
		}
		checkSent(t, l.written(), sentFrame{finBit | opPong, "ping"}, sentFrame{finBit | opClose, ""})
		o.join()
		c.Release()
	})
}

// TestKill checks that Kill ends whatever waits for the network, at once.
func TestKill(t *testing.T) {
	violation := frame(finBit|3, "")
	for name, test := range map[string]struct {
		pieces [][]byte
		deaf   bool
		use    func(c *Conn) // waits until the connection is killed
		want   string        // the end of reading
	}{
		"a reader that waits":           {nil, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a reader within a message":     {[][]byte{frame(opText, "half")}, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a reader within a frame":       {[][]byte{head(finBit|opText, 5)}, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a reader within a large frame": {[][]byte{head(finBit|opText, 1<<19)}, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a reader within a ping":        {[][]byte{head(finBit|opPing, 5)}, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a reader that inflates":        {[][]byte{head(finBit|rsv1Bit|opText, 5)}, false, func(c *Conn) { _ = drain(c) }, endLost},
		"a writer that waits":           {nil, true, func(c *Conn) { _ = c.Write(&Outgoing{Type: Text}); _ = c.Flush() }, endLost},
		"a ping that waits":             {nil, true, (*Conn).PingWait, endLost},
		"a close frame that waits":      {nil, true, func(c *Conn) { c.SendClose(1000, "") }, endLost},
		"a close that lingers":          {[][]byte{violation}, false, func(c *Conn) { _ = drain(c); c.Close() }, endProtocol(1002)},
		"a close that cannot write":     {[][]byte{violation}, true, func(c *Conn) { _ = drain(c); c.Close() }, endProtocol(1002)},
		"Taken, which waits":            {nil, true, func(c *Conn) { c.Ping(); synctest.Wait(); c.Taken() }, endLost},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &halves{line: newLine(test.pieces...)}
			h.deaf = test.deaf
			c, o := start(t, setting{limit: 1 << 20, extension: extension}, h)
			returned := make(chan struct{})
			go func() {
				defer close(returned)
				test.use(c)
			}()
			time.Sleep(time.Millisecond)
			select {
			case <-returned:
				t.Errorf("%s: returned before Kill", name)
			default:
			}
			began := time.Now()
			c.Kill()
			<-returned
			err := drain(c)
			finish(c, o)
			if took := time.Since(began); took != 0 || endOf(err) != test.want {
				t.Errorf("%s: ended after %v with %v, want %s at once", name, took, err, test.want)
			}
			if test.deaf && !broken(c) || c.CloseSent() == test.deaf && test.want != endLost {
				t.Errorf("%s: broken: %v, close frame sent: %v", name, broken(c), c.CloseSent())
			}
		})
	}
}

// TestKillBeforeAnything checks that a killed connection neither reads nor writes.
func TestKillBeforeAnything(t *testing.T) {
	l := newLine()
	c, o := start(t, setting{limit: 100}, l)
	c.Kill()
	if _, err := next(c); !errors.Is(err, net.ErrClosed) || endOf(err) != endLost {
		t.Errorf("Next: %v", err)
	}
	if err := c.Write(&Outgoing{Type: Text}); err != nil { // which only appends to a buffer
		t.Errorf("Write: %v", err)
	}
	if err := c.Flush(); !errors.Is(err, net.ErrClosed) || !broken(c) {
		t.Errorf("Flush: %v", err)
	}
	finish(c, o)
}

// TestKillByTheOwner calls Kill on the reading goroutine. Messages that have arrived
// before are still delivered.
func TestKillByTheOwner(t *testing.T) {
	l := newLine(join(frame(finBit|opPing, ""), frame(finBit|opText, "last words")))
	c, o := start(t, setting{limit: 100}, l)
	o.answer = func([]byte) bool { c.Kill(); return false }
	messages, err := readAll(t, c)
	if got := messages(); len(got) != 1 || endOf(err) != endLost {
		t.Errorf("got %v, then %v", got, err)
	}
	finish(c, o)
}

// TestKillAndReleaseClose checks that Kill closes the network connection beneath TLS,
// once, and nothing else, and that Release closes the transport too.
func TestKillAndReleaseClose(t *testing.T) {
	for _, known := range []bool{true, false} {
		transport, network := newLine(), newLine()
		c, _ := start(t, setting{limit: 100}, transport)
		c.network = nil
		if known {
			c.network = network
		}
		check := func(what string, transports, networks int) {
			t.Helper()
			if !known {
				networks = 0
			}
			if transport.closes != transports || network.closes != networks {
				t.Errorf("%s, network known: %v: transport closed %d times, network %d", what, known, transport.closes, network.closes)
			}
		}
		kills := 1 // of the transport
		if known {
			kills = 0
		}
		check("before", 0, 0)
		c.Kill()
		check("killed", kills, 1)
		c.Kill()
		check("killed again", kills, 1)
		c.Release()
		check("released", kills+1, 1)
		c.Kill()
		check("killed after the release", kills+1, 1)
	}
	network := newLine()
	c, _ := start(t, setting{limit: 100}, network)
	c.Release() // kills
	if !c.killed.Load() || network.closes != 2 {
		t.Errorf("released: killed: %v, closed %d times", c.killed.Load(), network.closes)
	}
}

// TestSilence checks that a connection counts as silent only while its reader waits for
// the transport.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 100}, l)
		check := func(what string, since time.Duration, waiting bool, reads uint64) {
			t.Helper()
			synctest.Wait()
			got, is := c.Silence()
			if is != waiting || waiting && got != since {
				t.Errorf("%s: silent since %v (%v), want %v (%v)", what, got, is, since, waiting)
			}
			if c.Reads() != reads {
				t.Errorf("%s: %d reads, want %d", what, c.Reads(), reads)
			}
		}
		next := make(chan struct{})
		o.running.Go(func() {
			for range next {
				_, _ = c.Next(false)
			}
		})
		check("nobody reads", 0, false, 0)
		next <- struct{}{}
		check("the first read", 0, true, 0)
		time.Sleep(2 * time.Second)
		check("two seconds later", 0, true, 0)
		l.server <- head(finBit|opText, 3)
		check("part of a message", 2*time.Second, true, 1)
		time.Sleep(time.Second)
		l.server <- []byte("abc")
		check("a message, whose consumer is slow", 0, false, 2)
		time.Sleep(time.Hour)
		check("an hour later", 0, false, 2)
		next <- struct{}{}
		check("the reader is back", time.Hour+3*time.Second, true, 2)
		if now := c.Now(); now != time.Hour+3*time.Second {
			t.Errorf("the clock says %v", now)
		}
		close(l.server)
		check("the end", 0, false, 2)
		close(next)
		finish(c, o)
	})
}

// TestSilenceOfALargeMessage checks that silence begins anew with each read of a message
// that arrives slowly.
func TestSilenceOfALargeMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(head(finBit|opBinary, 1<<19))
		c, o := start(t, setting{limit: 1 << 20}, l)
		o.running.Go(func() { _ = drain(c) })
		for i := range 10 {
			time.Sleep(time.Second)
			l.server <- make([]byte, 10_000)
			synctest.Wait()
			if since, waiting := c.Silence(); since != time.Duration(i+1)*time.Second || !waiting {
				t.Errorf("silent since %v (%v), want %d s", since, waiting, i+1)
			}
		}
		c.Kill()
		o.join()
		c.Release()
	})
}

// TestClock checks that a clock counts from its creation.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Minute)
		clock := NewClock()
		if now := clock.Now(); now != 0 {
			t.Errorf("a new clock says %v", now)
		}
		time.Sleep(3 * time.Second)
		if now := clock.Now(); now != 3*time.Second {
			t.Errorf("after three seconds it says %v", now)
		}
	})
}

// TestStartIsPassive checks that a connection reads and writes nothing by itself.
func TestStartIsPassive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine(mixedStream)
		c, o := start(t, setting{limit: 100}, l)
		time.Sleep(time.Hour)
		if len(l.server) != 1 || len(l.written()) > 0 || o.spawned.Load() > 0 || l.closes > 0 {
			t.Error("a connection that nobody uses did something")
		}
		if c.End() != nil || broken(c) || c.CloseSent() || c.Taken() != 0 {
			t.Error(fmt.Sprint("a new connection has the state ", c.End(), broken(c), c.CloseSent(), c.Taken()))
		}
		c.Release()
	})
}

// TestPart checks that Part ends reading at once, and that the connection stays open then
// until the server closes it or its time is over. Without a close frame, or a network
// connection that is known, it is cut.
func TestPart(t *testing.T) {
	const d = time.Second
	for name, test := range map[string]struct {
		closes, known bool          // our close frame is sent, the network is known
		leaves        time.Duration // when the server closes the connection, or 0
		want          time.Duration // when it is closed
	}{
		"the server closes it": {true, true, d / 2, d / 2},
		"it does not":          {true, true, 0, d},
		"no close frame":       {false, true, 0, 0},
		"an unknown network":   {true, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				c, o := start(t, setting{limit: 100}, ours)
				if !test.known {
					c.network = nil
				}
				began := time.Now()
				closed := make(chan time.Duration, 1)
				go func() {
					_, _ = io.Copy(io.Discard, theirs)
					closed <- time.Since(began)
				}()
				if test.leaves > 0 {
					time.AfterFunc(test.leaves, func() { _ = theirs.Close() })
				}
				read := make(chan error, 1)
				go func() { read <- drain(c) }()
				if test.closes {
					c.SendClose(1000, "")
				}
				c.Part(d)
				c.Kill() // does nothing more
				if err := <-read; endOf(err) != endLost || time.Since(began) != 0 {
					t.Errorf("reading ended after %v with %v", time.Since(began), err)
				}
				finish(c, o)
				if left := test.want > 0; c.Parted() != left {
					t.Errorf("parted: %v, want %v", c.Parted(), left)
				}
				c.Linger()
				if took := <-closed; took != test.want {
					t.Errorf("closed after %v, want %v", took, test.want)
				}
				_ = theirs.Close()
			})
		})
	}
}
