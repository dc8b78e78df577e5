package main

import (
	"fmt"
	"time"

	"github.com/resock/resock"
)

// report prints what happened to the connection, between two numbers, and returns how long
// there was none.
func report(event resock.Event, last uint64) (downtime time.Duration) {
	switch e := event.(type) {
	case resock.OpenEvent:
		say("client open, session %d, after number %d; %v without a session", e.Session, last, e.Downtime)
		return e.Downtime
	case resock.CloseEvent:
		say("client close, session %d, after number %d, next: %s", e.Session, last, e.Next)
	case resock.FailEvent:
		say("client fail: %v", e.Err)
	}
	return 0
}

var start = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%5.2fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
}
