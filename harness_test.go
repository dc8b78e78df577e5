package resock

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// header returns the header of an unmasked frame, with the shortest length.
func header(first byte, length uint64) []byte {
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
	return append(header(first, uint64(len(payload))), payload...)
}

// masked returns a masked frame, as a client sends it.
func masked(first byte, payload string) []byte {
	b := header(first, uint64(len(payload)))
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

// join returns a stream of frames.
func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

// sentFrame is a frame that the client wrote.
type sentFrame struct {
	first   byte
	payload string
}

func (f sentFrame) String() string { return fmt.Sprintf("%#x %.40q", f.first, f.payload) }

// sentFrames takes what a client wrote apart. Every byte must belong to a
// complete masked frame.
func sentFrames(t testing.TB, b []byte) (frames []sentFrame) {
	t.Helper()
	for len(b) > 0 {
		h, ok := parseFrameHeader(b)
		if !ok || !h.masked || h.length < 0 || int64(len(b)-h.size) < h.length {
			t.Fatalf("after %v the client wrote no frame: % x", frames, b)
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

// script is a transport whose server has sent everything already. It hands out
// at most cut bytes at once, and ends by end.
type script struct {
	in   []byte
	cut  func() int
	end  error
	last bool // end comes with the last bytes

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

// inTwo cuts once, after n bytes.
func inTwo(n int) func() int {
	return func() int {
		defer func() { n = 1 << 30 }()
		return n
	}
}

// byBytes cuts everywhere.
func byBytes() int { return 1 }

// switching answers an upgrade with a body.
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

// setting is how a stream is read.
type setting struct {
	limit     int64
	extension string // permessage-deflate and its parameters, if negotiated
	handler   bool   // WithMessageHandler
}

func (s setting) dial(t testing.TB, body io.ReadCloser) (*websocket.Conn, http.Header) {
	t.Helper()
	opts := &websocket.DialOptions{HTTPClient: &http.Client{Transport: switching{body, s.extension}}}
	if s.extension != "" {
		opts.CompressionMode = websocket.CompressionContextTakeover
	}
	conn, response, err := websocket.Dial(context.Background(), "ws://server.test", opts)
	if err != nil {
		t.Fatal(err)
	}
	return conn, response.Header
}

// message is a message that was delivered.
type message struct {
	typ  MessageType
	data string
}

func (m message) String() string { return fmt.Sprintf("%d:%.40q(%d)", m.typ, m.data, len(m.data)) }

// outcome is all that reading a stream led to.
type outcome struct {
	messages []message
	sent     []sentFrame
	end      string
}

func (o outcome) String() string {
	return fmt.Sprintf("messages %v\nsent     %v\nend      %s", o.messages, o.sent, o.end)
}

const endLost = "lost"

func endClosed(code StatusCode, reason string) string {
	return fmt.Sprintf("closed %d %q", code, reason)
}
func endProtocol(code StatusCode) string { return fmt.Sprintf("protocol error %d", code) }

// overWire reads src as a session does.
func overWire(t testing.TB, set setting, src *script) (got outcome) {
	t.Helper()
	s := wiredSession(t, set, src)
	collected := collect(t, s)
	e := s.finish(s.read())
	got.messages = collected()
	got.sent = sentFrames(t, append(src.written(), s.wire.pending()...))
	switch {
	case e.closing:
		got.end = endClosed(e.code, e.reason)
	case e.phase == PhaseProtocol:
		got.end = endProtocol(e.code)
	case e.phase == PhaseRead:
		got.end = endLost
	default:
		got.end = fmt.Sprintf("unexpected: %v %v", e.phase, e.err)
	}
	return got
}

// wiredSession returns a session over src, ready to be read.
func wiredSession(t testing.TB, set setting, src io.ReadWriteCloser) *session {
	t.Helper()
	opts := []Option{WithReadLimit(set.limit)}
	if set.handler {
		opts = append(opts, WithMessageHandler(func(MessageType, []byte) {}))
	}
	client, err := New("ws://server.test", opts...)
	if err != nil {
		t.Fatal(err)
	}
	s := &session{client: client, id: 1}
	s.wire.lay(src, nil)
	conn, header := set.dial(t, &s.wire)
	s.conn = conn
	s.setUp(header)
	return s
}

// collect replaces the delivery of s. Messages that are to be kept are looked at
// only in the end.
func collect(t testing.TB, s *session) func() []message {
	r := &s.wire.wireReader
	var kept []MessageEvent
	var copied []message
	r.deliver = func(typ MessageType, data []byte) bool {
		if data == nil || len(data) != cap(data) {
			t.Errorf("a message of %d bytes has room for %d (nil: %t)", len(data), cap(data), data == nil)
		}
		if r.keep {
			kept = append(kept, MessageEvent{Type: typ, Data: data})
		} else {
			copied = append(copied, message{typ, string(data)})
		}
		return true
	}
	return func() []message {
		for _, m := range kept {
			copied = append(copied, message{m.Type, string(m.Data)})
		}
		return copied
	}
}

// pending returns what nobody has flushed.
func (w *wire) pending() []byte {
	w.wireWriter.mu.Lock()
	defer w.wireWriter.mu.Unlock()
	return slices.Clone(w.wireWriter.buf)
}

// errEnd ends a script in a way that coder/websocket does not take for the end
// of a message.
var errEnd = errors.New("the script is over")

// alone reads src by coder/websocket alone.
func alone(t testing.TB, set setting, src *script) (got outcome) {
	t.Helper()
	conn, _ := set.dial(t, src)
	conn.SetReadLimit(set.limit)
	var err error
	for err == nil {
		var typ MessageType
		var data []byte
		if typ, data, err = conn.Read(context.Background()); err == nil {
			got.messages = append(got.messages, message{typ, string(data)})
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
		got.end = endClosed(closed.Code, closed.Reason)
	case last.first == finBit|opClose:
		got.end = endProtocol(StatusCode(binary.BigEndian.Uint16([]byte(last.payload))))
	case errors.Is(err, errEnd):
		got.end = endLost
	default:
		got.end = fmt.Sprintf("failed: %v", err)
	}
	return got
}
