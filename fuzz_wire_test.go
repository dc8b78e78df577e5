package resock

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzWire compares three readers of the same stream, cut anywhere: a session
// over the wire, coder/websocket alone, and the oracle below. The session must do
// as the oracle says. So must coder/websocket, up to the place where the wire is
// meant to differ.
func FuzzWire(f *testing.F) {
	for seed := range uint64(40) {
		random := rand.New(rand.NewPCG(seed, 1))
		program := make([]byte, 20+random.IntN(200))
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		program[0] = byte(seed)
		f.Add(program)
	}
	f.Add(append([]byte{flagRaw, 0}, mixed...))
	f.Add(append([]byte{flagRaw | flagDeflate, 1}, mixed...))
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) < 4 || len(program) > 1<<12 {
			return
		}
		checkStream(t, newGenerator(program))
	})
}

// TestWireRandomStreams is a little of FuzzWire, the same each time.
func TestWireRandomStreams(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 120 {
		program := make([]byte, 4+random.IntN(100))
		for i := range program {
			program[i] = byte(random.Uint32())
		}
		checkStream(t, newGenerator(program))
		if t.Failed() {
			t.Fatalf("program %q", program)
		}
	}
}

func checkStream(t *testing.T, g *generator) {
	set, stream := g.set, g.stream
	want := predict(set, stream)
	wired := overWire(t, set, &script{in: stream, cut: g.cuts(), end: io.EOF, last: g.flags&flagLast != 0})
	bare := alone(t, set, &script{in: stream, cut: g.cuts(), end: errEnd})

	if bad := differs(wired, want.outcome, want.undefined); bad != "" {
		t.Errorf("over the wire: %s\ngot\n%v\nwant\n%v", bad, wired, want.outcome)
	}
	if bad := differs(bare, want.outcome, want.undefined || want.beyond); bad != "" && !uninflatable(bare, want) {
		t.Errorf("coder/websocket alone: %s\ngot\n%v\nwant\n%v", bad, bare, want.outcome)
	}
	if t.Failed() {
		t.Logf("%+v, stream\n%.2000q", set, stream)
	}
}

// uninflatable: coder/websocket sends no close frame when it cannot inflate a
// message; a session does.
func uninflatable(bare outcome, want prediction) bool {
	return want.corrupt && strings.HasPrefix(bare.end, "failed: ") && slices.Equal(bare.messages, want.messages)
}

// differs says how got is not as want, or returns the empty string. With open,
// got may go on after it.
func differs(got, want outcome, open bool) string {
	n := len(want.messages)
	if len(got.messages) < n || !open && len(got.messages) > n || !slices.Equal(got.messages[:n], want.messages) {
		return "messages"
	}
	sent, wantSent := withoutReasons(got.sent), withoutReasons(want.sent)
	if open && len(wantSent) > 0 && wantSent[len(wantSent)-1].first == finBit|opClose {
		wantSent = wantSent[:len(wantSent)-1]
	}
	n = len(wantSent)
	if len(sent) < n || !open && len(sent) > n || !slices.Equal(sent[:n], wantSent) {
		return "frames sent"
	}
	if !open && got.end != want.end {
		return "end"
	}
	return ""
}

// withoutReasons leaves out the reasons that a client finds for a violation.
func withoutReasons(sent []sentFrame) []sentFrame {
	sent = slices.Clone(sent)
	for i, f := range sent {
		if f.first == finBit|opClose && len(f.payload) >= 2 && isViolation(binary.BigEndian.Uint16([]byte(f.payload))) {
			sent[i].payload = f.payload[:2]
		}
	}
	return sent
}

func isViolation(code uint16) bool { return code == 1002 || code == 1007 || code == 1009 }

// prediction is what a session over the wire must make of a stream.
type prediction struct {
	outcome
	beyond    bool // coder/websocket alone may go on
	corrupt   bool // it ends with a message that cannot be inflated
	undefined bool // nothing is said about what follows
}

// oracle reads a stream as RFC 6455 tells a client to, without any concern for
// speed: the whole stream is there from the start.
type oracle struct {
	set   setting
	rest  []byte
	flate bool
	dict  []byte // what was inflated before, with context takeover
	prediction

	typ     MessageType
	fin     bool
	size    int64
	payload []byte // of the frame under way, as far as it arrived
	left    uint64 // of it, beyond payload: the stream ends within it
	short   bool   // the end of the stream was met
	plain   []byte // text so far, when it is not compressed
	check   bool
	empties int
}

// errOver ends the oracle's reading; what it means is in the prediction.
var errOver = errors.New("over")

func predict(set setting, stream []byte) prediction {
	o := &oracle{set: set, rest: stream, flate: set.extension != ""}
	o.end = endLost
	for o.readMessage() == nil {
	}
	return o.prediction
}

func (o *oracle) violation(code StatusCode, beyond bool) error {
	o.end, o.beyond = endProtocol(code), beyond
	o.sent = append(o.sent, sentFrame{finBit | opClose, closePayload(int(code), "")})
	return errOver
}

// data returns the first byte of the next data frame, after handling the
// control frames before it.
func (o *oracle) data(inside bool) (first byte, err error) {
	for {
		if len(o.rest) >= 2 && o.rest[1]&0x80 != 0 {
			return 0, o.violation(1002, true)
		}
		first, length, size := o.header()
		if size == 0 {
			return 0, errOver
		}
		opcode := first & 0x0F
		compressed := first&0x40 != 0 && o.flate && (opcode == 1 || opcode == 2)
		switch {
		case length > 1<<63-1:
			return 0, o.violation(1002, true)
		case first&0x30 != 0, first&0x40 != 0 && !compressed, opcode > 2 && opcode < 8, opcode > 10:
			return 0, o.violation(1002, false)
		case opcode >= 8:
			if first&0x80 == 0 || length > 125 {
				return 0, o.violation(1002, false)
			}
			if uint64(len(o.rest)-size) < length {
				return 0, errOver
			}
			payload := string(o.rest[size : size+int(length)])
			o.rest = o.rest[size+int(length):]
			if err := o.control(opcode, payload); err != nil {
				return 0, err
			}
			continue
		case inside != (opcode == 0):
			return 0, o.violation(1002, false)
		}
		if err := o.begin(first, length); err != nil {
			return 0, err
		}
		o.rest = o.rest[size:]
		n := min(length, uint64(len(o.rest)))
		o.payload, o.rest = o.rest[:n], o.rest[n:]
		o.left = length - n
		return first, o.text()
	}
}

func (o *oracle) header() (first byte, length uint64, size int) {
	if len(o.rest) < 2 {
		return 0, 0, 0
	}
	switch length := o.rest[1]; {
	case length < 126:
		return o.rest[0], uint64(length), 2
	case length == 126 && len(o.rest) >= 4:
		return o.rest[0], uint64(binary.BigEndian.Uint16(o.rest[2:])), 4
	case length == 127 && len(o.rest) >= 10:
		return o.rest[0], binary.BigEndian.Uint64(o.rest[2:]), 10
	}
	return 0, 0, 0
}

// begin judges a legal data frame by its header.
func (o *oracle) begin(first byte, length uint64) error {
	if first&0x0F != 0 {
		o.typ, o.size, o.plain, o.empties = MessageType(first&0x0F), 0, nil, 0
		o.check = first&0x40 == 0
	}
	o.fin = first&0x80 != 0
	if length > 1<<63-15 || o.check && o.size+int64(length) > o.set.limit {
		return o.violation(1009, true)
	}
	o.size += int64(length)
	switch {
	case first&0x0F != 0:
	case length > 0:
		o.empties = 0
	default:
		if o.empties++; o.empties >= 1000 && !o.fin {
			return o.violation(1002, true)
		}
	}
	return nil
}

// text judges what arrived of a frame.
func (o *oracle) text() error {
	if !o.check {
		return nil
	}
	o.plain = append(o.plain, o.payload...)
	if o.typ != MessageText {
		return nil
	}
	possible := possibleText(o.plain)
	if o.fin && o.left == 0 {
		possible = utf8.Valid(o.plain)
	}
	if !possible {
		return o.violation(1007, true)
	}
	return nil
}

// possibleText reports whether text can be continued to valid UTF-8.
func possibleText(text []byte) bool {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			return len(text) < 4 && completable(string(text))
		}
		text = text[size:]
	}
	return true
}

func (o *oracle) control(opcode byte, payload string) error {
	switch opcode {
	case 9:
		o.sent = append(o.sent, sentFrame{0x8A, payload})
		return nil
	case 10:
		return nil
	}
	code := 1005
	if len(payload) >= 2 {
		code = int(binary.BigEndian.Uint16([]byte(payload)))
	}
	valid := code >= 1000 && code <= 1014 && (code < 1004 || code > 1006) || code >= 3000 && code <= 4999
	switch {
	case payload == "":
		o.end = endClosed(1005, "")
	case len(payload) == 1 || !valid:
		return o.violation(1002, false)
	case !utf8.ValidString(payload[2:]):
		return o.violation(1007, true)
	default:
		o.end = endClosed(StatusCode(code), payload[2:])
	}
	o.sent = append(o.sent, sentFrame{0x88, payload})
	return errOver
}

func (o *oracle) readMessage() error {
	first, err := o.data(false)
	if err != nil {
		return err
	}
	typ := MessageType(first & 0x0F)
	var text []byte
	if first&0x40 != 0 {
		text, err = o.inflate()
	} else {
		text, err = io.ReadAll(fragments{o})
	}
	if err != nil {
		return err
	}
	if typ == MessageText && !utf8.Valid(text) {
		return o.violation(1007, true)
	}
	o.messages = append(o.messages, message{typ, string(text)})
	if o.undefined {
		return errOver
	}
	return nil
}

// fragments is the payload of the message under way.
type fragments struct{ *oracle }

func (f fragments) Read(p []byte) (int, error) {
	for len(f.payload) == 0 {
		switch {
		case f.left > 0:
			return 0, errOver
		case f.fin:
			return 0, io.EOF
		}
		if _, err := f.data(true); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.payload)
	f.payload = f.payload[n:]
	f.short = n < len(p) && f.left > 0
	return n, nil
}

// inflate is permessage-deflate (RFC 7692, section 7.2.2).
func (o *oracle) inflate() ([]byte, error) {
	var dict []byte
	if !strings.Contains(o.set.extension, "server_no_context_takeover") {
		dict = o.dict
	}
	source := io.MultiReader(fragments{o}, strings.NewReader("\x00\x00\xff\xff"))
	inflater := flate.NewReaderDict(bufio.NewReader(source), dict)
	text, err := io.ReadAll(io.LimitReader(inflater, o.set.limit+1))
	o.dict = append(o.dict, text...)
	o.dict = o.dict[max(0, len(o.dict)-32768):]
	switch {
	case int64(len(text)) > o.set.limit && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)):
		// The inflater may have read on, and met another end.
		if o.end != endLost && !o.beyond {
			return nil, errOver
		}
		o.sent = slices.DeleteFunc(o.sent, func(f sentFrame) bool { return f.first == closeFrame })
		return nil, o.violation(1009, true) // coder/websocket may let one byte too many through
	case err == nil:
		// The server ended its compressed data for good (RFC 7692, section
		// 7.2.3.4), which coder/websocket does not expect.
		o.undefined = true
		return text, nil
	case errors.Is(err, io.ErrUnexpectedEOF):
		return text, nil // as it must, at the end of a message
	case errors.Is(err, errOver):
		return nil, err
	}
	o.corrupt = true
	if o.short { // coder/websocket waited for a whole buffer of bytes first
		return nil, errOver
	}
	return nil, o.violation(1007, false)
}

// generator makes a stream out of the bytes of a program.
type generator struct {
	program []byte
	flags   byte
	random  *rand.Rand
	set     setting
	stream  []byte

	controls int
	deflater *deflater
}

const (
	flagRaw     = 1 << iota // the program is the stream
	flagDeflate             // permessage-deflate is negotiated
	flagFresh               // without context takeover
	flagHandler
	flagSmall   // a small limit
	flagByBytes // cut everywhere
	flagWhole   // cut nowhere
	flagLast    // the end comes with the last bytes
)

func newGenerator(program []byte) *generator {
	g := &generator{flags: program[0], random: rand.New(rand.NewPCG(uint64(program[1]), 0)), program: program[2:]}
	g.set.limit = 200_000
	if g.flags&flagSmall != 0 {
		g.set.limit = []int64{1, 40, 125, 126, 4096, 5000}[program[1]%6]
	}
	g.set.handler = g.flags&flagHandler != 0
	if g.flags&flagDeflate != 0 {
		g.set.extension = "permessage-deflate"
		if g.flags&flagFresh != 0 {
			g.set.extension += "; server_no_context_takeover"
		}
	}
	if g.flags&flagRaw != 0 {
		g.stream = g.program
		return g
	}
	for len(g.program) > 0 && len(g.stream) < 1<<20 {
		g.step()
	}
	return g
}

// cuts is how the stream arrives: the same each time.
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

// step appends a message, or something else. Most of it is legal, or streams
// were short.
func (g *generator) step() {
	switch op := g.next(); {
	case op < 80:
		g.message(0)
	case op < 140:
		g.message(1 + g.next()%4)
	case op < 190 && g.set.extension != "":
		g.compressed()
	case op < 220:
		g.control()
	case op < 240:
		g.frame(finBit|opText, g.text())
	case op < 246:
		g.frame(pick(g, 0, byte(finBit))|pick(g, byte(opContinuation), opText, opBinary), g.text())
	default:
		g.rare(op)
	}
}

// message appends a message that was cut into frames, with control frames
// between them.
func (g *generator) message(cuts byte) {
	opcode, payload := byte(opText), ""
	if g.next()%4 == 0 {
		opcode, payload = opBinary, g.payload(100_000)
	} else {
		payload = g.text()
	}
	g.fragments(opcode, payload, cuts)
}

func (g *generator) fragments(first byte, payload string, cuts byte) {
	for range cuts {
		n := g.random.IntN(len(payload) + 1)
		g.frame(first, payload[:n])
		first, payload = opContinuation, payload[n:]
		if g.next() < 100 {
			g.control()
		}
	}
	g.frame(finBit|first, payload)
}

// control appends a ping or pong, unless the pongs could exceed the backlog: how
// soon they are flushed is chance.
func (g *generator) control() {
	if g.controls++; g.controls > maxFlush/(maxControlPayload+6)-100 {
		return
	}
	g.frame(finBit|pick(g, byte(opPing), opPong), g.payload(maxControlPayload))
}

// payload returns bytes of one of the sizes that matter.
func (g *generator) payload(most int) string {
	size := pick(g, 0, 1, 2, 5, 124, 125, 126, 127, 200, 252, 256, 1000, 4090, 4096, 5000, 65530, 65535, 65536, 70_000)
	b := make([]byte, min(size, most))
	for i := range b {
		b[i] = byte(g.random.Uint32())
	}
	return string(b)
}

// text returns text, or seldom what is none.
func (g *generator) text() string {
	switch op := g.next(); {
	case op < 150:
		return pick(g, "", "hello", "κόσμε", "日本語", "🙂", "\U0010ffff")
	case op < 250:
		return strings.Repeat(pick(g, "a", "é", "€", "🙃"), pick(g, 10, 31, 50, 63, 64, 300, 1365, 5000, 17_000))
	default:
		return strings.Repeat("x", int(g.next())) + pick(g, utf8Texts...) + g.text()
	}
}

// compressed appends a compressed message in one frame or more.
func (g *generator) compressed() {
	if g.deflater == nil {
		g.deflater = newDeflater(g.set.extension)
	}
	opcode := pick(g, byte(opText), opBinary)
	plain := g.text()
	if opcode == opBinary {
		plain = strings.Repeat(g.payload(5000), pick(g, 1, 1, 2, 50))
	}
	deflated := []byte(g.deflater.deflate(plain))
	if g.next() > 250 && len(deflated) > 0 {
		deflated[g.random.IntN(len(deflated))] ^= byte(1 + g.random.IntN(255))
	}
	g.fragments(rsv1Bit|opcode, string(deflated), g.next()%4)
}

// rare appends what ends a session, or nearly does.
func (g *generator) rare(op byte) {
	switch op % 12 {
	case 0:
		code := pick(g, 1000, 1001, 1002, 1004, 1005, 1006, 1007, 1011, 1014, 1015, 2999, 3000, 4999, 5000, 0)
		g.frame(finBit|opClose, closePayload(code, pick(g, "", "bye", "é", "\xff", "\xc3", strings.Repeat("r", 123))))
	case 1:
		g.frame(finBit|opClose, pick(g, "", "\x03", "\x03\xe8"))
	case 2:
		g.frame(g.next(), g.text())
	case 3:
		g.stream = append(g.stream, masked(pick(g, byte(finBit|opText), finBit|opPing, opBinary), "masked")...)
	case 4:
		length := pick(g, uint64(1<<63), 1<<64-1, 1<<63-1, 1<<40, 1<<31, uint64(g.set.limit), uint64(g.set.limit)+1)
		g.stream = append(g.stream, header(g.next(), length)...)
	case 5:
		g.stream = append(g.stream, bytes.Repeat(frame(opContinuation, ""), pick(g, 10, 998, 999, 1000))...)
	case 6:
		g.stream = append(g.stream, pick(g, "\x82\x7e\x00\x03abc", "\x81\x7f\x00\x00\x00\x00\x00\x00\x00\x02ok", "\x89\x7e\x00\x01p")...)
	case 7:
		n := int(g.next())
		n = min(n, len(g.program))
		g.stream = append(g.stream, g.program[:n]...)
		g.program = g.program[n:]
	case 8:
		if len(g.stream) > 0 { // a byte changes
			g.stream[g.random.IntN(len(g.stream))] = g.next()
		}
	case 9:
		if g.next() < 50 { // the rest is lost
			g.stream = g.stream[:g.random.IntN(len(g.stream)+1)]
			g.program = nil
		}
	default:
		g.control()
	}
}
