//go:build unix

package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// takeovers is how long it took until a dead leader was replaced.
type takeovers struct {
	limit     time.Duration
	done      []takeover // the fastest first
	disturbed int        // not measured, since NATS was down or slow meanwhile or just before
}

// takeover is how long it took to replace the leader of a term.
type takeover struct {
	took time.Duration
	term uint64
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
		t.done = append(t.done, takeover{until.Sub(s.at), s.term})
	}
	slices.SortFunc(t.done, func(a, b takeover) int { return cmp.Compare(a.took, b.took) })
	return t
}

// disturbs reports whether an outage, or the time that its effects may last, meets a span.
func (o outage) disturbs(from, until time.Time, effects time.Duration) bool {
	return o.from.Before(until) && (o.to.IsZero() || o.to.Add(effects).After(from))
}

func (t takeovers) String() string {
	n := len(t.done)
	if n == 0 {
		return fmt.Sprintf("takeovers: %d, in all of which NATS was down or slow", t.disturbed)
	}
	return fmt.Sprintf("takeovers: median %v, at most %v, limit %v (%d; in %d more NATS was down or slow)",
		t.done[n/2].took.Round(time.Millisecond), t.done[n-1].took.Round(time.Millisecond), t.limit, n, t.disturbed)
}

// err returns an error if one took too long.
func (t takeovers) err() error {
	if len(t.done) == 0 {
		return nil
	}
	if last := t.done[len(t.done)-1]; last.took > t.limit {
		return fmt.Errorf("the leader of term %d was replaced after %v, want at most %v", last.term, last.took.Round(time.Millisecond), t.limit)
	}
	return nil
}
