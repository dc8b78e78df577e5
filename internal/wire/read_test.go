package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestReadEveryCut(t *testing.T) {
	for _, borrow := range []bool{false, true} {
		set := setting{limit: 1 << 20, borrow: borrow}
		for cut := range len(mixedStream) {
			src := &script{in: mixedStream, cut: inTwo(cut), end: io.EOF}
			checkOutcome(t, fmt.Sprint("cut at ", cut), overWire(t, set, src), mixedOutcome)
		}
		src := &script{in: mixedStream, cut: byBytes, end: io.EOF}
		checkOutcome(t, "by bytes", overWire(t, set, src), mixedOutcome)
	}
}

// TestReadTruncated ends the stream after every byte. It does not compare with
// coder/websocket, which takes io.EOF within a message for the end of the message.
func TestReadTruncated(t *testing.T) {
	set := setting{limit: 1 << 20}
	complete := 0 // messages in the stream before
	for n := range len(mixedStream) {
		for _, last := range []bool{false, true} {
			got := overWire(t, set, &script{in: mixedStream[:n], end: io.EOF, last: last})
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

// TestReadBigMessages reads messages of sizes around those of the buffers, fragmented
// and not.
func TestReadBigMessages(t *testing.T) {
	sizes := []int{125, 126, 127, 250, 254, 256, 257, 300, 2047, 2049, 4091, 4092, 4096, 4097, 5000,
		16 << 10, 32764, 32768, 32769, 65525, 65526, 65535, 65536, 65537, 100_000, growFrom, growFrom + 5}
	text := strings.Repeat("€uro", 200_000)
	var stream []byte
	var want []message
	for _, size := range sizes {
		stream = append(stream, frame(finBit|opBinary, text[:size])...)
		want = append(want, message{Binary, text[:size]})
		valid := strings.ToValidUTF8(text[:size], "?")
		stream = append(stream, frame(finBit|opText, valid)...)
		stream = append(stream, join(frame(opText, valid[:size/3]), frame(finBit|opContinuation, valid[size/3:]))...)
		want = append(want, message{Text, valid}, message{Text, valid})
	}
	bothWays(t, func(t *testing.T, set setting) {
		set.limit = 2 << 20
		for _, cut := range []func() int{
			nil,
			func() int { return 1 + rand.IntN(100_000) },
			func() int { return 1000 + rand.IntN(500) },
		} {
			got := overWire(t, set, &script{in: stream, cut: cut, end: io.EOF})
			if got.end != endLost || !slices.Equal(got.messages, want) {
				t.Errorf("got %s, %d messages", got.end, len(got.messages))
			}
		}
	})
}

// lengthened returns the header of an unmasked frame with an extended payload length of
// 2 or 8 bytes, whether it needs them or not.
func lengthened(first byte, length uint64, extended int) []byte {
	if extended == 2 {
		return binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(length))
	}
	return binary.BigEndian.AppendUint64([]byte{first, 127}, length)
}

// violation is a stream whose last byte makes it a violation.
type violation struct {
	name   string
	stream []byte
	want   int
}

// violationLimit is the read limit for violations.
const violationLimit = 1000

func violations() []violation {
	const limit = violationLimit
	empty := bytes.Repeat(frame(opContinuation, ""), maxEmptyFrames)
	ones := strings.Repeat("1", 600)
	return []violation{
		{"text, first byte", append(head(finBit|opText, 100), 0xff), 1007},
		{"text, in the middle", append(head(finBit|opText, 100), "valid \xed\xa0"...), 1007},
		{"text, beyond the buffer", append(head(finBit|opText, 900), ones+"\xc0"...), 1007},
		{"text, complete", frame(finBit|opText, "\xf5"), 1007},
		{"text, cut short", frame(finBit|opText, "caf\xc3"), 1007},
		{"fragment", append(head(opText, 100), "valid \xf4\x90"...), 1007},
		{"continuation", join(frame(opText, "\xe2\x82"), append(head(opContinuation, 50), '\x00')), 1007},
		{"continuation after a ping", join(frame(opText, "\xe2\x82"), frame(finBit|opPing, "\xff"), append(head(opContinuation, 50), '\x00')), 1007},
		{"last fragment cut short", join(frame(opText, "\xe2\x82"), frame(finBit|opContinuation, "")), 1007},
		{"close reason", frame(finBit|opClose, closePayload(1000, "\xff")), 1007},

		{"too big", head(finBit|opBinary, limit+1), 1009},
		{"too big text", head(finBit|opText, limit+1), 1009},
		{"too big first fragment", head(opBinary, limit+1), 1009},
		{"too big continuation", join(frame(opBinary, ones), head(opContinuation, limit+1-600)), 1009},
		{"too big last fragment", join(frame(opBinary, ones), frame(opContinuation, ""), head(finBit|opContinuation, limit+1-600)), 1009},
		{"1 TiB", head(finBit|opBinary, 1<<40), 1009},
		{"2^63-1", head(finBit|opBinary, 1<<63-1), 1009},
		{"2^63-1 after a byte", join(frame(opBinary, "1"), head(opContinuation, 1<<63-1)), 1009},

		{"negative length", head(finBit|opBinary, 1<<63), 1002},
		{"negative length of a fragment", join(frame(opText, ""), head(opContinuation, 1<<64-1)), 1002},
		{"length 0 in 2 bytes", lengthened(finBit|opText, 0, 2), 1002},
		{"length 125 in 2 bytes", lengthened(finBit|opText, 125, 2), 1002},
		{"length 0 in 8 bytes", lengthened(finBit|opBinary, 0, 8), 1002},
		{"length 125 in 8 bytes", lengthened(opBinary, 125, 8), 1002},
		{"length 126 in 8 bytes", lengthened(finBit|opBinary, 126, 8), 1002},
		{"length 65535 in 8 bytes", lengthened(finBit|opBinary, math.MaxUint16, 8), 1002},
		{"length 5 of a continuation in 2 bytes", join(frame(opText, "a"), lengthened(opContinuation, 5, 2)), 1002},
		{"length 5 of a ping in 2 bytes", lengthened(finBit|opPing, 5, 2), 1002},
		{"length 125 of a pong in 2 bytes", lengthened(finBit|opPong, 125, 2), 1002},
		{"length 2 of a close frame in 8 bytes", lengthened(finBit|opClose, 2, 8), 1002},
		{"length 0 of a ping in a message in 2 bytes", join(frame(opText, "a"), lengthened(finBit|opPing, 0, 2)), 1002},

		{"masked", []byte{finBit | opText, maskBit | 5}, 1002},
		{"masked fragment", join(frame(opText, "a"), []byte{opContinuation, maskBit | 126}), 1002},
		{"masked ping", []byte{finBit | opPing, maskBit}, 1002},
		{"masked close", []byte{finBit | opClose, maskBit | 2}, 1002},
		{"empty continuations", join(frame(opText, "a"), empty), 1002},
		{"empty continuations and pings", join(frame(opBinary, ""), empty[:1000], frame(finBit|opPing, ""), frame(finBit|opPong, ""), empty[1000:]), 1002},

		{"fragmented ping", head(opPing, 0), 1002},
		{"fragmented close", head(opClose, 0), 1002},
		{"long ping", head(finBit|opPing, 126), 1002},
		{"long pong in a message", join(frame(opText, "a"), head(finBit|opPong, 126)), 1002},
		{"long close", head(finBit|opClose, 126), 1002},
		{"very long ping", head(finBit|opPing, 1<<40), 1002},
		{"reserved bit 1", head(finBit|0x40|opText, 5), 1002},
		{"reserved bit 2", head(finBit|0x20|opText, 5), 1002},
		{"reserved bit 3", head(finBit|0x10|opBinary, 5), 1002},
		{"reserved bit of a pong", head(finBit|rsv1Bit|opPong, 0), 1002},
		{"reserved bit of a continuation", join(frame(opText, "a"), head(finBit|rsv1Bit|opContinuation, 5)), 1002},
		{"reserved opcode 3", head(finBit|3, 5), 1002},
		{"reserved opcode 7", head(finBit|7, 5), 1002},
		{"reserved opcode in a message", join(frame(opText, "a"), head(finBit|3, 5)), 1002},
		{"reserved control opcode 11", head(finBit|0xB, 5), 1002},
		{"reserved control opcode 15", head(finBit|0xF, 5), 1002},
		{"continuation without a message", head(finBit|opContinuation, 5), 1002},
		{"continuation of a complete message", join(frame(opText, "a"), frame(finBit|opContinuation, ""), head(opContinuation, 5)), 1002},
		{"text in a text", join(frame(opText, "a"), head(finBit|opText, 5)), 1002},
		{"binary in a text", join(frame(opText, "a"), head(opBinary, 5)), 1002},
		{"close payload of one byte", frame(finBit|opClose, "\x03"), 1002},
		{"close code 1005", frame(finBit|opClose, closePayload(1005, "")), 1002},
		{"close code 999", frame(finBit|opClose, closePayload(999, "\xff")), 1002},
	}
}

// complete returns the messages that are complete before the violation.
func (v violation) complete() (messages []message) {
	if v.name == "continuation of a complete message" {
		return []message{{Text, "a"}}
	}
	return nil
}

// TestReadViolations checks that a violation is noticed at its last byte: if the reader
// waited for more, the connection would be lost first.
func TestReadViolations(t *testing.T) {
	for _, v := range violations() {
		for _, cut := range []func() int{nil, byBytes, inTwo(10)} {
			for _, last := range []bool{false, true} {
				stream := join(frame(finBit|opText, "before"), v.stream)
				got := overWire(t, setting{limit: violationLimit}, &script{in: stream, cut: cut, end: errEnd, last: last})
				if got.end != endProtocol(v.want) {
					t.Errorf("%s: got %s", v.name, got.end)
				}
				if want := append([]message{{Text, "before"}}, v.complete()...); !slices.Equal(got.messages, want) {
					t.Errorf("%s: got messages %v", v.name, got.messages)
				}
				checkLastClose(t, v.name, got.sent, v.want)
			}
		}
	}
}

// checkLastClose checks that the last frame, and no other, is a close frame with the
// code and a valid reason.
func checkLastClose(t *testing.T, name string, sent []sentFrame, code int) {
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
	reason, proper := strings.CutPrefix(payload, closePayload(code, ""))
	if !proper || reason == "" || len(payload) > maxControlPayload || !utf8.ValidString(reason) {
		t.Errorf("%s: the close frame holds %q", name, payload)
	}
}

// TestViolationsWithCompression checks that permessage-deflate allows nothing more than
// RSV1 in the first frame of a message.
func TestViolationsWithCompression(t *testing.T) {
	for _, v := range violations() {
		if v.name == "reserved bit 1" {
			continue
		}
		got := overWire(t, setting{limit: violationLimit, extension: extension}, &script{in: v.stream, end: errEnd})
		if got.end != endProtocol(v.want) {
			t.Errorf("%s: got %s", v.name, got.end)
		}
	}
	for _, first := range []byte{finBit | rsv1Bit | 0x20 | opText, rsv1Bit | 0x10 | opBinary, finBit | rsv1Bit | 3} {
		got := overWire(t, setting{limit: violationLimit, extension: extension}, &script{in: head(first, 5), end: errEnd})
		if got.end != endProtocol(1002) {
			t.Errorf("%#x: got %s", first, got.end)
		}
	}
}

// TestReservedBits checks that RSV1 is a violation on the fast path too, unless
// permessage-deflate was negotiated.
func TestReservedBits(t *testing.T) {
	for _, opcode := range []byte{opText, opBinary} {
		stream := frame(finBit|rsv1Bit|opcode, "\x00")
		if got := overWire(t, setting{limit: 100}, &script{in: stream, end: errEnd}); got.end != endProtocol(1002) || len(got.messages) > 0 {
			t.Errorf("got %v", got)
		}
		got := overWire(t, setting{limit: 100, extension: extension}, &script{in: stream, end: errEnd})
		if got.end != endLost || !slices.Equal(got.messages, []message{{Type(opcode), ""}}) {
			t.Errorf("got %v", got)
		}
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
		{"one frame", frame(finBit|opText, limit), []message{{Text, limit}}},
		{"two frames", join(frame(opBinary, limit), frame(finBit|opContinuation, "")), []message{{Binary, limit}}},
		{"three frames", join(frame(opBinary, limit[:400]), frame(opContinuation, limit[:600]), frame(finBit|opContinuation, "")), []message{{Binary, limit}}},
		{"two messages", bytes.Repeat(frame(finBit|opText, limit), 2), []message{{Text, limit}, {Text, limit}}},
		{"empty continuations", join(frame(opText, "a"), empty, frame(opContinuation, "b"), empty, frame(finBit|opContinuation, "")), []message{{Text, "ab"}}},
		{"empty continuations to the end", join(frame(opText, ""), empty, frame(finBit|opContinuation, "")), []message{{Text, ""}}},
		{"long control frames", join(frame(finBit|opPing, limit[:125]), frame(finBit|opPong, limit[:125]), frame(finBit|opText, "a")), []message{{Text, "a"}}},
	} {
		bothWays(t, func(t *testing.T, set setting) {
			for _, cut := range []func() int{nil, byBytes, inTwo(500)} {
				set.limit = 1000
				got := overWire(t, set, &script{in: test.stream, cut: cut, end: errEnd})
				if got.end != endLost || !slices.Equal(got.messages, test.want) {
					t.Errorf("%s: got %v", test.name, got)
				}
			}
		})
	}
}

// TestReadLimitOnTheFastPath checks the limit for a message that arrives in one read.
func TestReadLimitOnTheFastPath(t *testing.T) {
	for size, want := range map[int]string{9: endLost, 10: endLost, 11: endProtocol(1009)} {
		stream := frame(finBit|opBinary, strings.Repeat("x", size))
		if got := overWire(t, setting{limit: 10}, &script{in: stream, end: errEnd}); got.end != want {
			t.Errorf("%d bytes: got %v", size, got)
		}
	}
}

// TestEmptyMessages checks that the data of an empty message is not nil, whichever memory
// it comes from.
func TestEmptyMessages(t *testing.T) {
	bothWays(t, func(t *testing.T, set setting) {
		for name, stream := range map[string][]byte{
			"one frame":  frame(finBit|opText, ""),
			"two frames": join(frame(opText, ""), frame(finBit|opContinuation, "")),
		} {
			for _, cut := range []func() int{nil, byBytes} {
				c, o := start(t, set, &script{in: stream, cut: cut, end: errEnd})
				c.in.scratch, c.in.scratchUsed = scratch.New().(*[]byte), true // as from an empty pool
				messages, err := readAll(t, c)
				if got := messages(); endOf(err) != endLost || !slices.Equal(got, []message{{Text, ""}}) {
					t.Errorf("%s: got %v, %v", name, got, err)
				}
				finish(c, o)
			}
		}
	})
}

// TestBursts checks that a burst holds all messages that one read brought, and that the
// transport is not read again before they are returned.
func TestBursts(t *testing.T) {
	bothWays(t, func(t *testing.T, set setting) {
		var pieces [][]byte
		var want [][]int // sizes of the bursts of each piece
		for _, n := range []int{1, 2, 3, maxBurst - 1, maxBurst, maxBurst + 1, 2 * maxBurst, 2*maxBurst + 1} {
			piece := bytes.Repeat(frame(finBit|opText, "x"), n)
			pieces = append(pieces, piece)
			var bursts []int
			for ; n > maxBurst; n -= maxBurst {
				bursts = append(bursts, maxBurst)
			}
			want = append(want, append(bursts, n))
		}
		f := &feed{pieces: slices.Clone(pieces)}
		c, o := start(t, set, f)
		c.in.buf = make([]byte, largeBuffer)
		for i, bursts := range want {
			for _, n := range bursts {
				c.in.full = true // so that the buffer stays large enough for a whole piece
				burst, err := next(c)
				if err != nil || len(burst) != n || f.next != i+1 {
					t.Fatalf("piece %d: got %d messages after %d pieces, %v; want %d", i, len(burst), f.next, err, n)
				}
				checkBurst(t, burst)
			}
		}
		if err := drain(c); endOf(err) != endLost {
			t.Error(err)
		}
		finish(c, o)
	})
}

// TestBurstsEndWithAControlFrame checks that a control frame is handled after the messages
// before it have been returned, and before the next ones are.
func TestBurstsEndWithAControlFrame(t *testing.T) {
	stream := join(
		frame(finBit|opText, "1"), frame(finBit|opBinary, "2"), frame(finBit|opPing, "3"),
		frame(finBit|opText, "4"), frame(finBit|opPong, "5"), frame(finBit|opPing, "6"),
		frame(finBit|opText, "7"), frame(opText, "8"), frame(finBit|opPing, "9"), frame(finBit|opContinuation, "8"),
		frame(finBit|opText, "10"), frame(finBit|opText, "11"), frame(finBit|opClose, ""))
	bothWays(t, func(t *testing.T, set setting) {
		c, o := start(t, set, &script{in: stream, end: errEnd})
		for i, want := range []struct {
			messages     string
			pings, pongs string
		}{
			{"1 2", "", ""},
			{"4", "3", ""},
			{"7", "3 6", "5"},
			{"88", "3 6 9", "5"},
			{"10 11", "3 6 9", "5"},
		} {
			burst, err := next(c)
			if err != nil {
				t.Fatal(err)
			}
			var texts []string
			for _, m := range burst {
				texts = append(texts, string(m.Data))
			}
			if got := strings.Join(texts, " "); got != want.messages {
				t.Errorf("burst %d: got %s", i, got)
			}
			if strings.Join(o.pings, " ") != want.pings || strings.Join(o.pongs, " ") != want.pongs {
				t.Errorf("burst %d: after the pings %v and pongs %v, want %s and %s", i, o.pings, o.pongs, want.pings, want.pongs)
			}
			if c.End() != nil {
				t.Errorf("burst %d: End returns %v", i, c.End())
			}
		}
		if _, err := next(c); endOf(err) != endClosed(codeNone, "") {
			t.Errorf("Next returned %v", err)
		}
		finish(c, o)
		checkSent(t, c.transport.(*script).written(),
			sentFrame{finBit | opPong, "3"}, sentFrame{finBit | opPong, "6"}, sentFrame{finBit | opPong, "9"}, sentFrame{finBit | opClose, ""})
	})
}

// TestBurstBeforeTheEnd checks that messages are returned before a violation that the
// same read brought, and that those after it are not.
func TestBurstBeforeTheEnd(t *testing.T) {
	for name, bad := range map[string][]byte{
		"text":       frame(finBit|opText, "\xff"),
		"compressed": frame(finBit|rsv1Bit|opText, "\xff\xff\xff\xff"),
		"header":     frame(finBit|3, ""),
	} {
		for before := range 3 {
			stream := join(bytes.Repeat(frame(finBit|opText, "before"), before), bad, frame(finBit|opText, "behind"))
			c, o := start(t, setting{limit: 100, extension: extension}, &script{in: stream, end: errEnd})
			if before > 0 {
				if burst, err := next(c); err != nil || len(burst) != before {
					t.Errorf("%s: got %d messages, %v; want %d", name, len(burst), err, before)
				}
			}
			burst, err := next(c)
			var violation *Violation
			if !errors.As(err, &violation) || len(burst) > 0 {
				t.Errorf("%s, after %d messages: %v, with %d messages", name, before, err, len(burst))
			}
			finish(c, o)
		}
	}
}

// TestBorrowedData checks that borrowed data lies in the receive buffer, and that data
// that belongs to the caller does not.
func TestBorrowedData(t *testing.T) {
	stream := bytes.Repeat(frame(finBit|opBinary, strings.Repeat("d", 20)), 5)
	bothWays(t, func(t *testing.T, set setting) {
		for name, cut := range map[string]func() int{"whole": nil, "in parts": inTwo(10)} {
			c, o := start(t, set, &script{in: stream, cut: cut, end: errEnd})
			burst, err := next(c)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range burst {
				if got := within(m.Data, c.in.buf); got != set.borrow {
					t.Errorf("%s: the data is in the buffer: %v", name, got)
				}
			}
			finish(c, o)
		}
	})
}

// TestOwnedBurstSharesABlock checks that small messages of a read share a block, which is
// not larger than what the read brought.
func TestOwnedBurstSharesABlock(t *testing.T) {
	stream := bytes.Repeat(frame(finBit|opBinary, "0123456789"), 10)
	for name, cut := range map[string]func() int{"whole": nil, "the first in parts": inTwo(5)} {
		c, o := start(t, setting{limit: 100}, &script{in: stream, cut: cut, end: errEnd})
		var all []Message
		for len(all) < 10 {
			burst, err := next(c)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, burst...)
		}
		for i := range 9 {
			if !adjacent(all[i].Data, all[i+1].Data) {
				t.Errorf("%s: messages %d and %d do not share a block", name, i, i+1)
			}
		}
		if left := len(c.in.block); left > 2*9 {
			t.Errorf("%s: %d bytes of the block are left", name, left)
		}
		finish(c, o)
	}
}

// TestOwnedMessageAlone checks that a single message gets exactly the memory it needs.
func TestOwnedMessageAlone(t *testing.T) {
	for name, stream := range map[string][]byte{
		"one frame":  frame(finBit|opText, "text"),
		"two frames": join(frame(opText, "te"), frame(finBit|opContinuation, "xt"), frame(finBit|opText, "more")),
	} {
		c, o := start(t, setting{limit: 100}, &script{in: stream, end: errEnd})
		if burst, err := next(c); err != nil || string(burst[0].Data) != "text" || len(c.in.block) != 0 {
			t.Errorf("%s: got %v, %v, in a block with room for %d more bytes", name, copies(burst), err, len(c.in.block))
		}
		finish(c, o)
	}
}

// TestLargeMessagesBypassTheBuffer checks that a large message is read directly into its
// own memory, in reads that have room for all of it.
func TestLargeMessagesBypassTheBuffer(t *testing.T) {
	bothWays(t, func(t *testing.T, set setting) {
		text := strings.Repeat("0123456789", 50_000)
		stream := frame(finBit|opBinary, text)
		var most int
		c, o := start(t, set, readFunc(func(p []byte) (int, error) {
			most = max(most, len(p))
			n := copy(p, stream)
			stream = stream[n:]
			if n == 0 {
				return 0, errEnd
			}
			return n, nil
		}))
		burst, err := next(c)
		if err != nil || len(burst) != 1 || string(burst[0].Data) != text {
			t.Errorf("got %d messages, %v", len(burst), err)
		}
		if most < len(text)-2*largeBuffer {
			t.Errorf("the largest read has room for %d bytes", most)
		}
		if err := drain(c); endOf(err) != endLost {
			t.Error(err)
		}
		finish(c, o)
	})
}

// TestReadsOfALargeMessage checks that the end of a large message is read into the buffer
// if it is small, so that the same read can bring what follows.
func TestReadsOfALargeMessage(t *testing.T) {
	for _, test := range []struct {
		left     int // bytes of the message that are not in the buffer yet
		straight bool
	}{{smallBuffer - 1, false}, {smallBuffer, true}} {
		var c *Conn
		straight := false
		pieces := [][]byte{frame(finBit|opBinary, strings.Repeat("l", 5000))[:4+5000-test.left]}
		f := &feed{pieces: append(pieces, []byte(strings.Repeat("l", test.left)))}
		c, o := start(t, setting{limit: 1 << 20}, readFunc(func(p []byte) (int, error) {
			if f.next == 1 && len(c.in.received()) == 0 {
				straight = !within(p, c.in.buf)
			}
			return f.Read(p)
		}))
		if burst, err := next(c); err != nil || len(burst[0].Data) != 5000 {
			t.Error(err)
		}
		if straight != test.straight {
			t.Errorf("%d bytes left: read directly: %v", test.left, straight)
		}
		finish(c, o)
	}
}

// TestBufferAfterALargeMessage checks that a read that bypassed the buffer determines the
// size of the buffer for the next read, too.
func TestBufferAfterALargeMessage(t *testing.T) {
	for last, want := range map[int]int{inlineBuffer: inlineBuffer, inlineBuffer + 1: smallBuffer} {
		const size = 100_000
		stream := frame(finBit|opBinary, strings.Repeat("l", size))
		f := &feed{pieces: [][]byte{stream[:200], stream[200 : len(stream)-last], stream[len(stream)-last:]}}
		c, o := start(t, setting{limit: 1 << 20}, f)
		f.idle = func(piece int) {
			if piece == 3 && len(c.in.buf) != want {
				t.Errorf("after a read of %d bytes: a buffer of %d bytes, want %d", last, len(c.in.buf), want)
			}
		}
		_ = drain(c)
		finish(c, o)
	}
}

// TestControlFramesAmongFragments checks that control frames within a fragmented message
// are handled.
func TestControlFramesAmongFragments(t *testing.T) {
	stream := join(
		frame(finBit|opPong, "one"), frame(finBit|opText, "fast"), frame(finBit|opPong, ""),
		frame(opText, "sl"), frame(finBit|opPong, strings.Repeat("p", 125)), frame(finBit|opPing, "ping"), frame(finBit|opContinuation, "ow"))
	for _, cut := range []func() int{nil, byBytes} {
		c, o := start(t, setting{limit: 100}, &script{in: stream, cut: cut, end: io.EOF})
		messages, err := readAll(t, c)
		if got, want := messages(), []message{{Text, "fast"}, {Text, "slow"}}; !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if want := []string{"one", "", strings.Repeat("p", 125)}; !slices.Equal(o.pongs, want) {
			t.Errorf("got the pongs %q", o.pongs)
		}
		if !slices.Equal(o.pings, []string{"ping"}) {
			t.Errorf("got the pings %q", o.pings)
		}
		if !errors.Is(err, io.EOF) || endOf(err) != endLost {
			t.Errorf("Next returned %v", err)
		}
		finish(c, o)
	}
}

// TestOwnerDecidesAboutPings checks that a ping is answered only if the owner says so.
func TestOwnerDecidesAboutPings(t *testing.T) {
	src := &script{in: join(frame(finBit|opPing, "no"), frame(finBit|opPing, "yes"), frame(finBit|opPing, "no")), end: io.EOF}
	c, o := start(t, setting{limit: 100}, src)
	o.answer = func(payload []byte) bool { return string(payload) == "yes" }
	_ = drain(c)
	finish(c, o)
	if !slices.Equal(o.pings, []string{"no", "yes", "no"}) {
		t.Errorf("the owner saw %v", o.pings)
	}
	checkSent(t, src.written(), sentFrame{finBit | opPong, "yes"})
}

// TestCloseFrames checks how close frames of the server are reported and answered, and
// that what follows them is ignored.
func TestCloseFrames(t *testing.T) {
	for _, test := range []struct {
		payload string
		code    int
		reason  string
	}{
		{"", codeNone, ""},
		{closePayload(1000, ""), 1000, ""},
		{closePayload(1014, "r"), 1014, "r"},
		{closePayload(4999, "Ünicode"), 4999, "Ünicode"},
		{closePayload(3000, strings.Repeat("r", maxReason)), 3000, strings.Repeat("r", maxReason)},
	} {
		for _, cut := range []func() int{nil, byBytes} {
			stream := join(frame(finBit|opClose, test.payload), frame(finBit|opPing, ""), frame(finBit|opText, "behind"), frame(finBit|3, ""))
			got := overWire(t, setting{limit: 100}, &script{in: stream, cut: cut, end: io.EOF})
			checkOutcome(t, fmt.Sprintf("%.20q", test.payload), got, outcome{
				sent: []sentFrame{{finBit | opClose, test.payload}},
				end:  endClosed(test.code, test.reason),
			})
		}
	}
}

// TestCloseFrameWithinAMessage checks that a close frame between fragments ends reading.
func TestCloseFrameWithinAMessage(t *testing.T) {
	stream := join(frame(opText, "half"), frame(finBit|opClose, closePayload(1001, "")), frame(finBit|opContinuation, ""))
	got := overWire(t, setting{limit: 100}, &script{in: stream, end: io.EOF})
	checkOutcome(t, "in a message", got, outcome{
		sent: []sentFrame{{finBit | opClose, closePayload(1001, "")}},
		end:  endClosed(1001, ""),
	})
}

// TestLargeTextIncomplete checks that text too large for the buffer is validated up to
// its last byte.
func TestLargeTextIncomplete(t *testing.T) {
	stream := frame(finBit|opText, strings.Repeat("x", 200_000)+"\xe2\x82")
	got := overWire(t, setting{limit: 1 << 20}, &script{in: stream, end: io.EOF})
	if got.end != endProtocol(1007) || len(got.messages) > 0 {
		t.Errorf("got %v", got)
	}
}

// TestBinaryIsNotValidated checks that binary messages need not be UTF-8, whichever path
// reads them.
func TestBinaryIsNotValidated(t *testing.T) {
	for name, stream := range map[string][]byte{
		"small":     frame(finBit|opBinary, "\xff\xc3"),
		"large":     frame(finBit|opBinary, strings.Repeat("\xff", 100_000)),
		"fragments": join(frame(opBinary, "\xff"), frame(finBit|opContinuation, "\xc3")),
	} {
		for _, cut := range []func() int{nil, inTwo(3), inTwo(5)} {
			if got := overWire(t, setting{limit: 1 << 20}, &script{in: stream, cut: cut, end: io.EOF}); got.end != endLost || len(got.messages) != 1 {
				t.Errorf("%s: got %v", name, got)
			}
		}
	}
}

// TestViolationEndsAtOnce checks that after a violation Close does not wait for the
// server if the network connection cannot be closed in one direction.
func TestViolationEndsAtOnce(t *testing.T) {
	for name, stream := range map[string][]byte{
		"frame": frame(finBit|opText, "\xff"),
		"part":  append(head(finBit|opText, 100), '\xff'),
		"head":  head(finBit|3, 5),
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLine(stream)
			c, o := start(t, setting{limit: 100}, l)
			began := time.Now()
			err := drain(c)
			finish(c, o)
			if took := time.Since(began); took != 0 {
				t.Errorf("%s: got %v after %v", name, err, took)
			}
			checkLastClose(t, name, sentFrames(t, l.written()), err.(*Violation).Code)
		})
	}
}
