package wire

import "syscall"

// userTimeout is the option TCP_USER_TIMEOUT of tcp(7), in milliseconds. Package syscall
// does not define it.
const userTimeout = 0x12

func setUserTimeout(fd uintptr, milliseconds int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, userTimeout, milliseconds)
}
