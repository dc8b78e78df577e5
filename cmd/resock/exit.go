package main

import "errors"

// Exit codes, besides 128 plus the number of a signal that ended the program.
const (
	exitDone       = 0
	exitFailed     = 1 // could not connect, gave up, could not send, could not listen
	exitUsage      = 2
	exitTimeout    = 3 // a silence, or no answer in time
	exitOutputFull = 4 // the output could not be written
)

const exitSignal = 128 // plus the number of the signal

var errNoURL = errors.New("one URL is wanted, such as wss://example.com/push; see resock -help")

// exitError is an error with the exit code that it means. Without err it is silent.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(err error) error { return &exitError{exitUsage, err} }
