package resock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"
)

func TestParseFrameHeader(t *testing.T) {
	for _, test := range []struct {
		bytes string
		want  frameHeader
	}{
		{"\x81\x00", frameHeader{0x81, false, 2, 0}},
		{"\x82\x7d", frameHeader{0x82, false, 2, 125}},
		{"\x01\x85key!", frameHeader{0x01, true, 6, 5}},
		{"\x82\x7e\x00\x7e", frameHeader{0x82, false, 4, 126}},
		{"\x82\x7e\x00\x05", frameHeader{0x82, false, 4, 5}},
		{"\x82\xfe\xff\xffkey!", frameHeader{0x82, true, 8, 65535}},
		{"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", frameHeader{0x82, false, 10, 65536}},
		{"\x82\xff\x00\x00\x01\x00\x00\x00\x00\x00key!", frameHeader{0x82, true, 14, 1 << 40}},
		{"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", frameHeader{0x82, false, 10, 1<<63 - 1}},
		{"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", frameHeader{0x82, false, 10, -1 << 63}},
		{"\xff\x7f\xff\xff\xff\xff\xff\xff\xff\xff", frameHeader{0xff, false, 10, -1}},
	} {
		for n := range test.bytes {
			if _, ok := parseFrameHeader([]byte(test.bytes[:n])); ok {
				t.Errorf("% x: complete after %d bytes", test.bytes, n)
			}
		}
		if h, ok := parseFrameHeader([]byte(test.bytes + "payload")); !ok || h != test.want {
			t.Errorf("% x: got %+v, %v", test.bytes, h, ok)
		}
	}
	h := frameHeader{first: 0b1101_1001}
	if !h.fin() || h.rsv() != 0b0101_0000 || h.opcode() != opPing || !h.control() {
		t.Errorf("got fin %v, rsv %#b, opcode %#x, control %v", h.fin(), h.rsv(), h.opcode(), h.control())
	}
}

func TestValidCloseCode(t *testing.T) {
	valid := []StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
	for code := StatusCode(3000); code <= 4999; code++ {
		valid = append(valid, code)
	}
	for code := StatusCode(-2); code <= 1<<16; code++ {
		if _, want := slices.BinarySearch(valid, code); validCloseCode(code) != want {
			t.Errorf("%d: got %v", code, !want)
		}
	}
}

// utf8Texts are texts on both sides of every border of UTF-8.
var utf8Texts = []string{
	"", "a", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "日本語", "🙂🙃",
	"\x00\x7f", "\u0080\u07ff", "\u0800\ud7ff\ue000\ufffd\uffff", "\U00010000\U0010ffff",
	"\x80", "\xbf", "\xc0", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2a", "\xdf\xbf\x80",
	"\xe0\x80\x80", "\xe0\x9f\xbf", "\xe0\xa0", "\xed\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf",
	"\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf0\x90\x80", "\xf4\x8f\xbf\xbf", "\xf4\x90\x80\x80",
	"\xf5", "\xf8\x88\x80\x80\x80", "\xfe", "\xff", "a\xe1\x80b", "\xf1\x80\x80b", "é\xc3",
	"κόσμε\xed\xa0\x80edited", "κόσμε\xf4\x90\x80\x80",
}

// completable reports by trial whether some continuation makes text valid.
func completable(text string) bool {
	if utf8.ValidString(text) {
		return true
	}
	const ends = "\x80\x90\xa0\x8f\xbf" // on both sides of every border
	for rest := []string{""}; len(rest[0]) < 3; {
		var longer []string
		for _, r := range rest {
			for i := range len(ends) {
				longer = append(longer, r+ends[i:i+1])
			}
		}
		for _, r := range longer {
			if utf8.ValidString(text + r) {
				return true
			}
		}
		rest = longer
	}
	return false
}

func TestUTF8Checker(t *testing.T) {
	for _, text := range utf8Texts {
		impossible := len(text) + 1 // the shortest impossible prefix
		for n := len(text); n > 0 && !completable(text[:n]); n-- {
			impossible = n
		}
		for cut := range len(text) + 1 {
			var u utf8Checker
			first := u.write([]byte(text[:cut]))
			if want := cut < impossible; first != want {
				t.Errorf("%q: the first %d bytes: got %v", text, cut, first)
			}
			if !first {
				continue
			}
			valid := u.write([]byte(text[cut:])) && u.done()
			if valid != utf8.ValidString(text) {
				t.Errorf("%q cut at %d: got %v", text, cut, valid)
			}
			if u.done(); !u.write([]byte("a")) {
				t.Errorf("%q cut at %d: what is left spoils the next text", text, cut)
			}
		}
		var u utf8Checker
		for i := range len(text) {
			if ok, want := u.write([]byte(text[i:i+1])), i+1 < impossible; ok != want {
				t.Errorf("%q by bytes: byte %d: got %v", text, i, ok)
			} else if !ok {
				break
			}
		}
	}
}

func TestRing(t *testing.T) {
	var r ring[int]
	var model []int
	check := func(step string) {
		t.Helper()
		got := make([]int, r.len)
		for i := range got {
			got[i] = *r.at(i)
		}
		if !slices.Equal(got, model) {
			t.Fatalf("%s: got %v, want %v", step, got, model)
		}
	}
	for i := 1; i <= 20000; i++ {
		grow := i%2000 < 1000 // long and empty in turn
		switch n := rand.IntN(10); {
		case n < 2 || n < 6 && grow:
			r.pushBack(i)
			model = append(model, i)
			check("pushBack")
		case n == 6:
			r.pushFront(i)
			model = append([]int{i}, model...)
			check("pushFront")
		case n == 7 && i%40 == 0:
			keep := func(v *int) bool { return *v%3 > 0 }
			r.filter(keep)
			model = slices.DeleteFunc(model, func(v int) bool { return !keep(&v) })
			check("filter")
		case len(model) > 0:
			if got := r.popFront(); got != model[0] {
				t.Fatalf("popFront: got %d, want %d", got, model[0])
			}
			model = model[1:]
			check("popFront")
		}
		held := 0
		for _, v := range r.items {
			if v != 0 {
				held++
			}
		}
		if held != r.len {
			t.Fatalf("%d items are kept alive, %d are in the ring", held, r.len)
		}
	}
	for r.len > 0 {
		r.popFront()
	}
	if len(r.items) > 64 {
		t.Errorf("the empty ring keeps room for %d", len(r.items))
	}
}

// mixed is a stream with every kind of frame that a server may send, and what
// it holds.
var mixed = join(
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
		{MessageText, ""},
		{MessageText, "héllo"},
		{MessageBinary, "\x00\xff"},
		{MessageText, "héllo"},
		{MessageBinary, strings.Repeat("b", 300)},
		{MessageBinary, ""},
		{MessageText, "…"},
	},
	sent: []sentFrame{
		{finBit | opPong, "are you there?"},
		{finBit | opPong, ""},
		{finBit | opClose, closePayload(4000, "bye")},
	},
	end: endClosed(4000, "bye"),
}

func checkOutcome(t *testing.T, what string, got, want outcome) {
	t.Helper()
	if got.String() != want.String() || !slices.Equal(got.messages, want.messages) {
		t.Errorf("%s: got\n%v\nwant\n%v", what, got, want)
	}
}

func TestReadEveryCut(t *testing.T) {
	for _, handler := range []bool{false, true} {
		set := setting{limit: 1 << 20, handler: handler}
		for cut := range len(mixed) {
			src := &script{in: mixed, cut: inTwo(cut), end: io.EOF}
			checkOutcome(t, fmt.Sprint("cut at ", cut), overWire(t, set, src), mixedOutcome)
		}
		src := &script{in: mixed, cut: byBytes, end: io.EOF}
		checkOutcome(t, "by bytes", overWire(t, set, src), mixedOutcome)
	}
}

// TestReadTruncated ends the stream at every byte: coder/websocket alone takes
// that for the end of a message.
func TestReadTruncated(t *testing.T) {
	set := setting{limit: 1 << 20}
	complete := 0 // messages in the shorter stream
	for n := range len(mixed) {
		for _, last := range []bool{false, true} {
			got := overWire(t, set, &script{in: mixed[:n], end: io.EOF, last: last})
			if got.end != endLost {
				t.Errorf("%d bytes: got %s", n, got.end)
			}
			if len(got.messages) < complete || !slices.Equal(got.messages, mixedOutcome.messages[:len(got.messages)]) {
				t.Errorf("%d bytes: got %v", n, got.messages)
			}
			complete = len(got.messages)
		}
	}
}

// TestReadBigMessages has messages of every size around the sizes of the
// buffers, in frames of several sizes.
func TestReadBigMessages(t *testing.T) {
	sizes := []int{125, 126, 127, 250, 254, 256, 257, 300, 2047, 2049, 4091, 4092, 4096, 4097, 5000,
		16 << 10, 65525, 65526, 65535, 65536, 65537, 100_000, growFrom + 5}
	text := strings.Repeat("€uro", 200_000)
	for _, handler := range []bool{false, true} {
		var stream []byte
		var want []message
		for _, size := range sizes {
			stream = append(stream, frame(finBit|opBinary, text[:size])...)
			want = append(want, message{MessageBinary, text[:size]})
			valid := strings.ToValidUTF8(text[:size], "?")
			stream = append(stream, frame(finBit|opText, valid)...)
			stream = append(stream, join(frame(opText, valid[:size/3]), frame(finBit|opContinuation, valid[size/3:]))...)
			want = append(want, message{MessageText, valid}, message{MessageText, valid})
		}
		for _, cut := range []func() int{
			nil,
			func() int { return 1 + rand.IntN(100_000) },
			func() int { return 1000 + rand.IntN(500) },
		} {
			got := overWire(t, setting{limit: 2 << 20, handler: handler}, &script{in: stream, cut: cut, end: io.EOF})
			if got.end != endLost || !slices.Equal(got.messages, want) {
				t.Errorf("got %s, %d messages", got.end, len(got.messages))
			}
		}
	}
}

// TestReadViolations: each stream ends with the byte that makes it a violation.
// If more were waited for, the end would be a lost connection.
func TestReadViolations(t *testing.T) {
	const limit = 1000
	empty := bytes.Repeat(frame(opContinuation, ""), maxEmptyFrames)
	ones := strings.Repeat("1", 600)
	for _, test := range []struct {
		name   string
		stream []byte
		want   StatusCode
	}{
		{"text, first byte", append(header(finBit|opText, 100), 0xff), 1007},
		{"text, inside", append(header(finBit|opText, 100), "valid \xed\xa0"...), 1007},
		{"text, past the buffers", append(header(finBit|opText, 900), ones+"\xc0"...), 1007},
		{"text, complete", frame(finBit|opText, "\xf5"), 1007},
		{"text, cut short", frame(finBit|opText, "caf\xc3"), 1007},
		{"fragment", append(header(opText, 100), "valid \xf4\x90"...), 1007},
		{"continuation", join(frame(opText, "\xe2\x82"), append(header(opContinuation, 50), '\x00')), 1007},
		{"continuation after a ping", join(frame(opText, "\xe2\x82"), frame(finBit|opPing, "\xff"), append(header(opContinuation, 50), '\x00')), 1007},
		{"last fragment cut short", join(frame(opText, "\xe2\x82"), frame(finBit|opContinuation, "")), 1007},
		{"close reason", frame(finBit|opClose, closePayload(1000, "\xff")), 1007},

		{"too big", header(finBit|opBinary, limit+1), 1009},
		{"too big text", header(finBit|opText, limit+1), 1009},
		{"too big first fragment", header(opBinary, limit+1), 1009},
		{"too big continuation", join(frame(opBinary, ones), header(opContinuation, limit+1-600)), 1009},
		{"too big last fragment", join(frame(opBinary, ones), frame(opContinuation, ""), header(finBit|opContinuation, limit+1-600)), 1009},
		{"1 TiB", header(finBit|opBinary, 1<<40), 1009},
		{"2^63-1", header(finBit|opBinary, 1<<63-1), 1009},

		{"negative length", header(finBit|opBinary, 1<<63), 1002},
		{"negative length of a fragment", join(frame(opText, ""), header(opContinuation, 1<<64-1)), 1002},
		{"masked", []byte{finBit | opText, maskBit | 5}, 1002},
		{"masked fragment", join(frame(opText, "a"), []byte{opContinuation, maskBit | 126}), 1002},
		{"masked ping", []byte{finBit | opPing, maskBit}, 1002},
		{"masked close", []byte{finBit | opClose, maskBit | 2}, 1002},
		{"empty continuations", join(frame(opText, "a"), empty), 1002},
		{"empty continuations and pings", join(frame(opBinary, ""), empty[:1000], frame(finBit|opPing, ""), frame(finBit|opPong, ""), empty[1000:]), 1002},

		{"fragmented ping", header(opPing, 0), 1002},
		{"long ping", header(finBit|opPing, 126), 1002},
		{"long close", header(finBit|opClose, 126), 1002},
		{"reserved bit", header(finBit|0x20|opText, 5), 1002},
		{"reserved bit of compression, not negotiated", header(finBit|rsv1Bit|opText, 5), 1002},
		{"reserved bit of a pong", header(finBit|rsv1Bit|opPong, 0), 1002},
		{"reserved opcode", header(finBit|3, 5), 1002},
		{"reserved control opcode", header(finBit|0xB, 5), 1002},
		{"continuation of nothing", header(finBit|opContinuation, 5), 1002},
		{"message in a message", join(frame(opText, "a"), header(finBit|opText, 5)), 1002},
		{"close payload of one byte", frame(finBit|opClose, "\x03"), 1002},
		{"close code 1005", frame(finBit|opClose, closePayload(1005, "")), 1002},
		{"close code 999", frame(finBit|opClose, closePayload(999, "\xff")), 1002},
	} {
		for _, cut := range []func() int{nil, byBytes, inTwo(2)} {
			before := join(frame(finBit|opText, "before"), test.stream)
			got := overWire(t, setting{limit: limit}, &script{in: before, cut: cut, end: errEnd})
			if got.end != endProtocol(test.want) {
				t.Errorf("%s: got %s", test.name, got.end)
			}
			if !slices.Equal(got.messages, []message{{MessageText, "before"}}) {
				t.Errorf("%s: got messages %v", test.name, got.messages)
			}
			checkLastClose(t, test.name, got.sent, test.want)
		}
	}
}

// checkLastClose checks that the last frame, and only it, is a close frame of
// that code with a proper reason.
func checkLastClose(t *testing.T, name string, sent []sentFrame, code StatusCode) {
	t.Helper()
	for i, f := range sent {
		if last := i == len(sent)-1; last != (f.first == finBit|opClose) {
			t.Errorf("%s: sent %v", name, sent)
		}
	}
	if len(sent) == 0 {
		t.Errorf("%s: no close frame was sent", name)
		return
	}
	payload := sent[len(sent)-1].payload
	if !strings.HasPrefix(payload, closePayload(int(code), "")) || len(payload) > maxControlPayload || !utf8.ValidString(payload[2:]) {
		t.Errorf("%s: the close frame holds %q", name, payload)
	}
}

func TestReadWithinBounds(t *testing.T) {
	limit := strings.Repeat("x", 1000)
	empty := bytes.Repeat(frame(opContinuation, ""), maxEmptyFrames-1)
	for _, test := range []struct {
		name   string
		stream []byte
		want   []message
	}{
		{"one frame", frame(finBit|opText, limit), []message{{MessageText, limit}}},
		{"two frames", join(frame(opBinary, limit), frame(finBit|opContinuation, "")), []message{{MessageBinary, limit}}},
		{"the limit is a message's own", bytes.Repeat(frame(finBit|opText, limit), 2), []message{{MessageText, limit}, {MessageText, limit}}},
		{"empty continuations", join(frame(opText, "a"), empty, frame(opContinuation, "b"), empty, frame(finBit|opContinuation, "")), []message{{MessageText, "ab"}}},
	} {
		got := overWire(t, setting{limit: 1000}, &script{in: test.stream, end: errEnd})
		if got.end != endLost || !slices.Equal(got.messages, test.want) {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

// bareReader is a wireReader without coder/websocket.
func bareReader(src io.Reader, keep bool, deliver func(MessageType, []byte)) *wireReader {
	r := &wireReader{src: src, limit: 1 << 20, keep: keep, counters: &counters{}, rest: func() {}}
	r.inside = true
	r.deliver = func(typ MessageType, data []byte) bool { deliver(typ, data); return true }
	r.onPong = func([]byte) {}
	r.onPing = func([]byte) bool { return true }
	return r
}

// drain reads until the reader fails, and returns what it passes on.
func drain(r *wireReader) (passed []byte, err error) {
	var scratch [512]byte
	for {
		n, err := r.Read(scratch[:])
		passed = append(passed, scratch[:n]...)
		if err != nil {
			return passed, err
		}
	}
}

func TestPongsAreSwallowed(t *testing.T) {
	stream := join(
		frame(finBit|opPong, "one"), frame(finBit|opText, "fast"), frame(finBit|opPong, ""),
		frame(opText, "sl"), frame(finBit|opPong, strings.Repeat("p", 125)), frame(finBit|opContinuation, "ow"))
	for _, cut := range []func() int{nil, byBytes} {
		var pongs []string
		r := bareReader(&script{in: stream, cut: cut, end: io.EOF}, true, func(MessageType, []byte) {})
		r.onPong = func(payload []byte) { pongs = append(pongs, string(payload)) }
		passed, err := drain(r)
		if want := []string{"one", "", strings.Repeat("p", 125)}; !slices.Equal(pongs, want) {
			t.Errorf("got pongs %q", pongs)
		}
		if want := join(frame(opText, "sl"), frame(finBit|opContinuation, "ow")); !bytes.Equal(passed, want) {
			t.Errorf("passed on %q", passed)
		}
		if !errors.Is(err, errTransport) || errors.Is(err, io.EOF) || r.srcErr != io.EOF {
			t.Errorf("got %v and %v", err, r.srcErr)
		}
	}
}

// TestReadOneFramePerRead: coder/websocket must ask before it gets the next
// frame, or messages of the fast lane would overtake.
func TestReadOneFramePerRead(t *testing.T) {
	frames := [][]byte{frame(opText, "a"), frame(finBit|opPing, "p"), frame(opContinuation, ""), frame(finBit|opContinuation, "b"), frame(finBit|opPing, "")}
	r := bareReader(&script{in: join(frames...), end: io.EOF}, true, func(MessageType, []byte) {})
	scratch := make([]byte, 512)
	for _, want := range frames {
		if n, err := r.Read(scratch); err != nil || !bytes.Equal(scratch[:n], want) {
			t.Errorf("got %q, %v, want %q", scratch[:n], err, want)
		}
	}
	if n, err := r.Read(nil); n != 0 || err != nil {
		t.Errorf("an empty Read: got %d, %v", n, err)
	}
}

func TestReadNoProgress(t *testing.T) {
	r := bareReader(readFunc(func([]byte) (int, error) { return 0, nil }), true, nil)
	if _, err := drain(r); !errors.Is(err, errTransport) || r.srcErr != io.ErrNoProgress {
		t.Errorf("got %v and %v", err, r.srcErr)
	}
}

type readFunc func([]byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

func TestReadAborted(t *testing.T) {
	stream := bytes.Repeat(frame(finBit|opText, "m"), 3)
	count := 0
	r := bareReader(&script{in: stream, end: io.EOF}, true, nil)
	r.deliver = func(MessageType, []byte) bool { count++; return count < 2 }
	if _, err := drain(r); !errors.Is(err, errAborted) || count != 2 {
		t.Errorf("got %v after %d messages", err, count)
	}
}

// TestHugeHeader: memory is taken as bytes arrive, never as they are announced.
func TestHugeHeader(t *testing.T) {
	for _, test := range []struct {
		length, limit int64
		most          uint64
	}{
		{-1 << 63, 1 << 20, 8 << 10},
		{1 << 40, 1 << 20, 8 << 10},
		{1 << 40, 1 << 41, growFrom + 64<<10},
		{1<<63 - 2, 1<<63 - 2, 8 << 10},
	} {
		for _, keep := range []bool{false, true} {
			stream := append(header(finBit|opBinary, uint64(test.length)), "some bytes"...)
			r := bareReader(&script{in: stream, end: io.EOF}, keep, nil)
			r.limit = test.limit
			if got := allocated(func() { _, _ = drain(r) }); got > test.most {
				t.Errorf("%+v: took %d bytes", test, got)
			}
		}
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// feed is a source that gives one piece per Read and looks at the reader before
// each: at these moments it is idle.
type feed struct {
	pieces [][]byte
	idle   func(piece int)
	next   int
}

func (f *feed) Read(p []byte) (int, error) {
	f.idle(f.next)
	if f.next == len(f.pieces) {
		return 0, io.EOF
	}
	n := copy(p, f.pieces[f.next])
	if f.pieces[f.next] = f.pieces[f.next][n:]; len(f.pieces[f.next]) == 0 {
		f.next++
	}
	return n, nil
}

func TestBufferTiers(t *testing.T) {
	small, medium := frame(finBit|opBinary, "small"), frame(finBit|opBinary, strings.Repeat("m", 1000))
	burst := bytes.Repeat(medium, 200)
	for _, keep := range []bool{false, true} {
		tiers := map[int][]int{} // piece to the sizes of the buffer
		f := &feed{pieces: [][]byte{small, small, medium, small, burst, small, small}}
		r := bareReader(f, keep, func(MessageType, []byte) {})
		f.idle = func(piece int) {
			tiers[piece] = append(tiers[piece], len(r.buf))
			if (r.large != nil) != (len(r.buf) == largeBuffer) {
				t.Errorf("piece %d: the large buffer is kept: %v, in use: %v", piece, r.large != nil, len(r.buf) == largeBuffer)
			}
			if (r.small != nil) != (len(r.buf) == smallBuffer) {
				t.Errorf("piece %d: the small buffer is kept: %v, in use: %v", piece, r.small != nil, len(r.buf) == smallBuffer)
			}
		}
		if _, err := drain(r); !errors.Is(err, errTransport) {
			t.Error(err)
		}
		for _, piece := range []int{0, 1, 2, 7} { // after small reads
			if got := tiers[piece][0]; got != inlineBuffer {
				t.Errorf("before piece %d: a buffer of %d bytes", piece, got)
			}
		}
		if !slices.Contains(tiers[4], largeBuffer) {
			t.Errorf("during a burst: buffers of %v bytes", tiers[4])
		}
		r.buf = nil
		r.release()
		if r.small != nil || r.large != nil {
			t.Error("a buffer is not released")
		}
	}
}

// TestReadAllocations: a small message that is kept costs a share of a block,
// and one for a handler nothing.
func TestReadAllocations(t *testing.T) {
	const count = 1000
	for _, test := range []struct {
		payload string
		keep    bool
		most    float64 // allocations per message
	}{
		{"small message", false, 0.01},
		{"small message", true, 0.05},
		{strings.Repeat("m", 3000), false, 0.01},
		{strings.Repeat("m", 3000), true, 1.01},
		{strings.Repeat("m", 100_000), false, 0.01},
	} {
		stream := bytes.Repeat(frame(finBit|opBinary, test.payload), count)
		src := &script{end: io.EOF}
		got := testing.AllocsPerRun(1, func() {
			src.in = stream
			r := bareReader(src, test.keep, func(MessageType, []byte) {})
			_, _ = drain(r)
			r.release()
		})
		if got > 20+count*test.most {
			t.Errorf("%d bytes, keep %v: %v allocations for %d messages", len(test.payload), test.keep, got, count)
		}
	}
}

// TestCarvedMessages: messages that are kept share memory, and yet none changes
// when another is appended to, or the buffer is used again.
func TestCarvedMessages(t *testing.T) {
	var stream []byte
	var want, got []string
	for i := range 3000 {
		payload := strings.Repeat(string(rune('a'+i%26)), rand.IntN(60)*rand.IntN(60))
		want = append(want, payload)
		stream = append(stream, frame(finBit|opBinary, payload)...)
	}
	var kept [][]byte
	r := bareReader(&script{in: stream, cut: func() int { return 1 + rand.IntN(9000) }, end: io.EOF}, true, func(_ MessageType, data []byte) {
		kept = append(kept, data)
		_ = append(data, "overwrites"...)
	})
	_, _ = drain(r)
	for _, data := range kept {
		got = append(got, string(data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("%d messages differ from the %d sent", len(got), len(want))
	}
}

func TestReadCounts(t *testing.T) {
	r := bareReader(&script{in: mixed, end: io.EOF}, true, func(MessageType, []byte) {})
	_, _ = drain(r)
	r.publish()
	if got := r.counters.bytesIn.Load(); got != uint64(len(mixed)) {
		t.Errorf("got %d bytes of %d", got, len(mixed))
	}
	if got := r.counters.messagesIn.Load(); got != 5 { // two are for coder/websocket
		t.Errorf("got %d messages", got)
	}
	if r.closeCode != 4000 || r.closeReason != "bye" {
		t.Errorf("got the close frame %d %q", r.closeCode, r.closeReason)
	}
	if _, waiting := r.life.silentSince(); waiting || r.life.reads.Load() == 0 {
		t.Error("the reader still waits, or never heard anything")
	}
}

// TestFastLaneClosed: while the reading goroutine is not the one that waits,
// every message goes by way of coder/websocket.
func TestFastLaneClosed(t *testing.T) {
	stream := join(frame(finBit|opText, "one"), frame(finBit|opBinary, "two"))
	r := bareReader(&script{in: stream, end: io.EOF}, true, func(MessageType, []byte) { t.Error("delivered") })
	r.inside = false
	if passed, _ := drain(r); !bytes.Equal(passed, stream) {
		t.Errorf("passed on %q", passed)
	}
}

// TestNewWireIsSilent: coder/websocket reads the body of a response that it
// refuses.
func TestNewWireIsSilent(t *testing.T) {
	var w wire
	w.lay(&script{in: mixed, end: errEnd}, nil)
	if n, err := w.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("got %d, %v", n, err)
	}
}

func TestCloseCodeNoted(t *testing.T) {
	for _, test := range []struct {
		payload string
		code    StatusCode
		reason  string
	}{
		{"", websocket.StatusNoStatusRcvd, ""},
		{closePayload(1000, ""), 1000, ""},
		{closePayload(4999, "Ünicode"), 4999, "Ünicode"},
		{"\x03", 0, ""},
		{closePayload(1006, ""), 0, ""},
		{closePayload(2999, "x"), 0, ""},
	} {
		r := bareReader(&script{in: frame(finBit|opClose, test.payload), end: io.EOF}, true, nil)
		_, _ = drain(r)
		if r.closeCode != test.code || r.closeReason != test.reason {
			t.Errorf("%q: got %d %q", test.payload, r.closeCode, r.closeReason)
		}
	}
}

const deflateExtension = "permessage-deflate"

// TestViolationWithTheLastBytes: the end of the stream, coming with the bytes of
// a violation, does not hide it.
func TestViolationWithTheLastBytes(t *testing.T) {
	stream := frame(finBit|rsv1Bit|opText, "\xff\xff\xff\xff") // cannot be inflated
	got := overWire(t, setting{limit: 100, extension: deflateExtension}, &script{in: stream, end: io.EOF, last: true})
	if got.end != endProtocol(1007) {
		t.Errorf("got %s", got.end)
	}
}

func TestInflatedLimit(t *testing.T) {
	const limit = 1000
	for size, want := range map[int]string{limit - 1: endLost, limit: endLost, limit + 1: endProtocol(1009), 100 * limit: endProtocol(1009)} {
		text := strings.Repeat("x", size)
		stream := frame(finBit|rsv1Bit|opText, newDeflater(deflateExtension).deflate(text))
		got := overWire(t, setting{limit: limit, extension: deflateExtension}, &script{in: stream, end: errEnd})
		if got.end != want || (want == endLost) != slices.Equal(got.messages, []message{{MessageText, text}}) {
			t.Errorf("%d bytes: got %v", size, got)
		}
	}
}

// TestInflatedLimitOfBrokenData: of compressed data that is cut short,
// coder/websocket alone lets one byte too many through.
func TestInflatedLimitOfBrokenData(t *testing.T) {
	deflated := newDeflater(deflateExtension).deflate("0123456789abcdefghij")
	for cut := range len(deflated) {
		stream := frame(finBit|rsv1Bit|opBinary, deflated[:cut])
		read := func(limit int64) outcome {
			return overWire(t, setting{limit: limit, extension: deflateExtension}, &script{in: stream, end: errEnd})
		}
		full := read(1000)
		for limit := int64(1); limit < 30; limit++ {
			got := read(limit)
			switch {
			case len(full.messages) == 0:
				if len(got.messages) > 0 {
					t.Errorf("limit %d: got %v", limit, got)
				}
			case int64(len(full.messages[0].data)) > limit:
				if len(got.messages) > 0 || got.end != endProtocol(1009) {
					t.Errorf("limit %d, %v: got %v", limit, full.messages, got)
				}
			case !slices.Equal(got.messages, full.messages):
				t.Errorf("limit %d, %v: got %v", limit, full.messages, got)
			}
		}
	}
}

// silent is a script whose server says nothing more and does not hang up.
type silent struct {
	script
	closed chan struct{}
	once   sync.Once
}

func (s *silent) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		<-s.closed
	}
	return s.script.Read(p)
}

func (s *silent) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

// TestViolationEndsAtOnce: after a violation, whoever found it, nothing is read
// any more: the session does not wait for the server's close frame.
func TestViolationEndsAtOnce(t *testing.T) {
	for name, stream := range map[string][]byte{
		"the wire":        frame(finBit|opText, "\xff"),
		"the inflater":    frame(finBit|rsv1Bit|opText, "\xff\xff\xff\xff"),
		"coder/websocket": frame(finBit|3, ""),
		"the session":     frame(finBit|rsv1Bit|opText, newDeflater(deflateExtension).deflate("\xff")),
	} {
		synctest.Test(t, func(t *testing.T) {
			src := &silent{script: script{in: stream, end: errEnd}, closed: make(chan struct{})}
			s := wiredSession(t, setting{limit: 100, extension: deflateExtension}, src)
			began := time.Now()
			e := s.finish(s.read())
			if took := time.Since(began); e.phase != PhaseProtocol || took != 0 {
				t.Errorf("%s: got %v %d after %v", name, e.phase, e.code, took)
			}
			if sent := sentFrames(t, src.written()); len(sent) != 1 || sent[0].first != finBit|opClose {
				t.Errorf("%s: sent %v", name, sent)
			}
		})
	}
}

// TestLateSendIsNoWriteFailure: a Send that comes after a close frame was sent
// does not hide why the session ends.
func TestLateSendIsNoWriteFailure(t *testing.T) {
	s := wiredSession(t, setting{limit: 100}, &script{in: frame(finBit|3, ""), end: errEnd})
	err := s.read()
	o := &s.client.outbox
	o.attach(s)
	if queued := o.enqueue(&outbound{typ: MessageText}, []byte("late")); queued != nil {
		t.Fatal(queued)
	}
	o.flush(s)
	if e := s.finish(err); e.phase != PhaseProtocol || e.code != StatusProtocolError {
		t.Errorf("got %v %d: %v", e.phase, e.code, e.err)
	}
	if messages, _ := o.size(); messages != 1 {
		t.Errorf("%d messages wait for the next session", messages)
	}
}

// A text too large for any buffer is checked to its end.
func TestLargeTextUnfinished(t *testing.T) {
	stream := frame(finBit|opText, strings.Repeat("x", 200_000)+"\xe2\x82")
	r := bareReader(&script{in: stream, end: io.EOF}, true, func(MessageType, []byte) { t.Error("delivered") })
	if _, err := drain(r); r.violation == nil || err != error(r.violation) || r.violation.Code != websocket.StatusInvalidFramePayloadData {
		t.Errorf("read: %v", err)
	}
}

// Counters are up to date while the reader waits, and an error that came with
// bytes is the last word of the transport.
func TestReadWaits(t *testing.T) {
	calls := 0
	var r *wireReader
	r = bareReader(readFunc(func(p []byte) (int, error) {
		switch calls++; calls {
		case 1:
			return copy(p, join(frame(finBit|opText, "one"), frame(finBit|opText, "two"))), nil
		case 2:
			if in, bytes := r.counters.messagesIn.Load(), r.counters.bytesIn.Load(); in != 2 || bytes != 10 {
				t.Errorf("%d messages of %d bytes counted", in, bytes)
			}
			if r.block != nil {
				t.Error("memory for messages is kept while there are none")
			}
			return copy(p, frame(finBit|opText, "three")), io.ErrClosedPipe
		}
		t.Error("read after an error")
		return 0, io.EOF
	}), true, func(MessageType, []byte) {})
	if _, err := drain(r); err != errTransport || r.srcErr != io.ErrClosedPipe {
		t.Errorf("%v, by %v", err, r.srcErr)
	}
	if r.messages+r.counters.messagesIn.Load() != 3 {
		t.Error("what came with the error is lost")
	}
}

// A session that is finished starts nothing any more, and its end stays.
func TestFinishedSession(t *testing.T) {
	s := wiredSession(t, setting{limit: 100}, &script{end: errEnd})
	if e := s.finish(s.read()); e.phase != PhaseRead {
		t.Fatalf("it ended by %+v", e)
	}
	s.spawned(func() { t.Error("it runs a function") })
	s.spawn(func() { t.Error("it starts a goroutine") })
	if s.end(ending{closing: true}) {
		t.Error("it ends again")
	}
	s.tasks.Wait()
}
