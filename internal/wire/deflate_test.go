package wire

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
)

// written returns the frames that a Conn writes for messages. It compresses those of at
// least from bytes.
func written(t testing.TB, extension string, from int, messages ...message) []sentFrame {
	t.Helper()
	src := &script{end: errEnd}
	c, o := start(t, setting{limit: 1, extension: extension}, src)
	c.config.CompressFrom = int32(from)
	place := uint64(0)
	for _, m := range messages {
		out := Outgoing{Type: m.typ, Data: []byte(m.data)}
		if err := c.Write(&out); err != nil {
			t.Fatal(err)
		}
		if out.start != place || out.end <= place {
			t.Errorf("a message of %d bytes has the position %d to %d, want it to start at %d", len(m.data), out.start, out.end, place)
		}
		if string(out.Data) != m.data {
			t.Errorf("a message of %d bytes was changed", len(m.data))
		}
		place = out.end
	}
	if err := c.Flush(); err != nil {
		t.Error(err)
	}
	if got := c.Taken(); got != place || len(src.written()) != int(place) {
		t.Errorf("the network accepted %d bytes, Taken returns %d, and the last message ends at %d", len(src.written()), got, place)
	}
	finish(c, o)
	return sentFrames(t, src.written())
}

// readFrames returns the messages in frames, and which of them were compressed.
func readFrames(t testing.TB, frames []sentFrame) (messages []message, compressed []bool) {
	t.Helper()
	for _, f := range frames {
		deflated := f.first&rsv1Bit != 0
		if deflated {
			f.payload = inflated(t, f.payload)
		}
		messages = append(messages, message{Type(f.first &^ (finBit | rsv1Bit)), f.payload})
		compressed = append(compressed, deflated)
	}
	return messages, compressed
}

// TestDeflate checks that messages can be decompressed independently, and that exactly
// those are compressed that become smaller.
func TestDeflate(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	var sent []message
	for range 100 {
		size := random.IntN(1 << random.IntN(18))
		sent = append(sent, message{Text, words(random, size)}, message{Binary, string(randomBytes(random, size))}, message{Text, words(random, 200)})
	}
	sent = append(sent, message{Text, ""}, message{Binary, "\x00"}, message{Binary, strings.Repeat("\x00", 1<<20)})
	for _, extension := range []string{extension, extension + serverFresh, extension + clientFresh, extension + clientBits + "15", extension + serverBits + "8"} {
		for _, from := range []int{0, 1, 200, 1000} {
			got, compressed := readFrames(t, written(t, extension, from, sent...))
			if !slices.Equal(got, sent) {
				t.Fatalf("%s, from %d bytes: the frames hold other messages", extension, from)
			}
			for i, m := range sent {
				want := len(m.data) >= from && len(deflatedBy(flate.BestSpeed, m.data)) < len(m.data)
				if compressed[i] != want {
					t.Errorf("%s, from %d bytes: a message of %d bytes was compressed: %t", extension, from, len(m.data), compressed[i])
				}
			}
		}
	}
}

// TestDeflateThreshold checks that a message of exactly CompressFrom bytes is compressed,
// and none if the extension was not negotiated.
func TestDeflateThreshold(t *testing.T) {
	for d := -1; d <= 1; d++ {
		frames := written(t, extension, 100, message{Text, strings.Repeat("x", 100+d)})
		if got, want := frames[0].first, byte(textFrame); (got == want) != (d < 0) {
			t.Errorf("%d bytes: first byte %#x", 100+d, got)
		}
	}
	for _, m := range []message{{Text, strings.Repeat("x", 1000)}, {Binary, strings.Repeat("x", 1000)}} {
		if frames := written(t, "", 0, m); frames[0] != (sentFrame{finBit | byte(m.typ), m.data}) {
			t.Errorf("not negotiated: sent %v", frames)
		}
	}
}

// TestDeflateWindow checks that a message is compressed only if it fits into the window
// that the server asked for, or if that is the largest window.
func TestDeflateWindow(t *testing.T) {
	random := rand.New(rand.NewPCG(2, 2))
	for bits := minBits; bits <= maxBits; bits++ {
		window := 1 << bits
		block := string(randomBytes(random, window-16))
		text := block + block[:17] // one byte more than the window
		sent := []message{{Binary, text[:window]}, {Binary, text}, {Binary, strings.Repeat("x", window)}, {Binary, strings.Repeat("x", window+1)}}
		got, compressed := readFrames(t, written(t, fmt.Sprint(extension, clientBits, bits), 0, sent...))
		if !slices.Equal(got, sent) {
			t.Errorf("%d bits: the frames hold other messages", bits)
		}
		if !compressed[2] || compressed[3] != (bits == maxBits) {
			t.Errorf("%d bits: compressed: %v", bits, compressed)
		}
		if compressed[1] && bits < maxBits {
			t.Errorf("%d bits: a message longer than the window was compressed", bits)
		}
	}
}

// TestDeflateWithoutGain checks that a message is sent uncompressed if compression saves
// nothing, and compressed if it saves a single byte.
func TestDeflateWithoutGain(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 3))
	z := compressors.New().(*compressor)
	gain := 0
	for range 1_000_000 {
		data := string(randomBytes(random, 1+random.IntN(60))) + strings.Repeat("x", random.IntN(30))
		if len(z.compress([]byte(data))) != len(data)-gain {
			continue
		}
		frames := written(t, extension, 0, message{Binary, data})
		if plain := frames[0] == (sentFrame{binaryFrame, data}); plain != (gain == 0) {
			t.Errorf("%q: sent %v", data, frames)
		}
		if gain++; gain > 1 {
			return
		}
	}
	t.Errorf("found no message for which compression saves %d bytes", gain)
}

// TestDeflateNeverRefersBack checks that the compressed form of a message does not depend
// on earlier messages.
func TestDeflateNeverRefersBack(t *testing.T) {
	text := message{Text, strings.Repeat("the same again ", 10)}
	frames := written(t, extension, 0, text, text, message{Binary, strings.Repeat("other", 20_000)}, text)
	for _, i := range []int{1, 3} {
		if frames[i] != frames[0] {
			t.Errorf("message %d was sent as %v, want %v as the first time", i, frames[i], frames[0])
		}
	}
}

// TestDeflateConcurrently has several connections share the pool of compressors.
func TestDeflateConcurrently(t *testing.T) {
	var running sync.WaitGroup
	for n := range uint64(8) {
		running.Go(func() {
			random := rand.New(rand.NewPCG(4, n))
			for range 20 {
				var sent []message
				for range random.IntN(10) {
					sent = append(sent, message{Text, words(random, random.IntN(5000))})
				}
				if got, _ := readFrames(t, written(t, extension, 64, sent...)); !slices.Equal(got, sent) {
					t.Error("the frames hold other messages")
				}
			}
		})
	}
	running.Wait()
}

// TestDeflateInOneConnection has several goroutines write to the same connection, and
// finds each message by its position in the stream.
func TestDeflateInOneConnection(t *testing.T) {
	src := &script{end: errEnd}
	c, o := start(t, setting{limit: 1, extension: extension}, src)
	const writers, each = 4, 50
	out := make([]Outgoing, writers*each)
	var running sync.WaitGroup
	for n := range writers {
		running.Go(func() {
			random := rand.New(rand.NewPCG(5, uint64(n)))
			for i := n * each; i < (n+1)*each; i++ {
				out[i] = Outgoing{Type: Text, Data: []byte(words(random, random.IntN(3000)))}
				if err := c.Write(&out[i]); err != nil {
					t.Error(err)
				}
				if i%7 == 0 {
					_ = c.Flush()
				}
			}
		})
	}
	running.Wait()
	_ = c.Flush()
	stream := src.written()
	for i := range out {
		m := &out[i]
		got, _ := readFrames(t, sentFrames(t, stream[m.start:m.end]))
		if !slices.Equal(got, []message{{Text, string(m.Data)}}) {
			t.Errorf("at %d to %d: got %v", m.start, m.end, got)
		}
	}
	finish(c, o)
}

// TestDeflateMemory checks that the buffer for a large message does not stay in the pool.
func TestDeflateMemory(t *testing.T) {
	for size, kept := range map[int]bool{1: true, maxScratch: true, maxScratch + 1: false} {
		z := compressors.New().(*compressor)
		z.out = make([]byte, 0, size)
		z.recycle()
		if (z.out != nil) != kept {
			t.Errorf("a buffer of %d bytes: %d are kept", size, cap(z.out))
		}
	}
}

// TestDeflateWithServer exchanges compressed messages with a coder/websocket server.
func TestDeflateWithServer(t *testing.T) {
	for _, mode := range []websocket.CompressionMode{websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover} {
		for _, takeover := range []bool{true, false} {
			t.Run(fmt.Sprint(mode, takeover), func(t *testing.T) { echoedByServer(t, mode, takeover) })
		}
	}
}

func echoedByServer(t *testing.T, mode websocket.CompressionMode, takeover bool) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: mode, CompressionThreshold: 1})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 << 20)
		for err == nil {
			var typ websocket.MessageType
			var data []byte
			if typ, data, err = conn.Read(context.Background()); err == nil {
				err = conn.Write(context.Background(), typ, data)
			}
		}
		if websocket.CloseStatus(err) != websocket.StatusNormalClosure {
			t.Errorf("the server's read returned %v", err)
		}
	})
	server := httptest.NewServer(echo)
	defer server.Close()
	transport, deflate := upgraded(t, server.Listener.Addr().String(), Offer(takeover))
	if !deflate.On || !takeover && deflate.ServerTakeover {
		t.Errorf("negotiated %+v", deflate)
	}

	random := rand.New(rand.NewPCG(6, 6))
	var sent []message
	for range 100 {
		sent = append(sent, message{Text, words(random, random.IntN(20_000))}, message{Binary, string(randomBytes(random, random.IntN(3000)))})
	}
	config := &Config{ReadLimit: 1 << 20, WriteTimeout: writeTimeout, CloseTimeout: closeTimeout, CompressFrom: 64, Counters: new(Counters)}
	c, o := new(Conn), new(owner)
	c.Start(transport, nil, deflate, config, o)
	o.Go(func() {
		for _, m := range sent {
			if err := c.Write(&Outgoing{Type: m.typ, Data: []byte(m.data)}); err != nil {
				t.Error(err)
			}
			_ = c.Flush()
		}
		c.SendClose(1000, "")
	})
	got, err := readAll(t, c)
	if messages := got(); !slices.Equal(messages, sent) || endOf(err) != endClosed(1000, "") {
		t.Errorf("%d of %d messages came back, or others, then %v", len(messages), len(sent), err)
	}
	finish(c, o)
}

// upgraded does the opening handshake with the server at address.
func upgraded(t *testing.T, address, offer string) (io.ReadWriteCloser, Deflate) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var request bytes.Buffer
	fmt.Fprintf(&request, "GET / HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", address)
	fmt.Fprintf(&request, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: %s\r\n\r\n", offer)
	if _, err := conn.Write(request.Bytes()); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	response, err := http.ReadResponse(in, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %v, %v", response, err)
	}
	deflate, err := Accept(response.Header.Values("Sec-WebSocket-Extensions"), true)
	if err != nil {
		t.Fatal(err)
	}
	return struct {
		io.Reader
		io.WriteCloser
	}{in, conn}, deflate
}
