package resock

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/resock/resock/internal/ring"
	"github.com/resock/resock/internal/wire"
)

// Messages returns the messages from now on, in order, without the other events. It is
// the fastest way to receive: messages are handed over by the burst, and none is boxed.
//
//	for m := range client.Messages(ctx) {
//		…
//	}
//
// The subscription begins with the call and serves one range: a second one is empty. It
// ends when the loop is left, or promptly when ctx ends; when the client is closed for
// good, the loop ends after what was received. Until then it delays delivery like a
// channel of [Client.Subscribe], even if it is never ranged over.
//
// The defaults are [WithBuffer](256) and [OverflowBlock]. With [WithMessageHandler] or
// [WithoutMessages] there are no messages, and a warning is logged.
func (c *Client) Messages(ctx context.Context, opts ...SubscribeOption) iter.Seq[MessageEvent] {
	sub := subscription{buffer: 256, messages: true}
	for _, opt := range opts {
		if opt != nil {
			opt.applySubscribe(&sub)
		}
	}
	if !sub.messages || c.config.handler != nil {
		c.log().Warn("Messages is empty, because of WithMessageHandler or WithoutMessages", "label", sub.label)
		return func(func(MessageEvent) bool) {}
	}
	return c.events.stream(ctx, sub).all
}

// stream is a subscriber that takes messages by the burst.
type stream struct {
	subscriber
	buffer  int
	borrows bool          // the data is valid only until the loop goes on
	more    chan struct{} // holds a token when there is a bundle, or the end has come
	ranged  atomic.Bool   // the one range has begun
	cut     atomic.Bool   // what is not delivered yet is discarded

	bundle *bundle // what the loop takes next, or nil; guarded by the fanout's mu
}

// bundle is what a loop takes at once.
type bundle struct {
	messages ring.Ring[MessageEvent]
	dropped  int         // number of messages that were dropped before these
	blocks   []heldBlock // what borrowed data is in, oldest first
	used     int         // bytes of the last block
}

// heldBlock is a block, and the number of the last message in it. The messages of a bundle
// are numbered from 1, dropped ones included.
type heldBlock struct {
	*block
	last int
}

const (
	blockSize  = 64 << 10 // a larger message has memory of its own
	maxBundled = 1024     // messages; a larger bundle is not kept
)

type block [blockSize]byte

// The bundles are empty. They and the blocks are shared by all clients: an idle stream
// holds none.
var (
	bundles = sync.Pool{New: func() any { return new(bundle) }}
	blocks  = sync.Pool{New: func() any { return new(block) }}
)

// copy returns a copy of the data of the next message, which lives as long as b.
func (b *bundle) copy(data []byte) []byte {
	n := len(data)
	if n > blockSize {
		return clone(data)
	}
	if len(b.blocks) == 0 || n > blockSize-b.used {
		b.blocks = append(b.blocks, heldBlock{block: blocks.Get().(*block)})
		b.used = 0
	}
	held := &b.blocks[len(b.blocks)-1]
	held.last = b.dropped + b.messages.Len() + 1
	own := held.block[b.used : b.used+n : b.used+n]
	b.used += copy(own, data)
	return own
}

// dropFirst drops the oldest message, and recycles the oldest block if that was the last
// message in it.
func (b *bundle) dropFirst() MessageEvent {
	b.dropped++
	if len(b.blocks) > 1 && b.blocks[0].last <= b.dropped {
		blocks.Put(b.blocks[0].block)
		b.blocks = slices.Delete(b.blocks, 0, 1)
	}
	return b.messages.PopFront()
}

// recycle gives back a bundle whose messages nobody uses any more.
func (b *bundle) recycle() {
	for _, held := range b.blocks {
		blocks.Put(held.block)
	}
	clear(b.blocks)
	b.blocks, b.used, b.dropped = b.blocks[:0], 0, 0
	if b.messages.Cap() <= maxBundled {
		b.messages.Clear()
		bundles.Put(b)
	}
}

func (f *fanout) stream(ctx context.Context, opts subscription) *stream {
	st := &stream{buffer: max(1, opts.buffer), borrows: opts.borrows, more: make(chan struct{}, 1)}
	st.subscriber = subscriber{fanout: f, done: ctx.Done(), label: opts.label, messages: true, stream: st}
	if opts.overflow == OverflowDropOldest {
		st.limit = st.buffer
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		st.ended, st.finished = true, true
		notify(st.more)
		return st
	}
	f.add(&st.subscriber)
	if ctx.Done() != nil {
		st.forget = context.AfterFunc(ctx, st.leave)
	}
	return st
}

// all is the iterator that Messages returns.
func (st *stream) all(yield func(MessageEvent) bool) {
	if st.ranged.Swap(true) {
		return
	}
	defer st.leave()
	for b := st.take(); b != nil; b = st.take() {
		for i := range b.messages.Len() {
			if st.cut.Load() || !yield(*b.messages.At(i)) {
				return
			}
		}
		b.recycle()
	}
}

// take waits for the next bundle. It returns nil at the end.
func (st *stream) take() *bundle {
	for {
		st.fanout.mu.Lock()
		b, over := st.bundle, st.ended
		st.bundle, st.parked = nil, 0
		st.caughtUp()
		st.fanout.mu.Unlock()
		if b != nil || over {
			return b
		}
		<-st.more
	}
}

// leave ends the subscription.
func (st *stream) leave() {
	f := st.fanout
	f.mu.Lock()
	defer f.mu.Unlock()
	st.cut.Store(true)
	st.bundle = nil
	st.ended = true
	st.caughtUp() // nothing waits for the loop any more
	st.settle()
	if st.forget != nil {
		st.forget()
	}
}

// put adds a burst to the bundle, and waits for the loop if it must; mu is held, except
// while it waits. Data that is not owned is copied.
func (st *stream) put(session uint64, burst []wire.Message, owned bool, life *lifetime) {
	for i := 0; i < len(burst) && !st.ended; {
		switch over := st.over(); {
		case st.pending() < st.buffer:
		case st.limit > 0:
			st.dropFirst()
		case life.has(over):
			st.park(len(burst[i].Data))
		default:
			notify(st.more)
			st.wait(nil, nil, st.untilTaken(), life.until(over))
			continue
		}
		st.add(session, burst[i], owned)
		i++
	}
	notify(st.more)
}

// pending is how many messages wait for the loop.
func (st *stream) pending() int {
	if st.bundle == nil {
		return 0
	}
	return st.bundle.messages.Len()
}

// add adds a message to the bundle.
func (st *stream) add(session uint64, m wire.Message, owned bool) {
	b := st.bundle
	if b == nil {
		b = bundles.Get().(*bundle)
		st.bundle = b
	}
	data := m.Data
	switch {
	case owned:
	case st.borrows:
		data = b.copy(data)
	default:
		data = clone(data)
	}
	event := MessageEvent{Session: session, Type: MessageType(m.Type), Data: data}
	if st.lost > 0 && st.lostIn == session {
		event.Lost = st.lost
		st.lost = 0
	}
	b.messages.PushBack(event)
}

// dropFirst drops the oldest message of the bundle. The next one tells it in Lost, if it
// is of the same session.
func (st *stream) dropFirst() {
	waiting := &st.bundle.messages
	m := st.bundle.dropFirst()
	st.fanout.dropped.Add(1)
	switch {
	case waiting.Len() == 0:
		st.lost, st.lostIn = 1+m.Lost, m.Session
	case waiting.At(0).Session == m.Session:
		waiting.At(0).Lost += 1 + m.Lost
	}
}

// park counts a message that is added although there is no room, of n bytes.
func (st *stream) park(n int) {
	st.parked += n
	if !st.pumping {
		st.pumping = true
		st.fanout.behind.Add(1)
	}
}

// untilTaken returns a channel that is closed when the loop takes the bundle.
func (st *stream) untilTaken() <-chan struct{} {
	if st.pumped == nil {
		st.pumped = make(chan struct{})
	}
	return st.pumped
}
