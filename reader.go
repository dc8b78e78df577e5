package resock

import (
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/resock/resock/internal/wire"
)

// reading is where a session's reader is, the goroutine of Run.
type reading uint8

const (
	readerNone  reading = iota // the session is not handed over yet
	readerDue                  // it was busy when it should have come
	readerHere                 // it reads, and returns as soon as the session ends
	readerAway                 // it is in a function of the application
	readerLeft                 // it has read all there is
	readerTaken                // the state machine went on without it
)

// whereabouts is a function of the application that the reader is in.
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

// expire is called when a session has had its time to end. A function of the
// application that learns of the end only now gets the time to return.
func (s *session) expire() {
	told := s.hooks == nil || s.hooks.Err() != nil || s.client.events.aborted()
	s.kill()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !told && !s.finished {
		s.deadline.Reset(patience)
		return
	}
	s.overdue = true
	if s.reader == readerDue || s.reader == readerAway {
		s.take()
	}
}

// take lets the state machine go on without the reader; mu is held.
func (s *session) take() {
	s.reader = readerTaken
	if hook := s.away; hook != nowhere {
		hooks := &s.client.hooks
		hooks.Go(func() { hooks.overstays(hook.String()) })
	}
	go s.client.machine.advance(s)
}

// expect says that the session was handed to its reader.
func (s *session) expect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader != readerNone {
		return
	}
	if s.reader = readerDue; s.overdue {
		s.take()
	}
}

// arrive reports whether the session is the reader's.
func (s *session) arrive() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == readerTaken {
		return false
	}
	s.reader = readerHere
	return true
}

// leave reports whether the reader shall move the state machine on, which it has not
// done before.
func (s *session) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reader == readerTaken {
		return false
	}
	s.reader = readerLeft
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

// comeBack is called by the reader after that. It reports whether the session is still
// the reader's.
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

// awayIn tells in which function of the application the reader is, if it has been
// there for a while, since when, and how long delivery was blocked in all.
func (s *session) awayIn() (function string, since time.Time, blocked time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	blocked = s.client.events.blocked.sum()
	if took := s.wire.Now() - s.awayAt; s.away != nowhere && took >= time.Millisecond {
		return s.away.String(), time.Now().Add(-took), blocked + took
	}
	return "", time.Time{}, blocked
}

// read delivers messages until the session ends, or delivery is aborted. It reads on
// only when no subscriber is behind, unless the session is ending.
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

// mayBorrow waits until the next burst may be read, and tells whether nobody keeps
// its data.
func (s *session) mayBorrow() bool {
	s.client.events.catchUp(&s.life)
	return s.client.events.owners.Load() == 0
}

// yieldAfter is how many messages make a burst after which the subscribers run:
// beside a reader that goes on at once, both would wait for each other at the
// channel, message by message.
const yieldAfter = 16

// deliver hands messages to the filters, and then to the handler or the subscribers. It
// reports whether delivery goes on. Data that is not owned is valid during the call.
func (s *session) deliver(burst []wire.Message, owned bool) bool {
	config, events := &s.client.config, &s.client.events
	if len(burst) == 0 {
		return s.mine()
	}
	if len(config.filters) > 0 {
		if burst = s.filter(burst, config.filters); len(burst) == 0 {
			return s.mine() // nobody is woken
		}
	}
	if config.handler != nil { // which is waited for, however late it is
		s.handle(burst, config.handler)
		return !events.aborted()
	}
	goesOn := s.mine() && events.deliver(s.id, burst, owned, &s.life)
	if len(burst) >= yieldAfter {
		runtime.Gosched()
	}
	return goesOn
}

// message is a message as the application sees it.
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

// mine reports whether the session is still the reader's, which it may not be any more
// behind a function of the application that overstayed.
func (s *session) mine() bool {
	if s.hooks == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reader != readerTaken
}
