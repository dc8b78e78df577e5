package wire

import (
	"compress/flate"
	"encoding/binary"
	"io"
	"sync"
	"unicode/utf8"
)

// inflation is the state that decompresses messages (RFC 7692, section 7.2.2). Without
// context takeover the inflater is reset for each message. With it, one inflater reads
// on through all messages, because a reset with a copy of the window costs several
// times as much as a small message.
type inflation struct {
	window window    // of earlier messages, with context takeover
	z      *inflater // borrowed from the pool while compressed messages arrive
	used   int       // bytes of z.out that the current burst lends
	busy   bool      // z was used since the last call of rest
}

// inflater is a pooled decompressor and its buffers.
type inflater struct {
	source source
	flate  io.ReadCloser
	ready  bool              // flate can read on with the next message
	out    [maxInflated]byte // the data of the messages of a burst
	dict   [maxWindow]byte   // a copy of the window, for a reset
}

const (
	maxInflated = 64 << 10
	maxWindow   = 32 << 10 // of deflate (RFC 1951)
	roomy       = 4 << 10  // a burst ends when less room than this is left in out
)

var inflaters = sync.Pool{New: func() any {
	z := new(inflater)
	z.flate = flate.NewReader(&z.source)
	return z
}}

// crowded reports whether the burst ends before another compressed message.
func (i *inflation) crowded() bool { return i.used > maxInflated-roomy }

// rest returns the inflater to the pool, unless it was used since the previous call.
func (i *inflation) rest() {
	if i.z != nil && !i.busy {
		i.z.source = source{}
		inflaters.Put(i.z)
		i.z = nil
	}
	i.busy = false
}

// borrowInflater returns an inflater that is ready for the next message.
func (r *reader) borrowInflater() *inflater {
	i := &r.inflation
	if i.z == nil {
		i.z = inflaters.Get().(*inflater)
		i.z.ready = false
	}
	i.busy = true
	z := i.z
	z.source = source{r: r}
	if !z.ready || !r.c.deflate.ServerTakeover {
		z.restart(i.window.straight(&z.dict))
	}
	return z
}

// restart resets the inflater. What it reads next may refer to history.
func (z *inflater) restart(history []byte) {
	_ = z.flate.(flate.Resetter).Reset(&z.source, history) // never fails
	z.ready = true
}

// inflated reads the current message, which is compressed.
func (r *reader) inflated(typ Type) {
	i, received := &r.inflation, r.w-r.r
	z := r.borrowInflater()
	out := z.out[i.used:i.used]
	data, ok := r.inflate(z, out)
	switch {
	case !ok:
		return
	case typ == Text && !utf8.Valid(data):
		r.violate(codeInvalidData, notUTF8)
		return
	case !r.borrow:
		// Assume that what is left in the buffer inflates at the same ratio.
		left := r.w - r.r
		data = r.carve(data, left*len(data)/max(1, received-left))
	case cap(data) == cap(out):
		i.used += len(data)
	default: // data has outgrown z.out: end the burst, so that the next message can use all of it
		i.used = maxInflated
	}
	r.put(typ, data)
}

// inflate appends the current message to data, which is empty. It reports false when
// reading has ended.
func (r *reader) inflate(z *inflater, data []byte) ([]byte, bool) {
	s, limit := &z.source, r.c.config.ReadLimit
	switch s.refill(); {
	case r.end != nil:
		return nil, false
	case s.state == sourceTail: // an empty payload, which is tolerated
		return data, true
	}
	kept := 0 // bytes of data that are in the window already
	for {
		if len(data) == cap(data) {
			data = grow(data, limit+1)
		}
		room := data[len(data):min(int64(cap(data)), limit+1)]
		n, err := z.flate.Read(room)
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > limit:
			r.violate(codeTooBig, tooBig)
		case r.end != nil: // reading ended while the source waited for payload
		case err == nil && (n == len(room) || !s.done()):
			continue
		case err == nil, err == io.ErrUnexpectedEOF && s.done():
			// After an error the inflater has read beyond the end of the message, and
			// cannot read on with the next one.
			z.ready = err == nil
			r.remember(data[kept:])
			return data, true
		case err == io.EOF:
			// A block with the BFINAL bit. Others may follow (RFC 7692, section 7.2.3.4).
			over := s.done() || s.over()
			if r.end != nil {
				break
			}
			r.remember(data[kept:])
			kept = len(data)
			if over {
				z.ready = false
				return data, true
			}
			history := data
			if r.c.deflate.ServerTakeover {
				history = r.inflation.window.straight(&z.dict)
			}
			z.restart(history)
			continue
		default:
			r.violate(codeInvalidData, "cannot decompress message: "+err.Error())
		}
		return nil, false
	}
}

// remember adds data to the window, if later messages may refer to it.
func (r *reader) remember(data []byte) {
	if d := r.c.deflate; d.ServerTakeover {
		r.inflation.window.write(data, d.serverWindow())
	}
}

// tail is what the sender removes from the end of a message, and the receiver appends
// (RFC 7692, sections 7.2.1 and 7.2.2): the length of an empty stored block, whose
// header is in the last byte of the payload.
const tail = "\x00\x00\xff\xff"

// source is what the inflater reads: the payload of a message, and then the tail. It is
// an io.ByteReader, so that package flate does not read ahead.
type source struct {
	r      *reader
	chunk  []byte
	state  sourceState
	stored int // bytes of the current stored block that were not read yet
}

type sourceState int

const (
	sourcePayload sourceState = iota
	sourceTail                // chunk is the tail
	sourceBlock               // the tail was read as the length of a stored block
	sourceSpent               // the tail, or part of it, was read as something else
)

// refill fetches the next chunk if the last one is used up.
func (s *source) refill() {
	if s.state != sourcePayload || len(s.chunk) > 0 {
		return
	}
	if s.chunk = s.r.chunk(); len(s.chunk) == 0 && s.r.end == nil {
		s.chunk, s.state = tailBytes, sourceTail
	}
}

var tailBytes = []byte(tail)

// done reports whether the message has ended as it must, with an empty stored block.
func (s *source) done() bool { return s.state == sourceBlock }

// over reports whether only the tail is left.
func (s *source) over() bool {
	s.refill()
	return s.state == sourceTail
}

func (s *source) ReadByte() (byte, error) {
	if len(s.chunk) == 0 {
		if s.refill(); len(s.chunk) == 0 {
			return 0, io.EOF
		}
	}
	if s.state == sourceTail {
		s.state = sourceSpent
	}
	b := s.chunk[0]
	s.chunk = s.chunk[1:]
	return b, nil
}

// Read fills p. Package flate calls it only for a stored block: for the four bytes of
// its length first, and then for its data.
func (s *source) Read(p []byte) (n int, err error) {
	length := s.stored == 0
	for n < len(p) {
		if s.refill(); len(s.chunk) == 0 {
			return n, io.EOF
		}
		if s.state == sourceTail {
			s.state = sourceSpent
			if length && n == 0 {
				s.state = sourceBlock
			}
		}
		copied := copy(p[n:], s.chunk)
		s.chunk = s.chunk[copied:]
		n += copied
	}
	if length {
		s.stored = int(binary.LittleEndian.Uint16(p))
	} else {
		s.stored -= n
	}
	return n, nil
}

// window is the sliding window: the latest decompressed bytes, to which later messages
// may refer.
type window struct {
	buf []byte // grows to the size of the window, and is a ring from then on
	at  int    // index of the oldest byte
}

// write appends p to a window of the given size, in bytes.
func (w *window) write(p []byte, size int) {
	if len(p) > size {
		p = p[len(p)-size:]
	}
	if free := size - len(w.buf); free > 0 {
		n := min(free, len(p))
		if need := len(w.buf) + n; need > cap(w.buf) {
			room := max(need, 2*cap(w.buf), 1<<10)
			if room > size/2 {
				room = size // a power of two, and thus a size class of the allocator
			}
			w.buf = append(make([]byte, 0, room), w.buf...)
		}
		w.buf = append(w.buf, p[:n]...)
		p = p[n:]
	}
	for len(p) > 0 {
		n := copy(w.buf[w.at:], p)
		p = p[n:]
		w.at = (w.at + n) % size
	}
}

// straight returns the contents of the window, oldest byte first. If the ring has
// wrapped, they are copied to dict.
func (w *window) straight(dict *[maxWindow]byte) []byte {
	if w.at == 0 {
		return w.buf
	}
	n := copy(dict[:], w.buf[w.at:])
	n += copy(dict[n:], w.buf[:w.at])
	return dict[:n]
}
