package journal

import (
	"slices"
	"sort"
)

// span is a range of numbers, both ends included.
type span struct{ first, last uint64 }

func (s span) count() uint64 { return s.last - s.first + 1 }

// spans are numbers as ranges that are sorted and do not touch.
type spans struct {
	list  []span
	count uint64 // of the numbers
}

// search returns the index of the first range that ends at or after n.
func (s *spans) search(n uint64) int {
	return sort.Search(len(s.list), func(i int) bool { return s.list[i].last >= n })
}

func (s *spans) has(n uint64) bool {
	i := s.search(n)
	return i < len(s.list) && s.list[i].first <= n
}

// missing returns the first number at or after n that is not in s.
func (s *spans) missing(n uint64) uint64 {
	if i := s.search(n); i < len(s.list) && s.list[i].first <= n {
		return s.list[i].last + 1
	}
	return n
}

// add adds the numbers of r. An r that ends before it begins adds nothing.
func (s *spans) add(r span) {
	if r.first > r.last {
		return
	}
	from := s.search(r.first - 1) // numbers begin with 1
	to := from
	for ; to < len(s.list) && s.list[to].first <= r.last+1; to++ {
		r.first, r.last = min(r.first, s.list[to].first), max(r.last, s.list[to].last)
		s.count -= s.list[to].count()
	}
	s.count += r.count()
	if to == from+1 {
		s.list[from] = r
		return
	}
	s.list = slices.Replace(s.list, from, to, r)
}
