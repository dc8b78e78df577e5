package resocktest

import (
	"errors"
	"net"
	"time"

	"github.com/coder/websocket"
)

// read handles what the client sends, until the connection ends.
func (c *Conn) read() {
	for {
		c.link.awaitReading() // frames may have been read ahead
		f, err := readFrame(c.reader)
		if err != nil {
			c.end(plain(err))
			return
		}
		if over, err := c.handle(f); over || err != nil {
			c.end(err)
			return
		}
	}
}

// plain unwraps net.ErrClosed, so that tests can compare [Received.Err] with it.
func plain(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	return err
}

// handle reports whether the closing handshake is over.
func (c *Conn) handle(f frame) (over bool, err error) {
	switch f.opcode() {
	case opText, opBinary, opContinuation:
		return false, c.handleData(f)
	case opPing:
		c.handlePing(f.payload)
		return false, nil
	case opPong:
		c.set(func() { c.received.Pongs = append(c.received.Pongs, Control{time.Now(), f.payload}) })
		return false, nil
	case opClose:
		return c.handleClose(f.payload), nil
	}
	return false, errOpcode
}

// handleData assembles messages from their frames.
func (c *Conn) handleData(f frame) error {
	if first := f.opcode() != opContinuation; first != (c.partial.Type == 0) {
		return errSequence
	} else if first {
		c.partial.Type = websocket.MessageType(f.opcode())
	}
	c.partial.Data = append(c.partial.Data, f.payload...)
	if !f.fin() {
		return nil
	}
	message := c.partial
	message.Time = time.Now()
	c.partial = Message{}
	c.set(func() { c.received.Messages = append(c.received.Messages, message) })
	c.messages.push(message)
	return nil
}

func (c *Conn) handlePing(payload []byte) {
	var ignore bool
	c.set(func() {
		c.received.Pings = append(c.received.Pings, Control{time.Now(), payload})
		ignore = c.ignorePings
	})
	if !ignore {
		_ = c.Pong(string(payload)) // if that fails, the next read tells why
	}
}

// handleClose reports whether the closing handshake is over.
func (c *Conn) handleClose(payload []byte) bool {
	var ignore, closing bool
	c.set(func() {
		if c.received.Close == nil {
			c.received.Close = newCloseFrame(payload)
		}
		ignore, closing = c.ignoreClose, c.closing
	})
	if ignore {
		return false
	}
	if !closing {
		_ = c.Raw(Frame(finBit|opClose, payload))
	}
	return true
}
