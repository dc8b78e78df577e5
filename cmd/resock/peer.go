package main

import (
	"context"
	endian "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// peer is a connection of a client.
type peer struct {
	server *server
	number int
	conn   *websocket.Conn
	gate   *gate
	ctx    context.Context // ends with the connection
	cancel context.CancelFunc

	sending sync.Mutex // one message at a time

	mu       sync.Mutex
	messages int64 // both ways
	waiting  []*waitingFault
	timers   []*time.Timer
	cause    string // why the connection ends, if that is the server's doing
	noPongs  lapse
	silent   lapse
	resumed  chan struct{} // closed when silent changes
}

// serve serves a connection until it ends.
func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	p := &peer{server: s, ctx: ctx, cancel: cancel, resumed: make(chan struct{})}
	gated := &gateWriter{ResponseWriter: w}
	conn, err := websocket.Accept(gated, r, &websocket.AcceptOptions{
		Subprotocols: s.subprotocols, CompressionMode: s.mode, InsecureSkipVerify: true,
		OnPingReceived: func(context.Context, []byte) bool { return p.answersPings() },
	})
	if err != nil {
		s.log("%s: refused: %v", r.RemoteAddr, errors.Unwrap(err))
		return
	}
	p.conn, p.gate = conn, gated.gate
	conn.SetReadLimit(-1)
	if !s.add(p) {
		_ = conn.Close(websocket.StatusGoingAway, goingAway)
		return
	}
	defer s.remove(p)
	p.log("connected from %s to %s%s", r.RemoteAddr, r.URL.Path, p.negotiated())
	p.run()
}

func (p *peer) negotiated() string {
	if name := p.conn.Subprotocol(); name != "" {
		return ", subprotocol " + name
	}
	return ""
}

func (p *peer) log(format string, args ...any) {
	p.server.log("#%d "+format, append([]any{p.number}, args...)...)
}

// run reads, and lets the server's tasks run beside, until the connection ends.
func (p *peer) run() {
	p.arm()
	var tasks sync.WaitGroup
	for _, task := range p.server.tasks {
		tasks.Go(func() { task(p) })
	}
	err := p.read()
	p.cancel()
	p.disarm()
	p.log("%s", p.endText(err))
	_ = p.conn.CloseNow()
	_ = p.gate.Close()
	tasks.Wait()
}

// endText tells how the connection ended.
func (p *peer) endText(err error) string {
	cause, closed := p.ending(), websocket.CloseError{}
	switch {
	case errors.As(err, &closed) && cause != "":
		return fmt.Sprintf("closed by the server (%s); the client answered %s", cause, codeText(closed))
	case errors.As(err, &closed):
		return "closed by the client: " + codeText(closed)
	case cause != "":
		return "ended by the server: " + cause
	case errors.Is(err, io.EOF):
		return "lost: the client ended the TCP connection without a close frame"
	}
	return "lost: " + innermost(err).Error()
}

// codeText is a code with its reason.
func codeText(c websocket.CloseError) string {
	if c.Reason == "" {
		return fmt.Sprint(int(c.Code))
	}
	return fmt.Sprintf("%d %q", int(c.Code), c.Reason)
}

func innermost(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}

// ends notes why the server ends the connection. The first reason counts.
func (p *peer) ends(cause string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cause == "" {
		p.cause = cause
	}
}

// ending is why the server ends the connection, or "" if it does not.
func (p *peer) ending() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

// read serves the messages of the client.
func (p *peer) read() error {
	for {
		typ, data, err := p.conn.Read(p.ctx)
		if err != nil {
			return err
		}
		p.counted(1)
		if prefix := p.server.commands; prefix != "" && typ == websocket.MessageText {
			if text, ok := strings.CutPrefix(string(data), prefix); ok {
				p.command(text)
				continue
			}
		}
		if p.server.echo && !p.silenced() {
			if err := p.send(typ, data); err != nil {
				return err
			}
		}
	}
}

// command does what the client asked for, and tells it what it did not understand.
func (p *peer) command(text string) {
	if strings.TrimSpace(text) == "help" {
		_ = p.send(websocket.MessageText, []byte(faultHelp()))
		return
	}
	f, err := parseFault(text)
	if err != nil {
		_ = p.send(websocket.MessageText, []byte("resock serve: "+err.Error()+"; help lists all"))
		return
	}
	if f.kind.peer == nil {
		p.server.schedule(f)
		return
	}
	p.schedule(f)
}

// send sends a message.
func (p *peer) send(typ websocket.MessageType, data []byte) error {
	p.sending.Lock()
	err := p.conn.Write(p.ctx, typ, data)
	p.sending.Unlock()
	p.counted(1)
	return err
}

// sendMessages sends frames of whole messages, unless the server ends the connection: a
// close frame is the last one.
func (p *peer) sendMessages(frames []byte) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	p.gate.writing.Lock()
	defer p.gate.writing.Unlock()
	if p.ending() != "" {
		return net.ErrClosed
	}
	_, err := p.gate.write(frames)
	return err
}

// sendRaw sends bytes as they are, between messages.
func (p *peer) sendRaw(frames []byte) error {
	p.sending.Lock()
	defer p.sending.Unlock()
	_, err := p.gate.Write(frames)
	return err
}

// counted counts messages, for the faults that wait for that.
func (p *peer) counted(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.messages += n
	p.waiting = slices.DeleteFunc(p.waiting, func(w *waitingFault) bool {
		if p.messages < w.due {
			return false
		}
		for w.due <= p.messages {
			w.due += w.fault.messages
		}
		if !w.striking { // else the messages of a burst would be a reason for the next
			w.striking = true
			go p.strikeOf(w)
		}
		return !w.fault.every
	})
}

func (p *peer) strikeOf(w *waitingFault) {
	p.strike(w.fault)
	p.mu.Lock()
	defer p.mu.Unlock()
	w.striking = false
}

// waitingFault is a fault that waits for messages.
type waitingFault struct {
	*fault
	due      int64 // messages in all
	striking bool  // it has not come to its end
}

// arm schedules the faults that every connection meets.
func (p *peer) arm() {
	for _, f := range p.server.faults {
		if f.kind.peer != nil {
			p.schedule(f)
		}
	}
}

// schedule lets a fault happen at its time.
func (p *peer) schedule(f *fault) {
	if f.atOnce() {
		p.strike(f)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.messages > 0 {
		p.waiting = append(p.waiting, &waitingFault{fault: f, due: p.messages + f.messages})
		return
	}
	p.timers = append(p.timers, after(f, p.ctx, p.strike))
}

func (p *peer) disarm() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, timer := range p.timers {
		timer.Stop()
	}
}

// after lets a fault strike at its time, or times, unless ctx is done by then.
func after(f *fault, ctx context.Context, strike func(*fault)) *time.Timer {
	var timer *time.Timer
	ready := make(chan struct{})
	timer = time.AfterFunc(f.delay, func() {
		<-ready
		if ctx.Err() != nil {
			return
		}
		if f.every {
			timer.Reset(f.delay)
		}
		strike(f)
	})
	close(ready)
	return timer
}

// strike lets a fault happen. One that lasts is told once it has begun.
func (p *peer) strike(f *fault) {
	if f.kind.lasting {
		f.kind.peer(p, f)
	}
	p.log("fault: %s", f.text)
	if !f.kind.lasting {
		f.kind.peer(p, f)
	}
}

func (p *peer) drop(f *fault) {
	p.ends(f.text)
	p.gate.reset()
}

func (p *peer) end(f *fault) {
	p.ends(f.text)
	p.gate.end()
}

// close closes by a handshake. What coder/websocket would not send goes out as it is.
func (p *peer) close(f *fault) {
	p.ends(f.text)
	if code := websocket.StatusCode(f.code); mayBeSent(code) {
		_ = p.conn.Close(code, f.reason)
		return
	}
	payload := []byte(nil)
	if f.code > 0 {
		payload = append(endian.BigEndian.AppendUint16(nil, uint16(f.code)), f.reason...)
	}
	_ = p.sendRaw(appendFrame(nil, opClose, payload))
	select { // the client answers and ends the TCP connection, or does not
	case <-p.ctx.Done():
	case <-time.After(5 * time.Second):
		p.gate.end()
	}
}

// mayBeSent reports whether a close frame may have the code (RFC 6455, section 7.4).
func mayBeSent(code websocket.StatusCode) bool {
	switch code {
	case 1004, websocket.StatusNoStatusRcvd, websocket.StatusAbnormalClosure, websocket.StatusTLSHandshake:
		return false
	}
	return code >= 1000 && code <= 1014 || code >= 3000 && code <= 4999
}

func (p *peer) stall(f *fault) {
	p.gate.change(func() { p.gate.reads.begin(f.lasts); p.gate.writes.begin(f.lasts) })
}

func (p *peer) deafen(f *fault) {
	p.gate.narrow()
	p.gate.change(func() { p.gate.reads.begin(f.lasts) })
}

func (p *peer) slow(f *fault) {
	p.gate.narrow()
	p.gate.change(func() { p.gate.slow.begin(f.lasts); p.gate.rate = f.number })
}

func (p *peer) stopPongs(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noPongs.begin(f.lasts)
}

func (p *peer) answersPings() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.noPongs.left() == 0
}

func (p *peer) silence(f *fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent.begin(f.lasts)
}

func (p *peer) silenced() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.silent.left() > 0
}

// audible waits until the connection may have messages. It reports false when that ends.
func (p *peer) audible() bool {
	for {
		p.mu.Lock()
		left, resumed := p.silent.left(), p.resumed
		p.mu.Unlock()
		if left == 0 {
			return p.ctx.Err() == nil
		}
		timer := time.NewTimer(left)
		select {
		case <-p.ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		case <-resumed:
			timer.Stop()
		}
	}
}

// garbage sends bytes that begin like a frame with reserved bits and a reserved opcode.
func (p *peer) garbage(*fault) { _ = p.sendRaw([]byte(strings.Repeat("\x7fgarbage", 8))) }

// half sends a frame that says 1,000 bytes and has 500, and ends.
func (p *peer) half(f *fault) {
	p.ends(f.text)
	frame := appendFrame(nil, opText, make([]byte, 1000))
	_ = p.sendRaw(frame[:len(frame)-500])
	p.gate.end()
}

func (p *peer) burst(f *fault) {
	for n := range f.number {
		text := fmt.Appendf(nil, "burst %d of %d", n+1, f.number)
		if f.size >= 0 {
			text = padded(text, f.size)
		}
		if p.send(websocket.MessageText, text) != nil {
			return
		}
	}
}

// recover ends the faults that last.
func (p *peer) recover(*fault) {
	p.gate.change(func() { p.gate.reads.clear(); p.gate.writes.clear(); p.gate.slow.clear() })
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noPongs.clear()
	p.silent.clear()
	close(p.resumed)
	p.resumed = make(chan struct{})
}

// padded is text of exactly size bytes.
func padded(text []byte, size int64) []byte {
	for int64(len(text)) < size {
		text = append(text, '.')
	}
	return text[:size]
}

// Opcodes of frames (RFC 6455, section 5.2).
const (
	opText   = 1
	opBinary = 2
	opClose  = 8
)

// appendFrame appends a whole frame of a server.
func appendFrame(b []byte, opcode byte, payload []byte) []byte {
	b = append(b, 0x80|opcode)
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = append(b, 126)
		b = endian.BigEndian.AppendUint16(b, uint16(n))
	default:
		b = append(b, 127)
		b = endian.BigEndian.AppendUint64(b, uint64(n))
	}
	return append(b, payload...)
}
