package wire

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/coder/websocket"
)

// head returns the header of an unmasked frame, with the shortest length.
func head(first byte, length uint64) []byte {
	switch {
	case length <= maxControlPayload:
		return []byte{first, byte(length)}
	case length <= 0xFFFF:
		return binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(length))
	}
	return binary.BigEndian.AppendUint64([]byte{first, 127}, length)
}

// frame returns an unmasked frame, as a server sends it.
func frame(first byte, payload string) []byte {
	return append(head(first, uint64(len(payload))), payload...)
}

// The first bytes of unfragmented frames.
const (
	textFrame   = finBit | opText
	binaryFrame = finBit | opBinary
	pingFrame   = finBit | opPing
	pongFrame   = finBit | opPong
	closeFrame  = finBit | opClose
)

// masked returns a masked frame, as a client sends it.
func masked(first byte, payload string) []byte {
	b := head(first, uint64(len(payload)))
	b[1] |= maskBit
	key := [4]byte{1, 2, 3, 4}
	b = append(b, key[:]...)
	for i := range len(payload) {
		b = append(b, payload[i]^key[i%4])
	}
	return b
}

// closePayload is the payload of a close frame.
func closePayload(code int, reason string) string {
	return string(binary.BigEndian.AppendUint16(nil, uint16(code))) + reason
}

// ping returns the payload of our ping with the given number.
func ping(number uint32) string { return string(binary.BigEndian.AppendUint32(nil, number)) }

// join returns a stream of frames.
func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// whole returns frames as a single piece.
func whole(frames ...[]byte) [][]byte { return [][]byte{join(frames...)} }

// chopped returns frames in pieces of n bytes.
func chopped(n int, frames ...[]byte) [][]byte {
	return slices.Collect(slices.Chunk(join(frames...), n))
}

// fragmented returns the frames of a message in fragments of n bytes.
func fragmented(opcode byte, payload string, n int) (frames [][]byte) {
	for len(payload) > n {
		frames = append(frames, frame(opcode, payload[:n]))
		opcode, payload = opContinuation, payload[n:]
	}
	return append(frames, frame(finBit|opcode, payload))
}

// sentFrame is a frame that the client wrote.
type sentFrame struct {
	first   byte
	payload string
}

func (f sentFrame) String() string { return fmt.Sprintf("%#x %.40q", f.first, f.payload) }

// sentFrames parses what a client wrote, which must consist of complete, masked
// frames.
func sentFrames(t testing.TB, b []byte) (frames []sentFrame) {
	t.Helper()
	for len(b) > 0 {
		h, ok := parseHeader(b)
		if !ok || !h.masked || h.length < 0 || int64(len(b)-h.size) < h.length {
			t.Fatalf("after %v: not a complete masked frame: % x", frames, b)
		}
		key := b[h.size-4 : h.size]
		payload := bytes.Clone(b[h.size : h.size+int(h.length)])
		for i := range payload {
			payload[i] ^= key[i%4]
		}
		frames = append(frames, sentFrame{h.first, string(payload)})
		b = b[h.size+int(h.length):]
	}
	return frames
}

func checkSent(t testing.TB, got []byte, want ...sentFrame) {
	t.Helper()
	if frames := sentFrames(t, got); !slices.Equal(frames, want) {
		t.Errorf("sent %v, want %v", frames, want)
	}
}

// switching is an http.RoundTripper that switches protocols. The body is the connection.
type switching struct {
	body      io.ReadCloser
	extension string
}

func (s switching) RoundTrip(request *http.Request) (*http.Response, error) {
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	header := http.Header{
		"Connection":           {"Upgrade"},
		"Upgrade":              {"websocket"},
		"Sec-Websocket-Accept": {base64.StdEncoding.EncodeToString(sum[:])},
	}
	if s.extension != "" {
		header.Set("Sec-WebSocket-Extensions", s.extension)
	}
	return &http.Response{
		StatusCode: http.StatusSwitchingProtocols,
		ProtoMajor: 1, ProtoMinor: 1,
		Header:  header,
		Body:    s.body,
		Request: request,
	}, nil
}

// setting configures the reader of a stream.
type setting struct {
	limit     int64
	extension string // permessage-deflate and its parameters, if negotiated
	borrow    bool
}

// dial returns a connection of coder/websocket, the oracle of some tests, over body.
func (s setting) dial(t testing.TB, body io.ReadCloser) *websocket.Conn {
	t.Helper()
	opts := &websocket.DialOptions{HTTPClient: &http.Client{Transport: switching{body, s.extension}}}
	if s.extension != "" {
		opts.CompressionMode = websocket.CompressionContextTakeover
	}
	conn, _, err := websocket.Dial(context.Background(), "ws://server.test", opts)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// Timeouts of the connections that start returns.
const (
	writeTimeout = 10 * time.Second
	closeTimeout = 5 * time.Second
)

// owner is an Owner that answers every ping, unless told otherwise.
type owner struct {
	answer  func(payload []byte) bool // if not nil, decides about each ping
	stalled func()                    // if not nil, is called by Stalled
	borrow  bool                      // next borrows

	pings, pongs []string     // payloads; written by the reading goroutine
	stalls       atomic.Int64 // calls of Stalled
	failures     atomic.Int64 // calls of Failed
	spawned      atomic.Int64 // calls of Go
	running      sync.WaitGroup
}

func (o *owner) Ping(payload []byte) bool {
	o.pings = append(o.pings, string(payload))
	return o.answer == nil || o.answer(payload)
}

func (o *owner) Pong(payload []byte) { o.pongs = append(o.pongs, string(payload)) }

func (o *owner) Stalled() {
	o.stalls.Add(1)
	if o.stalled != nil {
		o.stalled()
	}
}

func (o *owner) Failed(error) { o.failures.Add(1) }

func (o *owner) Go(f func()) {
	o.spawned.Add(1)
	o.running.Go(f)
}

// join waits for the goroutines of the connection.
func (o *owner) join() { o.running.Wait() }

// idle is an owner whose goroutines never run.
type idle struct{ *owner }

func (o idle) Go(func()) { o.spawned.Add(1) }

// start starts a connection with a Config of its own. A transport that is a net.Conn is
// the network connection as well.
func start(t testing.TB, set setting, transport io.ReadWriteCloser) (*Conn, *owner) {
	t.Helper()
	var extensions []string
	if set.extension != "" {
		extensions = []string{set.extension}
	}
	deflate, err := Accept(extensions, true)
	if err != nil {
		t.Fatal(err)
	}
	config := &Config{
		ReadLimit:    set.limit,
		WriteTimeout: writeTimeout,
		CloseTimeout: closeTimeout,
		Counters:     new(Counters),
	}
	network, _ := transport.(net.Conn)
	c, o := new(Conn), &owner{borrow: set.borrow}
	c.Start(transport, network, deflate, config, o)
	return c, o
}

// finish takes down a connection whose reading has ended, as its owner must.
func finish(c *Conn, o *owner) {
	c.Close()
	o.join()
	c.Release()
}

func borrows(c *Conn) bool { return c.owner.(*owner).borrow }

// next calls Next, and borrows if the setting says so.
func next(c *Conn) ([]Message, error) { return c.Next(borrows(c)) }

// drain reads until Next fails, and returns the error.
func drain(c *Conn) error {
	for {
		if _, err := next(c); err != nil {
			return err
		}
	}
}

// message is a message that was delivered.
type message struct {
	typ  Type
	data string
}

func (m message) String() string { return fmt.Sprintf("%d:%.40q(%d)", m.typ, m.data, len(m.data)) }

func texts(payloads ...string) (want []message) {
	for _, payload := range payloads {
		want = append(want, message{Text, payload})
	}
	return want
}

func binaries(payloads ...string) (want []message) {
	for _, payload := range payloads {
		want = append(want, message{Binary, payload})
	}
	return want
}

// outcome is everything that reading a stream led to.
type outcome struct {
	messages []message
	sent     []sentFrame
	end      string
}

func (o outcome) String() string {
	return fmt.Sprintf("messages %v\nsent     %v\nend      %s", o.messages, o.sent, o.end)
}

const endLost = "lost"

func endClosed(code int, reason string) string { return fmt.Sprintf("closed %d %q", code, reason) }
func endProtocol(code int) string              { return fmt.Sprintf("protocol error %d", code) }

// endOf describes the error that ended reading.
func endOf(err error) string {
	var closed *Closed
	var violation *Violation
	var lost *Lost
	switch {
	case errors.As(err, &closed):
		return endClosed(closed.Code, closed.Reason)
	case errors.As(err, &violation):
		return endProtocol(violation.Code)
	case errors.As(err, &lost):
		return endLost
	}
	return fmt.Sprintf("unexpected: %v", err)
}

// overWire reads src as a session does.
func overWire(t testing.TB, set setting, src *script) (got outcome) {
	t.Helper()
	c, o := start(t, set, src)
	messages, err := readAll(t, c)
	finish(c, o)
	got.messages = messages()
	got.sent = sentFrames(t, append(src.written(), pending(c)...))
	got.end = endOf(err)
	if c.End() != err {
		t.Errorf("Next returned %v, End returns %v", err, c.End())
	}
	return got
}

// readAll reads until Next fails. Data that is not borrowed is looked at only when the
// returned function is called, after all reads: it must not have changed by then.
func readAll(t testing.TB, c *Conn) (messages func() []message, err error) {
	t.Helper()
	var kept []Message
	var copied []message
	for {
		burst, err := next(c)
		if err != nil {
			if len(burst) != 0 {
				t.Errorf("Next returned %d messages along with %v", len(burst), err)
			}
			return func() []message { return append(copied, copies(kept)...) }, err
		}
		checkBurst(t, burst)
		if borrows(c) {
			copied = append(copied, copies(burst)...)
		} else {
			kept = append(kept, burst...)
		}
	}
}

func checkBurst(t testing.TB, burst []Message) {
	t.Helper()
	if len(burst) == 0 || len(burst) > maxBurst {
		t.Errorf("burst of %d messages, want 1 to %d", len(burst), maxBurst)
	}
	for _, m := range burst {
		if m.Data == nil || len(m.Data) != cap(m.Data) {
			t.Errorf("data has len %d and cap %d (nil: %t), want the same and not nil", len(m.Data), cap(m.Data), m.Data == nil)
		}
	}
}

func copies(messages []Message) (copied []message) {
	for _, m := range messages {
		copied = append(copied, message{m.Type, string(m.Data)})
	}
	return copied
}

func put(t testing.TB, c *Conn, typ Type, data string) {
	t.Helper()
	if err := c.Write(&Outgoing{Type: typ, Data: []byte(data)}); err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, c *Conn) {
	t.Helper()
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
}

// checkRefused checks that messages are refused with an error, and get no position.
func checkRefused(t *testing.T, c *Conn, want error) {
	t.Helper()
	pendingBefore := len(pending(c))
	messages := []Outgoing{{Type: Text, Data: []byte("refused")}, {Type: Binary}}
	if err := c.Write(&messages[0]); err != want {
		t.Errorf("Write: got %v, want %v", err, want)
	}
	if err := c.WriteAll(2, func(i int) *Outgoing { return &messages[i] }); err != want {
		t.Errorf("WriteAll: got %v, want %v", err, want)
	}
	for _, m := range messages {
		if m.start != m.end || !m.Untouched(0) || !m.Untouched(1<<40) {
			t.Errorf("a refused message has the position %d to %d", m.start, m.end)
		}
	}
	if got := len(pending(c)); got != pendingBefore {
		t.Errorf("%d bytes of refused messages were appended", got-pendingBefore)
	}
}

// pending returns the bytes that were not flushed yet.
func pending(c *Conn) []byte {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return slices.Clone(c.out.buf)
}

// broken reports whether a write has failed. It panics unless the owner was told once.
func broken(c *Conn) bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	told := int64(0)
	if c.out.err != nil {
		told = 1
	}
	if o, ok := c.owner.(*owner); ok && o.failures.Load() != told {
		panic("Failed was not called exactly once per failed connection")
	}
	return c.out.err != nil
}

// errEnd ends a script. Unlike io.EOF, coder/websocket does not take it for the end of a
// message.
var errEnd = errors.New("end of script")

// alone reads src with coder/websocket instead of a Conn.
func alone(t testing.TB, set setting, src *script) (got outcome) {
	t.Helper()
	conn := set.dial(t, src)
	conn.SetReadLimit(set.limit)
	var err error
	for err == nil {
		var typ websocket.MessageType
		var data []byte
		if typ, data, err = conn.Read(context.Background()); err == nil {
			got.messages = append(got.messages, message{Type(typ), string(data)})
		}
	}
	_ = conn.CloseNow()
	got.sent = sentFrames(t, src.written())

	var closed websocket.CloseError
	last := sentFrame{}
	if len(got.sent) > 0 {
		last = got.sent[len(got.sent)-1]
	}
	switch {
	case errors.As(err, &closed):
		got.end = endClosed(int(closed.Code), closed.Reason)
	case last.first == finBit|opClose:
		got.end = endProtocol(int(binary.BigEndian.Uint16([]byte(last.payload))))
	case errors.Is(err, errEnd):
		got.end = endLost
	default:
		got.end = fmt.Sprintf("failed: %v", err)
	}
	return got
}

// mixedStream has every kind of frame that a server may send, and mixedOutcome
// is what it leads to.
var mixedStream = join(
	frame(finBit|opText, ""),
	frame(finBit|opText, "héllo"),
	frame(finBit|opBinary, "\x00\xff"),
	frame(finBit|opPing, "are you there?"),
	frame(opText, "h\xc3"),
	frame(finBit|opPong, ""),
	frame(opContinuation, ""),
	frame(finBit|opPing, ""),
	frame(finBit|opContinuation, "\xa9llo"),
	frame(finBit|opPong, "unasked"),
	frame(finBit|opBinary, strings.Repeat("b", 300)),
	frame(opBinary, ""),
	frame(finBit|opContinuation, ""),
	frame(finBit|opText, "…"),
	frame(finBit|opClose, closePayload(4000, "bye")),
)

var mixedOutcome = outcome{
	messages: []message{
		{Text, ""},
		{Text, "héllo"},
		{Binary, "\x00\xff"},
		{Text, "héllo"},
		{Binary, strings.Repeat("b", 300)},
		{Binary, ""},
		{Text, "…"},
	},
	sent: []sentFrame{
		{finBit | opPong, "are you there?"},
		{finBit | opPong, ""},
		{finBit | opClose, closePayload(4000, "bye")},
	},
	end: endClosed(4000, "bye"),
}

func checkOutcome(t testing.TB, what string, got, want outcome) {
	t.Helper()
	if got.String() != want.String() || !slices.Equal(got.messages, want.messages) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, got, want)
	}
}

// bothWays runs a test without and with borrowing.
func bothWays(t *testing.T, test func(t *testing.T, set setting)) {
	for _, borrow := range []bool{false, true} {
		t.Run(fmt.Sprintf("borrow=%v", borrow), func(t *testing.T) {
			test(t, setting{limit: 1 << 20, borrow: borrow})
		})
	}
}

// recycled reports whether the pool hands out again what use returned. A pool may drop
// anything at any time, but hardly in every one of so many attempts.
func recycled[T any](pool *sync.Pool, use func() *T) bool {
	for range 50 {
		used := use()
		got := pool.Get().(*T)
		pool.Put(got)
		if used == got {
			return true
		}
	}
	return false
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// adjacent reports whether b begins where a ends.
func adjacent(a, b []byte) bool {
	return unsafe.Add(unsafe.Pointer(unsafe.SliceData(a)), len(a)) == unsafe.Pointer(unsafe.SliceData(b))
}

// within reports whether part lies in the memory of another slice.
func within(part, of []byte) bool {
	at := uintptr(unsafe.Pointer(unsafe.SliceData(part)))
	from := uintptr(unsafe.Pointer(unsafe.SliceData(of)))
	return at >= from && at < from+uintptr(len(of))
}
