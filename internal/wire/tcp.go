package wire

import (
	"math"
	"syscall"
	"time"
)

// LimitUnacknowledged bounds how long the network may owe the acknowledgement of
// what was written (RFC 5482), where the system can: what is written after that fails.
// It does nothing if the network connection is not known, or no socket.
func (c *Conn) LimitUnacknowledged(d time.Duration) {
	socket, ok := c.network.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) { // without it, TCP itself decides when to give up
		_ = setUserTimeout(fd, int(min(d.Milliseconds(), math.MaxInt32)))
	})
}
