package resock

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/wire"
)

// Event is an [OpenEvent], a [MessageEvent], a [FailEvent] or a [CloseEvent].
type Event interface {
	event()
}

// OpenEvent says that a session began.
type OpenEvent struct {
	Time        time.Time
	Session     uint64        // 1, 2, 3…
	URL         string        // dialed, secrets redacted
	Subprotocol string        // negotiated, or empty
	Attempt     int           // which attempt succeeded, from 1
	Took        time.Duration // from the start of the attempt
	Downtime    time.Duration // since the end of the last session; 0 for the first
}

// MessageEvent carries one complete message.
//
// Data has len == cap, is shared by all subscribers and must not be written
// to. Keeping it may pin up to 16 KiB of memory; clone what is kept for long.
type MessageEvent struct {
	Session uint64
	Type    MessageType
	Data    []byte // shared, read-only
	Lost    uint64 // messages dropped just before this one by the subscriber's overflow policy
}

// FailEvent says that an attempt never opened (Session 0), or that a session
// was lost.
type FailEvent struct {
	Time    time.Time
	Session uint64
	Attempt int           // which attempt failed or opened the session, from 1
	Phase   Phase         // what failed
	Err     error         // works with errors.Is and errors.As; no secrets
	Took    time.Duration // length of the attempt or of the session
	Next    State         // what follows
	RetryIn time.Duration // when Next is StateWaiting
}

// CloseEvent says that a session ended by a closing handshake that one side
// began.
type CloseEvent struct {
	Time    time.Time
	Session uint64
	Code    StatusCode    // the server's if it sent one, else ours
	Reason  string        // belongs to Code
	Clean   bool          // both close frames were exchanged
	Took    time.Duration // length of the session
	Next    State         // what follows
	RetryIn time.Duration // when Next is StateWaiting
}

func (OpenEvent) event()    {}
func (MessageEvent) event() {}
func (FailEvent) event()    {}
func (CloseEvent) event()   {}

// Overflow is what happens when a subscriber's buffer is full.
type Overflow int

const (
	// OverflowBlock makes delivery wait for the subscriber, and so slows the
	// connection down. Nothing is lost. It is the default.
	OverflowBlock Overflow = iota

	// OverflowDropOldest drops the oldest buffered message and counts it in
	// the Lost field of the next one. The other three events are never dropped.
	OverflowDropOldest
)

// Subscribe returns a channel of all events from now on, in order. A
// subscription made while a session is open starts with that session's
// [OpenEvent]. The channel closes when the client is closed for good, or
// promptly once ctx ends; what was not delivered by then is discarded.
//
// Subscribe before [Client.Run] to see everything. A subscriber that does not
// read delays all others ([OverflowBlock]) unless it may lose messages
// ([WithOverflow]) or does not want any ([WithoutMessages]).
//
// The defaults are [WithBuffer](64) and [OverflowBlock].
func (c *Client) Subscribe(ctx context.Context, opts ...SubscribeOption) <-chan Event {
	sub := subscription{buffer: 64, messages: true}
	for _, opt := range opts {
		if opt != nil {
			opt.applySubscribe(&sub)
		}
	}
	return c.events.subscribe(ctx, sub)
}

// blockedLogAfter is how long a subscriber may block delivery before the log says so.
const blockedLogAfter = 10 * time.Second

// fanout delivers every event to every subscriber, in order. Only the goroutine
// of Run delivers; subscribing and leaving may happen at any time.
type fanout struct {
	log   *slog.Logger
	abort chan struct{} // closed when what is not delivered yet shall be discarded

	dropped      atomic.Uint64
	blockedSince atomic.Int64 // Unix nanoseconds, or 0
	blockedTimer *time.Timer  // of the goroutine of Run

	sending sync.Mutex // held by who sends to a channel, unless it waits, and by who closes one

	mu     sync.Mutex
	list   atomic.Pointer[[]*subscriber] // replaced, never changed, under mu
	open   Event                         // of the open session, or nil
	closed bool
}

func (f *fanout) subscribe(ctx context.Context, opts subscription) <-chan Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &subscriber{fanout: f, ctx: ctx, messages: opts.messages}
	if f.closed {
		s.ch = make(chan Event)
		close(s.ch)
		return s.ch
	}
	if opts.overflow == OverflowDropOldest {
		s.ch = make(chan Event)
		s.drop = newDropper(max(1, opts.buffer))
	} else {
		s.ch = make(chan Event, opts.buffer)
	}
	if f.open != nil {
		s.first(f.open)
	}
	if s.drop != nil {
		go s.pump()
	} else if ctx.Done() != nil {
		s.stop = context.AfterFunc(ctx, s.end)
	}
	f.setList(append(slices.Clone(f.subscribers()), s))
	return s.ch
}

func (f *fanout) subscribers() []*subscriber {
	if list := f.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (f *fanout) setList(list []*subscriber) { f.list.Store(&list) }

func (f *fanout) remove(s *subscriber) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.setList(slices.DeleteFunc(slices.Clone(f.subscribers()), func(other *subscriber) bool { return other == s }))
}

// lifecycle delivers an event other than a message. Whoever subscribes during
// it either gets it from here or starts after it, never half of a session:
// that is why the list is read under the same lock that marks the session open.
func (f *fanout) lifecycle(event Event) {
	f.mu.Lock()
	f.open = nil
	if _, ok := event.(OpenEvent); ok {
		f.open = event
	}
	list := f.subscribers()
	f.mu.Unlock()
	f.sending.Lock()
	defer f.sending.Unlock()
	for _, s := range list {
		s.send(event)
	}
}

// messages delivers the messages of a burst. It reports whether delivery goes on.
func (f *fanout) messages(session uint64, burst []wire.Message) bool {
	f.sending.Lock()
	defer f.sending.Unlock()
	for _, m := range burst {
		f.message(MessageEvent{Session: session, Type: MessageType(m.Type), Data: m.Data})
		if f.aborted() {
			return false
		}
	}
	return true
}

func (f *fanout) message(event MessageEvent) {
	var boxed Event // once, for all subscribers
	for _, s := range f.subscribers() {
		if !s.messages {
			continue
		}
		if boxed == nil {
			boxed = event
		}
		s.send(boxed)
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
	f.closed = true
	list := f.subscribers()
	f.mu.Unlock()
	for _, s := range list {
		s.finish()
	}
}

// subscriber is one channel of events.
type subscriber struct {
	fanout   *fanout
	ctx      context.Context
	messages bool
	drop     *dropper      // of OverflowDropOldest, else nil
	stop     func() bool   // forgets ctx
	taken    chan struct{} // closed when the first event was taken or discarded; nil if nobody waits for that

	ch      chan Event
	ended   bool // nothing more is sent
	waiting bool // the goroutine of Run waits for the consumer
	leaving bool // and closes ch then
	gone    bool // ch is closed
}

// first makes event the first one of a new subscriber.
func (s *subscriber) first(event Event) {
	switch {
	case s.drop != nil:
		s.drop.push(event, s)
	case cap(s.ch) > 0:
		s.ch <- event
	default: // unbuffered: later events wait behind this one
		s.taken = make(chan struct{})
		go func() {
			defer close(s.taken)
			s.wait(event)
		}()
	}
}

// send delivers event; sending is held.
func (s *subscriber) send(event Event) {
	if s.drop != nil {
		s.drop.push(event, s)
		return
	}
	if s.taken != nil {
		s.waitTaken()
	}
	if s.ended || s.try(event) {
		return
	}
	s.waiting = true
	s.fanout.block()
	s.wait(event)
	s.fanout.unblock()
	s.waiting = false
	if s.leaving {
		s.shut()
	}
}

// waitTaken waits for a late subscriber to take its first event. It waits for a
// channel and not for a mutex, so that a bubble of testing/synctest sees it.
func (s *subscriber) waitTaken() {
	select {
	case <-s.taken:
	default:
		s.fanout.block()
		<-s.taken
		s.fanout.unblock()
	}
}

// try delivers event if the subscriber takes it at once.
func (s *subscriber) try(event Event) bool {
	select {
	case s.ch <- event:
		return true
	default:
		return false
	}
}

// wait delivers event however long the subscriber takes, unless it leaves or
// the client aborts. After one discarded event nothing more is sent: a stream
// may end early, but it has no holes.
func (s *subscriber) wait(event Event) {
	select {
	case s.ch <- event:
	case <-s.ctx.Done():
		s.ended = true
	case <-s.fanout.abort:
		s.ended = true
	}
}

// end is called when the subscriber's own context ended.
func (s *subscriber) end() {
	s.close()
	s.fanout.remove(s)
}

func (s *subscriber) finish() {
	if s.drop != nil {
		s.drop.finish()
		<-s.drop.done
		return
	}
	if s.stop != nil {
		s.stop()
	}
	s.close()
}

func (s *subscriber) close() {
	if s.taken != nil {
		<-s.taken
	}
	s.fanout.sending.Lock()
	defer s.fanout.sending.Unlock()
	if s.waiting {
		s.leaving = true
		return
	}
	s.shut()
}

func (s *subscriber) shut() {
	s.ended = true
	if !s.gone {
		s.gone = true
		close(s.ch)
	}
}

// block notes that a subscriber makes delivery wait from now on. Others may leave
// meanwhile.
func (f *fanout) block() {
	f.sending.Unlock()
	f.blockedSince.Store(time.Now().UnixNano())
	if !f.log.Enabled(context.Background(), slog.LevelWarn) {
		return
	}
	if f.blockedTimer != nil {
		f.blockedTimer.Reset(blockedLogAfter)
		return
	}
	f.blockedTimer = time.AfterFunc(blockedLogAfter, func() {
		f.log.Warn("a subscriber blocks delivery", "for", blockedLogAfter)
	})
}

// unblock notes that delivery goes on.
func (f *fanout) unblock() {
	f.blockedSince.Store(0)
	if f.blockedTimer != nil {
		f.blockedTimer.Stop()
	}
	f.sending.Lock()
}

// dropper is the buffer of an OverflowDropOldest subscriber. The goroutine of
// Run pushes; the subscriber's own goroutine (pump) takes from the front, so
// that a message is either counted as lost or delivered, never both.
type dropper struct {
	limit int
	wake  chan struct{} // an event came, or the stream ended
	room  chan struct{} // an event was taken
	done  chan struct{} // closed when the channel is

	mu       sync.Mutex
	events   ring[Event]
	lost     uint64 // dropped before the oldest message in events
	finished bool
}

func newDropper(limit int) *dropper {
	return &dropper{
		limit: limit,
		wake:  make(chan struct{}, 1),
		room:  make(chan struct{}, 1),
		done:  make(chan struct{}),
	}
}

// push adds an event. A full buffer loses its oldest message; when it holds
// none, a message is lost itself and any other event waits for room.
func (d *dropper) push(event Event, s *subscriber) {
	_, message := event.(MessageEvent)
	for {
		d.mu.Lock()
		if d.events.len >= d.limit {
			dropped := d.dropOldest()
			if !dropped && message {
				d.lost++
				dropped = true
				event = nil
			}
			if dropped {
				s.fanout.dropped.Add(1)
			}
		}
		fits := d.events.len < d.limit
		if fits && event != nil {
			d.events.pushBack(event)
		}
		d.mu.Unlock()
		if event == nil {
			return
		}
		if fits {
			notify(d.wake)
			return
		}
		s.fanout.block()
		select {
		case <-d.room:
		case <-d.done:
			event = nil
		}
		s.fanout.unblock()
		if event == nil {
			return
		}
	}
}

func (d *dropper) dropOldest() bool {
	for i := range d.events.len {
		if _, ok := (*d.events.at(i)).(MessageEvent); !ok {
			continue
		}
		// What stands before it, if anything, is a few lifecycle events.
		for ; i > 0; i-- {
			*d.events.at(i) = *d.events.at(i - 1)
		}
		d.events.popFront()
		d.lost++
		return true
	}
	return false
}

// take removes the oldest event. It reports false when there is none, and
// whether there will be none any more.
func (d *dropper) take() (event Event, ok, finished bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.events.len == 0 {
		return nil, false, d.finished
	}
	event = d.events.popFront()
	if message, ok := event.(MessageEvent); ok && d.lost > 0 {
		message.Lost, d.lost = d.lost, 0
		event = message
	}
	return event, true, false
}

func (d *dropper) finish() {
	d.mu.Lock()
	d.finished = true
	d.mu.Unlock()
	notify(d.wake)
}

// pump moves events from the dropper to the channel, and closes it.
func (s *subscriber) pump() {
	defer close(s.drop.done)
	defer s.fanout.remove(s)
	defer s.close()
	for {
		event, ok, finished := s.drop.take()
		if finished {
			return
		}
		if ok {
			notify(s.drop.room)
			if !s.try(event) {
				s.wait(event)
			}
			if s.ended {
				return
			}
			continue
		}
		select {
		case <-s.drop.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// notify wakes the receiver of a channel with room for one token.
func notify(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
