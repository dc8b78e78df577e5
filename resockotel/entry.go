package resockotel

import (
	"maps"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/resock/resock"
)

const clientName = attribute.Key("resock.client.name")

// entry is a registered client, and what its events told.
type entry struct {
	client   *resock.Client
	name     attribute.KeyValue
	followed chan struct{} // closed when no more events are received
	spans    spans         // of the goroutine that follows

	mu       sync.Mutex // guards what follows
	tally    tally
	downtime time.Duration // as they were reported last
	blocked  time.Duration
}

// tally counts how attempts and sessions ended. What can happen is there from the start,
// with zero, since rates need to see the first time too.
type tally struct {
	attempts map[resock.Phase]int64 // that failed
	sessions map[resock.Phase]int64 // that failed
	closes   map[string]int64       // by class of their code
}

func newTally() tally {
	t := tally{
		attempts: map[resock.Phase]int64{
			resock.PhaseEndpoint: 0, resock.PhaseDNS: 0, resock.PhaseTCP: 0, resock.PhaseTLS: 0,
			resock.PhaseUpgrade: 0, resock.PhaseSetup: 0, resock.PhaseProtocol: 0,
		},
		sessions: map[resock.Phase]int64{
			resock.PhaseRead: 0, resock.PhaseWrite: 0, resock.PhaseHeartbeat: 0, resock.PhaseProtocol: 0,
		},
		closes: make(map[string]int64),
	}
	for _, class := range classes {
		t.closes[class] = 0
	}
	return t
}

func (t tally) clone() tally {
	return tally{maps.Clone(t.attempts), maps.Clone(t.sessions), maps.Clone(t.closes)}
}

func newEntry(name string, client *resock.Client, tracer trace.Tracer) *entry {
	e := &entry{client: client, name: clientName.String(name), followed: make(chan struct{}), tally: newTally()}
	e.spans = newSpans(tracer, e.name, client.Stats())
	return e
}

// follow notes the events of a client until there are no more.
func (e *entry) follow(events <-chan resock.Event) {
	defer close(e.followed)
	for event := range events {
		e.note(event)
		e.trace(event)
	}
	e.spans.abandon(e.client.Stats())
}

// note counts an end.
func (e *entry) note(event resock.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch event := event.(type) {
	case resock.FailEvent:
		if event.Session == 0 {
			e.tally.attempts[event.Phase]++
		} else {
			e.tally.sessions[event.Phase]++
		}
	case resock.CloseEvent:
		e.tally.closes[classOf(event.Code)]++
	}
}

func (e *entry) trace(event resock.Event) {
	switch event := event.(type) {
	case resock.OpenEvent:
		e.spans.open(event)
	case resock.FailEvent:
		e.spans.fail(event, e.client.Stats())
	case resock.CloseEvent:
		e.spans.close(event, e.client.Stats())
	}
}

// look returns the client as it is now, and how often what ended. Downtime and Blocked may be
// corrected by a moment when they stop; here they never decrease, since that would look like
// a new counter.
func (e *entry) look() (resock.Stats, tally) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := e.client.Stats()
	e.downtime = max(e.downtime, stats.Downtime)
	e.blocked = max(e.blocked, stats.Blocked)
	stats.Downtime, stats.Blocked = e.downtime, e.blocked
	return stats, e.tally.clone()
}
