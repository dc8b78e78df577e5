package resock

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// maxFlush is the most that one write to the network takes.
const maxFlush = 64 << 10

// flushBuffers are borrowed for as long as there is something to write.
var flushBuffers = sync.Pool{New: func() any { return new([maxFlush]byte) }}

var (
	errWriteTimeout = errors.New("the network took no bytes within the write timeout")
	errFraming      = errors.New("resock: a frame header came in pieces")
)

// wireWriter is the outbound half of a wire. What coder/websocket writes is
// collected in memory, so that its frame lock is never held for long, and goes
// out when somebody flushes: the sender of messages after a burst, a transient
// goroutine after a pong, the closer with its close frame.
type wireWriter struct {
	clock
	dst      io.Writer
	timeout  time.Duration // of one flush
	stalled  func()        // called when it passed
	spawn    func(func())  // starts a goroutine of the session
	counters *counters

	mu       sync.Mutex
	flushed  sync.Cond // busy fell
	buf      []byte    // to go out
	pongs    int       // bytes of pongs in buf
	busy     bool      // somebody flushes
	relief   bool      // a goroutine flushes control frames
	control  uint64    // end of the last of them, in appended
	err      error     // sticky
	appended uint64    // bytes ever put into buf
	written  uint64    // of them, taken by the network

	left       int64 // bytes of the frame under way that are still to come
	frameStart uint64
	frameEnd   uint64     // of the last data frame, in appended
	closeCode  StatusCode // of the close frame, or 0
	closeEnd   uint64     // its end, in appended
	sealed     bool       // by sendClose: nothing more is sent
	pingDue    bool       // a ping goes out after the frame under way
	pingAt     time.Duration

	deadline atomic.Int64 // of the write under way, or 0
	watching atomic.Bool
	watch    *time.Timer
}

// Write implements io.Writer for coder/websocket, whose chunks end with their
// frame and begin with a whole header.
func (w *wireWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	h, ok := parseFrameHeader(p)
	pong := w.left == 0 && ok && h.opcode() == opPong
	switch {
	case pong && (w.err != nil || w.pongs > maxFlush):
		// A peer that pings and does not read gets no more. Nor can a broken
		// network take it, but what it still holds is read: coder/websocket does
		// not read on when it cannot answer.
		return len(p), nil
	case w.err != nil:
		return 0, w.err
	}
	if w.sealed {
		// coder/websocket does not know of the close frame, and answers pings and
		// the server's close frame. Nothing may follow ours (RFC 6455, section 5.5.1).
		return len(p), nil
	}
	var opcode byte = opContinuation
	if w.left == 0 {
		if !ok {
			return 0, errFraming
		}
		opcode = h.opcode()
		if pong {
			w.pongs += len(p)
		}
		w.begin(h, p)
	}
	w.append(p)
	if w.left -= int64(len(p)); w.left > 0 {
		return len(p), nil
	}
	switch opcode {
	case opClose:
		w.closeEnd = w.appended
		w.flushTo(w.appended)
		return len(p), w.err
	case opPong:
		w.relieve()
	default:
		w.frameEnd = w.appended
	}
	if w.pingDue {
		w.appendPing()
		w.relieve()
	}
	return len(p), nil
}

// begin notes the header of a frame, at the front of p.
func (w *wireWriter) begin(h frameHeader, p []byte) {
	w.left = int64(h.size) + h.length
	if !h.control() {
		w.frameStart, w.frameEnd = w.appended, math.MaxUint64 // unfinished
		w.buf = slices.Grow(w.borrow(), int(w.left))
		return
	}
	if h.opcode() != opClose {
		return
	}
	w.closeCode = websocket.StatusNoStatusRcvd
	if h.length >= 2 && len(p) >= h.size+2 {
		key, code := p[h.size-4:h.size], p[h.size:]
		w.closeCode = StatusCode(binary.BigEndian.Uint16([]byte{code[0] ^ key[0], code[1] ^ key[1]}))
	}
}

// writeMessages writes each message in one frame, as coder/websocket would, but
// without its locks, which cost more than the rest, and notes its place in the
// stream. It reports false, and does nothing, when coder/websocket is in the
// middle of a frame, has closed, or has to say why writing fails.
func (w *wireWriter) writeMessages(all []outbound) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.left > 0 || w.closeCode != 0 {
		return false
	}
	for i := range all {
		m := &all[i]
		m.start, m.end = w.appended, w.appended+uint64(maskedSize(len(m.data)))
		w.buf = appendFrame(slices.Grow(w.borrow(), maxFrameHeader+len(m.data)), byte(m.typ), m.data)
		w.appended = m.end
	}
	return true
}

// maskedSize is the size of a masked frame.
func maskedSize(payload int) int {
	switch {
	case payload < 126:
		return 6 + payload
	case payload <= math.MaxUint16:
		return 8 + payload
	}
	return maxFrameHeader + payload
}

// appendFrame appends a whole masked frame.
func appendFrame(b []byte, opcode byte, payload []byte) []byte {
	b = append(b, finBit|opcode)
	switch n := len(payload); {
	case n < 126:
		b = append(b, maskBit|byte(n))
	case n <= math.MaxUint16:
		b = binary.BigEndian.AppendUint16(append(b, maskBit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, maskBit|127), uint64(n))
	}
	key := rand.Uint32() // of a ChaCha8 generator with a seed of the system's
	b = binary.LittleEndian.AppendUint32(b, key)
	return appendMasked(b, payload, key)
}

// appendMasked appends payload, masked (RFC 6455, section 5.3). b has room for it.
func appendMasked(b, payload []byte, key uint32) []byte {
	at := len(b)
	b = b[:at+len(payload)]
	dst, key64 := b[at:], uint64(key)<<32|uint64(key)
	le := binary.LittleEndian
	for len(payload) >= 32 && len(dst) >= 32 { // the compiler checks no bounds within
		le.PutUint64(dst, le.Uint64(payload)^key64)
		le.PutUint64(dst[8:], le.Uint64(payload[8:])^key64)
		le.PutUint64(dst[16:], le.Uint64(payload[16:])^key64)
		le.PutUint64(dst[24:], le.Uint64(payload[24:])^key64)
		dst, payload = dst[32:], payload[32:]
	}
	for len(payload) >= 8 && len(dst) >= 8 {
		le.PutUint64(dst, le.Uint64(payload)^key64)
		dst, payload = dst[8:], payload[8:]
	}
	for i := range payload {
		dst[i] = payload[i] ^ byte(key64)
		key64 >>= 8
	}
	return b
}

// borrow makes sure that there is a buffer.
func (w *wireWriter) borrow() []byte {
	if w.buf == nil {
		w.buf = flushBuffers.Get().(*[maxFlush]byte)[:0]
	}
	return w.buf
}

func (w *wireWriter) append(p []byte) {
	w.buf = append(w.borrow(), p...)
	w.appended += uint64(len(p))
}

// mark is called before a message is written, and frame after it: start and
// end are the message's place in the stream, equal if nothing was written.
func (w *wireWriter) mark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frameStart, w.frameEnd = w.appended, w.appended
}

func (w *wireWriter) frame() (start, end uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frameStart, w.frameEnd
}

// writtenBytes is how far into the stream the network has taken bytes, after what is
// being flushed.
func (w *wireWriter) writtenBytes() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.busy {
		w.flushed.Wait()
	}
	return w.written
}

// ping sends an empty ping, after the frame under way. It does not wait.
func (w *wireWriter) ping() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.putPing() {
		w.relieve()
	}
}

// pingWait is ping for a goroutine that may wait for the network.
func (w *wireWriter) pingWait() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.putPing() {
		return
	}
	w.control = w.appended
	if !w.relief {
		w.relief = true
		w.flushControl()
	}
}

// putPing reports whether the ping is to be flushed now.
func (w *wireWriter) putPing() bool {
	if w.err != nil || w.closeCode != 0 {
		return false
	}
	if w.left > 0 {
		w.pingDue = true
		return false
	}
	w.appendPing()
	return true
}

func (w *wireWriter) appendPing() {
	frame := [6]byte{finBit | opPing, maskBit}
	binary.LittleEndian.PutUint32(frame[2:], rand.Uint32())
	w.append(frame[:])
	w.pingDue = false
	w.pingAt = w.now()
}

// sendClose sends a close frame, unless one was sent before, and nothing after
// it. No frame is under way. It returns when the network took it, or failed.
func (w *wireWriter) sendClose(code StatusCode, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil || w.closeCode != 0 {
		return
	}
	payload := append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
	frame := appendFrame(make([]byte, 0, maxFrameHeader+len(payload)), opClose, payload)
	w.append(frame)
	w.closeCode, w.closeEnd, w.sealed = code, w.appended, true
	w.flushTo(w.appended)
}

// ponged returns the time since the last ping.
func (w *wireWriter) ponged() (roundTrip time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pingAt == 0 {
		return 0, false
	}
	roundTrip, w.pingAt = w.now()-w.pingAt, 0
	return roundTrip, true
}

// relieve flushes control frames on a goroutine of its own, so that neither
// the reader nor the heartbeat waits for a network that takes nothing.
func (w *wireWriter) relieve() {
	w.control = w.appended
	if w.relief {
		return
	}
	w.relief = true
	w.spawn(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.flushControl()
	})
}

// flushControl flushes control frames, and those that come meanwhile. The caller
// is the one who does; mu is held.
func (w *wireWriter) flushControl() {
	for w.flushTo(w.control) && w.written < w.control {
		// more of them came meanwhile
	}
	w.relief = false
}

// flush returns when the network has taken all that was written before, or has
// failed.
func (w *wireWriter) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.flushTo(w.appended) {
		return w.err
	}
	return nil
}

// flushTo is flush up to a position, called with mu held.
func (w *wireWriter) flushTo(target uint64) bool {
	for w.written < target && w.err == nil {
		if w.busy {
			w.flushed.Wait()
			continue
		}
		if w.watch == nil {
			w.watching.Store(true)
			w.watch = time.AfterFunc(w.timeout, w.check)
		}
		w.busy = true
		buf := w.buf
		w.buf, w.pongs = nil, 0
		w.mu.Unlock()
		n, err := w.send(buf)
		if cap(buf) == maxFlush {
			flushBuffers.Put((*[maxFlush]byte)(buf[:maxFlush]))
		}
		w.mu.Lock()
		w.written += uint64(n)
		w.err = err
		w.busy = false
		w.flushed.Broadcast()
	}
	return w.written >= target
}

// send hands buf to the network.
func (w *wireWriter) send(buf []byte) (sent int, err error) {
	for sent < len(buf) && err == nil {
		w.guard()
		var n int
		n, err = w.dst.Write(buf[sent:min(len(buf), sent+maxFlush)])
		w.deadline.Store(0)
		sent += n
	}
	w.counters.bytesOut.Add(uint64(sent))
	return sent, err
}

// guard starts the write timeout. Its timer is armed at most once per timeout,
// however many writes there are.
func (w *wireWriter) guard() {
	w.deadline.Store(int64(w.now() + w.timeout))
	if !w.watching.Swap(true) {
		w.watch.Reset(w.timeout)
	}
}

// check looks whether the write under way is late.
func (w *wireWriter) check() {
	deadline := w.deadline.Load()
	if deadline == 0 {
		w.watching.Store(false)
		// A write that began meanwhile trusted the timer.
		if deadline = w.deadline.Load(); deadline == 0 || w.watching.Swap(true) {
			return
		}
	}
	late := w.now() - time.Duration(deadline)
	if late >= 0 {
		w.stalled()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.watch.Reset(-late)
}

// broken reports whether the network takes no more bytes.
func (w *wireWriter) broken() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err != nil
}

// stopWatch ends the write timeout; nothing is written any more.
func (w *wireWriter) stopWatch() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watch != nil {
		w.watch.Stop()
	}
}

// closed reports the close frame that was written, 0 if none, and whether the
// network took it.
func (w *wireWriter) closed() (code StatusCode, sent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closeCode, w.closeCode != 0 && w.written >= w.closeEnd
}
