package debug

import (
	"sync"
	"time"

	"github.com/resock/resock"
)

// entry is a registered client, and what is remembered of it.
type entry struct {
	name     string
	client   *resock.Client
	followed chan struct{} // closed when no more events are received

	mu          sync.Mutex // guards what follows
	history     history
	url         string // of the last session
	subprotocol string
	nextAt      time.Time    // when the next attempt is due, as the last event said
	base, last  resock.Stats // what rates are counted from, and from the next second on
	baseAt      time.Time
	lastAt      time.Time
}

func newEntry(name string, client *resock.Client) *entry {
	now, stats := time.Now(), client.Stats()
	e := &entry{name: name, client: client, followed: make(chan struct{})}
	e.history.tail = span{State: stats.State.String(), Start: stampOf(stats.Since)}
	e.base, e.last, e.baseAt, e.lastAt = stats, stats, now, now
	return e
}

// follow notes the events of a client until there are no more.
func (e *entry) follow(events <-chan resock.Event, noted func()) {
	defer close(e.followed)
	for event := range events {
		e.note(event)
		noted()
	}
}

func (e *entry) note(event resock.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch event := event.(type) {
	case resock.OpenEvent:
		e.url, e.subprotocol, e.nextAt = event.URL, event.Subprotocol, time.Time{}
		e.history.open(event)
	case resock.FailEvent:
		e.nextAt = due(event.Time, event.Next, event.RetryIn)
		e.history.fail(event)
	case resock.CloseEvent:
		e.nextAt = due(event.Time, event.Next, event.RetryIn)
		e.history.close(event)
	}
}

// due returns when the next attempt is due, or zero.
func due(at time.Time, next resock.State, in time.Duration) time.Time {
	if next != resock.StateWaiting {
		return time.Time{}
	}
	return at.Add(in)
}

// look returns the client as it is now. The events that were noted are no younger than
// the Stats, since mu is held meanwhile.
func (e *entry) look() (head, record) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now, stats := time.Now(), e.client.Stats()
	e.history.observe(stats)
	view := headOf(stats)
	view.Name, view.URL, view.Subprotocol = e.name, e.url, e.subprotocol
	view.Rates = e.rates(now, stats)
	switch stats.State {
	case resock.StateWaiting:
		view.NextAttempt = stampOf(e.nextAt)
	case resock.StateClosed:
		view.Err = textOf(e.client.Err())
	}
	return view, e.history.record(stats)
}

// rates returns the traffic per second since the last look but one that is at least a
// second old; mu is held. Nothing is sampled while nobody looks.
func (e *entry) rates(now time.Time, stats resock.Stats) rates {
	if now.Sub(e.lastAt) >= time.Second {
		e.base, e.baseAt = e.last, e.lastAt
		e.last, e.lastAt = stats, now
	}
	over := now.Sub(e.baseAt).Seconds()
	if over <= 0 {
		return rates{}
	}
	per := func(now, then uint64) float64 { return float64(now-then) / over }
	return rates{
		Over:        round(over),
		MessagesIn:  round(per(stats.MessagesIn, e.base.MessagesIn)),
		MessagesOut: round(per(stats.MessagesOut, e.base.MessagesOut)),
		BytesIn:     round(per(stats.BytesIn, e.base.BytesIn)),
		BytesOut:    round(per(stats.BytesOut, e.base.BytesOut)),
	}
}
