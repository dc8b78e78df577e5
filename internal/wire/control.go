package wire

import (
	"encoding/binary"
	"time"
)

// pong answers a ping. If the server sends pings but does not read, pongs beyond
// MaxFlush bytes are dropped. A refused pong is dropped too: after a write error, what
// the server sent before can still be read.
func (c *Conn) pong(payload []byte) {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.refusal() != nil || w.pongs > MaxFlush {
		return
	}
	w.frame(finBit|opPong, payload)
	w.pongs += FrameSize(len(payload))
	w.relieve()
}

// pings remembers the last four pings; ping n has index n%4. The payload of a ping is
// its number, so that a pong names the ping that it answers. A pong with another payload
// is unsolicited or too late (RFC 6455, section 5.5.3).
type pings struct {
	number   uint32           // of the latest ping
	at       [4]time.Duration // when each ping was sent; 0 once it is answered
	position [4]uint64        // of each ping in the stream
}

// Ping sends a ping. It does not wait for the network. Any goroutine may call it.
func (c *Conn) Ping() {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ping() {
		w.relieve()
	}
}

// PingWait is like [Conn.Ping], but flushes on the calling goroutine, and thus waits for
// the network. If another goroutine is flushing control frames, it leaves the ping to
// that one and returns at once.
func (c *Conn) PingWait() {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ping() {
		w.flushPing()
	}
}

// Beat is like [Conn.PingWait], and makes the ping the beat that [Conn.Beaten] tells about.
func (c *Conn) Beat() {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ping() {
		w.setMark()
		w.flushPing()
	}
}

// flushPing flushes a ping, or leaves it to the goroutine that is flushing control frames.
// mu is held.
func (w *writer) flushPing() {
	w.control = w.appended
	if !w.relief {
		w.relief = true
		w.flushControl()
	}
}

// ping appends a ping, and reports false if it was refused. mu is held.
func (w *writer) ping() bool {
	if w.refusal() != nil {
		return false
	}
	p := &w.pings
	p.number++
	i := p.number % uint32(len(p.at))
	p.at[i], p.position[i] = max(1, w.c.Now()), w.appended
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], p.number)
	w.frame(finBit|opPing, payload[:])
	return true
}

// ponged handles a pong. If it answers one of our pings, ponged records the round trip,
// and that the server has read the stream up to that ping, since it reads in order. The
// server may answer only the latest of several pings (RFC 6455, section 5.5.3), which
// covers the earlier ones.
func (c *Conn) ponged(payload []byte) {
	if len(payload) != 4 {
		return
	}
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	p, number := &w.pings, binary.BigEndian.Uint32(payload)
	i := number % uint32(len(p.at))
	if p.at[i] != 0 && p.number-number < uint32(len(p.at)) {
		c.config.Counters.RoundTrip.Store(int64(c.Now() - p.at[i]))
		p.at[i] = 0
		w.answered = max(w.answered, p.position[i])
	}
}

// Answered returns the position of the latest ping that the server has answered, or 0.
// Everything written before that position has arrived.
func (c *Conn) Answered() uint64 {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

// SendClose sends a close frame, unless one was sent before. Nothing is sent after it.
// It returns when the network has accepted the close frame, or has failed. Code 1005
// sends a close frame without a code. A reason that is too long is cut, as by
// [CutReason].
func (c *Conn) SendClose(code int, reason string) {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil && w.closeEnd == 0 {
		w.frame(finBit|opClose, closeBody(code, reason))
		w.closeEnd = w.appended
	}
	w.flushTo(w.closeEnd)
}

// CloseSent reports whether the network has accepted a close frame of ours.
func (c *Conn) CloseSent() bool {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closeEnd != 0 && w.taken >= w.closeEnd
}

// relieve flushes control frames on another goroutine, so that neither the reader nor
// the heartbeat waits for a network that accepts nothing. mu is held.
func (w *writer) relieve() {
	w.control = w.appended
	if w.relief {
		return
	}
	w.relief = true
	w.c.owner.Go(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.flushControl()
	})
}

// flushControl flushes control frames, including those appended meanwhile. The caller
// has set relief. mu is held.
func (w *writer) flushControl() {
	for w.flushTo(w.control) && w.taken < w.control {
		// control has moved meanwhile
	}
	w.relief = false
}
