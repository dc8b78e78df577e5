package rig

import (
	"bytes"
	"sync"
)

// Log collects log output. It may be read while it is written.
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

// String returns everything written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}
