package main

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
	"strings"
)

// Variants of the messages from the server.
const (
	variantBinary    = "binary"
	variantText      = "text"
	variantTLS       = "TLS"
	variantRSA       = "TLS RSA"
	variantDeflate   = "compressed"
	variantFragments = "fragmented"
	variantTicks     = "ticks"          // compressed without context takeover
	variantTakeover  = "ticks takeover" // compressed with context takeover
)

const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA

	finBit  = 0x80
	rsv1Bit = 0x40
)

// fragments is the number of frames of a fragmented message.
const fragments = 4

// encodeMessage returns the frames of one message from the server.
func encodeMessage(variant string, size int) []byte {
	payload := payloadOf(size)
	switch variant {
	case variantText:
		return appendFrame(nil, finBit|opText, payload)
	case variantDeflate:
		return appendFrame(nil, finBit|rsv1Bit|opText, deflate(payload))
	case variantFragments:
		var frames []byte
		part := (size + fragments - 1) / fragments
		for i := range fragments {
			var first byte = opContinuation
			if i == 0 {
				first = opBinary
			}
			if i == fragments-1 {
				first |= finBit
			}
			frames = appendFrame(frames, first, payload[min(size, i*part):min(size, (i+1)*part)])
		}
		return frames
	default:
		return appendFrame(nil, finBit|opBinary, payload)
	}
}

// payloadOf returns text that looks like what servers push.
func payloadOf(size int) []byte {
	const record = `{"id":4711,"symbol":"RSK","price":101.25,"volume":3200,"side":"buy"},`
	return []byte(strings.Repeat(record, size/len(record)+1)[:size])
}

// appendFrame appends an unmasked frame.
func appendFrame(b []byte, first byte, payload []byte) []byte {
	b = append(b, first)
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n <= 0xFFFF:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// deflate compresses one message.
func deflate(payload []byte) []byte { return newDeflater().message(payload) }

// deflater compresses messages (RFC 7692, section 7.2.1). It keeps its context from one
// to the next, unless it is reset.
type deflater struct {
	out bytes.Buffer
	w   *flate.Writer
}

func newDeflater() *deflater {
	d := new(deflater)
	w, err := flate.NewWriter(&d.out, flate.DefaultCompression)
	if err != nil {
		panic(err) // the level is valid
	}
	d.w = w
	return d
}

// message returns a compressed payload, which is valid until the next call.
func (d *deflater) message(payload []byte) []byte {
	d.out.Reset()
	// A bytes.Buffer takes everything.
	_, _ = d.w.Write(payload)
	_ = d.w.Flush()
	return bytes.TrimSuffix(d.out.Bytes(), []byte{0x00, 0x00, 0xff, 0xff})
}

func (d *deflater) reset() { d.w.Reset(&d.out) }

// readFrame reads one masked frame. It trusts the length.
func readFrame(in *bufio.Reader) (opcode byte, payload []byte, err error) {
	var header [14]byte
	if _, err := io.ReadFull(in, header[:2]); err != nil {
		return 0, nil, err
	}
	length := int(header[1] & 0x7F)
	switch length {
	case 126:
		_, err = io.ReadFull(in, header[2:4])
		length = int(binary.BigEndian.Uint16(header[2:]))
	case 127:
		_, err = io.ReadFull(in, header[2:10])
		length = int(binary.BigEndian.Uint64(header[2:]))
	}
	if err != nil {
		return 0, nil, err
	}
	masked := make([]byte, 4+length)
	if _, err := io.ReadFull(in, masked); err != nil {
		return 0, nil, err
	}
	key, payload := masked[:4], masked[4:]
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return header[0] & 0x0F, payload, nil
}
