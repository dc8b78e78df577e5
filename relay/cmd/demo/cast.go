//go:build unix

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// player is a process that is started again whenever it ends.
type player struct {
	name, role string
	args       []string

	process *exec.Cmd     // nil while it does not run
	pause   time.Duration // before it is started again
	struck  bool          // by a signal after which it ends
}

// cast is the processes, and what they said.
type cast struct {
	dir  string // of their logs
	tell *teller

	ctx     context.Context // ends with the first error
	cancel  context.CancelCauseFunc
	running sync.WaitGroup

	mu      sync.Mutex
	players map[string]*player
	leader  *player // that said that it leads and was not struck since; or nil
	term    uint64  // of the leader
	ready   bool    // NATS is
	frozen  bool    // a relay is stopped
	strikes []strike
	outages []outage
	stalls  []outage       // when NATS was slow
	handled map[uint64]int // how often the workers handled each number
	highest uint64
}

func newCast(ctx context.Context, dir string, tell *teller) *cast {
	c := &cast{dir: dir, tell: tell, players: make(map[string]*player), handled: make(map[uint64]int)}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	return c
}

// add starts this program in a role, again and again until the end.
func (c *cast) add(name, role string, args ...string) {
	p := &player{name: name, role: role, args: args}
	c.mu.Lock()
	c.players[name] = p
	c.mu.Unlock()
	c.running.Go(func() {
		for c.ctx.Err() == nil {
			if err := c.run(p); err != nil {
				c.cancel(err)
			}
			c.rest(p)
		}
	})
}

// command returns this program in a role.
func command(role string, args ...string) (process *exec.Cmd, input io.Closer, err error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	process = exec.Command(program, args...)
	process.Env = append(os.Environ(), roleVariable+"="+role)
	input, err = process.StdinPipe()
	return process, input, err
}

// run runs a process until it ends. An error says that it ended by itself, which only a
// worker may.
func (c *cast) run(p *player) error {
	log, err := os.OpenFile(filepath.Join(c.dir, p.name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process, _, err := command(p.role, p.args...)
	if err != nil {
		return err
	}
	process.Stderr = log
	output, err := process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.start(p, process); err != nil {
		return err
	}
	for lines := bufio.NewScanner(output); lines.Scan(); {
		c.hear(p, lines.Text())
	}
	return c.left(p, process.Wait())
}

func (c *cast) start(p *player, process *exec.Cmd) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if err := process.Start(); err != nil {
		return err
	}
	p.process, p.struck, p.pause = process, false, 200*time.Millisecond // as a supervisor does
	return nil
}

// left notes that a process has ended.
func (c *cast) left(p *player, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p.process = nil
	if c.leader == p {
		c.leader = nil
	}
	if p.struck || p.role == "worker" || c.ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("%s ended by itself: %v%s", p.name, err, c.reason(p))
}

// reason returns what the log of a process says about its end.
func (c *cast) reason(p *player) string {
	log, err := os.ReadFile(filepath.Join(c.dir, p.name+".log"))
	if err != nil {
		return ""
	}
	found := ""
	for line := range strings.Lines(string(log)) {
		for _, prefix := range []string{"panic: ", "fatal error: ", "demo: "} {
			if strings.HasPrefix(line, prefix) {
				found = ": " + strings.TrimSpace(line)
			}
		}
	}
	return found
}

// rest waits until a process is to be started again.
func (c *cast) rest(p *player) {
	c.mu.Lock()
	pause := p.pause
	c.mu.Unlock()
	select {
	case <-time.After(pause):
	case <-c.ctx.Done():
	}
}

// hear notes what a process says: that it is ready, that it leads or does no more, or the
// number that it handled.
func (c *cast) hear(p *player, line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var n uint64
	switch {
	case line == "ready":
		c.ready = true
		if last := len(c.outages) - 1; last >= 0 {
			c.outages[last].to = time.Now()
			c.tell.detail("NATS is ready again")
		}
	case scan(line, "leading %d", &n):
		if !p.struck && n > c.term {
			c.leader, c.term = p, n
			c.tell.detail("%s leads, term %d", p.name, n)
		}
	case scan(line, "over %d", &n):
		if c.leader == p && c.term == n {
			c.leader = nil
			c.tell.detail("%s does not lead any more", p.name)
		}
	case scan(line, "%d", &n): // else it is the half of a line that a kill left
		c.handled[n]++
		c.highest = max(c.highest, n)
	}
}

func scan(line, format string, n *uint64) bool {
	_, err := fmt.Sscanf(line, format, n)
	return err == nil
}

// errEnd ends the processes.
var errEnd = errors.New("the end")

// end kills all, and waits until they are gone.
func (c *cast) end() {
	c.mu.Lock()
	c.cancel(errEnd)
	for _, p := range c.players {
		c.signal(p, syscall.SIGKILL)
	}
	c.mu.Unlock()
	c.running.Wait()
}
