package wire

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// compressedFrames returns the frames of compressed, binary messages, one per payload.
func compressedFrames(payloads ...string) (stream []byte) {
	for _, payload := range payloads {
		stream = append(stream, frame(rsv1Bit|binaryFrame, payload)...)
	}
	return stream
}

// checkInflated reads a stream with and without borrowing, and cut in several ways. If it
// is cut after every byte, the Conn takes an inflater from the pool for each message. If
// it is not cut, one inflater serves all messages.
func checkInflated(t *testing.T, what string, set setting, stream []byte, want outcome) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(len(stream)), 0))
	for i, cut := range []func() int{nil, byBytes, func() int { return 1 + random.IntN(1<<random.IntN(14)) }} {
		for _, set.borrow = range []bool{false, true} {
			got := overWire(t, set, &script{in: stream, cut: cut, end: errEnd})
			if bad := compare(got, want); bad != "" {
				t.Errorf("%s, cut %d, %+v: %s: got\n%v\nwant\n%v", what, i, set, bad, got, want)
			}
		}
	}
}

// delivered is the outcome of messages that are followed by the loss of the connection.
func delivered(messages ...message) outcome { return outcome{messages: messages, end: endLost} }

// refused is the outcome of messages that are followed by a violation.
func refused(code int, messages ...message) outcome {
	return outcome{messages: messages, sent: []sentFrame{{closeFrame, closePayload(code, "")}}, end: endProtocol(code)}
}

// inflateExamples are the examples in RFC 7692, sections 7.2.3.1 to 7.2.3.6.
var inflateExamples = []struct {
	name   string
	frames [][]byte
	want   []message
}{
	{"1", [][]byte{frame(rsv1Bit|textFrame, helloPayload)}, texts("Hello")},
	{"1, fragments", [][]byte{frame(rsv1Bit|opText, "\xf2\x48\xcd"), frame(finBit|opContinuation, "\xc9\xc9\x07\x00")}, texts("Hello")},
	{"2", [][]byte{frame(rsv1Bit|textFrame, helloPayload), frame(rsv1Bit|textFrame, againPayload)}, texts("Hello", "Hello")},
	{"2, without takeover", slices.Repeat([][]byte{frame(rsv1Bit|textFrame, helloPayload)}, 2), texts("Hello", "Hello")},
	{"3", [][]byte{frame(rsv1Bit|textFrame, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")}, texts("Hello")},
	{"4", [][]byte{frame(rsv1Bit|textFrame, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")}, texts("Hello")},
	{"5", [][]byte{frame(rsv1Bit|textFrame, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")}, texts("Hello")},
	{"6", [][]byte{frame(rsv1Bit|textFrame, "\x00")}, texts("")},
}

func TestInflateExamples(t *testing.T) {
	for _, e := range inflateExamples {
		stream := join(e.frames...)
		checkInflated(t, e.name, setting{limit: 100, extension: extension}, stream, delivered(e.want...))
		for n := range stream {
			src := &script{in: stream, cut: inTwo(n), end: errEnd}
			checkOutcome(t, fmt.Sprint(e.name, ", cut at ", n), overWire(t, setting{limit: 5, extension: extension}, src), delivered(e.want...))
		}
		if e.name != "2" {
			checkInflated(t, e.name, setting{limit: 5, extension: extension + serverFresh}, stream, delivered(e.want...))
		}
	}
}

// TestInflateEmptyPayload checks that an empty payload, which is not strictly legal, is
// read as an empty message, and does not affect the messages after it.
func TestInflateEmptyPayload(t *testing.T) {
	const hello, again = helloPayload, againPayload
	stream := compressedFrames("", hello, "", again, "", "\x00", again)
	want := delivered(binaries("", "Hello", "", "Hello", "", "", "Hello")...)
	checkInflated(t, "empty payloads", setting{limit: 5, extension: extension}, stream, want)
	fragments := join(frame(rsv1Bit|opText, ""), frame(opContinuation, ""), frame(finBit|opContinuation, ""))
	checkInflated(t, "empty fragments", setting{limit: 1, extension: extension}, fragments, delivered(texts("")...))
}

// deflaters compress a short message into a single block and the end of the message.
var deflaters = map[string]func(data string) string{
	"fastest": func(data string) string { return deflatedBy(flate.BestSpeed, data) },
	"best":    func(data string) string { return deflatedBy(flate.BestCompression, data) },
	"huffman": func(data string) string { return deflatedBy(flate.HuffmanOnly, data) },
	"stored":  func(data string) string { return deflatedBy(flate.NoCompression, data) },
	"fixed": func(data string) string {
		z := newLZ(maxWindow)
		return z.block(data, false) + z.end()
	},
}

// TestInflateEveryCut checks that a truncated message is a violation and is not delivered.
// If only the last byte is missing, the tail could be mistaken for the end of a message.
func TestInflateEveryCut(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for name, deflate := range deflaters {
		for i := range 60 {
			data := words(random, 1+random.IntN(150))
			if i%3 == 0 {
				data = string(randomBytes(random, 1+random.IntN(60)))
			}
			payload := deflate(data)
			set := setting{limit: 2000, extension: extension, borrow: i%2 == 0} // truncated, it may decompress to more
			for n := 1; n < len(payload); n++ {
				if payload[:n] == "\x00" { // the header of a stored block alone is an empty message
					continue
				}
				stream := compressedFrames(helloPayload, payload[:n], payload)
				got := overWire(t, set, &script{in: stream, end: errEnd})
				if bad := compare(got, refused(1007, binaries("Hello")...)); bad != "" {
					t.Errorf("%s, %d bytes of %q: got %v", name, n, payload, got)
				}
			}
			got := overWire(t, set, &script{in: compressedFrames(payload, payload), end: errEnd})
			checkOutcome(t, name, got, delivered(binaries(data, data)...))
		}
	}
}

// TestInflateTailInPayload checks that a message is a violation if its sender has not
// removed the tail.
func TestInflateTailInPayload(t *testing.T) {
	for name, deflate := range deflaters {
		payload := deflate("the tail is not removed")
		for _, more := range []string{tail, tail[:1], tail[:2], tail[:3], tail + tail, "\xff", "\x00\x00"} {
			set := setting{limit: 100, extension: extension}
			checkInflated(t, fmt.Sprintf("%s and %q", name, more), set, compressedFrames(payload+more), refused(1007))
		}
		again := payload + tail + payload // two blocks
		want := strings.Repeat("the tail is not removed", 2)
		checkInflated(t, name, setting{limit: 100, extension: extension}, compressedFrames(again, payload+tail+"\x00"),
			delivered(binaries(want, want[:len(want)/2])...))
	}
}

// TestInflateStoredCut checks that the tail does not complete a truncated stored block,
// wherever in the internal window of compress/flate the block ends.
func TestInflateStoredCut(t *testing.T) {
	const size = 100
	for room := range 12 { // bytes left in the window after the truncated block
		for lacks := 1; lacks < 12; lacks++ {
			first := strings.Repeat("x", maxWindow-room-(size-lacks))
			z := newLZ(maxWindow)
			whole := z.block(first, false) + z.end()
			block := z.stored(strings.Repeat("y", size), false)
			stream := compressedFrames(whole, block[:len(block)-lacks], "\x00")
			got := overWire(t, setting{limit: maxWindow, extension: extension}, &script{in: stream, end: errEnd})
			if bad := compare(got, refused(1007, binaries(first)...)); bad != "" {
				t.Errorf("%d bytes missing, room for %d: %s: got %v", lacks, room, bad, got)
			}
		}
	}
}

// TestInflateFinalBlocks covers final blocks anywhere in a message. Later blocks refer to
// what is before them.
func TestInflateFinalBlocks(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, takeover := range []bool{true, false} {
		set := setting{limit: 1 << 20, extension: extension}
		if !takeover {
			set.extension += serverFresh
		}
		for _, size := range []int{1, 50, 1000, 20_000, 40_000, 70_000} {
			z := newLZ(maxWindow)
			text := string(randomBytes(random, size))
			var stream []byte
			var want []message
			for shape := range 64 {
				if !takeover {
					z.forget()
				}
				payload, data := shaped(z, shape, text)
				want = append(want, message{Binary, data})
				stream = append(stream, frame(rsv1Bit|binaryFrame, payload)...)
				if size < 5000 && len(payload) > 200+size*5/4 {
					t.Errorf("a payload of %d bytes for three times %d bytes: no block refers to an earlier one", len(payload), size)
				}
			}
			for _, cut := range []func() int{nil, func() int { return 1 + random.IntN(100) }} {
				for _, set.borrow = range []bool{true, false} {
					got := overWire(t, set, &script{in: stream, cut: cut, end: errEnd})
					if bad := compare(got, delivered(want...)); bad != "" {
						t.Errorf("%+v, messages of %d bytes: %s: %d messages, %s", set, size, bad, len(got.messages), got.end)
					}
				}
			}
		}
	}
}

// shaped returns a message of three blocks. Bits 0 to 2 of shape say which are final, and
// bits 3 to 5 which are stored.
func shaped(z *lz, shape int, text string) (payload, data string) {
	for i := range 3 {
		final, part := shape>>i&1 != 0, text
		if shape>>(3+i)&1 != 0 {
			part = text[:min(len(text), 40)]
			payload += z.stored(part, final)
		} else {
			payload += z.block(part, final)
		}
		data += part
	}
	if shape&4 == 0 || shape&8 != 0 { // otherwise the message ends with a final block
		payload += z.end()
	}
	return payload, data
}

// TestInflateFinalTail checks that the tail may be the length of a final block.
func TestInflateFinalTail(t *testing.T) {
	const hello, again = helloPayload, againPayload
	z := newLZ(maxWindow)
	ends := z.block("Hello", true) + "\x01"
	for _, payload := range []string{"\x01", ends, "\x03\x00\x01", "\x03\x00", "\x01" + tail, "\x01" + tail + "\x01" + tail} {
		want := binaries("Hello", "", "Hello", "Hello")
		if payload == ends {
			want[1].data = "Hello"
		}
		checkInflated(t, fmt.Sprintf("%q", payload), setting{limit: 10, extension: extension},
			compressedFrames(hello, payload, again, hello), delivered(want...))
	}
	for _, payload := range []string{"\x03", "\x01\x00", "\x01\x00\x00", "\x01\x00\x00\xff", ends[:len(ends)-2], ends + "\x02", "\x03\x00\x07", "\x07"} {
		checkInflated(t, fmt.Sprintf("%q", payload), setting{limit: 10, extension: extension},
			compressedFrames(hello, payload, again), refused(1007, binaries("Hello")...))
	}
}

// TestInflateWraps covers messages that end where the internal window of compress/flate
// wraps around, and messages after them.
func TestInflateWraps(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for _, total := range []int{maxWindow, 2 * maxWindow} {
		for d := -2; d <= 2; d++ {
			for _, last := range []int{1, 100, maxWindow - 5, maxWindow} {
				z := newLZ(maxWindow)
				var payloads []string
				var want []message
				for i, size := range []int{max(0, total+d-last), last, 300, 0, 1, maxWindow, 300} {
					text := words(random, size)
					payload := z.block(text, false)
					if i == 1 && d == 0 {
						payload = z.stored("", false) + payload // makes compress/flate return what it holds
					}
					want = append(want, message{Binary, text})
					payloads = append(payloads, payload+z.end())
				}
				set := setting{limit: 1 << 20, extension: extension}
				checkInflated(t, fmt.Sprint(total+d, " by ", last), set, compressedFrames(payloads...), delivered(want...))
			}
		}
	}
}

// zeros returns the payload of a message of size bytes, at least 1, of the same value.
func zeros(value byte, size int) string {
	z := newLZ(maxWindow)
	z.write(0b010, 3)
	z.literal(int(value))
	for size--; size > 258; size -= 258 {
		z.length(258)
		z.distance(1)
	}
	if size >= 3 {
		z.length(size)
		z.distance(1)
		size = 0
	}
	for ; size > 0; size-- {
		z.literal(int(value))
	}
	z.literal(256)
	return z.take() + z.end()
}

// inOneRead makes frames arrive in one read: it adds a message before them that makes the
// buffer grow.
func inOneRead(frames []byte) (stream []byte, first message) {
	first = message{Binary, strings.Repeat("x", 300)}
	return join(frame(binaryFrame, first.data), frames), first
}

// burstSizes reads a stream with borrowing, checks each burst before the next one, and
// returns their sizes.
func burstSizes(t *testing.T, stream []byte, want []message) (sizes []int) {
	t.Helper()
	c, o := start(t, setting{limit: 1 << 20, extension: extension, borrow: true}, &script{in: stream, end: errEnd})
	defer finish(c, o)
	for {
		burst, err := next(c)
		if err != nil {
			if len(want) > 0 || endOf(err) != endLost {
				t.Errorf("%d messages are missing: %v", len(want), err)
			}
			return sizes
		}
		if got := copies(burst); !slices.Equal(got, want[:len(got)]) {
			t.Errorf("got %v, want %v", got, want)
		}
		want = want[len(burst):]
		sizes = append(sizes, len(burst))
	}
}

// TestInflateBursts checks that a burst ends when little room is left for the next message,
// and that no message of a burst overwrites another.
func TestInflateBursts(t *testing.T) {
	for _, test := range []struct{ size, want int }{
		{1 << 10, 61}, // before the last one, the least room that allows another
		{1<<10 + 1, 60},
		{1<<10 - 1, 61},
		{450, maxBurst},
		{10_000, 7}, // the last one outgrows the shared memory
		{maxInflated - roomy, 2},
		{maxInflated - roomy + 1, 1},
		{maxInflated, 1},
		{maxInflated + 1, 1},
	} {
		var frames []byte
		var want []message
		for i := range 2 * maxBurst {
			frames = append(frames, compressedFrames(zeros(byte(i), test.size))...)
			want = append(want, message{Binary, strings.Repeat(string([]byte{byte(i)}), test.size)})
		}
		stream, first := inOneRead(frames)
		sizes := burstSizes(t, stream, append([]message{first}, want...))
		if len(sizes) < 3 || slices.Max(sizes) != test.want {
			t.Errorf("%d bytes: bursts of %v messages, want %d", test.size, sizes, test.want)
		}
	}
}

// TestInflateFillsTheOutput covers messages that fill the memory for a burst exactly, or
// are a byte shorter or longer.
func TestInflateFillsTheOutput(t *testing.T) {
	for _, before := range []int{1, 100, 30_000, maxInflated - roomy} {
		for d := -1; d <= 1; d++ {
			var frames []byte
			var want []message
			for i, size := range []int{before, maxInflated - before + d, 10, 10_000} {
				frames = append(frames, compressedFrames(zeros(byte(i), size))...)
				want = append(want, message{Binary, strings.Repeat(string([]byte{byte(i)}), size)})
			}
			stream, first := inOneRead(frames)
			want = append([]message{first}, want...)
			burstSizes(t, stream, want)
			checkInflated(t, fmt.Sprint(before, d), setting{limit: 1 << 20, extension: extension}, stream, delivered(want...))
		}
	}
}

func TestInflateLimit(t *testing.T) {
	for _, size := range []int{2, 3, 100, 4096, maxWindow, maxInflated - 1, maxInflated, maxInflated + 1, 2 * maxInflated, 200_000} {
		payload, data := zeros(7, size), strings.Repeat("\a", size)
		stream := compressedFrames(payload, payload)
		set := setting{limit: int64(size), extension: extension}
		checkInflated(t, fmt.Sprint("as large as the limit, ", size), set, stream, delivered(binaries(data, data)...))
		set.limit--
		checkInflated(t, fmt.Sprint("a byte more than the limit, ", size), set, stream, refused(1009))
		stream = join(frame(rsv1Bit|opBinary, payload[:1]), frame(opContinuation, payload[1:]), frame(opContinuation, ""))
		checkInflated(t, fmt.Sprint("in fragments, ", size), set, join(stream, frame(finBit|opContinuation, "")), refused(1009))
	}
}

// TestInflateBomb checks that a small message that decompresses to a huge one costs little
// more memory than the limit, and is not read to its end.
func TestInflateBomb(t *testing.T) {
	const limit = 1 << 20
	bomb := zeros(0, 100<<20)
	for _, size := range []int{len(bomb), 1000, 1} {
		frames := join(fragmented(rsv1Bit|opBinary, bomb[:min(len(bomb), 100*size)], size)...)
		for _, borrow := range []bool{false, true} {
			src := &script{in: frames, end: errEnd}
			got := outcome{}
			used := allocated(func() { got = overWire(t, setting{limit: limit, extension: extension, borrow: borrow}, src) })
			want := refused(1009)
			if size == 1 {
				want = refused(1007)
			}
			if bad := compare(got, want); bad != "" || used > 4*limit {
				t.Errorf("frames of %d bytes: %s: %d bytes allocated, got %v", size, bad, used, got)
			}
			if size == len(bomb) && len(src.in) < len(frames)/2 {
				t.Errorf("all but %d bytes were read", len(src.in))
			}
		}
	}
}

// TestInflateManyFrames reads a large message in many frames, with pings between them.
func TestInflateManyFrames(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	for _, name := range []string{"best", "fixed", "stored"} {
		data := words(random, 300_000)
		payload := deflaters[name](data)
		var stream []byte
		var want outcome
		for first := byte(rsv1Bit | opText); len(payload) > 0; first = opContinuation {
			n := min(random.IntN(1<<random.IntN(14)), len(payload))
			stream = append(stream, frame(first, payload[:n])...)
			payload = payload[n:]
			if random.IntN(5) == 0 {
				stream = join(stream, frame(pingFrame, "?"), frame(pongFrame, "unasked"))
				want.sent = append(want.sent, sentFrame{pongFrame, "?"})
			}
		}
		stream = append(stream, frame(finBit|opContinuation, "")...)
		want.messages, want.end = texts(data), endLost
		checkInflated(t, name, setting{limit: int64(len(data)), extension: extension}, stream, want)
	}
}

// TestInflateEndIsFinal checks that what follows in the buffer does not replace the reason
// why reading has ended.
func TestInflateEndIsFinal(t *testing.T) {
	garbage := [][]byte{nil, masked(textFrame, ""), frame(0x30|textFrame, "x"), frame(closeFrame, closePayload(4000, "")), frame(pingFrame, "x"),
		head(pingFrame, 1<<63), compressedFrames("\xff")}
	bye := closePayload(1001, "bye")
	closed := outcome{sent: []sentFrame{{closeFrame, bye}}, end: endClosed(1001, "bye")}
	for _, test := range []struct {
		name   string
		stream []byte
		want   outcome
	}{
		{"corrupt", compressedFrames("\xff"), refused(1007)},
		{"truncated", compressedFrames("\xf2\x48"), refused(1007)},
		{"too big", compressedFrames(zeros(0, 1000)), refused(1009)},
		{"not text", frame(rsv1Bit|textFrame, zeros(0xFF, 5)), refused(1007)},
		{"close frame after an empty fragment", join(frame(rsv1Bit|opText, ""), frame(closeFrame, bye)), closed},
		{"close frame inside", join(frame(rsv1Bit|opText, "\xf2\x48"), frame(closeFrame, bye)), closed},
		{"close frame after a final block", join(frame(rsv1Bit|opText, "\x03\x00"), frame(closeFrame, bye)), closed},
		{"close frame after all", join(frame(rsv1Bit|opText, "\x00"), frame(closeFrame, bye)), closed},
		{"message inside", join(frame(rsv1Bit|opText, "\x00"), frame(textFrame, "")), refused(1002)},
		{"message inside, after a final block", join(frame(rsv1Bit|opText, "\x03\x00"), frame(textFrame, "")), refused(1002)},
	} {
		for _, more := range garbage {
			for _, frames := range [][]byte{nil, compressedFrames(helloPayload)} {
				want := test.want
				if frames != nil {
					want.messages = binaries("Hello")
				}
				checkInflated(t, test.name, setting{limit: 100, extension: extension}, join(frames, test.stream, more), want)
			}
		}
	}
}

// TestInflateLost loses the connection within a compressed message.
func TestInflateLost(t *testing.T) {
	payload := deflaters["fastest"](strings.Repeat("Hello, world! ", 10))
	frames := fragmented(rsv1Bit|opBinary, payload, 5)
	stream := join(frames...)
	for n := range stream {
		for _, last := range []bool{false, true} {
			for _, borrow := range []bool{false, true} {
				set := setting{limit: 1000, extension: extension, borrow: borrow}
				got := overWire(t, set, &script{in: stream[:n], end: io.EOF, last: last})
				checkOutcome(t, fmt.Sprint(n, " bytes"), got, delivered())
			}
		}
	}
	for _, borrow := range []bool{false, true} {
		c, o := start(t, setting{limit: 1000, extension: extension, borrow: borrow}, &script{in: stream[:20], end: errEnd})
		if err := drain(c); endOf(err) != endLost || err.(*Lost).Err != errEnd {
			t.Errorf("got %v", err)
		}
		finish(c, o)
	}
}

// TestInflaterIsReturned checks that the inflater returns to its pool at the second read
// after the last compressed message, and that later messages can refer to earlier ones
// nevertheless.
func TestInflaterIsReturned(t *testing.T) {
	const hello, again = helloPayload, againPayload
	message := func(payload string) []byte { return frame(rsv1Bit|textFrame, payload) }
	ping, plain := frame(pingFrame, ""), frame(textFrame, "plain")
	pieces := []struct {
		bytes []byte
		held  bool // the Conn holds an inflater before it reads this piece
	}{
		{message(hello), false},
		{message(again), true},
		{ping, true},
		{ping, false},
		{message(again), false},
		{plain, true},
		{message(again), false},
		{frame(rsv1Bit|opText, again[:2]), true},
		{frame(opContinuation, ""), true}, // it is kept within a message
		{ping, true},
		{frame(finBit|opContinuation, again[2:]), true},
		{message(""), true},
		{message(again)[:1], true},
		{message(again)[1:], false}, // the message has not begun before its header is complete
		{nil, true},
	}
	for _, set := range []setting{{extension: extension}, {extension: extension, borrow: true}} {
		set.limit = 5
		f := &feed{}
		for _, piece := range pieces[:len(pieces)-1] {
			f.pieces = append(f.pieces, bytes.Clone(piece.bytes))
		}
		c, o := start(t, set, f)
		i := &c.in.inflation
		var last *inflater
		f.idle = func(piece int) {
			if held := i.z != nil; held != pieces[piece].held {
				t.Errorf("before piece %d, %+v: inflater held: %v", piece, set, held)
			}
			if i.z == nil && last != nil && last.source.r != nil {
				t.Errorf("before piece %d: the pooled inflater refers to the connection", piece)
			}
			last = i.z
			if used := cap(i.window.buf); used > 1<<10 {
				t.Errorf("before piece %d: a window of %d bytes", piece, used)
			}
		}
		messages, err := readAll(t, c)
		want := texts("Hello", "Hello", "Hello", "plain", "Hello", "Hello", "", "Hello")
		if got := messages(); endOf(err) != endLost || !slices.Equal(got, want) {
			t.Errorf("%+v: got %v, %v", set, got, err)
		}
		finish(c, o)
		if i.z != nil || i.window.buf != nil {
			t.Errorf("%+v: memory is held after Release", set)
		}
	}
}

// TestInflaterForgets checks that a pooled inflater does not carry data from one connection
// to another.
func TestInflaterForgets(t *testing.T) {
	const again = againPayload
	for range 20 {
		set := setting{limit: 100, extension: extension}
		got := overWire(t, set, &script{in: compressedFrames(helloPayload, again), end: errEnd})
		checkOutcome(t, "the first", got, delivered(binaries("Hello", "Hello")...))
		got = overWire(t, set, &script{in: compressedFrames(again), end: errEnd})
		if bad := compare(got, refused(1007)); bad != "" {
			t.Errorf("the second: got %v", got)
		}
	}
	set := setting{limit: 100, extension: extension + serverFresh}
	checkInflated(t, "without takeover", set, compressedFrames(helloPayload, again), refused(1007, binaries("Hello")...))
	final := "\xf3\x48\xcd\xc9\xc9\x07\x00" + again // within a message, the history stays
	checkInflated(t, "without takeover, after a final block", set, compressedFrames(final, final), delivered(binaries("HelloHello", "HelloHello")...))
}

// TestInflateParameters covers all windows that a server can choose, with references as
// far back as they reach, also into earlier messages.
func TestInflateParameters(t *testing.T) {
	for bits := minBits; bits <= maxBits; bits++ {
		for _, fresh := range []string{"", serverFresh} {
			for _, client := range []string{"", clientBits + "9"} {
				window := 1 << bits
				set := setting{limit: 1 << 20, extension: fmt.Sprint(extension, serverBits, bits, fresh, client)}
				stream, want := aroundWindow(set.extension, window)
				checkInflated(t, set.extension, set, stream, delivered(want...))
				if p := predict(set, stream); p.vague != nil || compare(p.outcome, delivered(want...)) != "" {
					t.Errorf("%s: the oracle predicts %v", set.extension, p.outcome)
				}
				checkReach(t, set, window)
			}
		}
	}
}

// aroundWindow returns a stream of messages of sizes around that of a window.
func aroundWindow(extension string, window int) (stream []byte, want []message) {
	d := newDeflater(extension)
	random := rand.New(rand.NewPCG(uint64(window), 0))
	block := string(randomBytes(random, window))
	for _, data := range []string{
		block, block, block[:100] + block, "", block[window-200:], words(random, window-1), words(random, window), words(random, window+1),
		block, words(random, 3*window+7), words(random, window/2), block, words(random, window),
	} {
		want = append(want, message{Binary, data})
		stream = append(stream, compressedFrames(d.deflate(data))...)
	}
	return stream, want
}

// checkReach checks that a reference can reach exactly as far back as the window. Between
// the messages the inflater is returned to its pool: only then the window is no larger
// than negotiated.
func checkReach(t *testing.T, set setting, window int) {
	t.Helper()
	random := rand.New(rand.NewPCG(uint64(window), 1))
	old := randomBytes(random, window+300)
	refers := func(distance int) string {
		z := newLZ(maxWindow)
		z.write(0b010, 3)
		z.length(3)
		z.distance(distance)
		z.literal(256)
		return z.take() + z.end()
	}
	z := newLZ(maxWindow)
	before := z.stored(string(old[:60_000%len(old)]), false) + z.stored(string(old), false) + z.end()
	for d := range 2 {
		if d == 1 && window == maxWindow {
			break // no reference reaches further
		}
		f := &feed{pieces: [][]byte{compressedFrames(before), frame(pingFrame, ""), frame(pingFrame, ""), compressedFrames(refers(window + d))}}
		c, o := start(t, set, f)
		messages, err := readAll(t, c)
		finish(c, o)
		legal := d == 0 && !strings.Contains(set.extension, serverFresh)
		switch got := messages(); {
		case !legal && endOf(err) != endProtocol(1007), !legal && len(got) != 1:
			t.Errorf("%s, distance %d: got %d messages, %v", set.extension, window+d, len(got), err)
		case legal && (len(got) != 2 || got[1].data != string(old[300:303])):
			t.Errorf("%s, distance %d: got %d messages, %v", set.extension, window+d, len(got), err)
		}
	}
}

// TestInflateRandomMessages reads many messages with context takeover, with the oracle as
// well.
func TestInflateRandomMessages(t *testing.T) {
	count := 20_000
	if testing.Short() {
		count = 2_000
	}
	random := rand.New(rand.NewPCG(11, 12))
	for _, compressor := range []*deflater{newDeflater(extension), {lz: newLZ(maxWindow)}} {
		var stream []byte
		var want []message
		for range count / 2 {
			m := message{Binary, words(random, random.IntN(1<<random.IntN(11)))}
			want = append(want, m)
			stream = append(stream, frame(rsv1Bit|binaryFrame, compressor.deflate(m.data))...)
		}
		set := setting{limit: 1 << 11, extension: extension}
		if p := predict(set, stream); p.differs != noDifference || compare(p.outcome, delivered(want...)) != "" {
			t.Errorf("the oracle predicts %s, %d messages, difference %d", p.end, len(p.messages), p.differs)
		}
		for _, set.borrow = range []bool{false, true} {
			cut := func() int { return 1 + random.IntN(1<<random.IntN(14)) }
			got := overWire(t, set, &script{in: stream, cut: cut, end: errEnd})
			if bad := compare(got, delivered(want...)); bad != "" {
				t.Errorf("%+v: %s: %d messages, %s", set, bad, len(got.messages), got.end)
			}
		}
	}
}

// TestInflateSharesMemory checks that small messages that arrive together share a block,
// and that a single one gets no more memory than it needs.
func TestInflateSharesMemory(t *testing.T) {
	payload := zeros('x', 200)
	const each = 200
	for _, count := range []int{1, 2, 3, 10} {
		stream, _ := inOneRead(bytes.Repeat(compressedFrames(payload), count))
		c, o := start(t, setting{limit: 1 << 20, extension: extension}, &script{in: stream, end: errEnd})
		_, _ = next(c)
		burst, err := next(c)
		if err != nil || len(burst) != count {
			t.Fatalf("%d messages, %v", len(burst), err)
		}
		for i := range count - 1 {
			if !adjacent(burst[i].Data, burst[i+1].Data) {
				t.Errorf("messages %d and %d of %d do not share a block", i, i+1, count)
			}
		}
		// The estimate takes the headers of the other messages for payload.
		spare := (len(payload)+2)*(count-1)*each/len(payload) - (count-1)*each
		if got := len(c.in.block); got != spare {
			t.Errorf("%d messages: %d bytes of the block are left, want %d", count, got, spare)
		}
		finish(c, o)
	}
}

// TestInflateMemory checks that between messages a connection holds nothing but its window,
// which grows with the data received, and nothing at all without context takeover.
func TestInflateMemory(t *testing.T) {
	random := rand.New(rand.NewPCG(13, 14))
	for bits := minBits; bits <= maxBits; bits++ {
		for _, fresh := range []string{"", serverFresh} {
			f := &feed{}
			d := newDeflater(fmt.Sprint(extension, serverBits, bits, fresh))
			for range 60 {
				f.pieces = append(f.pieces, compressedFrames(d.deflate(words(random, 2000))), frame(pingFrame, ""), frame(pingFrame, ""))
			}
			c, o := start(t, setting{limit: 1 << 20, extension: fmt.Sprint(extension, serverBits, bits, fresh)}, f)
			i, sent, before := &c.in.inflation, 0, 0
			f.idle = func(piece int) {
				if piece%3 == 1 {
					sent = min(sent+2000, 1<<bits)
				}
				most := min(max(1<<10, 2*sent), 1<<bits)
				if fresh != "" {
					most = 0
				}
				if cap(i.window.buf) > most {
					t.Errorf("%d bits%s: a window of %d bytes, of which %d are used", bits, fresh, cap(i.window.buf), sent)
				}
				if piece%3 == 0 && piece > before && i.z != nil { // not within a message
					t.Errorf("%d bits%s: the inflater is held", bits, fresh)
				}
				before = piece
			}
			if err := drain(c); endOf(err) != endLost {
				t.Error(err)
			}
			finish(c, o)
		}
	}
}

// TestWindow compares the window with a model that keeps everything.
func TestWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(15, 16))
	dict := new([maxWindow]byte)
	for _, size := range []int{256, 512, 1 << 12, 1 << 15} {
		for range 40 {
			var w window
			var all []byte
			for len(all) < 4*size {
				p := randomBytes(random, random.IntN(1<<random.IntN(17)))
				if random.IntN(8) == 0 {
					p = randomBytes(random, max(0, size-len(w.buf)+random.IntN(3)-1+random.IntN(2)*size))
				}
				w.write(p, size)
				all = append(all, p...)
				if want := all[max(0, len(all)-size):]; !bytes.Equal(w.straight(dict), want) {
					t.Fatalf("window of %d: wrong after %d bytes, the last %d in one write", size, len(all), len(p))
				}
				if cap(w.buf) > size {
					t.Fatalf("window of %d: cap %d", size, cap(w.buf))
				}
			}
		}
	}
}

// TestWindowGrows checks that a window grows as needed, and to its full size once it is
// half full.
func TestWindowGrows(t *testing.T) {
	for _, size := range []int{256, 1 << 11, 1 << 12, 1 << 15} {
		var w window
		want := 0
		for n := 1; n <= 2*size; n++ {
			if w.write([]byte{byte(n)}, size); n > want {
				if want = max(1<<10, 2*want); want > size/2 {
					want = size
				}
			}
			if cap(w.buf) != want {
				t.Fatalf("window of %d, %d bytes written: cap %d, want %d", size, n, cap(w.buf), want)
			}
		}
	}
	for n, want := range map[int]int{0: 0, 1 << 10: 1 << 10, 1<<10 + 1: 1<<10 + 1, 1 << 14: 1 << 14, 1<<14 + 1: 1 << 15} {
		var w window
		w.write(make([]byte, n), 1<<15)
		if cap(w.buf) != want {
			t.Errorf("%d bytes in one write: cap %d, want %d", n, cap(w.buf), want)
		}
	}
}

// FuzzInflate compares a Conn with the oracle, for compressed messages with arbitrary
// payloads.
func FuzzInflate(f *testing.F) {
	const hello, again = helloPayload, againPayload
	f.Add([]byte(hello), []byte(again), uint16(3), byte(0))
	f.Add([]byte("\xf3\x48\xcd\xc9\xc9\x07\x00"), []byte(again+"\x01"), uint16(70), byte(1))
	f.Add([]byte("\x00\x05\x00\xfa\xffHello\x00"), []byte{}, uint16(9), byte(2))
	f.Add([]byte(hello[:2]+"\x05\x00"+tail+"\xca\xc9\xc9\x07\x00"), []byte(hello), uint16(0), byte(3))
	f.Add([]byte(zeros(1, 100_000)), []byte(zeros(2, 70_000)), uint16(100), byte(0))
	random := rand.New(rand.NewPCG(17, 18))
	for _, deflate := range deflaters {
		data := words(random, 400)
		f.Add([]byte(deflate(data)), []byte(deflate(string(randomBytes(random, 100)))), uint16(50), byte(4))
	}
	f.Fuzz(func(t *testing.T, first, second []byte, cut uint16, flags byte) {
		if len(first)+len(second) > 1<<12 {
			return
		}
		set := setting{limit: 80_000, extension: extension}
		if flags&1 != 0 {
			set.extension += serverFresh
		}
		if flags&2 != 0 {
			set.limit = 100
		}
		n := min(int(cut), len(first))
		stream := join(frame(rsv1Bit|opBinary, string(first[:n])), frame(pingFrame, "1"), frame(finBit|opContinuation, string(first[n:])),
			frame(pingFrame, "2"), compressedFrames(string(second), string(first)))
		want := predict(set, stream)
		for _, set.borrow = range []bool{false, true} {
			src := &script{in: stream, end: errEnd}
			if flags&4 != 0 {
				src.cut = inTwo(int(cut) % (len(stream) + 1))
			}
			if flags&8 != 0 {
				src.cut = byBytes
			}
			if got := overWire(t, set, src); want.reject(got) != "" {
				t.Errorf("%+v: %s: got\n%v\nwant\n%v", set, want.reject(got), got, want.outcome)
			}
		}
	})
}
