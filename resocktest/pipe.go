package resocktest

import (
	"bytes"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is how many bytes one direction of a pipe buffers, like the socket
// buffers of a TCP connection. Further writes block.
const pipeBuffer = 64 << 10

// newPipe returns both ends of a connection in memory. Unlike those of net.Pipe
// they are buffered, can be half-closed and reset, and fail as TCP connections do.
// Blocked calls are durably blocked in the sense of testing/synctest.
func newPipe(client, server net.Addr) (clientEnd, serverEnd *pipeConn) {
	there, back := newStream(), newStream()
	return &pipeConn{in: back, out: there, local: client, remote: server},
		&pipeConn{in: there, out: back, local: server, remote: client}
}

// pipeConn is one end of a pipe.
type pipeConn struct {
	in, out       *stream
	local, remote net.Addr

	mu     sync.Mutex
	abort  bool // Close sends a RST
	closed bool
}

func (p *pipeConn) Read(b []byte) (int, error) {
	n, err := p.in.read(b)
	return n, p.wrap("read", err)
}

func (p *pipeConn) Write(b []byte) (int, error) {
	n, err := p.out.write(b)
	return n, p.wrap("write", err)
}

// wrap makes err look like the error of a TCP connection.
func (p *pipeConn) wrap(op string, err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if errno, ok := err.(syscall.Errno); ok {
		err = os.NewSyscallError(op, errno)
	}
	return &net.OpError{Op: op, Net: "tcp", Source: p.local, Addr: p.remote, Err: err}
}

// SetLinger makes Close reset the connection if seconds is zero, like that of a
// net.TCPConn. Other values have no effect.
func (p *pipeConn) SetLinger(seconds int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abort = seconds == 0
	return nil
}

// CloseWrite shuts down the writing direction. Reading goes on.
func (p *pipeConn) CloseWrite() error {
	p.out.change(func() {
		if p.out.ended == nil {
			p.out.ended = syscall.EPIPE
		}
	})
	return nil
}

func (p *pipeConn) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return p.wrap("close", net.ErrClosed)
	}
	p.closed = true
	p.in.change(func() { p.in.left, p.in.broken = true, p.in.broken || p.abort })
	p.out.change(func() { p.out.ended, p.out.broken = net.ErrClosed, p.out.broken || p.abort })
	return nil
}

func (p *pipeConn) LocalAddr() net.Addr  { return p.local }
func (p *pipeConn) RemoteAddr() net.Addr { return p.remote }

func (p *pipeConn) SetDeadline(t time.Time) error {
	_ = p.SetReadDeadline(t)
	return p.SetWriteDeadline(t)
}

func (p *pipeConn) SetReadDeadline(t time.Time) error {
	p.in.setDeadline(&p.in.readBy, t)
	return nil
}

func (p *pipeConn) SetWriteDeadline(t time.Time) error {
	p.out.setDeadline(&p.out.writeBy, t)
	return nil
}

// stream is one direction of a pipe.
type stream struct {
	mu      sync.Mutex
	changed sync.Cond

	buffer  bytes.Buffer
	writing bool  // one goroutine writes, and others wait: writes do not interleave
	ended   error // of further writes, once the writer closed its end
	left    bool  // the reader closed its end
	refused bool  // something was written after that
	broken  bool  // reset by either end

	readBy, writeBy deadline
}

func newStream() *stream {
	s := new(stream)
	s.changed.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		switch {
		case s.left:
			return 0, net.ErrClosed
		case s.readBy.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case s.buffer.Len() > 0: // also after a reset, as on Linux
			s.changed.Broadcast()
			return s.buffer.Read(p)
		case s.broken:
			return 0, syscall.ECONNRESET
		case s.ended != nil:
			return 0, io.EOF
		}
		s.changed.Wait()
	}
}

func (s *stream) write(p []byte) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && s.writable() == nil {
		s.changed.Wait()
	}
	if s.left && !s.refused && !s.broken && s.ended == nil {
		// As on TCP, only the RST that answers this write tells the writer.
		s.refused = true
		return len(p), nil
	}
	if err := s.writable(); err != nil {
		return 0, err
	}
	s.writing = true
	defer func() {
		s.writing = false
		s.changed.Broadcast()
	}()
	for len(p) > 0 {
		if err := s.writable(); err != nil {
			return n, err
		}
		room := min(len(p), pipeBuffer-s.buffer.Len())
		if room == 0 {
			s.changed.Wait()
			continue
		}
		s.buffer.Write(p[:room])
		s.changed.Broadcast()
		p = p[room:]
		n += room
	}
	return n, nil
}

// writable returns the error of a write, if it cannot succeed any more.
func (s *stream) writable() error {
	switch {
	case s.ended != nil:
		return s.ended
	case s.writeBy.passed():
		return os.ErrDeadlineExceeded
	case s.broken:
		return syscall.ECONNRESET
	case s.left:
		return syscall.EPIPE
	}
	return nil
}

// change calls f with the lock held and wakes all blocked calls.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.changed.Broadcast()
}

func (s *stream) setDeadline(d *deadline, t time.Time) {
	s.change(func() {
		d.time = t
		if d.timer != nil {
			d.timer.Stop()
			d.timer = nil
		}
		if wait := time.Until(t); !t.IsZero() && wait > 0 {
			d.timer = time.AfterFunc(wait, func() { s.change(func() {}) })
		}
	})
}

// deadline is a read or write deadline. Its timer wakes blocked calls.
type deadline struct {
	time  time.Time
	timer *time.Timer
}

func (d deadline) passed() bool { return !d.time.IsZero() && time.Until(d.time) <= 0 }
