package resock

import (
	"fmt"

	"github.com/resock/resock/internal/ring"
)

// subscriber is one channel of events, and the backlog that waits for room in it.
type subscriber struct {
	fanout     *fanout
	done       <-chan struct{} // closed when the subscriber's own context ends; nil if it never does
	forget     func() bool     // stops watching that context, or nil
	label      string
	messages   bool
	limit      int     // of the backlog with OverflowDropOldest, else 0
	stream     *stream // the stream of Messages that this is part of, or nil
	prev, next *subscriber

	ch      chan Event
	backlog ring.Ring[Event]
	pumped  chan struct{} // closed when the backlog is gone, or has no message any more; nil if nobody waits
	parked  int           // bytes of messages in the backlog
	rare    int           // other events in the backlog

	lost     uint64 // messages of session lostIn that were dropped, for its next one to tell
	lostIn   uint64 // the session that lost counts for
	leftOut  uint64 // messages of sessions that were left out, for the next message to tell
	pumping  bool   // there is a backlog, which a goroutine moves into ch
	offers   bool   // that goroutine has taken a message off the backlog
	waiting  bool   // delivery waits for the consumer
	ended    bool   // nothing more is delivered
	finished bool   // the subscriber is off the list, and ch closed
}

// owns reports whether s keeps the data of messages.
func (s *subscriber) owns() bool { return s.messages && (s.stream == nil || !s.stream.borrows) }

// slows reports whether delivery waits for s.
func (s *subscriber) slows() bool { return s.messages && s.limit == 0 }

// gone reports whether the subscriber's own context has ended.
func (s *subscriber) gone() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// left reports whether s takes nothing more.
func (s *subscriber) left() bool { return s.ended || s.gone() }

// send delivers a message, and waits for the consumer if it must; mu is held, except
// while it waits.
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
		case s.pumping: // the backlog goes first
			s.wait(nil, nil, s.untilPumped(), life.until(over))
		case s.wait(s.ch, event, nil, life.until(over)):
			return
		}
	}
}

// over is the stage of the session at which delivery no longer waits for s.
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

// wait waits until the consumer has taken event, which it reports, or changed or enough
// is closed, or s takes nothing more. mu is given up meanwhile.
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
	case <-s.done:
	case <-f.abort:
	}
	f.blocked.end()
	f.mu.Lock()
	s.waiting = false
	s.ended = s.ended || !delivered && (s.gone() || f.aborted())
	return delivered
}

// push delivers event at once, or adds it to the backlog; mu is held.
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
		if s.limit > 0 && s.backlog.Len() >= s.limit && !s.dropOldest() {
			s.drop(m)
			return
		}
		s.parked += len(m.Data)
	default:
		if s.limit > 0 && s.backlog.Len() >= s.limit {
			s.dropOldest()
		}
		s.rare++
	}
	s.backlog.PushBack(event)
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

// account adds to a message how many were left out before it.
func (s *subscriber) account(event Event) Event {
	if m, ok := event.(MessageEvent); ok && s.leftOut > 0 {
		m.Lost += s.leftOut
		s.leftOut = 0
		return m
	}
	return event
}

// drop counts a message that is not delivered, for the next one to tell.
func (s *subscriber) drop(m MessageEvent) {
	if s.lostIn != m.Session {
		s.lost, s.lostIn = 0, m.Session
	}
	s.lost += 1 + m.Lost
	s.fanout.dropped.Add(1)
}

// dropOldest drops the oldest message of the backlog, and reports whether there was one.
func (s *subscriber) dropOldest() bool {
	for i := range s.backlog.Len() {
		if m, ok := (*s.backlog.At(i)).(MessageEvent); ok {
			s.parked -= len(m.Data)
			s.drop(m)
			s.backlog.Cut(i, 1)
			return true
		}
	}
	return false
}

// leaveOut leaves out the oldest attempt that is in the backlog from its beginning to its
// end, and reports whether there was one.
func (s *subscriber) leaveOut() bool {
	begin, messages := -1, uint64(0)
	for i := range s.backlog.Len() - 1 { // the newest event stays in any case
		switch e := (*s.backlog.At(i)).(type) {
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

// cut takes n events out of the backlog. messages is how many messages that leaves out,
// those that were lost before them included.
func (s *subscriber) cut(from, n int, messages uint64) {
	for i := from; i < from+n; i++ {
		if m, ok := (*s.backlog.At(i)).(MessageEvent); ok {
			s.parked -= len(m.Data)
			s.fanout.dropped.Add(1)
		} else {
			s.rare--
		}
	}
	s.backlog.Cut(from, n)
	for i := from; i < s.backlog.Len() && messages > 0; i++ {
		if m, ok := (*s.backlog.At(i)).(MessageEvent); ok {
			m.Lost += messages
			*s.backlog.At(i) = m
			return
		}
	}
	s.leftOut += messages
}

// shift takes the oldest event off the backlog.
func (s *subscriber) shift() Event {
	event := s.backlog.PopFront()
	m, ok := event.(MessageEvent)
	if s.offers = ok; ok {
		s.parked -= len(m.Data)
	} else {
		s.rare--
	}
	return s.told(event)
}

// told adds to a message, when it is delivered, how many were dropped before it.
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

// pump moves the backlog into the channel, until there is none.
func (s *subscriber) pump() {
	f := s.fanout
	f.mu.Lock()
	defer f.mu.Unlock()
	for !s.ended && s.backlog.Len() > 0 {
		event := s.shift()
		f.mu.Unlock()
		delivered := s.offer(event)
		f.mu.Lock()
		s.ended = s.ended || !delivered
		if s.offers = false; !s.owes() {
			s.tell()
		}
	}
	s.caughtUp()
	s.settle()
}

// owes reports whether messages wait for s; mu is held.
func (s *subscriber) owes() bool {
	return s.pumping && (s.stream != nil || s.offers || s.backlog.Len() > s.rare)
}

// tell wakes those who wait for the backlog; mu is held.
func (s *subscriber) tell() {
	if s.pumped != nil {
		close(s.pumped)
		s.pumped = nil
	}
}

// caughtUp notes that the backlog is gone; mu is held.
func (s *subscriber) caughtUp() {
	if s.pumping && s.slows() {
		s.fanout.behind.Add(-1)
	}
	s.pumping = false
	s.tell()
}

// offer delivers event however long the consumer takes, and reports false if the consumer
// leaves or delivery is aborted. After that nothing more is delivered: a stream may end
// early, but it has no holes.
func (s *subscriber) offer(event Event) bool {
	select {
	case s.ch <- event:
		return true
	case <-s.done:
	case <-s.fanout.abort:
	}
	return false
}

// untilPumped returns a channel that is closed when the backlog is gone, or nil if there
// is none.
func (s *subscriber) untilPumped() <-chan struct{} {
	if s.pumping && s.pumped == nil {
		s.pumped = make(chan struct{})
	}
	return s.pumped
}

// leave ends the subscription when the subscriber's own context has ended.
func (s *subscriber) leave() {
	s.fanout.mu.Lock()
	defer s.fanout.mu.Unlock()
	s.ended = true
	s.settle()
}

// settle closes the channel of a subscriber that has ended, once nobody can be sending to
// it; mu is held.
func (s *subscriber) settle() {
	if !s.ended || s.finished || s.waiting || s.pumping && s.stream == nil {
		return
	}
	s.finished = true
	s.fanout.remove(s)
	if s.stream != nil {
		s.caughtUp()
		notify(s.stream.more)
		return
	}
	s.backlog = ring.Ring[Event]{}
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
