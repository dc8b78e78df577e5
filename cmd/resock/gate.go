package main

import (
	"bufio"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"time"
)

// gate is a connection that can be made to stand still, or slow. coder/websocket reads and
// writes through it.
type gate struct {
	net.Conn
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	changed chan struct{} // closed when one of these changes
	reads   lapse         // nothing is read
	writes  lapse         // nothing is written
	slow    lapse         // no more than rate is read, and written
	rate    int64         // bytes per second

	writing sync.Mutex // one write at a time
}

func newGate(c net.Conn) *gate {
	return &gate{Conn: c, closed: make(chan struct{}), changed: make(chan struct{})}
}

// lapse is a time during which something is so. The zero value is none.
type lapse struct{ end time.Time }

// forever is a lapse that only [lapse.clear] ends.
var forever = time.Unix(1<<40, 0)

// begin begins a lapse of d, or one without an end if d is 0.
func (l *lapse) begin(d time.Duration) {
	if l.end = forever; d > 0 {
		l.end = time.Now().Add(d)
	}
}

func (l *lapse) clear() { l.end = time.Time{} }

// left is how much of the lapse is left.
func (l *lapse) left() time.Duration { return max(0, time.Until(l.end)) }

// change changes what the gate does.
func (g *gate) change(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
	close(g.changed)
	g.changed = make(chan struct{})
}

// pass waits until l is over. It reports false once the gate is closed.
func (g *gate) pass(l *lapse) bool {
	for {
		g.mu.Lock()
		left, changed := l.left(), g.changed
		g.mu.Unlock()
		if left == 0 {
			return true
		}
		if !g.sleep(left, changed) {
			return false
		}
	}
}

// sleep waits for d, or a change. It reports false once the gate is closed.
func (g *gate) sleep(d time.Duration, changed <-chan struct{}) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-g.closed:
		return false
	case <-timer.C:
	case <-changed:
	}
	return true
}

// most is how many of n bytes may move at once.
func (g *gate) most(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.slow.left() == 0 {
		return n
	}
	return min(n, int(g.rate/20)+1)
}

// linger waits as long as n bytes take at the rate that there is meanwhile. It reports
// false once the gate is closed.
func (g *gate) linger(n int) bool {
	for began := time.Now(); ; {
		g.mu.Lock()
		left, changed := g.slow.left(), g.changed
		if left > 0 {
			left = min(left, time.Until(began.Add(time.Duration(n)*(time.Second/time.Duration(g.rate)))))
		}
		g.mu.Unlock()
		if left <= 0 {
			return true
		}
		if !g.sleep(left, changed) {
			return false
		}
	}
}

// Read reads as fast as it may.
func (g *gate) Read(p []byte) (int, error) {
	if !g.pass(&g.reads) {
		return 0, net.ErrClosed
	}
	n, err := g.Conn.Read(p[:g.most(len(p))])
	if !g.linger(n) || !g.pass(&g.reads) { // it may have changed meanwhile
		return 0, net.ErrClosed
	}
	return n, err
}

// Write writes all of p as fast as it may.
func (g *gate) Write(p []byte) (written int, err error) {
	g.writing.Lock()
	defer g.writing.Unlock()
	return g.write(p)
}

// write is Write; writing is held.
func (g *gate) write(p []byte) (written int, err error) {
	for {
		if !g.pass(&g.writes) {
			return written, net.ErrClosed
		}
		n, err := g.Conn.Write(p[written : written+g.most(len(p)-written)])
		written += n
		if err == nil && !g.linger(n) {
			err = net.ErrClosed
		}
		if err != nil || written == len(p) {
			return written, err
		}
	}
}

// Close closes the connection, and ends whatever waits.
func (g *gate) Close() error {
	g.once.Do(func() { close(g.closed) })
	return g.Conn.Close()
}

// reset closes the connection without ceremony: the peer sees a reset.
func (g *gate) reset() {
	if tcp := g.tcp(); tcp != nil {
		_ = tcp.SetLinger(0)
		_ = tcp.Close() // below TLS, which would say goodbye
	}
	_ = g.Close()
}

// end closes the TCP connection as a program does that exits, without a close frame.
func (g *gate) end() {
	if tcp := g.tcp(); tcp != nil {
		_ = tcp.Close()
	}
	_ = g.Close()
}

func (g *gate) tcp() *net.TCPConn {
	c := g.Conn
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	tcp, _ := c.(*net.TCPConn)
	return tcp
}

// narrow makes the buffers of the system small, so that a peer feels a slow gate soon.
func (g *gate) narrow() {
	if tcp := g.tcp(); tcp != nil {
		_ = tcp.SetReadBuffer(4096)
		_ = tcp.SetWriteBuffer(4096)
	}
}

// gateWriter is an [http.ResponseWriter] whose connection becomes a gate.
type gateWriter struct {
	http.ResponseWriter
	gate *gate
}

// Hijack implements [http.Hijacker].
func (w *gateWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	w.gate = newGate(c)
	return w.gate, bufio.NewReadWriter(rw.Reader, bufio.NewWriter(w.gate)), nil
}
