package journal

import (
	"context"
	"fmt"
	"runtime"
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
	if err == nil {
		b := &j.lone
		*b = batch{data: b.data[:0]}
		b.add(number, id, typ, data)
		err = j.append(s, b)
		j.landed(s, b, err)
		if cap(b.data) > mostSpare {
			b.data = nil
		}
	}
	j.commit(nil) // what was noted as done meanwhile
	if err != nil {
		return 0, err
	}
	return number, nil
}

// lane lets one in at a time. Whoever comes may go ahead of those who wait: to wake one up
// for each write would cost more than the write.
type lane struct {
	busy atomic.Bool
	free chan struct{} // has a token after each leave, unless it has one
}

func newLane() lane { return lane{free: make(chan struct{}, 1)} }

// yields is how often others may run before one waits in earnest.
const yields = 8

// enter waits until the lane is free, or ctx ends.
func (l *lane) enter(ctx context.Context) error {
	for range yields {
		if l.busy.CompareAndSwap(false, true) {
			return nil
		}
		runtime.Gosched()
	}
	for !l.busy.CompareAndSwap(false, true) {
		select {
		case <-l.free:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (l *lane) leave() {
	l.busy.Store(false)
	select {
	case l.free <- struct{}{}:
	default:
	}
}
