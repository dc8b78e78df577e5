package resocktest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Conn is the server's end of one WebSocket connection. It reads by itself from
// the start: it buffers messages for [Conn.Read], answers pings, and answers a
// close frame, after which it closes the connection. [Conn.Received] returns what
// was received.
//
// All methods may be called concurrently. Those that send return an error once
// the connection has ended; a test that ended it may ignore the error.
type Conn struct {
	link    *link
	stream  net.Conn // link, or TLS over it
	reader  *bufio.Reader
	request *http.Request

	done     chan struct{}
	turn     chan struct{} // a mutex for writing, on which waiting is durably blocking
	messages *queue[Message]

	mu          sync.Mutex
	ignorePings bool
	ignoreClose bool
	closing     bool // Close was called
	received    Received

	partial Message // a fragmented message so far; only read uses it
}

func newConn(v *visit) *Conn {
	return &Conn{
		link:     v.link,
		stream:   v.stream,
		reader:   v.reader,
		request:  v.request,
		done:     make(chan struct{}),
		turn:     make(chan struct{}, 1),
		messages: newQueue[Message](),
		received: Received{Opened: time.Now()},
	}
}

// Request returns the upgrade request.
func (c *Conn) Request() *http.Request { return c.request }

// Received returns what was received so far. Data and payloads are shared and must
// not be changed.
func (c *Conn) Received() Received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received.clone()
}

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Read waits for the next message and returns it. Once the connection has ended and
// all messages are read, the error is io.EOF, however it ended: see [Received.Err].
func (c *Conn) Read() (Message, error) {
	for {
		message, ok, more := c.messages.pop()
		if ok {
			return message, nil
		}
		select {
		case <-more:
			continue
		case <-c.done:
		}
		if message, ok, _ = c.messages.pop(); ok {
			return message, nil
		}
		return Message{}, io.EOF
	}
}

// Push sends a text message.
func (c *Conn) Push(text string) error { return c.Raw(Frame(finBit|opText, []byte(text))) }

// PushBinary sends a binary message.
func (c *Conn) PushBinary(data []byte) error { return c.Raw(Frame(finBit|opBinary, data)) }

// Ping sends a ping. The client's pong is in [Conn.Received].
func (c *Conn) Ping(payload string) error { return c.Raw(Frame(finBit|opPing, []byte(payload))) }

// Pong sends a pong.
func (c *Conn) Pong(payload string) error { return c.Raw(Frame(finBit|opPong, []byte(payload))) }

// Echo sends every message back until the connection ends.
func (c *Conn) Echo() {
	for {
		message, err := c.Read()
		if err != nil {
			return
		}
		if c.Raw(Frame(finBit|byte(message.Type), message.Data)) != nil {
			return
		}
	}
}

// Close sends a close frame and returns; [Conn.Done] is closed at the end of the
// closing handshake. Code and reason are sent as given, even if RFC 6455 forbids
// them.
func (c *Conn) Close(code websocket.StatusCode, reason string) error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	return c.Raw(Frame(finBit|opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)))
}

// Raw sends bytes as they are: a frame, several at once, or part of one. See
// [Frame].
func (c *Conn) Raw(b []byte) error {
	select {
	case c.turn <- struct{}{}:
	case <-c.done:
		return net.ErrClosed
	}
	defer func() { <-c.turn }()
	_, err := c.stream.Write(b)
	return err
}

// IgnorePings leaves further pings unanswered. They are still recorded.
func (c *Conn) IgnorePings() { c.set(func() { c.ignorePings = true }) }

// AnswerPings undoes [Conn.IgnorePings].
func (c *Conn) AnswerPings() { c.set(func() { c.ignorePings = false }) }

// IgnoreClose leaves the client's close frame unanswered, and the connection open.
func (c *Conn) IgnoreClose() { c.set(func() { c.ignoreClose = true }) }

func (c *Conn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// StopReading stops reading from the network, so that the client's writes block
// once the buffers in between are full. The server can still send; until it does, it
// looks dead to the client. It does not notice the end of the connection, either.
func (c *Conn) StopReading() { c.link.stopReading() }

// StartReading undoes [Conn.StopReading].
func (c *Conn) StartReading() { c.link.startReading() }

// CutAfter closes the connection without a closing handshake, like [Conn.Drop],
// once n more bytes are sent. With TLS it counts the bytes of TLS records.
func (c *Conn) CutAfter(n int) { c.link.cutAfter(n) }

// HalfClose shuts down the sending direction (FIN). Reading goes on.
func (c *Conn) HalfClose() error { return c.link.CloseWrite() }

// Drop closes the TCP connection without a closing handshake (FIN).
func (c *Conn) Drop() { c.end(net.ErrClosed) }

// Reset aborts the TCP connection (RST).
func (c *Conn) Reset() {
	c.link.reset()
	c.end(net.ErrClosed)
}

// end closes the connection. The first call records how it ended.
func (c *Conn) end(err error) {
	_ = c.link.Close() // first, since nothing may be sent once Done is closed
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.received.Ended.IsZero() {
		c.received.Ended, c.received.Err = time.Now(), err
		close(c.done)
	}
}
