package main

import (
	"fmt"
	"slices"
	"time"
)

// takeovers is how long it took until a dead leader was replaced.
type takeovers struct {
	limit     time.Duration
	times     []time.Duration // sorted
	disturbed int             // not measured, since NATS was down or slow meanwhile or just before
}

// measure returns how long it took from each end of a leader to the record that began the
// next term. NATS must not have been down or slow meanwhile, nor so shortly before that a relay may
// still wait for the answer to a request that was lost: that takes as long as the lease.
func measure(strikes []strike, begins []begin, outages []outage, c config) takeovers {
	t := takeovers{limit: c.limit}
	for _, s := range strikes {
		next := slices.IndexFunc(begins, func(b begin) bool { return b.term > s.term && b.at.After(s.at) })
		until := time.Now()
		if next >= 0 {
			until = begins[next].at
		}
		if slices.ContainsFunc(outages, func(o outage) bool { return o.disturbs(s.at, until, c.ttl+time.Second) }) {
			t.disturbed++
			continue
		}
		t.times = append(t.times, until.Sub(s.at))
	}
	slices.Sort(t.times)
	return t
}

// disturbs reports whether an outage, or the time that its effects may last, meets a span.
func (o outage) disturbs(from, until time.Time, effects time.Duration) bool {
	return o.from.Before(until) && (o.to.IsZero() || o.to.Add(effects).After(from))
}

func (t takeovers) String() string {
	if len(t.times) == 0 {
		return fmt.Sprintf("takeovers: %d, in all of which NATS was down or slow", t.disturbed)
	}
	return fmt.Sprintf("takeovers: median %v, at most %v, limit %v (%d; in %d more NATS was down or slow)",
		t.times[len(t.times)/2].Round(time.Millisecond), t.times[len(t.times)-1].Round(time.Millisecond),
		t.limit, len(t.times), t.disturbed)
}

// err returns an error if one took too long.
func (t takeovers) err() error {
	if n := len(t.times); n > 0 && t.times[n-1] > t.limit {
		return fmt.Errorf("a takeover took %v, want at most %v", t.times[n-1].Round(time.Millisecond), t.limit)
	}
	return nil
}
