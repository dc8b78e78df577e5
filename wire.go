package resock

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"
	"unicode/utf8"
)

// wire is the byte layer under coder/websocket: it takes the place of the body
// of the 101 response and sees every byte in both directions. wireReader
// guards what comes in and delivers plain messages itself; wireWriter coalesces
// what goes out.
type wire struct {
	wireReader
	wireWriter

	body   io.ReadWriteCloser
	raw    net.Conn // beneath TLS; nil when the HTTP client hides it
	linger time.Duration

	killOnce sync.Once
}

// clock tells the time since a moment of its own. Only monotonic time decides
// anything, so that a jump of the wall clock goes unnoticed.
type clock struct{ epoch time.Time }

func (c clock) now() time.Duration { return time.Since(c.epoch) }

// newWire returns the wire over the body of a 101 response. Until it is set up
// by a session it is silent: a response that coder/websocket refuses has no
// body to wait for.
func newWire(body io.ReadWriteCloser, raw net.Conn) *wire {
	w := &wire{body: body, raw: raw}
	w.wireReader.clock = clock{time.Now()}
	w.wireWriter.clock = w.wireReader.clock
	w.wireReader.src = body
	w.wireReader.rest = func() {}
	w.wireReader.err = io.EOF
	w.wireWriter.dst = body
	w.wireWriter.flushed.L = &w.wireWriter.mu
	return w
}

// Close is how coder/websocket closes the connection. After a violation, what
// the server still sends is read for a moment: closing with unread bytes resets
// the connection, and the reset may overtake our close frame (RFC 6455,
// section 7.1.1).
func (w *wire) Close() error {
	if half, ok := w.raw.(interface{ CloseWrite() error }); ok && w.linger > 0 {
		_ = half.CloseWrite()
		timer := time.AfterFunc(w.linger, w.kill)
		var scratch [512]byte
		for err := error(nil); err == nil; {
			_, err = w.body.Read(scratch[:])
		}
		timer.Stop()
	}
	return w.body.Close()
}

// kill ends the connection at once: no close frame, no TLS alert, and whoever
// reads or writes returns.
func (w *wire) kill() {
	w.killOnce.Do(func() {
		if w.raw != nil {
			_ = w.raw.Close()
			return
		}
		_ = w.body.Close()
	})
}

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	finBit  = 0x80
	rsv1Bit = 0x40
	maskBit = 0x80

	maxFrameHeader    = 14
	maxControlPayload = 125
)

// frameHeader is the header of a frame (RFC 6455, section 5.2).
type frameHeader struct {
	first  byte // FIN, RSV1 to RSV3, opcode
	masked bool
	size   int   // of the header itself
	length int64 // of the payload; negative when its top bit is set
}

func (h frameHeader) fin() bool    { return h.first&finBit != 0 }
func (h frameHeader) rsv() byte    { return h.first & 0x70 }
func (h frameHeader) opcode() byte { return h.first & 0x0F }
func (h frameHeader) control() bool {
	return h.opcode() >= opClose
}

// parseFrameHeader reports false when b does not hold the whole header.
func parseFrameHeader(b []byte) (h frameHeader, ok bool) {
	if len(b) < 2 {
		return h, false
	}
	h.first, h.masked, h.size, h.length = b[0], b[1]&maskBit != 0, 2, int64(b[1]&^maskBit)
	switch h.length {
	case 126:
		if len(b) < 4 {
			return h, false
		}
		h.size, h.length = 4, int64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return h, false
		}
		h.size, h.length = 10, int64(binary.BigEndian.Uint64(b[2:]))
	}
	if h.masked {
		h.size += 4
	}
	return h, len(b) >= h.size
}

// validCloseCode reports whether code may stand in a close frame (RFC 6455,
// section 7.4, and the IANA registry).
func validCloseCode(code StatusCode) bool {
	switch {
	case code == 1004, code == 1005, code == 1006:
		return false
	case code >= 1000 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}

// utf8Checker checks text that comes in pieces, and fails at the first byte
// that no continuation can make valid.
type utf8Checker struct {
	tail [utf8.UTFMax]byte // an unfinished sequence
	n    int
}

// write reports whether the text up to the end of p can still become valid.
func (u *utf8Checker) write(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.tail[u.n] = p[0]
		u.n++
		p = p[1:]
		if sequence := u.tail[:u.n]; utf8.FullRune(sequence) {
			if !utf8.Valid(sequence) {
				return false
			}
			u.n = 0
		}
	}
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		rest := p[len(p)-i:]
		if !utf8.RuneStart(rest[0]) {
			continue
		}
		if !utf8.FullRune(rest) {
			u.n = copy(u.tail[:], rest)
			p = p[:len(p)-i]
		}
		break
	}
	return utf8.Valid(p)
}

// done reports whether the text may end here, and starts a new one.
func (u *utf8Checker) done() bool {
	complete := u.n == 0
	u.n = 0
	return complete
}
