package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// script is a transport on which the server has sent everything already.
type script struct {
	in   []byte
	cut  func() int // if not nil, returns how many bytes a read may return
	end  error      // of the read after the last byte
	last bool       // end comes along with the last bytes

	mu  sync.Mutex
	out bytes.Buffer
}

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, s.end
	}
	n := len(s.in)
	if s.cut != nil {
		n = max(1, s.cut())
	}
	n = copy(p, s.in[:min(n, len(s.in))])
	s.in = s.in[n:]
	if len(s.in) == 0 && s.last {
		return n, s.end
	}
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}

func (s *script) Close() error { return nil }

func (s *script) written() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.out.Bytes())
}

// inTwo cuts a stream once, after n bytes.
func inTwo(n int) func() int {
	return func() int {
		defer func() { n = 1 << 30 }()
		return n
	}
}

// byBytes cuts a stream after every byte.
func byBytes() int { return 1 }

// readFunc is a transport that is read by calling a function.
type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error)  { return f(p) }
func (f readFunc) Write(p []byte) (int, error) { return len(p), nil }
func (f readFunc) Close() error                { return nil }

// feed is a transport whose reads return one piece each.
type feed struct {
	pieces [][]byte
	idle   func(piece int) // if not nil, is called before each read, with what it will return
	next   int
}

func (f *feed) Read(p []byte) (int, error) {
	if f.idle != nil {
		f.idle(f.next)
	}
	if f.next == len(f.pieces) {
		return 0, io.EOF
	}
	n := copy(p, f.pieces[f.next])
	if f.pieces[f.next] = f.pieces[f.next][n:]; len(f.pieces[f.next]) == 0 {
		f.next++
	}
	return n, nil
}

func (f *feed) Write(p []byte) (int, error) { return len(p), nil }
func (f *feed) Close() error                { return nil }

// line is a network connection in memory.
type line struct {
	net.Conn               // nil: no test calls the other methods
	server   chan []byte   // pieces sent by the server, one per read; closed for io.EOF
	takes    time.Duration // how long a write takes
	deaf     bool          // writes block until the line is closed

	rest   []byte // of the current piece
	closed chan struct{}

	mu     sync.Mutex
	closes int
	out    []byte
}

func (l *line) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		select {
		case <-l.closed:
			return 0, net.ErrClosed
		case piece, ok := <-l.server:
			if !ok {
				return 0, io.EOF
			}
			l.rest = piece
		}
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}

func (l *line) Write(p []byte) (int, error) {
	if l.cut() {
		return 0, net.ErrClosed
	}
	if l.deaf {
		<-l.closed
	} else if l.takes > 0 {
		select {
		case <-l.closed:
		case <-time.After(l.takes):
		}
	}
	if l.cut() {
		return 0, net.ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.out = append(l.out, p...)
	return len(p), nil
}

// cut reports whether the line is closed.
func (l *line) cut() bool {
	select {
	case <-l.closed:
		return true
	default:
		return false
	}
}

func (l *line) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closes++; l.closes == 1 {
		close(l.closed)
	}
	return nil
}

func (l *line) written() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return bytes.Clone(l.out)
}

// newLine returns a line on which the server has sent pieces.
func newLine(pieces ...[]byte) *line {
	l := &line{server: make(chan []byte, len(pieces)+1), closed: make(chan struct{})}
	for _, piece := range pieces {
		l.server <- piece
	}
	return l
}

// halves is a line that can be closed in one direction only.
type halves struct {
	*line
	half bool // CloseWrite was called
}

func (h *halves) CloseWrite() error {
	h.half = true
	return nil
}

// unknown hides that a line is a network connection.
type unknown struct{ line *line }

func (b unknown) Read(p []byte) (int, error)  { return b.line.Read(p) }
func (b unknown) Write(p []byte) (int, error) { return b.line.Write(p) }
func (b unknown) Close() error                { return b.line.Close() }

var errNetwork = errors.New("network failure")

// network is a transport that records what is written.
type network struct {
	mu     sync.Mutex
	taken  []byte
	writes int
	room   int           // bytes accepted before it fails; negative for no limit
	gate   chan struct{} // if not nil, every write waits for a token
	most   int           // size of the largest write
}

func (n *network) Write(p []byte) (int, error) {
	if n.gate != nil {
		<-n.gate
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.writes++
	n.most = max(n.most, len(p))
	if n.room >= 0 && len(p) > n.room {
		n.taken = append(n.taken, p[:n.room]...)
		taken := n.room
		n.room = 0
		return taken, errNetwork
	}
	if n.room > 0 {
		n.room -= len(p)
	}
	n.taken = append(n.taken, p...)
	return len(p), nil
}

func (n *network) got() ([]byte, int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return bytes.Clone(n.taken), n.writes
}

func (n *network) Read([]byte) (int, error) { return 0, errNetwork }
func (n *network) Close() error             { return nil }

// transportFunc is a transport that is written to by calling a function.
type transportFunc func([]byte) (int, error)

func (f transportFunc) Write(p []byte) (int, error) { return f(p) }
func (f transportFunc) Read([]byte) (int, error)    { return 0, errNetwork }
func (f transportFunc) Close() error                { return nil }

// silent is the rest of a transport on which the server sends nothing.
type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, io.EOF }
func (silent) Close() error             { return nil }

// gated is a transport on which every write waits for a token.
type gated struct {
	silent
	tokens chan struct{}
}

func (g *gated) Write(p []byte) (int, error) {
	<-g.tokens
	return len(p), nil
}
