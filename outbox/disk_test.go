package outbox_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
)

var (
	errDisk = errors.New("disk: an error")
	errDead = errors.New("disk: the process is dead")
)

// disk is what outlasts the process: a message is on it once Put stored it. Some of what
// is done reaches it later, or is lost in a crash.
type disk struct {
	mu      sync.Mutex
	records []outbox.Record      // all there ever were
	at      map[uint64]time.Time // when each was stored
	gone    map[uint64]bool      // those that are done
}

func newDisk() *disk {
	return &disk{at: map[uint64]time.Time{}, gone: map[uint64]bool{}}
}

// process is the store of one process. It dies after so many steps.
type process struct {
	*disk
	writing chan struct{} // holds one
	most    int           // messages that may be stored
	faults  bool          // errors come at random
	died    chan struct{} // closed when it died

	// Guarded by disk.mu.
	random  *rand.Rand
	steps   int // until it dies, if not negative
	dead    bool
	done    map[uint64]bool // and not on the disk
	tooMany bool            // were stored
	putting int             // calls of Put
	early   bool            // it was closed during one
}

func (d *disk) start(random *rand.Rand, steps, most int, faults bool) *process {
	p := &process{disk: d, random: random, steps: steps, most: most, faults: faults,
		writing: make(chan struct{}, 1), died: make(chan struct{}), done: map[uint64]bool{}}
	p.writing <- struct{}{}
	return p
}

// step reports whether the process dies now, and whether it is dead. mu is held.
func (p *process) step() (dies, dead bool) {
	if p.dead {
		return false, true
	}
	if p.steps == 0 {
		p.dead = true
		close(p.died)
		return true, true
	}
	p.steps--
	return false, false
}

// fault reports whether an error comes, in one of n cases. mu is held.
func (p *process) fault(n int) bool { return p.faults && p.random.IntN(n) == 0 }

func (p *process) Put(ctx context.Context, id string, typ resock.MessageType, data []byte) (uint64, error) {
	select {
	case <-p.writing:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { p.writing <- struct{}{} }()
	p.mu.Lock()
	p.putting++
	slow := time.Duration(0)
	if p.random.IntN(3) == 0 {
		slow = time.Duration(p.random.IntN(50)) * time.Millisecond
	}
	p.mu.Unlock()
	time.Sleep(slow)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.putting--
	dies, dead := p.step()
	if dead && (!dies || p.random.IntN(2) == 0) {
		return 0, errDead
	}
	if p.fault(10) {
		return 0, errDisk
	}
	number := uint64(len(p.records) + 1)
	p.records = append(p.records, outbox.Record{Number: number, ID: id, Type: typ, Data: slices.Clone(data)})
	p.at[number] = time.Now()
	messages, _ := p.len()
	p.tooMany = p.tooMany || messages > p.most
	switch {
	case dead:
		return 0, errDead
	case p.fault(20):
		return 0, errDisk // and yet it is stored
	}
	return number, nil
}

func (p *process) Next(after uint64) (outbox.Record, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, dead := p.step(); dead {
		return outbox.Record{}, false, errDead
	}
	if p.fault(20) {
		return outbox.Record{}, false, errDisk
	}
	for _, r := range p.records[min(after, uint64(len(p.records))):] {
		if !p.gone[r.Number] && !p.done[r.Number] {
			r.Data = slices.Clone(r.Data)
			return r, true, nil
		}
	}
	return outbox.Record{}, false, nil
}

func (p *process) Done(numbers ...uint64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, dead := p.step(); dead {
		return errDead
	}
	if p.fault(5) {
		return errDisk
	}
	for _, number := range numbers {
		p.done[number] = true
	}
	if p.random.IntN(2) == 0 {
		p.sync()
	}
	return nil
}

// sync brings to the disk what is done. mu is held.
func (p *process) sync() {
	for number := range p.done {
		p.gone[number] = true
	}
	clear(p.done)
}

func (p *process) Len() (int, int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.len()
}

func (p *process) len() (messages int, bytes int64) {
	for _, r := range p.records {
		if !p.gone[r.Number] && !p.done[r.Number] {
			messages++
			bytes += int64(len(r.Data))
		}
	}
	return messages, bytes
}

func (p *process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.early = p.putting > 0
	if !p.dead {
		p.sync()
	}
	return nil
}

// isDead reports whether the process died.
func (p *process) isDead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}
