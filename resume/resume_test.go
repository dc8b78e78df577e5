package resume_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// read reads a protocol that the tests are written in. A message has records between
// commas: "a 7" and "a/e 7" are numbers of stream a, in epoch e; "a 6>7" names the one
// before; "a ~7" is sparse; "a #t" is a token; "a =7" is a snapshot; "a @7" says where the
// stream goes on, and "a lost" that nobody knows. Anything else is no record.
func read(m resock.MessageEvent, found *resume.Found) {
	for record := range strings.SplitSeq(string(m.Data), ",") {
		name, what, ok := strings.Cut(record, " ")
		p := resume.Position{}
		p.Stream, p.Epoch, _ = strings.Cut(name, "/")
		tell := func(p resume.Position) { found.Message(p, []byte(record)) }
		switch {
		case strings.HasPrefix(what, "@"):
			tell = found.At
		case strings.HasPrefix(what, "="):
			tell = func(p resume.Position) { found.Snapshot(p, []byte(record)) }
		}
		what = strings.TrimLeft(what, "@=")
		switch {
		case !ok:
			continue
		case what == "lost":
			found.Lost(p.Stream)
			continue
		case strings.HasPrefix(what, "#"):
			p.Token = what[1:]
		case strings.HasPrefix(what, "~"):
			p.Link = resume.Sparse
			fmt.Sscan(what[1:], &p.Seq)
		case strings.Contains(what, ">"):
			p.Link = resume.Linked
			fmt.Sscanf(what, "%d>%d", &p.Prev, &p.Seq)
		default:
			if n, _ := fmt.Sscan(what, &p.Seq); n != 1 {
				continue
			}
		}
		tell(p)
	}
}

// show writes an event as the tests expect it.
func show(event resume.Event) string {
	switch e := event.(type) {
	case resume.Message:
		return string(e.Data)
	case resume.Repeated:
		return "again " + string(e.Data)
	case resume.Gap:
		return fmt.Sprintf("[%s %d-%d: %s]", e.Stream, e.From, e.To, e.Reason)
	case resume.StoreError:
		return "store: " + e.Err.Error()
	case resume.Lifecycle:
		switch e := e.Event.(type) {
		case resock.OpenEvent:
			return fmt.Sprintf("open %d", e.Session)
		case resock.FailEvent:
			return "fail"
		case resock.CloseEvent:
			return "close"
		}
	}
	return fmt.Sprintf("%T", event)
}

// world is a feed that follows a client of a server, in virtual time.
type world struct {
	*testing.T
	server *resocktest.Server
	client *resock.Client
	feed   *resume.Feed
	next   func() (resume.Event, bool)
	stop   func()
}

func bubble(t *testing.T, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: resocktest.NewMemory(t)}
		w.feed = w.make(resume.Config{})
		f(w)
	})
}

// make makes a feed.
func (w *world) make(config resume.Config) *resume.Feed {
	w.Helper()
	if config.Read == nil {
		config.Read = read
	}
	feed, err := resume.New(context.Background(), config)
	if err != nil {
		w.Fatal(err)
	}
	return feed
}

// start lets the feed follow a new client.
func (w *world) start(opts ...resock.Option) *resocktest.Conn {
	w.Helper()
	opts = append(opts, resock.WithBackoff(time.Second, time.Second),
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: w.server.Client()}))
	client, err := resock.New(w.server.URL, opts...)
	if err != nil {
		w.Fatal(err)
	}
	w.client = client
	w.next, w.stop = iter.Pull(w.follow())
	go client.Run(context.Background())
	w.Cleanup(w.close)
	conn := w.server.Accept()
	w.sees("open 1")
	return conn
}

func (w *world) close() {
	w.stop()
	_ = w.client.Close(resock.StatusNormalClosure, "")
	<-w.client.Done()
}

func (w *world) follow() iter.Seq[resume.Event] {
	w.Helper()
	events, err := w.feed.Follow(context.Background(), w.client)
	if err != nil {
		w.Fatal(err)
	}
	return events
}

// sees expects the next events, and returns the last.
func (w *world) sees(want ...string) (last resume.Event) {
	w.Helper()
	for _, want := range want {
		event, ok := w.next()
		if !ok {
			w.Fatalf("the events end, want %q", want)
		}
		if got := show(event); got != want {
			w.Fatalf("got %q, want %q", got, want)
		}
		last = event
	}
	return last
}

// pushes lets the server push messages, and expects what the feed makes of them.
func (w *world) pushes(conn *resocktest.Conn, texts string, want ...string) resume.Event {
	w.Helper()
	for text := range strings.SplitSeq(texts, "; ") {
		if err := conn.Push(text); err != nil {
			w.Fatal(err)
		}
	}
	return w.sees(want...)
}

// again drops the connection, and returns the next one.
func (w *world) again(conn *resocktest.Conn) *resocktest.Conn {
	w.Helper()
	conn.Drop()
	next := w.server.Accept()
	synctest.Wait()
	w.sees("fail", fmt.Sprintf("open %d", w.client.Stats().Session))
	return next
}

// asks expects what the next session asks for.
func (w *world) asks(want string) {
	w.Helper()
	var got []string
	for _, c := range w.feed.Cursors() {
		text := c.String()
		if !c.Known {
			text = c.Stream + " ?"
		}
		got = append(got, text)
	}
	if got := strings.Join(got, ", "); got != want {
		w.Errorf("the cursors are %q, want %q", got, want)
	}
}

func (w *world) commit(events ...resume.Event) {
	w.Helper()
	for _, event := range events {
		if err := w.feed.Commit(event.(resume.Message).Position); err != nil {
			w.Error(err)
		}
	}
}

// TestOrder has a line for what may come in which order.
func TestOrder(t *testing.T) {
	for _, test := range []struct{ name, pushes, want string }{
		{"dense", "a 1; a 2; a 3", "a 1; a 2; a 3"},
		{"begins anywhere", "a 7; a 8", "a 7; a 8"},
		{"a hole", "a 1; a 4; a 5", "a 1; [a 2-3: hole]; a 4; a 5"},
		{"a hole in each of two streams", "a 1; b 1; a 3; b 4", "a 1; b 1; [a 2-2: hole]; a 3; [b 2-3: hole]; b 4"},
		{"repeated", "a 1; a 2; a 1; a 2; a 3", "a 1; a 2; a 3"},
		{"late after a hole", "a 1; a 3; a 2; a 4", "a 1; [a 2-2: hole]; a 3; a 4"},
		{"the first number is 0", "a 0; a 0; a 1", "a 0; a 1"},
		{"a new epoch", "a/x 5; a/y 1; a/y 2", "a/x 5; [a 6-0: new epoch]; a/y 1; a/y 2"},
		{"the same number in another epoch", "a/x 5; a/y 5; a/y 5; a/y 6", "a/x 5; [a 6-0: new epoch]; a/y 5; a/y 6"},
		{"linked", "a 0>5; a 5>9; a 9>12", "a 0>5; a 5>9; a 9>12"},
		{"a linked hole", "a 0>5; a 7>9", "a 0>5; [a 6-7: hole]; a 7>9"},
		{"linked, repeated", "a 0>5; a 5>9; a 0>5; a 5>9; a 9>10", "a 0>5; a 5>9; a 9>10"},
		{"linked, one part repeated", "a 0>5; a 3>9; a 9>10", "a 0>5; a 3>9; a 9>10"},
		{"linked, and the numbers begin anew", "a 0>15; a 15>3; a 3>4", "a 0>15; a 15>3; a 3>4"},
		{"linked, and nothing new", "a 0>5; a 5>5; a 5>6", "a 0>5; a 5>6"},
		{"sparse", "a ~3; a ~9; a ~4; a ~10", "a ~3; a ~9; a ~10"},
		{"tokens", "a #x; a #y; a #x; a #z", "a #x; a #y; a #z"},
		{"no record", "hello; a 1; hello", "hello; a 1; hello"},
		{"several records", "a 1,a 2,a 4; a 5", "a 1; a 2; [a 3-3: hole]; a 4; a 5"},
		{"several records, some repeated", "a 1; a 1,a 2; a 3", "a 1; a 2; a 3"},
		{"all records repeated", "a 1; a 1,a 1; a 2", "a 1; a 2"},
		{"begins after a mark", "a @4; a 6", "[a 5-5: hole]; a 6"},
		{"a mark where the stream is", "a 1; a @1; a 2", "a 1; a 2"},
		{"a mark that is behind", "a 2; a @1; a 2,a 3", "a 2; a 3"},
		{"a mark ahead", "a 1; a @4; a 5", "a 1; [a 2-4: cursor lost]; a 5"},
		{"a mark after what was missed", "a 1; a 2,a 3,a @3; a 4", "a 1; a 2; a 3; a 4"},
		{"a mark of another epoch", "a/x 5; a/y @2; a/y 3", "a/x 5; [a 6-0: new epoch]; a/y 3"},
		{"a mark with a token", "a #x; a @#x; a #y; a @#z", "a #x; a #y; [a 0-0: cursor lost]"},
		{"lost", "a 1; a lost; a 5; a 6; a 8", "a 1; [a 2-0: cursor lost]; a 5; a 6; [a 7-7: hole]; a 8"},
		{"lost, another epoch", "a/x 1; a lost; a/y 5; a/y 6", "a/x 1; [a 2-0: cursor lost]; a/y 5; a/y 6"},
		{"lost twice", "a 1; a lost; a lost; a 5; a lost", "a 1; [a 2-0: cursor lost]; a 5; [a 6-0: cursor lost]"},
		{"lost, and repeated", "a 1; a 2; a lost; a 2; a 5", "a 1; a 2; [a 3-0: cursor lost]; a 5"},
		{"lost, then a mark", "a 1; a lost; a @4; a 6", "a 1; [a 2-0: cursor lost]; [a 5-5: hole]; a 6"},
		{"lost, and nothing known", "a lost; a 1", "a 1"},
		{"the last number", "a 18446744073709551614; a 18446744073709551615; a 18446744073709551615; end", "a 18446744073709551614; a 18446744073709551615; end"},
		{"a snapshot", "a 5; a =9; a 10; a 12", "a 5; a =9; a 10; [a 11-11: hole]; a 12"},
		{"a snapshot, and numbers begin anew", "a 5>9; a =3; a 3>4; a 2>3", "a 5>9; a =3; a 3>4"},
		{"a snapshot first", "a =3; a 4", "a =3; a 4"},
		{"a snapshot with a token", "a #x; a =#y; a #y; a #z", "a #x; a =#y; a #z"},
		{"a snapshot of another epoch", "a/x 5; a/y =1; a/y 2", "a/x 5; a/y =1; a/y 2"},
		{"lost, then a snapshot", "a 1; a lost; a =9; a 10", "a 1; [a 2-0: cursor lost]; a =9; a 10"},
		{"an epoch comes back", "a/x 1; a/y 1; a/x 1", "a/x 1; [a 2-0: new epoch]; a/y 1; [a 2-0: new epoch]; a/x 1"},
		{"a number and a token", "a 1; a 2; a @2", "a 1; a 2"},
		{"from numbers to tokens", "a 1; a #x; a #x; a 2", "a 1; a #x; [a 0-0: new epoch]; a 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.pushes(w.start(), test.pushes, strings.Split(test.want, "; ")...)
				synctest.Wait()
				want := resume.Stats{
					Gaps:     uint64(strings.Count(test.want, "[")),
					Messages: w.feed.Stats().Messages, Duplicates: w.feed.Stats().Duplicates,
				}
				if got := w.feed.Stats(); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			})
		})
	}
}

func TestMissing(t *testing.T) {
	if n, known := (resume.Gap{From: 3, To: 5}).Missing(); n != 3 || !known {
		t.Errorf("got %d, %v", n, known)
	}
	if n, known := (resume.Gap{From: 3}).Missing(); n != 0 || known {
		t.Errorf("without an end: got %d, %v", n, known)
	}
}

// TestUpTo tells where a gap ends, also in another epoch.
func TestUpTo(t *testing.T) {
	for _, test := range []struct{ pushes, last, upTo string }{
		{"a 1; a 5", "a 1", "a 4"},
		{"a 0>1; a 4>5", "a 1", "a 4"},
		{"a 1; a @5", "a 1", "a 5"},
		{"a/x 5; a/y 3", "a x:5", "a y:2"},
		{"a/x 5; a/y @3", "a x:5", "a y:3"},
		{"a/x 5; a/y 7>9", "a x:5", "a y:7"},
		{"a/x 5; a/y 0", "a x:5", "a 0"}, // only the stream
		{"a/x 5; a/y ~3", "a x:5", "a 0"},
		{"a 5; a lost", "a 5", "a 0"},
		{"a #x; a @#z", `a token "x"`, `a token "z"`},
	} {
		t.Run(test.pushes, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.pushes(w.start(), test.pushes)
				for {
					event, _ := w.next()
					if gap, ok := event.(resume.Gap); ok {
						if got := gap.Last.String() + ", " + gap.UpTo.String(); got != test.last+", "+test.upTo {
							t.Errorf("got %s, want %s, %s", got, test.last, test.upTo)
						}
						return
					}
				}
			})
		})
	}
}

func TestRepeatedRecordsAreCounted(t *testing.T) {
	bubble(t, func(w *world) {
		w.pushes(w.start(), "a 1; a 1,a 2; a 2; a 3", "a 1", "a 2", "a 3")
		if got, want := w.feed.Stats(), (resume.Stats{Messages: 3, Duplicates: 2}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

// TestOverASession goes on in the next session, where the server repeats what was not
// committed.
func TestOverASession(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.commit(w.pushes(conn, "a 1", "a 1"))
		w.pushes(conn, "a 2; a 3", "a 2", "a 3")
		w.asks("a 1")
		conn = w.again(conn)
		w.pushes(conn, "a 2; a 3; a 4; a 6", "a 4", "[a 5-5: hole]", "a 6")
	})
}

// TestCommit commits in every order: the cursor moves with what is committed without a
// hole.
func TestCommit(t *testing.T) {
	for _, test := range []struct {
		order   []int
		cursors []int
	}{
		{[]int{1, 2, 3, 4}, []int{1, 2, 3, 4}},
		{[]int{4, 3, 2, 1}, []int{0, 0, 0, 4}},
		{[]int{2, 1, 4, 3}, []int{0, 2, 2, 4}},
		{[]int{3, 1, 1, 3, 2, 4}, []int{0, 1, 1, 1, 3, 4}},
		{[]int{2, 4, 3, 1}, []int{0, 0, 0, 4}},
		{[]int{1, 4, 2, 3}, []int{1, 1, 2, 4}},
		{[]int{4, 2, 3, 3, 2, 1}, []int{0, 0, 0, 0, 0, 4}},
	} {
		t.Run(fmt.Sprint(test.order), func(t *testing.T) {
			bubble(t, func(w *world) {
				conn := w.start()
				events := []resume.Event{nil}
				for n := range 4 {
					text := fmt.Sprintf("a %d", 10*n+10)
					w.pushes(conn, fmt.Sprintf("a ~%d", 10*n+10))
					events = append(events, w.sees(strings.Replace(text, " ", " ~", 1)))
				}
				for i, n := range test.order {
					w.commit(events[n])
					want := "a 10" // before the first commit, the first one that was delivered
					if at := test.cursors[i]; at > 0 {
						want = fmt.Sprintf("a %d", 10*at)
					}
					w.asks(want)
				}
			})
		})
	}
}

func TestCommitOfAnotherFeed(t *testing.T) {
	bubble(t, func(w *world) {
		e := w.pushes(w.start(), "a 1; hello", "a 1", "hello").(resume.Message)
		if err := w.feed.Commit(e.Position); err != nil {
			t.Errorf("a message without a position: %v", err)
		}
		for _, feed := range []*resume.Feed{w.feed, w.make(resume.Config{})} {
			if err := feed.Commit(resume.Position{Stream: "a", Seq: 1}); err == nil || !strings.Contains(err.Error(), "a 1") {
				t.Errorf("got %v, want an error", err)
			}
		}
	})
}

// TestLost loses the cursor in each way that a hook may find out.
func TestLost(t *testing.T) {
	bubble(t, func(w *world) {
		var asked []string
		lose := false
		conn := w.start(resock.WithOnOpen(func(context.Context, *resock.Session) error {
			asked = append(asked, fmt.Sprint(w.feed.Cursor("a").Known))
			if lose {
				w.feed.Lost("a")
				lose = false
				return errors.New("expired")
			}
			return nil
		}))
		w.commit(w.pushes(conn, "a 1", "a 1"))
		w.pushes(conn, "a 2", "a 2")
		lose = true
		conn.Drop()
		w.sees("fail", "fail", "open 2", "[a 3-0: cursor lost]")
		w.server.Accept()
		conn = w.server.Accept()
		if got := strings.Join(asked, " "); got != "false true false" {
			t.Errorf("the cursor was known: %s", got)
		}
		w.asks("a ?")
		e := w.pushes(conn, "a 2; a 9; a 10", "a 9", "a 10")
		w.asks("a 9") // what comes after the loss is no longer lost
		w.commit(e)
		w.asks("a 9")
	})
}

// TestAskedBlindly tells that a session may have missed something that asked without a
// position, though a message of the session before has come since.
func TestAskedBlindly(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a #1; a lost; a #3", "a #1", "[a 0-0: cursor lost]")
		w.asks("a ?") // as the next session does, before the loop goes on
		w.sees("a #3")
		conn.Drop()
		w.sees("fail", "open 2", "[a 0-0: cursor lost]")
	})
}

// TestLostInTwoSessions keeps what a hook has told when the loop reads of a loss in the
// session before.
func TestLostInTwoSessions(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a ~1; a lost; a ~4", "a ~1")
		w.feed.Lost("a")
		w.sees("[a 2-0: cursor lost]", "a ~4")
		conn.Drop()
		w.sees("fail", "open 2", "[a 5-0: cursor lost]")
	})
}

// TestLeaveInAGap tells the rest when the loop is left in a gap, and more is missing later.
func TestLeaveInAGap(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a 1; a 5", "a 1", "[a 2-4: hole]")
		w.stop()
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a 9; a lost; a 12; a 13", "open 1", "[a 5-8: hole]")
		w.stop()
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a 9; a 11; a lost", "open 1", "a 9", "[a 10-10: hole]")
		w.stop()
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a lost", "open 1", "[a 11-0: cursor lost]")
	})
}

// TestLeaveInAMark commits it when the loop goes on.
func TestLeaveInAMark(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
		conn := w.start()
		w.commit(w.pushes(conn, "a 1; a @4", "a 1"))
		w.sees("[a 2-4: cursor lost]")
		w.stop()
		store.has(w, "a 1")
		w.next, w.stop = iter.Pull(w.follow())
		w.sees("open 1")
		store.has(w, "a 4")
	})
}

// TestStartForgetsTokens reads tokens again.
func TestStartForgetsTokens(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a #1; a #2", "a #1", "a #2")
		w.feed.Start(resume.Position{Stream: "a", Token: "1"})
		w.pushes(conn, "a #1; a #2", "a #2")
	})
}

// TestLostAgain tells a loss once in a session, and again in each that opens before the
// stream goes on.
func TestLostAgain(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a 1; b 1; a lost; a lost", "a 1", "b 1", "[a 2-0: cursor lost]")
		conn = w.again(conn)
		w.pushes(conn, "a lost", "[a 2-0: cursor lost]")
		w.asks("a ?, b 1")
		conn = w.again(conn)
		w.sees("[a 2-0: cursor lost]")
		w.feed.Start(resume.Position{Stream: "a", Seq: 500}) // the snapshot
		conn = w.again(conn)
		w.pushes(conn, "a lost; a 521; a 522", "[a 501-0: cursor lost]", "a 521", "a 522")
		w.again(conn)
		w.asks("a 521, b 1")
	})
}

// TestNewEpochIsAskedFor asks for the new epoch, though nobody has committed anything of
// it, and saves the old one.
func TestNewEpochIsAskedFor(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
		conn := w.start()
		w.commit(w.pushes(conn, "a/x 8; a/x 9; a/y 1; a/y 5", "a/x 8"))
		w.sees("a/x 9", "[a 10-0: new epoch]")
		w.asks("a x:8")
		w.sees("a/y 1", "[a 2-4: hole]", "a/y 5")
		w.asks("a y:1")
		store.has(w, "a x:8")
	})
}

// TestRepeated shows what comes again.
func TestRepeated(t *testing.T) {
	bubble(t, func(w *world) {
		w.feed = w.make(resume.Config{Repeated: true})
		e := w.pushes(w.start(), "a #1; a #1", "a #1", "again a #1")
		if p := e.(resume.Repeated).Position; p.Token != "1" {
			t.Errorf("its position is %v", p)
		}
	})
}

// TestLostIsSavedLast keeps a cursor that is lost until something after the loss was
// handled: only then a crash does not hide the gap.
func TestLostIsSavedLast(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
		conn := w.start()
		first := w.pushes(conn, "a 1", "a 1")
		w.commit(first)
		w.pushes(conn, "a @9", "[a 2-9: cursor lost]")
		store.has(w, "a 1")
		w.asks("a 9")
		w.pushes(conn, "hello", "hello") // the loop asked for more, so the gap was handled
		store.has(w, "a 9")
		w.pushes(conn, "a lost", "[a 10-0: cursor lost]")
		w.asks("a ?")
		store.has(w, "a 9")
		e := w.pushes(conn, "a 20", "a 20")
		store.has(w, "a 9")
		w.commit(e)
		store.has(w, "a 20")
	})
}

// TestStart moves a stream in the middle of a gap, as a snapshot does.
func TestStart(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		old := w.pushes(conn, "a 1; a 5; a 6; a 7; a 9", "a 1")
		w.sees("[a 2-4: hole]")
		w.feed.Start(resume.Position{Stream: "a", Seq: 6})
		w.asks("a 6")
		w.sees("a 7", "[a 8-8: hole]")
		w.feed.Start(resume.Position{Stream: "a", Seq: 7})
		w.sees("[a 8-8: hole]")
		w.commit(old)
		w.asks("a 7")
		w.sees("a 9")
		w.feed.Start(resume.Position{Stream: "a", Seq: 1}) // once more
		w.pushes(conn, "a 1; a 2; a 3", "a 2", "a 3")
	})
}

func TestStreamsComeAndGo(t *testing.T) {
	bubble(t, func(w *world) {
		w.feed.Add("b")
		w.feed.Add("a")
		w.asks("a ?, b ?")
		conn := w.start()
		w.commit(w.pushes(conn, "a 1; b 1; c 1", "a 1"), w.sees("b 1"), w.sees("c 1"))
		w.feed.Add("a")
		w.asks("a 1, b 1, c 1")
		b := w.pushes(conn, "b 2", "b 2")
		w.feed.Remove("b")
		w.commit(b)
		w.asks("a 1, c 1")
		w.pushes(conn, "b 3; a 2", "a 2")
		conn = w.again(conn)
		w.pushes(conn, "b 4; a 3", "a 3") // it may have been registered before
		conn = w.again(conn)
		w.pushes(conn, "b 9; b 10", "b 9", "b 10")
		w.feed.Remove("b")
		w.feed.Add("b")
		w.pushes(conn, "b 20; a 4", "b 20", "a 4")
		if got := w.feed.Stats().Unwanted; got != 2 {
			t.Errorf("%d were unwanted, want 2", got)
		}
	})
}

// TestLeave leaves the loop and comes back: the next one goes on there.
func TestLeave(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.pushes(conn, "a 1; a 2", "a 1")
		if _, err := w.feed.Follow(context.Background(), w.client); err == nil {
			t.Error("two loops at a time")
		}
		w.stop()
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a 2; a 3; a 5", "open 1", "a 2", "a 3", "[a 4-4: hole]", "a 5")
	})
}

// TestPanicInTheLoop ends the subscription, which would block the client, and lets the next
// loop begin.
func TestPanicInTheLoop(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.stop()
		func() {
			defer func() { _ = recover() }()
			for range w.follow() {
				panic("in the loop")
			}
		}()
		synctest.Wait()
		for n := range 200 {
			if err := conn.Push(fmt.Sprintf("a %d", n)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if by := w.client.Stats().BlockedBy; by != "" {
			t.Errorf("delivery is blocked by %s", by)
		}
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a 200", "open 1", "a 200")
	})
}

func TestFollowOnce(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		w.stop()
		ctx, cancel := context.WithCancel(context.Background())
		events, err := w.feed.Follow(ctx, w.client)
		if err != nil {
			t.Fatal(err)
		}
		w.pushes(conn, "a 1")
		for range events {
			break
		}
		for e := range events {
			t.Errorf("ranged over again: %s", show(e))
		}
		events, err = w.feed.Follow(ctx, w.client)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if _, err := w.feed.Follow(context.Background(), w.client); err != nil {
			t.Errorf("the one before was never ranged over: %v", err)
		}
		for e := range events {
			t.Errorf("ranged over after the end: %s", show(e))
		}
	})
}

func TestAutoCommit(t *testing.T) {
	bubble(t, func(w *world) {
		w.feed = w.make(resume.Config{AutoCommit: true})
		conn := w.start()
		w.pushes(conn, "a 1; a 2; a 3", "a 1", "a 2")
		w.asks("a 1")
		w.sees("a 3")
		w.asks("a 2")
		w.stop()
		w.asks("a 2") // left in the middle
		w.next, w.stop = iter.Pull(w.follow())
		w.sees("open 1")
		w.asks("a 3")
	})
}

// TestRecent forgets the oldest tokens.
func TestRecent(t *testing.T) {
	bubble(t, func(w *world) {
		w.feed = w.make(resume.Config{Recent: 2})
		conn := w.start()
		w.commit(w.pushes(conn, "a #1; a #2; a #3; a #2; a #1; a #3; a #2", "a #1"))
		w.sees("a #2", "a #3")
		w.asks(`a token "1"`)
		w.sees("a #1")
		w.asks(`a token "1"`) // the cursor would not be recognised, and the last one is the same
		w.sees("a #2")
		w.asks(`a token "2"`)
	})
}

func TestBadConfig(t *testing.T) {
	broken := &memory{err: errors.New("no disk")}
	twice := &memory{cursors: []resume.Position{{Stream: "a"}, {Stream: "a"}}}
	for want, config := range map[string]resume.Config{
		"Read":    {},
		"Recent":  {Read: read, Recent: -1},
		"no disk": {Read: read, Store: broken},
		`"a"`:     {Read: read, Store: twice},
	} {
		if _, err := resume.New(context.Background(), config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	feed, _ := resume.New(context.Background(), resume.Config{Read: read})
	if _, err := feed.Follow(context.Background(), nil); err == nil {
		t.Error("a client that is nil")
	}
}

// TestLabel names the loop that blocks delivery.
func TestLabel(t *testing.T) {
	bubble(t, func(w *world) {
		conn := w.start()
		for n := range 200 {
			if err := conn.Push(fmt.Sprint("a ", n)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Second)
		if by := w.client.Stats().BlockedBy; by != "resume" {
			t.Errorf("delivery is blocked by %q", by)
		}
	})
}
