package wire

import (
	"encoding/binary"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Type is the type of a message. Its values are the opcodes of RFC 6455, section 5.2.
type Type int

const (
	Text   Type = opText
	Binary Type = opBinary
)

// Message is one complete message. Data is never nil, and its capacity equals its
// length, so that appending to it copies.
type Message struct {
	Type Type
	Data []byte
}

const (
	maxBurst       = 128     // messages
	growFrom       = 1 << 20 // bytes; memory for a larger message grows as it arrives
	maxEmptyFrames = 1000    // empty continuation frames in a row
)

// bursts pools arrays for bursts, all of them cleared.
var bursts = sync.Pool{New: func() any { return new([maxBurst]Message) }}

// reader is the inbound half of a connection. It belongs to the reading goroutine.
type reader struct {
	c *Conn
	buffer

	at   time.Duration // when the last read returned
	fed  bool          // Feed was called since the last wait
	part bool          // bytes of a message came since then, and it is not complete

	end  error // why reading ended; sticky
	late error // came from the transport along with bytes, which are processed first

	borrow bool // Next lends the data of its messages

	messages, bytes uint64 // not yet added to the counters

	// The burst that Next returns.
	out   []Message          // first[:] or burst[:]
	n     int                // messages in out
	first [1]Message         // enough for most reads of a quiet connection
	burst *[maxBurst]Message // pooled; nil until a read brings several messages

	// Memory for the data of messages.
	block   []byte  // what is left of the block for small messages that are not lent
	scratch *[]byte // pooled; for large messages that are lent, and for fragments

	burstUsed, scratchUsed bool // since the last call of rest

	// The current data frame.
	left int64 // bytes of its payload still to be read
	fin  bool

	inflation inflation
}

// Next returns a burst of messages, in order. It waits until there is at least one, and
// adds those that the same read brought, up to 128 in all. A control frame ends a
// burst, and is handled by the next call.
//
// If borrow is true, the data of the messages is valid until the next call. Otherwise
// it belongs to the caller. The slice is valid until the next call in either case.
//
// The error is a [*Closed], [*Violation] or [*Lost]. It is final: later calls return
// the same. Only one goroutine, the reading goroutine, may call Next.
func (c *Conn) Next(borrow bool) ([]Message, error) {
	r := &c.in
	r.settle()
	r.borrow = borrow
	for r.end == nil {
		r.scan()
		if r.n > 0 {
			return r.taken(), nil
		}
		switch h, ok := r.peek(false); {
		case r.end != nil:
		case !ok:
			r.rest()
			r.fill() // an idle connection waits here, on a shallow and thus small stack
		case h.control():
			r.control(h)
		default:
			r.message(h)
			r.part = false // complete: the owner decides whether it counts
		}
		if r.n > 0 {
			return r.taken(), nil
		}
	}
	r.publish()
	return nil, r.end
}

// End returns the error that ended reading, or nil. Only the reading goroutine may
// call it.
func (c *Conn) End() error { return c.in.end }

// put appends a message to the burst.
func (r *reader) put(typ Type, data []byte) {
	if r.n == len(r.out) {
		r.widen()
	}
	r.out[r.n] = Message{typ, data[:len(data):len(data)]}
	r.n++
}

// widen makes room for the first message of a burst, or else for a whole burst.
func (r *reader) widen() {
	if r.out = r.first[:]; r.n > 0 {
		r.burst = bursts.Get().(*[maxBurst]Message)
		r.burst[0] = r.first[0]
		r.out = r.burst[:]
	}
}

// taken returns the burst and counts its messages.
func (r *reader) taken() []Message {
	r.messages += uint64(r.n)
	r.c.config.Counters.LastMessage.Store(int64(r.at) + 1)
	return r.out[:r.n]
}

// settle discards the previous burst, whose memory may be reused from here on.
func (r *reader) settle() {
	r.burstUsed = r.burstUsed || r.n > 1
	clear(r.out[:r.n])
	r.first[0] = Message{}
	r.n = 0
	r.inflation.used = 0
}

// rest is called before a read. It returns to the pools what was not used since the
// previous call.
func (r *reader) rest() {
	if r.burst != nil && !r.burstUsed {
		bursts.Put(r.burst)
		r.burst, r.out = nil, r.first[:]
	}
	if r.scratch != nil && !r.scratchUsed {
		if cap(*r.scratch) <= maxScratch {
			scratch.Put(r.scratch)
		}
		r.scratch = nil
	}
	r.burstUsed, r.scratchUsed = false, false
	r.inflation.rest()
}

// release returns everything to the pools.
func (r *reader) release() {
	r.publish()
	r.settle()
	r.rest()
	r.rest() // the first call spares what was used before it
	r.inflation.window = window{}
	r.block, r.buf = nil, nil
	r.r, r.w = 0, 0
	r.giveBack()
}

// scan is the fast path. It reads the messages at the front of the buffer that are
// complete, unfragmented and valid, and leaves everything else to the slow path, which
// also finds out what is wrong with it.
func (r *reader) scan() {
	borrow, limit := r.borrow, r.c.config.ReadLimit
	for r.n < maxBurst && r.end == nil {
		b := r.received()
		if len(b) < 2 {
			return
		}
		size, n := 2, int(b[1])
		switch {
		case n == 126:
			if len(b) < 4 {
				return
			}
			if size, n = 4, int(binary.BigEndian.Uint16(b[2:])); n <= maxControlPayload {
				return
			}
		case n > 126:
			return
		}
		if n > len(b)-size {
			return
		}
		switch b[0] {
		case finBit | opText, finBit | opBinary:
		case finBit | rsv1Bit | opText, finBit | rsv1Bit | opBinary:
			if !r.c.deflate.On || r.inflation.crowded() {
				return
			}
			r.r += size
			r.left, r.fin = int64(n), true
			r.inflated(Type(b[0] &^ (finBit | rsv1Bit)))
			r.part = false
			continue
		default:
			return
		}
		typ, payload := Type(b[0]&^finBit), b[size:size+n]
		if int64(n) > limit || typ == Text && !utf8.Valid(payload) {
			return
		}
		r.r += size + n
		if !borrow {
			payload = r.carve(payload, r.w-r.r)
		}
		r.put(typ, payload)
	}
}

// violate ends reading because of a violation by the server.
func (r *reader) violate(code int, text string) { r.end = &Violation{Code: code, Text: text} }

const (
	notUTF8 = "text is not valid UTF-8"
	tooBig  = "message exceeds the read limit"
)

// peek parses and checks the header at the front of the buffer. inside tells whether
// it follows a fragment of an unfinished message. peek reports false if the header is
// incomplete, or if reading has ended, be it by a violation of this header.
func (r *reader) peek(inside bool) (h header, ok bool) {
	if r.end != nil { // the first reason counts
		return h, false
	}
	b := r.received()
	if len(b) >= 2 && b[1]&maskBit != 0 {
		r.violate(codeProtocolError, "masked frame from the server")
		return h, false
	}
	if h, ok = parseHeader(b); !ok {
		return h, false
	}
	fault := ""
	switch opcode, rsv := h.opcode(), h.first&rsvBits; {
	case h.length < 0:
		fault = "frame length out of range"
	case !h.minimal():
		fault = "frame length not minimally encoded"
	case opcode > opBinary && opcode < opClose || opcode > opPong:
		fault = "reserved opcode"
	case h.control() && !h.fin():
		fault = "fragmented control frame"
	case h.control() && h.length > maxControlPayload:
		fault = "control frame payload longer than 125 bytes"
	case rsv != 0 && (rsv != rsv1Bit || !r.c.deflate.On || h.control() || opcode == opContinuation):
		fault = "unexpected reserved bit"
	case !h.control() && inside && opcode != opContinuation:
		fault = "new message within a fragmented message"
	case !h.control() && !inside && opcode == opContinuation:
		fault = "continuation frame without a message to continue"
	default:
		return h, true
	}
	r.violate(codeProtocolError, fault)
	return h, false
}

// await waits until n bytes are in the buffer, which must have room for them. It
// reports false when reading has ended.
func (r *reader) await(n int) bool {
	for r.w-r.r < n {
		if !r.fill() {
			return false
		}
	}
	return true
}

// control handles the control frame with header h.
func (r *reader) control(h header) {
	end := h.size + int(h.length)
	if !r.await(end) {
		return
	}
	payload := r.received()[h.size:end]
	r.r += end
	switch h.opcode() {
	case opPing:
		if r.c.owner.Ping(payload) {
			r.c.pong(payload)
		}
	case opPong:
		r.c.ponged(payload)
		r.c.owner.Pong(payload)
	default:
		r.closeFrame(payload)
	}
}

// closeFrame handles a close frame (RFC 6455, section 5.5.1).
func (r *reader) closeFrame(payload []byte) {
	if len(payload) == 0 {
		r.end = &Closed{Code: codeNone}
		return
	}
	if len(payload) == 1 {
		r.violate(codeProtocolError, "close frame payload of one byte")
		return
	}
	code, reason := int(binary.BigEndian.Uint16(payload)), payload[2:]
	came := &Closed{code, strings.ToValidUTF8(string(reason), "\uFFFD")}
	switch {
	case !ValidCloseCode(code):
		r.end = &Violation{codeProtocolError, "invalid close code", came}
	case !utf8.Valid(reason):
		r.end = &Violation{codeInvalidData, "close reason is not valid UTF-8", came}
	default:
		r.end = came
	}
}

// message reads the message whose first frame has header h, and waits for the rest of
// it.
func (r *reader) message(h header) {
	typ := Type(h.opcode())
	deflated := h.first&rsv1Bit != 0
	if !deflated && h.length > r.c.config.ReadLimit {
		r.violate(codeTooBig, tooBig)
		return
	}
	r.r += h.size
	r.left, r.fin, r.part = h.length, h.fin(), true
	switch {
	case deflated:
		r.inflated(typ)
	case r.fin && (h.length <= int64(len(r.buf)) || h.length <= smallBuffer):
		r.whole(typ, int(h.length))
	default:
		r.collect(typ)
	}
}

// whole reads an unfragmented message that fits into the buffer.
func (r *reader) whole(typ Type, n int) {
	var text utf8Checker
	for checked := 0; ; {
		part := r.received()
		part = part[:min(n, len(part))]
		if typ == Text && !text.write(part[checked:]) {
			r.violate(codeInvalidData, notUTF8)
			return
		}
		if checked = len(part); checked == n {
			break
		}
		if !r.fill() {
			return
		}
		r.part = true
	}
	if typ == Text && !text.complete() {
		r.violate(codeInvalidData, notUTF8)
		return
	}
	payload := r.received()[:n]
	r.r += n
	if !r.borrow {
		payload = r.carve(payload, r.w-r.r)
	}
	r.put(typ, payload)
}

// collect reads a message that is fragmented or does not fit into the buffer. It never
// allocates much for a header alone: beyond growFrom, memory grows as the payload
// arrives.
func (r *reader) collect(typ Type) {
	var data []byte
	shared := r.borrow || !r.fin
	size := int(min(r.left, growFrom))
	if shared {
		data = r.borrowScratch(size)
	} else {
		data = make([]byte, 0, size)
	}
	var text utf8Checker
	for {
		for r.left > 0 {
			if len(data) == cap(data) {
				limit := r.c.config.ReadLimit
				if r.fin { // otherwise a tight fit would copy everything once per frame
					limit = int64(len(data)) + r.left
				}
				data = grow(data, limit)
			}
			n := r.take(data[len(data):min(int64(cap(data)), int64(len(data))+r.left)])
			if r.end != nil {
				return
			}
			data = data[:len(data)+n]
			if typ == Text && !text.write(data[len(data)-n:]) {
				r.violate(codeInvalidData, notUTF8)
				return
			}
		}
		if r.fin {
			break
		}
		if !r.continuation(int64(len(data))) {
			return
		}
	}
	if typ == Text && !text.complete() {
		r.violate(codeInvalidData, notUTF8)
		return
	}
	if shared {
		*r.scratch = data[:0] // it may have grown
		if !r.borrow {
			data = r.carve(data, 0)
		}
	}
	r.put(typ, data)
}

// take reads payload of the current frame into p, which must not be longer than what
// is left of it. It returns 0 when reading has ended.
func (r *reader) take(p []byte) int {
	if r.w == r.r {
		if len(p) >= smallBuffer { // straight from the transport
			n := r.read(p)
			r.left -= int64(n)
			r.last, r.part = n, true
			return n
		}
		if !r.fill() {
			return 0
		}
	}
	r.part = true
	n := copy(p, r.received())
	r.r += n
	r.left -= int64(n)
	return n
}

// chunk returns the next part of the payload of the current message, across frame
// boundaries. It returns nil at the end of the message, and when reading has ended.
func (r *reader) chunk() []byte {
	for r.left == 0 {
		if r.fin || !r.continuation(unlimited) {
			return nil
		}
	}
	if r.w == r.r && !r.fill() {
		return nil
	}
	p := r.received()
	p = p[:min(r.left, int64(len(p)))]
	r.part = true
	r.r += len(p)
	r.left -= int64(len(p))
	return p
}

// unlimited is the size that continuation takes for a compressed message: the lengths
// of its frames do not count towards the read limit.
const unlimited = -1

// continuation reads the header of the next continuation frame that has a payload or
// is final, and handles the control frames before it. size is the number of bytes of
// the message that were read already. It reports false when reading has ended.
func (r *reader) continuation(size int64) bool {
	for empty := 0; ; {
		h, ok := r.peek(true)
		switch {
		case r.end != nil:
			return false
		case !ok:
			if !r.fill() {
				return false
			}
			continue
		case h.control():
			if r.control(h); r.end != nil {
				return false
			}
			continue
		case size != unlimited && h.length > r.c.config.ReadLimit-size:
			r.violate(codeTooBig, tooBig)
			return false
		}
		r.r += h.size
		r.left, r.fin, r.part = h.length, h.fin(), true
		if r.left > 0 || r.fin {
			return true
		}
		if empty++; empty >= maxEmptyFrames {
			r.violate(codeProtocolError, "too many empty continuation frames")
			return false
		}
	}
}
