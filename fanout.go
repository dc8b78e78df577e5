package resock

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/wire"
)

const (
	// blockedLogAfter is how long a subscriber may block delivery before the log
	// says so.
	blockedLogAfter = 10 * time.Second

	// maxParked bounds the messages of a session that is ending, in bytes, that wait
	// for one subscriber: enough to read on to the server's close frame.
	maxParked = 256 << 10

	// maxRare bounds the events besides messages that wait for one subscriber.
	maxRare = 64
)

// fanout delivers every event to every subscriber, in order. Delivery waits for
// subscribers only with messages, and only while the session lives; what cannot wait goes
// into the subscriber's own backlog.
type fanout struct {
	log   *slog.Logger
	abort chan struct{} // closed when what is not delivered yet is to be discarded

	dropped atomic.Uint64 // messages
	blocked blocked
	behind  atomic.Int32 // subscribers that slow the connection and have a backlog
	owners  atomic.Int32 // subscribers that keep the data of messages

	// mu guards what follows and all subscribers. It is given up while delivery waits for
	// one of them. It is separate from the client's because it is held while a burst is
	// handed over.
	mu          sync.Mutex
	first, last *subscriber
	open        Event // the OpenEvent of the open session, or nil
	closed      bool  // no subscriber is added any more
}

// lifetime tells delivery how long it may wait for a subscriber.
type lifetime struct {
	mu      sync.Mutex // guards what follows; may be taken under any lock, and none is taken under it
	stage   stage
	reached [stageKilled]chan struct{} // reached[i] is closed at stage i+1; made when somebody waits
}

// stage is how far a session has come towards its end.
type stage uint8

const (
	stageAlive  stage = iota
	stageEnding       // what is received is parked in backlogs
	stageKilled       // nothing more is received
)

// reach notes that a stage, and every one before it, was reached.
func (l *lifetime) reach(to stage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stage < to {
		if ch := l.reached[l.stage]; ch != nil {
			close(ch)
		}
		l.stage++
	}
}

// has reports whether a stage was reached.
func (l *lifetime) has(reached stage) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stage >= reached
}

// until returns a channel that is closed at a stage.
func (l *lifetime) until(at stage) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	ch := &l.reached[at-1]
	if *ch == nil {
		*ch = make(chan struct{})
		if l.stage >= at {
			close(*ch)
		}
	}
	return *ch
}

func (f *fanout) subscribe(ctx context.Context, opts subscription) <-chan Event {
	s := &subscriber{fanout: f, done: ctx.Done(), label: opts.label, messages: opts.messages}
	if opts.overflow == OverflowDropOldest {
		s.ch = make(chan Event)
		s.limit = max(1, opts.buffer)
	} else {
		s.ch = make(chan Event, opts.buffer)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(s.ch)
		return s.ch
	}
	f.add(s)
	if f.open != nil {
		s.push(f.open)
	}
	if ctx.Done() != nil {
		s.forget = context.AfterFunc(ctx, s.leave)
	}
	return s.ch
}

// add adds s to the end of the list; mu is held.
func (f *fanout) add(s *subscriber) {
	if s.owns() {
		f.owners.Add(1)
	}
	if s.prev = f.last; f.last == nil {
		f.first = s
	} else {
		f.last.next = s
	}
	f.last = s
}

// remove takes s off the list; mu is held.
func (f *fanout) remove(s *subscriber) {
	if s.owns() {
		f.owners.Add(-1)
	}
	if s.prev == nil {
		f.first = s.next
	} else {
		s.prev.next = s.next
	}
	if s.next == nil {
		f.last = s.prev
	} else {
		s.next.prev = s.prev
	}
}

// lifecycle delivers an event other than a message. It never waits. A new subscriber
// either gets it here or starts after it, and so never misses the OpenEvent of a session.
func (f *fanout) lifecycle(event Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open = nil
	if _, ok := event.(OpenEvent); ok {
		f.open = event
	}
	for s := f.first; s != nil; s = s.next {
		if s.stream == nil {
			s.push(event)
		}
	}
}

// deliver delivers the messages of a burst. It reports whether delivery goes on. Data
// that is not owned is copied for subscribers that keep it.
func (f *fanout) deliver(session uint64, burst []wire.Message, owned bool, life *lifetime) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.owners.Load() > 0 {
		if !owned {
			own(burst)
			owned = true
		}
		for _, m := range burst {
			f.message(MessageEvent{Session: session, Type: MessageType(m.Type), Data: m.Data}, life)
			if f.aborted() {
				return false
			}
		}
	}
	f.burst(session, burst, owned, life)
	return !f.aborted()
}

// burst delivers a burst to all streams; mu is held, except while delivery waits.
func (f *fanout) burst(session uint64, burst []wire.Message, owned bool, life *lifetime) {
	for s := f.first; s != nil; {
		if s.stream != nil {
			s.stream.put(session, burst, owned, life)
		}
		next := s.next
		s.settle()
		s = next
	}
}

const (
	ownBlock = 16 << 10 // small messages share blocks of at most this size
	ownAlone = 2 << 10  // a larger one has memory of its own
)

// own gives the messages memory of their own, which subscribers may keep.
func own(burst []wire.Message) {
	var block []byte
	for i := range burst {
		data := burst[i].Data
		if len(data) > ownAlone {
			burst[i].Data = clone(data)
			continue
		}
		if len(data) > len(block) || block == nil {
			block = make([]byte, ownSize(burst[i:]))
		}
		n := copy(block, data)
		burst[i].Data, block = block[:n:n], block[n:]
	}
}

// clone returns a copy of data, with len == cap.
func clone(data []byte) []byte {
	own := make([]byte, len(data))
	copy(own, data)
	return own
}

// ownSize is how large a block the small messages of a burst need, at most ownBlock.
func ownSize(burst []wire.Message) (size int) {
	for _, m := range burst {
		if n := len(m.Data); n <= ownAlone {
			size += n
		}
		if size >= ownBlock {
			return ownBlock
		}
	}
	return size
}

// message delivers one message to all channels; mu is held, except while delivery waits.
// A subscriber that is waited for stays in the list, so its next is right after the wait.
func (f *fanout) message(event MessageEvent, life *lifetime) {
	var boxed Event // boxed once for all subscribers, if there is one
	for s := f.first; s != nil; {
		if s.messages && s.stream == nil {
			if boxed == nil {
				boxed = event
			}
			s.send(boxed, life)
		}
		next := s.next
		s.settle()
		s = next
	}
}

// catchUp waits until no messages wait for a subscriber that slows the connection, or
// the session ends. Other events do not keep the client from reading: it answers pings.
func (f *fanout) catchUp(life *lifetime) {
	if f.behind.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := f.first; s != nil; {
		for s.slows() && s.owes() && !s.left() && !f.aborted() && !life.has(stageEnding) {
			s.wait(nil, nil, s.untilPumped(), life.until(stageEnding))
		}
		next := s.next
		s.settle()
		s = next
	}
}

func (f *fanout) aborted() bool {
	select {
	case <-f.abort:
		return true
	default:
		return false
	}
}

// finish closes every channel, after its backlog was delivered or discarded.
func (f *fanout) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := f.first; s != nil; s = f.first {
		if s.forget != nil {
			s.forget()
		}
		for pumped := s.untilPumped(); pumped != nil && s.stream == nil; pumped = s.untilPumped() {
			f.mu.Unlock()
			<-pumped
			f.mu.Lock()
		}
		s.ended = true
		s.settle()
	}
}

// notify wakes the receiver of a channel that has room for one token. It does not wait.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// blocked adds up the time for which delivery waited, and knows which subscriber it waits
// for now.
type blocked struct {
	// mu guards what follows. It is separate from the fanout's because it is also taken
	// under a session's. No lock is taken under it.
	mu    sync.Mutex
	by    *subscriber // the one that delivery waits for, or nil
	since time.Time
	total time.Duration
	timer *time.Timer // logs a long wait
}

// begin notes that delivery waits for s from now on.
func (b *blocked) begin(log *slog.Logger, s *subscriber) {
	logged := log.Enabled(context.Background(), slog.LevelWarn)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by, b.since = s, time.Now()
	switch {
	case b.timer != nil:
		b.timer.Reset(blockedLogAfter)
	case logged:
		b.timer = time.AfterFunc(blockedLogAfter, func() {
			if by, _ := b.now(); by != "" {
				log.Warn("a subscriber blocks delivery", "subscriber", by, "for", blockedLogAfter)
			}
		})
	}
}

// end notes that delivery goes on.
func (b *blocked) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += time.Since(b.since)
	b.by, b.since = nil, time.Time{}
	if b.timer != nil {
		b.timer.Stop()
	}
}

// add adds the time that a function of the application took.
func (b *blocked) add(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += d
}

// now names the subscriber that blocks delivery now, if any, and tells since when.
func (b *blocked) now() (by string, since time.Time) {
	b.mu.Lock()
	s := b.by
	since = b.since
	b.mu.Unlock()
	if s == nil {
		return "", since
	}
	s.fanout.mu.Lock()
	defer s.fanout.mu.Unlock()
	return s.position(), since
}

// sum is the total time for which delivery was blocked.
func (b *blocked) sum() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by != nil {
		return b.total + time.Since(b.since)
	}
	return b.total
}
