//go:build unix

package main

import (
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/coder/websocket"

	"github.com/resock/resock/resocktest"
)

// TestClosedPipe checks that the program ends at once by SIGPIPE, even if nothing more
// comes, when whoever reads its output has gone.
func TestClosedPipe(t *testing.T) {
	for name, push := range map[string]bool{"with more messages": true, "in silence": false} {
		t.Run(name, func(t *testing.T) {
			server := resocktest.NewServer(t)
			p := prepare(t, server.URL)
			reader, writer, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			p.command.Stdout = writer
			p.run()
			_ = writer.Close()
			conn := server.Accept()
			if err := conn.Push("first"); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(reader, make([]byte, len("first\n"))); err != nil {
				t.Fatal(err)
			}
			_ = reader.Close()
			if push {
				_ = conn.Push("second")
			}
			p.exits(-1)
			if status := p.command.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGPIPE {
				t.Errorf("it ended by %v", status.Signal())
			}
			if text := p.stderr.String(); strings.Count(text, "\n") != 1 {
				t.Errorf("it told %q", text)
			}
		})
	}
}

func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip("there is no /dev/full")
	}
	defer full.Close()
	server := resocktest.NewServer(t)
	p := prepare(t, server.URL)
	p.command.Stdout = full
	p.run()
	push(t, server.Accept(), "a message")
	p.exits(exitOutputFull)
	p.stderr.has(t, "resock: standard output: no space left on device\n")

	runs(t, exitOutputFull, "-record", "/dev/full", server.URL).stderr.has(t, "-record /dev/full: no space left on device")
}

// signal sends a signal to the program.
func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

func TestSignals(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(s.String(), func(t *testing.T) {
			if signal.Ignored(s) {
				t.Skip("it is ignored here, as by nohup, and so by the program that inherits that")
			}
			server := resocktest.NewServer(t)
			p := start(t, server.URL)
			conn := server.Accept()
			p.stderr.await(t, "connected")
			push(t, conn, "a message")
			p.stdout.await(t, "a message")
			p.signal(s)
			p.exits(128 + int(s))
			<-conn.Done()
			if c := conn.Received().Close; c == nil || c.Code != websocket.StatusNormalClosure {
				t.Errorf("close: %+v", c)
			}
		})
	}
}

// TestSecondSignal checks that a second signal does not wait for the server.
func TestSecondSignal(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, server.URL)
	conn := server.Accept()
	conn.IgnoreClose()
	p.stderr.await(t, "connected")
	p.signal(syscall.SIGINT)
	for conn.Received().Close == nil { // the close frame is on its way
		if err := conn.Ping(""); err != nil {
			t.Fatal(err)
		}
	}
	p.signal(syscall.SIGINT)
	p.exits(130)
	if text := p.stderr.String(); strings.Contains(text, "closed") {
		t.Errorf("it waited: %q", text)
	}
}

// TestSignalWhileWaiting checks that a signal ends the wait for the next attempt.
func TestSignalWhileWaiting(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Status(503, map[string][]string{"Retry-After": {"100"}}, ""))
	p := start(t, server.URL)
	p.stderr.await(t, "next attempt in")
	p.signal(syscall.SIGTERM)
	p.exits(143)
}

// TestBlockedOutput checks that a signal ends the program although nobody reads its output.
func TestBlockedOutput(t *testing.T) {
	p := prepare(t, "-q", pusher(t, 100000))
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	p.command.Stdout = writer
	p.run()
	_ = writer.Close()
	if _, err := io.ReadFull(reader, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGTERM)
	p.exits(143)
}

// TestEndOfInput checks that the end of the input does not end the program.
func TestEndOfInput(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-n", "1", server.URL)
	p.enter("one", "two\r")
	_, _ = io.WriteString(p.stdin, "three")
	_ = p.stdin.Close()
	conn := server.Accept()
	for _, want := range []string{"one", "two", "three"} {
		if got := read(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	push(t, conn, "still here")
	p.exits(0)
	p.stdout.is(t, "still here\n")
}

// TestLostLines checks that each line that is not sent is told.
func TestLostLines(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Refuse())
	p := start(t, "-backoff-max", "1h", "-backoff", "1h", server.URL)
	for range 60 { // more than the pipe and a buffer hold: the program has taken some
		p.enter(strings.Repeat("x", 4000))
	}
	p.stderr.await(t, "next attempt in")
	p.signal(syscall.SIGINT)
	p.exits(130)
	p.stderr.has(t, "resock: lines from 1 on were not sent: client closed\n")
	server.Script(resocktest.Hold())
	p = start(t, server.URL)
	conn := server.Accept()
	p.enter("\xff", "valid")
	if got := read(t, conn); got != "valid" {
		t.Errorf("got %q", got)
	}
	p.stderr.await(t, "resock: line 1 was not sent: it is not valid UTF-8")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		p := runs(t, 0, "completion", shell)
		p.stdout.has(t, "resock")
		if path, err := exec.LookPath(shell); err == nil {
			check := exec.Command(path, "-n")
			check.Stdin = strings.NewReader(p.stdout.String())
			if output, err := check.CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", shell, err, output)
			}
		}
	}
	for _, prefix := range []string{"-", "--"} {
		p := runs(t, 0, prefix+"pre", "--generate-shell-completion")
		p.stdout.has(t, "--preamble-file")
	}
}

// TestHelp checks that the help has what scripts need.
func TestHelp(t *testing.T) {
	p := runs(t, 0, "-help")
	for _, text := range []string{"Exit codes:", "130", "-H, -header", "-exit-on-eof", "(default 15s)", "(default 1M)", "resock serve"} {
		p.stdout.has(t, text)
	}
	for line := range strings.Lines(p.stdout.String()) {
		if len(line) > 81 {
			t.Errorf("too wide: %q", line)
		}
	}
}
