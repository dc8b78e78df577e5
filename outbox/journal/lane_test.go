package journal

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// TestLane lets one in at a time, whoever leaves while waiting.
func TestLane(t *testing.T) {
	l := newLane()
	inside, entered := 0, 0
	var wait sync.WaitGroup
	for n := range 64 {
		wait.Go(func() {
			for range 2000 {
				ctx, cancel := context.Background(), func() {}
				if n%4 == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Microsecond)
				}
				err := l.enter(ctx)
				if err == nil {
					if inside++; inside != 1 {
						t.Error("two at a time")
					}
					entered++
					inside--
					l.leave()
				} else if n%4 != 0 || !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	wait.Wait()
	if entered < 48*2000 {
		t.Errorf("%d entered, want all that have no deadline", entered)
	}
}
