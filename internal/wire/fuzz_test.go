package wire

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// FuzzWire compares readers of the same stream, cut anywhere: a Conn, with and without
// borrowing, coder/websocket, and the oracle. A Conn must do what the oracle predicts.
// So must coder/websocket, up to the first of the known differences.
func FuzzWire(f *testing.F) {
	for seed := range uint64(60) {
		f.Add(randomProgram(rand.New(rand.NewPCG(seed, 1)), byte(seed), 200))
	}
	f.Add(append([]byte{flagRaw, 0}, mixedStream...))
	f.Add(append([]byte{flagRaw | flagDeflate, 1}, mixedStream...))
	for _, e := range inflateExamples {
		f.Add(append([]byte{flagRaw | flagDeflate, 1}, join(e.frames...)...))
	}
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 4 || len(program) > 1<<12 {
			return
		}
		checkStream(t, newGenerator(program))
	})
}

// TestWireRandomStreams runs FuzzWire on a fixed set of random streams, which meet every
// known difference.
func TestWireRandomStreams(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	met := map[difference]int{}
	for range 2000 {
		flags := byte(random.Uint32())
		if random.IntN(4) > 0 {
			flags = flags&^flagRaw | flagDeflate
		}
		program := randomProgram(random, flags, 150)
		met[checkStream(t, newGenerator(program))]++
		if t.Failed() {
			t.Fatalf("program %q", program)
		}
	}
	t.Logf("streams by the difference met: %v", met)
	for d := range differences {
		if met[difference(d)] == 0 {
			t.Errorf("no stream met difference %d", d)
		}
	}
}

func randomProgram(random *rand.Rand, flags byte, longest int) []byte {
	program := make([]byte, 4+random.IntN(longest))
	for i := range program {
		program[i] = byte(random.Uint32())
	}
	program[0] = flags
	return program
}

// checkStream compares the readers of a stream, and returns the difference that it met.
func checkStream(t *testing.T, g *generator) difference {
	t.Helper()
	want := predict(g.set, g.stream)
	for _, g.set.borrow = range []bool{false, true} {
		got := overWire(t, g.set, &script{in: g.stream, cut: g.cuts(), end: io.EOF, last: g.flags&flagLast != 0})
		if bad := want.reject(got); bad != "" {
			t.Errorf("Conn, borrow %t: %s: got\n%v\nwant\n%v", g.set.borrow, bad, got, want.outcome)
		}
	}
	alone, ok := aloneUnlessItPanics(t, g.set, &script{in: g.stream, cut: g.cuts(), end: errEnd}, want)
	if bad := want.rejectBare(alone); ok && bad != "" {
		t.Errorf("coder/websocket: %s, difference %d at %v: got\n%v\nwant\n%v", bad, want.differs, want.agreed, alone, want.outcome)
	}
	if t.Failed() {
		t.Logf("%+v, stream\n%.2000q", g.set, g.stream)
	}
	return want.differs
}

// aloneUnlessItPanics is like alone, but reports false if coder/websocket panics after a
// difference from which on nothing is compared.
func aloneUnlessItPanics(t *testing.T, set setting, src *script, want prediction) (got outcome, ok bool) {
	defer func() {
		if !ok && differences[want.differs].manner == goesOn {
			_ = recover()
		}
	}()
	return alone(t, set, src), true
}

// generator turns the bytes of a program into a stream.
type generator struct {
	program []byte
	flags   byte
	random  *rand.Rand
	set     setting
	stream  []byte

	controls int
	deflater *deflater // the server's compressor, if lz is nil
	lz       *lz       // the server's compressor, if deflater is nil
	fresh    bool      // no context takeover
}

const (
	flagRaw     = 1 << iota // the program is the stream
	flagDeflate             // permessage-deflate is negotiated
	flagFresh               // no context takeover
	flagWindow              // server_max_window_bits is negotiated
	flagSmall               // a small read limit
	flagByBytes             // reads return one or two bytes
	flagWhole               // reads return as much as fits
	flagLast                // io.EOF comes along with the last bytes
)

func newGenerator(program []byte) *generator {
	g := &generator{flags: program[0], random: rand.New(rand.NewPCG(uint64(program[1]), 0)), program: program[2:]}
	g.set.limit = 200_000
	if g.flags&flagSmall != 0 {
		g.set.limit = []int64{1, 40, 125, 126, 4096, 5000, 65536}[program[1]%7]
	}
	if g.flags&flagDeflate != 0 {
		g.agree(program[1])
	}
	if g.flags&flagRaw != 0 {
		g.stream = g.program
		return g
	}
	for len(g.program) > 0 && len(g.stream) < 1<<18 {
		g.step()
	}
	return g
}

// agree chooses the parameters of permessage-deflate and the server's compressor.
func (g *generator) agree(choice byte) {
	g.set.extension = extension
	window := maxWindow
	if g.flags&flagWindow != 0 {
		bits := minBits + int(choice>>1)%8
		g.set.extension += fmt.Sprint(serverBits, bits)
		window = 1 << bits
	}
	if g.fresh = g.flags&flagFresh != 0; g.fresh {
		g.set.extension += serverFresh
	}
	if choice%2 == 0 {
		g.deflater = newDeflater(g.set.extension)
	} else {
		g.lz = newLZ(window)
	}
}

// cuts returns a function that cuts the stream into reads, the same way each time.
func (g *generator) cuts() func() int {
	random := rand.New(rand.NewPCG(uint64(g.flags), uint64(len(g.stream))))
	switch {
	case g.flags&flagByBytes != 0:
		return func() int { return 1 + random.IntN(2) }
	case g.flags&flagWhole != 0:
		return nil
	}
	return func() int { return 1 + random.IntN(1<<random.IntN(17)) }
}

func (g *generator) next() byte {
	if len(g.program) == 0 {
		return 0
	}
	b := g.program[0]
	g.program = g.program[1:]
	return b
}

// pick returns one of its arguments.
func pick[T any](g *generator, values ...T) T { return values[int(g.next())%len(values)] }

func (g *generator) frame(first byte, payload string) {
	g.stream = append(g.stream, frame(first, payload)...)
}

// step appends a message or something else. Most steps are legal, since a violation ends
// the stream.
func (g *generator) step() {
	switch op := g.next(); {
	case op < 60:
		g.message(0)
	case op < 100:
		g.message(1 + g.next()%4)
	case op < 190 && g.set.extension != "":
		g.compressed()
	case op < 220:
		g.control()
	case op < 240:
		g.frame(textFrame, g.text())
	case op < 246:
		g.frame(pick(g, 0, byte(finBit))|pick(g, byte(opContinuation), opText, opBinary), g.text())
	default:
		g.rare()
	}
}

// message appends a message, fragmented by a number of cuts.
func (g *generator) message(cuts byte) {
	opcode, payload := byte(opText), ""
	if g.next()%4 == 0 {
		opcode, payload = opBinary, g.bytes()
	} else {
		payload = g.text()
	}
	g.fragments(opcode, payload, cuts)
}

// fragments appends a message with control frames between its fragments.
func (g *generator) fragments(first byte, payload string, cuts byte) {
	for range cuts {
		n := g.random.IntN(len(payload) + 1)
		g.frame(first, payload[:n])
		first, payload = opContinuation, payload[n:]
		switch op := g.next(); {
		case op < 100:
			g.control()
		case op < 104:
			g.close()
		}
	}
	g.frame(finBit|first, payload)
}

// control appends a ping or pong, unless there are so many that pongs might be dropped:
// that depends on how soon they are flushed.
func (g *generator) control() {
	if g.controls++; g.controls > MaxFlush/FrameSize(maxControlPayload)-100 {
		return
	}
	payload := g.bytes()
	g.frame(finBit|pick(g, byte(opPing), opPong), payload[:min(len(payload), maxControlPayload)])
}

// close appends a close frame.
func (g *generator) close() {
	code := pick(g, 1000, 1001, 1002, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 2999, 3000, 4999, 5000, 0)
	g.frame(closeFrame, closePayload(code, pick(g, "", "bye", "é", "\xff", "\xc3", strings.Repeat("r", 123))))
}

// bytes returns random bytes, of one of the sizes at which something changes.
func (g *generator) bytes() string {
	size := pick(g, 0, 1, 2, 5, 124, 125, 126, 127, 200, 252, 256, 1000, -1)
	if size < 0 {
		size = pick(g, 4090, 4096, 5000, 4090, 4096, 5000, 4090, 4096, 5000, 65530, 65535, 65536, 70_000)
	}
	return string(randomBytes(g.random, size))
}

// text returns text, which is seldom invalid.
func (g *generator) text() string {
	switch op := g.next(); {
	case op < 150:
		return pick(g, "", "hello", "κόσμε", "日本語", "🙂", "\U0010ffff")
	case op < 250:
		return strings.Repeat(pick(g, "a", "é", "€", "🙃"), pick(g, 10, 31, 50, 63, 64, 300, 1365, 3000)) + pick(g, "", "b", "c", "d")
	default:
		return strings.Repeat("x", int(g.next())) + pick(g, brokenTexts...) + g.text()
	}
}

// brokenTexts are texts that are not valid UTF-8.
var brokenTexts = []string{
	"\x80", "\xc0\x80", "\xc3", "\xc2a", "\xe0\x9f\xbf", "\xe2\x82", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x99",
	"\xf4\x90\x80\x80", "\xf5", "\xff", "a\xe1\x80b",
}

// compressed appends a compressed message, fragmented or not.
func (g *generator) compressed() {
	opcode := pick(g, byte(opText), opBinary)
	plain := g.text
	if opcode == opBinary {
		plain = func() string { return strings.Repeat(g.bytes(), pick(g, 1, 1, 1, 1, 1, 2, 3, 20)) }
	}
	deflated := ""
	switch {
	case g.deflater != nil:
		deflated = g.deflater.deflate(plain())
	case g.next() < 100:
		if g.fresh {
			g.lz.forget()
		}
		deflated = g.lz.deflate(plain())
	default:
		deflated = g.blocks(plain)
	}
	g.fragments(rsv1Bit|opcode, g.damaged(deflated), g.next()%4)
}

// blocks returns the payload of a compressed message with blocks of several kinds.
func (g *generator) blocks(plain func() string) string {
	if g.fresh {
		g.lz.forget()
	}
	if g.next() < 20 {
		g.lz.window = maxWindow // whatever was negotiated
	}
	deflated, final := "", false
	for range 1 + g.next()%4 {
		final = g.next() < 40
		switch op := g.next(); {
		case op < 100:
			deflated += g.lz.block(plain(), final)
		case op < 200:
			deflated += g.lz.stored(plain(), final)
		default:
			deflated += g.lz.stored("", final)
		}
	}
	if final && g.next() < 128 {
		return deflated
	}
	return deflated + g.lz.end()
}

// damaged returns deflated, in rare cases truncated, extended or corrupted.
func (g *generator) damaged(deflated string) string {
	switch op := g.next(); {
	case deflated == "" || op < 236:
		return deflated
	case op < 242:
		return deflated[:g.random.IntN(len(deflated))]
	case op < 245:
		return deflated[:max(0, len(deflated)-int(op-240))]
	case op < 248:
		return deflated + pick(g, "\x00", tail, "\x00"+tail, "\x01"+tail, "\x03\x00")
	}
	b := []byte(deflated)
	b[g.random.IntN(len(b))] ^= 1 << g.random.IntN(8)
	return string(b)
}

// rare appends or changes what ends a connection, or nearly does.
func (g *generator) rare() {
	switch g.next() % 12 {
	case 0:
		g.close()
	case 1:
		g.frame(closeFrame, pick(g, "", "\x03", "\x03\xe8"))
	case 2:
		g.frame(g.next(), g.text())
	case 3:
		g.stream = append(g.stream, masked(pick(g, byte(textFrame), pingFrame, opBinary), "masked")...)
	case 4:
		length := pick(g, uint64(1<<63), 1<<64-1, 1<<63-1, 1<<40, 1<<31, uint64(g.set.limit), uint64(g.set.limit)+1)
		g.stream = append(g.stream, head(g.next(), length)...)
	case 5:
		g.stream = append(g.stream, frame(pick(g, byte(opText), opBinary, opContinuation, rsv1Bit|opText), "")...)
		g.stream = append(g.stream, bytes.Repeat(frame(opContinuation, ""), pick(g, 10, 998, 999, 1000))...)
	case 6:
		g.stream = append(g.stream, pick(g, "\x82\x7e\x00\x03abc", "\x82\x7e\x00\x7d", "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff",
			"\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02ok", "\x89\x7e\x00\x01p", "\x88\x7f\x00\x00\x00\x00\x00\x00\x00\x00")...)
	case 7:
		n := int(g.next())
		n = min(n, len(g.program))
		g.stream = append(g.stream, g.program[:n]...)
		g.program = g.program[n:]
	case 8:
		if len(g.stream) > 0 { // corrupt a byte
			g.stream[g.random.IntN(len(g.stream))] = g.next()
		}
	case 9:
		if g.next() < 50 { // truncate the stream
			g.stream = g.stream[:g.random.IntN(len(g.stream)+1)]
			g.program = nil
		}
	default:
		g.control()
	}
}
