package wire

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"strings"
	"unicode/utf8"
)

// Opcodes, header bits and sizes of a frame (RFC 6455, sections 5.2 and 5.5).
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

// The close codes that a client sends for violations, and codeNone, which stands for a
// close frame without a code (RFC 6455, section 7.4.1).
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
	size   int   // of the header itself, in bytes
	length int64 // of the payload, in bytes; negative if the forbidden top bit is set
}

func (h header) fin() bool     { return h.first&finBit != 0 }
func (h header) opcode() byte  { return h.first & 0x0F }
func (h header) control() bool { return h.opcode() >= opClose }

// minimal reports whether the payload length of an unmasked frame has the shortest
// possible encoding, as RFC 6455, section 5.2, requires.
func (h header) minimal() bool {
	switch h.size {
	case 4:
		return h.length > maxControlPayload
	case 10:
		return h.length > math.MaxUint16
	}
	return true
}

// parseHeader parses the frame header at the front of b. It reports false if b does not
// hold all of it.
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

// FrameSize returns the size of a masked frame with a payload of the given size, both
// in bytes.
func FrameSize(payload int) int {
	switch {
	case payload <= maxControlPayload:
		return 6 + payload
	case payload <= math.MaxUint16:
		return 8 + payload
	}
	return maxHeader + payload
}

// appendFrame appends a masked frame. b must have the capacity for it.
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
	key := rand.Uint32() // unpredictable, as section 5.3 demands: ChaCha8, seeded by the system
	b = binary.LittleEndian.AppendUint32(b, key)
	return appendMasked(b, payload, key)
}

// appendMasked appends the masked payload (RFC 6455, section 5.3). b must have the
// capacity for it.
func appendMasked(b, payload []byte, key uint32) []byte {
	at := len(b)
	b = b[:at+len(payload)]
	dst, key64 := b[at:], uint64(key)<<32|uint64(key)
	le := binary.LittleEndian
	for len(payload) >= 32 && len(dst) >= 32 { // both, so that no bounds are checked inside
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

// ValidCloseCode reports whether a close frame may contain code (RFC 6455, section 7.4,
// and the IANA registry).
func ValidCloseCode(code int) bool {
	switch {
	case code == 1004, code == 1005, code == 1006:
		return false
	case code >= 1000 && code <= 1014:
		return true
	}
	return code >= 3000 && code <= 4999
}

// maxReason is the largest reason that fits into a close frame, behind its code, in
// bytes (RFC 6455, section 5.5.1).
const maxReason = maxControlPayload - 2

// CutReason returns reason as valid UTF-8 that fits into a close frame. Invalid bytes
// become U+FFFD, and a reason that is too long is cut at a character boundary.
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

// closeBody returns the payload of a close frame.
func closeBody(code int, reason string) []byte {
	if code == codeNone {
		return nil
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), CutReason(reason)...)
}
