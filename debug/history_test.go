package debug

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// fixedBackoff waits always for the same time.
type fixedBackoff time.Duration

func (d fixedBackoff) decide(resock.Failure) resock.Decision {
	return resock.Decision{After: time.Duration(d), Spread: 1e-9, Rule: "fixed"}
}

// states returns a timeline as text, with durations in seconds.
func states(c decodedClient, now time.Time) string {
	var all []string
	for _, s := range c.Timeline {
		end := s.End
		if end.IsZero() {
			end = now
		}
		all = append(all, fmt.Sprintf("%s %.0f", s.State, end.Sub(s.Start).Seconds()))
	}
	return strings.Join(all, ", ")
}

func checkContinuous(t *testing.T, c decodedClient) {
	t.Helper()
	for i, s := range c.Timeline {
		last := i == len(c.Timeline)-1
		if s.End.IsZero() != last {
			t.Errorf("span %d of %d: end %v", i, len(c.Timeline), s.End)
		}
		if !last && !s.End.Equal(c.Timeline[i+1].Start) {
			t.Errorf("span %d ends at %v, the next begins at %v", i, s.End, c.Timeline[i+1].Start)
		}
	}
}

func TestTimeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server, resock.WithRetryPolicy(fixedBackoff(7*time.Second).decide))
		add(t, &h, "feed", client)
		time.Sleep(3 * time.Second)
		go client.Run(t.Context())
		conn := server.Accept()
		time.Sleep(time.Minute)
		conn.Drop()
		conn = server.Accept()
		time.Sleep(20 * time.Second)
		_ = conn.Close(resock.StatusTryAgainLater, "full")
		time.Sleep(2 * time.Second)
		client.Suspend()
		time.Sleep(30 * time.Second)
		only(t, &h) // or nobody would have seen that it was suspended
		client.Resume()
		server.Accept()
		time.Sleep(5 * time.Second)

		c := only(t, &h)
		checkContinuous(t, c)
		if got, want := states(c, time.Now()), "idle 3, open 60, waiting 7, open 20, waiting 2, suspended 30, open 5"; got != want {
			t.Errorf("timeline:\n got %s\nwant %s", got, want)
		}
		lost, closed := c.Timeline[1], c.Timeline[3]
		if lost.Session != 1 || lost.Phase != "read" || lost.Error == "" || lost.Rule != "fixed" {
			t.Errorf("lost: %+v", lost)
		}
		if closed.Session != 2 || closed.Code != 1013 || closed.Reason != "full" {
			t.Errorf("closed: %+v", closed)
		}
		if len(c.Ends) != 2 || c.Ends[0].Code != 1013 || c.Ends[1].Phase != "read" || c.Ends[1].Next != "waiting" || c.Ends[1].RetryIn < 7 {
			t.Errorf("ends: %+v", c.Ends)
		}
		if c.Downtime < 39 || c.Downtime > 39.1 || c.Session != 3 || c.Attempts != 3 {
			t.Errorf("downtime %v, session %d, attempts %d", c.Downtime, c.Session, c.Attempts)
		}
	})
}

func TestCountdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		server.Script(resocktest.StallUpgrade())
		client := connect(t, server, resock.WithRetryPolicy(fixedBackoff(time.Minute).decide))
		add(t, &h, "feed", client)
		go client.Run(t.Context())
		time.Sleep(4 * time.Second)
		if c := only(t, &h); c.State != "connecting" || !c.NextAttempt.IsZero() || c.Timeline[len(c.Timeline)-1].State != "connecting" {
			t.Errorf("while connecting: %+v", c)
		}
		time.Sleep(10 * time.Second) // it failed after 10 s
		c := only(t, &h)
		if left := time.Until(c.NextAttempt); c.State != "waiting" || left < 56*time.Second-10*time.Millisecond || left > 56*time.Second+10*time.Millisecond {
			t.Errorf("%s, next attempt in %v, want 56s", c.State, left)
		}
		if got, want := states(c, time.Now()), "connecting 10, waiting 4"; got != want {
			t.Errorf("timeline %s, want %s", got, want)
		}
	})
}

func TestAddedWhileOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		go client.Run(t.Context())
		server.Accept()
		time.Sleep(time.Hour)
		add(t, &h, "feed", client)
		synctest.Wait()
		c := only(t, &h)
		if got := states(c, time.Now()); got != "open 3600" || c.Timeline[0].Session != 1 || c.URL == "" {
			t.Errorf("timeline %s, %+v", got, c)
		}
	})
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &h, "feed", client)
		go client.Run(t.Context())
		conn := server.Accept()
		only(t, &h)
		for range 50 { // 20 per second
			_ = conn.Push("0123456789")
			_ = client.Send(context.Background(), resock.MessageText, []byte("x"))
			_ = client.Send(context.Background(), resock.MessageText, []byte("y"))
			time.Sleep(50 * time.Millisecond)
			only(t, &h) // looking often does not make it wrong
		}
		c := only(t, &h)
		if r := c.Rates; r.Over < 1 || r.Over > 2.1 || r.MessagesIn < 19 || r.MessagesIn > 21 || r.MessagesOut < 38 || r.MessagesOut > 42 || r.BytesIn < 12*19 || r.BytesIn > 12*21 {
			t.Errorf("rates %+v", r)
		}
		if since := time.Since(c.LastMessage); c.MessagesIn != 50 || since > 60*time.Millisecond {
			t.Errorf("%d messages, the last one %v ago", c.MessagesIn, since)
		}
		time.Sleep(time.Hour)
		only(t, &h)
		time.Sleep(time.Second)
		if r := only(t, &h).Rates; r.MessagesIn != 0 {
			t.Errorf("after an hour of silence: %+v", r)
		}
	})
}

func TestBlockedAndQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &h, "feed", client)
		for range 3 {
			_ = client.Enqueue(resock.MessageText, []byte("hello"))
		}
		if c := only(t, &h); c.Queued != 3 || c.QueuedBytes < 15 {
			t.Errorf("queued %d, %d B", c.Queued, c.QueuedBytes)
		}
		client.Subscribe(t.Context(), resock.WithLabel("<slow>"), resock.WithBuffer(0))
		go client.Run(t.Context())
		conn := server.Accept()
		_ = conn.Push("x")
		time.Sleep(9 * time.Second)
		c := only(t, &h)
		if since := time.Since(c.BlockedSince); c.BlockedBy != "<slow>" || since.Round(time.Second) != 9*time.Second {
			t.Errorf("blocked by %q for %v", c.BlockedBy, since)
		}
	})
}

func TestRedaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Status(401, nil, "no"), resocktest.Echo(), resocktest.Refuse())
		client := connect(t, server)
		add(t, &h, "feed", client)
		go client.Run(t.Context())
		server.Accept().Drop()
		time.Sleep(time.Minute)
		if c := only(t, &h); !strings.HasPrefix(c.URL, "ws://") || len(c.Ends) < 3 {
			t.Errorf("got %+v", c)
		}
		for _, target := range []string{"/", "/?json"} {
			if body := get(&h, target).Body.String(); strings.Contains(body, "verysecret") {
				t.Errorf("%s tells the secret:\n%s", target, body)
			}
		}
	})
}

func TestTableIsEscaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &h, `<script>alert(1)</script>`, client)
		go client.Run(t.Context())
		_ = server.Accept().Close(resock.StatusGoingAway, `</noscript><img src=x onerror=alert(2)>`)
		time.Sleep(time.Second)
		body := get(&h, "/").Body.String()
		if strings.Contains(body, "<script>alert") || strings.Contains(body, "<img") {
			t.Errorf("not escaped:\n%s", body)
		}
		for _, want := range []string{"&lt;script&gt;alert(1)", "&lt;img src=x onerror=alert(2)&gt;"} {
			if !strings.Contains(body, want) {
				t.Errorf("the table has no %s", want)
			}
		}
	})
}

// fails returns the end of an attempt at a time.
func fails(at time.Time, session uint64) resock.FailEvent {
	return resock.FailEvent{Time: at, Session: session, Took: time.Second, Next: resock.StateWaiting, Err: errors.New(strings.Repeat("é", 1000))}
}

// TestHistoryIsBounded makes 10,000 attempts, of which each hundredth opens.
func TestHistoryIsBounded(t *testing.T) {
	began := time.Unix(1e9, 0)
	h := history{tail: span{State: "idle", Start: stampOf(began)}}
	for i := range 10_000 {
		at := began.Add(time.Duration(i+1) * 10 * time.Second)
		session := uint64(0)
		if i%100 == 50 {
			session = uint64(i)
			h.open(resock.OpenEvent{Time: at.Add(-time.Second), Session: session, Took: time.Second})
		}
		h.fail(fails(at, session))
	}
	if len(h.spans) != maxSpans || len(h.ends) != maxEnds || h.endNo != 10_000 {
		t.Errorf("%d spans, %d ends of %d", len(h.spans), len(h.ends), h.endNo)
	}
	sessions, failures := 0, 0
	for i, s := range h.spans {
		if i > 0 && s.Start != h.spans[i-1].End {
			t.Errorf("span %d begins at %v, the one before ends at %v", i, s.Start, h.spans[i-1].End)
		}
		if failures += s.Failures; s.State == "open" {
			sessions++
		}
		if len(s.Error) > maxText+len("…") {
			t.Errorf("an error of %d bytes is kept", len(s.Error))
		}
	}
	// Old attempts of an outage became one span: more is remembered than 200 spans.
	if sessions < 30 || failures < 3000 {
		t.Errorf("%d sessions and %d failures are remembered", sessions, failures)
	}
}

// TestMissedEvents leaves out the events between two sessions.
func TestMissedEvents(t *testing.T) {
	began := time.Unix(1e9, 0)
	h := history{tail: span{State: "idle", Start: stampOf(began)}}
	h.open(resock.OpenEvent{Time: began.Add(time.Second), Session: 1})
	h.open(resock.OpenEvent{Time: began.Add(time.Minute), Session: 9, Took: 2 * time.Second})
	h.fail(fails(began.Add(time.Hour), 9))
	h.fail(fails(began.Add(time.Minute), 10)) // the clock was set back
	for i, s := range h.spans {
		if s.End < s.Start || i > 0 && s.Start != h.spans[i-1].End {
			t.Errorf("span %d: %+v", i, s)
		}
	}
	if h.tail.State != "waiting" {
		t.Errorf("ends with %+v", h.tail)
	}
}
