package rig

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// Line is the client's end of a connection, over a network that accepts as many bytes
// as the test allows.
type Line struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond
	limited bool
	room    int   // how many more bytes are accepted, if limited
	err     error // returned by every Write, unless nil
}

// NewLine returns a Line without a limit.
func NewLine(conn net.Conn) *Line {
	l := &Line{Conn: conn}
	l.changed.L = &l.mu
	return l
}

// ReachBy is [Reach] with each connection wrapped by wrap.
func ReachBy(s *resocktest.Server, wrap func(net.Conn) net.Conn) resock.Option {
	transport := s.Client().Transport.(*http.Transport).Clone()
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	return resock.WithHTTPClient(&http.Client{Transport: transport})
}

// ReachLines is [Reach] with a [Line] for each connection. It returns the lines in the
// order of the attempts, of which there may be a hundred.
func ReachLines(s *resocktest.Server) (resock.Option, <-chan *Line) {
	lines := make(chan *Line, 100)
	return ReachBy(s, func(conn net.Conn) net.Conn {
		line := NewLine(conn)
		lines <- line
		return line
	}), lines
}

// Limit makes the line accept n more bytes. A Write of more than that blocks.
func (l *Line) Limit(n int) { l.change(func() { l.limited, l.room = true, n }) }

// Unlimit undoes [Line.Limit], and unblocks the Writes that wait.
func (l *Line) Unlimit() { l.change(func() { l.limited = false }) }

// Fail makes every Write fail without accepting a byte. Reads are not affected.
func (l *Line) Fail() { l.change(func() { l.err = io.ErrClosedPipe }) }

// Close closes the connection.
func (l *Line) Close() error {
	l.change(func() { l.err = net.ErrClosed })
	return l.Conn.Close()
}

func (l *Line) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.changed.Broadcast()
}

// Write writes b as fast as the limit permits, until the line fails.
func (l *Line) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var taken int
		if taken, err = l.take(len(b)); err == nil {
			taken, err = l.Conn.Write(b[:taken])
			n, b = n+taken, b[taken:]
		}
	}
	return n, err
}

// take waits until at least one of n bytes may be written, and returns how many may.
func (l *Line) take(n int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.err == nil && l.limited && l.room == 0 {
		l.changed.Wait()
	}
	if l.err != nil || !l.limited {
		return n, l.err
	}
	n = min(n, l.room)
	l.room -= n
	return n, nil
}
