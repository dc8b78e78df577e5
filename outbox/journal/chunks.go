package journal

import (
	"errors"
	"fmt"
	"io"
)

const chunk = 64 << 10 // bytes that are read at once

// chunks reads a file in chunks.
type chunks struct {
	file  io.ReaderAt
	size  int64 // where reading ends
	start int64 // of buffer in the file
	data  []byte
	spare []byte // that data is a part of
}

// at returns the n bytes at an offset, which must be below size. They are valid until the
// next call.
func (c *chunks) at(offset, n int64) ([]byte, error) {
	if offset < c.start || offset+n > c.start+int64(len(c.data)) {
		if err := c.fill(offset, n); err != nil {
			return nil, err
		}
	}
	from := offset - c.start
	return c.data[from : from+n], nil
}

// fill reads n bytes, or a chunk if that is more.
func (c *chunks) fill(offset, n int64) error {
	most := min(max(n, chunk), c.size-offset)
	if int64(cap(c.spare)) < most || cap(c.spare) > mostSpare && most <= chunk {
		c.spare = make([]byte, most)
	}
	c.data, c.start = nil, offset
	buffer := c.spare[:most]
	if got, err := c.file.ReadAt(buffer, offset); int64(got) < most {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read of %d bytes at %d: %w", most, offset, err)
	}
	c.data = buffer
	return nil
}

// header returns the header at an offset. ok is false if there is none, or if its record
// reaches over the end; cut then says that the file seems to end within a record.
func (c *chunks) header(offset int64) (h header, ok, cut bool, err error) {
	if c.size-offset < headerSize {
		return h, false, true, nil
	}
	b, err := c.at(offset, headerSize)
	if err != nil {
		return h, false, false, err
	}
	h, ok = parseHeader(b)
	cut = ok && h.size() > c.size-offset
	return h, ok && !cut, cut, nil
}

// find returns the first header at or after an offset, and where it is. ok is false if
// none comes; cut then says that the file seems to end within a record at offset.
func (c *chunks) find(offset int64) (h header, at int64, ok, cut bool, err error) {
	for at = offset; at < c.size; at++ {
		h, ok, cut, err = c.header(at)
		if ok || err != nil {
			return h, at, ok, false, err
		}
		if cut {
			return h, at, false, at == offset, nil
		}
	}
	return h, at, false, false, nil
}

// body returns the body of the record at an offset. ok is false if it is damaged.
func (c *chunks) body(at int64, h header) (b []byte, ok bool, err error) {
	if h.length > 0 {
		b, err = c.at(at+headerSize, h.length)
	}
	return b, err == nil && checksum(b) == h.sum, err
}
