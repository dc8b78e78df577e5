package wire

import "syscall"

// dropTime is TCP_RXT_CONNDROPTIME of <netinet/tcp.h>, in seconds, which package
// syscall does not name.
const dropTime = 0x80

func setUserTimeout(fd uintptr, milliseconds int) error {
	return syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, dropTime, (milliseconds+999)/1000)
}
