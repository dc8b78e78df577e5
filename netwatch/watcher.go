package netwatch

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	settleFor = 100 * time.Millisecond // from the first hint of a burst to the next look
	pollEvery = 3 * time.Second        // without netlink, or while offline
)

var process = &Watcher{
	look:  look,
	hints: openNetlink,
}

// Default returns the watcher of this process, for resock.WithNetwork. It runs only
// while it has subscribers, so there is nothing to close.
func Default() *Watcher { return process }

// Watcher watches the network interfaces of this machine. It is returned by [Default];
// the zero value is not usable. Its methods may be called concurrently.
type Watcher struct {
	look  func() snapshot
	hints func() (*hints, error)

	current atomic.Pointer[snapshot] // nil while there is no subscriber

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
	run         *run // nil while there is no subscriber
}

type subscriber struct{ changed func() }

// run lasts from the first subscription to the end of the last.
type run struct {
	quit chan struct{} // closed to end it
	done chan struct{} // closed when it has ended
}

// hints are notifications that the network may have changed. A nil *hints has none.
type hints struct {
	moments chan struct{} // holds at most one hint; closed after the last
	routes  atomic.Uint64 // changes of default routes so far, which look does not see
	close   func()        // returns when its goroutine has ended
}

// Online reports whether the machine is online. While there is a subscriber it returns
// the last known state at once, else it asks the system.
func (w *Watcher) Online() bool {
	if s := w.current.Load(); s != nil {
		return s.online
	}
	return w.look().online
}

// OnChange makes the watcher call changed after every change, on a goroutine of its
// own and never concurrently. changed must not block, and must not call OnChange or
// stop.
//
// stop ends the subscription: once it has returned, changed is not called any more.
// Calls of stop after the first do nothing.
func (w *Watcher) OnChange(changed func()) (stop func()) {
	s := &subscriber{changed}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.run == nil {
		w.start()
	}
	if w.subscribers == nil {
		w.subscribers = make(map[*subscriber]struct{})
	}
	w.subscribers[s] = struct{}{}
	return func() { w.leave(s) }
}

// start starts a run; mu is held.
func (w *Watcher) start() {
	hints, err := w.hints()
	if err != nil {
		hints = nil
	}
	// The snapshot is taken after subscribing to hints, so that no change is missed.
	s := w.take(hints)
	w.current.Store(&s)
	w.run = &run{quit: make(chan struct{}), done: make(chan struct{})}
	go w.watch(w.run, hints, s)
}

func (w *Watcher) leave(s *subscriber) {
	w.mu.Lock()
	delete(w.subscribers, s)
	r := w.run
	if r == nil || len(w.subscribers) > 0 {
		w.mu.Unlock()
		return
	}
	w.run = nil
	w.current.Store(nil)
	close(r.quit)
	w.mu.Unlock()
	<-r.done
}

// watch reports changes until the run ends.
func (w *Watcher) watch(r *run, h *hints, last snapshot) {
	defer close(r.done)
	defer func() { h.stop() }()
	for {
		var poll <-chan time.Time
		if h == nil || !last.online {
			poll = time.After(pollEvery)
		}
		select {
		case <-r.quit:
			return
		case <-poll:
		case _, more := <-h.channel():
			if !more {
				h.stop()
				h = nil
			}
			select {
			case <-r.quit:
				return
			case <-time.After(settleFor):
			}
		}
		now := w.take(h)
		if now != last && !w.report(r, now) {
			return
		}
		last = now
	}
}

// report records a change and calls the subscribers. It reports false if the run has
// ended.
func (w *Watcher) report(r *run, now snapshot) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.run != r {
		return false
	}
	w.current.Store(&now)
	for s := range w.subscribers {
		s.changed()
	}
	return true
}

// take takes a snapshot, with the route changes known before.
func (w *Watcher) take(h *hints) snapshot {
	if h == nil {
		return w.look()
	}
	routes := h.routes.Load()
	s := w.look()
	s.routes = routes
	return s
}

func (h *hints) channel() <-chan struct{} {
	if h == nil {
		return nil
	}
	return h.moments
}

func (h *hints) stop() {
	if h != nil {
		h.close()
	}
}
