package wire

import "syscall"

// Options of <linux/tcp.h> that package syscall does not define.
const (
	userTimeout  = 0x12 // TCP_USER_TIMEOUT, in milliseconds
	notSentLimit = 0x19 // TCP_NOTSENT_LOWAT, in bytes
)

func setUserTimeout(fd uintptr, milliseconds int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, milliseconds)
}

func setMaxUnsent(fd uintptr, bytes int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, notSentLimit, bytes)
}
