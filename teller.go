package resock

import (
	"sync"
	"time"
)

// maxUntold is how many outcomes may wait to be told before sending waits for that.
const maxUntold = 1024

// told is an outcome, and the function of [WithResult] that is told it.
type told struct {
	done func(error)
	err  error
}

// teller tells outcomes, in order, on a goroutine of its own while there are any: a
// function of the application may wait for the client.
type teller struct {
	hooks *hooks

	mu      sync.Mutex
	queue   ring[told]
	running bool
	stuck   bool   // somebody has waited in vain for the function that runs
	added   uint64 // outcomes, so far
	told    uint64 // of them
	waits   ring[toldWait]
}

// toldWait is somebody who waits until so many outcomes are told.
type toldWait struct {
	upTo uint64
	over chan struct{}
}

// tell adds an outcome. It does not wait.
func (t *teller) tell(done func(error), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.added++
	t.queue.pushBack(told{done, err})
	if !t.running {
		t.running = true
		go t.run()
	}
}

// run tells all there is to tell. A function that ends the goroutine is one of many.
func (t *teller) run() {
	over := false
	defer func() {
		if !over {
			t.done()
			go t.run()
		}
	}()
	for next, ok := t.next(); ok; next, ok = t.next() {
		next.done(next.err)
		t.done()
	}
	over = true
}

// done notes that an outcome was told.
func (t *teller) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.told++
	t.stuck = false
	for t.waits.len > 0 && t.waits.at(0).upTo <= t.told {
		close(t.waits.popFront().over)
	}
}

// next returns the next outcome. It reports false when there is none.
func (t *teller) next() (next told, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.queue.len == 0 { // an idle client keeps no memory for what may come
		t.running = false
		t.queue, t.waits = ring[told]{}, ring[toldWait]{}
		return next, false
	}
	return t.queue.popFront(), true
}

// untold is how many outcomes wait.
func (t *teller) untold() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queue.len
}

// untilTold is closed when all that there is now is told. It is nil if it is already,
// or if it is of no use to wait and the caller has not all the time of the world. told
// is how many were told before.
func (t *teller) untilTold(forever bool) (over chan struct{}, told uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.told == t.added || t.stuck && !forever {
		return nil, t.told
	}
	over = make(chan struct{})
	t.waits.pushBack(toldWait{t.added, over})
	return over, t.told
}

// wait waits until all that there is now is told, but not for ever.
func (t *teller) wait() {
	all, told := t.untilTold(false)
	if all == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-all:
	case <-t.hooks.abort:
	case <-timer.C:
		t.late(told)
	}
}

// late notes that somebody has waited in vain, since so many outcomes were told.
func (t *teller) late(told uint64) {
	t.mu.Lock()
	overstays := t.running && !t.stuck && t.told == told
	t.stuck = t.running
	t.mu.Unlock()
	if overstays {
		t.hooks.overstays("WithResult")
	}
}

// join waits until all is told.
func (t *teller) join() {
	for all, told := t.untilTold(true); all != nil; all, told = t.untilTold(true) {
		timer := time.AfterFunc(patience, func() { t.late(told) })
		<-all
		timer.Stop()
	}
}
