package resock_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// This file is a server in memory, for tests in a bubble of testing/synctest,
// where real sockets hang.

// pipe is one direction of a connection.
type pipe struct {
	mu     sync.Mutex
	cond   sync.Cond
	data   []byte
	room   int // most bytes in data
	closed error
}

func newPipe(room int) *pipe {
	p := &pipe{room: room}
	p.cond.L = &p.mu
	return p
}

func (p *pipe) Read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.data) == 0 {
		if p.closed != nil {
			return 0, p.closed
		}
		p.cond.Wait()
	}
	n := copy(b, p.data)
	p.data = p.data[n:]
	p.cond.Broadcast()
	return n, nil
}

func (p *pipe) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(b) > 0 {
		for len(p.data) >= p.room && p.closed == nil {
			p.cond.Wait()
		}
		if p.closed != nil {
			return n, io.ErrClosedPipe
		}
		m := min(len(b), p.room-len(p.data))
		p.data = append(p.data, b[:m]...)
		n, b = n+m, b[m:]
		p.cond.Broadcast()
	}
	return n, nil
}

func (p *pipe) close(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed == nil {
		p.closed = err
	}
	p.cond.Broadcast()
}

// memoryConn is one end of a connection.
type memoryConn struct{ in, out *pipe }

func (c *memoryConn) Read(b []byte) (int, error)  { return c.in.Read(b) }
func (c *memoryConn) Write(b []byte) (int, error) { return c.out.Write(b) }
func (c *memoryConn) Close() error {
	c.in.close(net.ErrClosed)
	c.out.close(io.EOF)
	return nil
}
func (c *memoryConn) CloseWrite() error {
	c.out.close(io.EOF)
	return nil
}
func (c *memoryConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *memoryConn) SetDeadline(time.Time) error      { return os.ErrNoDeadline }
func (c *memoryConn) SetReadDeadline(time.Time) error  { return os.ErrNoDeadline }
func (c *memoryConn) SetWriteDeadline(time.Time) error { return os.ErrNoDeadline }

// peer is the server's end of a connection.
type peer struct {
	*memoryConn
	r *bufio.Reader
}

// inMemory returns the option to dial a server that runs serve for the n-th
// connection, from 1, and closes it afterwards.
func inMemory(serve func(n int, p *peer)) resock.Option {
	return inMemoryRoom(1<<20, serve)
}

// inMemoryRoom is inMemory with room for so many bytes between the two ends.
func inMemoryRoom(room int, serve func(n int, p *peer)) resock.Option {
	var mu sync.Mutex
	n := 0
	dial := func(context.Context, string, string) (net.Conn, error) {
		up, down := newPipe(room), newPipe(room)
		server := &memoryConn{up, down}
		mu.Lock()
		n++
		n := n
		mu.Unlock()
		go func() {
			defer server.Close()
			serve(n, &peer{server, bufio.NewReader(server)})
		}()
		return &memoryConn{down, up}, nil
	}
	return resock.WithDialOptions(&websocket.DialOptions{
		HTTPClient: &http.Client{Transport: &http.Transport{DialContext: dial}},
	})
}

// upgrade answers the handshake.
func (p *peer) upgrade() bool {
	request, err := http.ReadRequest(p.r)
	if err != nil {
		return false
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(p, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return true
}

// frame writes a frame: first is the FIN bit and the opcode.
func (p *peer) frame(first byte, payload string) error {
	head := []byte{first, byte(len(payload))}
	if len(payload) > 125 {
		head = binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(len(payload)))
	}
	_, err := p.Write(append(head, payload...))
	return err
}

func (p *peer) text(payload string) error { return p.frame(0x81, payload) }

func (p *peer) close(code resock.StatusCode) error {
	return p.frame(0x88, string(binary.BigEndian.AppendUint16(nil, uint16(code))))
}

// next reads a frame.
func (p *peer) next() (opcode byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(p.r, head[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(head[1] & 0x7F)
	switch length {
	case 126:
		var ext [2]byte
		_, err = io.ReadFull(p.r, ext[:])
		length = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		_, err = io.ReadFull(p.r, ext[:])
		length = binary.BigEndian.Uint64(ext[:])
	}
	var key [4]byte
	if err == nil {
		_, err = io.ReadFull(p.r, key[:])
	}
	payload = make([]byte, length)
	if err == nil {
		_, err = io.ReadFull(p.r, payload)
	}
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return head[0] & 0x0F, payload, err
}

// echoClose answers pings and the closing handshake, and shows each message.
func (p *peer) echoClose(message func(payload string)) {
	for {
		opcode, payload, err := p.next()
		switch {
		case err != nil:
			return
		case opcode == 0x8:
			_ = p.frame(0x88, string(payload))
			return
		case opcode == 0x9:
			_ = p.frame(0x8A, string(payload))
		case message != nil && (opcode == 1 || opcode == 2):
			message(string(payload))
		}
	}
}

// bubble runs a test in a bubble of testing/synctest.
func bubble(t *testing.T, test func(t *testing.T)) {
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // servers that linger go too
		test(t)
	})
}

// newClient returns a client that is closed, and waited for, when the test ends.
func newClient(t *testing.T, opts ...resock.Option) *resock.Client {
	t.Helper()
	return rig.Bare(t, "ws://memory.test/push", opts...)
}
