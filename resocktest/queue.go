package resocktest

import "sync"

// queue is an unbounded FIFO queue whose consumers can select on new items.
type queue[T any] struct {
	mu    sync.Mutex
	items []T
	more  chan struct{} // closed at the next push
}

func newQueue[T any]() *queue[T] { return &queue[T]{more: make(chan struct{})} }

func (q *queue[T]) push(item T) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, item)
	close(q.more)
	q.more = make(chan struct{})
}

// pop removes the oldest item. If there is none, more is closed at the next push.
func (q *queue[T]) pop() (item T, ok bool, more <-chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.items) == 0 {
		return item, false, q.more
	}
	item = q.items[0]
	q.items = q.items[1:]
	return item, true, nil
}
