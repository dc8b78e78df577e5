package resocktest

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
)

// The first byte of a frame (RFC 6455, section 5.2).
const (
	finBit  = 0x80
	rsvBits = 0x70

	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	maskBit = 0x80
)

// Frame returns an unmasked frame for [Conn.Raw]. first is its first byte: FIN (0x80),
// RSV1 to RSV3 (0x40, 0x20, 0x10) and the opcode. The length is minimally encoded.
func Frame(first byte, payload []byte) []byte {
	frame := []byte{first}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, byte(n))
	case n <= math.MaxUint16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(n))
	}
	return append(frame, payload...)
}

// maxPayload bounds what readFrame allocates for a length that is not to be trusted.
const maxPayload = 256 << 20

var (
	errUnmasked = errors.New("resocktest: the client sent an unmasked frame")
	errTooLong  = errors.New("resocktest: the client sent a frame of more than 256 MiB")
	errOpcode   = errors.New("resocktest: the client sent an unknown opcode")
	errSequence = errors.New("resocktest: the client sent a continuation frame outside of a message, or began a message within another")
	errControl  = errors.New("resocktest: the client sent a control frame that is fragmented or longer than 125 bytes")
)

// frame is a frame from the client, unmasked.
type frame struct {
	first   byte
	payload []byte
}

func (f frame) fin() bool    { return f.first&finBit != 0 }
func (f frame) opcode() byte { return f.first & 0xF }

// readFrame reads and unmasks a frame. The error is io.EOF only between frames.
func readFrame(r *bufio.Reader) (f frame, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return f, err
	}
	if head[1]&maskBit == 0 {
		return f, errUnmasked
	}
	length, err := readLength(r, head[1]&^maskBit)
	if err != nil {
		return f, unexpected(err)
	}
	f.first = head[0]
	if f.opcode() >= opClose && (!f.fin() || length > 125) {
		return f, errControl
	}
	var mask [4]byte
	if _, err := io.ReadFull(r, mask[:]); err != nil {
		return f, unexpected(err)
	}
	f.payload = make([]byte, length)
	if _, err := io.ReadFull(r, f.payload); err != nil {
		return f, unexpected(err)
	}
	for i := range f.payload {
		f.payload[i] ^= mask[i%4]
	}
	return f, nil
}

func readLength(r io.Reader, short byte) (uint64, error) {
	var b [8]byte
	size := map[byte]int{126: 2, 127: 8}[short]
	if size == 0 {
		return uint64(short), nil
	}
	if _, err := io.ReadFull(r, b[8-size:]); err != nil {
		return 0, err
	}
	length := binary.BigEndian.Uint64(b[:])
	if length > maxPayload {
		return 0, errTooLong
	}
	return length, nil
}

// unexpected turns io.EOF within a frame into io.ErrUnexpectedEOF.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
