package journal

import (
	"io"
	"syscall"
)

// handle is an open file of a memory.
type handle struct {
	memory  *memory
	name    string
	content *content
}

func (h *handle) ReadAt(b []byte, offset int64) (int, error) {
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	if h.memory.fail != nil {
		if err := h.memory.fail("read", h.name); err != nil {
			return 0, err
		}
	}
	if offset >= int64(len(h.content.data)) {
		return 0, io.EOF
	}
	n := copy(b, h.content.data[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes half of b if the machine stops, and what has room if the disk is full.
func (h *handle) WriteAt(b []byte, offset int64) (int, error) {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	crashed := m.crashAt > 0 && m.operations+1 > m.crashAt
	err := m.do("write", h.name)
	n := len(b)
	switch {
	case crashed:
		return 0, err
	case err != nil:
		n /= 2
	case m.limited && m.room < int64(n):
		n, err = int(m.room), syscall.ENOSPC
	}
	if m.limited {
		m.room -= int64(n)
	}
	if grow := offset + int64(n) - int64(len(h.content.data)); grow > 0 {
		h.content.data = append(h.content.data, make([]byte, grow)...)
	}
	copy(h.content.data[offset:], b[:n])
	return n, err
}

func (h *handle) Size() (int64, error) {
	h.memory.mu.Lock()
	defer h.memory.mu.Unlock()
	return int64(len(h.content.data)), nil
}

func (h *handle) Truncate(size int64) error {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("truncate", h.name); err != nil {
		return err
	}
	if m.limited {
		m.room += int64(len(h.content.data)) - size
	}
	h.content.data = h.content.data[:size:size]
	return nil
}

func (h *handle) Sync() error {
	m := h.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("sync", h.name); err != nil {
		return err
	}
	h.content.synced = append([]byte(nil), h.content.data...)
	return nil
}

func (h *handle) Close() error { return nil }
