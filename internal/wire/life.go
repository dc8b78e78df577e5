package wire

import (
	"math"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// life records signs of life from the server, and when the reader waits for it. Silence
// counts only while the reader waits: neither a slow consumer nor a large message that
// arrives slowly makes the server look dead.
//
// The reader and the goroutine that writes to the network store the fields, and other
// goroutines poll them. They are atomic, so that neither takes a lock.
type life struct {
	since    atomic.Int64  // when the pending read began, plus 1 ns; 0 if none is pending
	fed      atomic.Int64  // when the wait for a message began, had no time been spent on delivery
	reads    atomic.Uint64 // reads that returned bytes
	eased    atomic.Uint64 // writes that had to wait, and then took bytes, if the server was asked
	asked    atomic.Uint64 // reads when a beat last asked for a sign of life, or unasked
	moved    atomic.Int64  // when the network last took bytes
	position atomic.Uint64 // like writer.taken, but moves with each write
	mark     atomic.Uint64 // position up to which the last beat is to be taken
	marked   atomic.Int64  // when the network had taken it, plus 1 ns; 0 before that
	due      atomic.Int64  // when the timer of the write timeout fires
	doubted  int64         // the deadline that its last look doubted, or 0; it belongs to check
	doubts   uint8         // looks in a row that doubted that deadline; it belongs to check
}

// full is how long a write that the network takes at once never needs. One that took
// longer found the buffers full, and had to wait for the server.
const full = 2 * time.Millisecond

// unasked is a number of reads that no connection reaches.
const unasked = math.MaxUint64

// Silence returns when the pending read began, in the time of [Conn.Now]. It reports
// false if no read is pending. Any goroutine may call it.
func (c *Conn) Silence() (since time.Duration, waiting bool) {
	v := c.life.since.Load()
	return time.Duration(v - 1), v != 0
}

// Hunger returns when the wait for a message began: when the last bytes came that belong
// to an unfinished message, or [Conn.Feed] was called. What was spent on delivery is left
// out. It means nothing while no read is pending. Any goroutine may call it.
func (c *Conn) Hunger() time.Duration { return time.Duration(c.life.fed.Load()) }

// Feed notes that a message came that counts for [Conn.Hunger]. Only the reading goroutine
// may call it.
func (c *Conn) Feed() { c.in.fed = true }

// Reads returns the number of reads that returned bytes, counted beneath TLS if the
// connection there is a [Network]. Any goroutine may call it.
func (c *Conn) Reads() uint64 { return c.life.reads.Load() }

// Signs returns a number that changes with each sign of life: with each read that returned
// bytes, and, from [Conn.Expect] or [Conn.Mark] until the first read, with each write that the
// network took only when the server had made room for it. Any goroutine may call it.
func (c *Conn) Signs() uint64 { return c.life.reads.Load() + c.life.eased.Load() }

// Writing reports whether a write to the network is in progress, so that only
// [Conn.Nudge] shows whether it moves. Any goroutine may call it.
func (c *Conn) Writing() bool { return c.out.deadline.Load() != 0 }

// Expect announces a message that is a beat. [Conn.Beaten] reports false until
// [Conn.Mark] tells where it ends and the network has taken it.
func (c *Conn) Expect() {
	c.life.ask()
	c.life.mark.Store(math.MaxUint64)
	c.life.marked.Store(0)
}

// Mark makes what was written last the beat that [Conn.Beaten] tells about.
func (c *Conn) Mark() {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.setMark()
}

// setMark is Mark; mu is held.
func (w *writer) setMark() {
	l := &w.c.life
	l.ask()
	l.mark.Store(w.appended)
	l.marked.Store(0)
	w.noteMark()
}

// noteMark notes when the network has taken the beat. The one that sets the mark and the
// one that moves the position call it afterwards, and so one of them sees both.
func (w *writer) noteMark() {
	if l := &w.c.life; l.marked.Load() == 0 && l.position.Load() >= l.mark.Load() {
		l.marked.Store(int64(w.c.Now()) + 1)
	}
}

// Beaten returns when the network had taken the last beat, and false if it has not. Any
// goroutine may call it.
func (c *Conn) Beaten() (at time.Duration, taken bool) {
	v := c.life.marked.Load()
	return time.Duration(v - 1), v != 0
}

// waits notes that a read begins.
func (r *reader) waits(now time.Duration) {
	l := &r.c.life
	if r.fed || r.part {
		r.fed, r.part = false, false
		l.fed.Store(int64(now))
	} else {
		l.fed.Store(l.fed.Load() + int64(now-r.at))
	}
	l.since.Store(int64(now) + 1)
}

// arrived notes that a read returned n bytes.
func (r *reader) arrived(n int) {
	r.at = r.c.Now()
	r.c.life.since.Store(0)
	if n > 0 && r.c.meter == nil {
		r.c.life.received()
	}
}

func (l *life) received() {
	l.reads.Store(l.reads.Load() + 1) // cheaper than Add; the reader is the only writer
}

// ask notes that signs of life matter, until the next read is one.
func (l *life) ask() { l.asked.Store(l.reads.Load()) }

// took notes that the network took bytes, during a write that may go on or is done. Only
// the goroutine that writes may call it. What it notes costs a look at the clock, and most
// writes need none: they are done, and nobody waits for a sign of life.
func (c *Conn) took(done bool) {
	l := &c.life
	if done && l.reads.Load() != l.asked.Load() {
		return
	}
	now := c.Now()
	began := time.Duration(c.out.deadline.Load()) - c.config.WriteTimeout
	if now-max(began, time.Duration(l.moved.Load())) >= full {
		l.eased.Store(l.eased.Load() + 1)
	}
	l.moved.Store(int64(now))
}

// Network is a network connection that tells the [Conn] over it what it moves. It belongs
// beneath TLS, where part of a record counts as well.
type Network struct {
	net.Conn
	over atomic.Pointer[Conn] // nil before Start

	mu     sync.Mutex // guards nudged, and the write deadline
	nudged bool       // a write is to be interrupted
	socket bool
	direct bool // there is nothing between the Conn and this
}

// NewNetwork returns a Network over conn.
func NewNetwork(conn net.Conn) *Network {
	_, socket := conn.(syscall.Conn)
	return &Network{Conn: conn, socket: socket}
}

// Direct notes, before Start, that each write of the [Conn] is one of n: there is no TLS
// between them.
func (n *Network) Direct() { n.direct = true }

// maxPiece is the size of the largest single write to what is no socket, in bytes: nothing
// but its return shows that it moves.
const maxPiece = 16 << 10

// Read implements [io.Reader].
func (n *Network) Read(p []byte) (int, error) {
	size, err := n.Conn.Read(p)
	if c := n.over.Load(); c != nil && size > 0 {
		c.life.received()
	}
	return size, err
}

// Write implements [io.Writer].
func (n *Network) Write(p []byte) (sent int, err error) {
	for sent < len(p) && err == nil {
		piece := p[sent:]
		if !n.socket {
			piece = piece[:min(len(piece), maxPiece)]
		}
		size := 0
		size, err = n.Conn.Write(piece)
		sent += size
		if c := n.over.Load(); c != nil && size > 0 {
			c.took(n.direct && sent == len(p))
		}
		if err != nil && n.resume() {
			err = nil
		}
	}
	return sent, err
}

// nudge interrupts a write in progress, so that it tells how many bytes the network has
// taken, and goes on. It reports whether it can. Only a socket is known to stand it: a
// TLS connection never writes again after a deadline.
func (n *Network) nudge() bool {
	if !n.socket {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.Conn.SetWriteDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	n.nudged = true
	return true
}

// resume reports whether a write failed because it was nudged, and lets it go on.
func (n *Network) resume() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.nudged {
		return false
	}
	n.nudged = false
	return n.Conn.SetWriteDeadline(time.Time{}) == nil
}

// Nudge lets a write that is in progress tell what the network has taken of it, which
// then counts as a sign of life. It does not wait, and reports whether the network can be
// asked at all.
func (c *Conn) Nudge() bool {
	n := c.meter
	return n != nil && n.nudge()
}
