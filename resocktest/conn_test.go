package resocktest

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
)

// pair returns both sides of a new connection.
func pair(t *testing.T, s *Server) (*websocket.Conn, *Conn) {
	t.Helper()
	conn := dial(t, s)
	return conn, s.Accept()
}

func TestMessages(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		conn.SetReadLimit(-1)
		wantEqual(t, c.Request().Header.Get("Upgrade"), "websocket")
		for _, size := range []int{0, 1, 125, 126, 65535, 65536, 200_000} {
			text := strings.Repeat("x", size)
			sent := make(chan error, 1)
			go func() { sent <- conn.Write(context.Background(), websocket.MessageText, []byte(text)) }()
			message, err := c.Read()
			if err != nil || string(message.Data) != text || message.Type != websocket.MessageText {
				t.Fatalf("%d bytes: got %d, error %v", size, len(message.Data), err)
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			go func() { sent <- c.PushBinary([]byte(text)) }()
			wantEqual(t, read(t, conn), text)
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
		wantEqual(t, len(c.Received().Messages), 7)
	})
}

func TestFragments(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		w, err := conn.Writer(context.Background(), websocket.MessageText)
		if err != nil {
			t.Fatal(err)
		}
		part := strings.Repeat("y", 5000) // more than coder/websocket's buffer
		for range 3 {
			if _, err := io.WriteString(w, part); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		message, err := c.Read()
		wantEqual(t, err, nil)
		wantEqual(t, string(message.Data), part+part+part)
	})
}

func TestPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory(t)
		conn, c := pair(t, s)
		ctx := conn.CloseRead(context.Background())
		if err := conn.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		c.IgnorePings()
		ignored, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		wantError(t, conn.Ping(ignored), context.DeadlineExceeded)
		c.AnswerPings()
		if err := conn.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.Ping("are you there"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		received := c.Received()
		wantEqual(t, len(received.Pings), 3)
		wantEqual(t, received.Pings[2].Time.Sub(received.Pings[0].Time), time.Minute)
		wantEqual(t, len(received.Pongs), 1)
		wantEqual(t, string(received.Pongs[0].Payload), "are you there")
	})
}

func TestClientCloses(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		if err := conn.Close(4001, "bye"); err != nil {
			t.Fatal(err)
		}
		<-c.Done()
		received := c.Received()
		wantEqual(t, received.Err, nil)
		wantEqual(t, received.Close.Code, 4001)
		wantEqual(t, received.Close.Reason, "bye")
	})
}

func TestServerCloses(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		if err := c.Close(websocket.StatusServiceRestart, "soon back"); err != nil {
			t.Fatal(err)
		}
		var closed websocket.CloseError
		_, _, err := conn.Read(context.Background())
		if !errors.As(err, &closed) || closed.Code != websocket.StatusServiceRestart || closed.Reason != "soon back" {
			t.Errorf("got error %v", err)
		}
		<-c.Done()
		wantEqual(t, c.Received().Err, nil)
		wantError(t, c.Push("late"), net.ErrClosed)
	})
}

func TestIllegalClose(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		if err := c.Close(1005, ""); err != nil {
			t.Fatal(err)
		}
		if _, _, err := conn.Read(context.Background()); err == nil {
			t.Error("close code 1005 was accepted")
		}
		<-c.Done()
		wantEqual(t, c.Received().Close.Code, websocket.StatusProtocolError)
	})
}

func TestIgnoreClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory(t)
		conn, c := pair(t, s)
		c.IgnoreClose()
		start := time.Now()
		if err := conn.Close(websocket.StatusNormalClosure, ""); err == nil {
			t.Error("the closing handshake succeeded")
		}
		wantEqual(t, time.Since(start), 5*time.Second) // coder/websocket's timeout
		<-c.Done()
		wantEqual(t, c.Received().Close.Code, websocket.StatusNormalClosure)
		wantEqual(t, c.Received().Err, io.EOF)
	})
}

func TestClientDrops(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		_ = conn.CloseNow()
		_, err := c.Read()
		wantError(t, err, io.EOF)
		wantEqual(t, c.Received().Err, io.EOF)
	})
}

func TestRawFrames(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		fragments := append(Frame(0x01, []byte("hel")), Frame(0x80, []byte("lo"))...)
		if err := c.Raw(append(fragments, Frame(0xC1, []byte("reserved bit"))...)); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, read(t, conn), "hello")
		if _, _, err := conn.Read(context.Background()); err == nil {
			t.Error("a reserved bit was accepted")
		}
		<-c.Done()
		wantEqual(t, c.Received().Close.Code, websocket.StatusProtocolError)
	})
}

func TestDropAndReset(t *testing.T) {
	for name, cut := range map[string]func(*Conn){"drop": (*Conn).Drop, "reset": (*Conn).Reset} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, s *Server) {
				conn, c := pair(t, s)
				if err := c.Raw(Frame(finBit|opText, []byte("cut"))[:4]); err != nil {
					t.Fatal(err)
				}
				_, r, err := conn.Reader(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				var half [2]byte
				if _, err := io.ReadFull(r, half[:]); err != nil {
					t.Fatal(err)
				}
				cut(c)
				_, _, err = conn.Read(context.Background())
				if reset := errors.Is(err, syscall.ECONNRESET); reset != (name == "reset") {
					t.Errorf("got error %v", err)
				}
				wantEqual(t, c.Received().Err, net.ErrClosed)
			})
		})
	}
}

func TestCutAfter(t *testing.T) {
	for _, s := range []*Server{NewServer(t), NewMemory(t)} { // without TLS, to count
		conn, c := pair(t, s)
		c.CutAfter(2 + 5 + 3) // a message, and a part of the next
		if err := c.Push("whole"); err != nil {
			t.Fatal(err)
		}
		wantError(t, c.Push("part"), net.ErrClosed)
		wantEqual(t, read(t, conn), "whole")
		_, r, err := conn.Reader(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(r)
		wantEqual(t, string(rest), "p")
		<-c.Done()
	}
}

func TestHalfClose(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		if err := c.HalfClose(); err != nil {
			t.Fatal(err)
		}
		write(t, conn, "still read")
		message, err := c.Read()
		wantEqual(t, err, nil)
		wantEqual(t, string(message.Data), "still read")
		wantError(t, c.Push("no more"), syscall.EPIPE)
		_, _, err = conn.Read(context.Background())
		wantEOF(t, err)
	})
}

func TestStopReading(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		conn, c := pair(t, s)
		c.StopReading()
		c.StopReading()
		sent := make(chan error, 1)
		const size = 8 << 20 // more than all buffers
		go func() { sent <- conn.Write(context.Background(), websocket.MessageBinary, make([]byte, size)) }()
		select {
		case err := <-sent:
			t.Fatalf("a write that nobody reads ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
		wantEqual(t, len(c.Received().Messages), 0)
		if err := c.Push("it still sends"); err != nil {
			t.Fatal(err)
		}
		wantEqual(t, read(t, conn), "it still sends")
		c.StartReading()
		message, err := c.Read()
		wantEqual(t, err, nil)
		wantEqual(t, len(message.Data), size)
		wantEqual(t, <-sent, nil)
	})
}

func TestStoppedConnectionCanBeEnded(t *testing.T) {
	onBoth(t, func(t *testing.T, s *Server) {
		_, c := pair(t, s)
		c.StopReading()
		c.Drop()
		_, err := c.Read()
		wantError(t, err, io.EOF)
	})
}

// Writers that wait for a blocked write are durably blocked, too.
func TestBlockedWritersAreDurablyBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewMemory(t)
		_, c := pair(t, s)
		failed := make(chan error)
		for range 2 {
			go func() { failed <- c.PushBinary(make([]byte, 2*pipeBuffer)) }()
		}
		synctest.Wait()
		time.Sleep(time.Hour)
		c.Drop()
		for range 2 {
			wantError(t, <-failed, net.ErrClosed)
		}
	})
}

func TestViolationsOfTheClient(t *testing.T) {
	for name, test := range map[string]struct {
		frame []byte
		want  error
	}{
		"unmasked":         {Frame(0x81, []byte("x")), errUnmasked},
		"continuation":     {[]byte{0x80, 0x80, 0, 0, 0, 0}, errSequence},
		"opcode":           {[]byte{0x83, 0x80, 0, 0, 0, 0}, errOpcode},
		"fragmented ping":  {[]byte{0x09, 0x80, 0, 0, 0, 0}, errControl},
		"length":           {[]byte{0x82, 0xFF, 0x7F, 0, 0, 0, 0, 0, 0, 0}, errTooLong},
		"end in a frame":   {[]byte{0x82, 0x81}, io.ErrUnexpectedEOF},
		"end in a length":  {[]byte{0x82, 0xFE}, io.ErrUnexpectedEOF},
		"end in a payload": {[]byte{0x82, 0x81, 0, 0, 0, 0}, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			s := NewMemory(t)
			client, err := s.dial(context.Background(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Key: x\r\n\r\n")
			_, _ = client.Write(test.frame)
			_ = client.(*pipeConn).CloseWrite()
			c := s.Accept()
			<-c.Done()
			wantEqual(t, c.Received().Err, test.want)
		})
	}
}
