package journal

import (
	"fmt"

	"github.com/resock/resock"
)

// cursor is where Next goes on reading. Guarded by Journal.reading.
type cursor struct {
	segment *segment // or nil
	file    file
	chunks  chunks
	offset  int64
	last    uint64 // the number before offset
}

// close gives the file back: one that is open cannot be replaced or removed everywhere.
func (c *cursor) close() error {
	if c.segment == nil {
		return nil
	}
	err := c.file.Close()
	c.segment, c.file, c.chunks.file = nil, nil, nil
	return err
}

// closeCursor gives the file back if it is that of s. The caller holds reading.
func (j *Journal) closeCursor(s *segment) {
	if j.cursor.segment == s {
		_ = j.cursor.close()
	}
}

// Next returns the first record above after that is not done; ok is false if there is
// none. To read on from the last one is quick, to go elsewhere reads a file from its
// beginning. Data is the caller's. If the record cannot be read, the error says why, and
// its Number is set: Done passes over it, and opening the journal again sets it aside.
func (j *Journal) Next(after uint64) (r Record, ok bool, err error) {
	j.reading.Lock()
	defer j.reading.Unlock()
	j.mu.Lock()
	closed := j.closed
	s, number, ok := j.firstLive(after)
	var size int64
	if ok {
		size = s.size
	}
	j.mu.Unlock()
	if closed {
		return Record{}, false, j.errClosed()
	}
	if !ok {
		return Record{}, false, nil
	}
	if err = j.seek(s, number, size); err == nil {
		r, err = j.cursor.read(number)
	}
	if err != nil {
		_ = j.cursor.close()
		return Record{Number: number}, false, fmt.Errorf("journal: record %d in %s of %s: %w", number, s.name(), j.folder, err)
	}
	return r, true, nil
}

// seek brings the cursor before a record.
func (j *Journal) seek(s *segment, number uint64, size int64) error {
	c := &j.cursor
	if c.segment != s {
		_ = c.close()
		f, err := j.disk.open(s.name())
		if err != nil {
			return err
		}
		*c = cursor{segment: s, file: f, chunks: chunks{file: f, spare: c.chunks.spare}, offset: headSize, last: s.first - 1}
	}
	if number <= c.last {
		c.offset, c.last = headSize, s.first-1
	}
	c.chunks.size = size
	return nil
}

// read reads on to a record.
func (c *cursor) read(number uint64) (Record, error) {
	for {
		h, at, ok, _, err := c.chunks.find(c.offset)
		switch {
		case err != nil:
			return Record{}, err
		case !ok || h.kind == kindPut && h.number > number:
			return Record{}, errDamaged
		}
		c.offset = at + h.size()
		if h.kind == kindPut && h.number == number {
			c.last = number
			return c.chunks.put(at, h)
		}
	}
}

// errDamaged means that a record was whole when it was written, or when the journal was
// opened.
var errDamaged = fmt.Errorf("the file is damaged: open the journal again to set that aside, or go on after it")

// put returns the record of a put.
func (c *chunks) put(at int64, h header) (Record, error) {
	body, ok, err := c.body(at, h)
	if err != nil {
		return Record{}, err
	}
	if !ok {
		return Record{}, errDamaged
	}
	id, data := body[:h.idLength], body[h.idLength:]
	return Record{h.number, string(id), resock.MessageType(h.typ), append(make([]byte, 0, len(data)), data...)}, nil
}
