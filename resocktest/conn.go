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

// Conn is the server's side of one WebSocket connection. It reads on its own
// from the start: messages wait for [Conn.Read], pings are answered, and so is a
// close frame, after which the connection is closed. [Conn.Received] tells what
// came.
//
// All methods may be called concurrently. Those that send return an error when
// the connection has ended; a test that made it end may ignore that.
type Conn struct {
	link    *link
	stream  net.Conn // link, or TLS over it
	reader  *bufio.Reader
	request *http.Request

	done     chan struct{}
	turn     chan struct{} // held by who writes; waiting for it is durably blocking
	messages *queue[Message]

	mu          sync.Mutex
	ignorePings bool
	ignoreClose bool
	closing     bool // Close was called
	received    Received

	partial Message // what its last frame is missing of; the reader's own
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

// Received returns what came so far.
func (c *Conn) Received() Received {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received.clone()
}

// Done returns a channel that is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Read returns the next message. When the connection has ended and there is none
// left, the error is io.EOF.
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

// Ping sends a ping. The answer is among the pongs of [Conn.Received].
func (c *Conn) Ping(payload string) error { return c.Raw(Frame(finBit|opPing, []byte(payload))) }

// Pong sends a pong.
func (c *Conn) Pong(payload string) error { return c.Raw(Frame(finBit|opPong, []byte(payload))) }

// Echo sends every message back, until the connection ends.
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

// Close begins the closing handshake and does not wait for its end: that is
// [Conn.Done]. The code and the reason may be any, also what RFC 6455 forbids.
func (c *Conn) Close(code websocket.StatusCode, reason string) error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	return c.Raw(Frame(finBit|opClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)))
}

// Raw sends bytes as they are: any frame, several of them at once, or a part of
// one. See [Frame].
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

// IgnorePings leaves pings unanswered from now on. They are still recorded.
func (c *Conn) IgnorePings() { c.set(func() { c.ignorePings = true }) }

// AnswerPings undoes [Conn.IgnorePings].
func (c *Conn) AnswerPings() { c.set(func() { c.ignorePings = false }) }

// IgnoreClose leaves the client's close frame unanswered and the connection
// open after it.
func (c *Conn) IgnoreClose() { c.set(func() { c.ignoreClose = true }) }

func (c *Conn) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// StopReading reads nothing more from the network, so that the client's writes
// block when the buffers in between are full. To the client the server is a
// black hole, unless it sends. The end of the connection goes unnoticed, too.
func (c *Conn) StopReading() { c.link.stopReading() }

// StartReading undoes [Conn.StopReading].
func (c *Conn) StartReading() { c.link.startReading() }

// CutAfter closes the connection, as Drop does, as soon as n more bytes were
// sent: of frames, or of TLS records if there are any.
func (c *Conn) CutAfter(n int) { c.link.cutAfter(n) }

// HalfClose tells the client that nothing more comes (FIN), and goes on reading.
func (c *Conn) HalfClose() error { return c.link.CloseWrite() }

// Drop closes the connection without a closing handshake (FIN).
func (c *Conn) Drop() { c.end(net.ErrClosed) }

// Reset closes the connection by a reset (RST).
func (c *Conn) Reset() {
	c.link.reset()
	c.end(net.ErrClosed)
}

// end records how the connection ended, if it had not before, and closes it.
func (c *Conn) end(err error) {
	_ = c.link.Close() // first: when Done is closed, nothing can be sent
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.received.Ended.IsZero() {
		c.received.Ended, c.received.Err = time.Now(), err
		close(c.done)
	}
}
