package resocktest

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/coder/websocket"
)

// Received is what a [Conn] received so far, and how the connection ended.
type Received struct {
	Opened   time.Time
	Messages []Message
	Pings    []Control
	Pongs    []Control
	Close    *CloseFrame // the first, or nil

	Ended time.Time // or zero
	// Err tells how the connection ended: nil after a closing handshake, io.EOF
	// if the client closed it without one, net.ErrClosed if the server closed it,
	// else an error of the network or the client's protocol violation.
	Err error
}

// Message is a complete message. A compressed one is not decompressed.
type Message struct {
	Time time.Time
	Type websocket.MessageType
	Data []byte
}

// Control is a ping or a pong.
type Control struct {
	Time    time.Time
	Payload []byte
}

// CloseFrame is a close frame.
type CloseFrame struct {
	Time   time.Time
	Code   websocket.StatusCode // StatusNoStatusRcvd if the frame had none
	Reason string
}

func newCloseFrame(payload []byte) *CloseFrame {
	f := &CloseFrame{Time: time.Now(), Code: websocket.StatusNoStatusRcvd}
	if len(payload) >= 2 {
		f.Code = websocket.StatusCode(binary.BigEndian.Uint16(payload))
		f.Reason = string(payload[2:])
	}
	return f
}

// clone returns a copy with slices of its own; what they refer to is shared.
func (r Received) clone() Received {
	r.Messages = slices.Clone(r.Messages)
	r.Pings = slices.Clone(r.Pings)
	r.Pongs = slices.Clone(r.Pongs)
	return r
}
