package wire

import "syscall"

// Options of <netinet/tcp.h> that package syscall does not define.
const (
	dropTime     = 0x80  // TCP_RXT_CONNDROPTIME, in seconds
	notSentLimit = 0x201 // TCP_NOTSENT_LOWAT, in bytes
)

func setUserTimeout(fd uintptr, milliseconds int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, dropTime, (milliseconds+999)/1000)
}

func setMaxUnsent(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLimit, bytes)
}
