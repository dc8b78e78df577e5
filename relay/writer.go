package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errFenced says that the log does not go on where this leader left it: another one has
// written to it, or its end was removed. A new term is needed.
var errFenced = errors.New("relay: the log was written or cut by another")

// checkpointEvery is how many messages a new leader has to read at most.
const checkpointEvery = 4096

// writer writes the messages of a term to the log. Each names the one that it follows, so
// they are stored in order, and none after the first record of a later term: what an old
// leader has under way follows something else. (The expected last sequence would not do: the
// second message under way expects the sequence that the record of the later term has.)
// Requests are sent without waiting, and all that are not acknowledged again if one fails.
type writer struct {
	log   *log
	term  uint64
	slots chan struct{} // holds a token for each message that is not acknowledged
	ring  chan struct{} // rings for the confirming goroutine

	ctx  context.Context // ends with the term, and when the writer has failed
	fail context.CancelCauseFunc
	done chan struct{} // closed when the confirming goroutine has returned

	mu      sync.Mutex
	base    uint64        // the last sequence that is acknowledged
	last    string        // the id of that message
	pending []*entry      // those after it, in order
	moved   chan struct{} // closed when there is one less; nil while nobody waits for that
	stats   logStats
}

// logStats counts what a writer did.
type logStats struct {
	Written  uint64 // acknowledged
	Repeated uint64 // dropped by the log, which had them
	Resent   uint64
	Blocked  time.Duration // in which the limit was reached

	unacknowledged int
}

// entry is a message that is not acknowledged.
type entry struct {
	msg    *nats.Msg
	future jetstream.PubAckFuture
	err    error // why there is no future
}

// newWriter returns a writer that goes on after the record that begins the term.
func newWriter(ctx context.Context, l *log, term, base uint64) *writer {
	w := &writer{
		log: l, term: term, base: base, last: termID(term),
		slots: make(chan struct{}, l.limit), ring: make(chan struct{}, 1),
		done: make(chan struct{}),
	}
	w.ctx, w.fail = context.WithCancelCause(ctx)
	go w.confirm()
	return w
}

// append writes a message. While too many are not acknowledged it waits. The message must
// not be changed later.
func (w *writer) append(ctx context.Context, m *nats.Msg) error {
	if err := w.admit(ctx); err != nil {
		return err
	}
	e := &entry{msg: m}
	w.mu.Lock()
	w.send(e, w.tail())
	w.pending = append(w.pending, e)
	w.mu.Unlock()
	select {
	case w.ring <- struct{}{}:
	default:
	}
	return nil
}

// admit waits until fewer than the limit are not acknowledged.
func (w *writer) admit(ctx context.Context) error {
	select {
	case w.slots <- struct{}{}:
		return context.Cause(w.ctx)
	default:
	}
	began := time.Now()
	defer func() {
		w.mu.Lock()
		w.stats.Blocked += time.Since(began)
		w.mu.Unlock()
	}()
	select {
	case w.slots <- struct{}{}:
		return context.Cause(w.ctx)
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tail returns the id of the last message; mu is held.
func (w *writer) tail() string {
	if n := len(w.pending); n > 0 {
		return w.pending[n-1].id()
	}
	return w.last
}

func (e *entry) id() string { return e.msg.Header[jetstream.MsgIDHeader][0] }

// send sends an entry that follows a message; mu is held.
func (w *writer) send(e *entry, after string) {
	e.msg.Header[jetstream.ExpectedLastMsgIDHeader] = []string{after}
	e.future, e.err = w.log.js.PublishMsgAsync(e.msg)
}

// confirm waits for the acknowledgements, in order.
func (w *writer) confirm() {
	defer close(w.done)
	var again backoff
	for {
		e := w.first()
		if e == nil {
			return
		}
		ack, err := w.answer(e)
		switch {
		case w.ctx.Err() != nil:
			return
		case err == nil:
			again = 0
			w.acknowledged(ack)
		default:
			w.refused(e, err, &again)
		}
	}
}

// first waits for the first entry, and returns nil at the end of the writer.
func (w *writer) first() *entry {
	for {
		w.mu.Lock()
		if len(w.pending) > 0 {
			defer w.mu.Unlock()
			return w.pending[0]
		}
		w.mu.Unlock()
		select {
		case <-w.ring:
		case <-w.ctx.Done():
			return nil
		}
	}
}

// answer waits for the answer to an entry.
func (w *writer) answer(e *entry) (*jetstream.PubAck, error) {
	if e.err != nil {
		return nil, e.err
	}
	select {
	case ack := <-e.future.Ok():
		return ack, nil
	case err := <-e.future.Err():
		return nil, err
	case <-w.ctx.Done():
		return nil, context.Cause(w.ctx)
	}
}

// acknowledged notes that the first entry is in the log: at its place, or before, which
// moves all others.
func (w *writer) acknowledged(ack *jetstream.PubAck) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case ack.Sequence == w.base+1:
		w.base++
		w.last = w.pending[0].id()
		w.stats.Written++
		w.pop()
	case ack.Duplicate && ack.Sequence <= w.base:
		w.stats.Repeated++
		w.pop()
		w.resend()
	default:
		w.fail(fmt.Errorf("relay: the log has a message at %d that belongs to %d", ack.Sequence, w.base+1))
	}
}

// pop removes the first entry; mu is held.
func (w *writer) pop() {
	w.pending[0] = nil
	w.pending = w.pending[1:]
	if w.moved != nil {
		close(w.moved)
		w.moved = nil
	}
	<-w.slots
}

// resend sends all again; mu is held.
func (w *writer) resend() {
	after := w.last
	for _, e := range w.pending {
		m := *e.msg
		m.Header = maps.Clone(m.Header) // the library may still read the other one, to try it again
		e.msg = &m
		w.send(e, after)
		after = e.id()
	}
	w.stats.Resent += uint64(len(w.pending))
}

// refused finds out whether an entry that was not acknowledged is in the log, and sends all
// again if it is not.
func (w *writer) refused(e *entry, err error, again *backoff) {
	if wrongID(err) {
		stored, err := w.find(e)
		switch {
		case err != nil && (errors.Is(err, errFenced) || w.ctx.Err() != nil):
			w.fail(err)
			return
		case err == nil && stored:
			w.acknowledged(&jetstream.PubAck{Sequence: w.base + 1})
			return
		}
	}
	if again.wait(w.ctx) != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resend()
}

// find reports whether the first entry is in the log. If something else stands in its
// place, this leader is no longer the one that writes.
func (w *writer) find(e *entry) (stored bool, err error) {
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	raw, err := w.log.stream.GetMsg(ctx, w.base+1)
	switch {
	case err == nil && raw.Header.Get(jetstream.MsgIDHeader) == e.id():
		return true, nil
	case err == nil:
		return false, errFenced
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return false, err
	}
	raw, err = w.log.stream.GetMsg(ctx, w.base)
	if errors.Is(err, jetstream.ErrMsgNotFound) || err == nil && raw.Header.Get(jetstream.MsgIDHeader) != w.last {
		return false, errFenced // removed, and nothing can follow it
	}
	return false, err
}

// wrongID reports whether the server refused a message because it does not follow the last.
func wrongID(err error) bool {
	const wrongLastMsgID = 10070
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == wrongLastMsgID
}

// flush waits until all is acknowledged.
func (w *writer) flush(ctx context.Context) error {
	for {
		w.mu.Lock()
		left := len(w.pending)
		if w.moved == nil {
			w.moved = make(chan struct{})
		}
		moved := w.moved
		w.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-moved:
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// counted returns the counters.
func (w *writer) counted() logStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.unacknowledged = len(w.pending)
	return s
}

// close ends the writer. What is not acknowledged may be in the log or not.
func (w *writer) close() {
	w.fail(context.Canceled)
	<-w.done
}

// backoff is the delay before something is tried again.
type backoff time.Duration

func (b *backoff) wait(ctx context.Context) error {
	*b = backoff(min(max(2*time.Duration(*b), 25*time.Millisecond), time.Second))
	select {
	case <-time.After(time.Duration(*b)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
