package wire

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseHeader(t *testing.T) {
	for _, test := range []struct {
		bytes string
		want  header
	}{
		{"\x81\x00", header{0x81, false, 2, 0}},
		{"\x82\x7d", header{0x82, false, 2, 125}},
		{"\x01\x85key!", header{0x01, true, 6, 5}},
		{"\x82\x7e\x00\x7e", header{0x82, false, 4, 126}},
		{"\x82\x7e\x00\x05", header{0x82, false, 4, 5}},
		{"\x82\xfe\xff\xffkey!", header{0x82, true, 8, 65535}},
		{"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00", header{0x82, false, 10, 65536}},
		{"\x82\xff\x00\x00\x01\x00\x00\x00\x00\x00key!", header{0x82, true, 14, 1 << 40}},
		{"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", header{0x82, false, 10, 1<<63 - 1}},
		{"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", header{0x82, false, 10, -1 << 63}},
		{"\xff\x7f\xff\xff\xff\xff\xff\xff\xff\xff", header{0xff, false, 10, -1}},
	} {
		for n := range test.bytes {
			if _, ok := parseHeader([]byte(test.bytes[:n])); ok {
				t.Errorf("% x: complete after %d bytes", test.bytes, n)
			}
		}
		for _, payload := range []string{"", "payload"} {
			if h, ok := parseHeader([]byte(test.bytes + payload)); !ok || h != test.want {
				t.Errorf("% x: got %+v, %v", test.bytes, h, ok)
			}
		}
	}
}

func TestHeaderBits(t *testing.T) {
	for first := range 256 {
		h := header{first: byte(first)}
		opcode := first % 16
		if h.fin() != (first >= 128) || h.opcode() != byte(opcode) || h.control() != (opcode >= 8) {
			t.Errorf("%#b: got fin %v, opcode %#x, control %v", first, h.fin(), h.opcode(), h.control())
		}
	}
}

func TestMinimal(t *testing.T) {
	for _, test := range []struct {
		h    header
		want bool
	}{
		{header{size: 2, length: 0}, true},
		{header{size: 2, length: 125}, true},
		{header{size: 4, length: 0}, false},
		{header{size: 4, length: 125}, false},
		{header{size: 4, length: 126}, true},
		{header{size: 4, length: 65535}, true},
		{header{size: 10, length: 0}, false},
		{header{size: 10, length: 65535}, false},
		{header{size: 10, length: 65536}, true},
		{header{size: 10, length: 1<<63 - 1}, true},
	} {
		if test.h.minimal() != test.want {
			t.Errorf("%+v: got %v", test.h, !test.want)
		}
	}
}

// TestAppendFrame appends frames of sizes around those at which the header grows.
func TestAppendFrame(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 7, 8, 9, 124, 125, 126, 127, 128, 1000, 65534, 65535, 65536, 65537, 100_000} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(random.Uint32())
		}
		sent := bytes.Clone(payload)
		b := append(make([]byte, 0, 6+FrameSize(size)), "before"...)
		b = appendFrame(b, finBit|opBinary, payload)
		if !bytes.Equal(payload, sent) {
			t.Errorf("%d bytes: the payload was changed", size)
		}
		if len(b) != 6+FrameSize(size) || string(b[:6]) != "before" {
			t.Fatalf("%d bytes: a frame of %d bytes, after %q", size, len(b)-6, b[:6])
		}
		if h, ok := parseHeader(b[6:]); !ok || !h.masked || h.length != int64(size) || h.size != FrameSize(size)-size {
			t.Errorf("%d bytes: the header is %+v, %v", size, h, ok)
		}
		checkSent(t, b[6:], sentFrame{finBit | opBinary, string(payload)})
	}
}

// TestMaskingKeys checks that masking keys do not repeat, except by chance.
func TestMaskingKeys(t *testing.T) {
	keys := map[uint32]bool{}
	for range 100 {
		b := appendFrame(make([]byte, 0, 6), finBit|opPong, nil)
		keys[binary.BigEndian.Uint32(b[2:])] = true
	}
	if len(keys) < 99 {
		t.Errorf("%d different masking keys in 100 frames", len(keys))
	}
}

func TestAppendMasked(t *testing.T) {
	payload := make([]byte, 150)
	for i := range payload {
		payload[i] = byte(3 * i)
	}
	key := [4]byte{0x12, 0xF4, 0x56, 0xC8}
	for start := range 9 {
		for end := start; end <= len(payload); end++ {
			part := payload[start:end]
			want := bytes.Clone(payload[:start])
			for i := range part {
				want = append(want, part[i]^key[i%4])
			}
			// What is in memory behind the result must not change.
			b := append(make([]byte, 0, 200), payload[:start]...)
			behind := b[len(want) : len(want)+8]
			copy(behind, "untouched")
			b = appendMasked(b, part, binary.LittleEndian.Uint32(key[:]))
			if !bytes.Equal(b, want) || string(behind) != "untouche" {
				t.Fatalf("payload[%d:%d]: got % x, followed by %q; want % x", start, end, b, behind, want)
			}
		}
	}
}

func TestValidCloseCode(t *testing.T) {
	valid := []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
	for code := 3000; code <= 4999; code++ {
		valid = append(valid, code)
	}
	for code := -2; code <= 1<<16; code++ {
		if _, want := slices.BinarySearch(valid, code); ValidCloseCode(code) != want {
			t.Errorf("%d: got %v", code, !want)
		}
	}
}

func TestCutReason(t *testing.T) {
	for _, test := range []struct{ reason, want string }{
		{"", ""},
		{"short", "short"},
		{strings.Repeat("r", 123), strings.Repeat("r", 123)},
		{strings.Repeat("r", 124), strings.Repeat("r", 123)},
		{strings.Repeat("é", 62), strings.Repeat("é", 61)},             // 124 bytes
		{"a" + strings.Repeat("é", 61), "a" + strings.Repeat("é", 61)}, // 123 bytes
		{strings.Repeat("€", 42), strings.Repeat("€", 41)},
		{strings.Repeat("🙂", 31), strings.Repeat("🙂", 30)},
		{"a\xffb", "a\uFFFDb"},
		{strings.Repeat("a\xff", 62), strings.Repeat("a\uFFFD", 30) + "a"},
	} {
		got := CutReason(test.reason)
		if got != test.want || !utf8.ValidString(got) {
			t.Errorf("%q: got %q, want %q", test.reason, got, test.want)
		}
	}
}

func TestCloseBody(t *testing.T) {
	for _, test := range []struct {
		code         int
		reason, want string
	}{
		{1005, "", ""},
		{1005, "is not sent", ""},
		{1000, "", "\x03\xe8"},
		{4999, "bye", "\x13\x87bye"},
		{1001, strings.Repeat("r", 200), "\x03\xe9" + strings.Repeat("r", 123)},
	} {
		if got := closeBody(test.code, test.reason); string(got) != test.want {
			t.Errorf("%d %q: got %q, want %q", test.code, test.reason, got, test.want)
		}
	}
}
