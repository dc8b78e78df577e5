package resock

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock/internal/wire"
)

func newFanout() *fanout {
	return &fanout{log: slog.New(slog.DiscardHandler), abort: make(chan struct{})}
}

func said(text string) MessageEvent { return MessageEvent{Session: 1, Data: []byte(text)} }

// deliver delivers what came by one read.
func deliver(f *fanout, events ...MessageEvent) (goesOn bool) {
	var burst []wire.Message
	for _, event := range events {
		burst = append(burst, wire.Message{Type: wire.Text, Data: event.Data})
	}
	return f.messages(1, burst)
}

// send delivers an event to one subscriber.
func send(s *subscriber, event Event) {
	s.fanout.sending.Lock()
	defer s.fanout.sending.Unlock()
	s.send(event)
}

// heard names events; a message by its text, with the number of those lost
// before it.
func heard(events ...Event) (names []string) {
	for _, event := range events {
		switch e := event.(type) {
		case OpenEvent:
			names = append(names, "open")
		case MessageEvent:
			name := string(e.Data)
			if e.Lost > 0 {
				name += fmt.Sprint(" after ", e.Lost)
			}
			names = append(names, name)
		case CloseEvent:
			names = append(names, "close")
		}
	}
	return names
}

// rest returns what is left of a stream.
func rest(ch <-chan Event) (events []Event) {
	for event := range ch {
		events = append(events, event)
	}
	return events
}

func wantHeard(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSubscribeAfterTheEnd(t *testing.T) {
	f := newFanout()
	f.finish()
	if got := rest(f.subscribe(context.Background(), subscription{buffer: 1, messages: true})); got != nil {
		t.Errorf("got %v", got)
	}
}

// Only an open session has an OpenEvent for those who come late.
func TestSubscribeBetweenSessions(t *testing.T) {
	f := newFanout()
	f.lifecycle(OpenEvent{})
	open := f.subscribe(context.Background(), subscription{buffer: 10, messages: true})
	f.lifecycle(CloseEvent{})
	waiting := f.subscribe(context.Background(), subscription{buffer: 10, messages: true})
	f.lifecycle(OpenEvent{})
	f.finish()
	wantHeard(t, heard(rest(open)...), "open", "close", "open")
	wantHeard(t, heard(rest(waiting)...), "open")
}

func TestWithoutMessages(t *testing.T) {
	f := newFanout()
	silent := f.subscribe(context.Background(), subscription{buffer: 10})
	f.lifecycle(OpenEvent{})
	deliver(f, said("not for everybody"))
	f.lifecycle(CloseEvent{})
	f.finish()
	wantHeard(t, heard(rest(silent)...), "open", "close")
}

// Who has left is forgotten.
func TestLeaving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		ctx, leave := context.WithCancel(t.Context())
		blocks := f.subscribe(ctx, subscription{messages: true})
		drops := f.subscribe(ctx, subscription{messages: true, overflow: OverflowDropOldest})
		stays := f.subscribe(context.Background(), subscription{buffer: 10, messages: true})
		leave()
		rest(blocks)
		rest(drops)
		synctest.Wait()
		if n := len(f.subscribers()); n != 1 {
			t.Errorf("%d subscribers, want the one that stays", n)
		}
		deliver(f, said("x"))
		f.finish()
		wantHeard(t, heard(rest(stays)...), "x")
	})
}

// watchedContext counts who waits for its end.
type watchedContext struct {
	context.Context
	waiting int
}

func (c *watchedContext) Value(any) any { return nil }

func (c *watchedContext) AfterFunc(func()) (stop func() bool) {
	c.waiting++
	return func() bool { c.waiting--; return true }
}

func TestFinishForgetsTheContext(t *testing.T) {
	f := newFanout()
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	ctx := &watchedContext{Context: parent}
	f.subscribe(ctx, subscription{buffer: 1})
	if ctx.waiting != 1 {
		t.Errorf("%d wait for the context", ctx.waiting)
	}
	f.finish()
	if ctx.waiting != 0 {
		t.Error("a finished subscriber waits for its context")
	}
}

// A late subscriber without a buffer gets its OpenEvent first, however soon the
// next event comes, and may leave at any moment.
func TestLateUnbuffered(t *testing.T) {
	f := newFanout()
	f.lifecycle(OpenEvent{})
	for range 500 {
		ctx, leave := context.WithCancel(context.Background())
		late := f.subscribe(ctx, subscription{messages: true})
		var delivery sync.WaitGroup
		delivery.Go(func() { deliver(f, said("x")) })
		wantHeard(t, heard(<-late, <-late), "open", "x")
		delivery.Wait()
		if f.blockedSince.Load() != 0 {
			t.Fatal("delivered, and still blocked")
		}
		leave()
		rest(late)

		ctx, leave = context.WithCancel(context.Background())
		late = f.subscribe(ctx, subscription{messages: true})
		leave()
		rest(late)
	}
}

// A stream may end early, but it has no holes.
func TestNothingFollowsADiscardedEvent(t *testing.T) {
	gone, leave := context.WithCancel(context.Background())
	leave()
	aborted := newFanout()
	close(aborted.abort)
	for name, s := range map[string]*subscriber{
		"left":    {fanout: newFanout(), ctx: gone},
		"aborted": {fanout: aborted, ctx: context.Background()},
	} {
		s.ch = make(chan Event, 1)
		send(s, said("one"))
		send(s, said("discarded"))
		got := heard(<-s.ch)
		send(s, said("three"))
		s.close()
		send(s, said("under way"))
		wantHeard(t, append(got, heard(rest(s.ch)...)...), "one")
		if s.fanout.blockedSince.Load() != 0 {
			t.Errorf("%s: still blocked", name)
		}
	}
	closed := &subscriber{fanout: newFanout(), ctx: context.Background(), ch: make(chan Event, 1)}
	closed.close()
	send(closed, said("under way"))
	if deliver(aborted, said("x")) {
		t.Error("delivery goes on after an abort")
	}
	if !deliver(newFanout(), said("x")) {
		t.Error("delivery does not go on")
	}
}

// A late subscriber that leaves without its OpenEvent frees the others.
func TestLateUnbufferedLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		f.lifecycle(OpenEvent{})
		ctx, leave := context.WithCancel(t.Context())
		late := f.subscribe(ctx, subscription{messages: true})
		var delivery sync.WaitGroup
		delivery.Go(func() { deliver(f, said("x")) })
		synctest.Wait()
		if f.blockedSince.Load() == 0 {
			t.Error("nobody is told")
		}
		leave()
		delivery.Wait()
		if f.blockedSince.Load() != 0 {
			t.Error("delivered, and still blocked")
		}
		rest(late)
	})
}

// Whoever delivery waits for, the others may leave, and so may that one: at once,
// though one lock serves all messages of a read.
func TestLeavingDuringDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		slowly, leaveSlowly := context.WithCancel(t.Context())
		slow := f.subscribe(slowly, subscription{messages: true})
		ctx, leave := context.WithCancel(t.Context())
		other := f.subscribe(ctx, subscription{buffer: 1, messages: true})
		stays := f.subscribe(context.Background(), subscription{buffer: 3, messages: true})
		var delivery sync.WaitGroup
		delivery.Go(func() { deliver(f, said("a"), said("b"), said("c")) })
		wantHeard(t, heard(<-slow), "a")
		synctest.Wait() // delivery waits for slow to take b
		leave()
		wantHeard(t, heard(rest(other)...), "a")
		leaveSlowly()
		wantHeard(t, heard(rest(slow)...))
		delivery.Wait()
		f.finish()
		wantHeard(t, heard(rest(stays)...), "a", "b", "c")
	})
}

// A hook for pings or pongs may take its time, also between two messages of a read.
func TestLeavingDuringAHook(t *testing.T) {
	for _, control := range []byte{0x89, 0x8A} { // ping, pong
		src := silentScript()
		src.in = slices.Concat(frame(0x81, "x"), frame(control, ""), frame(0x81, "y"))
		s := wiredSession(t, src)
		ctx, leave := context.WithCancel(t.Context())
		f, all := &s.client.events, subscription{buffer: 10, messages: true}
		leaves, stays := f.subscribe(ctx, all), f.subscribe(context.Background(), all)
		hook := func() {
			leave()
			ended := make(chan []string)
			go func() { ended <- heard(rest(leaves)...) }()
			select {
			case got := <-ended:
				wantHeard(t, got, "x")
			case <-time.After(5 * time.Second):
				t.Errorf("%#x: who leaves during the hook waits for its end", control)
			}
		}
		s.client.config.dial.OnPingReceived = func(context.Context, []byte) bool { hook(); return true }
		s.client.config.dial.OnPongReceived = func(context.Context, []byte) { hook() }
		s.read()
		s.finish()
		f.finish()
		wantHeard(t, heard(rest(stays)...), "x", "y")
	}
}

func TestDropOldestNeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		slow := f.subscribe(t.Context(), subscription{buffer: 2, messages: true, overflow: OverflowDropOldest})
		for _, text := range []string{"a", "b", "c", "d", "e"} {
			deliver(f, said(text))
			synctest.Wait() // the first is with the pump now
		}
		wantHeard(t, heard(<-slow, <-slow, <-slow), "a", "d after 2", "e")
		f.finish()
		rest(slow)
	})
}

// The log tells of every subscriber that blocks for long, once.
func TestBlockedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		f := newFanout()
		f.log = slog.New(slog.NewTextHandler(&log, nil))
		for _, block := range []struct {
			time    time.Duration
			entries int // so far
		}{
			{9 * time.Second, 0}, {9 * time.Second, 0}, {11 * time.Second, 1}, {time.Minute, 2}, {9 * time.Second, 2}, {11 * time.Second, 3},
		} {
			f.sending.Lock()
			f.block()
			time.Sleep(block.time)
			f.unblock()
			f.sending.Unlock()
			time.Sleep(time.Hour)
			synctest.Wait() // and see what the timer's goroutine wrote
			if n := strings.Count(log.String(), "blocks delivery"); n != block.entries {
				t.Errorf("after %v of blocking: %d entries, want %d", block.time, n, block.entries)
			}
		}
	})
}

// dropping is a subscriber whose events wait in its dropper until it pumps.
func dropping(limit int) *subscriber {
	return &subscriber{fanout: newFanout(), ctx: context.Background(), ch: make(chan Event), messages: true, drop: newDropper(limit)}
}

// content takes what is in a dropper.
func content(d *dropper) (events []Event) {
	for {
		event, ok, _ := d.take()
		if !ok {
			return events
		}
		events = append(events, event)
	}
}

func TestDropperKeepsWhatIsNoMessage(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limit  int
		events []Event
		want   []string
		lost   uint64
	}{
		{"room", 3, []Event{OpenEvent{}, said("a"), said("b")}, []string{"open", "a", "b"}, 0},
		{"the oldest message goes", 3, []Event{OpenEvent{}, said("a"), said("b"), said("c")}, []string{"open", "b after 1", "c"}, 1},
		{"from between", 3, []Event{OpenEvent{}, CloseEvent{}, said("a"), said("b")}, []string{"open", "close", "b after 1"}, 1},
		{"an event takes its place", 1, []Event{said("a"), OpenEvent{}}, []string{"open"}, 1},
		{"a message with no room", 1, []Event{OpenEvent{}, said("a"), said("b")}, []string{"open"}, 2},
		{"in front of the first of many", 2, []Event{said("a"), said("b"), said("c"), said("d"), CloseEvent{}}, []string{"d after 3", "close"}, 3},
	} {
		s := dropping(tt.limit)
		for _, event := range tt.events {
			send(s, event)
		}
		if got := heard(content(s.drop)...); !slices.Equal(got, tt.want) || s.fanout.dropped.Load() != tt.lost {
			t.Errorf("%s: got %q, %d lost, want %q, %d", tt.name, got, s.fanout.dropped.Load(), tt.want, tt.lost)
		}
	}
}

// Events other than messages wait for room, visibly.
func TestDropperWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dropping(1)
		var delivery sync.WaitGroup
		delivery.Go(func() {
			for range 3 {
				send(s, OpenEvent{})
				send(s, CloseEvent{})
			}
		})
		synctest.Wait()
		if s.fanout.blockedSince.Load() == 0 {
			t.Error("nobody is told")
		}
		go s.pump()
		for range 3 {
			wantHeard(t, heard(<-s.ch, <-s.ch), "open", "close")
		}
		delivery.Wait()
		if s.fanout.blockedSince.Load() != 0 {
			t.Error("delivered, and still blocked")
		}
		s.finish()
		wantHeard(t, heard(rest(s.ch)...))
	})
}

// A pump delivers all that had come before it began, and ends at an abort, without
// waiting for the end of the client; so does who waits for room.
func TestPump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := dropping(3)
		for _, text := range []string{"a", "b", "c"} {
			send(s, said(text))
		}
		go s.pump()
		wantHeard(t, heard(<-s.ch, <-s.ch, <-s.ch), "a", "b", "c")

		for range 4 {
			send(s, CloseEvent{})
		}
		synctest.Wait()
		close(s.fanout.abort)
		send(s, CloseEvent{}) // no room
		wantHeard(t, heard(rest(s.ch)...))
		send(s, CloseEvent{})
	})
}
