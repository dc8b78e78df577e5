package wire

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// The opcodes and bits of a frame (RFC 6455, section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	finBit  = 0x80
	rsvBits = 0x70
	rsv1Bit = 0x40
	maskBit = 0x80

	maxHeader         = 14
	maxControlPayload = 125
)

// The close codes that a client sends for violations (RFC 6455, section 7.4.1), and
// the one that stands for none.
const (
	codeProtocolError = 1002
	codeNone          = 1005
	codeInvalidData   = 1007
	codeTooBig        = 1009
)

// header is the header of a frame (RFC 6455, section 5.2).
type header struct {
	first  byte // FIN, RSV1 to RSV3, opcode
	masked bool
	size   int   // of the header itself
	length int64 // of the payload; negative when its top bit is set
}

func (h header) fin() bool     { return h.first&finBit != 0 }
func (h header) opcode() byte  { return h.first & 0x0F }
func (h header) control() bool { return h.opcode() >= opClose }

// minimal reports whether the length of an unmasked frame has its shortest form.
func (h header) minimal() bool {
	switch h.size {
	case 4:
		return h.length > maxControlPayload
	case 10:
		return h.length > math.MaxUint16
	}
	return true
}

// parseHeader reports false when b does not hold the whole header.
func parseHeader(b []byte) (h header, ok bool) {
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

// FrameSize is the size of a frame that carries so many bytes to a server.
func FrameSize(payload int) int {
	switch {
	case payload <= maxControlPayload:
		return 6 + payload
	case payload <= math.MaxUint16:
		return 8 + payload
	}
	return maxHeader + payload
}

// appendFrame appends a whole masked frame.
func appendFrame(b []byte, first byte, payload []byte) []byte {
	b = append(b, first)
	switch n := len(payload); {
	case n <= maxControlPayload:
		b = append(b, maskBit|byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	key := rand.Uint32() // of a ChaCha8 generator with a seed of the system's
	b = binary.LittleEndian.AppendUint32(b, key)
	return appendMasked(b, payload, key)
}

// appendMasked appends payload, masked (RFC 6455, section 5.3). b has room for it.
func appendMasked(b, payload []byte, key uint32) []byte {
	at := len(b)
	b = b[:at+len(payload)]
	dst, key64 := b[at:], uint64(key)<<32|uint64(key)
	le := binary.LittleEndian
	for len(payload) >= 32 && len(dst) >= 32 { // the compiler checks no bounds within
		le.PutUint64(dst, le.Uint64(payload)^key64)
		le.PutUint64(dst[8:], le.Uint64(payload[8:])^key64)
		le.PutUint64(dst[16:], le.Uint64(payload[16:])^key64)
		le.PutUint64(dst[24:], le.Uint64(payload[24:])^key64)
		dst, payload = dst[32:], payload[32:]
	}
	for len(payload) >= 8 && len(dst) >= 8 {
		le.PutUint64(dst, le.Uint64(payload)^key64)
		dst, payload = dst[8:], payload[8:]
	}
	for i := range payload {
		dst[i] = payload[i] ^ byte(key64)
		key64 >>= 8
	}
	return b
}

// ValidCloseCode reports whether code may stand in a close frame (RFC 6455,
// section 7.4, and the IANA registry).
func ValidCloseCode(code int) bool {
	switch {
	case code == 1004, code == 1005, code == 1006:
		return false
	case code >= 1000 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}

// maxReason is the room for a reason in a close frame (RFC 6455, section 5.5.1).
const maxReason = maxControlPayload - 2

// CutReason makes reason fit into a close frame, as valid UTF-8.
func CutReason(reason string) string {
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= maxReason {
		return reason
	}
	end := maxReason
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}

// closeBody is the payload of a close frame.
func closeBody(code int, reason string) []byte {
	if code == codeNone {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), CutReason(reason)...)
}
