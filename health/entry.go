package health

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/resock/resock"
)

// note notes when a session began and ended.
func (e *entry) note(event resock.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch event := event.(type) {
	case resock.OpenEvent:
		e.opened = event.Session
	case resock.FailEvent:
		e.endedLocked(event.Session, event.Time)
	case resock.CloseEvent:
		e.endedLocked(event.Session, event.Time)
	}
}

func (e *entry) endedLocked(session uint64, at time.Time) {
	if session != 0 { // else an attempt failed
		e.ended, e.lostAt = session, at
	}
}

// unready tells why the client is not ready, or nothing if it is.
func (e *entry) unready(now time.Time) string {
	stats := e.client.Stats()
	switch {
	case stats.State == resock.StateClosed:
		return "closed"
	case closing(e.client):
		return "closing"
	case stats.State == resock.StateSuspended:
		if e.suspended {
			return ""
		}
		return "suspended"
	case stats.State != resock.StateOpen:
		if why := e.lost(now, stats); why != "" {
			return why
		}
	}
	return e.stale(now, stats)
}

// closing reports whether the client is to be closed for good: it accepts nothing more. An
// open one may still be sending what is queued, and Shutdown may wait for a connection.
func closing(client *resock.Client) bool {
	never := resock.WithSession(math.MaxUint64) // no session has that number
	return errors.Is(client.Enqueue(resock.MessageText, nil, never), resock.ErrClosed)
}

// lost tells why a client that is not open is not ready, or nothing during its grace period.
func (e *entry) lost(now time.Time, stats resock.Stats) string {
	if stats.Session == 0 {
		return fmt.Sprintf("%v, not opened yet", stats.State)
	}
	at, known := e.lossOf(stats)
	switch {
	case e.grace == 0:
		return fmt.Sprintf("%v, no connection", stats.State)
	case !known:
		return fmt.Sprintf("%v, no connection since before it was added", stats.State)
	case now.Sub(at) > e.grace:
		return fmt.Sprintf("%v, no connection for %v (grace period %v)", stats.State, now.Sub(at).Round(time.Second), e.grace)
	}
	return ""
}

// lossOf returns when the last session was lost, if that is known.
func (e *entry) lossOf(stats resock.Stats) (at time.Time, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.ended == stats.Session:
		return e.lostAt, true
	case e.opened == stats.Session, e.before < stats.Session: // the event is on its way
		return stats.Since, true
	}
	return time.Time{}, false
}

// stale tells why what the client has received is too old, or nothing if it is not.
func (e *entry) stale(now time.Time, stats resock.Stats) string {
	switch age := now.Sub(stats.LastMessage); {
	case e.freshness == 0:
		return ""
	case stats.LastMessage.IsZero():
		return fmt.Sprintf("%v, no message yet", stats.State)
	case age > e.freshness:
		return fmt.Sprintf("%v, no message for %v (limit %v)", stats.State, age.Round(time.Second), e.freshness)
	}
	return ""
}
