package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/resock/resock"
)

// arrivals knows which lines the server may not have read: a connection takes lines before
// it turns out that it is lost. It is used if the program ends with its input.
type arrivals struct {
	client *resock.Client

	mu      sync.Mutex
	session uint64 // that took the last line
	first   int    // line of the session that the server has not answered for
	last    int    // line of the session
}

// confirmEvery is how often the server is asked what it has read, while lines are sent. The
// answer counts if the session is still open so long after it: a lost one has no answer to
// wait for.
const confirmEvery = 50 * time.Millisecond

// took notes that a session took a line. It returns what became doubtful by that.
func (a *arrivals) took(session uint64, line int) (doubt string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if session != a.session {
		doubt = a.doubt()
		a.session, a.first = session, line
	}
	a.last = line
	return doubt
}

// doubt names the lines that may not have arrived if the session is lost, or is ""; mu is
// held.
func (a *arrivals) doubt() string {
	switch {
	case a.last < a.first || a.last == 0:
		return ""
	case a.last == a.first:
		return fmt.Sprintf("line %d", a.last)
	}
	return fmt.Sprintf("lines %d to %d", a.first, a.last)
}

// lost names the lines that may not have arrived because their session is over, or is "".
func (a *arrivals) lost() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open(a.session) {
		return ""
	}
	return a.doubt()
}

func (a *arrivals) open(session uint64) bool {
	stats := a.client.Stats()
	return stats.State == resock.StateOpen && stats.Session == session
}

// confirm asks the server what it has read, until the client is closed.
func (a *arrivals) confirm() {
	for a.pause() {
		a.mu.Lock()
		session, last, asks := a.session, a.last, a.doubt() != ""
		a.mu.Unlock()
		if !asks || a.client.Flush(context.Background()) != nil || !a.pause() || !a.open(session) {
			continue
		}
		a.mu.Lock()
		if a.session == session {
			a.first = last + 1
		}
		a.mu.Unlock()
	}
}

// pause waits a little. It reports false once the client is closed.
func (a *arrivals) pause() bool {
	select {
	case <-time.After(confirmEvery):
		return true
	case <-a.client.Done():
		return false
	}
}
