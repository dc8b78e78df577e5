package main

import (
	"testing"
	"time"
)

// TestHerd: after an outage of 10 s, the peak load of 10,000 clients with the default
// backoff is at most a fifth of what it would be without jitter.
func TestHerd(t *testing.T) {
	outage := 10 * time.Second
	for seed := range uint64(5) {
		jittered := simulate(with(fleet(10_000, outage), func(s *scenario) { s.seed = seed }))
		alone := simulate(with(fleet(10_000, outage), func(s *scenario) { s.seed, s.jitter = seed, none }))
		if got, most := jittered.peak(outage), alone.peak(outage)/5; got > most {
			t.Errorf("seed %d: %d attempts in the worst second, want at most %d", seed, got, most)
		}
		if len(jittered.back) != 10_000 || jittered.quantile(1) > outage+30*time.Second {
			t.Errorf("seed %d: %d clients back, the last at %v", seed, len(jittered.back), jittered.quantile(1))
		}
	}
}

// TestRetryAfterHerd: clients that get the same Retry-After do not return as a herd each
// time.
func TestRetryAfterHerd(t *testing.T) {
	sum := simulate(admission(10_000, 30*time.Second, false))
	literal := simulate(admission(10_000, 30*time.Second, true))
	if sum.quantile(1) > 4*time.Minute || sum.quantile(1)*2 > literal.quantile(1) {
		t.Errorf("all are back after %v with jitter on top, after %v without", sum.quantile(1), literal.quantile(1))
	}
}
