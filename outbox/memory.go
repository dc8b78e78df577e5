package outbox

import (
	"context"
	"sort"
	"sync"

	"github.com/resock/resock"
)

// memory is a store that ends with the process.
type memory struct {
	mu      sync.Mutex
	records []Record // in order; those that are done have no number
	done    int      // of them
	last    uint64
	bytes   int64
}

func (m *memory) Put(_ context.Context, id string, typ resock.MessageType, data []byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last++
	m.records = append(m.records, Record{Number: m.last, ID: id, Type: typ, Data: append([]byte(nil), data...)})
	m.bytes += int64(len(data))
	return m.last, nil
}

func (m *memory) Next(after uint64) (Record, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := m.find(after + 1); i < len(m.records); i++ {
		if !gone(m.records[i]) {
			return m.records[i], true, nil
		}
	}
	return Record{}, false, nil
}

// find returns the place of a number, or of the next one that is there.
func (m *memory) find(number uint64) int {
	return sort.Search(len(m.records), func(i int) bool { return m.records[i].Number >= number })
}

// gone reports whether a record is done: it keeps its number, and nothing else.
func gone(r Record) bool { return r.Type == 0 }

func (m *memory) Done(numbers ...uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, number := range numbers {
		i := m.find(number)
		if i == len(m.records) || m.records[i].Number != number || gone(m.records[i]) {
			continue
		}
		m.bytes -= int64(len(m.records[i].Data))
		m.records[i] = Record{Number: number}
		m.done++
	}
	m.trim()
	return nil
}

// trim drops what is done once that is half of all.
func (m *memory) trim() {
	if m.done < 64 || 2*m.done < len(m.records) {
		return
	}
	kept := make([]Record, 0, len(m.records)-m.done)
	for _, r := range m.records {
		if !gone(r) {
			kept = append(kept, r)
		}
	}
	m.records, m.done = kept, 0
}

func (m *memory) Len() (int, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.records) - m.done, m.bytes
}

func (m *memory) Close() error { return nil }
