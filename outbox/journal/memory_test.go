package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"sync"
)

var (
	errCrashed = errors.New("the machine stopped")
	errBroken  = errors.New("broken on purpose")
)

// memory is a disk that knows what was synced. A crash forgets the rest.
type memory struct {
	mu     sync.Mutex
	names  map[string]*content
	synced map[string]*content
	locked bool

	operations int                                // so far
	crashAt    int                                // the operation that fails, as all after it; 0 never
	room       int64                              // bytes that may be written, if limited
	limited    bool                               //
	fail       func(operation, name string) error // or nil
}

type content struct{ data, synced []byte }

func newMemory() *memory { return &memory{names: map[string]*content{}, synced: map[string]*content{}} }

// crashed returns the disk after a crash of the machine, which keeps what was synced, or
// of the process, which keeps all.
func (m *memory) crashed(machine bool) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	after, from := newMemory(), m.names
	if machine {
		from = m.synced
	}
	for name, c := range from {
		data := c.data
		if machine {
			data = c.synced
		}
		kept := &content{slices.Clone(data), slices.Clone(data)}
		after.names[name], after.synced[name] = kept, kept
	}
	return after
}

// do counts an operation, and fails it if it should. The caller holds mu.
func (m *memory) do(operation, name string) error {
	m.operations++
	if m.crashAt > 0 && m.operations >= m.crashAt {
		return errCrashed
	}
	if m.fail != nil {
		return m.fail(operation, name)
	}
	return nil
}

func (m *memory) lock() (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("lock", "lock"); err != nil {
		return nil, err
	}
	if m.locked {
		return nil, errors.New("in use")
	}
	m.locked = true
	return unlocker{m}, nil
}

type unlocker struct{ *memory }

func (m unlocker) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.locked = false
	return nil
}

func (m *memory) list() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Keys(m.names)), m.do("list", "")
}

func (m *memory) open(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.names[name]
	if c == nil {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return &handle{m, name, c}, nil
}

func (m *memory) create(name string) (file, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("create", name); err != nil {
		return nil, err
	}
	if m.names[name] == nil {
		m.names[name] = &content{}
	}
	m.names[name].data = nil
	return &handle{m, name, m.names[name]}, nil
}

func (m *memory) rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("rename", from); err != nil {
		return err
	}
	m.names[to] = m.names[from]
	delete(m.names, from)
	return nil
}

func (m *memory) remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("remove", name); err != nil {
		return err
	}
	delete(m.names, name)
	return nil
}

func (m *memory) sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.do("sync folder", ""); err != nil {
		return err
	}
	m.synced = maps.Clone(m.names)
	return nil
}

func (m *memory) present(name string, f file) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names[name] != f.(*handle).content {
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return nil
}
