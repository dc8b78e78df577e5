package relay

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// backlog is the messages that JetStream has not acknowledged, in order, up to a limit.
type backlog struct {
	limit limit
	ring  chan struct{} // rings when there is more

	mu    sync.Mutex
	list  []*nats.Msg
	bytes int
	moved chan struct{} // closed when there is less; nil while nobody waits for that
}

// limit says how much may wait. A message alone may have more bytes.
type limit struct{ messages, bytes int }

// holds reports whether so much is within the limit.
func (l limit) holds(messages, bytes int) bool {
	return messages <= l.messages && (bytes <= l.bytes || messages <= 1)
}

func newBacklog(l limit) *backlog {
	return &backlog{limit: l, ring: make(chan struct{}, 1)}
}

// add adds a message. If there is no room it does not, and returns a channel that is closed
// when there is less than before.
func (b *backlog) add(m *nats.Msg) (full <-chan struct{}) {
	size := sizeOf(m)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.limit.holds(len(b.list)+1, b.bytes+size) {
		return b.less()
	}
	b.list = append(b.list, m)
	b.bytes += size
	select {
	case b.ring <- struct{}{}:
	default:
	}
	return nil
}

// less returns a channel that is closed when there is less; mu is held.
func (b *backlog) less() <-chan struct{} {
	if b.moved == nil {
		b.moved = make(chan struct{})
	}
	return b.moved
}

// first waits until there is something, and returns as many as one request may have. It
// returns nil when ctx ends.
func (b *backlog) first(ctx context.Context, most int) []*nats.Msg {
	for {
		if unit := b.head(most); len(unit) > 0 || ctx.Err() != nil {
			return unit
		}
		select {
		case <-b.ring:
		case <-ctx.Done():
			return nil
		}
	}
}

// head returns the first messages.
func (b *backlog) head(most int) []*nats.Msg {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, bytes := 0, 0
	for ; n < min(most, len(b.list)); n++ {
		if bytes += sizeOf(b.list[n]); n > 0 && bytes > mostBytes {
			break
		}
	}
	return b.list[:n:n]
}

// remove removes the first messages.
func (b *backlog) remove(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, m := range b.list[:n] {
		b.bytes -= sizeOf(m)
		b.list[i] = nil
	}
	b.list = b.list[n:]
	if b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
}

// replace replaces the first message by a smaller one.
func (b *backlog) replace(m *nats.Msg) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += sizeOf(m) - sizeOf(b.list[0])
	b.list[0] = m
}

// hasRoom reports whether messages of a size together have room.
func (b *backlog) hasRoom(messages, size int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.limit.holds(len(b.list)+messages, b.bytes+size)
}

// half reports whether at least half of the limit is free.
func (b *backlog) half() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.list) <= b.limit.messages/2 && b.bytes <= b.limit.bytes/2
}

func (b *backlog) counted() (messages, bytes int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.list), b.bytes
}

// empty waits until nothing is left.
func (b *backlog) empty(ctx context.Context) error {
	for {
		b.mu.Lock()
		left, moved := len(b.list), b.less()
		b.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// overhead is about what a message needs in memory beside its data, with its headers.
const overhead = 512

func sizeOf(m *nats.Msg) int { return len(m.Data) + len(m.Subject) + overhead }

// backoff is the delay before something is tried again.
type backoff time.Duration

func (b *backoff) wait(ctx context.Context) error {
	*b = backoff(min(max(2*time.Duration(*b), 25*time.Millisecond), time.Second))
	select {
	case <-time.After(time.Duration(*b)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
