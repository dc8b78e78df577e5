package wire

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Conn is the client's end of a WebSocket connection. Its zero value is started by
// [Conn.Start], and must not be copied then.
type Conn struct {
	in     reader
	out    writer
	clock  Clock
	owner  Owner
	config *Config

	transport io.ReadWriteCloser
	network   net.Conn // beneath TLS; nil if it is not known
	deflate   Deflate
	killed    atomic.Bool
}

// Owner is asked, and told, what a connection cannot decide itself.
type Owner interface {
	// Ping takes the payload of a ping, on the reading goroutine, and tells whether
	// to answer. The payload is valid during the call.
	Ping(payload []byte) (answer bool)

	// Pong takes the payload of a pong, likewise.
	Pong(payload []byte)

	// Stalled is called when a write took longer than the write timeout.
	Stalled()

	// Failed takes the error of a write, once, before anybody else sees it.
	Failed(err error)

	// Go runs f on a goroutine that the owner joins before it releases the
	// connection.
	Go(f func())
}

// Config is what many connections share. It must not change.
type Config struct {
	ReadLimit    int64         // largest message, in bytes
	WriteTimeout time.Duration // of one write of at most MaxFlush bytes
	CloseTimeout time.Duration // of Conn.Close
	CompressFrom int32         // messages of that size, or more, are compressed
	Counters     *Counters
}

// Counters may be read at any time.
type Counters struct {
	MessagesIn        atomic.Uint64
	BytesIn, BytesOut atomic.Uint64
	RoundTrip         atomic.Int64 // of the last ping that was answered, in nanoseconds
}

// Start starts c over a transport on which the handshake is done. With the network
// connection beneath it, if that is known, c ends TLS without its closing alert,
// which may take long, and closes one direction alone.
func (c *Conn) Start(transport io.ReadWriteCloser, network net.Conn, deflate Deflate, config *Config, owner Owner) {
	c.transport, c.network, c.deflate, c.config, c.owner = transport, network, deflate, config, owner
	c.clock = NewClock()
	c.in.c, c.out.c = c, c
	c.out.flushed.L = &c.out.mu
}

// Closed is the end of a connection by a close frame of the server.
type Closed struct {
	Code   int // 1005 if the frame has none
	Reason string
}

func (e *Closed) Error() string { return fmt.Sprintf("closed by the server: %d %q", e.Code, e.Reason) }

// Violation is the end of a connection by what the server must not do, and the
// close code for it.
type Violation struct {
	Code int
	Text string
}

func (e *Violation) Error() string { return fmt.Sprintf("protocol error %d: %s", e.Code, e.Text) }

// Lost is the end of a connection by an error of its transport, io.EOF included.
type Lost struct{ Err error }

func (e *Lost) Error() string { return fmt.Sprintf("connection lost: %v", e.Err) }
func (e *Lost) Unwrap() error { return e.Err }

// lingerAfterViolation bounds the wait for a server that was sent a close frame for
// its violation.
const lingerAfterViolation = time.Second

// Close does what the end of reading calls for: it answers the server's close
// frame, or sends one for a violation. It returns when the network has taken the
// close frame, or the close timeout has passed. The reading goroutine calls it, after
// Next has returned an error.
func (c *Conn) Close() {
	timer := time.AfterFunc(c.config.CloseTimeout, c.Kill)
	defer timer.Stop()
	switch end := c.in.end.(type) {
	case *Closed:
		c.SendClose(end.Code, end.Reason)
	case *Violation:
		c.SendClose(end.Code, end.Text)
		c.linger()
	}
}

// linger reads for a moment what the server still sends: closing with unread bytes
// resets the connection, and the reset may overtake our close frame (RFC 6455,
// section 7.1.1).
func (c *Conn) linger() {
	half, ok := c.network.(interface{ CloseWrite() error })
	if !ok {
		return
	}
	_ = half.CloseWrite()
	timer := time.AfterFunc(min(lingerAfterViolation, c.config.CloseTimeout), c.Kill)
	defer timer.Stop()
	var scratch [512]byte
	for err := error(nil); err == nil; {
		_, err = c.transport.Read(scratch[:])
	}
}

// Kill cuts the connection: no close frame, no TLS alert, and whoever reads or
// writes returns.
func (c *Conn) Kill() {
	switch {
	case c.killed.Swap(true):
	case c.network != nil:
		_ = c.network.Close()
	default:
		_ = c.transport.Close()
	}
}

// Release closes the transport and gives back what c borrowed. Only what c counted
// can be asked for after it.
func (c *Conn) Release() {
	c.Kill()
	_ = c.transport.Close()
	c.out.stopWatch()
	c.in.release()
}

// Clock tells the time since a moment of its own. Only monotonic time decides
// anything, so that a jump of the wall clock goes unnoticed.
type Clock struct{ epoch time.Time }

// NewClock returns a clock that begins now.
func NewClock() Clock { return Clock{time.Now()} }

// Now returns the time since the clock began.
func (c Clock) Now() time.Duration { return time.Since(c.epoch) }

// Now is the time by the connection's own clock, which those of [Conn.Silence] are
// of too.
func (c *Conn) Now() time.Duration { return c.clock.Now() }

// liveness tells whether the server gives signs of life. Silence counts only while
// the reader waits for the transport: a slow consumer, or a slow large message, is no
// sign of a dead server.
type liveness struct {
	since atomic.Int64  // when the reader began to wait, plus 1; 0 while it does not
	reads atomic.Uint64 // that returned bytes
}

func (l *liveness) waiting(now time.Duration) { l.since.Store(int64(now) + 1) }

func (l *liveness) arrived(n int) {
	l.since.Store(0)
	if n > 0 {
		l.reads.Store(l.reads.Load() + 1) // one writer
	}
}

// Silence tells since when the reader waits for bytes. It reports false while the
// reader does not wait.
func (c *Conn) Silence() (since time.Duration, waiting bool) {
	v := c.in.life.since.Load()
	return time.Duration(v - 1), v != 0
}

// Reads returns how many reads brought bytes.
func (c *Conn) Reads() uint64 { return c.in.life.reads.Load() }
