package resock

import (
	"sync"
	"time"

	"github.com/resock/resock/internal/wire"
)

// batch is a part of the outbound queue: as much as one write to the network
// takes.
type batch struct {
	items   []outbound
	size    int  // of their frames
	count   int  // of them, from Enqueue
	bytes   int  // of those
	watched bool // somebody wants to know the outcome of an item
	timed   bool // an item expires

	block []byte // for copies of messages
	used  int
}

const (
	maxBatch = 512           // items
	minBlock = 256           // the first block of a batch
	maxCopy  = 16 << 10      // a larger message has memory of its own
	maxBlock = wire.MaxFlush // enough for all of a batch
)

// batches are empty. They keep what they grew to, and are shared by all clients: an
// idle one holds none.
var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

// recycle gives an empty batch, or one whose items are settled, back.
func (b *batch) recycle() {
	clear(b.items)
	*b = batch{items: b.items[:0], block: b.block}
	batches.Put(b)
}

// fits reports whether b takes another message of n bytes.
func (b *batch) fits(n int) bool {
	return len(b.items) == 0 || len(b.items) < maxBatch && b.size+wire.FrameSize(n) <= wire.MaxFlush
}

func (b *batch) add(m *outbound) {
	b.items = append(b.items, *m)
	b.weigh(m)
}

// weigh counts an item.
func (b *batch) weigh(m *outbound) {
	b.size += wire.FrameSize(len(m.Data))
	if m.waiter == nil {
		b.count++
		b.bytes += len(m.Data)
	}
	b.watched = b.watched || m.waiter != nil || m.result != nil
	b.timed = b.timed || m.expiry != 0
}

// copy returns a copy of data that lives as long as b.
func (b *batch) copy(data []byte) []byte {
	n := len(data)
	if n > maxCopy {
		return append([]byte(nil), data...)
	}
	if n > len(b.block)-b.used {
		b.block = make([]byte, min(maxBlock, max(n, minBlock, 4*len(b.block))))
		b.used = 0
	}
	own := b.block[b.used : b.used+n : b.used+n]
	b.used += copy(own, data)
	return own
}

// remove removes the items for which drop is true.
func (b *batch) remove(drop func(*outbound) bool) {
	kept := 0
	for i := range b.items {
		if drop(&b.items[i]) {
			continue
		}
		if kept < i {
			b.items[kept] = b.items[i]
		}
		kept++
	}
	if kept == len(b.items) {
		return
	}
	clear(b.items[kept:])
	b.items = b.items[:kept]
	b.size, b.count, b.bytes, b.watched, b.timed = 0, 0, 0, false, false
	for i := range b.items {
		b.weigh(&b.items[i])
	}
}

// expire settles the items whose time is over.
func (b *batch) expire(now time.Duration) {
	if !b.timed {
		return
	}
	var expired []outbound
	b.remove(func(m *outbound) bool {
		over := m.expiry != 0 && m.expiry <= now
		if over {
			expired = append(expired, *m)
		}
		return over
	})
	for i := range expired {
		expired[i].settle(ErrExpired)
	}
}

// settle reports the same outcome for all items.
func (b *batch) settle(err error) {
	if !b.watched {
		return
	}
	for i := range b.items {
		b.items[i].settle(err)
	}
}
