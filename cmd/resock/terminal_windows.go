package main

import (
	"os"
	"syscall"

	"golang.org/x/sys/windows"
)

var (
	errBrokenPipe     error = syscall.Errno(windows.ERROR_NO_DATA) // "The pipe is being closed"
	brokenPipeSignals []os.Signal
)

func dieOfPipe() { os.Exit(exitFailed) }

// watchReader does nothing: on Windows the next write tells.
func watchReader(*os.File, func()) {}

// sameTerminal reports true: a process has one console.
func sameTerminal(_, _ *os.File) bool { return true }

// enableEscapes makes the console know escape sequences, if it can.
func enableEscapes(f *os.File) bool {
	handle, mode := windows.Handle(f.Fd()), uint32(0)
	if windows.GetConsoleMode(handle, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
