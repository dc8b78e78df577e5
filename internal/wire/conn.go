package wire

import (
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Conn is the client side of a WebSocket connection. Its zero value is ready for
// [Conn.Start], after which it must not be copied.
type Conn struct {
	in     reader
	out    writer
	clock  *Clock
	owner  Owner
	config *Config

	life      life
	transport io.ReadWriteCloser
	network   net.Conn // beneath TLS; nil if unknown
	meter     *Network // over network; nil if there is none
	deflate   Deflate
	killed    atomic.Bool                // any goroutine may kill, and only the first call closes
	cut       atomic.Pointer[time.Timer] // closes a connection that is left to Linger, at last; or nil
}

// Owner decides what the protocol does not, and is told about failures.
type Owner interface {
	// Ping reports whether to answer a ping. It is called on the reading goroutine.
	// The payload is valid only during the call.
	Ping(payload []byte) (answer bool)

	// Pong is called for every pong, on the reading goroutine. The payload is valid
	// only during the call.
	Pong(payload []byte)

	// Stalled is called at most once, when a write exceeds the write timeout. It runs
	// on a goroutine of its own. The write goes on until the owner kills the
	// connection.
	Stalled()

	// Failed is called at most once, with the first write error, before any writer
	// sees that error.
	Failed(err error)

	// Go runs f on a goroutine, which the owner must join before it releases the
	// connection.
	Go(f func())
}

// Config is shared by many connections. It must not change while one uses it.
type Config struct {
	ReadLimit    int64         // largest message accepted, in bytes, decompressed
	WriteTimeout time.Duration // of a write that makes no progress
	CloseTimeout time.Duration // of Conn.Close
	CompressFrom int32         // smallest message that is compressed, in bytes
	Counters     *Counters
	Clock        *Clock // of all connections; if nil, each has its own, from Start on
}

// Counters are atomic, so that they can be read at any time, by any goroutine. All
// connections that share a [Config] add to them.
type Counters struct {
	MessagesIn        atomic.Uint64
	BytesIn, BytesOut atomic.Uint64 // as transferred: headers and compressed payloads
	RoundTrip         atomic.Int64  // of the ping answered last, in nanoseconds
	LastMessage       atomic.Int64  // when the read returned that brought it, by the clock, plus 1 ns; 0 if none came
}

// Start starts c on a transport whose opening handshake is done. The network
// connection beneath TLS may be nil if it is unknown. If it is known, Kill does not
// wait for TLS to send its closing alert, and Close can shut down one direction only. If
// it is a [Network], signs of life are counted there.
func (c *Conn) Start(transport io.ReadWriteCloser, network net.Conn, deflate Deflate, config *Config, owner Owner) {
	c.transport, c.network, c.deflate, c.config, c.owner = transport, network, deflate, config, owner
	if c.clock = config.Clock; c.clock == nil {
		own := NewClock()
		c.clock = &own
	}
	c.in.c, c.out.c = c, c
	c.out.flushed.L = &c.out.mu
	if meter, ok := network.(*Network); ok {
		c.network, c.meter = meter.Conn, meter
		meter.over.Store(c)
	}
	c.in.at = c.Now()
	c.life.marked.Store(1) // no beat is to be taken
	c.life.asked.Store(unasked)
	c.life.fed.Store(int64(c.in.at))
}

// Closed is the end of reading because the server sent a close frame.
type Closed struct {
	Code   int // 1005 if the frame has none (RFC 6455, section 7.1.5)
	Reason string
}

func (e *Closed) Error() string { return fmt.Sprintf("closed by the server: %d %q", e.Code, e.Reason) }

// Violation is the end of reading because the server violated the protocol or
// exceeded the read limit. Code and Text go into the close frame that answers it.
type Violation struct {
	Code int
	Text string
	Came *Closed // what an illegal close frame says, made valid UTF-8; nil if it was none
}

func (e *Violation) Error() string { return fmt.Sprintf("protocol error %d: %s", e.Code, e.Text) }

// Lost is the end of reading because of an error of the transport, which may be
// io.EOF.
type Lost struct{ Err error }

func (e *Lost) Error() string { return fmt.Sprintf("connection lost: %v", e.Err) }
func (e *Lost) Unwrap() error { return e.Err }

// lingerAfterViolation bounds how long Close waits for the server to close the
// connection after a violation.
const lingerAfterViolation = time.Second

// Close finishes the closing handshake after reading has ended: it answers the
// server's close frame, or sends one for a violation and lingers for a moment. If the
// connection was lost, it does nothing. It returns when the network has accepted the
// close frame, or has failed; when the close timeout expires, it kills the connection.
// Only the reading goroutine may call it.
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

// linger discards what the server still sends: closing a socket with unread data
// resets the connection, and the server may never read our close frame (RFC 6455,
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

// Kill cuts the connection, without a close frame. Reads and writes in progress
// return. If the network connection is known, TLS sends no closing alert either. Any
// goroutine may call Kill, any number of times.
func (c *Conn) Kill() {
	switch {
	case c.killed.Swap(true):
	case c.network != nil:
		_ = c.network.Close()
	default:
		_ = c.transport.Close()
	}
}

// Part ends reading after our close frame was sent, and leaves the connection open for the
// server to read it: closing a socket with unread data would reset it. Whoever owns the
// connection must then call [Conn.Linger]; after d it is closed in any case. Part kills the
// connection if there is no such frame, or no way to end reading but that. Any goroutine
// may call Part.
func (c *Conn) Part(d time.Duration) {
	if c.network == nil || !c.CloseSent() {
		c.Kill()
		return
	}
	if c.killed.Swap(true) {
		return
	}
	c.cut.Store(time.AfterFunc(d, func() { _ = c.network.Close() }))
	if c.network.SetReadDeadline(time.Unix(1, 0)) != nil {
		_ = c.network.Close()
	}
}

// Linger reads what the server still sends, and closes a connection that [Conn.Part] has
// left, at the latest when its time is over. It does nothing else. It may be called once,
// after Release.
func (c *Conn) Linger() {
	cut := c.cut.Load()
	if cut == nil {
		return
	}
	_ = c.network.SetReadDeadline(time.Time{})
	defer cut.Stop()
	var scratch [512]byte
	for err := error(nil); err == nil; {
		_, err = c.network.Read(scratch[:])
	}
	_ = c.network.Close()
	_ = c.transport.Close()
}

// Cut is Kill, and also closes a connection that [Conn.Part] has left. Any goroutine may
// call it.
func (c *Conn) Cut() {
	if c.Kill(); c.Parted() {
		_ = c.network.Close()
	}
}

// Parted reports whether there is a connection for [Conn.Linger].
func (c *Conn) Parted() bool { return c.cut.Load() != nil }

// Release closes the transport, unless Part has left it, and returns pooled memory.
// Nothing may read or write any more. Afterwards only Kill, Cut, Linger and the methods that
// report state, such as [Conn.End] and [Conn.CloseSent], may be called.
func (c *Conn) Release() {
	c.Kill()
	if !c.Parted() {
		_ = c.transport.Close()
	}
	c.out.stopWatch()
	c.in.release()
}

// Clock measures time since its creation. It uses monotonic time only, so that
// changes of the wall clock do not matter.
type Clock struct{ epoch time.Time }

// NewClock returns a clock that starts now.
func NewClock() Clock { return Clock{time.Now()} }

// Now returns the time since the clock started.
func (c Clock) Now() time.Duration { return time.Since(c.epoch) }

// Now returns the time since the clock started: that of the [Config], or at [Conn.Start].
func (c *Conn) Now() time.Duration { return c.clock.Now() }
