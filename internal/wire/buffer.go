package wire

import (
	"io"
	"sync"
)

// Sizes of the receive buffer. The larger ones are borrowed for as long as reads
// need them, so an idle connection, whose last read was a pong, holds none.
const (
	inlineBuffer = 256
	smallBuffer  = 4 << 10
	largeBuffer  = 32 << 10 // larger ones are slower: their data leaves the nearest cache
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// buffer is what was received and not handled yet.
type buffer struct {
	buf    []byte // buf[r:w] is
	r, w   int
	last   int  // bytes of the last read
	full   bool // it filled buf
	inline [inlineBuffer]byte
	small  *[smallBuffer]byte
	large  *[largeBuffer]byte
}

func (b *buffer) received() []byte { return b.buf[b.r:b.w] }

// room makes room for a read, and returns it.
func (b *buffer) room() []byte {
	b.w = copy(b.buf, b.buf[b.r:b.w])
	b.r = 0
	// Part of a frame is nearly always left, so it must not keep a buffer that
	// has become too small.
	if b.w == 0 || b.full || b.w == len(b.buf) {
		b.fit()
	}
	return b.buf[b.w:]
}

// add notes that n bytes were read into the room.
func (b *buffer) add(n int) {
	b.w += n
	b.full, b.last = b.w == len(b.buf), n
}

// fit chooses the buffer for the next read, and moves buf[:w] to it.
func (b *buffer) fit() {
	old := b.buf
	switch {
	case b.full && len(old) > inlineBuffer || b.w >= smallBuffer:
		if b.large == nil {
			b.large = largeBuffers.Get().(*[largeBuffer]byte)
		}
		b.buf = b.large[:]
	case b.full || b.w > 0 || b.last > inlineBuffer:
		if b.small == nil {
			b.small = smallBuffers.Get().(*[smallBuffer]byte)
		}
		b.buf = b.small[:]
	default:
		b.buf = b.inline[:]
	}
	copy(b.buf, old[:b.w])
	b.giveBack()
}

// giveBack gives back the buffers that are not in use.
func (b *buffer) giveBack() {
	if b.small != nil && len(b.buf) != smallBuffer {
		smallBuffers.Put(b.small)
		b.small = nil
	}
	if b.large != nil && len(b.buf) != largeBuffer {
		largeBuffers.Put(b.large)
		b.large = nil
	}
}

// fill waits for more bytes in the buffer. It reports false when there are none.
func (r *reader) fill() bool {
	r.block = nil
	n := r.read(r.buffer.room())
	r.buffer.add(n)
	return n > 0
}

// read waits for bytes. Only this wait counts as silence.
func (r *reader) read(p []byte) int {
	if r.late != nil {
		r.end = &Lost{r.late}
		return 0
	}
	r.publish()
	for range 100 {
		r.life.waiting(r.c.Now())
		n, err := r.c.transport.Read(p)
		r.life.arrived(n)
		r.bytes += uint64(n)
		r.late = err
		switch {
		case n > 0:
			return n
		case err != nil:
			r.end = &Lost{err}
			return 0
		}
	}
	r.end = &Lost{io.ErrNoProgress}
	return 0
}

// publish makes the counters of this reader visible.
func (r *reader) publish() {
	if r.bytes > 0 {
		r.c.config.Counters.BytesIn.Add(r.bytes)
		r.bytes = 0
	}
	if r.messages > 0 {
		r.c.config.Counters.MessagesIn.Add(r.messages)
		r.messages = 0
	}
}

const (
	maxCarved = 2 << 10  // a larger message has memory of its own
	blockSize = 16 << 10 // smaller ones share blocks of at most this size
)

// carve copies a message out of memory that will be used again, into a block that
// it shares with its neighbours: one allocation serves many small messages.
func (r *reader) carve(payload []byte, more int) []byte {
	n := len(payload)
	if n > maxCarved {
		return append([]byte(nil), payload...)
	}
	if n > len(r.block) || r.block == nil {
		r.block = make([]byte, min(blockSize, n+more))
	}
	data := r.block[:n:n]
	r.block = r.block[copy(data, payload):]
	return data
}

// scratch is memory for messages larger than the receive buffer, where they are
// borrowed only, and for the parts of one that comes in many.
var scratch = sync.Pool{New: func() any { return &[]byte{} }} // not nil, which no message is

const maxScratch = 4 << 20 // more is not kept

// borrowScratch returns empty memory with room for at least n bytes, which
// rest gives back.
func (r *reader) borrowScratch(n int) []byte {
	if r.scratch == nil {
		r.scratch = scratch.Get().(*[]byte)
	}
	r.scratchUsed = true
	if cap(*r.scratch) < n {
		*r.scratch = make([]byte, 0, n)
	}
	return (*r.scratch)[:0]
}

// grow returns data with room for at least one more byte, at most limit in all.
func grow(data []byte, limit int64) []byte {
	grown := make([]byte, len(data), min(limit, max(smallBuffer, 2*int64(cap(data)))))
	copy(grown, data)
	return grown
}
