package wire

import (
	"bytes"
	"cmp"
	"compress/flate"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"
)

var allMessages = flag.Bool("resock.messages", false, "send as many messages as Autobahn in groups 12 and 13 of the conformance tests")

// messageCount returns the number of messages in a case.
func messageCount(size int) int {
	if *allMessages {
		return 1000
	}
	return min(50, max(2, 64<<10/size))
}

// messageSizes are the sizes of messages and frames in Autobahn. A frame size of 0 means
// unfragmented.
var messageSizes = []struct{ message, frame int }{
	{16, 0}, {64, 0}, {256, 0}, {1 << 10, 0}, {4 << 10, 0}, {8 << 10, 0}, {16 << 10, 0}, {32 << 10, 0}, {64 << 10, 0}, {128 << 10, 0},
	{8 << 10, 256}, {16 << 10, 256}, {32 << 10, 256}, {64 << 10, 256}, {128 << 10, 256},
	{128 << 10, 1 << 10}, {128 << 10, 4 << 10}, {128 << 10, 32 << 10},
}

// agreements are the negotiated parameters of groups 13.1 to 13.7. Autobahn says what one
// side asks for; here both ask for the same. In 13.7 there are several offers, of which
// the server accepts the first.
var agreements = []string{
	extension,
	extension + serverFresh + clientFresh,
	extension + serverBits + "9" + clientBits + "9",
	extension + serverBits + "15" + clientBits + "15",
	extension + serverFresh + clientFresh + serverBits + "9" + clientBits + "9",
	extension + serverFresh + clientFresh + serverBits + "15" + clientBits + "15",
	extension + serverFresh + clientFresh + serverBits + "9" + clientBits + "9",
}

// TestConformanceCompression runs groups 12 and 13: compressed messages of many kinds and
// sizes, with many parameters.
func TestConformanceCompression(t *testing.T) {
	count := 0
	run := func(group string, s func() *sample, extension string) {
		for i, size := range messageSizes {
			w, lockstep := wayOf(count), count/len(ways)%2 == 0
			count++
			t.Run(numbered(group, i), func(t *testing.T) {
				t.Parallel() // before the messages are made, so that they do not exist all at once
				compressed(s(), extension, size.message, size.frame, lockstep).run(t, w)
			})
		}
	}
	for i, s := range samples {
		run(numbered("12", i), s, extension)
	}
	for i, agreed := range agreements {
		run(numbered("13", i), jsonSample, agreed)
	}
	t.Logf("%d cases", count)
}

// compressed returns a case with compressed messages of one size.
func compressed(s *sample, extension string, size, frameSize int, lockstep bool) conformance {
	c := conformance{extension: extension, lockstep: lockstep}
	d := newDeflater(extension)
	for range messageCount(size) {
		m := s.next(size)
		c.want = append(c.want, m)
		payload := d.deflate(m.data)
		frames := fragmented(rsv1Bit|byte(m.typ), payload, cmp.Or(frameSize, len(payload)))
		if lockstep {
			frames = whole(frames...)
		}
		c.pieces = append(c.pieces, frames...)
	}
	return c
}

// TestConformanceWindows covers every size of the sliding windows.
func TestConformanceWindows(t *testing.T) {
	count := 0
	for bits := minBits; bits <= maxBits; bits++ {
		for _, fresh := range []string{"", serverFresh, clientFresh, serverFresh + clientFresh} {
			for _, extension := range []string{
				fmt.Sprint(extension, fresh, serverBits, bits),
				fmt.Sprint(extension, fresh, clientBits, bits),
				fmt.Sprint(extension, fresh, serverBits, bits, clientBits, bits),
			} {
				windowed(extension, 1<<bits).start(t, wayOf(count+bits), wayOf(count+bits+2))
				count++
			}
		}
	}
	t.Logf("%d cases", count)
}

// windowed returns a case with messages around the size of a window, and with references
// as far back as it reaches. Pings between them let the client return its inflater to the
// pool, so that it must restore the window in another one.
func windowed(extension string, window int) conformance {
	c := conformance{name: "own: " + extension, extension: extension}
	d := &deflater{fresh: strings.Contains(extension, serverFresh), lz: newLZ(windowBytes(extension, serverBits))}
	block := string(randomBytes(rand.New(rand.NewPCG(uint64(window), 0)), window))
	s := jsonSample()
	text := func(size int) message {
		m := s.next(size)
		m.data += strings.Repeat(" ", size-len(m.data))
		return m
	}
	for i, m := range []message{
		{Binary, block}, {Binary, block}, {Binary, block[:100] + block}, {Text, ""}, {Binary, block[window-200:]},
		text(window - 1), text(window), text(window + 1), text(compressFrom), text(3*window + 7), text(window / 2),
		{Binary, block}, text(window),
	} {
		c.want = append(c.want, m)
		c.pieces = append(c.pieces, frame(rsv1Bit|finBit|byte(m.typ), d.deflate(m.data)))
		if i%3 > 0 {
			c.pieces, c.pongs = append(c.pieces, frame(pingFrame, "rest")), append(c.pongs, "rest")
		}
	}
	return c
}

// mixtures are ways to answer the offer of permessage-deflate.
var mixtures = []string{
	extension,
	extension + serverFresh,
	extension + clientFresh,
	extension + serverFresh + clientFresh,
	extension + serverBits + "15",
	extension + serverBits + "10",
}

// TestConformanceCompressionMixed mixes compressed and uncompressed messages, with pings
// between their frames.
func TestConformanceCompressionMixed(t *testing.T) {
	count := 0
	for _, agreed := range mixtures {
		for _, size := range []struct{ message, frame int }{
			{16, 0}, {256, 0}, {4 << 10, 0}, {32 << 10, 0}, {128 << 10, 0}, {16, 5}, {8 << 10, 1 << 10}, {16 << 10, 16}, {16 << 10, 256},
		} {
			c := mixed(agreed, size.message, size.frame)
			c.name = fmt.Sprintf("own: %d in %d, %s", size.message, size.frame, agreed)
			c.start(t, wayOf(count))
			count++
		}
	}
	t.Logf("%d cases", count)
}

// mixed returns a case with messages of one size, every other one compressed.
func mixed(extension string, size, frameSize int) (c conformance) {
	c.extension = extension
	d := newDeflater(extension)
	random := rand.New(rand.NewPCG(uint64(size), uint64(frameSize)))
	s := jsonSample()
	for i := range 6 {
		m := s.next(size)
		if i%4 == 3 {
			m = message{Binary, string(randomBytes(random, size))}
		}
		c.want = append(c.want, m)
		first, payload := byte(m.typ), m.data
		if i%2 == 0 {
			first, payload = rsv1Bit|first, d.deflate(payload)
		}
		frames := fragmented(first, payload, cmp.Or(frameSize, len(payload)))
		ping := fmt.Sprint("ping ", i)
		c.pongs = append(c.pongs, ping)
		c.pieces = append(c.pieces, slices.Insert(frames, len(frames)/2, frame(pingFrame, ping))...)
	}
	return c
}

// TestConformanceBlocks covers the kinds and sequences of blocks that a message can
// consist of, such as those in RFC 7692, section 7.2.3.
func TestConformanceBlocks(t *testing.T) {
	const (
		hello      = helloPayload
		again      = againPayload // refers to hello
		stored     = "\x00\x05\x00\xfa\xffHello\x00"
		final      = "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"
		twoBlocks  = "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"
		lastIsBare = "\xf3\x48\xcd\xc9\xc9\x07\x00" // without the empty block that should follow
	)
	of := func(payloads ...string) (pieces [][]byte) {
		for _, payload := range payloads {
			pieces = append(pieces, frame(rsv1Bit|textFrame, payload))
		}
		return pieces
	}
	hellos := func(n int) []message { return slices.Repeat(texts("Hello"), n) }
	cases := []conformance{
		{name: "own: one block", pieces: of(hello), want: hellos(1)},
		{name: "own: two blocks", pieces: of(twoBlocks, hello), want: hellos(2)},
		{name: "own: stored block", pieces: of(stored, again), want: hellos(2)},
		{name: "own: window", pieces: of(hello, again, again), want: hellos(3)},
		{name: "own: final block", pieces: of(final, hello, final), want: hellos(3)},
		{name: "own: final block and window", pieces: of(final, again, final, again), want: hellos(4)},
		{name: "own: bare final block", pieces: of(lastIsBare, again, lastIsBare, hello), want: hellos(4)},
		{name: "own: fragments", pieces: fragmented(rsv1Bit|opText, hello, 3), want: hellos(1)},
		{name: "own: fragments of a byte", pieces: fragmented(rsv1Bit|opText, final, 1), want: hellos(1)},
		{name: "own: plain between", pieces: append(of(hello), join(frame(textFrame, "plain"), of(again)[0])), want: texts("Hello", "plain", "Hello")},
		{name: "own: empty message", pieces: of("\x00", hello, "\x00", again), want: texts("", "Hello", "", "Hello")},
		{name: "own: many empty blocks", pieces: of(strings.Repeat("\x00\x00\x00\xff\xff", 1000)+hello, again), want: hellos(2)},
		{name: "own: empty frames", pieces: whole(
			frame(rsv1Bit|opText, ""), frame(opContinuation, hello), frame(opContinuation, ""), frame(finBit|opContinuation, "")), want: hellos(1)},
		{name: "own: pings between", pieces: whole(
			frame(rsv1Bit|opText, hello[:1]), frame(pingFrame, "1"), frame(opContinuation, hello[1:4]), frame(pingFrame, "2"),
			frame(pongFrame, "3"), frame(opContinuation, hello[4:]), frame(pingFrame, "4"), frame(finBit|opContinuation, "")),
			want: hellos(1), pongs: []string{"1", "2", "4"}},
	}
	for _, fresh := range []string{"", serverFresh} {
		for _, size := range []int{100, 10_000, 100_000} {
			cases = append(cases, finals(fresh, size, 0), finals(fresh, size, 100))
		}
	}
	for i, c := range cases {
		c.extension = cmp.Or(c.extension, extension)
		c.start(t, waysOf(i, c)...)
	}
	t.Logf("%d cases", len(cases))
}

// finals returns a case with final blocks at the end of messages, in the middle, and
// nowhere.
func finals(fresh string, size, frameSize int) conformance {
	c := conformance{name: fmt.Sprintf("own: final blocks%s, %d in %d", fresh, size, frameSize), extension: extension + fresh}
	z := newLZ(maxWindow)
	s := jsonSample()
	for i := range 8 {
		if fresh != "" {
			z.forget()
		}
		first, second := s.next(size/2).data, s.next(size/2).data
		payload := z.block(first, i&1 != 0) + z.block(second, i&2 != 0) + z.end()
		c.want = append(c.want, message{Text, first + second})
		c.pieces = append(c.pieces, fragmented(rsv1Bit|opText, payload, cmp.Or(frameSize, len(payload)))...)
	}
	return c
}

// TestConformanceCompressionViolations covers what can be wrong with compressed messages
// and their frames.
func TestConformanceCompressionViolations(t *testing.T) {
	deflated := func(text string) string { return newDeflater(extension).deflate(text) }
	bomb := deflated(strings.Repeat("\x00", 2*conformanceLimit))
	largest := strings.Repeat("\x00", conformanceLimit)
	noise := string(randomBytes(rand.New(rand.NewPCG(0, 0)), conformanceLimit))
	hello, bad := frame(textFrame, "before"), frame(rsv1Bit|textFrame, deflated("caf\xe9"))
	const far = againPayload // refers to a message before, by 5 bytes
	cases := []conformance{
		{name: "own: invalid text", pieces: whole(bad), fails: 1007},
		{name: "own: invalid text after data", pieces: whole(hello, bad, hello), want: texts("before"), fails: 1007},
		{name: "own: invalid text in fragments", pieces: whole(fragmented(rsv1Bit|opText, deflated("caf\xe9 au lait"), 4)...), fails: 1007},
		{name: "own: text cut in a character", pieces: whole(frame(rsv1Bit|textFrame, deflated("caf\xc3"))), fails: 1007},
		{name: "own: large invalid text", pieces: whole(frame(rsv1Bit|textFrame, deflated(strings.Repeat("x", 200_000)+"\xff"))), fails: 1007},
		{name: "own: corrupt", pieces: whole(frame(rsv1Bit|textFrame, "\xff\xff\xff\xff")), fails: 1007},
		{name: "own: truncated", pieces: whole(frame(rsv1Bit|textFrame, deflated("cut short")[:4])), fails: 1007},
		{name: "own: without its last byte", pieces: whole(frame(rsv1Bit|textFrame, "\xf2\x48\xcd\xc9\xc9\x07")), fails: 1007},
		{name: "own: reference to nothing", pieces: whole(frame(rsv1Bit|textFrame, far)), fails: 1007},
		{name: "own: reference to another message without takeover", extension: extension + serverFresh,
			pieces: whole(frame(rsv1Bit|textFrame, deflated("Hello")), frame(rsv1Bit|textFrame, far)), want: texts("Hello"), fails: 1007},
		{name: "own: largest", pieces: whole(frame(rsv1Bit|binaryFrame, deflated(largest))), want: binaries(largest)},
		{name: "own: largest, and larger when compressed", pieces: whole(frame(rsv1Bit|binaryFrame, deflated(noise))), want: binaries(noise)},
		{name: "own: too big by a byte", pieces: whole(frame(rsv1Bit|binaryFrame, deflated(largest+"\x00"))), fails: 1009},
		{name: "own: bomb in one frame", pieces: whole(frame(rsv1Bit|binaryFrame, bomb)), fails: 1009},
		{name: "own: bomb", pieces: whole(fragmented(rsv1Bit|opBinary, bomb, 1000)...), fails: 1009},
		{name: "own: compressed continuation", pieces: whole(frame(rsv1Bit|opText, deflated("a")), frame(rsv1Bit|finBit|opContinuation, "")), fails: 1002},
		{name: "own: compressed continuation of a plain message", pieces: whole(frame(opText, "a"), frame(rsv1Bit|finBit|opContinuation, "a")), fails: 1002},
		{name: "own: compressed ping", pieces: whole(frame(rsv1Bit|pingFrame, deflated("a"))), fails: 1002},
		{name: "own: compressed pong", pieces: whole(frame(rsv1Bit|pongFrame, "")), fails: 1002},
		{name: "own: compressed close frame", pieces: whole(frame(rsv1Bit|closeFrame, closePayload(1000, ""))), fails: 1002},
		{name: "own: compressed ping inside", pieces: whole(frame(rsv1Bit|opText, ""), frame(rsv1Bit|pingFrame, "")), fails: 1002},
		{name: "own: compressed reserved opcode", pieces: whole(frame(rsv1Bit|finBit|3, deflated("a"))), fails: 1002},
		{name: "own: message inside", pieces: whole(frame(rsv1Bit|opText, ""), frame(rsv1Bit|textFrame, "\x00")), fails: 1002},
		{name: "own: reserved bit 2", pieces: whole(frame(0x20|rsv1Bit|textFrame, deflated("a"))), fails: 1002},
		{name: "own: reserved bit 3", pieces: whole(frame(0x10|textFrame, "a")), fails: 1002},
		{name: "own: empty continuations", pieces: whole(frame(rsv1Bit|opText, "\x00"), bytes.Repeat(frame(opContinuation, ""), maxEmptyFrames)), fails: 1002},
		{name: "own: plain invalid text", pieces: whole(frame(textFrame, "caf\xe9")), fails: 1007},
	}
	for i, c := range cases {
		c.extension = cmp.Or(c.extension, extension)
		c.start(t, waysOf(i, c)...)
	}
	for name, first := range map[string]byte{"text": rsv1Bit | textFrame, "fragment": rsv1Bit | opBinary} {
		c := conformance{name: "own: not negotiated: " + name, pieces: whole(hello, frame(first, deflated("a"))), want: texts("before"), fails: 1002}
		c.start(t, ways...)
	}
	t.Logf("%d cases", len(cases)+2)
}

// sample is data from which messages are cut, one after the other.
type sample struct {
	typ    Type
	data   string // followed by its beginning again, for messages that wrap around
	length int
	at     int
}

func newSample(typ Type, data string) *sample {
	return &sample{typ: typ, data: data + data[:128<<10], length: len(data)}
}

// next returns a message of the given size, or slightly less: text is cut at a character
// boundary.
func (s *sample) next(size int) message {
	end := s.at + size
	for s.typ == Text && end < len(s.data) && !utf8.RuneStart(s.data[end]) {
		end--
	}
	m := message{s.typ, s.data[s.at:end]}
	s.at = end % s.length
	return m
}

// samples are the data of groups 12.1 to 12.5, of the same kinds and sizes as the files of
// Autobahn.
var samples = []func() *sample{jsonSample, pictureSample, novelSample, pageSample, documentSample}

// made returns a function that makes a sample once, and returns copies of it.
func made(typ Type, data func(random *rand.Rand) string) func() *sample {
	once := sync.OnceValue(func() *sample {
		return newSample(typ, data(rand.New(rand.NewPCG(12, 13))))
	})
	return func() *sample {
		s := *once()
		return &s
	}
}

var (
	jsonSample = made(Text, func(random *rand.Rand) string { return words(random, 194056) })

	pictureSample = made(Binary, func(random *rand.Rand) string {
		b := make([]byte, 263222)
		for i := 1; i < len(b); i++ {
			b[i] = b[i-1] + byte(random.IntN(5)) - 2
		}
		return string(b)
	})

	novelSample = made(Binary, func(random *rand.Rand) string {
		words := strings.Fields("und der die nicht ich zu das ist ein in so es sie mir mit dir mich was den auf wie du sich er wir doch nur Mephistopheles Faust Margarete über möcht’ fühl’ Geist Welt Herz süße")
		var b strings.Builder
		for b.Len() < 222218 {
			b.WriteString(words[int(float64(len(words))*random.Float64()*random.Float64())])
			b.WriteByte(" \n"[random.IntN(8)/7])
		}
		return b.String()[:222218]
	})

	pageSample = made(Text, func(random *rand.Rand) string {
		var b strings.Builder
		for b.Len() < 263527 {
			fmt.Fprintf(&b, "<tr class=\"row-%d\"><td><a href=\"/item/%x\">Größe %d</a></td><td>&nbsp;%d €</td></tr>\n",
				random.IntN(2), random.Uint32(), random.IntN(100), random.IntN(10_000))
		}
		return strings.ToValidUTF8(b.String()[:263527], "?")
	})

	documentSample = made(Binary, func(random *rand.Rand) string {
		var b strings.Builder
		for i := 0; b.Len() < 1042328; i++ {
			stream := randomBytes(random, random.IntN(20_000))
			fmt.Fprintf(&b, "%d 0 obj\n<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream\nendobj\n", i, len(stream), stream)
		}
		return b.String()[:1042328]
	})
)

// echoInflater checks which echoes are compressed: those that become smaller and fit into
// the server's window.
type echoInflater struct {
	agreed  string
	another *deflater // compresses like the client
}

// plain returns an error if an uncompressed echo should have been compressed.
func (e *echoInflater) plain(echo []byte) error {
	if e.agreed == "" || len(echo) < compressFrom || outgrows(e.agreed, echo) {
		return nil
	}
	if e.another == nil {
		e.another = newDeflater(extension + serverFresh)
	}
	if deflated := e.another.deflate(string(echo)); len(deflated) < len(echo) {
		return fmt.Errorf("an echo of %d bytes is not compressed to %d", len(echo), len(deflated))
	}
	return nil
}

// inflate decompresses an echo, and returns an error if it should not have been
// compressed. The client never uses context takeover, whatever was negotiated, so each
// echo must decompress on its own. Nor can it compress with a smaller window, so it must
// not compress an echo that is longer than the server's.
func (e *echoInflater) inflate(payload []byte) (echo []byte, err error) {
	const ends = tail + "\x01\x00\x00\xff\xff" // and an empty last block
	echo, err = io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader(ends))))
	switch {
	case err != nil:
		return nil, fmt.Errorf("an echo cannot be decompressed: %v", err)
	case e.agreed == "":
		return nil, fmt.Errorf("an echo is compressed, which was not negotiated")
	case outgrows(e.agreed, echo):
		return nil, fmt.Errorf("an echo of %d bytes is compressed, with %s", len(echo), e.agreed)
	case len(echo) < compressFrom || len(payload) >= len(echo):
		return nil, fmt.Errorf("an echo of %d bytes is compressed to %d", len(echo), len(payload))
	}
	return echo, nil
}

// outgrows reports whether an echo is longer than the server's window, if that is smaller
// than the client's.
func outgrows(agreed string, echo []byte) bool {
	window := windowBytes(agreed, clientBits)
	return window < maxWindow && len(echo) > window
}
