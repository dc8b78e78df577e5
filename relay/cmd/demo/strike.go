//go:build unix

package main

import (
	"fmt"
	"io"
	"os/exec"
	"syscall"
	"time"
)

// strike is the end of a leader.
type strike struct {
	at   time.Time
	term uint64
}

// outage is when NATS was down, or slow; to is zero while it is down.
type outage struct{ from, to time.Time }

// killLeader kills the leader, if there is one.
func (c *cast) killLeader() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.strikeLeader()
	if p == nil {
		return false
	}
	p.struck = true
	c.tell.detail("SIGKILL to the leader (%s)", p.name)
	c.signal(p, syscall.SIGKILL)
	return true
}

// strikeLeader returns the leader, which is none from now on, or nil; mu is held.
func (c *cast) strikeLeader() *player {
	p := c.leader
	if p != nil {
		c.leader = nil
		c.strikes = append(c.strikes, strike{time.Now(), c.term})
	}
	return p
}

// stopLeader stops the leader for some time, if there is one and no relay is stopped.
func (c *cast) stopLeader(lasting time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.frozen || c.leader == nil {
		return false
	}
	waker, input, err := command("waker", fmt.Sprint(c.leader.process.Process.Pid))
	if err == nil {
		err = waker.Start()
	}
	if err != nil {
		c.cancel(err)
		return false
	}
	p := c.strikeLeader()
	c.frozen = true
	c.tell.detail("SIGSTOP to the leader (%s) for %v", p.name, lasting)
	c.signal(p, syscall.SIGSTOP)
	c.running.Go(func() { c.wake(p, lasting, waker, input) })
	return true
}

// wake continues a process that is stopped.
func (c *cast) wake(p *player, after time.Duration, waker *exec.Cmd, input io.Closer) {
	select {
	case <-time.After(after):
	case <-c.ctx.Done():
	}
	_ = input.Close()
	_ = waker.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frozen = false
	c.tell.detail("SIGCONT to %s", p.name)
}

// restartNATS ends NATS by a signal, if it is ready, and starts it again after a pause.
func (c *cast) restartNATS(signal syscall.Signal, pause time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ready {
		return false
	}
	p := c.players["nats"]
	p.struck, p.pause, c.ready = true, pause, false
	c.outages = append(c.outages, outage{from: time.Now()})
	c.tell.detail("%v to NATS, which is started again after %v", signalName(signal), pause)
	c.signal(p, signal)
	return true
}

func signalName(signal syscall.Signal) string {
	if signal == syscall.SIGTERM {
		return "SIGTERM"
	}
	return "SIGKILL"
}

// killWorker kills a worker, if it runs.
func (c *cast) killWorker(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.players[name]
	if p.process == nil || p.struck {
		return false
	}
	p.struck = true
	c.tell.detail("SIGKILL to %s", name)
	c.signal(p, syscall.SIGKILL)
	return true
}

// signal signals a process; mu is held.
func (c *cast) signal(p *player, signal syscall.Signal) {
	if p.process != nil {
		_ = p.process.Process.Signal(signal)
	}
}
