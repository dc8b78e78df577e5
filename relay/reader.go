package relay

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resume"
)

// reader reads the feed by a client of its own. While it stands by it keeps the last events;
// then it hands all to an appender.
type reader struct {
	feed   *resume.Feed
	client *resock.Client
	box    atomic.Pointer[outbox.Box] // nil while nothing is sent
	limit  limit                      // of kept

	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nothing of it runs any more
	err    error         // why, once done is closed

	mu   sync.Mutex
	kept []resume.Event
	size int       // of kept, in bytes
	to   *appender // nil while it stands by
}

// stored are the positions that the log has, as a store of a feed: committed is what is in
// the log, so nothing is to be saved.
type stored positions

func (s stored) Load(context.Context) ([]resume.Position, error) { return positions(s).list(), nil }
func (s stored) Save(context.Context, []resume.Position) error   { return nil }

// newReader returns a reader that goes on after the positions. It does not run yet.
func (r *Relay) newReader(ctx context.Context, at positions) (*reader, error) {
	read := r.config.Read
	if read == nil {
		read = func(resock.MessageEvent, *resume.Found) {}
	}
	feed, err := resume.New(ctx, resume.Config{Read: read, Store: stored(at), AutoCommit: true})
	if err != nil {
		return nil, err
	}
	f := &reader{feed: feed, limit: limit{r.config.Standby, r.config.MaxBytes}, done: make(chan struct{})}
	options := append(slices.Clone(r.config.Options(feed)), resock.WithFilter(f.filter))
	if f.client, err = resock.New(r.config.URL, options...); err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	return f, nil
}

// filter shows messages to the outbox of the term.
func (f *reader) filter(ctx context.Context, m resock.MessageEvent) bool {
	box := f.box.Load()
	return box == nil || box.Filter(ctx, m)
}

// start starts the reader. told is called with its client, as Config.Client.
func (f *reader) start(told func(*resock.Client) func()) error {
	events, err := f.feed.Follow(f.ctx, f.client, resock.WithLabel("relay"))
	if err != nil {
		return err
	}
	remove := told(f.client)
	ran := make(chan error, 1)
	go func() { ran <- f.client.Run(f.ctx) }()
	go func() {
		defer close(f.done)
		defer remove()
		for event := range events {
			if err := f.take(event); err != nil {
				f.cancel(err)
				break
			}
		}
		if f.err = <-ran; f.ctx.Err() != nil {
			f.err = context.Cause(f.ctx)
		}
	}()
	return nil
}

// take keeps an event, or hands it to the appender.
func (f *reader) take(event resume.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.to != nil {
		return f.to.take(f.ctx, event)
	}
	f.kept = append(f.kept, event)
	f.size += weight(event)
	if !f.limit.holds(len(f.kept), f.size) {
		f.forget()
	}
	return nil
}

// forget forgets the older half of what was kept.
func (f *reader) forget() {
	half := len(f.kept) / 2
	for _, event := range f.kept[:half] {
		f.size -= weight(event)
	}
	f.kept = append(f.kept[:0], f.kept[half:]...)
	clear(f.kept[len(f.kept):cap(f.kept)])
}

// weight is about how much memory an event needs.
func weight(event resume.Event) int {
	m, _ := event.(resume.Message)
	return len(m.Data) + overhead
}

// lead hands what was kept and is not in the log to the appender, and all that follows. It
// reports false if what was kept does not reach back to the end of the log.
func (f *reader) lead(to *appender) (ok bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	had, missing, ok := after(f.kept, to.at)
	if !ok || f.ctx.Err() != nil {
		return false, nil
	}
	f.kept, f.size, f.to = nil, 0, to
	to.floor = maps.Clone(to.at)
	for _, event := range had {
		to.passed(event)
	}
	for _, event := range missing {
		if err := to.take(f.ctx, event); err != nil {
			return true, err
		}
	}
	return true, nil
}

// stop ends the reader, and returns when nothing of it runs any more. A nil one has ended.
func (f *reader) stop() {
	if f != nil {
		f.cancel(context.Canceled)
		<-f.done
	}
}

// after returns the events of each stream up to its position, and those after it, or false
// if they do not begin there.
func after(events []resume.Event, at positions) (had, missing []resume.Event, ok bool) {
	from, last := make(map[string]int), 0
	for stream, p := range at {
		cut, ok := behind(events, stream, p)
		if !ok {
			return nil, nil, false
		}
		from[stream] = cut
		last = max(last, cut)
	}
	for i, event := range events {
		cut := from[streamOf(event)]
		if m, is := event.(resume.Message); is && !located(m.Position) {
			cut = last // it was written before what followed it
		}
		if i < cut {
			had = append(had, event)
		} else {
			missing = append(missing, event)
		}
	}
	return had, missing, true
}

// behind returns where the events of a stream go on after a place. Numbers that fell before
// it do not tell where it is; if they fall after it, all from there on is new.
func behind(events []resume.Event, stream string, p place) (cut int, ok bool) {
	if p.fell {
		return 0, false
	}
	last := positions{}
	for i, event := range events {
		m, is := event.(resume.Message)
		if !is || m.Position.Stream != stream || m.Position.Epoch != p.Epoch {
			continue
		}
		q := m.Position
		if last.falls(q) {
			break
		}
		last.note(q)
		switch numbers := numbered(p.Position) && numbered(q); {
		case numbers && q.Seq <= p.Seq, !numbers && q.Seq == p.Seq && q.Token == p.Token:
			cut, ok = i+1, true
		case numbers && q.Seq == p.Seq+1 && q.Link == resume.Dense && !ok:
			cut, ok = i, true
		}
	}
	return cut, ok
}

func streamOf(event resume.Event) string {
	switch e := event.(type) {
	case resume.Message:
		return e.Position.Stream
	case resume.Gap:
		return e.Stream
	}
	return ""
}
