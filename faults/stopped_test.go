//go:build unix

package faults

import (
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

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
