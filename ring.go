package resock

import "sync"

// ring is a double-ended queue on a circular buffer whose length is a power of
// two. Its zero value is empty.
type ring[T any] struct {
	items []T
	head  int
	len   int
	spare *sync.Pool // of *[]T with burst zero items, or nil
}

// A ring keeps no more than lull items when it becomes empty. What a burst needs
// beyond comes from the spare ones of all rings.
const (
	lull  = 64
	burst = 1024
)

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
		r.drop()
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
	items := r.more(max(8, 2*len(r.items)))
	for i := range r.len {
		items[i] = *r.at(i)
	}
	r.items, r.head = items, 0
}

func (r *ring[T]) more(n int) []T {
	if r.spare != nil && n > lull && n <= burst {
		return *r.spare.Get().(*[]T)
	}
	return make([]T, n)
}

// drop gives the memory of an empty ring back.
func (r *ring[T]) drop() {
	if items := r.items; r.spare != nil && len(items) == burst {
		r.spare.Put(&items)
	}
	r.items, r.head = nil, 0
}
