//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"time"
)

// kind is what a fault does.
type kind int

const (
	killLeader kind = iota
	stopLeader
	restartNATS
	cutFeed
	killWorker
	kinds
)

func (k kind) String() string {
	return [...]string{"SIGKILL to the leader", "SIGSTOP to the leader", "restart of NATS", "cut of the feed", "SIGKILL to a worker"}[k]
}

// counts are how many faults there are of each kind.
type counts [kinds]int

func (c counts) String() string {
	parts := make([]string, kinds)
	for k, n := range c {
		parts[k] = fmt.Sprintf("%d × %v", n, kind(k))
	}
	return strings.Join(parts, ", ")
}

// fault is one fault of a plan.
type fault struct {
	kind   kind
	after  time.Duration  // the pause before it
	led    bool           // the pause begins when a relay leads; else the fault may hit one that has just begun
	signal syscall.Signal // to NATS
	down   time.Duration  // how long NATS is down
	worker int            // from 1
}

// workers is how many there are.
const workers = 2

// draw returns a plan with as many faults as the configuration asks for, in random order.
// The seed decides the plan; when a leader is there is not known before.
func draw(c config) []fault {
	random := rand.New(rand.NewPCG(c.seed, 0))
	var plan []fault
	for k, n := range c.counts {
		for i := range n {
			plan = append(plan, drawOne(random, c, kind(k), i))
		}
	}
	random.Shuffle(len(plan), func(i, j int) { plan[i], plan[j] = plan[j], plan[i] })
	return plan
}

// drawOne returns one fault. Every second restart is by SIGTERM, and in every third NATS is
// down for longer than the lease lasts.
func drawOne(random *rand.Rand, c config, k kind, i int) fault {
	f := fault{
		kind: k, after: c.every/2 + time.Duration(random.Int64N(int64(c.every))), led: random.IntN(2) == 0,
		signal: syscall.SIGKILL, down: 300 * time.Millisecond, worker: 1 + random.IntN(workers),
	}
	if i%2 == 1 {
		f.signal = syscall.SIGTERM
	}
	if i%3 == 2 {
		f.down = c.ttl * 3 / 2
	}
	return f
}
