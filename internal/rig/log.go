package rig

import (
	"bytes"
	"sync"
)

// Log is a log that may be read while it is written.
type Log struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

// Write appends p.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

// String returns all that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}
