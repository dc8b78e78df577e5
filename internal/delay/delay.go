// Package delay draws the time to wait between attempts. It is apart from the
// client so that the simulation of a fleet runs on the very same code.
package delay

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Bounds returns the bounds of a capped exponential backoff: initial, doubled
// with each failure, never above max. Jitter is drawn below them by
// [Schedule.Draw]: the jitter of cenkalti/backoff is applied after its cap and
// would exceed the maximum.
func Bounds(initial, max time.Duration) backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = initial
	b.MaxInterval = max
	b.Multiplier = 2
	b.RandomizationFactor = 0
	b.MaxElapsedTime = 0 // never stop
	b.Reset()
	return b
}

// SlowVerbatim is the delay of a slow retry when the backoff's maximum is
// unknown.
const SlowVerbatim = 30 * time.Second

// Schedule tells how delays are drawn.
type Schedule struct {
	Max      time.Duration // of the backoff, and the delay of a slow retry
	Verbatim bool          // the bounds are delays already
}

// Wish is what a retry policy wants of the next delay.
type Wish struct {
	Slow   bool
	Floor  time.Duration // not negative
	Spread float64       // widens the jitter; 0 means 1
}

// Draw returns the time to wait below the backoff's bound, with random in
// [0, 1). Only a floor and a spread above 1 exceed the maximum.
//
// Jitter comes on top of a floor: a busy server tells all clients the same
// Retry-After, and without it they would all come back at the same moment, again
// and again.
func (s Schedule) Draw(w Wish, bound time.Duration, random float64) time.Duration {
	if s.Verbatim {
		if w.Slow {
			bound = max(bound, SlowVerbatim)
		}
		return max(w.Floor, bound)
	}
	spread := w.Spread
	if !(spread > 0) { // nor a number
		spread = 1
	}
	wait := min(w.Floor, longest) + Scale(min(bound, s.Max), random*spread)
	if w.Slow { // over the upper half of the maximum: slow, and still no herd
		wait = max(wait, Scale(s.Max, (0.5+random/2)*spread))
	}
	return wait
}

// longest is a bound of durations whose sum must not overflow.
const longest time.Duration = 1 << 61

// Scale multiplies without overflow.
func Scale(d time.Duration, factor float64) time.Duration {
	if product := float64(d) * factor; product < float64(longest) {
		return time.Duration(product)
	}
	return longest // or no number
}
