package resocktest

import (
	"bytes"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func inBubble(t *testing.T, test func(t *testing.T, a, b *pipeConn)) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newPipe(memoryAddr("a"), memoryAddr("b"))
		test(t, a, b)
		_ = a.Close()
		_ = b.Close()
	})
}

func TestPipeBuffers(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *pipeConn) {
		sent := bytes.Repeat([]byte("0123456789"), pipeBuffer/5) // two buffers
		var n int
		go func() {
			n, _ = a.Write(sent)
			_ = a.CloseWrite()
		}()
		synctest.Wait()
		wantEqual(t, n, 0) // still blocked
		received, err := io.ReadAll(b)
		wantEqual(t, err, nil)
		wantEqual(t, bytes.Equal(received, sent), true)
		wantEqual(t, n, len(sent))

		_, err = a.Write([]byte("x"))
		wantError(t, err, syscall.EPIPE)
		if _, err := b.Write([]byte("other half")); err != nil {
			t.Error(err)
		}
		var p [10]byte
		_, err = io.ReadFull(a, p[:])
		wantEqual(t, err, nil)
		wantEqual(t, string(p[:]), "other half")
	})
}

func TestPipeWritesStayWhole(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *pipeConn) {
		const size = 2 * pipeBuffer
		for _, letter := range []string{"x", "y"} {
			go func() { _, _ = a.Write(bytes.Repeat([]byte(letter), size)) }()
		}
		var half [size]byte
		for range 2 {
			if _, err := io.ReadFull(b, half[:]); err != nil {
				t.Fatal(err)
			}
			wantEqual(t, bytes.Count(half[:], half[:1]), size)
		}
	})
}

func TestPipeDeadlines(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *pipeConn) {
		start := time.Now()
		_ = a.SetReadDeadline(start.Add(time.Second))
		_, err := a.Read(make([]byte, 1))
		wantError(t, err, os.ErrDeadlineExceeded)
		wantEqual(t, err.(net.Error).Timeout(), true)
		wantEqual(t, time.Since(start), time.Second)

		_ = a.SetDeadline(start.Add(2 * time.Second))
		n, err := a.Write(make([]byte, pipeBuffer+1))
		wantEqual(t, n, pipeBuffer)
		wantError(t, err, os.ErrDeadlineExceeded)
		wantEqual(t, time.Since(start), 2*time.Second)

		// A new deadline applies to a pending call.
		_ = a.SetDeadline(time.Time{})
		go func() {
			time.Sleep(time.Minute)
			_ = a.SetReadDeadline(time.Unix(1, 0))
		}()
		_, err = a.Read(make([]byte, 1))
		wantError(t, err, os.ErrDeadlineExceeded)
		wantEqual(t, time.Since(start), 62*time.Second)
	})
}

func TestPipeClose(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *pipeConn) {
		failed := make(chan error)
		go func() {
			_, err := a.Read(make([]byte, 1))
			failed <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, 2*pipeBuffer))
			failed <- err
		}()
		synctest.Wait()
		_ = a.Close()
		for range 2 {
			wantError(t, <-failed, net.ErrClosed)
		}
		wantError(t, a.Close(), net.ErrClosed)
		received, err := io.ReadAll(b)
		wantEqual(t, err, nil)
		wantEqual(t, len(received), pipeBuffer)
		_, err = b.Write([]byte("as on TCP, this one is lost"))
		wantEqual(t, err, nil)
		_, err = b.Write([]byte("x"))
		wantError(t, err, syscall.EPIPE)
	})
}

func TestPipeReset(t *testing.T) {
	inBubble(t, func(t *testing.T, a, b *pipeConn) {
		_, _ = a.Write([]byte("before"))
		_ = a.SetLinger(0)
		_ = a.Close()
		received, err := io.ReadAll(b)
		wantEqual(t, string(received), "before")
		wantError(t, err, syscall.ECONNRESET)
		_, err = b.Write([]byte("x"))
		wantError(t, err, syscall.ECONNRESET)
		wantEqual(t, b.RemoteAddr().String(), a.LocalAddr().String())
	})
}
