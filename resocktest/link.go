package resocktest

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// link is the server's end of a connection, below TLS. Faults of the transport are
// made here.
type link struct {
	socket
	closed chan struct{}

	mu      sync.Mutex
	over    bool          // closed is closed
	stopped chan struct{} // nil, or closed when reading resumes
	pauses  int           // how often reading was stopped
	limited bool          // only budget more bytes may be written
	budget  int
}

func newLink(s socket) *link { return &link{socket: s, closed: make(chan struct{})} }

// stopReading makes Read wait, even one that has begun.
func (l *link) stopReading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped == nil {
		l.stopped = make(chan struct{})
		l.pauses++
		_ = l.SetReadDeadline(time.Unix(1, 0))
	}
}

func (l *link) startReading() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped != nil {
		close(l.stopped)
		l.stopped = nil
		_ = l.SetReadDeadline(time.Time{})
	}
}

// awaitReading waits until bytes may be read. It returns how often reading was
// stopped before.
func (l *link) awaitReading() int {
	for {
		l.mu.Lock()
		stopped, pauses := l.stopped, l.pauses
		l.mu.Unlock()
		if stopped == nil {
			return pauses
		}
		select {
		case <-stopped:
		case <-l.closed:
			return pauses
		}
	}
}

func (l *link) Read(p []byte) (int, error) {
	for {
		pauses := l.awaitReading()
		n, err := l.socket.Read(p)
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && l.pausedSince(pauses) {
			continue // the deadline was stopReading's
		}
		return n, err
	}
}

func (l *link) pausedSince(pauses int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pauses > pauses
}

// cutAfter closes the connection once n more bytes were written.
func (l *link) cutAfter(n int) {
	l.mu.Lock()
	l.limited, l.budget = true, n
	l.mu.Unlock()
	if n <= 0 {
		_ = l.Close()
	}
}

func (l *link) Write(p []byte) (int, error) {
	allowed, cut := l.spend(len(p))
	n, err := l.socket.Write(p[:allowed])
	if cut {
		_ = l.Close()
		if err == nil && n < len(p) {
			err = net.ErrClosed
		}
	}
	return n, err
}

// spend returns how many of n bytes may be written, and whether the connection
// ends after them.
func (l *link) spend(n int) (allowed int, cut bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.limited {
		return n, false
	}
	allowed = min(n, l.budget)
	l.budget -= allowed
	return allowed, l.budget == 0
}

// reset closes the connection with a RST.
func (l *link) reset() {
	_ = l.SetLinger(0)
	_ = l.Close()
}

func (l *link) Close() error {
	l.mu.Lock()
	if !l.over {
		l.over = true
		close(l.closed)
	}
	l.mu.Unlock()
	return l.socket.Close()
}
