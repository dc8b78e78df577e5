package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// cast is the processes, and what they said.
type cast struct {
	frozen atomic.Bool

	mu      sync.Mutex
	ended   bool
	playing map[string]*exec.Cmd
	leads   string         // the relay that said last that it leads
	counts  map[uint64]int // of the numbers that the workers handled
	high    uint64
	running sync.WaitGroup
}

func newCast() *cast {
	return &cast{playing: make(map[string]*exec.Cmd), counts: make(map[uint64]int)}
}

// add starts this program as another process, again and again until the end.
func (c *cast) add(name string, args ...string) {
	c.running.Go(func() {
		for c.run(name, args) {
			<-time.After(200 * time.Millisecond) // as a supervisor does
		}
	})
}

// run runs a process until it ends, and reports whether it is to be started again.
func (c *cast) run(name string, args []string) (again bool) {
	program, err := os.Executable()
	if err != nil {
		return false
	}
	process := exec.Command(program, args...)
	process.Stderr = os.Stderr
	output, err := process.StdoutPipe()
	if err != nil {
		return false
	}
	c.mu.Lock()
	if c.ended || process.Start() != nil {
		c.mu.Unlock()
		return false
	}
	c.playing[name] = process
	c.mu.Unlock()
	for lines := bufio.NewScanner(output); lines.Scan(); {
		c.hear(name, lines.Text())
	}
	_ = process.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.playing, name)
	return !c.ended
}

// hear notes a line of a process: "leading TERM", or the number that a worker handled.
func (c *cast) hear(name, line string) {
	var n uint64
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := fmt.Sscanf(line, "leading %d", &n); err == nil {
		say("%s leads, term %d", name, n)
		c.leads = name
		return
	}
	if _, err := fmt.Sscan(line, &n); err != nil {
		return // the half of a line that a kill left
	}
	c.counts[n]++
	c.high = max(c.high, n)
}

func (c *cast) leader() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.leads
}

// kill kills a process.
func (c *cast) kill(what, name string) {
	say("SIGKILL to the %s (%s)", what, name)
	c.signal(name, syscall.SIGKILL)
}

// freeze stops a process for longer than its lease, unless one is stopped.
func (c *cast) freeze(name string, lasting time.Duration) {
	if !c.frozen.CompareAndSwap(false, true) {
		return
	}
	say("SIGSTOP to the leader (%s) for %v", name, lasting)
	c.signal(name, syscall.SIGSTOP)
	time.AfterFunc(lasting, func() {
		say("SIGCONT to %s", name)
		c.signal(name, syscall.SIGCONT)
		c.frozen.Store(false)
	})
}

func (c *cast) signal(name string, signal os.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if process := c.playing[name]; process != nil {
		_ = process.Process.Signal(signal)
	}
}

// end kills all, and waits until they are gone.
func (c *cast) end() {
	c.mu.Lock()
	c.ended = true
	for _, process := range c.playing {
		_ = process.Process.Kill()
	}
	c.mu.Unlock()
	c.running.Wait()
}

func (c *cast) highest() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high
}

func (c *cast) numbers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.counts)
}

// missing counts the holes in the numbers, from 1 to the highest.
func (c *cast) missing() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.high - uint64(len(c.counts))
}

func (c *cast) repeated() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, times := range c.counts {
		if times > 1 {
			n++
		}
	}
	return n
}
