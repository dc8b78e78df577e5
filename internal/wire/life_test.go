package wire

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// dialTCP returns a connection over a Network, and the server's end of it, whose buffer
// is small.
func dialTCP(t *testing.T, timeout time.Duration) (*Conn, *owner, *net.TCPConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	tcp := server.(*net.TCPConn)
	_ = tcp.SetReadBuffer(8 << 10)
	_ = conn.(*net.TCPConn).SetWriteBuffer(8 << 10)
	network := NewNetwork(conn)
	c, o := new(Conn), new(owner)
	c.Start(network, network, Deflate{}, &Config{ReadLimit: 1 << 20, WriteTimeout: timeout, CloseTimeout: closeTimeout, Counters: new(Counters)}, o)
	c.LimitUnsent()
	return c, o, tcp
}

// pipeSocket is one end of a pipe, which passes for a socket.
type pipeSocket struct{ net.Conn }

func (pipeSocket) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

// TestWriteThatMoves checks that the write timeout is time without progress, not that of
// one write, and that progress which comes slowly is a sign of life.
func TestWriteThatMoves(t *testing.T) {
	for reads := range 60 { // a second apart; all bytes would take 66 s
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			network := NewNetwork(pipeSocket{client})
			c, o := new(Conn), new(owner)
			c.Start(network, network, Deflate{}, &Config{WriteTimeout: writeTimeout, CloseTimeout: closeTimeout, Counters: new(Counters)}, o)
			o.stalled = c.Kill
			began := time.Now()
			o.running.Go(func() {
				for range reads {
					time.Sleep(time.Second)
					_, _ = io.ReadFull(server, make([]byte, 1000))
				}
			})
			put(t, c, Binary, strings.Repeat("m", MaxFlush))
			if err := c.Flush(); err == nil {
				t.Error("a server that reads no more took all")
			}
			last := time.Duration(reads) * time.Second
			if late := time.Since(began) - last; late < writeTimeout || late > 2*writeTimeout+SecondLook {
				t.Errorf("stalled %v after the last of %d reads", late, reads)
			}
			if signs := c.Signs(); signs == 0 && reads > 0 {
				t.Error("what the server made room for is no sign of life")
			}
			finish(c, o)
			server.Close()
		})
	}
}

// TestWriteThatMovesSeldom checks that a write has the whole timeout after each progress,
// also when it once seemed to have stalled.
func TestWriteThatMovesSeldom(t *testing.T) {
	for gap := time.Second; gap < writeTimeout; gap += time.Second / 4 {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			network := NewNetwork(pipeSocket{client})
			c, o := new(Conn), new(owner)
			c.Start(network, network, Deflate{}, &Config{WriteTimeout: writeTimeout, CloseTimeout: closeTimeout, Counters: new(Counters)}, o)
			o.stalled = c.Kill
			o.running.Go(func() {
				for err := error(nil); err == nil; {
					time.Sleep(gap)
					_, err = io.ReadFull(server, make([]byte, 1000))
				}
			})
			put(t, c, Binary, strings.Repeat("m", MaxFlush/2))
			if err := c.Flush(); err != nil {
				t.Errorf("1000 bytes every %v: %v", gap, err)
			}
			c.Kill()
			finish(c, o)
			server.Close()
		})
	}
}

// TestNudge checks that a write that is nudged again and again loses and repeats nothing,
// beneath TLS too.
func TestNudge(t *testing.T) {
	certified := httptest.NewTLSServer(nil)
	certified.Close()
	for _, secure := range []bool{false, true} {
		c, o, server := dialTCP(t, time.Minute)
		peer := io.Reader(server)
		if secure {
			c.transport = tls.Client(c.meter, &tls.Config{InsecureSkipVerify: true})
			peer = tls.Server(server, certified.TLS)
		}
		message := make([]byte, 128<<10)
		for i := range message {
			message[i] = byte(i >> 8 * i)
		}
		put(t, c, Binary, string(message))
		var done atomic.Bool
		o.running.Go(func() {
			for !done.Load() {
				if !c.Nudge() {
					t.Error("a socket cannot be nudged")
					return
				}
			}
		})
		received := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(peer)
			received <- b
		}()
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		done.Store(true)
		finish(c, o)
		if frames := sentFrames(t, <-received); len(frames) != 1 || frames[0].payload != string(message) {
			t.Errorf("another message arrived; TLS: %t", secure)
		}
	}
}

// strict is a network connection that is no socket, and fails for good when a deadline
// passes.
type strict struct {
	net.Conn
	pieces []int
}

func (s *strict) Write(p []byte) (int, error) {
	s.pieces = append(s.pieces, len(p))
	return len(p), nil
}
func (s *strict) Close() error                     { return nil }
func (s *strict) SetWriteDeadline(time.Time) error { panic("a deadline") }

// TestNetworkWithoutASocket checks that what may not stand a deadline never gets one, and
// is written to in pieces.
func TestNetworkWithoutASocket(t *testing.T) {
	s := new(strict)
	network := NewNetwork(s)
	c, o := new(Conn), new(owner)
	c.Start(network, network, Deflate{}, &Config{WriteTimeout: time.Minute, CloseTimeout: time.Minute, Counters: new(Counters)}, o)
	if c.Nudge() {
		t.Error("it can be nudged")
	}
	put(t, c, Binary, strings.Repeat("m", 40_000))
	flush(t, c)
	if len(s.pieces) != 3 || s.pieces[0] != maxPiece {
		t.Errorf("pieces of %v", s.pieces)
	}
	c.Release()
}

// failing is a socket whose writes fail because of a deadline that nobody set.
type failing struct{ pipeSocket }

func (failing) Write([]byte) (int, error) { return 0, os.ErrDeadlineExceeded }

// TestForeignDeadline checks that the error of somebody else's deadline is an error.
func TestForeignDeadline(t *testing.T) {
	if n, err := NewNetwork(failing{}).Write([]byte("x")); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestHunger checks what feeds the wait for a message.
func TestHunger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLine()
		c, o := start(t, setting{limit: 1000}, l)
		next := make(chan struct{})
		feed := false
		o.running.Go(func() {
			for range next {
				if feed {
					c.Feed()
				}
				_, _ = c.Next(false)
			}
		})
		step := func(what string, piece []byte, want time.Duration) {
			t.Helper()
			time.Sleep(time.Second)
			l.server <- piece
			synctest.Wait()
			if got := c.Hunger(); got != want {
				t.Errorf("%s: hungry since %v, want %v", what, got, want)
			}
		}
		next <- struct{}{}
		step("a pong", frame(pongFrame, ""), 0)
		step("a ping", frame(pingFrame, "ping"), 0)
		step("the header of a message", head(textFrame, 3), 3*time.Second)
		step("part of a message", []byte("a"), 4*time.Second)
		step("a message, which is not taken yet", []byte("bc"), 4*time.Second)
		time.Sleep(10 * time.Second)
		next <- struct{}{}
		step("it took 10 s, and did not count", frame(pongFrame, ""), 14*time.Second)
		step("a whole message", frame(textFrame, "abc"), 14*time.Second)
		time.Sleep(10 * time.Second)
		feed = true
		next <- struct{}{}
		step("it counted, once it was dealt with", frame(pongFrame, ""), 27*time.Second)
		step("a fragment", frame(opText, "ab"), 29*time.Second)
		step("a ping between fragments", frame(pingFrame, ""), 29*time.Second)
		close(l.server)
		close(next)
		synctest.Wait()
		finish(c, o)
	})
}

// TestHungerAfterEachMessage checks that a message counts if and only if the owner says
// so, be it compressed or not, whatever else the read brought.
func TestHungerAfterEachMessage(t *testing.T) {
	const extension = "permessage-deflate"
	compressed := frame(textFrame|rsv1Bit, newDeflater(extension).deflate("compressed"))
	plain, ping := frame(textFrame, "plain"), frame(pingFrame, "")
	for name, test := range map[string]struct {
		piece []byte
		feeds int // which message counts, from 1
		fed   bool
	}{
		"no plain one":      {plain, 0, false},
		"no compressed one": {compressed, 0, false},
		"a compressed one":  {compressed, 1, true},
		"then plain":        {join(plain, ping, plain), 1, true},
		"then compressed":   {join(plain, ping, compressed), 1, true},
		"then in fragments": {join(plain, ping, join(fragmented(opText, "fragments", 3)...)), 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLine()
				c, o := start(t, setting{limit: 1 << 20, extension: extension}, l)
				o.running.Go(func() {
					for n := 1; ; n++ {
						if _, err := c.Next(false); err != nil {
							return
						}
						if n == test.feeds {
							c.Feed()
						}
					}
				})
				time.Sleep(time.Second)
				l.server <- test.piece
				synctest.Wait()
				if got := c.Hunger(); (got != 0) != test.fed {
					t.Errorf("hungry since %v", got)
				}
				close(l.server)
				synctest.Wait()
				finish(c, o)
			})
		})
	}
}

// TestBeaten checks when a beat counts as taken: when the network has taken it, not when
// it was written.
func TestBeaten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{room: -1, gate: make(chan struct{})}
		c, o := start(t, setting{}, n)
		check := func(what string, want time.Duration, taken bool) {
			t.Helper()
			synctest.Wait()
			if at, ok := c.Beaten(); ok != taken || ok && at != want {
				t.Errorf("%s: taken at %v (%t), want %v (%t)", what, at, ok, want, taken)
			}
		}
		check("no beat", 0, true)
		put(t, c, Binary, string(bytes.Repeat([]byte("m"), MaxFlush)))
		o.running.Go(func() { _ = c.Flush() })
		synctest.Wait()
		o.running.Go(c.Beat)
		check("behind two writes", 0, false)
		for range 2 {
			time.Sleep(time.Second)
			n.gate <- struct{}{}
			check("behind a write", 0, false)
		}
		time.Sleep(time.Second)
		n.gate <- struct{}{}
		check("a ping", 3*time.Second, true)
		c.Expect()
		check("a message that is not written", 0, false)
		put(t, c, Text, "beat")
		c.Mark()
		check("a message that is not flushed", 0, false)
		o.running.Go(func() { _ = c.Flush() })
		n.gate <- struct{}{}
		check("a message", 3*time.Second, true)
		time.Sleep(time.Second)
		c.Mark()
		check("what was taken already", 4*time.Second, true)
		if c.Signs() != 3 { // each of the three waited for a second
			t.Errorf("%d signs of life", c.Signs())
		}
		finish(c, o)
	})
}

// TestStallOfAProcessThatIsAlwaysLate checks that a stalled write is found also by a timer
// that is late each time.
func TestStallOfAProcessThatIsAlwaysLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		network := NewNetwork(pipeSocket{client})
		c, o := new(Conn), new(owner)
		c.Start(network, network, Deflate{}, &Config{WriteTimeout: writeTimeout, CloseTimeout: closeTimeout, Counters: new(Counters)}, o)
		put(t, c, Binary, "m")
		o.running.Go(func() { _ = c.Flush() })
		time.Sleep(writeTimeout - 1)
		synctest.Wait()
		c.out.watch.Stop()
		time.Sleep(time.Second)
		looks := 0
		for ; o.stalls.Load() == 0 && looks < 1000; looks++ {
			c.life.due.Store(int64(c.Now() - 50*time.Millisecond))
			c.out.check()
			synctest.Wait()
		}
		if looks < 2 || looks > MaxDoubts+1 {
			t.Errorf("found at look %d, want at most %d", looks, MaxDoubts+1)
		}
		c.Kill()
		finish(c, o)
		server.Close()
	})
}
