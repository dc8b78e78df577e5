package main

import (
	"container/heap"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/delay"
)

// scenario is a fleet that loses its server at time 0.
type scenario struct {
	clients   int
	outage    time.Duration
	initial   time.Duration // of WithBackoff
	max       time.Duration
	jitter    jitter
	admits    int           // connections per second; 0 means no limit
	retryIn   time.Duration // Retry-After of the answer to others
	literal   bool          // wait for the maximum of jitter and Retry-After, not the sum
	seed      uint64
	announced bool // the server closed with 1012 (service restart)
}

// jitter is how a delay is derived from its bound.
type jitter int

const (
	full  jitter = iota // the library's own: uniform from 0 to the bound
	equal               // uniform from half the bound to the bound
	none                // the bound itself
)

func (j jitter) String() string { return [...]string{"full jitter", "equal jitter", "no jitter"}[j] }

// outcome is the result of a simulation.
type outcome struct {
	attempts []int           // per second since the loss
	back     []time.Duration // when clients reconnected, in order
	total    int             // attempts in all
}

// peak returns the largest number of attempts in a second after the outage.
func (o *outcome) peak(outage time.Duration) int {
	most := 0
	for _, n := range o.attempts[min(len(o.attempts), int(outage/time.Second)):] {
		most = max(most, n)
	}
	return most
}

// quantile returns when a share of the clients had reconnected.
func (o *outcome) quantile(share float64) time.Duration {
	return o.back[max(0, int(share*float64(len(o.back)))-1)]
}

// attempt is a client about to dial.
type attempt struct {
	at    time.Duration
	fails int // failed attempts before, and the lost session
}

// attempts is a heap of attempts, the earliest first.
type attempts []attempt

func (a attempts) Len() int           { return len(a) }
func (a attempts) Less(i, j int) bool { return a[i].at < a[j].at }
func (a attempts) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }
func (a *attempts) Push(x any)        { *a = append(*a, x.(attempt)) }
func (a *attempts) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// simulate runs a scenario. The decisions and, with full jitter, the delays are the
// library's own.
func simulate(s scenario) *outcome {
	lost := resock.Failure{Phase: resock.PhaseRead, Code: -1}
	if s.announced {
		lost = resock.Failure{Code: resock.StatusServiceRestart}
	}
	refused := resock.Failure{Phase: resock.PhaseTCP, Code: -1}
	busy := resock.Failure{Phase: resock.PhaseUpgrade, Status: http.StatusServiceUnavailable, RetryAfter: s.retryIn, Code: -1}

	wait := s.delays()
	queue := make(attempts, s.clients)
	for i := range queue {
		queue[i] = attempt{wait(lost, 0), 1}
	}
	heap.Init(&queue)
	o := &outcome{back: make([]time.Duration, 0, s.clients)}
	admitted, second := 0, -1
	for len(queue) > 0 {
		a := queue[0]
		now := o.count(a)
		if now != second {
			second, admitted = now, 0
		}
		switch {
		case a.at < s.outage:
			queue[0] = attempt{a.at + wait(refused, a.fails), a.fails + 1}
			heap.Fix(&queue, 0)
		case s.admits > 0 && admitted >= s.admits:
			queue[0] = attempt{a.at + wait(busy, a.fails), a.fails + 1}
			heap.Fix(&queue, 0)
		default:
			admitted++
			o.back = append(o.back, a.at)
			heap.Pop(&queue)
		}
	}
	return o
}

// count counts an attempt and returns its second.
func (o *outcome) count(a attempt) (second int) {
	second = int(a.at / time.Second)
	for len(o.attempts) <= second {
		o.attempts = append(o.attempts, 0)
	}
	o.attempts[second]++
	o.total++
	return second
}

// delays returns a function that draws the delay after a failure.
func (s *scenario) delays() func(f resock.Failure, fails int) time.Duration {
	random := rand.New(rand.NewPCG(s.seed, 1))
	bounds := boundTable(s.initial, s.max)
	schedule := delay.Schedule{Max: s.max}
	return func(f resock.Failure, fails int) time.Duration {
		bound := bounds[min(fails, len(bounds)-1)]
		d := resock.DefaultRetryPolicy(f)
		wish := delay.Wish{Slow: d.Action == resock.ActionRetrySlow, Floor: d.After, Spread: d.Spread}
		switch {
		case s.jitter == equal:
			return max(d.After, bound/2+delay.Scale(bound/2, random.Float64()))
		case s.jitter == none:
			return max(d.After, bound)
		case s.literal:
			wish.Floor = 0
			return max(d.After, schedule.Draw(wish, bound, random.Float64()))
		}
		return schedule.Draw(wish, bound, random.Float64())
	}
}

// boundTable returns the bounds of the backoff up to limit.
func boundTable(initial, limit time.Duration) []time.Duration {
	b := delay.Bounds(initial, limit)
	table := []time.Duration{b.NextBackOff()}
	for table[len(table)-1] < limit {
		table = append(table, b.NextBackOff())
	}
	return table
}
