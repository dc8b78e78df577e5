package resock

import (
	"sync"
	"time"

	"github.com/resock/resock/internal/wire"
)

// batch is a part of the outbound queue: as much as one write to the network takes.
type batch struct {
	items   []outbound
	size    int // bytes of the items' frames
	load    load
	watched bool // somebody wants to know the outcome of an item
	timed   bool // an item expires
	passed  bool // the limiter let it pass

	block []byte // holds copies of messages
	used  int    // bytes of block
}

// load is how much is in a part of the queue.
type load struct {
	live    int // items that were not given up
	flushes int // live items that are Flushes; a batch with any holds no messages
	gone    int // items that were given up
	count   int // live messages of Enqueue
	bytes   int // data of the live messages of Enqueue
}

// messages is how many live items are messages.
func (l *load) messages() int { return l.live - l.flushes }

func (l *load) add(d load) {
	l.live += d.live
	l.flushes += d.flushes
	l.gone += d.gone
	l.count += d.count
	l.bytes += d.bytes
}

// addPlain adds a message of Enqueue of n bytes.
func (l *load) addPlain(n int) {
	l.live++
	l.count++
	l.bytes += n
}

func (l *load) sub(d load) { l.add(load{-d.live, -d.flushes, -d.gone, -d.count, -d.bytes}) }

const (
	maxBatch = 512           // items
	minBlock = 256           // the first block of a batch
	maxCopy  = 16 << 10      // a larger message has memory of its own
	maxBlock = wire.MaxFlush // enough for all of a batch
)

// batches are empty, and keep the memory that they grew to. All clients share them: an
// idle client holds none.
var batches = sync.Pool{New: func() any { return new(batch) }}

func newBatch() *batch { return batches.Get().(*batch) }

// recycle gives back a batch that is empty, or whose items are settled.
func (b *batch) recycle() {
	clear(b.items)
	*b = batch{items: b.items[:0], block: b.block}
	batches.Put(b)
}

// fits reports whether b takes another message of n bytes.
func (b *batch) fits(n int) bool {
	return len(b.items) == 0 || b.load.flushes == 0 && len(b.items) < maxBatch && b.size+wire.FrameSize(n) <= wire.MaxFlush
}

// add adds an item, and returns its load.
func (b *batch) add(m *outbound) load {
	b.items = append(b.items, *m)
	return b.weigh(m)
}

// addPlain is add for a message of Enqueue without options, as nearly all are: here each
// nanosecond shows. The memory behind the items is always zero.
func (b *batch) addPlain(m *outbound) {
	if n := len(b.items); n < cap(b.items) {
		b.items = b.items[:n+1]
		b.items[n].Type, b.items[n].Data = m.Type, m.Data
	} else {
		b.items = append(b.items, *m)
	}
	b.size += wire.FrameSize(len(m.Data))
	b.load.addPlain(len(m.Data))
}

// plain reports whether m is a message of Enqueue without options.
func (m *outbound) plain() bool {
	return m.kind == kindMessage && m.waiter == nil && m.result == nil && m.session == nil && m.expiry == 0
}

// weigh counts an item, and returns its load.
func (b *batch) weigh(m *outbound) load {
	b.size += wire.FrameSize(len(m.Data))
	b.watched = b.watched || m.waiter != nil || m.result != nil
	b.timed = b.timed || m.expiry != 0
	l := m.load()
	b.load.add(l)
	return l
}

// load is what an item adds to the load of its batch.
func (m *outbound) load() load {
	switch {
	case m.kind == kindGone:
		return load{gone: 1}
	case m.kind == kindFlush:
		return load{live: 1, flushes: 1}
	case m.waiter == nil && m.kind == kindMessage:
		return load{live: 1, count: 1, bytes: len(m.Data)}
	}
	return load{live: 1}
}

func (m *outbound) gone() bool { return m.kind == kindGone }

// awaited reports whether a Send or a Flush may wait for an item.
func (b *batch) awaited() bool { return b.load.live > b.load.count }

// bury gives up an item, and lets go of what it holds.
func (b *batch) bury(i int) {
	m := &b.items[i]
	b.load.sub(m.load())
	*m = outbound{kind: kindGone}
	b.load.add(m.load())
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
			if w := b.items[kept].waiter; w != nil {
				w.at = kept
			}
		}
		kept++
	}
	if kept == len(b.items) {
		return
	}
	clear(b.items[kept:])
	b.items = b.items[:kept]
	b.size, b.load, b.watched, b.timed = 0, load{}, false, false
	for i := range b.items {
		b.weigh(&b.items[i])
	}
}

// expire removes and returns the items that have expired.
func (b *batch) expire(now time.Duration) (expired []outbound) {
	if !b.timed {
		return nil
	}
	b.remove(func(m *outbound) bool {
		over := m.expiry != 0 && m.expiry <= now
		if over {
			expired = append(expired, *m)
		}
		return over
	})
	return expired
}
