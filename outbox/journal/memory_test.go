package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
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

// crashedPartly returns the disk after a crash of the machine that kept some of what was not
// synced: of each name and each file what was there before or after, or the beginning, or
// zeros in between.
func (m *memory) crashedPartly(random *rand.Rand) *memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := maps.Clone(m.synced)
	maps.Copy(names, m.names)
	after := newMemory()
	for _, name := range slices.Sorted(maps.Keys(names)) {
		c := m.names[name]
		if random.IntN(2) == 0 {
			c = m.synced[name]
		}
		if c == nil {
			continue
		}
		data := c.partly(random)
		kept := &content{data, slices.Clone(data)}
		after.names[name], after.synced[name] = kept, kept
	}
	return after
}

func (c *content) partly(random *rand.Rand) []byte {
	data := slices.Clone(c.data)
	if len(data) <= len(c.synced) {
		return slices.Clone(c.synced)
	}
	fresh := data[len(c.synced):]
	switch random.IntN(3) {
	case 0:
		clear(fresh[:random.IntN(len(fresh))])
	case 1:
		return data[:len(c.synced)+random.IntN(len(fresh))]
	}
	return data
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
