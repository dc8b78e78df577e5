package wire

import "syscall"

// dropTime is the option TCP_RXT_CONNDROPTIME of <netinet/tcp.h>, in seconds. Package
// syscall does not define it.
const dropTime = 0x80

func setUserTimeout(fd uintptr, milliseconds int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, dropTime, (milliseconds+999)/1000)
}
