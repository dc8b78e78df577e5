package resock

import (
	"errors"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// Outcomes are told in order, also around a function that ends its goroutine.
func TestTellerKeepsTheOrder(t *testing.T) {
	var teller teller
	var got []int
	for i := range 100 {
		teller.tell(func(err error) {
			if got = append(got, i); err == nil {
				t.Error("no outcome")
			}
			if i%10 == 3 {
				runtime.Goexit()
			}
		}, errors.New("outcome"))
	}
	teller.join()
	want := make([]int, 100)
	for i := range want {
		want[i] = i
	}
	if !slices.Equal(got, want) || teller.untold() != 0 {
		t.Errorf("told %v", got)
	}
}

// A function that does not return is waited for once, and not for long.
func TestTellerLosesPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		teller := teller{hooks: &hooks{log: silence}}
		release := make(chan struct{})
		wait := func() time.Duration {
			began := time.Now()
			teller.wait()
			return time.Since(began)
		}
		if took := wait(); took != 0 {
			t.Errorf("nothing was to be told, and that took %v", took)
		}
		teller.tell(func(error) { <-release }, nil)
		for i, want := range []time.Duration{patience, 0, 0} {
			if took := wait(); took != want {
				t.Errorf("wait %d took %v, want %v", i, took, want)
			}
		}
		close(release)
		synctest.Wait()
		teller.tell(func(error) { time.Sleep(time.Millisecond) }, nil)
		if took := wait(); took != time.Millisecond {
			t.Errorf("waited %v for a function that returns", took)
		}
		abort := make(chan struct{})
		teller.hooks.abort = abort
		close(abort)
		teller.tell(func(error) { time.Sleep(time.Millisecond) }, nil)
		if took := wait(); took != 0 {
			t.Errorf("waited %v in spite of the abort", took)
		}
		teller.join()
	})
}
