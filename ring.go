package resock

// ring is a double-ended queue on a circular buffer whose length is a power of
// two. Its zero value is empty.
type ring[T any] struct {
	items []T
	head  int
	len   int
}

// A ring that becomes empty keeps no more than lull items.
const lull = 64

// at returns the i-th item from the front.
func (r *ring[T]) at(i int) *T { return &r.items[(r.head+i)&(len(r.items)-1)] }

func (r *ring[T]) pushBack(item T) {
	r.grow()
	r.len++
	*r.at(r.len - 1) = item
}

func (r *ring[T]) pushFront(item T) {
	r.grow()
	r.head = (r.head - 1) & (len(r.items) - 1)
	r.len++
	*r.at(0) = item
}

func (r *ring[T]) popFront() T {
	var zero T
	item := *r.at(0)
	*r.at(0) = zero // nothing popped is kept alive
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.len--
	if r.len == 0 && len(r.items) > lull {
		r.items, r.head = nil, 0
	}
	return item
}

// filter keeps the items for which keep is true, in order.
func (r *ring[T]) filter(keep func(*T) bool) {
	kept := 0
	for i := range r.len {
		if keep(r.at(i)) {
			*r.at(kept) = *r.at(i)
			kept++
		}
	}
	var zero T
	for i := kept; i < r.len; i++ {
		*r.at(i) = zero
	}
	r.len = kept
}

func (r *ring[T]) grow() {
	if r.len < len(r.items) {
		return
	}
	items := make([]T, max(8, 2*len(r.items)))
	for i := range r.len {
		items[i] = *r.at(i)
	}
	r.items, r.head = items, 0
}

// clear removes all items, and keeps the memory.
func (r *ring[T]) clear() {
	if end := r.head + r.len; end <= len(r.items) { // the other places are clear
		clear(r.items[r.head:end])
	} else {
		clear(r.items)
	}
	r.head, r.len = 0, 0
}

// cut removes n items from the i-th on. It is meant for the front of the ring: what
// stands before them moves.
func (r *ring[T]) cut(i, n int) {
	for j := i - 1; j >= 0; j-- {
		*r.at(j + n) = *r.at(j)
	}
	for range n {
		r.popFront()
	}
}
