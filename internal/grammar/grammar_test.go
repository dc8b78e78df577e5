package grammar

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

var start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

func open(session uint64) resock.OpenEvent {
	return resock.OpenEvent{Time: start, Session: session, Attempt: 1}
}

func message(session uint64) resock.MessageEvent {
	return resock.MessageEvent{Session: session, Type: resock.MessageText, Data: []byte("hello")[:5:5]}
}

func fail(session uint64) resock.FailEvent {
	return resock.FailEvent{
		Time: start, Session: session, Attempt: 1, Phase: resock.PhaseRead, Err: errors.New("lost"),
		Next: resock.StateWaiting, RetryIn: time.Second, Rule: "connection",
	}
}

func closed(session uint64) resock.CloseEvent {
	return resock.CloseEvent{Time: start, Session: session, Code: 1000, Next: resock.StateClosed}
}

// with returns event after change.
func with[E resock.Event](event E, change func(*E)) E {
	change(&event)
	return event
}

func TestChecker(t *testing.T) {
	reconnect := with(closed(1), func(e *resock.CloseEvent) { e.Next = resock.StateConnecting })
	tests := []struct {
		name    string
		checker Checker
		stream  []resock.Event
		want    string // part of the violation; empty if there is none
	}{
		{"nothing", Checker{}, nil, ""},
		{"one session", Checker{}, []resock.Event{open(1), message(1), message(1), closed(1)}, ""},
		{"failed attempts", Checker{}, []resock.Event{fail(0), fail(0), open(1), closed(1)}, ""},
		{"sessions", Checker{}, []resock.Event{open(1), fail(1), fail(0), open(2), message(2), fail(2)}, ""},
		{"reconnect", Checker{}, []resock.Event{open(1), reconnect, open(2), closed(2)}, ""},
		{"end while waiting", Checker{}, []resock.Event{open(1), fail(1)}, ""},
		{"late", Checker{Late: true}, []resock.Event{open(7), message(7), fail(7), open(8), closed(8)}, ""},
		{"late, between sessions", Checker{Late: true}, []resock.Event{fail(0), open(7), closed(7)}, ""},
		{"cut", Checker{Cut: true}, []resock.Event{open(1), message(1)}, ""},

		{"end inside a session", Checker{}, []resock.Event{open(1), message(1)}, "inside session 1"},
		{"first session not 1", Checker{}, []resock.Event{open(2)}, "session 1 must follow"},
		{"session 0", Checker{Late: true}, []resock.Event{open(0)}, "count from 1"},
		{"late, with a gap", Checker{Late: true}, []resock.Event{open(7), fail(7), open(9)}, "session 8 must follow"},
		{"a gap", Checker{}, []resock.Event{open(1), fail(1), open(3)}, "session 2 must follow"},
		{"one session twice", Checker{}, []resock.Event{open(1), fail(1), open(1)}, "session 2 must follow"},
		{"open in open", Checker{}, []resock.Event{open(1), open(2)}, "session 1 is still open"},
		{"two ends", Checker{}, []resock.Event{open(1), fail(1), fail(1)}, "none is open"},
		{"fail and close", Checker{}, []resock.Event{open(1), fail(1), closed(1)}, "none is open"},
		{"close without a session", Checker{}, []resock.Event{closed(0)}, "none is open"},
		{"end of another session", Checker{}, []resock.Event{open(1), closed(2)}, "other than the open one"},
		{"attempt in session", Checker{}, []resock.Event{open(1), fail(0)}, "inside session 1"},
		{"message first", Checker{}, []resock.Event{message(1)}, "outside of a session"},
		{"message after the end", Checker{}, []resock.Event{open(1), fail(1), message(1)}, "outside of a session"},
		{"message of another session", Checker{}, []resock.Event{open(1), message(2)}, "inside session 1"},
		{"after closed", Checker{}, []resock.Event{open(1), closed(1), fail(0)}, "after Next == StateClosed"},
		{"only the first violation is reported", Checker{}, []resock.Event{message(1), open(1)}, "outside of a session"},

		{"spare capacity", Checker{}, []resock.Event{open(1), with(message(1), func(e *resock.MessageEvent) { e.Data = make([]byte, 1, 2) })}, "cap 2"},
		{"message type", Checker{}, []resock.Event{open(1), with(message(1), func(e *resock.MessageEvent) { e.Type = 9 })}, "neither text nor binary"},
		{"retry without waiting", Checker{}, []resock.Event{open(1), with(closed(1), func(e *resock.CloseEvent) { e.RetryIn = 1 })}, "RetryIn is set"},
		{"wait without a rule", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.Rule = "" })}, "no rule"},
		{"suspended by a rule", Checker{}, []resock.Event{open(1), with(closed(1), func(e *resock.CloseEvent) { e.Next, e.Rule = resock.StateSuspended, "closed" })}, "the application decided"},
		{"negative retry", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.RetryIn = -1 })}, "negative"},
		{"next is open", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.Next = resock.StateOpen })}, "announces state open"},
		{"next is idle", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.Next = resock.StateIdle })}, "announces state idle"},
		{"fail without error", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.Err = nil })}, "no error"},
		{"fail without phase", Checker{}, []resock.Event{with(fail(0), func(e *resock.FailEvent) { e.Phase = 0 })}, "no phase"},
		{"attempt 0", Checker{}, []resock.Event{with(open(1), func(e *resock.OpenEvent) { e.Attempt = 0 })}, "attempts count from 1"},
		{"first downtime", Checker{}, []resock.Event{with(open(1), func(e *resock.OpenEvent) { e.Downtime = 1 })}, "downtime"},
		{"no time", Checker{}, []resock.Event{with(open(1), func(e *resock.OpenEvent) { e.Time = time.Time{} })}, "no time"},
		{"time runs backwards", Checker{}, []resock.Event{open(1), with(closed(1), func(e *resock.CloseEvent) { e.Time = start.Add(-time.Second) })}, "1s older"},
		{"negative duration", Checker{}, []resock.Event{with(open(1), func(e *resock.OpenEvent) { e.Took = -1 })}, "took -1ns"},
		{"nil", Checker{}, []resock.Event{nil}, "not one of the four"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			note := func(err error) {
				if err != nil {
					got = append(got, err.Error())
				}
			}
			for _, event := range test.stream {
				note(test.checker.Event(event))
			}
			note(test.checker.End())
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("violations of a legal stream: %q", got)
			case test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)):
				t.Errorf("violations %q, want one that contains %q", got, test.want)
			}
		})
	}
}

// recorder is a testing.TB that records errors instead of failing.
type recorder struct {
	testing.TB
	errors  []string
	cleanup func()
}

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Cleanup(f func()) { r.cleanup = f }

func TestAll(t *testing.T) {
	for _, test := range []struct {
		name   string
		stream []resock.Event
		want   string
	}{
		{"violation", []resock.Event{open(1), message(2), closed(1)}, "event 2"},
		{"no end", []resock.Event{open(1), message(1)}, "inside session 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &recorder{TB: t}
			in := make(chan resock.Event, len(test.stream))
			for _, event := range test.stream {
				in <- event
			}
			close(in)
			if n := len(slices.Collect(new(Checker).All(r, in))); n != len(test.stream) {
				t.Errorf("%d events were passed on, want %d", n, len(test.stream))
			}
			if len(r.errors) != 1 || !strings.Contains(r.errors[0], test.want) {
				t.Errorf("errors %q, want one that contains %q", r.errors, test.want)
			}
		})
	}
}

// TestTeeChecksToTheEnd checks that Tee checks the events that a test does not receive.
// Here that is the Open of a second session, which only a late subscriber may receive
// first.
func TestTeeChecksToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewMemory(t)
		client, err := resock.New(server.URL, resock.WithDialOptions(&websocket.DialOptions{HTTPClient: server.Client()}))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(t.Context())
		server.Accept().Drop()
		server.Accept()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, late := &recorder{TB: t}, &recorder{TB: t}
		unread := Tee(r, client)
		(&Checker{Late: true}).Tee(t.Context(), late, client)
		r.cleanup()
		late.cleanup()
		if client.State() != resock.StateClosed {
			t.Error("the client is not closed")
		}
		if event, more := <-unread; more {
			t.Errorf("received %v after the end of the test", event)
		}
		if len(r.errors) != 1 || !strings.Contains(r.errors[0], "session 1 must follow") {
			t.Errorf("errors %q, want one: session 1 must follow", r.errors)
		}
		if len(late.errors) != 0 {
			t.Errorf("errors of a late subscriber: %q", late.errors)
		}
	})
}
