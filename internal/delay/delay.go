// Package delay computes the delays between connection attempts. It is a package of
// its own so that the simulation of a fleet runs the same code as the client.
package delay

import (
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Bounds returns an exponential backoff without jitter: initial, doubled with each
// failure, but never above max. [Schedule.Draw] draws the delays below these bounds.
// The jitter of cenkalti/backoff would exceed max, because it is applied after the cap.
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

// SlowVerbatim is the least delay of a slow retry if the schedule is verbatim, since the
// maximum of the backoff is unknown then.
const SlowVerbatim = 30 * time.Second

// Schedule configures how delays are drawn.
type Schedule struct {
	Max      time.Duration // of the backoff; a slow retry takes at least half of it
	Verbatim bool          // the bounds of the backoff are the delays, without jitter
}

// Wish is what a retry policy asks of the next delay.
type Wish struct {
	Slow   bool          // a slow retry, as after an error that will not go away soon
	Floor  time.Duration // least delay; not negative
	Spread float64       // factor that widens the jitter; 0 means 1
}

// Draw returns the next delay, given the backoff's bound and a random number in [0, 1).
// Unless the schedule is verbatim, the delay is uniformly distributed below the bound
// (full jitter). Only a floor, or a spread above 1, can make it exceed s.Max.
//
// The jitter is added to the floor: a busy server sends all clients the same
// Retry-After, and without jitter they would all return at the same moment, again and
// again.
func (s Schedule) Draw(w Wish, bound time.Duration, random float64) time.Duration {
	if s.Verbatim {
		if w.Slow {
			bound = max(bound, SlowVerbatim)
		}
		return max(w.Floor, bound)
	}
	spread := w.Spread
	if !(spread > 0) { // or if it is NaN
		spread = 1
	}
	wait := min(w.Floor, longest) + Scale(min(bound, s.Max), random*spread)
	if w.Slow { // in the upper half of the maximum: slow, but clients still spread out
		wait = max(wait, Scale(s.Max, (0.5+random/2)*spread))
	}
	return wait
}

// longest bounds durations, so that the sum of two does not overflow.
const longest time.Duration = 1 << 61

// Scale returns d multiplied by factor, but at most 1<<61 ns, so that it cannot overflow.
func Scale(d time.Duration, factor float64) time.Duration {
	if product := float64(d) * factor; product < float64(longest) {
		return time.Duration(product)
	}
	return longest // also if the product is NaN
}
