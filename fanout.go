package resock

import (
	"context"
	"fmt"
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
// subscribers with messages only, and only while their session lives; what cannot
// wait is left to the subscriber's own backlog.
type fanout struct {
	log   *slog.Logger
	abort chan struct{} // closed when what is not delivered yet shall be discarded

	dropped atomic.Uint64 // messages
	blocked blocked
	behind  atomic.Int32 // subscribers that slow the connection and have a backlog
	owners  atomic.Int32 // subscribers that keep the data of messages

	// mu guards what follows and all subscribers. Whoever waits for one gives it up.
	mu          sync.Mutex
	first, last *subscriber
	open        Event // of the open session, or nil
	closed      bool
}

// subscriber is one channel of events, and what waits for room in it.
type subscriber struct {
	fanout     *fanout
	ctx        context.Context
	forget     func() bool // ctx, or nil
	label      string
	messages   bool
	limit      int     // of the backlog, with OverflowDropOldest, else 0
	stream     *stream // of Messages, or nil
	prev, next *subscriber

	ch      chan Event
	backlog ring[Event]
	pumping bool          // a goroutine moves the backlog into ch
	pumped  chan struct{} // closed when it ends, if somebody waits for that
	parked  int           // bytes of messages in the backlog
	rare    int           // other events in the backlog

	lost     uint64 // messages that were dropped, of lostIn
	lostIn   uint64 // a session
	leftOut  uint64 // messages of whole sessions, before what comes next
	waiting  bool   // delivery waits for the consumer
	ended    bool   // nothing more is delivered
	finished bool   // ch is closed
}

// lifetime tells delivery how much longer it may wait for a subscriber.
type lifetime struct {
	mu      sync.Mutex
	stage   stage
	reached [stageKilled]chan struct{} // closed at the stages after the first; made when somebody waits
}

// stage is how far a session has come.
type stage uint8

const (
	stageAlive  stage = iota
	stageEnding       // what is received is parked
	stageKilled       // nothing more is received
)

// reach notes that a stage was reached.
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

// until is closed at a stage.
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
	s := &subscriber{fanout: f, ctx: ctx, label: opts.label, messages: opts.messages}
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
	f.join(s)
	if f.open != nil {
		s.push(f.open)
	}
	if ctx.Done() != nil {
		s.forget = context.AfterFunc(ctx, s.leave)
	}
	return s.ch
}

// join adds s to the end of the list; mu is held.
func (f *fanout) join(s *subscriber) {
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

// part takes s off the list; mu is held.
func (f *fanout) part(s *subscriber) {
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

// lifecycle delivers an event other than a message. It never waits. Whoever
// subscribes meanwhile either gets it from here or starts after it, never half of a
// session.
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
// that is not owned is copied for those who keep it.
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

// burst delivers a burst to all streams; mu is held, but while delivery waits.
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

// own gives the messages memory of their own.
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

// ownSize is how large a block the small messages of a burst need.
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

// message delivers one message; mu is held, but while delivery waits. A subscriber
// that is waited for stays in the list.
func (f *fanout) message(event MessageEvent, life *lifetime) {
	var boxed Event // once, for all subscribers
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

// catchUp waits until no subscriber that slows the connection is behind, or the
// session ends.
func (f *fanout) catchUp(life *lifetime) {
	if f.behind.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := f.first; s != nil; {
		for s.slows() && s.pumping && !s.left() && !f.aborted() && !life.has(stageEnding) {
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

// finish closes every channel, after what is still under way was delivered or
// discarded.
func (f *fanout) finish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := f.first; s != nil; s = f.first {
		if s.forget != nil {
			s.forget()
		}
		if pumped := s.untilPumped(); pumped != nil && s.stream == nil {
			f.mu.Unlock()
			<-pumped
			f.mu.Lock()
		}
		s.ended = true
		s.settle()
	}
}

// owns reports whether s keeps the data of messages.
func (s *subscriber) owns() bool { return s.messages && (s.stream == nil || !s.stream.borrows) }

// slows reports whether delivery waits for s.
func (s *subscriber) slows() bool { return s.messages && s.limit == 0 }

// left reports whether s takes nothing more.
func (s *subscriber) left() bool { return s.ended || s.ctx.Err() != nil }

// send delivers a message, and waits for the consumer if it must; mu is held.
func (s *subscriber) send(event Event, life *lifetime) {
	if s.limit > 0 {
		s.push(event)
		return
	}
	for event = s.account(event); !s.ended; {
		switch over := s.over(); {
		case !s.pumping && s.try(event):
			return
		case life.has(over):
			s.push(event)
			return
		case s.pumping: // what waits already goes first
			s.wait(nil, nil, s.untilPumped(), life.until(over))
		case s.wait(s.ch, event, nil, life.until(over)):
			return
		}
	}
}

// over is the stage of the session at which nobody waits for s any more.
func (s *subscriber) over() stage {
	if s.parked < maxParked {
		return stageEnding
	}
	return stageKilled
}

// try delivers event if the consumer takes it at once.
func (s *subscriber) try(event Event) bool {
	select {
	case s.ch <- event:
		return true
	default:
		return false
	}
}

// wait waits until the consumer has taken event, which it reports, or has changed
// something, or waiting is over. mu is given up meanwhile.
func (s *subscriber) wait(ch chan<- Event, event Event, changed, enough <-chan struct{}) (delivered bool) {
	f := s.fanout
	s.waiting = true
	f.mu.Unlock()
	f.blocked.begin(f.log, s)
	select {
	case ch <- event:
		delivered = true
	case <-changed:
	case <-enough:
	case <-s.ctx.Done():
	case <-f.abort:
	}
	f.blocked.end()
	f.mu.Lock()
	s.waiting = false
	s.ended = s.ended || !delivered && (s.ctx.Err() != nil || f.aborted())
	return delivered
}

// push delivers event now, or leaves it to the backlog; mu is held.
func (s *subscriber) push(event Event) {
	if event = s.account(event); s.ended {
		return
	}
	if !s.pumping {
		if event = s.told(event); s.try(event) {
			return
		}
	}
	switch m := event.(type) {
	case MessageEvent:
		if s.limit > 0 && s.backlog.len >= s.limit && !s.dropOldest() {
			s.drop(m)
			return
		}
		s.parked += len(m.Data)
	default:
		if s.limit > 0 && s.backlog.len >= s.limit {
			s.dropOldest()
		}
		s.rare++
	}
	s.backlog.pushBack(event)
	for s.rare > maxRare && s.leaveOut() {
	}
	if s.pumping {
		return
	}
	s.pumping = true
	if s.slows() {
		s.fanout.behind.Add(1)
	}
	go s.pump()
}

// account tells a message how many were left out before it.
func (s *subscriber) account(event Event) Event {
	if m, ok := event.(MessageEvent); ok && s.leftOut > 0 {
		m.Lost += s.leftOut
		s.leftOut = 0
		return m
	}
	return event
}

// drop counts a message that is not delivered.
func (s *subscriber) drop(m MessageEvent) {
	if s.lostIn != m.Session {
		s.lost, s.lostIn = 0, m.Session
	}
	s.lost += 1 + m.Lost
	s.fanout.dropped.Add(1)
}

// dropOldest drops the oldest message of the backlog, if there is one.
func (s *subscriber) dropOldest() bool {
	for i := range s.backlog.len {
		if m, ok := (*s.backlog.at(i)).(MessageEvent); ok {
			s.parked -= len(m.Data)
			s.drop(m)
			s.backlog.cut(i, 1)
			return true
		}
	}
	return false
}

// leaveOut leaves the oldest attempt out that stands in the backlog from its
// beginning to its end.
func (s *subscriber) leaveOut() bool {
	begin, messages := -1, uint64(0)
	for i := range s.backlog.len - 1 { // the last event is news
		switch e := (*s.backlog.at(i)).(type) {
		case OpenEvent:
			begin, messages = i, 0
		case MessageEvent:
			messages += 1 + e.Lost
		case FailEvent:
			if e.Session == 0 {
				begin, messages = i, 0
			}
			if begin >= 0 {
				s.cut(begin, i+1-begin, messages)
				return true
			}
		case CloseEvent:
			if begin >= 0 {
				s.cut(begin, i+1-begin, messages)
				return true
			}
		}
	}
	return false
}

// cut takes n events out of the backlog, with messages among them or lost before
// those.
func (s *subscriber) cut(from, n int, messages uint64) {
	for i := from; i < from+n; i++ {
		if m, ok := (*s.backlog.at(i)).(MessageEvent); ok {
			s.parked -= len(m.Data)
			s.fanout.dropped.Add(1)
		} else {
			s.rare--
		}
	}
	s.backlog.cut(from, n)
	for i := from; i < s.backlog.len && messages > 0; i++ {
		if m, ok := (*s.backlog.at(i)).(MessageEvent); ok {
			m.Lost += messages
			*s.backlog.at(i) = m
			return
		}
	}
	s.leftOut += messages
}

// shift takes the oldest event off the backlog.
func (s *subscriber) shift() Event {
	event := s.backlog.popFront()
	if m, ok := event.(MessageEvent); ok {
		s.parked -= len(m.Data)
	} else {
		s.rare--
	}
	return s.told(event)
}

// told tells a message that is delivered how many were dropped before it.
func (s *subscriber) told(event Event) Event {
	if s.lost == 0 {
		return event
	}
	if m, ok := event.(MessageEvent); ok && s.lostIn == m.Session {
		m.Lost += s.lost
		s.lost = 0
		return m
	}
	return event
}

// pump moves the backlog into the channel. It lives as long as there is one.
func (s *subscriber) pump() {
	f := s.fanout
	f.mu.Lock()
	defer f.mu.Unlock()
	for !s.ended && s.backlog.len > 0 {
		event := s.shift()
		f.mu.Unlock()
		delivered := s.offer(event)
		f.mu.Lock()
		s.ended = s.ended || !delivered
	}
	s.caughtUp()
	s.settle()
}

// caughtUp notes that the backlog is gone; mu is held.
func (s *subscriber) caughtUp() {
	if s.pumping && s.slows() {
		s.fanout.behind.Add(-1)
	}
	s.pumping = false
	if s.pumped != nil {
		close(s.pumped)
		s.pumped = nil
	}
}

// offer delivers event however long the consumer takes, unless it leaves or the
// client aborts. After one event that was not delivered nothing more is: a stream may
// end early, but it has no holes.
func (s *subscriber) offer(event Event) bool {
	select {
	case s.ch <- event:
		return true
	case <-s.ctx.Done():
	case <-s.fanout.abort:
	}
	return false
}

// untilPumped is closed when the backlog is gone; nil if there is none.
func (s *subscriber) untilPumped() <-chan struct{} {
	if s.pumping && s.pumped == nil {
		s.pumped = make(chan struct{})
	}
	return s.pumped
}

// leave is called when the subscriber's own context ended.
func (s *subscriber) leave() {
	s.fanout.mu.Lock()
	defer s.fanout.mu.Unlock()
	s.ended = true
	s.settle()
}

// settle closes the channel of a subscriber that has ended, once nobody can be
// sending to it; mu is held.
func (s *subscriber) settle() {
	if !s.ended || s.finished || s.waiting || s.pumping && s.stream == nil {
		return
	}
	s.finished = true
	s.fanout.part(s)
	if s.stream != nil {
		s.caughtUp()
		notify(s.stream.more)
		return
	}
	s.backlog = ring[Event]{}
	close(s.ch)
}

// position names s for the log and for Stats; mu is held.
func (s *subscriber) position() string {
	if s.label != "" {
		return s.label
	}
	at, of := 0, 0
	for other := s.fanout.first; other != nil; other = other.next {
		if of++; other == s {
			at = of
		}
	}
	return fmt.Sprintf("#%d of %d", at, of)
}

// blocked adds up the time for which delivery waited, and knows for whom it waits
// now.
type blocked struct {
	mu    sync.Mutex
	by    *subscriber // or nil
	since time.Time
	total time.Duration
	timer *time.Timer // of the log
}

// begin notes that delivery waits for s from now on.
func (b *blocked) begin(log *slog.Logger, s *subscriber) {
	logged := log.Enabled(context.Background(), slog.LevelWarn) // asks the application
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

// add adds the time that a handler took.
func (b *blocked) add(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += d
}

// now tells who blocks delivery now, or nobody, and since when.
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

// sum is the time for which delivery was blocked, in all.
func (b *blocked) sum() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by != nil {
		return b.total + time.Since(b.since)
	}
	return b.total
}

// notify wakes the receiver of a channel with room for one token.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
