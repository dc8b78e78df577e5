package resock

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"sync"
	"unicode/utf8"

	"github.com/coder/websocket"
)

// Sizes of the receive buffer. The larger ones are borrowed for as long as reads
// need them, so an idle client, whose last read was a pong, holds none.
const (
	inlineBuffer = 256
	smallBuffer  = 4 << 10
	largeBuffer  = 32 << 10 // larger ones are slower: their data leaves the nearest cache
)

const (
	maxCarved = 2 << 10  // a larger message has memory of its own
	blockSize = 16 << 10 // smaller ones share blocks of at most this size
	growFrom  = 1 << 20  // a larger message gets memory only as it arrives

	maxEmptyFrames = 1000 // continuations in a row
)

// The buffers are borrowed from these.
var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

var (
	errTransport = errors.New("resock: connection lost") // never an io.EOF: see fail
	errAborted   = errors.New("resock: delivery aborted")
)

// wireReader is the inbound half of a wire: a frame scanner over the stream of
// the server, read by coder/websocket.
//
// Complete, unfragmented, uncompressed data frames are cut out of the stream
// and delivered at once. Everything else flows on to coder/websocket, one frame
// per Read, so that the order of messages stays: coder/websocket asks for more
// only when it has finished the frame before. What it would let through and RFC
// 6455 forbids is stopped here.
//
// All fields but life belong to the reading goroutine: OnOpen's, then that of Run.
type wireReader struct {
	clock
	life liveness

	src      io.Reader
	limit    int64 // of a message
	flate    bool  // permessage-deflate was negotiated
	fast     bool  // the fast lane is open
	keep     bool  // messages outlive the call of deliver
	deliver  func(MessageType, []byte) bool
	rest     func() // called when what was received is delivered
	onPing   func(payload []byte) (answer bool)
	onPong   func(payload []byte)
	counters *counters
	inside   bool // the session asks coder/websocket for a message: the fast lane may deliver

	buf    []byte // buf[r:w] is received and not handled
	r, w   int
	full   bool // the last read filled buf
	last   int  // bytes of the last read
	inline [inlineBuffer]byte
	small  *[smallBuffer]byte
	large  *[largeBuffer]byte
	block  []byte // for small messages
	own    []byte // for large messages that are not kept

	pass     int64 // bytes of a slow frame left to pass on
	passHead int   // of them, header
	slow     slowMessage
	checked  int // payload bytes of an unfinished fast frame that text has seen
	text     utf8Checker

	err       error // sticky
	srcErr    error // of src, once err says so
	late      error // of src, to be reported after the bytes that came with it
	violation *ProtocolError

	closeCode   StatusCode // of the server's close frame, or 0
	closeReason string

	messages, bytes uint64 // not yet added to counters
}

// slowMessage is a fragmented or compressed message on its way through
// coder/websocket.
type slowMessage struct {
	open     bool // its last frame has not begun
	check    bool // it is text that can be checked here
	fin      bool // the frame under way is its last
	size     int64
	empty    int // continuations in a row
	deflated bool
}

// Read implements io.Reader for coder/websocket.
func (r *wireReader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	// When the reading goroutine is not the one that waits, OnOpen receives
	// messages itself, or what follows a violation is discarded.
	r.fast = r.inside && r.closeCode == 0
	for {
		if r.err != nil {
			return 0, r.err
		}
		if r.pass == 0 {
			r.scan()
			r.rest()
		}
		switch {
		case r.err != nil:
		case r.pass > 0 && r.r < r.w:
			return r.passOn(p)
		default:
			r.fill()
		}
	}
}

// passOn hands bytes of a slow frame to coder/websocket.
func (r *wireReader) passOn(p []byte) (int, error) {
	chunk := r.buf[r.r:r.w]
	chunk = chunk[:min(int64(len(chunk)), int64(len(p)), r.pass)]
	payload := chunk[min(len(chunk), r.passHead):]
	last := int64(len(chunk)) == r.pass
	if r.slow.check && !r.text.write(payload) || r.slow.check && last && r.slow.fin && !r.text.done() {
		r.violate(websocket.StatusInvalidFramePayloadData, "text is not valid UTF-8")
		return 0, r.err
	}
	n := copy(p, chunk)
	r.r += n
	r.pass -= int64(n)
	r.passHead -= n - len(payload)
	if last {
		r.slow.check = r.slow.check && !r.slow.fin
	}
	return n, nil
}

// scan handles the frames at the front of the buffer, until one needs more
// bytes or is for coder/websocket.
func (r *wireReader) scan() {
	for r.err == nil && r.pass == 0 {
		if r.fast && !r.slow.open && r.checked == 0 {
			if r.scanMessages(); r.err != nil {
				return
			}
		}
		b := r.buf[r.r:r.w]
		if len(b) >= 2 && b[1]&maskBit != 0 {
			r.violate(StatusProtocolError, "masked frame from the server")
			return
		}
		h, ok := parseFrameHeader(b)
		if !ok {
			return
		}
		var done bool
		switch {
		case h.length < 0:
			r.violate(StatusProtocolError, "negative frame length")
			return
		case h.control():
			done = r.scanControl(h, b)
		default:
			done = r.scanData(h, b)
		}
		if !done {
			return
		}
	}
}

// scanMessages does what scan would do, but faster, with messages of up to 64 KiB
// that are whole and in order. It leaves everything else.
func (r *wireReader) scanMessages() {
	for r.err == nil {
		b := r.buf[r.r:r.w]
		if len(b) < 4 || b[0] != finBit|opText && b[0] != finBit|opBinary {
			return
		}
		size, n := 2, int(b[1])
		switch {
		case n == 126:
			size, n = 4, int(binary.BigEndian.Uint16(b[2:]))
		case n > 126:
			return
		}
		if n > len(b)-size || int64(n) > r.limit {
			return
		}
		typ, payload := MessageType(b[0]&^finBit), b[size:size+n]
		if typ == MessageText && !utf8.Valid(payload) {
			return
		}
		r.r += size
		if r.keep {
			payload = r.carve(payload)
		}
		r.r += n
		r.hand(typ, payload)
	}
}

// scanControl reports whether the frame was handled.
func (r *wireReader) scanControl(h frameHeader, b []byte) bool {
	if !h.fin() || h.rsv() != 0 || h.length > maxControlPayload || h.opcode() > opPong {
		r.passRest()
		return true
	}
	end := h.size + int(h.length)
	if len(b) < end {
		return false
	}
	payload := b[h.size:end]
	switch h.opcode() {
	case opPong:
		r.r += end
		r.onPong(payload)
		return true
	case opPing:
		if !r.onPing(payload) {
			r.r += end
			return true
		}
	case opClose:
		if !r.scanClose(payload) {
			return true
		}
	}
	r.pass, r.passHead = int64(end), end
	return true
}

// scanClose notes a close frame. It reports whether it may go on to
// coder/websocket, which answers it, or rejects its code.
func (r *wireReader) scanClose(payload []byte) bool {
	if len(payload) == 0 {
		r.closeCode = websocket.StatusNoStatusRcvd
		return true
	}
	if len(payload) < 2 || !validCloseCode(StatusCode(binary.BigEndian.Uint16(payload))) {
		return true
	}
	if !utf8.Valid(payload[2:]) {
		r.violate(websocket.StatusInvalidFramePayloadData, "close reason is not valid UTF-8")
		return false
	}
	r.closeCode, r.closeReason = StatusCode(binary.BigEndian.Uint16(payload)), string(payload[2:])
	return true
}

// passRest leaves the rest of the stream to coder/websocket, which fails at the
// next frame.
func (r *wireReader) passRest() {
	r.pass, r.passHead = math.MaxInt64, math.MaxInt
}

// scanData reports whether the frame was handled.
func (r *wireReader) scanData(h frameHeader, b []byte) bool {
	first := h.opcode() != opContinuation
	legal := h.opcode() <= opBinary && first != r.slow.open &&
		(h.rsv() == 0 || h.rsv() == rsv1Bit && r.flate && first)
	if !legal {
		r.passRest()
		return true
	}
	if first {
		r.slow.size, r.slow.empty = 0, 0
		r.slow.deflated = h.rsv() != 0
	}
	// The size of a compressed message is known, and limited, only beyond.
	if !r.slow.deflated && h.length > r.limit-r.slow.size || h.length > math.MaxInt-maxFrameHeader {
		r.violate(websocket.StatusMessageTooBig, "message exceeds the read limit")
		return true
	}
	if !r.slow.deflated {
		r.slow.size += h.length
	}
	if first && h.fin() && !r.slow.deflated && r.fast {
		return r.scanWhole(h, b)
	}

	if first {
		r.slow.check = h.opcode() == opText && !r.slow.deflated
		r.text.done()
	} else if h.length > 0 {
		r.slow.empty = 0
	} else if r.slow.empty++; r.slow.empty >= maxEmptyFrames && !h.fin() {
		r.violate(StatusProtocolError, "endless empty continuation frames")
		return true
	}
	r.slow.open, r.slow.fin = !h.fin(), h.fin()
	r.pass, r.passHead = int64(h.size)+h.length, h.size
	return true
}

// scanWhole is the fast lane: a complete message in one plain frame. It reports
// whether the frame was handled.
func (r *wireReader) scanWhole(h frameHeader, b []byte) bool {
	typ, length := MessageType(h.opcode()), int(h.length)
	payload := b[h.size:]
	if len(payload) < length {
		if typ == MessageText && !r.checkPart(payload) {
			return true
		}
		if h.size+length <= len(r.buf) || h.size+length <= smallBuffer {
			return false
		}
		r.readWhole(typ, payload, h.length)
		return true
	}
	payload = payload[:length]
	if typ == MessageText {
		if r.checked == 0 && !utf8.Valid(payload) || r.checked > 0 && !r.checkPart(payload) || !r.text.done() {
			r.violate(websocket.StatusInvalidFramePayloadData, "text is not valid UTF-8")
			return true
		}
		r.checked = 0
	}
	r.r += h.size
	if r.keep {
		payload = r.carve(payload)
	}
	r.r += length
	r.hand(typ, payload)
	return true
}

// checkPart checks what came of an unfinished text frame, each byte once.
func (r *wireReader) checkPart(payload []byte) bool {
	if !r.text.write(payload[r.checked:]) {
		r.violate(websocket.StatusInvalidFramePayloadData, "text is not valid UTF-8")
		return false
	}
	r.checked = len(payload)
	return true
}

// readWhole reads a message that does not fit into the buffer straight into its
// own memory.
func (r *wireReader) readWhole(typ MessageType, head []byte, length int64) {
	data := r.own
	if r.keep || int64(cap(data)) < length {
		data = make([]byte, min(length, growFrom))
	}
	data = data[:min(length, int64(cap(data)))]
	n := copy(data, head)
	r.r, r.w, r.full, r.last = 0, 0, false, len(data)
	for int64(n) < length {
		if n == len(data) {
			grown := make([]byte, min(length, 2*int64(n)))
			copy(grown, data)
			data = grown
		}
		more := r.read(data[n:])
		if r.err != nil {
			return
		}
		n += more
		if typ == MessageText && !r.checkPart(data[:n]) {
			return
		}
	}
	r.checked = 0
	if !r.text.done() {
		r.violate(websocket.StatusInvalidFramePayloadData, "text is not valid UTF-8")
		return
	}
	if !r.keep {
		r.own = data
	}
	r.hand(typ, data)
}

// hand delivers a message.
func (r *wireReader) hand(typ MessageType, data []byte) {
	r.messages++
	if !r.deliver(typ, data[:len(data):len(data)]) {
		r.err = errAborted
	}
}

// carve copies a message out of the buffer, into a block that it shares with
// its neighbours: one allocation serves many small messages.
func (r *wireReader) carve(payload []byte) []byte {
	n := len(payload)
	if n > maxCarved {
		return append([]byte(nil), payload...)
	}
	if n > len(r.block) || r.block == nil {
		r.block = make([]byte, min(blockSize, r.w-r.r))
	}
	data := r.block[:n:n]
	r.block = r.block[copy(data, payload):]
	return data
}

// fill reads more bytes into the buffer.
func (r *wireReader) fill() {
	r.block = nil
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	// Part of a frame is nearly always left, so it must not keep a buffer that
	// has become too small.
	if r.w == 0 || r.full || r.w == len(r.buf) {
		r.fit(r.w)
	}
	n := r.read(r.buf[r.w:])
	r.w += n
	r.full, r.last = r.w == len(r.buf), n
}

// fit chooses the buffer for the next read, and moves its first used bytes.
func (r *wireReader) fit(used int) {
	old := r.buf
	switch {
	case r.full && len(old) > inlineBuffer || used >= smallBuffer:
		if r.large == nil {
			r.large = largeBuffers.Get().(*[largeBuffer]byte)
		}
		r.buf = r.large[:]
	case r.full || used > 0 || r.last > inlineBuffer:
		if r.small == nil {
			r.small = smallBuffers.Get().(*[smallBuffer]byte)
		}
		r.buf = r.small[:]
	default:
		r.buf = r.inline[:]
	}
	copy(r.buf, old[:used])
	r.release()
}

// release gives back the buffers that are not in use.
func (r *wireReader) release() {
	if r.small != nil && len(r.buf) != smallBuffer {
		smallBuffers.Put(r.small)
		r.small = nil
	}
	if r.large != nil && len(r.buf) != largeBuffer {
		largeBuffers.Put(r.large)
		r.large = nil
	}
}

// read waits for bytes. Only this wait counts as silence.
func (r *wireReader) read(p []byte) int {
	if r.late != nil {
		r.fail(r.late)
		return 0
	}
	r.publish()
	r.rest()
	for range 100 {
		r.life.waiting(r.now())
		n, err := r.src.Read(p)
		r.life.arrived(n)
		r.late = err
		r.bytes += uint64(n)
		if n > 0 {
			return n
		}
		if err != nil {
			r.fail(err)
			return 0
		}
	}
	r.fail(io.ErrNoProgress)
	return 0
}

// fail ends reading. The transport's own error is kept from coder/websocket,
// which takes any io.EOF for the end of the message that it reads and returns
// it truncated (coder/websocket v1.8.15, msgReader.Read).
func (r *wireReader) fail(err error) {
	r.srcErr, r.err = err, errTransport
}

// violate ends reading by a violation of the server.
func (r *wireReader) violate(code StatusCode, text string) {
	r.violation = &ProtocolError{Code: code, Err: errors.New(text)}
	r.err = r.violation
}

// publish makes the counters of this reader visible.
func (r *wireReader) publish() {
	if r.bytes > 0 {
		r.counters.bytesIn.Add(r.bytes)
		r.bytes = 0
	}
	if r.messages > 0 {
		r.counters.messagesIn.Add(r.messages)
		r.messages = 0
	}
}
