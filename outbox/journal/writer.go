package journal

import (
	"errors"
	"fmt"
	"slices"
)

// writer writes a file anew.
type writer struct {
	file file
	data []byte // to be written
	size int64
	puts uint64
}

// writeNew writes the records of some segments that are not done to a file, and syncs it.
func (j *Journal) writeNew(name string, group []*segment) (*writer, error) {
	f, err := j.disk.create(name)
	if err != nil {
		return nil, err
	}
	w := &writer{file: f, data: appendHead(nil, group[0].first)}
	for _, s := range group {
		if err == nil {
			err = j.copyLive(w, s)
		}
	}
	if err == nil {
		err = w.flush()
	}
	if err == nil {
		err = f.Sync()
	}
	return w, errors.Join(err, f.Close())
}

// copyLive copies what is not done of a segment.
func (j *Journal) copyLive(w *writer, s *segment) error {
	j.mu.Lock()
	done, size, want := spans{list: slices.Clone(s.done.list)}, s.size, s.live()
	j.mu.Unlock()
	if want == 0 {
		return nil
	}
	f, err := j.disk.open(s.name())
	if err != nil {
		return err
	}
	before := w.puts
	err = w.copy(&chunks{file: f, size: size}, s, &done)
	if err == nil && w.puts-before != want {
		err = fmt.Errorf("%s has %d records that are not done, want %d: it is damaged, open the journal again to set that aside", s.name(), w.puts-before, want)
	}
	return errors.Join(err, f.Close())
}

func (w *writer) copy(c *chunks, s *segment, done *spans) error {
	for offset := int64(headSize); ; {
		h, at, ok, _, err := c.find(offset)
		if !ok || err != nil {
			return err
		}
		offset = at + h.size()
		if h.kind != kindPut || h.number < s.first || h.number > s.last || done.has(h.number) {
			continue
		}
		record, err := c.at(at, h.size())
		if err != nil {
			return err
		}
		w.data = append(w.data, record...)
		w.puts++
		if len(w.data) >= chunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
}

func (w *writer) flush() error {
	_, err := w.file.WriteAt(w.data, w.size)
	w.size += int64(len(w.data))
	w.data = w.data[:0]
	return err
}
