// Package ring is a double-ended queue on a circular buffer.
package ring

// Ring is a double-ended queue. Its zero value is empty. It is not safe for concurrent
// use.
type Ring[T any] struct {
	items []T // the length is 0 or a power of two; unused elements are zero
	head  int // index of the first item
	n     int // number of items
}

// maxIdle is the largest capacity that an empty ring keeps.
const maxIdle = 64

// Len returns the number of items.
func (r *Ring[T]) Len() int { return r.n }

// Cap returns the number of items that fit before the ring grows.
func (r *Ring[T]) Cap() int { return len(r.items) }

// At returns a pointer to the i-th item from the front, which is item 0. The pointer is
// valid until the ring changes.
func (r *Ring[T]) At(i int) *T { return &r.items[(r.head+i)&(len(r.items)-1)] }

// PushBack adds an item at the back.
func (r *Ring[T]) PushBack(item T) {
	r.grow()
	r.n++
	*r.At(r.n - 1) = item
}

// PushFront adds an item at the front.
func (r *Ring[T]) PushFront(item T) {
	r.grow()
	r.head = (r.head - 1) & (len(r.items) - 1)
	r.n++
	*r.At(0) = item
}

// PopFront removes the first item and returns it. The ring must not be empty.
func (r *Ring[T]) PopFront() T {
	var zero T
	item := *r.At(0)
	*r.At(0) = zero // keeps nothing alive that the item refers to
	r.head = (r.head + 1) & (len(r.items) - 1)
	r.n--
	if r.n == 0 && len(r.items) > maxIdle {
		r.items, r.head = nil, 0
	}
	return item
}

// Filter removes the items for which keep returns false. The others stay in order.
func (r *Ring[T]) Filter(keep func(*T) bool) {
	kept := 0
	for i := range r.n {
		if keep(r.At(i)) {
			*r.At(kept) = *r.At(i)
			kept++
		}
	}
	var zero T
	for i := kept; i < r.n; i++ {
		*r.At(i) = zero
	}
	r.n = kept
}

// Clear removes all items and keeps the memory for new ones.
func (r *Ring[T]) Clear() {
	if end := r.head + r.n; end <= len(r.items) { // not wrapped: the rest is zero already
		clear(r.items[r.head:end])
	} else {
		clear(r.items)
	}
	r.head, r.n = 0, 0
}

// Cut removes n items, beginning with the i-th. It moves the i items before them, and is
// thus meant for the front of the ring.
func (r *Ring[T]) Cut(i, n int) {
	for j := i - 1; j >= 0; j-- {
		*r.At(j + n) = *r.At(j)
	}
	for range n {
		r.PopFront()
	}
}

// grow makes room for one more item.
func (r *Ring[T]) grow() {
	if r.n < len(r.items) {
		return
	}
	items := make([]T, max(8, 2*len(r.items)))
	for i := range r.n {
		items[i] = *r.At(i)
	}
	r.items, r.head = items, 0
}
