//go:build unix

package faults

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// stopped runs a part of a test in another process, against the server, and kills it when
// the test ends. In that process it runs the client, and does not return.
func stopped(t *testing.T, s func() string, run func(target string)) *os.Process {
	t.Helper()
	const role = "RESOCK_TEST_CLIENT_OF"
	if target := os.Getenv(role); target != "" {
		run(target)
		os.Exit(0)
	}
	command := exec.Command(os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	command.Env = append(os.Environ(), role+"="+s())
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	return command.Process
}

// TestFault62 stops the process at the worst moments: what happened meanwhile shows only
// when it goes on.
func TestFault62_ProcessStoodStill(t *testing.T) {
	t.Run("the pong is in the socket", func(t *testing.T) {
		var server *resocktest.Server
		process := stopped(t, func() string { server = resocktest.NewServer(t); return server.URL }, func(target string) {
			client, err := resock.New(target, resock.WithHeartbeat(time.Second, 500*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			_ = client.Run(context.Background())
		})
		c := server.Accept()
		c.IgnorePings()
		for len(c.Received().Pings) == 0 {
			<-time.After(time.Millisecond)
		}
		standsStill(t, c, process, func() { _ = c.Pong("") })
	})
	t.Run("the network takes the bytes", func(t *testing.T) {
		var server *resocktest.Server
		process := stopped(t, func() string { server = resocktest.NewServer(t); return server.URL }, func(target string) {
			client, err := resock.New(target, resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(500*time.Millisecond))
			if err != nil {
				t.Fatal(err)
			}
			go client.Run(context.Background())
			for client.Send(context.Background(), resock.MessageBinary, make([]byte, 16<<20)) == nil {
				<-time.After(time.Millisecond)
			}
		})
		c := server.Accept()
		c.StopReading()
		<-time.After(200 * time.Millisecond) // the buffers are full
		standsStill(t, c, process, c.StartReading)
	})
}

// TestFault96: a process that gets a few milliseconds of the processor at a time is late at
// every look, and finds a dead server nevertheless.
func TestFault96_ThrottledProcess(t *testing.T) {
	var server *resocktest.Server
	process := stopped(t, func() string { server = resocktest.NewServer(t); return server.URL }, func(target string) {
		client, err := resock.New(target, resock.WithHeartbeat(100*time.Millisecond, 100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Run(context.Background())
	})
	c := server.Accept()
	c.IgnorePings()
	for range 80 {
		_ = process.Signal(syscall.SIGSTOP)
		<-time.After(145 * time.Millisecond)
		_ = process.Signal(syscall.SIGCONT)
		select {
		case <-c.Done():
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Error("the server is silent, and the connection still there")
}

// The idle timeout of a process that stood still does not end a feed whose messages lie in
// the socket.
func TestThreadIdleTimeoutOfAStoppedProcess(t *testing.T) {
	var server *resocktest.Server
	process := stopped(t, func() string { server = resocktest.NewServer(t); return server.URL }, func(target string) {
		client, err := resock.New(target, resock.WithHeartbeat(0, 0), resock.WithIdleTimeout(500*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Run(context.Background())
	})
	c := server.Accept()
	push := func() { _ = c.Push("push") }
	push()
	<-time.After(50 * time.Millisecond)
	standsStill(t, c, process, func() {
		<-time.After(100 * time.Millisecond) // the process has stopped, and reads nothing
		push()
	})
}

// standsStill stops a process while something happens, lets it go on, and checks that it
// keeps its connection.
func standsStill(t *testing.T, c *resocktest.Conn, process *os.Process, happens func()) {
	t.Helper()
	_ = process.Signal(syscall.SIGSTOP)
	happens()
	<-time.After(time.Second)
	_ = process.Signal(syscall.SIGCONT)
	select {
	case <-c.Done():
		t.Error("the connection is gone")
	case <-time.After(400 * time.Millisecond):
	}
}

// TestFault46 stops the process of a client for longer than its heartbeat.
// A stopped process reads no pongs, but its server is not dead: when it continues, the
// client must not reconnect again and again.
func TestFault46_ProcessStopped(t *testing.T) {
	const role = "RESOCK_TEST_STOPPED"
	if target := os.Getenv(role); target != "" {
		client, err := resock.New(target, resock.WithHeartbeat(100*time.Millisecond, 200*time.Millisecond), resock.WithBackoff(20*time.Millisecond, 100*time.Millisecond))
		if err != nil {
			t.Fatal(err)
		}
		_ = client.Run(context.Background())
		return
	}
	rig.CheckLeaks(t)
	s := resocktest.NewServer(t)
	command := exec.Command(os.Args[0], "-test.run=^TestFault46_ProcessStopped$")
	command.Env = append(os.Environ(), role+"="+s.URL)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	}()
	c := s.Accept()
	pings := func(c *resocktest.Conn, n int) {
		for deadline := time.Now().Add(20 * time.Second); len(c.Received().Pings) < n && time.Now().Before(deadline); {
			<-time.After(5 * time.Millisecond)
		}
	}
	pings(c, 2)
	_ = command.Process.Signal(syscall.SIGSTOP)
	<-time.After(time.Second)
	before := len(s.Attempts())
	_ = command.Process.Signal(syscall.SIGCONT)
	<-time.After(500 * time.Millisecond)
	if attempts := len(s.Attempts()) - before; attempts > 1 {
		t.Errorf("%d attempts after the process continued, want at most one", attempts)
	}
	conns := s.Conns()
	last := conns[len(conns)-1]
	pings(last, len(last.Received().Pings)+1)
}
