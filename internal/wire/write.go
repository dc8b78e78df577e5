package wire

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MaxFlush is the size of the largest single write to the transport, in bytes.
const MaxFlush = 64 << 10

// flushBuffers pools write buffers. A connection holds one only while it has something
// to write.
var flushBuffers = sync.Pool{New: func() any { return new([MaxFlush]byte) }}

// ErrClosing is the error of a message that was refused because a close frame was sent
// before it (RFC 6455, section 5.5.1).
var ErrClosing = errors.New("the connection is being closed")

// Outgoing is a message to be sent. Writing it records its position in the outbound
// stream of bytes. A refused message has no position.
type Outgoing struct {
	Type Type
	Data []byte

	start, end uint64 // equal if the message was refused
}

// Untouched reports whether the network has accepted nothing of m, given how much of
// the stream it has accepted (see [Conn.Taken]). It is true for a refused message.
func (m *Outgoing) Untouched(taken uint64) bool { return m.start == m.end || m.start >= taken }

// Taken reports whether the network has accepted all of m, given how much of the stream
// it has accepted. It means nothing for a refused message.
func (m *Outgoing) Taken(taken uint64) bool { return m.end <= taken }

// End returns the position in the stream at which m ends. It means nothing for a
// refused message.
func (m *Outgoing) End() uint64 { return m.end }

// writer is the outbound half of a connection. Frames are collected in memory until a
// goroutine flushes them: the sender after a burst of messages, a short-lived goroutine
// after a ping or pong, or the one that sends the close frame.
//
// Positions in the stream count the bytes appended since the connection was started.
type writer struct {
	c *Conn

	// mu guards the fields from flushed to pings. It is not held while the transport
	// writes, so that no goroutine waits for the network just to append a frame.
	mu       sync.Mutex
	flushed  sync.Cond // broadcast when busy becomes false
	buf      []byte    // frames that no write has begun with
	pongs    int       // bytes of pongs in buf
	busy     bool      // a goroutine is writing to the transport
	relief   bool      // a goroutine is flushing control frames
	control  uint64    // position that it has to flush up to
	err      error     // the first write error; sticky
	appended uint64    // position of the end of buf
	taken    uint64    // position up to which the network has accepted the stream
	closeEnd uint64    // position of the end of our close frame; 0 before it
	answered uint64    // position that the server has reached, according to its pongs
	pings    pings

	// The write timeout. One timer serves all writes. It fires at most once per timeout,
	// unless a write takes long. The atomics are not guarded by mu because send does not
	// hold it.
	deadline atomic.Int64 // of the write in progress, should it make no progress; 0 if there is none
	watching atomic.Bool  // the timer is armed, or has reported a stalled write
	watch    *time.Timer  // created by the first flush
}

// Write appends one message, in a single frame, and records its position. It copies the
// data, and does not flush. The error is [ErrClosing] or the first write error. Any
// goroutine may call Write.
func (c *Conn) Write(m *Outgoing) error {
	first, payload := finBit|byte(m.Type), m.Data
	if c.compressible(m.Data) {
		z := compressors.Get().(*compressor)
		defer z.recycle()
		if deflated := z.compress(m.Data); len(deflated) < len(m.Data) {
			first, payload = first|rsv1Bit, deflated
		}
	}
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.message(m, first, payload)
}

// WriteAll is like [Conn.Write] for n messages in order, but cheaper. After an error,
// the messages that were refused have no position.
func (c *Conn) WriteAll(n int, message func(i int) *Outgoing) (err error) {
	if c.deflate.On { // compression is slow, and must not hold the lock
		for i := range n {
			err = c.Write(message(i))
		}
		return err
	}
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range n {
		m := message(i)
		err = w.message(m, finBit|byte(m.Type), m.Data)
	}
	return err
}

// message appends the frame of m, unless it is refused, and records its position. mu is
// held.
func (w *writer) message(m *Outgoing, first byte, payload []byte) error {
	err := w.refusal()
	m.start = w.appended
	if err == nil {
		w.frame(first, payload)
	}
	m.end = w.appended
	return err
}

// refusal returns the error with which a new frame must be refused, or nil. mu is held.
func (w *writer) refusal() error {
	if w.err == nil && w.closeEnd != 0 {
		return ErrClosing
	}
	return w.err
}

// frame appends a frame. mu is held.
func (w *writer) frame(first byte, payload []byte) {
	size := FrameSize(len(payload))
	if w.buf == nil {
		w.buf = flushBuffers.Get().(*[MaxFlush]byte)[:0]
	}
	w.buf = appendFrame(slices.Grow(w.buf, size), first, payload)
	w.appended += uint64(size)
}

// Flush waits until the network has accepted everything written so far. The error is
// the first write error, if not everything was accepted. Any goroutine may call Flush.
func (c *Conn) Flush() error {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flushTo(w.appended) {
		return w.err
	}
	return nil
}

// Taken returns the position up to which the network has accepted the stream. If a flush
// is in progress, or our close frame is still to be flushed, Taken waits for the outcome.
func (c *Conn) Taken() uint64 {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.busy || w.err == nil && w.taken < w.closeEnd {
		w.flushed.Wait()
	}
	return w.taken
}

// flushTo writes, or waits for the goroutine that is writing, until the network has
// accepted the stream up to target or has failed. It reports whether target was
// reached. mu is held, but released while the transport writes.
func (w *writer) flushTo(target uint64) bool {
	for w.taken < target && w.err == nil {
		if w.busy {
			w.flushed.Wait()
			continue
		}
		if w.watch == nil {
			w.watching.Store(true)
			w.c.life.due.Store(int64(w.c.Now() + w.c.config.WriteTimeout))
			w.watch = time.AfterFunc(w.c.config.WriteTimeout, w.check)
		}
		w.busy = true
		buf := w.buf
		w.buf, w.pongs = nil, 0
		w.mu.Unlock()
		n, err := w.send(buf)
		if err != nil {
			w.c.owner.Failed(err)
		}
		if cap(buf) == MaxFlush {
			flushBuffers.Put((*[MaxFlush]byte)(buf[:MaxFlush]))
		}
		w.mu.Lock()
		w.taken += uint64(n)
		w.err = err
		w.busy = false
		w.flushed.Broadcast()
	}
	return w.taken >= target
}

// send writes buf to the transport, in writes of at most MaxFlush bytes.
func (w *writer) send(buf []byte) (sent int, err error) {
	for sent < len(buf) && err == nil {
		w.guard()
		var n int
		n, err = w.c.transport.Write(buf[sent:min(len(buf), sent+MaxFlush)])
		if n > 0 && w.c.meter == nil {
			w.c.took(true)
		}
		w.deadline.Store(0)
		sent += n
		w.c.life.position.Add(uint64(n))
		w.noteMark()
	}
	w.c.config.Counters.BytesOut.Add(uint64(sent))
	return sent, err
}

// guard sets the deadline of the next write. It does not touch a timer that is armed:
// check rearms it for the latest deadline.
func (w *writer) guard() {
	timeout, now := w.c.config.WriteTimeout, w.c.Now()
	w.deadline.Store(int64(now + timeout))
	if !w.watching.Swap(true) {
		w.c.life.due.Store(int64(now + timeout))
		w.watch.Reset(timeout)
	}
}

const (
	// SecondLook is how long after a verdict came near somebody looks again.
	SecondLook = 100 * time.Millisecond

	// Lateness is how late a timer fires when the process, or the whole machine, stood
	// still. What happened meanwhile may not have been seen yet.
	Lateness = time.Millisecond

	// MaxDoubts is how many looks in a row may come late. A process that gets little of
	// the processor may never be in time, but it ran at each of them.
	MaxDoubts = 20
)

// check is called by the timer. It reports a write that makes no progress. If it may not
// have seen the progress, it looks a second time, and up to [MaxDoubts] times if it is
// late again.
func (w *writer) check() {
	deadline := w.deadline.Load()
	if deadline == 0 {
		w.watching.Store(false)
		// A write that began in between may have taken the timer for armed.
		if deadline = w.deadline.Load(); deadline == 0 || w.watching.Swap(true) {
			return
		}
	}
	now, timeout, life := w.c.Now(), w.c.config.WriteTimeout, &w.c.life
	late := now-time.Duration(life.due.Load()) > Lateness
	deadline = max(deadline, life.moved.Load()+int64(timeout))
	left := time.Duration(deadline) - now
	asked := w.c.Nudge()
	if life.doubted != deadline {
		life.doubted, life.doubts = 0, 0
	}
	switch {
	case left > 0:
		if asked { // what the nudge brings to light is to be dated
			left = min(left, max(timeout/4, SecondLook))
		}
	case !late && (!asked || life.doubts > 0), life.doubts == MaxDoubts:
		w.c.owner.Stalled()
		return
	default:
		life.doubted, left = deadline, SecondLook
		life.doubts++
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	life.due.Store(int64(now + left))
	w.watch.Reset(left)
}

// stopWatch stops the timer of the write timeout. Nothing may be written any more.
func (w *writer) stopWatch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil {
		w.watch.Stop()
	}
}
