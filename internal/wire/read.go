package wire

import (
	"encoding/binary"
	"sync"
	"unicode/utf8"
)

// Type is the type of a message, by its opcode.
type Type int

const (
	Text   Type = opText
	Binary Type = opBinary
)

// Message is one complete message. Data has len == cap.
type Message struct {
	Type Type
	Data []byte
}

const (
	maxBurst       = 128     // messages
	growFrom       = 1 << 20 // a larger message gets memory only as it arrives
	maxEmptyFrames = 1000    // continuations in a row
)

// bursts are empty.
var bursts = sync.Pool{New: func() any { return new([maxBurst]Message) }}

// reader is the inbound half of a connection. All its fields but life belong to the
// reading goroutine.
type reader struct {
	c    *Conn
	life liveness
	buffer

	end  error // sticky
	late error // of the transport, to be reported after the bytes that came with it

	borrow bool // the data of what Next returns

	messages, bytes uint64 // not yet added to the counters

	// What Next returns.
	out   []Message
	n     int
	first [1]Message // out, until there are more
	burst *[maxBurst]Message

	// The memory of its data.
	block   []byte  // for small messages that are kept
	scratch *[]byte // for large messages that are borrowed

	burstUsed, scratchUsed bool // since the last rest

	// The data frame under way.
	left int64 // bytes of its payload that are still to come
	fin  bool

	inflation inflation
}

// Next returns the messages that came next, in order, and waits for one if there is
// none. If it borrows, their data is valid until the next call, else it belongs to the
// caller; the slice itself is valid until the next call in any case. An error is the
// end: another call returns the same.
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
			r.fill() // an idle connection waits here: the stack is not deep
		case h.control():
			r.control(h)
		default:
			r.message(h)
		}
		if r.n > 0 {
			return r.taken(), nil
		}
	}
	r.publish()
	return nil, r.end
}

// End returns why reading ended, or nil. The reading goroutine calls it.
func (c *Conn) End() error { return c.in.end }

// put adds a message to the burst.
func (r *reader) put(typ Type, data []byte) {
	if r.n == len(r.out) {
		r.widen()
	}
	r.out[r.n] = Message{typ, data[:len(data):len(data)]}
	r.n++
}

// widen makes room for a whole burst.
func (r *reader) widen() {
	if r.out = r.first[:]; r.n > 0 {
		r.burst = bursts.Get().(*[maxBurst]Message)
		r.burst[0] = r.first[0]
		r.out = r.burst[:]
	}
}

// taken is the burst.
func (r *reader) taken() []Message {
	r.messages += uint64(r.n)
	return r.out[:r.n]
}

// settle ends the burst before, whose memory may be used again.
func (r *reader) settle() {
	r.burstUsed = r.burstUsed || r.n > 1
	clear(r.out[:r.n])
	r.first[0] = Message{}
	r.n = 0
	r.inflation.used = 0
}

// rest is called before a read, and gives back what was not needed since the last
// one.
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

// release gives everything back.
func (r *reader) release() {
	r.publish()
	r.settle()
	r.rest()
	r.rest()
	r.inflation.window = window{}
	r.block, r.buf = nil, nil
	r.r, r.w = 0, 0
	r.giveBack()
}

// scan takes the messages at the front of the buffer that are whole, in one frame,
// and right. It leaves everything else.
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

// violate ends reading by a violation of the server.
func (r *reader) violate(code int, text string) { r.end = &Violation{code, text} }

const (
	notUTF8 = "text is not valid UTF-8"
	tooBig  = "message exceeds the read limit"
)

// peek returns the header at the front of the buffer, which is legal, inside a
// message or outside. It reports false when it is not there yet, or a violation.
func (r *reader) peek(inside bool) (h header, ok bool) {
	if r.end != nil { // what follows must not replace it
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
		fault = "negative frame length"
	case !h.minimal():
		fault = "frame length not in its shortest form"
	case opcode > opBinary && opcode < opClose || opcode > opPong:
		fault = "reserved opcode"
	case h.control() && !h.fin():
		fault = "fragmented control frame"
	case h.control() && h.length > maxControlPayload:
		fault = "control frame of more than 125 bytes"
	case rsv != 0 && (rsv != rsv1Bit || !r.c.deflate.On || h.control() || opcode == opContinuation):
		fault = "reserved bit"
	case !h.control() && inside && opcode != opContinuation:
		fault = "message inside of a message"
	case !h.control() && !inside && opcode == opContinuation:
		fault = "continuation of nothing"
	default:
		return h, true
	}
	r.violate(codeProtocolError, fault)
	return h, false
}

// await waits until n bytes are in the buffer, which is large enough.
func (r *reader) await(n int) bool {
	for r.w-r.r < n {
		if !r.fill() {
			return false
		}
	}
	return true
}

// control handles a control frame.
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
		r.violate(codeProtocolError, "close frame with half a code")
		return
	}
	code, reason := int(binary.BigEndian.Uint16(payload)), payload[2:]
	switch {
	case !ValidCloseCode(code):
		r.violate(codeProtocolError, "close frame with an illegal code")
	case !utf8.Valid(reason):
		r.violate(codeInvalidData, "close reason is not valid UTF-8")
	default:
		r.end = &Closed{code, string(reason)}
	}
}

// message takes the message whose first frame has the header h, and waits for what
// is missing of it.
func (r *reader) message(h header) {
	typ := Type(h.opcode())
	deflated := h.first&rsv1Bit != 0
	if !deflated && h.length > r.c.config.ReadLimit {
		r.violate(codeTooBig, tooBig)
		return
	}
	r.r += h.size
	r.left, r.fin = h.length, h.fin()
	switch {
	case deflated:
		r.inflated(typ)
	case r.fin && (h.length <= int64(len(r.buf)) || h.length <= smallBuffer):
		r.whole(typ, int(h.length))
	default:
		r.collect(typ)
	}
}

// whole takes a message in one frame that fits into the buffer.
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

// collect takes a message that comes in many frames, or does not fit into the
// buffer. What a single frame announces has memory of its own at once, if it is not
// much; beyond that, memory is taken as bytes arrive.
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
				if r.fin { // else more frames follow, and each would copy it all
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

// take moves payload of the frame under way to p, which has no room for more of it.
func (r *reader) take(p []byte) int {
	if r.w == r.r {
		if len(p) >= smallBuffer { // straight from the transport
			n := r.read(p)
			r.left -= int64(n)
			r.last = n
			return n
		}
		if !r.fill() {
			return 0
		}
	}
	n := copy(p, r.received())
	r.r += n
	r.left -= int64(n)
	return n
}

// chunk returns some payload of the message under way, of any frame of it. It is
// empty at the end of the message, or of the connection.
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
	r.r += len(p)
	r.left -= int64(len(p))
	return p
}

// unlimited is the size of a message whose frames tell nothing of it.
const unlimited = -1

// continuation begins the next frame of the message under way, of which so many
// bytes are there, and handles the control frames before it.
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
		r.left, r.fin = h.length, h.fin()
		if r.left > 0 || r.fin {
			return true
		}
		if empty++; empty >= maxEmptyFrames {
			r.violate(codeProtocolError, "endless empty continuation frames")
			return false
		}
	}
}
