package wire

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"
)

// difference is an intended difference between a Conn and coder/websocket.
type difference int

const (
	noDifference difference = iota
	maskedFrame
	longLength
	negativeLength
	announcedTooBig
	emptyFrames
	invalidText
	invalidReason
	inflatedTooBig
	finalBlock
	endsEarly
	uninflatable
	uninflatableSoFar
	farReference
	closeWithin
)

// manner is what coder/websocket does at a difference.
type manner int

const (
	theSame manner = iota // as a Conn
	goesOn                // reads on, and what it does from there is not compared
	fails                 // fails at the same place, but sends no close frame
	closes                // answers the close frame
)

// differences lists everything that coder/websocket does differently. Up to the first
// difference in a stream, both must do the same. Two differences never show here, and
// are not listed: coder/websocket takes io.EOF within a message for the end of the
// message, but its streams end with another error; and it refuses
// client_max_window_bits.
var differences = [...]struct {
	manner manner
	why    string
}{
	noDifference:   {theSame, "both follow RFC 6455 and RFC 7692"},
	maskedFrame:    {goesOn, "it accepts a masked frame, without unmasking it; we send 1002 at the second byte"},
	longLength:     {goesOn, "it accepts a length that is not minimally encoded; we send 1002"},
	negativeLength: {fails, "it sends no close frame for a length whose top bit is set; we send 1002"},
	announcedTooBig: {goesOn, "it reads a message up to one byte beyond the limit; we send 1009 as soon as a header announces " +
		"a frame that exceeds it"},
	emptyFrames:   {goesOn, "it accepts any number of empty continuation frames; we send 1002 at the thousandth in a row"},
	invalidText:   {goesOn, "it accepts text that is not UTF-8; we send 1007, for uncompressed text at the first invalid byte"},
	invalidReason: {closes, "it accepts a close reason that is not UTF-8; we send 1007"},
	inflatedTooBig: {goesOn, "we send 1009 whatever follows the limit; it accepts one byte beyond it if that comes along with an " +
		"error, and reports errors that it finds later"},
	finalBlock: {goesOn, "it takes a final block for the end of the message, and what follows for the next message; we read on " +
		"(RFC 7692, section 7.2.3.4)"},
	endsEarly: {goesOn, "it delivers what it could decompress of a message that does not end as it must; we send 1007 and " +
		"deliver nothing"},
	uninflatable:      {fails, "it sends no close frame for data that cannot be decompressed; we send 1007"},
	uninflatableSoFar: {goesOn, "the same, but it waits for the rest of the frame first"},
	farReference: {goesOn, "its window is always 32 KiB; ours is as large as negotiated, or larger if the inflater was not reset. " +
		"A reference beyond the negotiated window, which no server may send, is followed or is a violation"},
	closeWithin: {goesOn, "at a close frame between the fragments of a compressed message it may panic, or lose the code"},
}

// place is a position in an outcome.
type place struct{ messages, sent int }

// until returns the outcome up to a place.
func (o outcome) until(p place) outcome {
	return outcome{messages: o.messages[:min(p.messages, len(o.messages))], sent: o.sent[:min(p.sent, len(o.sent))]}
}

// prediction is what a Conn must make of a stream.
type prediction struct {
	outcome

	// Pongs that may or may not be sent before the close frame. Their pings follow the
	// byte that exceeded the limit, and a Conn may notice that late.
	late []sentFrame

	vague   *place     // if not nil, nothing is predicted from there on
	differs difference // the first one
	agreed  place      // where it is: coder/websocket does the same up to there
}

// reject returns what a Conn did wrong, or the empty string.
func (p prediction) reject(got outcome) string {
	want := p.outcome
	if p.vague != nil {
		return compare(got.until(*p.vague), want.until(*p.vague))
	}
	if more := len(got.sent) - len(want.sent); more > 0 && more <= len(p.late) {
		want.sent = slices.Insert(slices.Clone(want.sent), len(want.sent)-1, p.late[:more]...)
	}
	return compare(got, want)
}

// rejectBare is like reject, for coder/websocket.
func (p prediction) rejectBare(got outcome) string {
	want := p.outcome
	switch differences[p.differs].manner {
	case goesOn:
		return compare(got.until(p.agreed), want.until(p.agreed))
	case fails:
		want = want.until(p.agreed)
		want.end = got.end
		if !strings.HasPrefix(got.end, "failed: ") {
			return "end"
		}
	case closes:
		last := &got.sent[len(got.sent)-1]
		if len(last.payload) < 2 || got.end != endClosed(int(binary.BigEndian.Uint16([]byte(last.payload))), last.payload[2:]) {
			return "end"
		}
		got.end, last.payload = want.end, closePayload(codeInvalidData, "")
	}
	return compare(got, want)
}

// compare returns in what two outcomes differ, or the empty string.
func compare(got, want outcome) string {
	switch {
	case !slices.Equal(got.messages, want.messages):
		return "messages"
	case !slices.Equal(withoutReasons(got.sent), withoutReasons(want.sent)):
		return "frames sent"
	case got.end != want.end:
		return "end"
	}
	return ""
}

// withoutReasons removes the reasons from close frames for violations: their wording is
// free.
func withoutReasons(sent []sentFrame) []sentFrame {
	sent = slices.Clone(sent)
	for i, f := range sent {
		if f.first == closeFrame && len(f.payload) >= 2 && slices.Contains([]uint16{1002, 1007, 1009}, binary.BigEndian.Uint16([]byte(f.payload))) {
			sent[i].payload = f.payload[:2]
		}
	}
	return sent
}

// oracle reads a stream as RFC 6455 and RFC 7692 require of a client. It is simple rather
// than fast, and has the whole stream from the start.
type oracle struct {
	set      setting
	window   int
	takeover bool
	rest     []byte
	prediction

	typ     Type
	plain   bool // not compressed
	fin     bool
	size    int64  // payload bytes of the message so far
	payload []byte // unread payload of the current frame
	left    uint64 // payload of the current frame that the stream does not contain
	text    []byte // of the message so far, if plain
	empties int    // empty continuation frames in a row
	tail    int    // bytes of the tail that were read
	dict    []byte // the window, with context takeover
}

var (
	errOver    = errors.New("reading has ended") // the prediction says why
	errShort   = errors.New("a message does not end as it must")
	errCorrupt = errors.New("corrupt message")
)

func predict(set setting, stream []byte) prediction {
	o := &oracle{set: set, rest: stream, window: windowBytes(set.extension, serverBits)}
	o.takeover = !strings.Contains(set.extension, serverFresh)
	o.end = endLost
	for o.message() == nil {
		o.tail = 0
	}
	return o.prediction
}

// meet records the first difference.
func (o *oracle) meet(d difference) {
	if o.differs == noDifference {
		o.differs, o.agreed = d, o.here()
	}
}

func (o *oracle) here() place { return place{len(o.messages), len(o.sent)} }

func (o *oracle) violation(code int, d difference) error {
	o.meet(d)
	o.end = endProtocol(code)
	o.sent = append(o.sent, sentFrame{closeFrame, closePayload(code, "")})
	return errOver
}

// message reads one message.
func (o *oracle) message() error {
	first, err := o.frame(false)
	if err != nil {
		return err
	}
	var data []byte
	if first&0x40 != 0 {
		data, err = o.inflate()
	} else {
		data, err = o.collect()
	}
	switch {
	case err != nil:
		return err
	case o.typ == Text && !utf8.Valid(data):
		return o.violation(1007, invalidText)
	}
	o.messages = append(o.messages, message{o.typ, string(data)})
	return nil
}

// collect returns the payload of a message.
func (o *oracle) collect() (data []byte, err error) {
	for {
		more, err := o.more()
		if !more {
			return data, err
		}
		data = append(data, o.payload...)
		o.payload = nil
	}
}

// more reports whether the current message has more payload.
func (o *oracle) more() (bool, error) {
	for len(o.payload) == 0 {
		switch {
		case o.left > 0:
			return false, errOver
		case o.fin:
			return false, nil
		}
		if _, err := o.frame(true); err != nil {
			return false, err
		}
	}
	return true, nil
}

// frame reads the header of the next data frame, and the control frames before it.
func (o *oracle) frame(inside bool) (first byte, err error) {
	for {
		if len(o.rest) >= 2 && o.rest[1]&0x80 != 0 {
			return 0, o.violation(1002, maskedFrame)
		}
		first, length, size := o.header()
		if size == 0 {
			return 0, errOver
		}
		if d, legal := o.judge(first, length, size, inside); !legal {
			return 0, o.violation(1002, d)
		}
		if first&0x0F < 8 {
			o.rest = o.rest[size:]
			return first, o.begin(first, length)
		}
		end := size + int(length)
		if len(o.rest) < end {
			return 0, errOver
		}
		payload := string(o.rest[size:end])
		o.rest = o.rest[end:]
		if inside && !o.plain && first == 0x88 {
			o.meet(closeWithin)
		}
		if err := o.control(first, payload); err != nil {
			return 0, err
		}
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

// judge reports whether a header is legal. If not, it returns the difference, if any.
func (o *oracle) judge(first byte, length uint64, size int, inside bool) (d difference, legal bool) {
	opcode := first & 0x0F
	compressed := first&0x40 != 0
	switch {
	case length >= 1<<63:
		return negativeLength, false
	case first&0x30 != 0, compressed && o.set.extension == "", compressed && opcode != 1 && opcode != 2:
		return noDifference, false
	case opcode > 2 && opcode < 8, opcode > 10:
		return noDifference, false
	case opcode >= 8 && (first&0x80 == 0 || length > 125):
		return noDifference, false
	case opcode < 8 && inside != (opcode == 0):
		return noDifference, false
	case size == 4 && length < 126, size == 10 && length < 65536:
		return longLength, false
	}
	return noDifference, true
}

// begin begins a data frame with a legal header. It checks the limits, and the text that
// the frame contains.
func (o *oracle) begin(first byte, length uint64) error {
	if opcode := first & 0x0F; opcode != 0 {
		o.typ, o.plain = Type(opcode), first&0x40 == 0
		o.size, o.text, o.empties = 0, nil, 0
	} else if o.empties++; length > 0 {
		o.empties = 0
	}
	o.fin = first&0x80 != 0
	switch {
	case o.plain && length > uint64(o.set.limit-o.size):
		return o.violation(1009, announcedTooBig)
	case o.empties >= 1000 && !o.fin:
		return o.violation(1002, emptyFrames)
	}
	n := min(length, uint64(len(o.rest)))
	o.payload, o.rest, o.left = o.rest[:n], o.rest[n:], length-n
	o.size += int64(length)
	if !o.plain || o.typ != Text {
		return nil
	}
	o.text = append(o.text, o.payload...)
	if !possibleText(o.text) || o.fin && o.left == 0 && !utf8.Valid(o.text) {
		return o.violation(1007, invalidText)
	}
	return nil
}

// possibleText reports whether text can be continued to valid UTF-8.
func possibleText(text []byte) bool {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if r == utf8.RuneError && size == 1 {
			return len(text) < utf8.UTFMax && completable(string(text))
		}
		text = text[size:]
	}
	return true
}

func (o *oracle) control(first byte, payload string) error {
	switch first & 0x0F {
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
		return o.violation(1002, noDifference)
	case !utf8.ValidString(payload[2:]):
		return o.violation(1007, invalidReason)
	default:
		o.end = endClosed(code, payload[2:])
	}
	o.sent = append(o.sent, sentFrame{0x88, payload})
	return errOver
}

// next returns the next byte of the payload of the message, or of the tail that the
// sender has removed (RFC 7692, section 7.2.2).
func (o *oracle) next() (byte, error) {
	more, err := o.more()
	switch {
	case err != nil:
		return 0, err
	case more:
		b := o.payload[0]
		o.payload = o.payload[1:]
		return b, nil
	case o.tail == 4:
		return 0, errShort
	}
	o.tail++
	return "\x00\x00\xff\xff"[o.tail-1], nil
}

// inflate reads and decompresses a message.
func (o *oracle) inflate() ([]byte, error) {
	if more, err := o.more(); !more {
		return nil, err // an empty payload is tolerated
	}
	d := decoder{o: o, out: slices.Clone(o.dict), from: len(o.dict)}
	d.message()
	data := d.out[d.from:]
	switch {
	case int64(len(data)) > o.set.limit:
		o.vague = d.vague
		return nil, o.tooBig(d.atLimit)
	case d.err == errShort:
		return nil, o.violation(1007, endsEarly)
	case d.err == errCorrupt && o.left > 0:
		return nil, o.violation(1007, uninflatableSoFar)
	case d.err == errCorrupt:
		return nil, o.violation(1007, uninflatable)
	}
	if o.takeover {
		o.dict = slices.Clone(d.out[max(0, len(d.out)-32768):])
	}
	return data, d.err
}

// tooBig ends reading because of a message that exceeded the limit after that many frames
// had been sent. Whatever followed in the stream does not count.
func (o *oracle) tooBig(sent int) error {
	o.late = slices.DeleteFunc(slices.Clone(o.sent[sent:]), func(f sentFrame) bool { return f.first == closeFrame })
	o.sent = slices.Clip(o.sent[:sent])
	return o.violation(1009, inflatedTooBig)
}

// decoder decodes the blocks of a message bit by bit (RFC 1951).
type decoder struct {
	o       *oracle
	hold    uint // held bits that were not taken yet
	held    int
	out     []byte // the window, followed by the message
	from    int    // where the message begins in out
	atLimit int    // frames that had been sent when the message exceeded the limit
	vague   *place // prediction.vague at that time
	err     error
}

// need reads until n bits are held, and no further: a Conn must not wait for more than it
// needs either.
func (d *decoder) need(n int) {
	for d.held < n && d.err == nil {
		var b byte
		b, d.err = d.o.next()
		d.hold |= uint(b) << d.held
		d.held += 8
	}
}

// take returns the next n bits.
func (d *decoder) take(n int) int {
	d.need(n)
	v := d.hold & (1<<n - 1)
	d.hold >>= n
	d.held -= n
	return int(v)
}

// align skips the remaining bits of a byte.
func (d *decoder) align() { d.hold, d.held = 0, 0 }

// message decodes blocks up to the end of the message: either the tail is the length of an
// empty stored block, or the payload ends with a final block.
func (d *decoder) message() {
	for d.err == nil {
		header := d.take(3)
		switch header >> 1 {
		case 0:
			if d.stored() {
				return
			}
		case 1:
			d.symbols(fixedLiterals, fixedDistances)
		case 2:
			d.dynamic()
		default:
			d.corrupt()
		}
		if final := header&1 != 0; final && d.err == nil {
			d.o.meet(finalBlock)
			d.align()
			if more, err := d.o.more(); err != nil || !more && d.o.tail == 0 {
				d.err = err
				return
			}
		}
	}
}

func (d *decoder) corrupt() {
	if d.err == nil {
		d.err = errCorrupt
	}
}

// stored decodes a stored block, and reports whether the message ends with it.
func (d *decoder) stored() (end bool) {
	if d.err != nil {
		return false
	}
	d.align()
	more, err := d.o.more()
	if d.err = err; err != nil {
		return false
	}
	end = !more && d.o.tail == 0
	n := d.take(16)
	if d.take(16) != n^0xFFFF {
		d.corrupt()
	}
	for ; n > 0 && d.err == nil; n-- {
		if b := d.take(8); d.err == nil {
			d.emit(byte(b))
		}
	}
	return end && d.err == nil
}

// emit appends a byte to the message. It gives up a message that is far too large: by then
// every implementation has noticed.
func (d *decoder) emit(b byte) {
	d.out = append(d.out, b)
	switch over := int64(len(d.out)-d.from) - d.o.set.limit; {
	case over == 1:
		d.atLimit, d.vague = len(d.o.sent), d.o.vague
		d.o.meet(inflatedTooBig)
	case over > 40_000:
		d.corrupt()
	}
}

// code is a Huffman code.
type code struct {
	count   [16]int // number of symbols by the length of their codes
	symbols []int   // in the order of their codes
	least   int     // bits that are certain to follow wherever this code is used
	most    int     // length of the longest code
}

// newCode returns the code with the given lengths by symbol. It reports false if the code
// is incomplete, unless it has no symbol, or a single one of one bit.
func newCode(lengths []int) (c code, ok bool) {
	space := 0
	for length := 1; length < 16; length++ {
		for symbol, l := range lengths {
			if l == length {
				c.symbols = append(c.symbols, symbol)
				c.count[length]++
				space += 1 << (15 - length)
			}
		}
		if c.count[length] > 0 {
			c.most = length
			if c.least == 0 {
				c.least = length
			}
		}
	}
	return c, space == 1<<15 || c.most == 0 || c.most == 1 && len(c.symbols) == 1
}

func mustCode(lengths ...[]int) code {
	c, ok := newCode(slices.Concat(lengths...))
	if !ok {
		panic("incomplete code")
	}
	return c
}

func same(length, n int) []int { return slices.Repeat([]int{length}, n) }

var (
	fixedLiterals  = mustCode(same(8, 144), same(9, 112), same(7, 24), same(8, 8))
	fixedDistances = mustCode(same(5, 32))
)

// symbol decodes one symbol.
func (d *decoder) symbol(c *code) int {
	d.need(c.least)
	word, first, index := 0, 0, 0
	for length := 1; length <= c.most && d.err == nil; length++ {
		word = word<<1 | d.take(1)
		if offset := word - first; offset < c.count[length] && d.err == nil {
			return c.symbols[index+offset]
		}
		index += c.count[length]
		first = (first + c.count[length]) << 1
	}
	d.corrupt()
	return 0
}

// baseLengths and baseDistances are the tables of RFC 1951, section 3.2.5.
var (
	baseLengths   = []int{3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258}
	extraLengths  = []int{0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0}
	baseDistances = []int{1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073,
		4097, 6145, 8193, 12289, 16385, 24577}
	extraDistances = []int{0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13}
)

// symbols decodes a compressed block after its header.
func (d *decoder) symbols(literals, distances code) {
	for d.err == nil {
		switch s := d.symbol(&literals); {
		case d.err != nil:
		case s < 256:
			d.emit(byte(s))
		case s == 256:
			return
		case s-257 >= len(baseLengths):
			d.corrupt()
		default:
			length := baseLengths[s-257] + d.take(extraLengths[s-257])
			d.copy(length, &distances)
		}
	}
}

// copy decodes a distance and repeats length bytes from there.
func (d *decoder) copy(length int, distances *code) {
	s := d.symbol(distances)
	if d.err != nil || s >= len(baseDistances) {
		d.corrupt()
		return
	}
	distance := baseDistances[s] + d.take(extraDistances[s])
	if d.err != nil || distance > min(len(d.out), 32768) {
		d.corrupt()
		return
	}
	if distance > d.o.window && d.o.takeover && d.o.vague == nil {
		here := d.o.here()
		d.o.vague = &here
		d.o.meet(farReference)
	}
	for ; length > 0 && d.err == nil; length-- {
		d.emit(d.out[len(d.out)-distance])
	}
}

// dynamic decodes a block with dynamic Huffman codes.
func (d *decoder) dynamic() {
	counts := d.take(14)
	literals, distances, n := 257+counts&31, 1+counts>>5&31, 4+counts>>10
	if d.err != nil || literals > 286 || distances > 30 {
		d.corrupt()
		return
	}
	var lengths [19]int
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[:n] {
		lengths[symbol] = d.take(3)
	}
	all := d.lengths(lengths[:], literals+distances)
	if d.err != nil {
		return
	}
	literal, ok := newCode(all[:literals])
	distance, ok2 := newCode(all[literals:])
	if !ok || !ok2 {
		d.corrupt()
		return
	}
	literal.least = max(literal.least, all[256]) // each block ends with symbol 256
	d.symbols(literal, distance)
}

// lengths decodes n code lengths, which are compressed with a code of their own.
func (d *decoder) lengths(coded []int, n int) (all []int) {
	c, ok := newCode(coded)
	if !ok {
		d.corrupt()
	}
	for len(all) < n && d.err == nil {
		switch s := d.symbol(&c); {
		case s < 16:
			all = append(all, s)
		case s == 16 && len(all) == 0:
			d.corrupt()
		case s == 16:
			all = append(all, same(all[len(all)-1], 3+d.take(2))...)
		case s == 17:
			all = append(all, same(0, 3+d.take(3))...)
		default:
			all = append(all, same(0, 11+d.take(7))...)
		}
	}
	if len(all) > n {
		d.corrupt()
	}
	return all
}

// completable tries whether text can be continued to valid UTF-8.
func completable(text string) bool {
	if utf8.ValidString(text) {
		return true
	}
	const ends = "\x80\x90\xa0\x8f\xbf" // continuation bytes around every boundary
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
