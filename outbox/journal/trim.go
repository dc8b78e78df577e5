package journal

import (
	"errors"
	"fmt"
)

// trim removes the first segments if all in them is done, and writes the others anew if
// little in them is not done. Only one goroutine does so at a time; others go on.
func (j *Journal) trim() error {
	if !j.trimming.TryLock() {
		return nil
	}
	defer j.trimming.Unlock()
	for {
		s := j.removable()
		if s == nil {
			break
		}
		if err := j.syncName(); err != nil {
			return j.errFailed("done, but not removed", err)
		}
		if err := j.removeSegment(s); err != nil {
			return fmt.Errorf("journal: remove %s, of which all is done, from %s: %w", s.name(), j.folder, err)
		}
	}
	if !j.sparse() {
		return nil
	}
	err := j.rewriteAll()
	j.mu.Lock()
	j.trimNext = j.total + j.config.SegmentBytes
	j.mu.Unlock()
	if err != nil {
		return fmt.Errorf("journal: write the records that are not done anew, in %s: %w (nothing is lost; it is tried again later)", j.folder, err)
	}
	return nil
}

// removable returns the first segment, if all of it is done and it is not the active one.
func (j *Journal) removable() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s := j.segments[0]; !j.closed && !s.open && len(j.segments) > 1 && s.live() == 0 {
		return s
	}
	return nil
}

// sparse reports whether it is worth while to write the segments anew.
func (j *Journal) sparse() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || j.failed != nil || j.total < j.trimNext {
		return false
	}
	var live int64
	for _, s := range j.segments {
		live += s.liveBytes()
	}
	return j.total > 4*j.config.SegmentBytes && j.total > 4*live ||
		j.total > j.config.MaxBytes/2 && j.total > 2*live
}

// removeSegment removes the file of a segment, and then the segment.
func (j *Journal) removeSegment(s *segment) error {
	j.reading.Lock()
	defer j.reading.Unlock()
	j.closeCursor(s)
	if err := j.disk.remove(s.name()); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.dropSegment(s)
	return nil
}

// dropSegment forgets a segment whose file is removed.
func (j *Journal) dropSegment(s *segment) {
	kept := make([]*segment, 0, len(j.segments)-1)
	for _, other := range j.segments {
		if other != s {
			kept = append(kept, other)
		}
	}
	j.segments = kept
	j.total -= s.size
}

// rewriteAll writes all segments but the active one anew, in order: a done record is left
// out, so no segment before may have a record that it concerns. Segments that fit into
// one file become one.
func (j *Journal) rewriteAll() error {
	j.mu.Lock()
	var left []*segment
	for _, s := range j.segments[:len(j.segments)-1] {
		if s.open {
			break
		}
		left = append(left, s)
	}
	j.mu.Unlock()
	for len(left) > 0 {
		j.mu.Lock()
		n, size := 1, left[0].liveBytes()
		for ; n < len(left) && size+left[n].liveBytes() <= j.config.SegmentBytes; n++ {
			size += left[n].liveBytes()
		}
		j.mu.Unlock()
		if err := j.rewrite(left[:n]); err != nil {
			return err
		}
		left = left[n:]
	}
	return nil
}

// rewrite writes the records of some segments that are not done to a file that takes the
// place of the first. It then has records of the others, too, which nobody looks for
// there until those segments are gone.
func (j *Journal) rewrite(group []*segment) error {
	name := group[0].name() + suffixNew
	w, err := j.writeNew(name, group)
	if err != nil {
		return errors.Join(err, j.disk.remove(name))
	}
	if err := j.replace(name, group[0], w); err != nil {
		return err
	}
	for _, s := range group[1:] {
		if err := j.join(group[0], s); err != nil {
			return err
		}
	}
	return nil
}

// replace puts a new file in the place of that of s.
func (j *Journal) replace(name string, s *segment, w *writer) error {
	j.reading.Lock()
	defer j.reading.Unlock()
	j.closeCursor(s)
	if err := j.disk.rename(name, s.name()); err != nil {
		return errors.Join(err, j.disk.remove(name))
	}
	j.mu.Lock()
	j.total += w.size - s.size
	s.size, s.puts = w.size, w.puts
	j.mu.Unlock()
	return j.syncFolder()
}

// join removes the file of s, whose records are in that of first, too. The folder is
// synced each time: if a crash kept a file and removed a later one of the group, the kept
// one would stand for both.
func (j *Journal) join(first, s *segment) error {
	j.reading.Lock()
	defer j.reading.Unlock()
	j.closeCursor(s)
	if err := j.disk.remove(s.name()); err != nil {
		return err
	}
	j.mu.Lock()
	for _, r := range s.done.list {
		first.done.add(r)
	}
	first.last = s.last
	j.dropSegment(s)
	j.mu.Unlock()
	return j.syncFolder()
}
