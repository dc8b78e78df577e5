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
	abort <-chan struct{} // nobody waits any more

	mu      sync.Mutex
	queue   ring[told]
	running bool
	stuck   bool          // somebody has waited in vain for the function that runs
	idle    chan struct{} // closed when all is told, if somebody waits for that
}

// tell adds an outcome. It does not wait.
func (t *teller) tell(done func(error), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
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
			go t.run()
		}
	}()
	for {
		t.mu.Lock()
		t.stuck = false
		if t.queue.len == 0 {
			t.running = false
			if t.idle != nil {
				close(t.idle)
				t.idle = nil
			}
			over = true
			t.mu.Unlock()
			return
		}
		next := t.queue.popFront()
		t.mu.Unlock()
		next.done(next.err)
	}
}

// untold is how many outcomes wait.
func (t *teller) untold() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.queue.len
}

// untilTold is closed when all is told. It is nil if all is, or if it is of no use to
// wait and patient is not set.
func (t *teller) untilTold(patient bool) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.running || t.stuck && !patient {
		return nil
	}
	if t.idle == nil {
		t.idle = make(chan struct{})
	}
	return t.idle
}

// wait waits until all is told, but not for ever.
func (t *teller) wait() {
	idle := t.untilTold(false)
	if idle == nil {
		return
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-idle:
	case <-t.abort:
	case <-timer.C:
		t.mu.Lock()
		defer t.mu.Unlock()
		t.stuck = t.running
	}
}

// join waits until all is told.
func (t *teller) join() {
	if idle := t.untilTold(true); idle != nil {
		<-idle
	}
}
