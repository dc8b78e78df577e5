package journal

import (
	"errors"
	"fmt"
	"path/filepath"
)

// loader reads one segment while the journal is opened.
type loader struct {
	journal *Journal
	segment *segment
	index   int
	next    uint64 // first of the next segment, or mostNumber
	file    file
	chunks  chunks
	damage  []Repair
	cut     bool // the last damage is a record that is not whole
}

// loadSegment reads the segment with an index, those before having been read.
func (j *Journal) loadSegment(i int) error {
	s := j.segments[i]
	f, err := j.disk.open(s.name())
	if err != nil {
		return err
	}
	l := &loader{journal: j, segment: s, index: i, next: mostNumber, file: f}
	if i+1 < len(j.segments) {
		l.next = j.segments[i+1].first
	}
	s.size, err = f.Size()
	if err == nil {
		err = l.load(l.next == mostNumber)
	}
	if err == nil && l.next < mostNumber {
		s.reach(l.next - 1)
	}
	j.total += s.size
	return errors.Join(err, f.Close())
}

// reach makes n the last number. Those on the way are not in the file.
func (s *segment) reach(n uint64) {
	if n > s.last {
		s.done.add(span{s.last + 1, n})
		s.last = n
	}
}

func (l *loader) load(last bool) error {
	l.chunks = chunks{file: l.file, size: l.segment.size}
	short, err := l.head()
	if err == nil && !short {
		err = l.records()
	}
	if err == nil {
		err = l.repair(last)
	}
	return err
}

// head checks the head. short says that the file ends in it.
func (l *loader) head() (short bool, err error) {
	s := l.segment
	n := min(headSize, s.size)
	b, err := l.chunks.at(0, n)
	if err != nil {
		return false, err
	}
	format, first, ok := parseHead(b)
	switch {
	case !ok && n < headSize:
		l.cut = true
		l.damaged(0, n, "the head is not whole")
		return true, nil
	case !ok:
		l.damaged(0, n, "the head is damaged")
	case format != version:
		return false, fmt.Errorf("it has format %d, want %d: a newer version of the package wrote it, and can read it", format, version)
	case first != s.first:
		return false, fmt.Errorf("its head has the number %d: it seems to be renamed, and should have its name back", first)
	}
	return false, nil
}

// records reads all records.
func (l *loader) records() error {
	for offset := int64(headSize); offset < l.chunks.size; {
		h, at, ok, cut, err := l.chunks.find(offset)
		if err != nil {
			return err
		}
		if !ok {
			l.cut = cut
			l.damaged(offset, l.chunks.size-offset, "no record")
			return nil
		}
		l.damaged(offset, at-offset, "no record")
		body, ok, err := l.chunks.body(at, h)
		if err != nil {
			return err
		}
		if ok {
			l.record(h, body)
		} else {
			l.damaged(at, h.size(), "the checksum of a record is wrong")
			if h.kind == kindPut && h.number < l.next {
				l.segment.reach(h.number)
			}
		}
		offset = at + h.size()
	}
	return nil
}

// record takes a record that is whole.
func (l *loader) record(h header, body []byte) {
	if h.kind == kindDone {
		for _, r := range parseDone(body) {
			l.loadDone(r)
		}
		return
	}
	// Others are left of a rewriting that was interrupted: the next segment has them.
	if h.number > l.segment.last && h.number < l.next {
		l.segment.reach(h.number - 1)
		l.segment.last = h.number
		l.segment.puts++
	}
}

// loadDone takes a range of numbers that are done, in this segment or those before. What
// is not in a file is done, too: a put that was damaged, whose number is not used again.
func (l *loader) loadDone(r span) {
	all := l.journal.segments
	for i := max(0, l.journal.segmentOf(r.first)); i <= l.index && all[i].first <= r.last; i++ {
		last := r.last
		if i+1 < len(all) {
			last = min(last, all[i+1].first-1)
		}
		all[i].reach(last)
		all[i].done.add(span{max(r.first, all[i].first), last})
	}
}

// damaged notes bytes that are no record, in order.
func (l *loader) damaged(offset, length int64, reason string) {
	if length == 0 {
		return
	}
	if n := len(l.damage); n > 0 && l.damage[n-1].Offset+l.damage[n-1].Length == offset && offset > headSize {
		l.damage[n-1].Length += length
		l.cut = false
		return
	}
	name := filepath.Join(l.journal.folder, l.segment.name())
	l.damage = append(l.damage, Repair{File: name, Offset: offset, Length: length, Reason: reason})
}

// repair copies what is damaged to files beside, and cuts it from the end of the last
// segment.
func (l *loader) repair(last bool) error {
	for i := range l.damage {
		d := &l.damage[i]
		atEnd := d.Offset+d.Length == l.segment.size
		if last && atEnd && l.cut {
			d.Reason = "the last record is not whole"
		} else {
			if err := l.save(d); err != nil {
				return err
			}
			if last { // the numbers of as many records as may have been there are not used again
				l.segment.reach(l.segment.last + uint64(d.Length)/headerSize)
			}
		}
		if d.Offset < headSize {
			if err := l.writeHead(); err != nil {
				return err
			}
		} else if last && atEnd {
			l.segment.size = d.Offset
			if err := errors.Join(l.file.Truncate(d.Offset), l.file.Sync()); err != nil {
				return err
			}
		}
	}
	if len(l.damage) == 0 && l.segment.size == 0 {
		return l.writeHead() // the machine stopped when the file was made
	}
	l.journal.repairs = append(l.journal.repairs, l.damage...)
	return nil
}

// writeHead writes the head again. All of it is known.
func (l *loader) writeHead() error {
	_, err := l.file.WriteAt(appendHead(nil, l.segment.first), 0)
	if err == nil {
		err = l.file.Sync()
	}
	l.segment.size = max(l.segment.size, headSize)
	return err
}
