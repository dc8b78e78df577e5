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
	handled map[uint64]int // how often the workers handled each number
	highest uint64
}

// strike is the end of a leader.
type strike struct {
	at   time.Time
	term uint64
}

// outage is when NATS was down; to is zero while it is.
type outage struct{ from, to time.Time }

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
	return fmt.Errorf("%s ended by itself: %v", p.name, err)
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

// led reports whether a relay leads, and NATS is ready.
func (c *cast) led() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && c.leader != nil
}

// calm reports whether a relay leads and no fault lasts.
func (c *cast) calm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && c.leader != nil && !c.frozen
}

// state tells who leads, for a line of output.
func (c *cast) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == nil {
		return fmt.Sprintf("nobody leads, after term %d", c.term)
	}
	return fmt.Sprintf("%s leads, term %d", c.leader.name, c.term)
}

// handledUpTo returns the highest number that the workers handled.
func (c *cast) handledUpTo() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.highest
}

// unhandled returns which of some numbers the workers did not handle, and how many of them
// they handled more than once.
func (c *cast) unhandled(numbers []uint64) (missing []uint64, repeated int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range numbers {
		switch times := c.handled[n]; {
		case times == 0:
			missing = append(missing, n)
		case times > 1:
			repeated++
		}
	}
	return missing, repeated
}

// struckAndDown returns the ends of leaders, and when NATS was down.
func (c *cast) struckAndDown() ([]strike, []outage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.strikes, c.outages
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
