package resume

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/resock/resock"
)

// Follow returns the events of the client from now on, with each message in its stream. It
// subscribes as [resock.Client.Subscribe] does, with its options. With OverflowDropOldest,
// what a slow loop was not given is a [Gap] where the numbers show one. Sparse numbers and
// tokens do not: there the cursor passes what was dropped, and only the Lost field of a
// message tells.
//
// The loop ends when it is left, when the client is closed for good, or when ctx ends; then
// the cursors are saved, which may take 5 s. If it is left, [Feed.Save] tells whether that
// worked. A feed has one loop at a time, and each sequence serves one. A later one goes on
// where the last one ended, and takes the event in whose middle that was left for handled:
// what is committed when the loop goes on is committed then.
func (f *Feed) Follow(ctx context.Context, client *resock.Client, opts ...resock.SubscribeOption) (iter.Seq[Event], error) {
	if client == nil {
		return nil, errors.New("resume: Follow: the client is nil")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.following {
		return nil, errors.New("resume: Follow: the feed is followed already")
	}
	if f.client != client {
		f.client = client
		f.forget()
	}
	f.following = true
	ctx, cancel := context.WithCancel(ctx)
	opts = append([]resock.SubscribeOption{resock.WithLabel("resume")}, opts...)
	l := &loop{feed: f, events: client.Subscribe(ctx, opts...)}
	stop := context.AfterFunc(ctx, f.unfollow) // if it is never ranged over
	return func(yield func(Event) bool) {
		if !stop() {
			return // ended, or ranged over before
		}
		defer f.unfollow()
		defer cancel()
		l.yield = yield
		l.feed.release()
		left := !l.run()
		cancel()
		if err := l.save(ctx); err != nil && !left {
			yield(StoreError{err})
		}
	}, nil
}

// forget forgets the session numbers of another client; mu is held.
func (f *Feed) forget() {
	clear(f.removed)
	for _, s := range f.streams {
		s.lostIn = 0
		if s.losing > 0 || len(s.owed) > 0 {
			s.losing, s.owed = 0, []uint64{0}
		}
	}
}

func (f *Feed) unfollow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.following = false
}

// loop is one loop over the events of a feed. It runs on the goroutine of the consumer.
type loop struct {
	feed   *Feed
	events <-chan resock.Event
	yield  func(Event) bool
	found  Found
}

// run goes on until the events end, or reports false if the consumer left.
func (l *loop) run() bool {
	for {
		event, more, err := l.next()
		switch {
		case err != nil:
			if !l.yield(StoreError{err}) {
				return false
			}
		case !more:
			return true
		case !l.take(event):
			return false
		}
	}
}

// next waits for an event of the client, or for the failure of the store.
func (l *loop) next() (event resock.Event, more bool, err error) {
	failed := l.feed.saver.failed
	if len(failed) == 0 {
		select {
		case event, more = <-l.events:
			return event, more, nil
		default:
		}
	}
	select {
	case event, more = <-l.events:
	case err = <-failed:
	}
	return event, more, err
}

// atEnd bounds the saving of the cursors at the end of a loop.
const atEnd = 5 * time.Second

func (l *loop) save(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), atEnd)
	defer cancel()
	return l.feed.Save(ctx)
}

// take passes an event of the client on. As all that follow, it reports false if the
// consumer left.
func (l *loop) take(event resock.Event) bool {
	m, ok := event.(resock.MessageEvent)
	if !ok {
		return l.yield(Lifecycle{event}) && l.opened(event)
	}
	items := l.found.read(l.feed.read, m)
	for _, item := range items {
		more := true
		switch item.kind {
		case mark:
			more = l.mark(item.position)
		case loss:
			more = l.lose(item.position.Stream, m.Session)
		case snapshot:
			m.Data = item.data
			more = l.snapshot(m, item.position)
		case message:
			m.Data = item.data
			more = l.message(m, item.position)
		}
		if !more {
			return false
		}
	}
	return len(items) > 0 || l.yield(Message{MessageEvent: m})
}

// opened tells the gaps that hooks found out about, and forgets the removed streams that
// the session can have nothing of.
func (l *loop) opened(event resock.Event) bool {
	open, ok := event.(resock.OpenEvent)
	if !ok {
		return true
	}
	for _, name := range l.feed.opened(open.Session) {
		if l.feed.missed(name, open.Session) && !l.lose(name, open.Session) {
			return false
		}
	}
	return true
}

// opened returns the streams whose cursors were lost before the session opened, and that
// have not gone on.
func (f *Feed) opened(session uint64) (lost []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, last := range f.removed {
		if session > last+1 { // the next one may have been registered before
			delete(f.removed, name)
		}
	}
	for name, s := range f.streams {
		if s.missed(session) {
			lost = append(lost, name)
		}
	}
	slices.Sort(lost)
	return lost
}

// missed looks again: the consumer may have moved the stream meanwhile.
func (f *Feed) missed(name string, session uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[name]
	return s != nil && s.missed(session)
}

// lose tells that the server has lost a cursor.
func (l *loop) lose(name string, session uint64) bool {
	f := l.feed
	f.mu.Lock()
	s := f.streams[name]
	var gap Gap
	missing := false
	if s != nil {
		gap, missing = s.lose(session)
	}
	f.mu.Unlock()
	return !missing || l.gap(gap)
}

// mark notes that a stream goes on after p.
func (l *loop) mark(p Position) bool {
	f := l.feed
	f.mu.Lock()
	s := f.wanted(p.Stream)
	if s == nil {
		f.mu.Unlock()
		return true
	}
	at, gap, missing := s.mark(p)
	f.inHand = at
	f.mu.Unlock()
	if missing && !l.gap(gap) {
		return false
	}
	f.release()
	return true
}

// gap tells a gap.
func (l *loop) gap(gap Gap) bool {
	l.feed.count(func(s *Stats) { s.Gaps++ })
	return l.yield(gap)
}

// message delivers a message, or drops it. It looks again after a gap, since the consumer
// may have moved the stream.
func (l *loop) message(m resock.MessageEvent, p Position) bool {
	for {
		verdict, gap, at := l.feed.admit(p)
		switch verdict {
		case unwanted:
			return true
		case repeated:
			return !l.feed.repeated || l.yield(Repeated{m, at})
		case next:
			return l.deliver(m, at)
		}
		if !l.gap(gap) {
			return false
		}
	}
}

// snapshot delivers a message, whatever came before.
func (l *loop) snapshot(m resock.MessageEvent, p Position) bool {
	f := l.feed
	f.mu.Lock()
	s := f.wanted(p.Stream)
	if s == nil {
		f.stats.Unwanted++
		f.mu.Unlock()
		return true
	}
	f.stats.Messages++
	at := s.deliver(p, false)
	f.mu.Unlock()
	return l.deliver(m, at)
}

func (l *loop) deliver(m resock.MessageEvent, at Position) bool {
	if !l.feed.autoCommit {
		return l.yield(Message{m, at})
	}
	l.feed.hold(at)
	if !l.yield(Message{m, at}) {
		return false
	}
	l.feed.release()
	return true
}

// hold notes what is to be committed when the loop goes on.
func (f *Feed) hold(at Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inHand = at
}

// release commits it.
func (f *Feed) release() {
	f.mu.Lock()
	at := f.inHand
	f.inHand = Position{}
	f.mu.Unlock()
	_ = f.Commit(at)
}

// admit decides about a message, and numbers the one that is next.
func (f *Feed) admit(p Position) (verdict, Gap, Position) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.wanted(p.Stream)
	if s == nil {
		f.stats.Unwanted++
		return unwanted, Gap{}, p
	}
	v, gap := s.admit(p)
	switch v {
	case repeated:
		f.stats.Duplicates++
	case next:
		f.stats.Messages++
		p = s.deliver(p, s.bond(p))
	}
	return v, gap, p
}

// wanted returns a stream, or nil if it was removed; mu is held.
func (f *Feed) wanted(name string) *stream {
	if s := f.streams[name]; s != nil {
		return s
	}
	if _, ok := f.removed[name]; ok {
		return nil
	}
	return f.open(name)
}

func (f *Feed) count(add func(*Stats)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.stats)
}
