package debug

import (
	"slices"
	"time"

	"github.com/resock/resock"
)

const (
	maxSpans = 200 // of the timeline of one client
	maxEnds  = 20  // ends of attempts and sessions that are remembered for one client
)

// span is a part of a timeline: a session, an attempt, or the time between them. What is
// beside its times belongs to its end.
type span struct {
	State    string `json:"state"`
	Start    stamp  `json:"start"`
	End      stamp  `json:"end,omitzero"`      // zero if it lasts
	Session  uint64 `json:"session,omitempty"` // if State is open
	Failures int    `json:"failures,omitempty"`
	Phase    string `json:"phase,omitempty"`
	Error    string `json:"error,omitempty"`
	Code     int    `json:"code,omitempty"`
	Reason   string `json:"reason,omitempty"`
	Rule     string `json:"rule,omitempty"`
}

// end is how an attempt or a session ended, and what followed.
type end struct {
	Time    stamp   `json:"time"`
	Session uint64  `json:"session,omitempty"`
	Attempt int     `json:"attempt,omitempty"`
	Phase   string  `json:"phase,omitempty"`
	Error   string  `json:"error,omitempty"`
	Code    int     `json:"code,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	Clean   bool    `json:"clean,omitempty"`
	Took    seconds `json:"took"`
	Next    string  `json:"next"`
	RetryIn seconds `json:"retryIn,omitempty"`
	Rule    string  `json:"rule,omitempty"`
}

// history is what happened to a client: spans that are over, the one that lasts, and the
// last ends. Spans and ends are counted, so that a stream knows which are new to it.
type history struct {
	spans  []span
	tail   span
	ends   []end
	spanNo uint64 // number of spans that were added so far
	endNo  uint64
}

func (h *history) open(event resock.OpenEvent) {
	session := span{State: "open", Start: stampOf(event.Time), Session: event.Session}
	if h.tail.State == "open" && h.tail.Session == 0 { // the client was added while it was open
		session.Start = h.tail.Start
		h.tail = session
		return
	}
	h.over(span{State: "connecting", Start: stampOf(event.Time.Add(-event.Took)), End: session.Start})
	session.Start = max(session.Start, h.tail.Start)
	h.tail = session
}

func (h *history) fail(event resock.FailEvent) {
	e := end{
		Time: stampOf(event.Time), Session: event.Session, Attempt: event.Attempt,
		Phase: event.Phase.String(), Error: textOf(event.Err),
		Took: secondsOf(event.Took), Next: event.Next.String(), RetryIn: secondsOf(event.RetryIn), Rule: event.Rule,
	}
	h.ended(e, event.Time.Add(-event.Took))
}

func (h *history) close(event resock.CloseEvent) {
	e := end{
		Time: stampOf(event.Time), Session: event.Session,
		Code: int(event.Code), Reason: cut(event.Reason, maxText), Clean: event.Clean,
		Took: secondsOf(event.Took), Next: event.Next.String(), RetryIn: secondsOf(event.RetryIn), Rule: event.Rule,
	}
	h.ended(e, event.Time.Add(-event.Took))
}

// ended notes that what began at start is over.
func (h *history) ended(e end, start time.Time) {
	if len(h.ends) == maxEnds {
		h.ends = slices.Delete(h.ends, 0, 1)
	}
	h.ends = append(h.ends, e)
	h.endNo++
	s := span{
		State: "connecting", Start: stampOf(start), End: e.Time, Session: e.Session,
		Phase: e.Phase, Error: e.Error, Code: e.Code, Reason: e.Reason, Rule: e.Rule,
	}
	if s.Session != 0 {
		s.State = "open"
	}
	if s.Error != "" {
		s.Failures = 1
	}
	h.over(s)
	h.tail.State = e.Next
}

// over adds a span that is over. What lasted until then ends where it begins, unless it is
// the same; the tail begins at its end.
func (h *history) over(s span) {
	s.Start = max(s.Start, h.tail.Start)
	s.End = max(s.End, s.Start)
	if h.tail.State == s.State {
		s.Start = h.tail.Start
	} else {
		h.tail.End = s.Start
		h.add(h.tail)
	}
	h.add(s)
	h.tail = span{State: s.State, Start: s.End}
}

// add adds a span, unless it is empty and tells nothing. If there are too many, two old
// ones become one, or the oldest is forgotten.
func (h *history) add(s span) {
	if s.Start == s.End && s.Failures == 0 && s.Session == 0 {
		return
	}
	h.spans = append(h.spans, s)
	h.spanNo++
	if len(h.spans) <= maxSpans {
		return
	}
	for i := range len(h.spans) / 2 {
		if h.spans[i].State != "open" && h.spans[i+1].State != "open" {
			h.spans[i+1] = merged(h.spans[i], h.spans[i+1])
			h.spans = slices.Delete(h.spans, i, i+1)
			return
		}
	}
	h.spans = slices.Delete(h.spans, 0, 1)
}

// merged returns one span for two of the same outage: the state of the longer one, and
// the end of the later one that failed.
func merged(a, b span) span {
	one := b
	if b.Failures == 0 {
		one = a
	}
	if one.State = b.State; a.End-a.Start > b.End-b.Start {
		one.State = a.State
	}
	one.Start, one.End, one.Failures = a.Start, b.End, a.Failures+b.Failures
	return one
}

// observe notes a change between states without a connection, which no event tells.
func (h *history) observe(stats resock.Stats) {
	if !quiet(h.tail.State) || !quiet(stats.State.String()) {
		return
	}
	state, since := stats.State.String(), stampOf(stats.Since)
	if state == h.tail.State || since < h.tail.Start {
		return
	}
	h.tail.End = since
	h.add(h.tail)
	h.tail = span{State: state, Start: since}
}

// quiet reports whether in this state the client has and seeks no connection.
func quiet(state string) bool {
	switch state {
	case "idle", "waiting", "offline", "suspended":
		return true
	}
	return false
}

// record is a copy of a history.
type record struct {
	spans         []span
	live          []span // what lasts, and what was before it if no event has told yet
	ends          []end
	spanNo, endNo uint64
}

func (h *history) record(stats resock.Stats) record {
	r := record{slices.Clone(h.spans), []span{h.tail}, slices.Clone(h.ends), h.spanNo, h.endNo}
	state, since := stats.State.String(), stampOf(stats.Since)
	if state != h.tail.State && since >= h.tail.Start {
		r.live[0].End = since
		r.live = append(r.live, span{State: state, Start: since})
	}
	return r
}
