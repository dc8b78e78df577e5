package wire

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"time"
)

// TestLimitUnacknowledged reads the option back from the kernel.
func TestLimitUnacknowledged(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	c, _ := start(t, setting{}, conn)
	for d, want := range map[time.Duration]int{
		25 * time.Second:         25_000,
		time.Duration(1<<63 - 1): 1<<31 - 1,
	} {
		c.LimitUnacknowledged(d)
		got := 0
		_ = raw.Control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout) })
		if got != want || err != nil {
			t.Errorf("%v: %d ms, %v, want %d", d, got, err, want)
		}
	}
	c.Release()
}

// TestLimitUnsent reads the option back from the kernel.
func TestLimitUnsent(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, _ := start(t, setting{}, conn)
	c.LimitUnsent()
	got := 0
	c.control(func(fd uintptr) { got, err = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLimit) })
	if got != 16<<10 || err != nil {
		t.Errorf("%d bytes, %v, want 16 KiB", got, err)
	}
	c.Release()
}

// buffered is a network connection that is no socket but has a send buffer.
type buffered struct {
	net.Conn
	size int
}

func (b *buffered) SetWriteBuffer(size int) error { b.size = size; return nil }

func TestLimitUnsentElsewhere(t *testing.T) {
	for _, network := range []net.Conn{nil, socket{}} {
		c := new(Conn)
		c.Start(newLine(nil), network, Deflate{}, new(Config), new(owner))
		c.LimitUnsent()
	}
	c, b := new(Conn), new(buffered)
	c.Start(newLine(nil), b, Deflate{}, new(Config), new(owner))
	if c.LimitUnsent(); b.size != 128<<10 {
		t.Errorf("a send buffer of %d bytes, want 128 KiB", b.size)
	}
}

// socket is a network connection that does not give access to its socket.
type socket struct{ net.Conn }

func (socket) SyscallConn() (syscall.RawConn, error) { return nil, errors.New("closed") }
func (socket) Close() error                          { return nil }

// TestLimitUnacknowledgedElsewhere checks that nothing happens without a socket.
func TestLimitUnacknowledgedElsewhere(t *testing.T) {
	for _, network := range []net.Conn{nil, socket{}} {
		c := new(Conn)
		c.Start(newLine(nil), network, Deflate{}, new(Config), new(owner))
		c.LimitUnacknowledged(time.Second)
	}
}
