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

// stopSignals are what Ctrl-Z sends.
var stopSignals = []os.Signal{syscall.SIGTSTP}

// stopJob sends to all processes of the job what Ctrl-Z sends.
func stopJob() { _ = syscall.Kill(0, syscall.SIGTSTP) }

// stopSelf stops the program until it is continued, unless there is no shell that could do
// that. It is SIGSTOP because the runtime does not give up SIGTSTP again.
func stopSelf() {
	if session, err := unix.Getsid(0); err != nil || session == unix.Getpgrp() {
		return
	}
	continued := make(chan os.Signal, 1)
	signal.Notify(continued, syscall.SIGCONT)
	defer signal.Stop(continued)
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	<-continued
}

// foreground reports whether the program may use its terminal.
func foreground(terminal *os.File) bool {
	group, err := unix.IoctlGetInt(int(terminal.Fd()), unix.TIOCGPGRP)
	return err != nil || group == unix.Getpgrp() // an error: it is not the controlling terminal
}

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
