package wire

import (
	"io"
	"sync"
)

// Sizes of the receive buffer. The small and large buffers are pooled, and borrowed
// only while reads need them: an idle connection, whose last read was a pong, holds
// neither.
const (
	inlineBuffer = 176
	smallBuffer  = 4 << 10
	largeBuffer  = 32 << 10 // a larger one is slower, since it exceeds the L1 cache
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallBuffer]byte) }}
	largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}
)

// buffer holds bytes that were received but not processed yet.
type buffer struct {
	buf    []byte // inline, *small or *large
	r, w   int    // buf[r:w] is unprocessed
	last   int    // bytes returned by the last read
	full   bool   // the last read filled buf
	inline [inlineBuffer]byte
	small  *[smallBuffer]byte
	large  *[largeBuffer]byte
}

func (b *buffer) received() []byte { return b.buf[b.r:b.w] }

// room makes room for a read and returns it.
func (b *buffer) room() []byte {
	b.w = copy(b.buf, b.buf[b.r:b.w])
	b.r = 0
	// Under load part of a frame is nearly always left over. That must not keep the
	// connection from growing a buffer that is too small.
	if b.w == 0 || b.full || b.w == len(b.buf) {
		b.fit()
	}
	return b.buf[b.w:]
}

// add records that n bytes were read into the room.
func (b *buffer) add(n int) {
	b.w += n
	b.full, b.last = b.w == len(b.buf), n
}

// fit chooses the buffer for the next read by the size of the last one, and moves
// buf[:w] to it.
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

// giveBack returns the buffers that are not in use to their pools.
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

// fill waits for more bytes and adds them to the buffer. It reports false when reading
// has ended.
func (r *reader) fill() bool {
	r.block = nil // a waiting connection must not pin what is left of a block
	n := r.read(r.buffer.room())
	r.buffer.add(n)
	return n > 0
}

// maxEmptyReads bounds how many reads in a row may return neither bytes nor an error,
// as in package bufio.
const maxEmptyReads = 100

// read waits for bytes from the transport. Only this wait counts as silence. It
// returns 0 when reading has ended.
func (r *reader) read(p []byte) int {
	if r.late != nil {
		r.end = &Lost{r.late}
		return 0
	}
	r.publish()
	for range maxEmptyReads {
		r.waits(r.c.Now())
		n, err := r.c.transport.Read(p)
		r.arrived(n)
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

// publish adds the reader's counts to the shared counters: once per read, since an
// atomic operation per message would cost too much.
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
	maxCarved = 2 << 10  // largest message that shares a block
	blockSize = 16 << 10 // largest block
)

// carve copies a message out of memory that will be reused. Small messages share a
// block, so that one allocation serves many of them. more is an estimate of the bytes
// that the following messages need.
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

// scratch pools memory for borrowed messages that exceed the receive buffer, and for
// fragmented messages until they are complete. The slices are not nil, since the data
// of a message never is.
var scratch = sync.Pool{New: func() any { return &[]byte{} }}

const maxScratch = 4 << 20 // larger slices are not returned to the pool

// borrowScratch returns an empty slice with a capacity of at least n. A later call of
// rest returns it to the pool.
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

// grow returns a copy of data with twice the capacity, but at least smallBuffer and at
// most limit.
func grow(data []byte, limit int64) []byte {
	grown := make([]byte, len(data), min(limit, max(smallBuffer, 2*int64(cap(data)))))
	copy(grown, data)
	return grown
}
