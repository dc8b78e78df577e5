package call_test

import (
	"bytes"
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
	"github.com/resock/resock/call"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resocktest"
)

// answers reads "id:answer". What has no colon is a push.
func answers(m resock.MessageEvent) (string, bool) {
	id, _, ok := strings.Cut(string(m.Data), ":")
	return id, ok
}

// bound returns a client that runs, and its calls.
func bound(t *testing.T, server *resocktest.Server, opts ...any) (*resock.Client, *call.Calls) {
	t.Helper()
	client, calls := idle(t, server, opts...)
	events := grammar.Tee(t, client, resock.WithoutMessages())
	go func() {
		for range events {
		}
	}()
	go client.Run(context.Background())
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client, calls
}

// idle returns a client that does not run yet. Options are those of both packages.
func idle(t *testing.T, server *resocktest.Server, opts ...any) (*resock.Client, *call.Calls) {
	t.Helper()
	var of []call.Option
	var with []resock.Option
	for _, opt := range opts {
		switch opt := opt.(type) {
		case call.Option:
			of = append(of, opt)
		case resock.Option:
			with = append(with, opt)
		}
	}
	calls := call.New(answers, of...)
	with = append(with, resock.WithFilter(calls.Filter), resock.WithBackoff(time.Second, time.Second),
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: server.Client()}))
	client, err := resock.New(server.URL, with...)
	if err != nil {
		t.Fatal(err)
	}
	if err := calls.Bind(client); err != nil {
		t.Fatal(err)
	}
	return client, calls
}

// result is the outcome of a call.
type result struct {
	answer string
	err    error
}

// do makes a call on a goroutine of its own. The request is the id.
func do(ctx context.Context, calls *call.Calls, id string) <-chan result {
	done := make(chan result, 1)
	go func() {
		m, err := calls.Do(ctx, id, resock.MessageText, []byte(id))
		done <- result{string(m.Data), err}
	}()
	return done
}

// reads expects the next message of the client.
func reads(t *testing.T, conn *resocktest.Conn, want string) {
	t.Helper()
	if m, err := conn.Read(); err != nil || string(m.Data) != want {
		t.Fatalf("the server read %q, %v; want %q", m.Data, err, want)
	}
}

func push(t *testing.T, conn *resocktest.Conn, text string) {
	t.Helper()
	if err := conn.Push(text); err != nil {
		t.Fatal(err)
	}
}

// fails checks an error: that it is one of those wanted and none of the others, and what
// it says.
func fails(t *testing.T, r result, is, isNot error, says string) {
	t.Helper()
	if !errors.Is(r.err, is) || errors.Is(r.err, isNot) || !strings.Contains(r.err.Error(), says) || r.answer != "" {
		t.Errorf("got %q and %v, want %v that says %q", r.answer, r.err, is, says)
	}
}

func bubble(t *testing.T, f func(t *testing.T, server *resocktest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, resocktest.NewMemory(t)) })
}

func TestAnswersFindTheirCalls(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := bound(t, server)
		messages := client.Messages(t.Context())
		conn := server.Accept()
		first := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		second := do(t.Context(), calls, "2")
		reads(t, conn, "2")
		for _, text := range []string{"a push", "3:nobody asked", "2:two", "1:one", "1:late"} {
			push(t, conn, text)
		}
		if r := <-first; r.answer != "1:one" || r.err != nil {
			t.Errorf("got %+v", r)
		}
		if r := <-second; r.answer != "2:two" || r.err != nil {
			t.Errorf("got %+v", r)
		}
		var rest []string
		for m := range messages {
			if rest = append(rest, string(m.Data)); len(rest) == 3 {
				break
			}
		}
		if got := strings.Join(rest, ", "); got != "a push, 3:nobody asked, 1:late" {
			t.Errorf("the subscriber got %s", got)
		}
	})
}

// TestAnswerIsKept checks that an answer belongs to the caller.
func TestAnswerIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server)
		conn := server.Accept()
		done := make(chan resock.MessageEvent)
		go func() {
			m, _ := calls.Do(t.Context(), "1", resock.MessageBinary, []byte("binary"))
			done <- m
		}()
		reads(t, conn, "binary")
		push(t, conn, "1:kept")
		m := <-done
		push(t, conn, "x:overwritten")
		synctest.Wait()
		if string(m.Data) != "1:kept" || m.Session != 1 || m.Type != resock.MessageText {
			t.Errorf("got %q of session %d", m.Data, m.Session)
		}
	})
}

func TestDuplicateID(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server)
		conn := server.Accept()
		first := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		fails(t, <-do(t.Context(), calls, "1"), call.ErrDuplicate, resock.ErrMaybeSent, `"1"`)
		push(t, conn, "1:one")
		if r := <-first; r.answer != "1:one" {
			t.Errorf("got %+v", r)
		}
		again := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		push(t, conn, "1:again")
		if r := <-again; r.answer != "1:again" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestBind(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		calls := call.New(answers)
		fails(t, <-do(t.Context(), calls, "1"), call.ErrNotBound, resock.ErrMaybeSent, "Bind")
		if err := calls.Bind(nil); err == nil {
			t.Error("nil was bound")
		}
		client, calls := bound(t, server)
		if err := calls.Bind(client); err == nil {
			t.Error("bound twice")
		}
	})
}

// TestBindWhileOpen binds a client whose session is open already.
func TestBindWhileOpen(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		calls := call.New(answers)
		client, err := resock.New(server.URL, resock.WithFilter(calls.Filter), resock.WithHTTPClient(server.Client()))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(t.Context())
		conn := server.Accept()
		synctest.Wait()
		if err := calls.Bind(client); err != nil {
			t.Fatal(err)
		}
		r := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		conn.Drop()
		fails(t, <-r, resock.ErrMaybeSent, resock.ErrNotSent, "session 1 ended")
	})
}

// TestLostSession ends the calls that were written, at once, and those that were not go
// out in the next session, once.
func TestLostSession(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server)
		conn := server.Accept()
		written := do(t.Context(), calls, "written")
		reads(t, conn, "written")
		began := time.Now()
		conn.Drop()
		fails(t, <-written, resock.ErrMaybeSent, resock.ErrNotSent, "session 1 ended before the answer came: ")
		if took := time.Since(began); took > 0 {
			t.Errorf("after %v", took)
		}
		waits := do(t.Context(), calls, "waits")
		conn = server.Accept()
		reads(t, conn, "waits")
		push(t, conn, "written:stale")
		push(t, conn, "waits:answer")
		if r := <-waits; r.answer != "waits:answer" || r.err != nil {
			t.Errorf("got %+v", r)
		}
		if n := len(conn.Received().Messages); n != 1 {
			t.Errorf("%d messages in the second session", n)
		}
	})
}

// TestSessionEndsFirst tells of the end of a session before Send has returned.
func TestSessionEndsFirst(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := idle(t, server)
		defer client.Close(resock.StatusNormalClosure, "")
		fails(t, result{err: calls.Late(7)}, resock.ErrMaybeSent, resock.ErrNotSent, "session 7 ended")
	})
}

func TestClosedSession(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server)
		conn := server.Accept()
		r := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		_ = conn.Close(1012, "restart")
		fails(t, <-r, resock.ErrMaybeSent, resock.ErrNotSent, `session 1 ended before the answer came: closed with 1012 "restart"`)
	})
}

// TestClosingSession calls while a closing handshake goes on: the request must wait for
// the next session, and not spin.
func TestClosingSession(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server, resock.WithMaxSessionAge(time.Minute))
		conn := server.Accept()
		conn.IgnoreClose()
		for conn.Received().Close == nil {
			time.Sleep(time.Second)
		}
		r := do(t.Context(), calls, "1")
		for {
			if m, err := conn.Read(); err == nil {
				push(t, conn, string(m.Data)+":answer")
				break
			}
			conn = server.Accept()
		}
		if r := <-r; r.answer != "1:answer" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestContextEnds(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := idle(t, server)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := <-do(ctx, calls, "early")
		fails(t, r, resock.ErrNotSent, resock.ErrMaybeSent, "Run has not been called")
		fails(t, <-do(ctx, calls, "over"), resock.ErrNotSent, resock.ErrMaybeSent, "deadline")

		go client.Run(t.Context())
		conn := server.Accept()
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r = <-do(ctx, calls, "slow")
		fails(t, r, resock.ErrMaybeSent, resock.ErrNotSent, "before the answer came")
		if !errors.Is(r.err, context.DeadlineExceeded) {
			t.Errorf("got %v", r.err)
		}
		messages := client.Messages(t.Context())
		push(t, conn, "slow:late")
		for m := range messages {
			if string(m.Data) != "slow:late" {
				t.Errorf("got %q", m.Data)
			}
			break
		}
	})
}

func TestClosedClient(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := bound(t, server)
		conn := server.Accept()
		r := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		_ = client.Close(resock.StatusNormalClosure, "")
		fails(t, <-r, resock.ErrMaybeSent, resock.ErrNotSent, "session 1 ended")
		<-client.Done()
		fails(t, <-do(t.Context(), calls, "2"), resock.ErrClosed, resock.ErrMaybeSent, "")
		fails(t, <-do(context.Background(), calls, "3"), resock.ErrClosed, resock.ErrMaybeSent, "")
	})
}

// TestInsideHandlers calls where the answer cannot be read.
func TestInsideHandlers(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		errs := make(chan error, 2)
		var calls *call.Calls
		try := func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			began := time.Now()
			_, err := calls.Do(ctx, "1", resock.MessageText, nil)
			if took := time.Since(began); took > 0 {
				t.Errorf("it took %v", took)
			}
			errs <- err
		}
		_, calls = bound(t, server,
			resock.WithFilter(func(ctx context.Context, _ resock.MessageEvent) bool { try(ctx); return true }),
			resock.WithMessageHandler(func(ctx context.Context, _ resock.MessageEvent) { try(ctx) }))
		push(t, server.Accept(), "a push")
		for range 2 {
			fails(t, result{err: <-errs}, resock.ErrNotSent, resock.ErrMaybeSent, "message handler or filter")
		}
	})
}

// TestBlockedDelivery calls from the loop that should take the messages before the answer.
func TestBlockedDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := bound(t, server, call.WithPatience(7*time.Second))
		messages := client.Messages(t.Context(), resock.WithBuffer(1), resock.WithLabel("loop"))
		conn := server.Accept()
		for n := range 10 {
			push(t, conn, fmt.Sprint(n))
		}
		for range messages {
			began := time.Now()
			m, err := calls.Do(t.Context(), "1", resock.MessageText, []byte("1"))
			fails(t, result{string(m.Data), err}, resock.ErrMaybeSent, resock.ErrNotSent, "delivery was blocked for 7s by loop")
			if took := time.Since(began); took != 7*time.Second {
				t.Errorf("after %v", took)
			}
			break
		}
	})
}

// onceAnHour is a limiter with room for one message.
type onceAnHour struct{ used bool }

func (l *onceAnHour) Wait(ctx context.Context) error {
	if !l.used {
		l.used = true
		return nil
	}
	select {
	case <-time.After(time.Hour):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestBlockedBeforeSent lets a call wait that was not sent yet, however long delivery is
// blocked.
func TestBlockedBeforeSent(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := bound(t, server, call.WithPatience(7*time.Second), resock.WithSendLimiter(&onceAnHour{}))
		client.Messages(t.Context(), resock.WithBuffer(1), resock.WithLabel("loop"))
		conn := server.Accept()
		sent := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		waits := do(ctx, calls, "2")
		for n := range 10 {
			push(t, conn, fmt.Sprint(n))
		}
		fails(t, <-sent, resock.ErrMaybeSent, resock.ErrNotSent, "by loop")
		fails(t, <-waits, resock.ErrNotSent, resock.ErrMaybeSent, "deadline")
		if took := time.Since(began); took != time.Minute {
			t.Errorf("after %v, want a minute", took)
		}
	})
}

// TestBlockedLater blocks delivery long after the call began.
func TestBlockedLater(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		client, calls := bound(t, server, call.WithPatience(7*time.Second))
		messages := client.Messages(t.Context(), resock.WithBuffer(1), resock.WithLabel("loop"))
		conn := server.Accept()
		r := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		time.Sleep(time.Hour)
		for n := range 10 {
			push(t, conn, fmt.Sprint(n))
		}
		began := time.Now()
		fails(t, <-r, resock.ErrMaybeSent, resock.ErrNotSent, "by loop")
		if took := time.Since(began); took < 7*time.Second || took > 14*time.Second {
			t.Errorf("after %v", took)
		}
		for range messages {
			break
		}
	})
}

// TestPatience checks that calls are only given up while delivery is blocked.
func TestPatience(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server)
		conn := server.Accept()
		r := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		time.Sleep(24 * time.Hour)
		push(t, conn, "1:one")
		if r := <-r; r.answer != "1:one" {
			t.Errorf("got %+v", r)
		}
	})
}

func TestManyCalls(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		const n = 10_000
		_, calls := bound(t, server)
		conn := server.Accept()
		var all []<-chan result
		for i := range n {
			all = append(all, do(t.Context(), calls, fmt.Sprint(i)))
		}
		var asked []string
		for range n {
			m, err := conn.Read()
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, string(m.Data))
		}
		for i := range asked {
			push(t, conn, asked[n-1-i]+":"+asked[n-1-i])
		}
		for i, r := range all {
			if r := <-r; r.answer != fmt.Sprintf("%d:%d", i, i) {
				t.Fatalf("call %d: got %+v", i, r)
			}
		}
	})
}

// TestManyDrops lets calls be under way at each of 1,000 drops. The bubble ends only if
// nothing runs or waits any more.
func TestManyDrops(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		_, calls := bound(t, server, resock.WithBackoff(time.Millisecond, time.Millisecond),
			resock.WithRetryPolicy(func(resock.Failure) resock.Decision { return resock.Decision{After: time.Millisecond} }))
		for n := range 1000 {
			conn := server.Accept()
			var all []<-chan result
			for i := range 5 {
				all = append(all, do(t.Context(), calls, fmt.Sprintf("%d-%d", n, i)))
			}
			m, err := conn.Read()
			if err != nil {
				t.Fatal(err)
			}
			push(t, conn, string(m.Data)+":answer")
			for range 4 {
				if _, err := conn.Read(); err != nil {
					t.Fatal(err)
				}
			}
			conn.Drop()
			answered := 0
			for _, r := range all {
				r := <-r
				if r.err == nil {
					answered++
				} else if !errors.Is(r.err, resock.ErrMaybeSent) {
					t.Errorf("got %v", r.err)
				}
			}
			if answered != 1 {
				t.Errorf("%d answers", answered)
			}
		}
		if n := calls.Waiting(); n != 0 {
			t.Errorf("%d calls wait", n)
		}
	})
}

// TestSplit answers two calls with one message, which the subscribers get if it has
// anything else.
func TestSplit(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		lines := call.WithSplit(func(data []byte) iter.Seq[[]byte] { return bytes.SplitSeq(data, []byte("\n")) })
		client, calls := bound(t, server, lines)
		next, stop := iter.Pull(client.Messages(t.Context()))
		defer stop()
		conn := server.Accept()
		for _, test := range []struct {
			push string
			pass bool
		}{{"1:one\n2:two\n", false}, {"1:one\na push\n2:two", true}, {"3:late\n2:two\n1:one", true}} {
			first := do(t.Context(), calls, "1")
			reads(t, conn, "1")
			second := do(t.Context(), calls, "2")
			reads(t, conn, "2")
			push(t, conn, test.push)
			if a, b := <-first, <-second; a.answer != "1:one" || b.answer != "2:two" {
				t.Errorf("got %+v and %+v", a, b)
			}
			push(t, conn, "end")
			want := []string{test.push, "end"}
			if !test.pass {
				want = want[1:]
			}
			for _, want := range want {
				if m, _ := next(); string(m.Data) != want {
					t.Errorf("the subscriber got %q, want %q", m.Data, want)
				}
			}
		}
	})
}

// TestSplitFindsNothing passes a message on that has no record, though a call waits.
func TestSplitFindsNothing(t *testing.T) {
	bubble(t, func(t *testing.T, server *resocktest.Server) {
		lines := call.WithSplit(func(data []byte) iter.Seq[[]byte] { return bytes.SplitSeq(data, []byte("\n")) })
		client, calls := bound(t, server, lines)
		next, stop := iter.Pull(client.Messages(t.Context()))
		defer stop()
		conn := server.Accept()
		answer := do(t.Context(), calls, "1")
		reads(t, conn, "1")
		push(t, conn, "")
		push(t, conn, "\n")
		push(t, conn, "1:one")
		<-answer
		for _, want := range []string{"", "\n"} {
			if m, _ := next(); string(m.Data) != want {
				t.Errorf("the subscriber got %q, want %q", m.Data, want)
			}
		}
	})
}
