package resocktest

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// socket is a *net.TCPConn or one end of a pipe.
type socket interface {
	net.Conn
	CloseWrite() error
	SetLinger(seconds int) error
}

// network is where a server listens and how clients reach it.
type network interface {
	// listen starts to pass connections to accept, which does not block. A
	// second call, after close, uses the same address.
	listen(accept func(socket)) error
	close()
	dial(ctx context.Context) (net.Conn, error)
	host() string
	// patience is how long Server.Accept waits.
	patience() time.Duration
}

// loopback is TCP on this machine.
type loopback struct {
	mu        sync.Mutex
	address   string
	listener  net.Listener
	accepting sync.WaitGroup
}

func (l *loopback) listen(accept func(socket)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	address := l.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	l.address, l.listener = listener.Addr().String(), listener
	l.accepting.Go(func() { acceptAll(listener, accept) })
	return nil
}

// acceptPause is the pause after a failed accept. The client under test runs in the
// same process and may have used up its file descriptors.
const acceptPause = 5 * time.Millisecond

func acceptAll(listener net.Listener, accept func(socket)) {
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			accept(conn.(*net.TCPConn))
		case errors.Is(err, net.ErrClosed):
			return
		default:
			time.Sleep(acceptPause)
		}
	}
}

func (l *loopback) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.listener.Close()
	l.accepting.Wait()
}

func (l *loopback) dial(ctx context.Context) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", l.host())
}

func (l *loopback) host() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.address
}

func (l *loopback) patience() time.Duration { return 30 * time.Second }

// memoryHost is in a domain reserved for tests (RFC 2606).
const memoryHost = "server.test"

// memory is a network without sockets.
type memory struct {
	mu     sync.Mutex
	accept func(socket) // nil while stopped
}

func (m *memory) listen(accept func(socket)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accept = accept
	return nil
}

func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.accept = nil
}

func (m *memory) dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, dialError(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.accept == nil {
		return nil, errRefused
	}
	client, server := newPipe(memoryAddr("client.test"), memoryAddr(memoryHost))
	m.accept(server)
	return client, nil
}

func (m *memory) host() string { return memoryHost }

// patience is long, because the time is virtual.
func (m *memory) patience() time.Duration { return 24 * time.Hour }

type memoryAddr string

func (memoryAddr) Network() string  { return "tcp" }
func (a memoryAddr) String() string { return string(a) }

// errRefused is the error of a refused TCP connection.
var errRefused = dialError(os.NewSyscallError("connect", syscall.ECONNREFUSED))

func dialError(err error) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: err}
}
