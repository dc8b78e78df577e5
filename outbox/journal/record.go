package journal

import (
	"encoding/binary"
	"hash/crc32"
	"math"

	"github.com/resock/resock"
)

// A file is a head and records. A record is a header and a body. All numbers are little
// endian, and all checksums CRC-32C.
//
//	head     magic 8 · version 4 · first number 8 · checksum of these 4
//	header   checksum of the rest of it 4 · length of the body 4 · checksum of the body 4 ·
//	         kind 1 · type of the message 1 · length of the id 2 · number 8
//	body     of a put: id, data; of a done: ranges of numbers, each first 8 · last 8
//
// The header has a checksum of its own, so that a damaged body costs no other record, and
// a search for the next record after damage costs little.
const (
	magic      = "resockJ\n"
	version    = 1
	headSize   = 24
	headerSize = 24

	kindPut  = 1
	kindDone = 2

	mostID     = math.MaxUint16
	mostNumber = 1 << 62
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	order      = binary.LittleEndian
)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// appendHead appends the head of a file whose numbers begin with first.
func appendHead(b []byte, first uint64) []byte {
	start := len(b)
	b = append(b, magic...)
	b = order.AppendUint32(b, version)
	b = order.AppendUint64(b, first)
	return order.AppendUint32(b, checksum(b[start:]))
}

// parseHead reads a head. ok is false if it is damaged.
func parseHead(b []byte) (format uint32, first uint64, ok bool) {
	if len(b) < headSize || string(b[:8]) != magic || order.Uint32(b[20:]) != checksum(b[:20]) {
		return 0, 0, false
	}
	return order.Uint32(b[8:]), order.Uint64(b[12:]), true
}

// header is the header of a record.
type header struct {
	length   int64 // of the body
	sum      uint32
	kind     byte
	typ      byte
	idLength uint16
	number   uint64
}

// size is the number of bytes of the record.
func (h header) size() int64 { return headerSize + h.length }

// appendRecord appends a record, of a body in two parts.
func appendRecord(b []byte, h header, id string, data []byte) []byte {
	start := len(b)
	b = append(b, make([]byte, headerSize)...)
	b = append(append(b, id...), data...)
	head, body := b[start:start+headerSize], b[start+headerSize:]
	order.PutUint32(head[4:], uint32(len(body)))
	order.PutUint32(head[8:], checksum(body))
	head[12], head[13] = h.kind, h.typ
	order.PutUint16(head[14:], uint16(len(id)))
	order.PutUint64(head[16:], h.number)
	order.PutUint32(head, checksum(head[4:]))
	return b
}

func appendPut(b []byte, number uint64, id string, typ resock.MessageType, data []byte) []byte {
	return appendRecord(b, header{kind: kindPut, typ: byte(typ), number: number}, id, data)
}

func appendDone(b []byte, ranges []span) []byte {
	body := make([]byte, 0, 16*len(ranges))
	for _, r := range ranges {
		body = order.AppendUint64(order.AppendUint64(body, r.first), r.last)
	}
	return appendRecord(b, header{kind: kindDone}, "", body)
}

// parseHeader reads a header. ok is false if b does not begin with one.
func parseHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || order.Uint32(b) != checksum(b[4:headerSize]) {
		return h, false
	}
	h = header{int64(order.Uint32(b[4:])), order.Uint32(b[8:]), b[12], b[13], order.Uint16(b[14:]), order.Uint64(b[16:])}
	switch h.kind {
	case kindPut:
		return h, int64(h.idLength) <= h.length && h.number > 0 && h.number < mostNumber
	case kindDone:
		return h, h.length%16 == 0
	}
	return h, false
}

// parseDone reads the ranges of a done record, and passes over those that make no sense.
func parseDone(body []byte) (ranges []span) {
	for ; len(body) >= 16; body = body[16:] {
		r := span{order.Uint64(body), order.Uint64(body[8:])}
		if r.first > 0 && r.first <= r.last && r.last < mostNumber {
			ranges = append(ranges, r)
		}
	}
	return ranges
}
