package resockprom

import (
	"sync/atomic"

	"github.com/resock/resock"
)

// phases are all values of the label phase. Those of an attempt come first.
var phases = [...]resock.Phase{
	resock.PhaseEndpoint, resock.PhaseDNS, resock.PhaseTCP, resock.PhaseTLS, resock.PhaseUpgrade, resock.PhaseSetup,
	resock.PhaseRead, resock.PhaseWrite, resock.PhaseHeartbeat, resock.PhaseProtocol,
}

// codes are all values of the label code.
var codes = [...]string{"1000", "1001", "1005", "1008", "1011", "1012", "1013", "1xxx", "3xxx", "4xxx", "other"}

// Indices of codes.
const (
	code1xxx = 7 + iota
	code3xxx
	code4xxx
	codeOther
)

// codeIndex returns the index in codes of a close code.
func codeIndex(code resock.StatusCode) int {
	switch code {
	case 1000, 1001:
		return int(code - 1000)
	case 1005:
		return 2
	case 1008:
		return 3
	case 1011, 1012, 1013:
		return 4 + int(code-1011)
	}
	switch code / 1000 {
	case 1:
		return code1xxx
	case 3:
		return code3xxx
	case 4:
		return code4xxx
	}
	return codeOther
}

// entry is a client that was added, and how its attempts and sessions ended.
type entry struct {
	name     string
	client   *resock.Client
	followed chan struct{} // closed when no more events are received

	failedAttempts [len(phases)]atomic.Uint64
	failedSessions [len(phases)]atomic.Uint64
	closedSessions [len(codes)]atomic.Uint64
}

// follow counts the events of a client until there are no more.
func (e *entry) follow(events <-chan resock.Event) {
	defer close(e.followed)
	for event := range events {
		switch event := event.(type) {
		case resock.FailEvent:
			e.fail(event)
		case resock.CloseEvent:
			e.closedSessions[codeIndex(event.Code)].Add(1)
		}
	}
}

func (e *entry) fail(event resock.FailEvent) {
	failed := &e.failedSessions
	if event.Session == 0 {
		failed = &e.failedAttempts
	}
	for i, phase := range phases {
		if phase == event.Phase {
			failed[i].Add(1)
		}
	}
}
