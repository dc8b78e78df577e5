package journal

import (
	"fmt"
	"strconv"
	"strings"
)

const (
	suffix    = ".log"
	suffixNew = ".new" // after the name of a file that is written to take its place
)

// segment is one file: the records from first to last. Guarded by Journal.mu.
type segment struct {
	first uint64 // in its name, too, so that a damaged head loses nothing
	last  uint64 // first-1 if there is none
	size  int64  // that is whole; more may be under way
	puts  uint64 // in the file
	done  spans  // numbers from first to last that are done, or not in the file
	open  bool   // in Journal.sealed: its file cannot be removed everywhere
}

func (s *segment) name() string { return fmt.Sprintf("%08d%s", s.first, suffix) }

// live is the number of records that are not done.
func (s *segment) live() uint64 { return s.last + 1 - s.first - s.done.count }

// liveBytes estimates the bytes of the records that are not done.
func (s *segment) liveBytes() int64 {
	if s.puts == 0 {
		return 0
	}
	return int64(float64(s.size) * float64(s.live()) / float64(s.puts))
}

// parseName returns the first number of a segment. ok is false for any other file.
func parseName(name string) (first uint64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok {
		return 0, false
	}
	first, err := strconv.ParseUint(digits, 10, 64)
	s := segment{first: first}
	return first, err == nil && first > 0 && first < mostNumber && s.name() == name
}

// segmentOf returns the index of the segment whose range has n, or -1.
func (j *Journal) segmentOf(n uint64) int {
	low, high := 0, len(j.segments)
	for low < high {
		if middle := (low + high) / 2; j.segments[middle].first <= n {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low - 1
}

// active is the segment that is written to.
func (j *Journal) active() *segment { return j.segments[len(j.segments)-1] }

// firstLive returns the first number above after whose record is not done.
func (j *Journal) firstLive(after uint64) (s *segment, n uint64, ok bool) {
	for _, s := range j.segments[max(0, j.segmentOf(after+1)):] {
		if n := s.done.missing(max(after+1, s.first)); n <= s.last {
			return s, n, true
		}
	}
	return nil, 0, false
}

// markDone notes numbers as done, and returns those that were not before.
func (j *Journal) markDone(numbers []uint64) (marked spans) {
	for _, n := range numbers {
		i := j.segmentOf(n)
		if i < 0 || n > j.segments[i].last || j.segments[i].done.has(n) {
			continue
		}
		j.segments[i].done.add(span{n, n})
		marked.add(span{n, n})
	}
	return marked
}
