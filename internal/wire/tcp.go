package wire

import (
	"math"
	"syscall"
	"time"
)

// LimitUnacknowledged makes the system drop the connection when data that was written
// has not been acknowledged for d (the user timeout of TCP, RFC 5482). It does nothing
// if the system cannot, or if the network connection is unknown or not a socket.
func (c *Conn) LimitUnacknowledged(d time.Duration) {
	socket, ok := c.network.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // on failure, TCP uses its own timeout
		_ = setUserTimeout(fd, int(min(d.Milliseconds(), math.MaxInt32)))
	})
}
