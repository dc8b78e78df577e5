package wire

import (
	"math"
	"syscall"
	"time"
)

// maxUnsent is how many bytes, beyond those that are on their way, the system may hold
// before a write waits. With more, a ping would stand in line for a long time on a slow
// network.
const maxUnsent = 16 << 10

// maxBuffered is the size of the send buffer, in bytes, where the system cannot limit
// what is unsent.
const maxBuffered = 128 << 10

// LimitUnsent makes the system hold little that it has not sent. It does nothing if the
// network connection is unknown or not a socket.
func (c *Conn) LimitUnsent() {
	limited := false
	c.control(func(fd uintptr) { limited = setMaxUnsent(fd, maxUnsent) == nil })
	if buffered, ok := c.network.(interface{ SetWriteBuffer(bytes int) error }); ok && !limited {
		_ = buffered.SetWriteBuffer(maxBuffered)
	}
}

// LimitUnacknowledged makes the system drop the connection when data that was written
// has not been acknowledged for d (the user timeout of TCP, RFC 5482). It does nothing
// if the system cannot, or if the network connection is unknown or not a socket.
func (c *Conn) LimitUnacknowledged(d time.Duration) {
	c.control(func(fd uintptr) { // on failure, TCP uses its own timeout
		_ = setUserTimeout(fd, int(min(d.Milliseconds(), math.MaxInt32)))
	})
}

// control calls f with the socket, if there is one.
func (c *Conn) control(f func(fd uintptr)) {
	socket, ok := c.network.(syscall.Conn)
	if !ok {
		return
	}
	if raw, err := socket.SyscallConn(); err == nil {
		_ = raw.Control(f)
	}
}
