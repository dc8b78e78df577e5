package outbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/resock/resock"
)

// flight is what is under way: the first messages that are not done, in order. It is
// guarded by the mutex of the box.
type flight struct {
	entries []*entry
	after   uint64 // the last number that was taken from the store

	session uint64    // the one that is open, or 0
	moved   time.Time // when the first entry became that
	acked   uint64    // the last session in which anything was acknowledged, or refused
	stalled uint64    // the last session that was replaced for want of acknowledgements
}

// entry is a message that is under way.
type entry struct {
	Record
	session uint64    // it was written in, or is being written in; 0 before
	written time.Time // in that session; zero while it is being written
	again   bool      // it was written in an earlier session
	losses  int       // sessions in a row, of those that count
	headed  uint64    // the session that ended while this was the first one under way, until it was counted
}

// sent reports whether the server may have the message. What it says about one that it
// cannot have is about another with the same id.
func (e *entry) sent() bool { return e.session > 0 || e.again }

// ended is a message that needs to be told.
type ended struct {
	Record
	err error
}

// low returns the lowest number under way, or 0.
func (f *flight) low() uint64 {
	if len(f.entries) == 0 {
		return 0
	}
	return f.entries[0].Number
}

// underWay returns how many were sent in the session that is open.
func (f *flight) underWay() (n int) {
	for _, e := range f.entries {
		if f.session > 0 && e.session == f.session {
			n++
		}
	}
	return n
}

// next returns the next entry to write in a session.
func (f *flight) next(session uint64) *entry {
	for _, e := range f.entries {
		if e.session < session {
			return e
		}
	}
	return nil
}

// over ends a session, which may have been planned by the application.
func (f *flight) over(session uint64, planned bool) {
	if f.session <= session {
		f.session = 0
	}
	if len(f.entries) == 0 || session == 0 || planned && f.stalled != session {
		return
	}
	if e := f.entries[0]; e.session == session {
		e.headed = session
	}
}

// lost counts the session in which an entry was the first one under way, when it is about
// to be written again: by then all that was received in that session has been read.
func (f *flight) lost(e *entry) {
	switch {
	case e.headed == 0:
	case e.headed <= f.acked && e.headed != f.stalled:
		e.losses = 0
	default:
		e.losses++
	}
	e.headed = 0
}

// write notes that an entry is about to be written.
func (f *flight) write(e *entry, session uint64) {
	e.again = e.again || e.session > 0
	e.session, e.written = session, time.Time{}
}

// unbind forgets the sessions of a client.
func (f *flight) unbind() {
	for _, e := range f.entries {
		e.again = e.again || e.session > 0
		e.session, e.headed = 0, 0
	}
	*f = flight{entries: f.entries, after: f.after}
}

// receive takes out what a receipt, of a session, is about.
func (f *flight) receive(r receipt, session uint64, now time.Time) []ended {
	i := slices.IndexFunc(f.entries, func(e *entry) bool { return e.ID == r.id && e.sent() })
	if i < 0 {
		return nil
	}
	first := i
	if r.upTo {
		first = 0
	}
	var done []ended
	for _, e := range f.entries[first : i+1] {
		var err error
		if r.refused != nil {
			err = fmt.Errorf("%w: %w", ErrRefused, r.refused)
		}
		done = append(done, ended{e.Record, err})
	}
	f.remove(first, i+1, now)
	f.acked = max(f.acked, session)
	return done
}

// remove removes entries.
func (f *flight) remove(first, end int, now time.Time) {
	f.entries = slices.Delete(f.entries, first, end)
	if first == 0 {
		f.moved = now
	}
}

// drop removes an entry, if it is still there.
func (f *flight) drop(e *entry, err error) []ended {
	i := slices.Index(f.entries, e)
	if i < 0 {
		return nil
	}
	f.remove(i, i+1, time.Now())
	return []ended{{e.Record, err}}
}

// waits returns since when the server owes an acknowledgement of the first entry.
func (f *flight) waits() (since time.Time, ok bool) {
	if f.session == 0 || len(f.entries) == 0 || f.entries[0].session != f.session || f.entries[0].written.IsZero() {
		return since, false
	}
	since = f.entries[0].written
	if f.moved.After(since) {
		since = f.moved
	}
	return since, true
}

// Filter finds the acknowledgements. It is for [resock.WithFilter].
func (b *Box) Filter(_ context.Context, m resock.MessageEvent) (pass bool) {
	var found Found
	pass = b.config.Read(m, &found)
	if len(found.receipts) == 0 {
		return pass
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range found.receipts {
		if !b.closed { // or the next box gets the message
			b.end(b.flight.receive(r, m.Session, time.Now()))
		}
	}
	return pass
}
