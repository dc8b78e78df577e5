package resock

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
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

// deliver delivers the messages of one read.
func deliver(f *fanout, events ...MessageEvent) (goesOn bool) {
	var burst []wire.Message
	for _, event := range events {
		burst = append(burst, wire.Message{Type: wire.Text, Data: event.Data})
	}
	return f.deliver(1, burst, true, new(lifetime))
}

// isBlocked reports whether delivery waits for a subscriber.
func isBlocked(f *fanout) bool {
	by, _ := f.blocked.now()
	return by != ""
}

// subscribers returns the number of subscribers that have not left.
func subscribers(f *fanout) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := f.first; s != nil; s = s.next {
		n++
	}
	return n
}

// heard returns the names of events. That of a message is its text, with the number of
// messages lost before it.
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

// rest returns the remaining events of a stream.
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
		t.Errorf("got %v, want no event", got)
	}
}

// A late subscriber gets an OpenEvent first only if a session is open.
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

// The fanout keeps nothing of a subscriber that has left.
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
		if n := subscribers(f); n != 1 {
			t.Errorf("%d subscribers, want the one that stays", n)
		}
		deliver(f, said("x"))
		f.finish()
		wantHeard(t, heard(rest(stays)...), "x")
	})
}

// watchedContext counts the functions that wait for its end.
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
		t.Errorf("%d functions wait for the context, want 1", ctx.waiting)
	}
	f.finish()
	if ctx.waiting != 0 {
		t.Error("a finished subscriber still waits for its context")
	}
}

// A late subscriber without a buffer gets its OpenEvent first, however soon the next
// event follows, and may leave at any moment.
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
		if isBlocked(f) {
			t.Fatal("delivery is still blocked after the message was delivered")
		}
		leave()
		rest(late)

		ctx, leave = context.WithCancel(context.Background())
		late = f.subscribe(ctx, subscription{messages: true})
		leave()
		rest(late)
	}
}

// A stream may end early, but it has no gaps.
func TestNothingFollowsADiscardedEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		ctx, leave := context.WithCancel(t.Context())
		leaves := f.subscribe(ctx, subscription{buffer: 1, messages: true})
		deliver(f, said("one"))
		leave()
		deliver(f, said("discarded"))
		got := heard(<-leaves)
		deliver(f, said("three"))
		wantHeard(t, append(got, heard(rest(leaves)...)...), "one")

		stays := f.subscribe(t.Context(), subscription{buffer: 1, messages: true})
		deliver(f, said("one"))
		close(f.abort)
		if deliver(f, said("discarded")) {
			t.Error("delivery goes on after an abort")
		}
		got = heard(<-stays)
		deliver(f, said("three"))
		f.lifecycle(CloseEvent{})
		f.finish()
		wantHeard(t, append(got, heard(rest(stays)...)...), "one")
		if isBlocked(f) {
			t.Error("delivery is still blocked after an abort")
		}
	})
}

// A late subscriber that leaves without having received its OpenEvent unblocks the
// others.
func TestLateUnbufferedLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		f.lifecycle(OpenEvent{})
		ctx, leave := context.WithCancel(t.Context())
		late := f.subscribe(ctx, subscription{messages: true})
		var delivery sync.WaitGroup
		delivery.Go(func() { deliver(f, said("x")) })
		synctest.Wait()
		if !isBlocked(f) {
			t.Error("delivery is not blocked by a late subscriber without a buffer")
		}
		leave()
		delivery.Wait()
		if isBlocked(f) {
			t.Error("delivery is still blocked after the subscriber left")
		}
		rest(late)
	})
}

// While delivery waits for a subscriber, that one and all others can leave at once,
// although one lock is held for all messages of a read.
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
		synctest.Wait() // until delivery waits for slow to receive b
		leave()
		wantHeard(t, heard(rest(other)...), "a")
		leaveSlowly()
		wantHeard(t, heard(rest(slow)...))
		delivery.Wait()
		f.finish()
		wantHeard(t, heard(rest(stays)...), "a", "b", "c")
	})
}

// A slow ping or pong hook between two messages of a read keeps no subscriber from
// leaving.
func TestLeavingDuringAHook(t *testing.T) {
	for _, control := range []byte{0x89, 0x8A} { // ping, pong
		src := silentScript()
		src.in = slices.Concat(frame(0x81, "x"), frame(control, ""), frame(0x81, "y"))
		s := wiredSession(t, src)
		s.hooks = &hookContext{t.Context(), func() {}}
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
				t.Errorf("%#x: a subscriber that leaves during the hook waits for its end", control)
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
			synctest.Wait() // until the pump holds the first
		}
		wantHeard(t, heard(<-slow, <-slow, <-slow), "a", "d after 2", "e")
		f.finish()
		rest(slow)
	})
}

// The log names every subscriber that blocks delivery for long, once.
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
			f.blocked.begin(f.log, &subscriber{fanout: f, label: "slow"})
			time.Sleep(block.time)
			f.blocked.end()
			time.Sleep(time.Hour)
			synctest.Wait() // until the timer's goroutine has written the log
			if n := strings.Count(log.String(), "blocks delivery"); n != block.entries {
				t.Errorf("after %v of blocking: %d entries, want %d", block.time, n, block.entries)
			}
		}
	})
}

// backlog returns the events that wait for a subscriber that does not read.
func backlog(f *fanout) (events []Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := f.first; s.backlog.Len() > 0; {
		events = append(events, s.shift())
	}
	return events
}

// push delivers events to the only subscriber, and does not block.
func push(f *fanout, events ...Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, event := range events {
		f.first.push(event)
	}
}

func TestDropOldestDropsOnlyMessages(t *testing.T) {
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
		{"of another session", 2, []Event{said("a"), said("b"), CloseEvent{}, OpenEvent{}, MessageEvent{Session: 2}, MessageEvent{Session: 2}}, []string{"close", "open"}, 4},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFanout()
			events := f.subscribe(t.Context(), subscription{buffer: tt.limit, messages: true, overflow: OverflowDropOldest})
			push(f, OpenEvent{})
			synctest.Wait() // until the pump holds it
			push(f, tt.events...)
			got := heard(backlog(f)...)
			if !slices.Equal(got, tt.want) || f.dropped.Load() != tt.lost {
				t.Errorf("%s: got %q, %d lost, want %q, %d", tt.name, got, f.dropped.Load(), tt.want, tt.lost)
			}
			<-events
			f.finish()
		})
	}
}

// The next message delivered in the same session reports how many were lost before it,
// even if it comes right after them.
func TestLostIsReportedInItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		events := f.subscribe(t.Context(), subscription{buffer: 1, messages: true, overflow: OverflowDropOldest})
		push(f, OpenEvent{}) // with the pump
		synctest.Wait()
		push(f, OpenEvent{}, said("a"))
		wantHeard(t, heard(<-events, <-events), "open", "open")
		synctest.Wait()
		go deliver(f, said("b"))
		wantHeard(t, heard(<-events), "b after 1")
		synctest.Wait()

		push(f, CloseEvent{})
		synctest.Wait()
		push(f, OpenEvent{}, said("c"))
		wantHeard(t, heard(<-events, <-events), "close", "open")
		synctest.Wait()
		go push(f, MessageEvent{Session: 2, Data: []byte("d")})
		wantHeard(t, heard(<-events), "d")
		f.finish()
	})
}

// attempts returns the events of n attempts, every second of which opens a session with
// the given number of messages.
func attempts(n, messages int) (events []Event) {
	for i := uint64(1); i <= uint64(n); i++ {
		if i%2 == 0 {
			events = append(events, FailEvent{Attempt: int(i)})
			continue
		}
		events = append(events, OpenEvent{Session: i})
		for range messages {
			events = append(events, MessageEvent{Session: i})
		}
		events = append(events, FailEvent{Session: i})
	}
	return events
}

// A subscriber that does not read does not block lifecycle events: it misses whole
// attempts instead.
func TestUnreadStreamMissesWholeAttempts(t *testing.T) {
	for name, opts := range map[string]subscription{
		"blocks":           {buffer: 3, messages: true},
		"unbuffered":       {messages: true},
		"drops":            {buffer: 3, messages: true, overflow: OverflowDropOldest},
		"without messages": {buffer: 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFanout()
				stream := f.subscribe(t.Context(), opts)
				for _, event := range attempts(1000, 2) {
					if _, message := event.(MessageEvent); opts.messages || !message {
						push(f, event)
					}
				}
				push(f, OpenEvent{Session: 1001}, said("last"))
				synctest.Wait()
				if isBlocked(f) {
					t.Error("delivery is blocked by a subscriber that does not read")
				}
				go f.finish()
				got := rest(stream)
				open, rare, last, lost := uint64(0), 0, 0, uint64(0)
				for _, event := range got {
					switch e := event.(type) {
					case OpenEvent:
						if rare++; open != 0 || int(e.Session) < last {
							t.Fatalf("session %d opened within session %d, after session %d", e.Session, open, last)
						}
						open, last = max(1, e.Session), int(e.Session)
					case FailEvent:
						if rare++; e.Session == 0 && open != 0 || e.Session != 0 && e.Session != open {
							t.Fatalf("got %+v in session %d, want an event of that session", e, open)
						}
						open = 0
					case MessageEvent:
						lost += e.Lost
					}
				}
				if open != 1001 {
					t.Errorf("the stream ends in session %d, want 1001", open)
				}
				if most := maxRare + opts.buffer + 2; rare > most || rare < maxRare {
					t.Errorf("%d events, want at most %d", rare, most)
				}
				if name == "blocks" && f.dropped.Load() != lost {
					t.Errorf("%d messages dropped, %d reported, want them to agree", f.dropped.Load(), lost)
				}
			})
		})
	}
}

// The messages of a session that is ending are parked, up to a limit, and delivered
// before everything that follows them.
func TestParking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		stream := f.subscribe(t.Context(), subscription{messages: true})
		const size = 1 << 10
		big := wire.Message{Type: wire.Text, Data: make([]byte, size)}
		life, delivered := new(lifetime), 0
		var delivery sync.WaitGroup
		delivery.Go(func() {
			for range 2 * maxParked / size {
				f.deliver(1, []wire.Message{big}, true, life)
				delivered++
			}
		})
		synctest.Wait()
		if !isBlocked(f) || delivered != 0 {
			t.Fatalf("%d delivered, want none, and delivery blocked", delivered)
		}
		life.reach(stageEnding)
		synctest.Wait()
		if n := maxParked / size; !isBlocked(f) || delivered != n && delivered != n+1 { // the pump may hold one
			t.Errorf("%d delivered, want %d", delivered, n)
		}
		life.reach(stageKilled)
		delivery.Wait()
		f.lifecycle(CloseEvent{})
		f.lifecycle(OpenEvent{})
		var second lifetime
		passed := false
		delivery.Go(func() {
			f.catchUp(&second)
			passed = true
			f.deliver(2, []wire.Message{{Type: wire.Text, Data: []byte("x")}}, true, &second)
		})
		for range 2 * maxParked / size {
			synctest.Wait()
			if m, ok := (<-stream).(MessageEvent); !ok || len(m.Data) != size || passed {
				t.Fatalf("got %+v, next session reading: %t, want a parked message, and not yet", m, passed)
			}
		}
		wantHeard(t, heard(<-stream, <-stream, <-stream), "close", "open", "x")
		delivery.Wait()
		f.finish()
	})
}

// A subscriber that is behind keeps neither the session from reading the server's close
// frame, nor the others from leaving, nor the client from closing.
func TestCatchUpEnds(t *testing.T) {
	for name, end := range map[string]func(f *fanout, life *lifetime, leave func()){
		"session": func(_ *fanout, life *lifetime, _ func()) { life.reach(stageEnding) },
		"leaves":  func(_ *fanout, _ *lifetime, leave func()) { leave() },
		"abort":   func(f *fanout, _ *lifetime, _ func()) { close(f.abort) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFanout()
				ctx, leave := context.WithCancel(t.Context())
				f.subscribe(ctx, subscription{messages: true})
				push(f, OpenEvent{}, said("x"))
				life := new(lifetime)
				var reader sync.WaitGroup
				reader.Go(func() { f.catchUp(life) })
				synctest.Wait()
				if !isBlocked(f) {
					t.Error("delivery is not blocked by the subscriber that is behind")
				}
				end(f, life, leave)
				reader.Wait()
				leave()
				f.finish()
				if n := f.behind.Load(); n != 0 {
					t.Errorf("%d subscribers are behind, want none", n)
				}
			})
		})
	}
}

// Only messages that wait for a subscriber keep the next session from being read; other
// events do not.
func TestCatchUpWaitsForMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		stream := f.subscribe(t.Context(), subscription{messages: true})
		push(f, OpenEvent{})
		f.catchUp(new(lifetime))

		push(f, said(""), CloseEvent{}, OpenEvent{})
		var reader sync.WaitGroup
		reader.Go(func() { f.catchUp(new(lifetime)) })
		for _, event := range []string{"open", ""} {
			synctest.Wait()
			if !isBlocked(f) {
				t.Fatalf("reading went on before %q was received", event)
			}
			wantHeard(t, heard(<-stream), event)
		}
		reader.Wait()
		wantHeard(t, heard(<-stream, <-stream), "close", "open")
		f.finish()
	})
}

func TestBlockedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, label := range []string{"", "feed"} {
			f := newFanout()
			f.subscribe(t.Context(), subscription{buffer: 1})
			f.subscribe(t.Context(), subscription{messages: true, label: label})
			f.subscribe(t.Context(), subscription{buffer: 1})
			var delivery sync.WaitGroup
			delivery.Go(func() { deliver(f, said("x")) })
			synctest.Wait()
			time.Sleep(time.Minute)
			by, since := f.blocked.now()
			if want := cmp.Or(label, "#2 of 3"); by != want || time.Since(since) != time.Minute || f.blocked.sum() != time.Minute {
				t.Errorf("blocked by %q for %v, %v in all, want a minute, by the subscriber without a buffer", by, time.Since(since), f.blocked.sum())
			}
			close(f.abort)
			delivery.Wait()
			f.finish()
		}
	})
}

// Subscribing and leaving take constant time, however many subscribers there are.
func TestManySubscribers(t *testing.T) {
	f := newFanout()
	ctx, leave := context.WithCancel(context.Background())
	var streams []<-chan Event
	for range 16_000 {
		streams = append(streams, f.subscribe(ctx, subscription{buffer: 1}))
	}
	leave()
	for _, stream := range streams {
		rest(stream)
	}
	if n := subscribers(f); n != 0 {
		t.Errorf("%d subscribers are left, want none", n)
	}
}

// The next message reports how many were dropped before it, even if it has to wait
// itself.
func TestDropOldestReportsByAWaitingMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFanout()
		events := f.subscribe(t.Context(), subscription{buffer: 1, messages: true, overflow: OverflowDropOldest})
		for range 2 {
			f.lifecycle(OpenEvent{Session: 1})
			synctest.Wait() // the pump holds one, the other is in the backlog
		}
		deliver(f, said("dropped"))
		<-events
		<-events
		synctest.Wait()
		deliver(f, said("next"))
		if m := (<-events).(MessageEvent); m.Lost != 1 || f.dropped.Load() != 1 {
			t.Errorf("lost %d, dropped %d, want 1", m.Lost, f.dropped.Load())
		}
	})
}

// A loop over Messages that borrows the data and drops the oldest messages holds no more
// memory than the messages that wait for it.
func TestDropOldestGivesBlocksBack(t *testing.T) {
	f := newFanout()
	st := f.stream(t.Context(), subscription{buffer: 100, messages: true, borrows: true, overflow: OverflowDropOldest})
	number := func(n int) []byte { return fmt.Appendf(nil, "%05000d", n) }
	for n := range 10_000 {
		f.deliver(1, []wire.Message{{Type: wire.Text, Data: number(n)}}, false, new(lifetime))
		if held := len(st.bundle.blocks); held > 10 {
			t.Fatalf("%d blocks are held after %d messages, want at most 10", held, n)
		}
		if n%500 >= 2 {
			continue // looking after each message would be slow
		}
		waiting := &st.bundle.messages
		for i := range waiting.Len() {
			if want := number(n + 1 - waiting.Len() + i); !bytes.Equal(waiting.At(i).Data, want) {
				t.Fatalf("after %d messages: waiting message %d was overwritten", n, i)
			}
		}
	}
}

// A message that a filter keeps does not wake a loop over Messages.
func TestFilteredMessageWakesNobody(t *testing.T) {
	client, err := New("ws://server.test", WithFilter(func(context.Context, MessageEvent) bool { return false }))
	if err != nil {
		t.Fatal(err)
	}
	st := client.events.stream(t.Context(), subscription{buffer: 1, messages: true})
	s := &session{client: client, id: 1}
	s.start(&script{in: frame(0x81, "kept"), end: io.EOF}, nil, wire.Deflate{}, nil)
	s.read()
	if len(st.more) > 0 {
		t.Error("the loop was woken by a message that the filter kept")
	}
	s.endHooks()
}
