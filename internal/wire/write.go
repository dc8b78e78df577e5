package wire

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// MaxFlush is the most that one write to the network takes.
const MaxFlush = 64 << 10

// flushBuffers are borrowed for as long as there is something to write.
var flushBuffers = sync.Pool{New: func() any { return new([MaxFlush]byte) }}

// ErrClosing says that a message was refused, since a close frame was sent.
var ErrClosing = errors.New("the connection is being closed")

// Outgoing is a message to be sent, and its place in the stream of bytes once it was
// written.
type Outgoing struct {
	Type Type
	Data []byte

	start, end uint64
}

// Untouched reports whether the network has nothing of a message, of which it took
// the stream up to taken. A message that was refused has no place.
func (m *Outgoing) Untouched(taken uint64) bool { return m.start == m.end || m.start >= taken }

// Taken reports whether the network has all of a message.
func (m *Outgoing) Taken(taken uint64) bool { return m.end <= taken }

// End is where a message ends in the stream. One that was refused has no place.
func (m *Outgoing) End() uint64 { return m.end }

// writer is the outbound half of a connection. What is written is collected in
// memory, and goes out when somebody flushes: the sender of messages after a burst,
// a transient goroutine after a pong, the closer with its close frame.
type writer struct {
	c *Conn

	// mu guards what follows. It is never held while the network takes bytes.
	mu       sync.Mutex
	flushed  sync.Cond // busy fell
	buf      []byte    // to go out
	pongs    int       // bytes of pongs in buf
	busy     bool      // somebody flushes
	relief   bool      // a goroutine flushes control frames
	control  uint64    // end of the last of them, in appended
	err      error     // sticky
	appended uint64    // bytes ever put into buf
	taken    uint64    // of them, by the network
	closeEnd uint64    // the end of our close frame, in appended, or 0
	answered uint64    // how far into the stream the server has come, by its pongs
	pings    pings

	// The write timeout. Its timer is armed at most once per timeout, however many
	// writes there are.
	deadline atomic.Int64 // of the write under way, or 0
	watching atomic.Bool
	watch    *time.Timer
}

// Write writes one message, in one frame, and notes its place. It does not flush.
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

// WriteAll is [Conn.Write] for n messages. After an error, those that were not
// written have no place.
func (c *Conn) WriteAll(n int, message func(i int) *Outgoing) (err error) {
	if c.deflate.On { // compressing takes long, and so happens without the lock
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

// message appends the frame of a message, and notes its place.
func (w *writer) message(m *Outgoing, first byte, payload []byte) error {
	err := w.refusal()
	m.start = w.appended
	if err == nil {
		w.frame(first, payload)
	}
	m.end = w.appended
	return err
}

// refusal tells why nothing can be written any more, or nil.
func (w *writer) refusal() error {
	if w.err == nil && w.closeEnd != 0 {
		return ErrClosing
	}
	return w.err
}

// frame appends a whole frame.
func (w *writer) frame(first byte, payload []byte) {
	size := FrameSize(len(payload))
	if w.buf == nil {
		w.buf = flushBuffers.Get().(*[MaxFlush]byte)[:0]
	}
	w.buf = appendFrame(slices.Grow(w.buf, size), first, payload)
	w.appended += uint64(size)
}

// Flush returns when the network has taken all that was written before, or has
// failed.
func (c *Conn) Flush() error {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flushTo(w.appended) {
		return w.err
	}
	return nil
}

// Taken is how far into the stream the network has taken bytes, after what is being
// flushed, and all that goes out with the close frame.
func (c *Conn) Taken() uint64 {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.busy || w.err == nil && w.taken < w.closeEnd {
		w.flushed.Wait()
	}
	return w.taken
}

// pong answers a ping. A server that pings and does not read gets no more pongs than
// fit into one write. Nor can a broken network take one, but what it still holds is
// read.
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

// pings are the last pings without an answer: which one a pong answers is told by
// its payload. Others are not ours, or too late (RFC 6455, section 5.5.3).
type pings struct {
	number uint32
	at     [4]time.Duration // by the number; 0 when it was answered
	place  [4]uint64        // in the stream
}

// Ping sends a ping. It does not wait.
func (c *Conn) Ping() {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ping() {
		w.relieve()
	}
}

// PingWait is Ping for a goroutine that may wait for the network.
func (c *Conn) PingWait() {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ping() {
		return
	}
	w.control = w.appended
	if !w.relief {
		w.relief = true
		w.flushControl()
	}
}

// ping appends a ping, if there may be one.
func (w *writer) ping() bool {
	if w.refusal() != nil {
		return false
	}
	p := &w.pings
	p.number++
	i := p.number % uint32(len(p.at))
	p.at[i], p.place[i] = max(1, w.c.Now()), w.appended
	var payload [4]byte
	binary.BigEndian.PutUint32(payload[:], p.number)
	w.frame(finBit|opPing, payload[:])
	return true
}

// ponged notes the round trip of a ping that a pong answers, and that the server
// has come to it: it takes the stream in order (RFC 6455, section 5.5.3, lets it
// answer the last of several pings only, and that is as good for those before).
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
		w.answered = max(w.answered, p.place[i])
	}
}

// Answered is how far into the stream the server has come, as the last of our pings
// that it answered tells: all that was written before that has arrived.
func (c *Conn) Answered() uint64 {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.answered
}

// SendClose sends a close frame, unless one was sent before, and nothing after it. It
// returns when the network has taken the close frame, or has failed. A code of 1005
// stands for none, and a reason that is too long is cut.
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

// CloseSent reports whether the network has taken a close frame.
func (c *Conn) CloseSent() bool {
	w := &c.out
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closeEnd != 0 && w.taken >= w.closeEnd
}

// relieve flushes control frames on a goroutine of its own, so that neither
// the reader nor the heartbeat waits for a network that takes nothing.
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

// flushControl flushes control frames, and those that come meanwhile. The caller
// is the one who does; mu is held.
func (w *writer) flushControl() {
	for w.flushTo(w.control) && w.taken < w.control {
		// more of them came meanwhile
	}
	w.relief = false
}

// flushTo returns when the network has taken the stream up to a position, or has
// failed; mu is held.
func (w *writer) flushTo(target uint64) bool {
	for w.taken < target && w.err == nil {
		if w.busy {
			w.flushed.Wait()
			continue
		}
		if w.watch == nil {
			w.watching.Store(true)
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

// send hands buf to the network.
func (w *writer) send(buf []byte) (sent int, err error) {
	for sent < len(buf) && err == nil {
		w.guard()
		var n int
		n, err = w.c.transport.Write(buf[sent:min(len(buf), sent+MaxFlush)])
		w.deadline.Store(0)
		sent += n
	}
	w.c.config.Counters.BytesOut.Add(uint64(sent))
	return sent, err
}

// guard starts the write timeout.
func (w *writer) guard() {
	timeout := w.c.config.WriteTimeout
	w.deadline.Store(int64(w.c.Now() + timeout))
	if !w.watching.Swap(true) {
		w.watch.Reset(timeout)
	}
}

// check looks whether the write under way is late.
func (w *writer) check() {
	deadline := w.deadline.Load()
	if deadline == 0 {
		w.watching.Store(false)
		// A write that began meanwhile trusted the timer.
		if deadline = w.deadline.Load(); deadline == 0 || w.watching.Swap(true) {
			return
		}
	}
	late := w.c.Now() - time.Duration(deadline)
	if late >= 0 {
		w.c.owner.Stalled()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.Reset(-late)
}

// stopWatch ends the write timeout; nothing is written any more.
func (w *writer) stopWatch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil {
		w.watch.Stop()
	}
}
