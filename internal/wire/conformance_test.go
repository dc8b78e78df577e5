package wire

import (
	"bufio"
	"bytes"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// conformance is one test case: what a server sends, and what a client that echoes every
// message must do. Its name is the number of the case in the Autobahn test suite, or
// begins with "own" if that suite has no such case.
//
// If neither fails nor closes is set, the server closes the connection after the last
// echo.
type conformance struct {
	name      string
	extension string   // the server's answer to the offer of compression
	pieces    [][]byte // what the server sends, one write each
	lockstep  bool     // the server waits for the echo before it sends the next piece
	want      []message
	pongs     []string

	fails  int     // if not 0, the close code of the violation
	closes *string // if not nil, the payload of the client's answer to a close frame
}

func TestConformance(t *testing.T) {
	count := 0
	for _, group := range []func() []conformance{
		framing, pingCases, reservedBits, opcodes, fragmentation, utf8Handling, utf8Tables,
		closeHandling, closeCodes, limits, ownCases,
	} {
		for _, c := range group() {
			c.start(t, waysOf(count, c)...)
			count++
		}
	}
	t.Logf("%d cases", count)
}

func numbered(group string, i int) string { return fmt.Sprintf("%s.%d", group, i+1) }

// framing returns group 1.
func framing() (cases []conformance) {
	for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536} {
		text, binary := strings.Repeat("*", size), strings.Repeat("\xfe", size)
		cases = append(cases,
			conformance{name: numbered("1.1", i), pieces: whole(frame(textFrame, text)), want: texts(text)},
			conformance{name: numbered("1.2", i), pieces: whole(frame(binaryFrame, binary)), want: binaries(binary)})
	}
	text, binary := strings.Repeat("*", 65536), strings.Repeat("\xfe", 65536)
	return append(cases,
		conformance{name: "1.1.8", pieces: chopped(997, frame(textFrame, text)), want: texts(text)},
		conformance{name: "1.2.8", pieces: chopped(997, frame(binaryFrame, binary)), want: binaries(binary)})
}

// pingCases returns group 2.
func pingCases() []conformance {
	long := strings.Repeat("\xfe", 125)
	var ten []byte
	var tenPongs []string
	for i := range 10 {
		payload := fmt.Sprint("payload-", i)
		ten, tenPongs = append(ten, frame(pingFrame, payload)...), append(tenPongs, payload)
	}
	return []conformance{
		{name: "2.1", pieces: whole(frame(pingFrame, "")), pongs: []string{""}},
		{name: "2.2", pieces: whole(frame(pingFrame, "Hello, world!")), pongs: []string{"Hello, world!"}},
		{name: "2.3", pieces: whole(frame(pingFrame, "\x00\xff\xfe\xfd\xfc\xfb\x00\xff")), pongs: []string{"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"}},
		{name: "2.4", pieces: whole(frame(pingFrame, long)), pongs: []string{long}},
		{name: "2.5", pieces: whole(frame(pingFrame, long+"\xfe")), fails: 1002},
		{name: "2.6", pieces: chopped(1, frame(pingFrame, long)), pongs: []string{long}},
		{name: "2.7", pieces: whole(frame(pongFrame, ""))},
		{name: "2.8", pieces: whole(frame(pongFrame, "unsolicited pong payload"))},
		{name: "2.9", pieces: whole(frame(pongFrame, "unsolicited"), frame(pingFrame, "ping payload")), pongs: []string{"ping payload"}},
		{name: "2.10", pieces: whole(ten), pongs: tenPongs},
		{name: "2.11", pieces: chopped(1, ten), pongs: tenPongs},
	}
}

// reservedBits returns group 3.
func reservedBits() []conformance {
	const hello = "Hello, world!"
	then := func(bad []byte) []byte { return join(frame(textFrame, hello), bad, frame(pingFrame, "")) }
	return []conformance{
		{name: "3.1", pieces: whole(frame(textFrame|0x10, hello)), fails: 1002},
		{name: "3.2", pieces: whole(then(frame(textFrame|0x20, hello))), want: texts(hello), fails: 1002},
		{name: "3.3", pieces: chopped(len(hello)+2, then(frame(textFrame|0x30, hello))), want: texts(hello), fails: 1002},
		{name: "3.4", pieces: chopped(1, then(frame(textFrame|0x40, hello))), want: texts(hello), fails: 1002},
		{name: "3.5", pieces: whole(frame(binaryFrame|0x50, "\x00\xff\xfe\xfd")), fails: 1002},
		{name: "3.6", pieces: whole(frame(pingFrame|0x60, hello)), fails: 1002},
		{name: "3.7", pieces: whole(frame(closeFrame|0x70, "")), fails: 1002},
	}
}

// opcodes returns group 4.
func opcodes() (cases []conformance) {
	const hello = "Hello, world!"
	for i, first := range []byte{3, 11} {
		group := numbered("4", i)
		after := func(opcode byte, payload string) []byte {
			return join(frame(textFrame, hello), frame(finBit|opcode, payload), frame(pingFrame, ""))
		}
		cases = append(cases,
			conformance{name: group + ".1", pieces: whole(frame(finBit|first, "")), fails: 1002},
			conformance{name: group + ".2", pieces: whole(frame(finBit|first+1, "reserved opcode")), fails: 1002},
			conformance{name: group + ".3", pieces: whole(after(first+2, "")), want: texts(hello), fails: 1002},
			conformance{name: group + ".4", pieces: whole(after(first+3, hello)), want: texts(hello), fails: 1002},
			conformance{name: group + ".5", pieces: chopped(1, after(first+4, hello)), want: texts(hello), fails: 1002})
	}
	return cases
}

// fragmentation returns group 5.
func fragmentation() (cases []conformance) {
	two := join(frame(opText, "fragment1"), frame(finBit|opContinuation, "fragment2"))
	pinged := join(frame(opText, "fragment1"), frame(pingFrame, "ping payload"), frame(finBit|opContinuation, "fragment2"))
	orphan := func(fin byte) []byte {
		return join(frame(fin|opContinuation, "non-continuation payload"), frame(textFrame, "Hello, world!"))
	}
	five := join(frame(opText, "fragment1"), frame(opContinuation, "fragment2"), frame(pingFrame, "pongme 1!"),
		frame(opContinuation, "fragment3"), frame(opContinuation, "fragment4"), frame(pingFrame, "pongme 2!"),
		frame(finBit|opContinuation, "fragment5"))
	fiveText := texts("fragment1fragment2fragment3fragment4fragment5")
	fivePongs := []string{"pongme 1!", "pongme 2!"}

	chops := func(frames []byte) [][][]byte {
		return [][][]byte{whole(frames), chopped(11, frames), chopped(1, frames)}
	}
	for i, pieces := range chops(two) {
		cases = append(cases, conformance{name: fmt.Sprintf("5.%d", 3+i), pieces: pieces, want: texts("fragment1fragment2")})
	}
	for i, pieces := range chops(pinged) {
		cases = append(cases, conformance{name: fmt.Sprintf("5.%d", 6+i), pieces: pieces, want: texts("fragment1fragment2"), pongs: []string{"ping payload"}})
	}
	for i, pieces := range append(chops(orphan(finBit)), chops(orphan(0))...) {
		cases = append(cases, conformance{name: fmt.Sprintf("5.%d", 9+i), pieces: pieces, fails: 1002})
	}
	return append(cases,
		conformance{name: "5.1", pieces: whole(frame(opPing, "fragment1"), frame(finBit|opContinuation, "fragment2")), fails: 1002},
		conformance{name: "5.2", pieces: whole(frame(opPong, "fragment1"), frame(finBit|opContinuation, "fragment2")), fails: 1002},
		conformance{name: "5.15", pieces: whole(two, frame(opContinuation, "fragment3"), frame(textFrame, "fragment4")), want: texts("fragment1fragment2"), fails: 1002},
		conformance{name: "5.16", pieces: whole(bytes.Repeat(join(frame(opContinuation, "fragment1"), two), 2)), fails: 1002},
		conformance{name: "5.17", pieces: whole(bytes.Repeat(join(frame(finBit|opContinuation, "fragment1"), two), 2)), fails: 1002},
		conformance{name: "5.18", pieces: whole(frame(opText, "fragment1"), frame(textFrame, "fragment2")), fails: 1002},
		conformance{name: "5.19", pieces: chopped(40, five), want: fiveText, pongs: fivePongs},
		conformance{name: "5.20", pieces: chopped(1, five), want: fiveText, pongs: fivePongs})
}

const kosme = "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"

// utf8Handling returns group 6, sections 1 to 4: text in frames and pieces. In 6.4 the
// server sends nothing after the first byte that cannot be part of valid UTF-8.
func utf8Handling() []conformance {
	const text, good = "Hello-µ@ßöäüàá-UTF-8!!", "The text "
	const bad = kosme + "\xed\xa0\x80edited"
	const late = kosme + "\xf4\x90\x80\x80edited"
	at := strings.Index(late, "\xf4")
	return []conformance{
		{name: "6.1.1", pieces: whole(frame(textFrame, "")), want: texts("")},
		{name: "6.1.2", pieces: whole(frame(opText, ""), frame(opContinuation, ""), frame(finBit|opContinuation, "")), want: texts("")},
		{name: "6.1.3", pieces: whole(frame(opText, ""), frame(opContinuation, "middle frame payload"), frame(finBit|opContinuation, "")), want: texts("middle frame payload")},
		{name: "6.2.1", pieces: whole(frame(textFrame, text)), want: texts(text)},
		{name: "6.2.2", pieces: whole(fragmented(opText, text, 12)...), want: texts(text)},
		{name: "6.2.3", pieces: whole(fragmented(opText, text, 1)...), want: texts(text)},
		{name: "6.2.4", pieces: whole(fragmented(opText, kosme, 1)...), want: texts(kosme)},
		{name: "6.3.1", pieces: whole(frame(textFrame, bad)), fails: 1007},
		{name: "6.3.2", pieces: whole(fragmented(opText, bad, 1)...), fails: 1007},
		{name: "6.4.1", pieces: whole(frame(opText, late[:at]), frame(opContinuation, late[at:at+4])), fails: 1007},
		{name: "6.4.2", pieces: whole(frame(opText, late[:at+1]), frame(opContinuation, late[at+1:at+2])), fails: 1007},
		{name: "6.4.3", pieces: [][]byte{frame(textFrame, late)[:2+at], []byte(late[at : at+4])}, fails: 1007},
		{name: "6.4.4", pieces: [][]byte{frame(textFrame, late)[:2+at+1], []byte(late[at+1 : at+2])}, fails: 1007},
		{name: "own: half a fragment", pieces: whole(frame(opText, good), append(head(opContinuation, 1000), "\xff"...)), fails: 1007},
		{name: "own: half a large frame", pieces: whole(append(head(textFrame, 1<<20), strings.Repeat("x", 200_000)+"\xc0"...)), fails: 1007},
	}
}

// utf8Tables returns group 6, sections 5 to 23: valid and invalid texts.
func utf8Tables() (cases []conformance) {
	surrogates := []string{"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf"}
	incomplete := []string{"\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80",
		"\xdf", "\xef\xbf", "\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf"}
	for _, table := range []struct {
		group string
		valid bool
		texts []string
	}{
		{"6.5", true, []string{"Hello-µ@ßöäüàá-UTF-8!!", "\u3053\u3093\u306b\u3061\u306f", "Καλημέρα", "\U0001f642 \U0001f643", kosme}},
		{"6.7", true, []string{"\x00", "\u0080", "\u0800", "\U00010000"}},
		{"6.8", false, []string{"\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80"}},
		{"6.9", true, []string{"\x7f", "\u07ff", "\uffff", "\U0010ffff"}},
		{"6.10", false, []string{"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf"}},
		{"6.11", true, []string{"\ud7ff", "\ue000", "\ufffd", "\U0010ffff"}},
		{"6.12", false, []string{"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf", "\x80\xbf\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", bytesBetween(0x80, 0xbf, "")}},
		{"6.13", false, []string{bytesBetween(0xc0, 0xdf, " "), bytesBetween(0xe0, 0xef, " "), bytesBetween(0xf0, 0xf7, " "), bytesBetween(0xf8, 0xfb, " "), "\xfc \xfd "}},
		{"6.14", false, incomplete},
		{"6.15", false, []string{strings.Join(incomplete, "")}},
		{"6.16", false, []string{"\xfe", "\xff", "\xfe\xfe\xff\xff"}},
		{"6.17", false, []string{"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf"}},
		{"6.18", false, []string{"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf"}},
		{"6.19", false, []string{"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80", "\xfc\x80\x80\x80\x80\x80"}},
		{"6.20", false, surrogates},
		{"6.21", false, []string{"\xed\xa0\x80\xed\xb0\x80", "\xed\xa0\x80\xed\xbf\xbf", "\xed\xad\xbf\xed\xb0\x80", "\xed\xad\xbf\xed\xbf\xbf",
			"\xed\xae\x80\xed\xb0\x80", "\xed\xae\x80\xed\xbf\xbf", "\xed\xaf\xbf\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf"}},
		{"6.22", true, noncharacters()},
		{"6.23", true, []string{"\ufff9", "\ufffa", "\ufffb", "\ufffc", "\ufffd", "\ufffe", "\uffff"}},
	} {
		for i, text := range table.texts {
			cases = append(cases, textCase(numbered(table.group, i), text, table.valid))
		}
	}
	for n := 1; n <= len(kosme); n++ {
		valid := slices.Contains([]int{2, 5, 7, 9, 11}, n)
		cases = append(cases, textCase(numbered("6.6", n-1), kosme[:n], valid))
	}
	return append(cases, textCase("6.11.5", "\xf4\x90\x80\x80", false))
}

func textCase(name, text string, valid bool) conformance {
	c := conformance{name: name, pieces: whole(frame(textFrame, text)), want: texts(text)}
	if !valid {
		c.want, c.fails = nil, 1007
	}
	return c
}

func bytesBetween(first, last int, separator string) string {
	var b []byte
	for v := first; v <= last; v++ {
		b = append(append(b, byte(v)), separator...)
	}
	return string(b)
}

// noncharacters returns the last two code points of each plane.
func noncharacters() (all []string) {
	for plane := range rune(17) {
		all = append(all, string(plane<<16|0xfffe), string(plane<<16|0xffff))
	}
	return all
}

// closeHandling returns group 7, sections 1 to 5. The client must ignore what follows a
// close frame.
func closeHandling() []conformance {
	normal := closePayload(1000, "")
	bye := frame(closeFrame, normal)
	big := strings.Repeat("BAsd7&jh23", 26_000)
	longest := closePayload(1000, strings.Repeat("*", 123))
	empty := ""
	reason := closePayload(1000, "Hello World!")
	return []conformance{
		{name: "7.1.1", pieces: whole(frame(textFrame, "Hello World!")), want: texts("Hello World!")},
		{name: "7.1.2", pieces: whole(bye, bye), closes: &normal},
		{name: "7.1.3", pieces: whole(bye, frame(pingFrame, "")), closes: &normal},
		{name: "7.1.4", pieces: whole(bye, frame(textFrame, "Hello World!")), closes: &normal},
		{name: "7.1.5", pieces: whole(frame(opText, "fragment1"), bye, frame(finBit|opContinuation, "fragment2")), closes: &normal},
		{name: "7.1.6", pieces: whole(frame(textFrame, big), bye, frame(pingFrame, "")), want: texts(big), closes: &normal},
		{name: "7.3.1", pieces: whole(frame(closeFrame, "")), closes: &empty},
		{name: "7.3.2", pieces: whole(frame(closeFrame, "a")), fails: 1002},
		{name: "7.3.3", pieces: whole(bye), closes: &normal},
		{name: "7.3.4", pieces: whole(frame(closeFrame, reason)), closes: &reason},
		{name: "7.3.5", pieces: whole(frame(closeFrame, longest)), closes: &longest},
		{name: "7.3.6", pieces: whole(frame(closeFrame, longest+"*")), fails: 1002},
		{name: "7.5.1", pieces: whole(frame(closeFrame, closePayload(1000, kosme+"\xed\xa0\x80edited"))), fails: 1007},
	}
}

// closeCodes returns group 7, sections 7 to 13.
func closeCodes() (cases []conformance) {
	for i, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999} {
		answer := closePayload(code, "")
		cases = append(cases, conformance{name: numbered("7.7", i), pieces: whole(frame(closeFrame, answer)), closes: &answer})
	}
	for i, code := range []int{0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999} {
		cases = append(cases, conformance{name: numbered("7.9", i), pieces: whole(frame(closeFrame, closePayload(code, ""))), fails: 1002})
	}
	for i, code := range []int{5000, 65535} {
		cases = append(cases, conformance{name: numbered("7.13", i), pieces: whole(frame(closeFrame, closePayload(code, ""))), fails: 1002})
	}
	return cases
}

// limits returns groups 9 and 10, with smaller messages than in Autobahn.
func limits() (cases []conformance) {
	for i, size := range []int{64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20} {
		text, binary := strings.Repeat("*", size), strings.Repeat("\xfe", size)
		cases = append(cases,
			conformance{name: numbered("9.1", i), pieces: whole(frame(textFrame, text)), want: texts(text)},
			conformance{name: numbered("9.2", i), pieces: whole(frame(binaryFrame, binary)), want: binaries(binary)})
	}
	text, binary := strings.Repeat("é", 128<<10), strings.Repeat("\xfe", 256<<10)
	for i, n := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 256 << 10} {
		cases = append(cases,
			conformance{name: numbered("9.3", i), pieces: whole(fragmented(opText, text, n)...), want: texts(text)},
			conformance{name: numbered("9.4", i), pieces: whole(fragmented(opBinary, binary, n)...), want: binaries(binary)})
	}
	text, binary = strings.Repeat("é", 32<<10), strings.Repeat("\xfe", 64<<10)
	for i, n := range []int{64, 128, 256, 512, 1024, 2048} {
		cases = append(cases,
			conformance{name: numbered("9.5", i), pieces: chopped(n, frame(textFrame, text)), want: texts(text)},
			conformance{name: numbered("9.6", i), pieces: chopped(n, frame(binaryFrame, binary)), want: binaries(binary)})
	}
	for i, size := range []int{0, 16, 64, 256, 1024, 4096} {
		text, binary := strings.Repeat("*", size), strings.Repeat("\xfe", size)
		cases = append(cases,
			conformance{name: numbered("9.7", i), pieces: whole(bytes.Repeat(frame(textFrame, text), 100)), want: slices.Repeat(texts(text), 100)},
			conformance{name: numbered("9.8", i), pieces: whole(bytes.Repeat(frame(binaryFrame, binary), 100)), want: slices.Repeat(binaries(binary), 100)})
	}
	long := strings.Repeat("*", 65536)
	return append(cases, conformance{name: "10.1.1", pieces: whole(fragmented(opText, long, 1300)...), want: texts(long)})
}

// ownCases returns cases that Autobahn does not have.
func ownCases() []conformance {
	empty := bytes.Repeat(frame(opContinuation, ""), maxEmptyFrames)
	largest := strings.Repeat("*", conformanceLimit)
	many := strings.Repeat("xy", 512<<10) // quadratic if each frame copies what came before
	return []conformance{
		{name: "own: masked text", pieces: whole(masked(textFrame, "masked")), fails: 1002},
		{name: "own: masked ping", pieces: whole(frame(textFrame, "before"), masked(pingFrame, "")), want: texts("before"), fails: 1002},
		{name: "own: negative length", pieces: whole(head(binaryFrame, 1<<63)), fails: 1002},
		{name: "own: 1 TiB", pieces: whole(head(binaryFrame, 1<<40)), fails: 1009},
		{name: "own: too big by fragments", pieces: whole(frame(opBinary, "a"), head(opContinuation, conformanceLimit)), fails: 1009},
		{name: "own: too big by a byte", pieces: whole(head(binaryFrame, conformanceLimit+1)), fails: 1009},
		{name: "own: largest", pieces: whole(frame(binaryFrame, largest)), want: binaries(largest)},
		{name: "own: largest by fragments", pieces: whole(frame(opBinary, largest[:1]), frame(finBit|opContinuation, largest[1:])), want: binaries(largest)},
		{name: "own: text cut in a character", pieces: whole(frame(opText, "caf"), frame(finBit|opContinuation, "\xc3")), fails: 1007},
		{name: "own: empty continuations", pieces: whole(frame(opText, ""), empty), fails: 1002},
		{name: "own: empty continuations, one less", pieces: whole(frame(opText, "a"), empty[2:], frame(finBit|opContinuation, "b")), want: texts("ab")},
		{name: "own: many small frames", pieces: whole(fragmented(opBinary, many, 2)...), want: binaries(many)},
		{name: "own: data and then a violation", pieces: whole(frame(textFrame, "before"), frame(textFrame, "\xff")), want: texts("before"), fails: 1007},
		{name: "own: bytes after a violation", pieces: append(whole(frame(finBit|3, "")), make([]byte, 256<<10)), fails: 1002},
	}
}

const (
	conformanceLimit = 4 << 20 // read limit of the clients
	compressFrom     = 64      // Config.CompressFrom of the clients
)

// way is a kind of connection between client and server, with or without borrowing.
type way struct {
	name    string
	connect func(t *testing.T) (client, server net.Conn)
	borrow  bool
}

var ways = []way{
	{"network", loopback, false},
	{"network, borrowed", loopback, true},
	{"pieces, borrowed", pieces, true},
	{"pieces", pieces, false},
}

// wayOf returns the way for case n if it runs only once.
func wayOf(n int) way { return ways[n%len(ways)] }

// waysOf returns all ways for case n, or two of them if its messages are large.
func waysOf(n int, c conformance) []way {
	size := 0
	for _, m := range c.want {
		size += len(m.data)
	}
	if size > 64<<10 {
		return []way{wayOf(n), wayOf(n + 2)}
	}
	return ways
}

// loopback returns a TCP connection on the loopback interface.
func loopback(t *testing.T) (client, server net.Conn) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	client, err = net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// pieces returns a connection without a buffer: no read returns more than one piece.
func pieces(*testing.T) (client, server net.Conn) { return net.Pipe() }

// start runs the case in parallel with others.
func (c conformance) start(t *testing.T, ways ...way) {
	t.Run(c.name, func(t *testing.T) {
		t.Parallel()
		c.run(t, ways...)
	})
}

// run runs client and server in each of the ways.
func (c conformance) run(t *testing.T, ways ...way) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			client, server := w.connect(t)
			echoed := startEcho(t, client, c.extension, w.borrow)
			c.serve(t, server)
			c.checkClient(t, <-echoed)
		})
	}
}

// echoer is the client's application.
type echoer struct {
	conn  *Conn
	owner *owner

	got    []Message
	end    error
	closed bool // CloseSent after Close
}

// startEcho starts a client, and sends it on the channel when its connection has ended.
func startEcho(t *testing.T, transport net.Conn, extension string, borrow bool) <-chan *echoer {
	e := new(echoer)
	e.conn, e.owner = start(t, setting{conformanceLimit, extension, borrow}, transport)
	e.conn.config.CompressFrom = compressFrom
	ended := make(chan *echoer, 1)
	go func() {
		e.echo(t)
		ended <- e
	}()
	return ended
}

// echo reads and echoes until the connection ends.
func (e *echoer) echo(t *testing.T) {
	for {
		var burst []Message
		if burst, e.end = next(e.conn); e.end != nil {
			break
		}
		checkBurst(t, burst)
		e.keep(burst)
		e.send(burst)
	}
	e.conn.Close()
	e.closed = e.conn.CloseSent()
	e.conn.Kill()
	e.owner.join()
	e.conn.Release()
}

// keep keeps messages. Those that are not borrowed are not copied, since they must not
// change later.
func (e *echoer) keep(burst []Message) {
	for _, m := range burst {
		if borrows(e.conn) {
			m.Data = bytes.Clone(m.Data)
		}
		e.got = append(e.got, m)
	}
}

// send echoes a burst. The server checks whether it arrives.
func (e *echoer) send(burst []Message) {
	out := make([]Outgoing, len(burst))
	for i, m := range burst {
		out[i] = Outgoing{Type: m.Type, Data: m.Data}
	}
	if len(out) == 1 {
		_ = e.conn.Write(&out[0])
	} else {
		_ = e.conn.WriteAll(len(out), func(i int) *Outgoing { return &out[i] })
	}
	_ = e.conn.Flush()
}

// checkClient checks what the application got.
func (c conformance) checkClient(t *testing.T, e *echoer) {
	t.Helper()
	if !are(e.got, c.want) {
		t.Errorf("the application got %v, want %v", copies(e.got), c.want)
	}
	if n := e.conn.config.Counters.MessagesIn.Load(); n != uint64(len(c.want)) {
		t.Errorf("%d messages were counted, want %d", n, len(c.want))
	}
	if n := e.owner.stalls.Load(); n != 0 {
		t.Errorf("%d writes stalled", n)
	}
	if !e.closed {
		t.Errorf("no close frame was sent: %v", e.end)
	}
	if c.fails != 0 {
		var violation *Violation
		if !errors.As(e.end, &violation) || violation.Code != c.fails {
			t.Errorf("reading ended with %v, want a violation with code %d", e.end, c.fails)
		}
		return
	}
	want := Closed{Code: 1000}
	if c.closes != nil {
		want = Closed{Code: 1005}
		if payload := *c.closes; payload != "" {
			want = Closed{int(binary.BigEndian.Uint16([]byte(payload))), payload[2:]}
		}
	}
	var closed *Closed
	if !errors.As(e.end, &closed) || *closed != want {
		t.Errorf("reading ended with %v, want %v", e.end, &want)
	}
}

// patience bounds a case, far above what any takes.
const patience = 20 * time.Second

// serve is the server's side of the case.
func (c conformance) serve(t *testing.T, conn net.Conn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	p := &peer{in: bufio.NewReader(conn), inflater: echoInflater{agreed: c.extension}, echoed: make(chan struct{}, len(c.want))}
	var writing sync.WaitGroup
	defer writing.Wait()
	writing.Go(func() { c.write(conn, p.echoed) })

	expectsMore := func() bool { return len(p.echoes) < len(c.want) || len(p.pongs) < len(c.pongs) }
	if c.fails == 0 && c.closes == nil {
		for expectsMore() && p.err == nil && p.closed == nil {
			p.read()
		}
		close(p.echoed)
		writing.Wait()
		_, _ = conn.Write(frame(closeFrame, closePayload(1000, "")))
	}
	for p.err == nil && p.closed == nil {
		p.read()
	}
	c.checkPeer(t, p)
	if n, err := p.in.Read(make([]byte, 1)); p.closed != nil && (n != 0 || err != io.EOF) {
		t.Errorf("after the close frame: %d bytes, %v", n, err)
	}
}

// write sends the pieces. An error shows in what the client sends, or does not send.
func (c conformance) write(conn net.Conn, echoed <-chan struct{}) {
	for _, piece := range c.pieces {
		if _, err := conn.Write(piece); err != nil {
			return
		}
		if c.lockstep {
			<-echoed
		}
	}
}

// are compares without a copy, which is expensive with the race detector.
func are(got []Message, want []message) bool {
	return slices.EqualFunc(got, want, func(m Message, want message) bool {
		return m.Type == want.typ && string(m.Data) == want.data
	})
}

// checkPeer checks what the client sent. Echoes may be missing after a violation or a
// close frame of the server.
func (c conformance) checkPeer(t *testing.T, p *peer) {
	t.Helper()
	echoes := c.want
	if c.fails != 0 || c.closes != nil {
		echoes = echoes[:min(len(echoes), len(p.echoes))]
	}
	if !are(p.echoes, echoes) {
		t.Errorf("echoed %v, want %v", copies(p.echoes), echoes)
	}
	if !slices.Equal(p.pongs, c.pongs) {
		t.Errorf("got the pongs %q, want %q", p.pongs, c.pongs)
	}
	switch want := closePayload(1000, ""); {
	case p.closed == nil:
		t.Errorf("no close frame: %v", p.err)
	case c.fails != 0:
		if !strings.HasPrefix(*p.closed, closePayload(c.fails, "")) {
			t.Errorf("close frame %q, want code %d", *p.closed, c.fails)
		}
	default:
		if c.closes != nil {
			want = *c.closes
		}
		if *p.closed != want {
			t.Errorf("close frame %q, want %q", *p.closed, want)
		}
	}
}

// peer is the server's reader of what the client sends.
type peer struct {
	in       *bufio.Reader
	inflater echoInflater

	echoes []Message
	echoed chan struct{}
	pongs  []string
	closed *string // the payload of the close frame
	err    error
}

func (p *peer) read() {
	first, payload, err := readClientFrame(p.in)
	if err != nil {
		p.err = err
		return
	}
	switch first {
	case textFrame, binaryFrame:
		p.err = p.inflater.plain(payload)
		p.echo(first, payload)
	case rsv1Bit | textFrame, rsv1Bit | binaryFrame:
		payload, p.err = p.inflater.inflate(payload)
		p.echo(first, payload)
	case pongFrame:
		p.pongs = append(p.pongs, string(payload))
	case closeFrame:
		body := string(payload)
		p.closed = &body
	default:
		p.err = fmt.Errorf("unexpected frame %#x", first)
	}
}

func (p *peer) echo(first byte, payload []byte) {
	p.echoes = append(p.echoes, Message{Type(first & 0xF), payload})
	if len(p.echoes) <= cap(p.echoed) { // otherwise the client sends too many
		p.echoed <- struct{}{}
	}
}

// readClientFrame reads a frame as a server must (RFC 6455, section 5.2).
func readClientFrame(in *bufio.Reader) (first byte, payload []byte, err error) {
	head := make([]byte, maxHeader)
	if _, err := io.ReadFull(in, head[:2]); err != nil {
		return 0, nil, err
	}
	length, extended := uint64(head[1]&0x7F), 0
	switch length {
	case 126:
		extended = 2
	case 127:
		extended = 8
	}
	if _, err := io.ReadFull(in, head[2:2+extended+4]); err != nil {
		return 0, nil, err
	}
	switch extended {
	case 2:
		length = uint64(binary.BigEndian.Uint16(head[2:]))
	case 8:
		length = binary.BigEndian.Uint64(head[2:])
	}
	minimal := extended == 0 || extended == 2 && length > 125 || extended == 8 && length > 0xFFFF
	if head[1]&0x80 == 0 || !minimal || length > 2*conformanceLimit {
		return 0, nil, fmt.Errorf("bad frame header % x", head)
	}
	key := head[2+extended : 2+extended+4]
	payload = make([]byte, length)
	_, err = io.ReadFull(in, payload)
	unmask := bytes.Repeat(key, 1<<10)
	for part := range slices.Chunk(payload, len(unmask)) {
		subtle.XORBytes(part, part, unmask)
	}
	return head[0], payload, err
}
