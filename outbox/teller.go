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

// teller tells the store and the application what is done, in order.
func (b *Box) teller() {
	for {
		select {
		case <-b.tell:
		case <-b.ctx.Done():
			b.report() // the last
			return
		}
		b.report()
	}
}

// report tells what has been done.
func (b *Box) report() {
	b.mu.Lock()
	b.telling, b.ended = b.ended, nil
	list := b.telling
	b.mu.Unlock()
	if len(list) == 0 {
		return
	}
	b.forget(list)
	for _, e := range list {
		if b.config.Done != nil {
			b.config.Done(Result{ID: e.ID, Type: e.Type, Data: e.Data, Err: e.err})
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.telling = nil
	close(b.moved)
	b.moved = make(chan struct{})
}

// forget lets the store forget messages. If it cannot, they are sent again after a restart
// of the process; the box goes on, and tries until it is closed.
func (b *Box) forget(list []ended) {
	numbers := make([]uint64, len(list))
	for i, e := range list {
		numbers[i] = e.Number
	}
	for {
		err := b.store.Done(numbers...)
		if err == nil {
			return
		}
		b.failed(err)
		select {
		case <-time.After(time.Second):
		case <-b.ctx.Done():
			return
		}
	}
}
