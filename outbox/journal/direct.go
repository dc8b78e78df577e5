package journal

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/resock/resock"
)

// direct stores a message that waits for no sync, by a write of its own: to share that of
// another would cost more than it saves.
func (j *Journal) direct(ctx context.Context, id string, typ resock.MessageType, data []byte) (number uint64, err error) {
	if err := j.lane.enter(ctx); err != nil {
		return 0, fmt.Errorf("journal: not stored: the wait ended: %w", err)
	}
	defer j.lane.leave()
	<-j.token
	j.mu.Lock()
	number, err = j.admit(id, data)
	s := j.active()
	j.mu.Unlock()
	if err != nil {
		j.commit(nil)
		return 0, err
	}
	b := &j.lone
	*b = batch{data: b.data[:0]}
	b.add(number, id, typ, data)
	err = j.append(s, b)
	j.mu.Lock()
	full := j.land(s, b, err)
	if cap(b.data) > mostSpare {
		b.data = nil
	}
	again := full || j.batch != nil
	if !again {
		j.token <- struct{}{}
	}
	j.mu.Unlock()
	if full {
		j.rotate()
	}
	if again {
		j.commit(nil) // what was noted as done meanwhile
	}
	if err != nil {
		return 0, err
	}
	return number, nil
}

// lane lets one in at a time. Whoever comes may go ahead of those who wait, of whom one at
// a time is woken: to wake one for each write would cost more than the write.
type lane struct {
	busy    atomic.Bool
	waiting atomic.Int32
	woken   atomic.Bool
	free    chan struct{} // a token for the one that is woken
}

func newLane() lane { return lane{free: make(chan struct{}, 1)} }

func (l *lane) try() bool { return l.busy.CompareAndSwap(false, true) }

// enter waits until the lane is free, or ctx ends.
func (l *lane) enter(ctx context.Context) error {
	if l.try() {
		return nil
	}
	l.waiting.Add(1)
	defer l.waiting.Add(-1)
	for !l.try() {
		select {
		case <-l.free:
			entered := l.try()
			l.woken.Store(false) // before it looks again
			if entered {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *lane) leave() {
	l.busy.Store(false)
	if l.waiting.Load() > 0 && l.woken.CompareAndSwap(false, true) {
		l.free <- struct{}{}
	}
}
