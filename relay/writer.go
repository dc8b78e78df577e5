package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/jetstreamext"
)

// errFenced says that the log does not go on where this leader left it: another one has
// written to it, or its end was removed. A new term is needed.
var errFenced = errors.New("relay: the log was written or cut by another")

const (
	// checkpointEvery is how many messages a new leader has to read at most.
	checkpointEvery = 4096

	// mostBatch is how many messages a batch has at most. A server takes defaultBatch, unless
	// it is told otherwise, as that of package server is.
	mostBatch, defaultBatch = 4096, 1000

	// mostBytes is about how large a batch is at most.
	mostBytes = 8 << 20

	// answerWithin is how long a server may take to answer, before it is asked again: it may
	// be gone while the one that is connected is not. The next time it has twice as long.
	answerWithin, answerWithinMost = time.Second, 16 * time.Second
)

// errPartial says that the log has only the first messages of a batch: a server that ended
// while it stored them did not go on when it was there again.
var errPartial = errors.New("relay: the log has a part of a batch")

// writer writes the records of a term to the log. One request is under way at a time: a
// message, or what has gathered meanwhile as a batch, which the server stores whole or not
// at all. It names the last sequence of the log, so it is stored in its place, and refused
// once the first record of a later term stands there. (With several under way that would not
// hold: the second expects the sequence that the record of a later term gets.)
type writer struct {
	log     *log
	term    uint64
	waiting *backlog

	ctx  context.Context // ends with the term, and when the writer has failed
	fail context.CancelCauseFunc
	done chan struct{} // closed when the goroutine has returned

	began uint64 // the sequence of the first record of the term
	known bool   // where the log was before that

	base uint64 // the last sequence of the log
	most int    // of a batch
	solo int    // so many messages are written one by one

	partial bool // the batch under way was incomplete when it came last

	mu    sync.Mutex
	stats logStats
	retry context.CancelFunc // ends the request under way
}

// logStats counts what a writer did.
type logStats struct {
	Written  uint64 // acknowledged
	Requests uint64 // that wrote them
	Repeated uint64 // dropped by the log, which had them
	Resent   uint64
	Refused  uint64        // and replaced by a gap
	Blocked  time.Duration // in which the limit was reached

	since                 time.Time // when it was reached, if it is now
	unacknowledged, bytes int
}

// blocked returns how long the limit was reached until now.
func (s *logStats) blocked() time.Duration {
	if s.since.IsZero() {
		return s.Blocked
	}
	return s.Blocked + time.Since(s.since)
}

// newWriter returns a writer that goes on after the record that begins the term.
func newWriter(ctx context.Context, l *log, term, base uint64) *writer {
	w := &writer{
		log: l, term: term, began: base, base: base, waiting: newBacklog(l.limit),
		most: mostBatch, done: make(chan struct{}), retry: func() {},
	}
	w.ctx, w.fail = context.WithCancelCause(ctx)
	go w.run()
	return w
}

// append writes a message. While too much is not acknowledged it waits. The message belongs
// to the writer.
func (w *writer) append(ctx context.Context, m *nats.Msg) error {
	full := w.waiting.add(m)
	if full == nil {
		return context.Cause(w.ctx)
	}
	w.count(func(s *logStats) { s.since = time.Now() })
	defer w.count(func(s *logStats) { s.Blocked, s.since = s.blocked(), time.Time{} })
	for full != nil {
		select {
		case <-full:
			full = w.waiting.add(m)
		case <-w.ctx.Done():
			return context.Cause(w.ctx)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (w *writer) run() {
	defer close(w.done)
	conn := w.log.js.Conn()
	lost := conn.StatusChanged(nats.RECONNECTING)
	var watching sync.WaitGroup
	watching.Go(func() { w.watch(lost) })
	defer watching.Wait()
	defer conn.RemoveStatusListener(lost)
	for {
		most := w.most
		if w.solo > 0 {
			most = 1
		}
		unit := w.waiting.first(w.ctx, most)
		if len(unit) == 0 || w.ctx.Err() != nil {
			return
		}
		w.write(unit)
	}
}

// watch ends the request under way when the connection is lost: its answer may never come.
func (w *writer) watch(lost <-chan nats.Status) {
	for range lost {
		w.mu.Lock()
		w.retry()
		w.mu.Unlock()
	}
}

// write writes messages in one request, and makes that again until it is known what became
// of them, or how to write them in another way.
func (w *writer) write(unit []*nats.Msg) {
	var again backoff
	for within := answerWithin; ; within = min(2*within, answerWithinMost) {
		sequence, repeated, err := w.request(unit, within)
		if wrongSequence(err) {
			sequence, err = w.base+uint64(len(unit)), w.look(unit)
		}
		switch {
		case w.ctx.Err() != nil:
			return
		case err == nil:
			w.answered(len(unit), sequence, repeated)
			return
		case errors.Is(err, errFenced):
			w.fail(err)
			return
		case errors.Is(err, errPartial):
			w.solo = len(unit)
			return
		case w.split(unit, err):
			return
		}
		if again == 0 {
			w.log.told(err)
		}
		if again.wait(w.ctx) != nil {
			return
		}
		w.count(func(s *logStats) { s.Resent += uint64(len(unit)) })
	}
}

// answered notes where messages are in the log.
func (w *writer) answered(n int, sequence uint64, repeated bool) {
	switch {
	case sequence == w.base+uint64(n):
		w.stored(n)
	case repeated && sequence <= w.base:
		w.drop()
	default:
		w.fail(fmt.Errorf("relay: the log has a message at %d that belongs to %d", sequence, w.base+1))
	}
}

// request asks the server once to store messages, all or none, after the last of the log.
func (w *writer) request(unit []*nats.Msg, within time.Duration) (sequence uint64, repeated bool, err error) {
	ctx, cancel := context.WithTimeout(w.ctx, within)
	defer cancel()
	w.mu.Lock()
	w.retry = cancel
	w.mu.Unlock()
	js := w.log.js
	if !js.Conn().IsConnected() {
		return 0, false, nats.ErrDisconnected
	}
	if len(unit) > 1 {
		unit[0].Header.Set(jetstream.ExpectedLastSeqHeader, strconv.FormatUint(w.base, 10))
		ack, err := jetstreamext.PublishMsgBatch(ctx, js, unit, jetstreamext.BatchFlowControl{})
		if err != nil {
			return 0, false, err
		}
		return ack.Sequence, false, nil
	}
	m := unit[0]
	delete(m.Header, jetstreamext.BatchIDHeader) // of a batch that was refused
	delete(m.Header, jetstreamext.BatchSeqHeader)
	delete(m.Header, jetstreamext.BatchCommitHeader)
	ack, err := js.PublishMsg(ctx, m, jetstream.WithExpectLastSequence(w.base), jetstream.WithRetryAttempts(0))
	if err != nil {
		return 0, false, err
	}
	return ack.Sequence, ack.Duplicate, nil
}

// stored notes that messages are in the log, in their place.
func (w *writer) stored(n int) {
	w.base += uint64(n)
	w.solo = max(0, w.solo-n)
	w.partial = false
	w.count(func(s *logStats) { s.Written += uint64(n); s.Requests++ })
	w.waiting.remove(n)
}

// drop notes that the first message was in the log before.
func (w *writer) drop() {
	w.solo = max(0, w.solo-1)
	w.count(func(s *logStats) { s.Repeated++ })
	w.waiting.remove(1)
}

// split reports whether a refusal tells how to write the messages in another way, or what
// to write in place of a message that cannot be stored. Only the last message of a batch is
// answered: one that is refused before that leaves the batch incomplete.
func (w *writer) split(unit []*nats.Msg, err error) bool {
	var api *jetstream.APIError
	refused := errors.As(err, &api) && api.Code == 400
	switch large := errors.Is(err, nats.ErrMaxPayload); {
	case !refused && !large:
		return false
	case len(unit) > 1 && refused && api.ErrorCode == jetstreamext.JSErrCodeBatchPublishExceedsLimit:
		w.most = smaller(len(unit))
	case len(unit) > 1 && refused && api.ErrorCode == jetstreamext.JSErrCodeBatchPublishIncomplete && !w.partial:
		w.partial = true // a part of it may have been lost
		return false
	case len(unit) > 1:
		w.solo = len(unit)
	case large || api.ErrorCode == tooLarge || api.ErrorCode == headersTooLarge:
		w.refused(unit[0], err)
	default:
		return false
	}
	return true
}

// refused puts a gap in the place of a message that cannot be stored. A gap or a checkpoint
// that cannot be stored is left out.
func (w *writer) refused(m *nats.Msg, err error) {
	w.count(func(s *logStats) { s.Refused++ })
	w.log.told(fmt.Errorf("a record of %d bytes at %s is refused: %w", len(m.Data), m.Subject, err))
	if m.Subject == w.log.names.gap() || m.Subject == w.log.names.term() {
		w.solo = max(0, w.solo-1)
		w.waiting.remove(1)
		return
	}
	w.waiting.replace(w.log.refused(m, reasonOf(err)))
}

// reasonOf returns why a message was refused, in short.
func reasonOf(err error) string {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api.Description
	}
	return err.Error()
}

// smaller returns how many messages to try after a batch was too large.
func smaller(most int) int {
	if most > defaultBatch {
		return defaultBatch
	}
	return max(1, most/2)
}

const (
	tooLarge        jetstream.ErrorCode = 10054
	headersTooLarge jetstream.ErrorCode = 10097
)

// look finds out, after a request that does not follow the end of the log, whether an
// earlier one has stored the same messages. If something else stands in their place, this
// leader is no longer the one that writes.
func (w *writer) look(unit []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(w.ctx, answerWithinMost)
	defer cancel()
	raw, err := w.log.stream.GetMsg(ctx, w.base+1)
	switch {
	case err == nil && raw.Header.Get(jetstream.MsgIDHeader) == unit[0].Header.Get(jetstream.MsgIDHeader):
		return w.whole(ctx, unit)
	case err == nil:
		return errFenced
	case !errors.Is(err, jetstream.ErrMsgNotFound):
		return err
	}
	info, err := w.log.stream.Info(ctx)
	switch {
	case err != nil:
		return err
	case info.State.LastSeq != w.base:
		return errFenced // what stood there was removed
	}
	return errors.New("relay: the log is where it should be, and yet a message was refused")
}

// whole reports whether the log has the last of some messages in its place, as it has the
// first.
func (w *writer) whole(ctx context.Context, unit []*nats.Msg) error {
	last := unit[len(unit)-1]
	raw, err := w.log.stream.GetMsg(ctx, w.base+uint64(len(unit)))
	if err == nil && raw.Header.Get(jetstream.MsgIDHeader) == last.Header.Get(jetstream.MsgIDHeader) {
		return nil
	}
	if err == nil || errors.Is(err, jetstream.ErrMsgNotFound) {
		return errPartial
	}
	return err
}

func (w *writer) count(add func(*logStats)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	add(&w.stats)
}

// counted returns the counters.
func (w *writer) counted() logStats {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.stats
	s.Blocked = s.blocked()
	s.unacknowledged, s.bytes = w.waiting.counted()
	return s
}

// close ends the writer. What is not acknowledged may be in the log or not.
func (w *writer) close() {
	w.fail(context.Canceled)
	<-w.done
}
