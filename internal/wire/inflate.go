package wire

import (
	"compress/flate"
	"encoding/binary"
	"io"
	"sync"
	"unicode/utf8"
)

// inflation is what a connection needs for compressed messages (RFC 7692, section
// 7.2.2). Without a window of former messages each one is inflated afresh. With it,
// one inflater reads on through all of them, since starting it afresh with a copy of
// the window costs several times what a small message does.
type inflation struct {
	window window    // of what was inflated before, with takeover
	z      *inflater // borrowed while compressed messages come
	used   int       // of z.out, by the burst
	busy   bool      // z was used since the last rest
}

// inflater is borrowed from a pool.
type inflater struct {
	source source
	flate  io.ReadCloser
	ready  bool // flate can read on with the next message
	out    [maxInflated]byte
	dict   [maxWindow]byte
}

const (
	maxInflated = 64 << 10 // of a burst
	maxWindow   = 32 << 10
	roomy       = 4 << 10 // the least room for the next message of a burst
)

var inflaters = sync.Pool{New: func() any {
	z := new(inflater)
	z.flate = flate.NewReader(&z.source)
	return z
}}

// crowded reports whether the burst ends before another compressed message.
func (i *inflation) crowded() bool { return i.used > maxInflated-roomy }

// rest gives the inflater back, unless it was used since the last time.
func (i *inflation) rest() {
	if i.z != nil && !i.busy {
		i.z.source = source{}
		inflaters.Put(i.z)
		i.z = nil
	}
	i.busy = false
}

// borrow makes sure that there is an inflater, ready for the next message.
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

// restart makes the inflater begin afresh, with a history to which it may refer.
func (z *inflater) restart(history []byte) {
	_ = z.flate.(flate.Resetter).Reset(&z.source, history) // cannot fail
	z.ready = true
}

// inflated takes the compressed message under way.
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
		// The rest of the buffer holds more of the same, most likely.
		left := r.w - r.r
		data = r.carve(data, left*len(data)/max(1, received-left))
	case cap(data) == cap(out):
		i.used += len(data)
	default: // it has memory of its own, which the next one of a new burst may not need
		i.used = maxInflated
	}
	r.put(typ, data)
}

// inflate appends the message under way to data, which is empty. It reports false
// when that ends the connection.
func (r *reader) inflate(z *inflater, data []byte) ([]byte, bool) {
	s, limit := &z.source, r.c.config.ReadLimit
	switch s.refill(); {
	case r.end != nil:
		return nil, false
	case s.state == sourceTail: // a message without a byte
		return data, true
	}
	kept := 0 // of data, in the window
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
		case r.end != nil: // while the source asked for more
		case err == nil && (n == len(room) || !s.done()):
			continue
		case err == nil, err == io.ErrUnexpectedEOF && s.done():
			// With an error, the inflater asked for more after the end, and is of no
			// use any more.
			z.ready = err == nil
			r.remember(data[kept:])
			return data, true
		case err == io.EOF:
			// A final block. Others may follow (RFC 7692, section 7.2.3.4).
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
			r.violate(codeInvalidData, "the message cannot be inflated: "+err.Error())
		}
		return nil, false
	}
}

// remember keeps what later messages may refer to.
func (r *reader) remember(data []byte) {
	if d := r.c.deflate; d.ServerTakeover {
		r.inflation.window.write(data, d.serverWindow())
	}
}

// tail is what the sender took from the end of a message: the end of an empty
// stored block, which begins with the last bits of the message.
const tail = "\x00\x00\xff\xff"

// source is what the inflater reads: the payload of a message, and the tail. As an
// io.ByteReader it is never read ahead of.
type source struct {
	r      *reader
	chunk  []byte
	state  sourceState
	stored int // bytes of the stored block under way that are still to come
}

type sourceState int

const (
	sourcePayload sourceState = iota
	sourceTail                // chunk is the tail
	sourceBlock               // the tail was taken as the length of a stored block
	sourceSpent               // of the tail, something was taken otherwise
)

// refill makes chunk hold bytes, if there are any.
func (s *source) refill() {
	if s.state != sourcePayload || len(s.chunk) > 0 {
		return
	}
	if s.chunk = s.r.chunk(); len(s.chunk) == 0 && s.r.end == nil {
		s.chunk, s.state = tailBytes, sourceTail
	}
}

var tailBytes = []byte(tail)

// done reports whether the message ends as it must.
func (s *source) done() bool { return s.state == sourceBlock }

// over reports whether nothing but the tail is left.
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

// Read fills p. Only stored blocks are read by it: the inflater asks for the four bytes
// of the length of one, and then for its data.
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

// window is the last of what was inflated, to which later messages may refer.
type window struct {
	buf []byte // until it has its full size, and then a ring
	at  int    // its oldest byte
}

// write adds p to a window of so many bytes.
func (w *window) write(p []byte, size int) {
	if len(p) > size {
		p = p[len(p)-size:]
	}
	if free := size - len(w.buf); free > 0 {
		n := min(free, len(p))
		if need := len(w.buf) + n; need > cap(w.buf) {
			room := max(need, 2*cap(w.buf), 1<<10)
			if room > size/2 {
				room = size // in one piece, of a size that the allocator has
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

// straight returns the window from its oldest byte on, in dict if need be.
func (w *window) straight(dict *[maxWindow]byte) []byte {
	if w.at == 0 {
		return w.buf
	}
	n := copy(dict[:], w.buf[w.at:])
	n += copy(dict[n:], w.buf[:w.at])
	return dict[:n]
}
