package faults

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"

	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// pushedCompressed starts a session with compression, in which the server sends raw.
func pushedCompressed(t *testing.T, takeover bool, raw []byte, test func(r *rig.Client, c *resocktest.Conn)) {
	t.Helper()
	extension := "permessage-deflate; client_no_context_takeover"
	if !takeover {
		extension += "; server_no_context_takeover"
	}
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Upgrade(http.Header{"Sec-Websocket-Extensions": {extension}}, func(c *resocktest.Conn) { _ = c.Raw(raw) }))
		r := rig.Reaching(t, s, resock.WithCompression(websocket.CompressionContextTakeover))
		c := s.Accept()
		r.Open()
		test(r, c)
	})
}

// deflated returns the frame of a text message with a compressed payload.
func deflated(payload []byte) []byte { return resocktest.Frame(rig.Fin|rig.RSV1|rig.Text, payload) }

// A server may end a message with a final block (RFC 7692, section 7.2.3.4), or have
// final blocks within it. The compression context must survive them.
func TestFault65_FinalBlock(t *testing.T) {
	final := func(text string) []byte { return rig.Deflate([]byte(text), true) }
	more := func(text string) []byte { return rig.Deflate([]byte(text), false) }
	for name, tt := range map[string]struct {
		payload []byte
		message string
	}{
		"at the end":              {final("hello"), "hello"},
		"with an empty one after": {append(final("hello"), 0), "hello"},
		"in the middle":           {slices.Concat(final("hel"), more("lo")), "hello"},
		"twice":                   {slices.Concat(final("he"), final("l"), more("lo")), "hello"},
		"of nothing":              {final(""), ""},
	} {
		for _, takeover := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", takeover ", takeover), func(t *testing.T) {
				raw := slices.Concat(deflated(tt.payload), deflated(more("compressed")), resocktest.Frame(rig.Fin|rig.Text, []byte("plain")))
				pushedCompressed(t, takeover, raw, func(r *rig.Client, _ *resocktest.Conn) {
					r.Message(tt.message)
					r.Message("compressed")
					r.Message("plain")
				})
			})
		}
	}
	t.Run("the context survives", func(t *testing.T) {
		const line = "a line that is long enough to be worth a reference"
		var b bytes.Buffer
		w, err := flate.NewWriterDict(&b, flate.BestCompression, []byte(line))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = w.Write([]byte(line))
		_ = w.Flush()
		again := bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
		if len(again) > 15 {
			t.Fatalf("% x does not refer to the context", again)
		}
		pushedCompressed(t, true, slices.Concat(deflated(final(line)), deflated(again)), func(r *rig.Client, _ *resocktest.Conn) {
			r.Message(line)
			r.Message(line)
		})
	})
}

// A truncated payload is not a message, and what follows a complete one in its frame is
// not taken for a frame: either would let a broken server inject messages.
func TestFault66_TruncatedDeflate(t *testing.T) {
	whole := rig.Deflate([]byte(strings.Repeat("the quick brown fox ", 10)), false)
	reject := func(name string, payload []byte) {
		t.Helper()
		for _, takeover := range []bool{true, false} {
			t.Run(fmt.Sprint(name, ", takeover ", takeover), func(t *testing.T) {
				raw := slices.Concat(deflated(payload), resocktest.Frame(rig.Fin|rig.Text, []byte("next")))
				pushedCompressed(t, takeover, raw, func(r *rig.Client, c *resocktest.Conn) {
					r.ProtocolError(websocket.StatusInvalidFramePayloadData)
					<-c.Done()
					if closed := c.Received().Close; closed == nil || closed.Code != websocket.StatusInvalidFramePayloadData {
						t.Errorf("the server received the close frame %+v, want code 1007", closed)
					}
				})
			})
		}
	}
	for n := 1; n < len(whole); n++ {
		reject(fmt.Sprintf("%d of %d bytes", n, len(whole)), whole[:n])
	}
	frame := resocktest.Frame(rig.Fin|rig.Text, []byte("a frame?"))
	reject("a frame after a final block", append(rig.Deflate([]byte("hello"), true), frame...))
	reject("a frame after a block", append(slices.Clone(whole), frame...))
}

// slowConn is a connection whose writes take a while.
type slowConn struct {
	net.Conn
	takes time.Duration
}

func (c slowConn) Write(p []byte) (int, error) {
	time.Sleep(c.takes)
	return c.Conn.Write(p)
}

func TestFault73_BothSidesClose(t *testing.T) {
	const takes = 100 * time.Millisecond
	for _, early := range []time.Duration{0, takes / 2, takes, takes + takes/2} { // how long before the server we close
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r := rig.Reaching(t, s, rig.ReachBy(s, func(conn net.Conn) net.Conn { return slowConn{conn, takes} }))
			c := s.Accept()
			r.Open()
			_ = r.Close(resock.StatusNormalClosure, "ours")
			time.Sleep(early)
			_ = c.Close(resock.StatusGoingAway, "theirs")
			e := r.Next().(resock.CloseEvent)
			ours := e.Code == resock.StatusNormalClosure && e.Reason == "ours" // the server answered before it closed by itself
			if !e.Clean || !ours && (e.Code != resock.StatusGoingAway || e.Reason != "theirs") {
				t.Errorf("%v early: got %+v, want a clean close with either close frame", early, e)
			}
			<-c.Done()
			if got := c.Received().Close; got == nil || got.Code != resock.StatusNormalClosure && got.Code != resock.StatusGoingAway {
				t.Errorf("%v early: the server received the close frame %+v, want code 1000 or 1001", early, got)
			}
		})
	}
}

func TestFault74_UnexpectedPongs(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(10*time.Second, time.Minute))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		pings := func(n int) []resocktest.Control {
			for len(c.Received().Pings) < n {
				time.Sleep(10 * time.Millisecond)
			}
			return c.Received().Pings
		}
		roundTrip := func(pong string, want time.Duration) {
			t.Helper()
			_ = c.Pong(pong)
			synctest.Wait()
			if got := r.Stats().RoundTrip; got.Truncate(time.Millisecond) != want.Truncate(time.Millisecond) {
				t.Errorf("round trip after the pong %q: got %v, want %v", pong, got, want)
			}
		}
		roundTrip("", 0)
		roundTrip("0123", 0)
		first := string(pings(1)[0].Payload)
		time.Sleep(2 * time.Second)
		roundTrip("unsolicited", 0)
		took := time.Since(pings(1)[0].Time)
		roundTrip(first, took)
		time.Sleep(time.Second)
		roundTrip(first, took) // repeated
		late, last := pings(3)[1], pings(3)[2]
		time.Sleep(time.Second)
		roundTrip(string(late.Payload), time.Since(late.Time)) // later than the next ping
		roundTrip(string(last.Payload), time.Since(last.Time))
	})
}

func TestFault75_NonMinimalLengths(t *testing.T) {
	long := func(first byte, length byte) []byte {
		return append([]byte{first, 126, 0, length}, make([]byte, length)...)
	}
	longer := func(first byte, length uint16) []byte {
		head := binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(length))
		return append(head, make([]byte, length)...)
	}
	for name, raw := range map[string][]byte{
		"a message of 125 bytes":   long(rig.Fin|rig.Binary, 125),
		"a message of none":        long(rig.Fin|rig.Binary, 0),
		"a message of 65535 bytes": longer(rig.Fin|rig.Binary, 65535),
		"a short message in 10":    longer(rig.Fin|rig.Text, 5),
		"a fragment":               long(2, 7),
		"a continuation":           slices.Concat(resocktest.Frame(2, nil), long(rig.Fin, 7)),
		"a ping":                   long(rig.Fin|9, 5),
		"a pong":                   longer(rig.Fin|10, 0),
		"a close frame":            append([]byte{rig.Fin | 8, 126, 0, 2}, 0x03, 0xe8),
	} {
		t.Run(name, func(t *testing.T) { rig.Violation(t, resock.StatusProtocolError, raw) })
	}
}

func TestFault76_LargeMessageIsReleased(t *testing.T) {
	const size = 48 << 20
	for name, large := range map[string][]byte{
		"in one frame": resocktest.Frame(rig.Fin|rig.Binary, make([]byte, size)),
		"in two":       slices.Concat(resocktest.Frame(2, make([]byte, size/2)), resocktest.Frame(rig.Fin, make([]byte, size/2))),
		"compressed":   resocktest.Frame(rig.Fin|rig.RSV1|2, rig.Deflate(make([]byte, size), false)),
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Script(rig.Compressed(nil))
				sizes := make(chan int, 100)
				r := rig.Reaching(t, s, resock.WithReadLimit(size), resock.WithCompression(websocket.CompressionNoContextTakeover),
					resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) { sizes <- len(m.Data) }))
				c := s.Accept()
				r.Open()
				before := rig.Heap()
				_ = c.Raw(large)
				if got := <-sizes; got != size {
					t.Errorf("got a message of %d bytes, want %d", got, size)
				}
				for range 3 {
					_ = c.Push("small")
					<-sizes
					synctest.Wait()
				}
				rig.Heap() // a sync.Pool keeps its items for one more collection
				if grown := rig.Heap() - before; grown > 1<<20 {
					t.Errorf("%d KiB are still in use, want at most 1024", grown>>10)
				}
			})
		})
	}
}

// Everything after the first response is read as frames: the H of a second response is
// the first byte of a fragmented close frame, which no server may send.
func TestFault93_SecondResponse(t *testing.T) {
	receive := func(ctx context.Context, session *resock.Session) error {
		_, _, err := session.Receive(ctx)
		return err
	}
	for name, pieces := range map[string]func(response []byte) [][]byte{
		"in one segment": func(response []byte) [][]byte { return [][]byte{slices.Concat(response, response)} },
		"later":          func(response []byte) [][]byte { return [][]byte{response, response} },
		"byte by byte": func(response []byte) [][]byte {
			return slices.Collect(slices.Chunk(slices.Concat(response, response), 1))
		},
	} {
		for hook, opts := range map[string][]resock.Option{
			"without OnOpen":          nil,
			"OnOpen does not receive": {resock.WithOnOpen(func(context.Context, *resock.Session) error { return nil })},
			"OnOpen receives":         {resock.WithOnOpen(receive)},
		} {
			t.Run(name+", "+hook, func(t *testing.T) {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					sent := make(chan []byte, 1)
					s.Script(resocktest.Answer(func(conn net.Conn, request *http.Request) {
						for _, piece := range pieces(rig.Upgraded(request)) {
							_, _ = conn.Write(piece)
							time.Sleep(time.Millisecond)
						}
						frames, _ := io.ReadAll(conn)
						sent <- frames
					}))
					r := rig.Reaching(t, s, opts...)
					if hook != "OnOpen receives" {
						r.Open()
					}
					fail := r.ProtocolError(resock.StatusProtocolError)
					if fail.Next != resock.StateWaiting || fail.Took > time.Second {
						t.Errorf("got %+v, want a retry within 1s", fail)
					}
					if frames := <-sent; closeCode(frames) != resock.StatusProtocolError {
						t.Errorf("the server received % x, want a close frame with code 1002", frames)
					}
					if in := r.Stats().MessagesIn; in != 0 {
						t.Errorf("MessagesIn is %d, want 0", in)
					}
				})
			})
		}
	}
}

// closeCode returns the code of raw if that is exactly one close frame of a client, and
// 0 otherwise.
func closeCode(raw []byte) resock.StatusCode {
	const mask = 0x80
	if len(raw) < 8 || raw[0] != rig.Fin|8 || int(raw[1]) != mask|len(raw)-6 {
		return 0
	}
	return resock.StatusCode(binary.BigEndian.Uint16([]byte{raw[6] ^ raw[2], raw[7] ^ raw[3]}))
}
