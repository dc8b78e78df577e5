package outbox

import (
	"errors"
	"time"
)

// end notes that messages are done; mu is held.
func (b *Box) end(list []ended) {
	for _, e := range list {
		switch {
		case e.err == nil:
			b.stats.Acked++
		case errors.Is(e.err, ErrRefused):
			b.stats.Refused++
		default:
			b.stats.SetAside++
		}
	}
	if len(list) > 0 {
		b.ended = append(b.ended, list...)
		ring(b.tell)
		ring(b.wake) // there is room
	}
}

// teller tells the application and then the store what is done, in order. If the store
// cannot forget it, it is tried again each second, until the box is closed.
func (b *Box) teller() {
	var again <-chan time.Time
	for {
		select {
		case <-b.tell:
		case <-again:
		case <-b.ctx.Done():
			b.report() // the last
			return
		}
		again = nil
		if !b.report() {
			again = time.After(time.Second)
		}
	}
}

// report tells what has been done, and reports whether the store forgot all of it.
func (b *Box) report() (forgot bool) {
	b.mu.Lock()
	b.telling, b.ended = b.ended, nil
	list := b.telling
	b.mu.Unlock()
	for _, e := range list {
		if b.config.Done != nil {
			b.config.Done(Result{ID: e.ID, Type: e.Type, Data: e.Data, Err: e.err})
		}
		b.done = append(b.done, e.Number) // not before it was told: the process may end here
	}
	forgot = b.forget()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.telling = nil
	b.stir()
	return forgot
}

// forget lets the store forget what was told.
func (b *Box) forget() (forgot bool) {
	if len(b.done) == 0 {
		return true
	}
	if err := b.store.Done(b.done...); err != nil {
		b.failed(err)
		return false
	}
	b.done = nil
	return true
}
