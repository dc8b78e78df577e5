//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

var (
	errBrokenPipe     error = syscall.EPIPE
	brokenPipeSignals       = []os.Signal{syscall.SIGPIPE}
)

// dieOfPipe ends the program by SIGPIPE: the runtime raises it when a write to standard
// output fails.
func dieOfPipe() {
	signal.Reset(syscall.SIGPIPE)
	_, _ = os.Stdout.WriteString("\n")
	os.Exit(exitSignal + int(syscall.SIGPIPE)) // it is ignored by whoever started the program
}

// watchReader calls gone when f is a pipe or a socket and its other end is closed.
func watchReader(f *os.File, gone func()) {
	info, err := f.Stat()
	if err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return
	}
	fds := []unix.PollFd{{Fd: int32(f.Fd())}} // errors and hangups are told in any case
	go func() {
		n, err := unix.Poll(fds, -1)
		for err == unix.EINTR {
			n, err = unix.Poll(fds, -1)
		}
		if n > 0 && fds[0].Revents&unix.POLLNVAL == 0 {
			gone()
		}
	}()
}

// sameTerminal reports whether two terminals are certainly one.
func sameTerminal(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}

// enableEscapes reports whether a terminal knows escape sequences.
func enableEscapes(*os.File) bool { return true }
