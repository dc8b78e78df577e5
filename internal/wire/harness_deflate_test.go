package wire

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Parameters of permessage-deflate, to be appended to extension.
const (
	serverFresh = "; server_no_context_takeover"
	clientFresh = "; client_no_context_takeover"
	serverBits  = "; server_max_window_bits="
	clientBits  = "; client_max_window_bits="
)

// The payloads of two compressed messages (RFC 7692, section 7.2.3.2): "Hello", and
// "Hello" again, as a reference to the message before.
const (
	helloPayload = "\xf2\x48\xcd\xc9\xc9\x07\x00"
	againPayload = "\xf2\x00\x11\x00\x00"
)

// windowBytes returns the size of the window that a parameter of extension sets.
func windowBytes(extension, parameter string) int {
	bits := maxBits
	if _, value, found := strings.Cut(extension, parameter); found {
		_, _ = fmt.Sscan(value, &bits)
	}
	return 1 << bits
}

// words returns text that compresses well, of about the given size.
func words(random *rand.Rand, size int) string {
	var b strings.Builder
	for b.Len() < size {
		fmt.Fprintf(&b, `{"id":%d,"name":"%s"},`, random.IntN(1000), []string{"Käthe", "李", "Ann"}[random.IntN(3)])
	}
	return strings.ToValidUTF8(b.String()[:size], "?")
}

func randomBytes(random *rand.Rand, size int) []byte {
	b := make([]byte, 0, size+8)
	for len(b) < size {
		b = binary.LittleEndian.AppendUint64(b, random.Uint64())
	}
	return b[:size]
}

// deflater compresses as a server with permessage-deflate (RFC 7692, section 7.2.1).
type deflater struct {
	fresh bool // no context takeover
	out   bytes.Buffer
	flate *flate.Writer
	lz    *lz // used instead of flate for windows below 32 KiB
}

func newDeflater(extension string) *deflater {
	d := &deflater{fresh: strings.Contains(extension, serverFresh)}
	if window := windowBytes(extension, serverBits); window < maxWindow {
		d.lz = newLZ(window)
		return d
	}
	d.flate, _ = flate.NewWriter(&d.out, flate.BestSpeed)
	return d
}

func (d *deflater) deflate(text string) string {
	if d.lz != nil {
		if d.fresh {
			d.lz.forget()
		}
		return d.lz.deflate(text)
	}
	if d.fresh {
		d.flate.Reset(&d.out)
	}
	d.out.Reset()
	_, _ = io.WriteString(d.flate, text)
	_ = d.flate.Flush()
	return strings.TrimSuffix(d.out.String(), tail)
}

// lz compresses (RFC 1951) with a window of any size, which compress/flate cannot. It
// looks for the most distant match, so that references reach as far as the window does.
// It leaves every third message to compress/flate.
type lz struct {
	window   int
	history  []byte
	oldest   [1 << 12]int // the oldest position, plus 1, of 4 bytes with this hash
	messages int
	flate    *flate.Writer // for every third message

	out     []byte
	pending uint64 // n bits that do not fill a byte yet
	n       int
}

func newLZ(window int) *lz { return &lz{window: window} }

// forget discards the context, as without context takeover.
func (z *lz) forget() {
	z.history = nil
	z.oldest = [1 << 12]int{}
}

func (z *lz) deflate(text string) string {
	z.messages++
	if z.messages%3 == 0 {
		return z.pieces(text)
	}
	return z.block(text, false) + z.end()
}

// pieces compresses text in pieces of the size of the window, each independently.
func (z *lz) pieces(text string) string {
	z.history = append(z.history, text...)
	var out bytes.Buffer
	if z.flate == nil {
		z.flate, _ = flate.NewWriter(&out, flate.BestSpeed)
	}
	for piece := range slices.Chunk([]byte(text), z.window) {
		z.flate.Reset(&out)
		_, _ = z.flate.Write(piece)
		_ = z.flate.Flush()
	}
	if text == "" {
		return "\x00"
	}
	return strings.TrimSuffix(out.String(), tail)
}

// block returns a block with fixed Huffman codes. Bits that do not fill a byte stay
// pending, unless the block is final.
func (z *lz) block(text string, final bool) string {
	header := uint64(0b010)
	if final {
		header |= 1
	}
	z.write(header, 3)
	at := len(z.history)
	z.history = append(z.history, text...)
	for at < len(z.history) {
		at += z.step(at)
	}
	z.literal(256)
	if final {
		z.write(0, -z.n&7)
	}
	return z.take()
}

// end returns the end of a message: an empty stored block without its length.
func (z *lz) end() string {
	z.write(0, 3)
	z.write(0, -z.n&7)
	return z.take()
}

// step writes one literal or one reference, and returns how many bytes it encodes.
func (z *lz) step(at int) int {
	rest := z.history[at:]
	if len(rest) < 4 {
		z.literal(int(rest[0]))
		return 1
	}
	oldest := &z.oldest[binary.LittleEndian.Uint32(rest)*2654435761>>20]
	from := *oldest - 1
	if from < 0 || at-from > z.window {
		*oldest = at + 1
		z.literal(int(rest[0]))
		return 1
	}
	n := 0
	for n < min(258, len(rest)) && z.history[from+n] == rest[n] {
		n++
	}
	if n < 3 {
		z.literal(int(rest[0]))
		return 1
	}
	z.length(n)
	z.distance(at - from)
	return n
}

// literal writes the fixed Huffman code of a literal or a length.
func (z *lz) literal(symbol int) {
	switch {
	case symbol < 144:
		z.code(0x30+symbol, 8)
	case symbol < 256:
		z.code(0x190+symbol-144, 9)
	case symbol < 280:
		z.code(symbol-256, 7)
	default:
		z.code(0xC0+symbol-280, 8)
	}
}

func (z *lz) length(n int) {
	if n == 258 {
		z.literal(285)
		return
	}
	n -= 3
	extra := max(0, bits.Len(uint(n))-3)
	z.literal(257 + 4*extra + n>>extra)
	z.write(uint64(n&(1<<extra-1)), extra)
}

func (z *lz) distance(n int) {
	n--
	extra := max(0, bits.Len(uint(n))-2)
	z.code(2*extra+n>>extra, 5)
	z.write(uint64(n&(1<<extra-1)), extra)
}

// code writes a Huffman code, which begins with its most significant bit.
func (z *lz) code(code, n int) {
	z.write(bits.Reverse64(uint64(code))>>(64-n), n)
}

func (z *lz) write(v uint64, n int) {
	z.pending |= v << z.n
	for z.n += n; z.n >= 8; z.n -= 8 {
		z.out = append(z.out, byte(z.pending))
		z.pending >>= 8
	}
}

// take returns the bytes written since the last call.
func (z *lz) take() string {
	out := string(z.out)
	z.out = z.out[:0]
	return out
}

// stored returns a stored block.
func (z *lz) stored(data string, final bool) string {
	data = data[:min(len(data), 0xFFFF)]
	header, n := uint64(0), uint64(len(data))
	if final {
		header = 1
	}
	z.write(header, 3)
	z.write(0, -z.n&7)
	z.write(n|(n^0xFFFF)<<16, 32)
	z.history = append(z.history, data...)
	return z.take() + data
}

// inflated decompresses the payload of one message, without a window of earlier ones.
func inflated(t testing.TB, payload string) string {
	t.Helper()
	data, err := io.ReadAll(flate.NewReader(strings.NewReader(payload + tail + "\x01\x00\x00\xff\xff")))
	if err != nil {
		t.Fatalf("%q cannot be inflated: %v", payload, err)
	}
	return string(data)
}

func deflatedBy(level int, data string) string {
	var out bytes.Buffer
	w, _ := flate.NewWriter(&out, level)
	_, _ = io.WriteString(w, data)
	_ = w.Flush()
	return strings.TrimSuffix(out.String(), tail)
}
