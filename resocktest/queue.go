package resocktest

import "sync"

// queue holds what arrived and was not taken yet.
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

// pop takes the oldest item. If there is none, more tells when to try again.
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
