package resock

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/resock/resock/internal/wire"
)

// reading tells where a session's reader, the goroutine of Run, is.
type reading uint8

const (
	readerNone  reading = iota // the session is not handed over yet
	readerDue                  // the session is handed over, and the reader has not come yet
	readerHere                 // the reader reads, and returns as soon as the session ends
	readerAway                 // the reader is in a function of the application
	readerLeft                 // the reader is done
	readerTaken                // the state machine took the session and went on
)

// whereabouts is the function of the application that the reader is in.
type whereabouts uint8

const (
	nowhere whereabouts = iota
	inHandler
	inFilter
	inPing
	inPong
)

func (w whereabouts) String() string {
	return [...]string{"", "WithMessageHandler", "WithFilter", "OnPingReceived", "OnPongReceived"}[w]
}

// expire kills a session that has had its time to end, and takes it from a reader that
// does not return. A function of the application whose context ends only now is given
// patience to return first.
func (s *session) expire() {
	if s.unread() {
		return
	}
	told := s.hooks == nil || s.hooks.Err() != nil || s.client.events.aborted()
	s.kill()
	if reading := s.overstay(told); reading {
		s.wire.Cut() // a connection that ignores deadlines reads on after Part
	}
}

// overstay takes the session from a reader that does not return, unless a function of the
// application has not been told yet to return. It reports whether the reader reads.
func (s *session) overstay(told bool) (reading bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !told && !s.finished {
		s.deadline.Reset(patience)
		return false
	}
	s.overdue = true
	if s.reader == readerDue || s.reader == readerAway {
		s.take()
	}
	return s.reader == readerHere
}

// take takes the session from its reader, and lets the state machine go on; mu is held.
func (s *session) take() {
	s.reader = readerTaken
	if hook := s.away; hook != nowhere {
		hooks := &s.client.hooks
		hooks.Go(func() { hooks.overstays(hook.String()) })
	}
	s.client.machine.proceed(s)
}

// expect notes that the session was handed to its reader.
func (s *session) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == readerNone { // else it has come already
		if s.reader = readerDue; s.overdue {
			s.take()
		}
	}
	if s.renewal == renewalAsked {
		s.renewal = renewalNone
		s.renewLocked()
	}
}

// arrive is called by the reader before it reads. It reports whether the session is still
// the reader's.
func (s *session) arrive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == readerTaken {
		return false
	}
	s.reader = readerHere
	return true
}

// leave is called by the reader when it is done, and moves the state machine on. It reports
// false if the session was taken.
func (s *session) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == readerTaken {
		return false
	}
	s.reader = readerLeft
	s.client.machine.proceed(s)
	return true
}

// goAway is called by the reader before it calls a function of the application.
func (s *session) goAway(to whereabouts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away, s.awayAt = to, s.wire.Now()
	if s.reader != readerHere {
		return
	}
	if s.reader = readerAway; s.overdue {
		s.take()
	}
}

// comeBack is called by the reader when that function has returned. It reports whether
// the session is still the reader's.
func (s *session) comeBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if took := s.wire.Now() - s.awayAt; took >= time.Millisecond {
		s.client.events.blocked.add(took)
	}
	s.away = nowhere
	if s.reader == readerAway {
		s.reader = readerHere
	}
	return s.reader != readerTaken
}

// awayIn names the function of the application that the reader has been in for at least
// 1 ms, if any, and tells since when. blocked is the total time for which delivery was
// blocked, that function included.
func (s *session) awayIn() (function string, since time.Time, blocked time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blocked = s.client.events.blocked.sum()
	if took := s.wire.Now() - s.awayAt; s.away != nowhere && took >= time.Millisecond {
		return s.away.String(), time.Now().Add(-took), blocked + took
	}
	return "", time.Time{}, blocked
}

// read delivers messages until the session ends or delivery is aborted. Unless the
// session is ending, it reads on only when no subscriber is behind.
func (s *session) read() {
	for goesOn := s.deliverEarly(); goesOn; {
		borrow := s.mayBorrow()
		burst, err := s.wire.Next(borrow)
		goesOn = err == nil && s.deliver(burst, !borrow)
	}
}

// deliverEarly delivers what came during OnOpen.
func (s *session) deliverEarly() (goesOn bool) {
	early := s.early
	s.early = nil
	return s.deliver(early, true)
}

// mayBorrow waits until the next burst may be read, and reports whether its data may be
// borrowed, since no subscriber keeps it.
func (s *session) mayBorrow() bool {
	s.client.events.catchUp(&s.life)
	return s.client.events.owners.Load() == 0
}

// yieldAfter is the size of a burst, in messages, after which the reader lets the
// subscribers run. If it went on at once, they would wait for each other at the channel,
// message by message.
const yieldAfter = 16

// deliver hands messages to the filters, and then to the handler or the subscribers. It
// reports whether delivery goes on. Data that is not owned is valid only during the call.
func (s *session) deliver(burst []wire.Message, owned bool) bool {
	config, events := &s.client.config, &s.client.events
	if len(burst) == 0 {
		return s.mine()
	}
	if len(config.filters) > 0 {
		if burst = s.filter(burst, config.filters); len(burst) == 0 {
			return s.mine() // no subscriber is woken for nothing
		}
	}
	s.wire.Feed()
	if config.handler != nil { // gets what was received even after the session was taken
		s.handle(burst, config.handler)
		return !events.aborted()
	}
	goesOn := s.mine() && events.deliver(s.id, burst, owned, &s.life)
	if len(burst) >= yieldAfter {
		runtime.Gosched()
	}
	return goesOn
}

// message turns a message into an event for the application.
func (s *session) message(m wire.Message) MessageEvent {
	return MessageEvent{Session: s.id, Type: MessageType(m.Type), Data: m.Data}
}

// filter returns the messages that all filters let pass.
func (s *session) filter(burst []wire.Message, filters []func(context.Context, MessageEvent) bool) []wire.Message {
	s.goAway(inFilter)
	defer s.comeBack()
	passed := burst[:0]
	for _, m := range burst {
		event := s.message(m)
		keeps := func(pass func(context.Context, MessageEvent) bool) bool { return !pass(s.hooks.Context, event) }
		if !slices.ContainsFunc(filters, keeps) {
			passed = append(passed, m)
		}
	}
	return passed
}

// handle hands messages to the message handler.
func (s *session) handle(burst []wire.Message, handle func(context.Context, MessageEvent)) {
	s.goAway(inHandler)
	defer s.comeBack()
	for _, m := range burst {
		handle(s.hooks.Context, s.message(m))
		if s.client.events.aborted() {
			return
		}
	}
}

// mine reports whether the session is still the reader's. It may have been taken while a
// function of the application overstayed.
func (s *session) mine() bool {
	if s.hooks == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reader != readerTaken
}
