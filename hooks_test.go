package resock

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// logFunc is a log handler.
type logFunc func(slog.Record)

func (f logFunc) Handle(_ context.Context, r slog.Record) error { f(r); return nil }
func (f logFunc) Enabled(context.Context, slog.Level) bool      { return true }
func (f logFunc) WithAttrs([]slog.Attr) slog.Handler            { return f }
func (f logFunc) WithGroup(string) slog.Handler                 { return f }

// A log that is slow misses nothing, and one that is stuck holds up nobody for long.
func TestPatientLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		release := make(chan struct{})
		log := slog.New(newPatientHandler(logFunc(func(r slog.Record) {
			switch got = append(got, r.Message); r.Message {
			case "slow":
				time.Sleep(patience / 4)
			case "stuck":
				<-release
			case "exit":
				runtime.Goexit()
			}
		})))
		took := func(f func()) time.Duration {
			began := time.Now()
			f()
			return time.Since(began)
		}
		var both sync.WaitGroup
		both.Go(func() { log.Info("slow") })
		both.Go(func() { log.With("key", "value").WithGroup("group").Info("slow") })
		both.Wait()
		log.Info("exit")
		if d := took(func() { log.Info("stuck") }); d != patience {
			t.Errorf("the stuck one took %v", d)
		}
		if d := took(func() { log.Info("dropped") }); d != 0 {
			t.Errorf("the next one took %v", d)
		}
		close(release)
		synctest.Wait()
		log.Info("again")
		if len(got) != 5 || got[4] != "again" {
			t.Errorf("logged %q", got)
		}
	})
}

// A hook is asked again when it has returned, and not before.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := New("ws://server.test")
		if err != nil {
			t.Fatal(err)
		}
		release := make(chan struct{})
		began := time.Now()
		stuck := func() int { <-release; return 1 }
		if got := ask(client, hookRetryPolicy, 2, stuck); got != 2 || time.Since(began) != patience {
			t.Errorf("%d after %v", got, time.Since(began))
		}
		if got := ask(client, hookRetryPolicy, 3, func() int { return 1 }); got != 3 {
			t.Errorf("a stuck hook answers %d", got)
		}
		if got := ask(client, hookNetwork, 3, func() int { return 1 }); got != 1 {
			t.Errorf("another hook answers %d", got)
		}
		close(release)
		synctest.Wait()
		if got := ask(client, hookRetryPolicy, 3, func() int { return 1 }); got != 1 {
			t.Errorf("a hook that returned answers %d", got)
		}
		if got := ask(client, hookRetryPolicy, 3, func() int { runtime.Goexit(); return 1 }); got != 3 {
			t.Errorf("a hook that exits answers %d", got)
		}
		client.hooks.Wait()
		for h, name := range map[hook]string{hookRetryPolicy: "WithRetryPolicy", hookBackoffPolicy: "WithBackoffPolicy", hookNetwork: "WithNetwork", hookHeartbeatMessage: "WithHeartbeatMessage"} {
			if h.String() != name {
				t.Errorf("%v is %s", h, name)
			}
		}
	})
}

// lateNetwork takes its time to say how it is left.
type lateNetwork struct{ left int }

func (*lateNetwork) Online() bool { return true }

func (n *lateNetwork) OnChange(func()) (stop func()) {
	time.Sleep(5 * patience)
	return func() { n.left++ }
}

// Run does not leave its function with a network that was slow to take it.
func TestLateOnChangeIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(lateNetwork)
		c, err := New("ws://server.test", WithNetwork(n))
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(patience/2, func() { _ = c.Close(StatusNormalClosure, "") })
		_ = c.Run(context.Background())
		if n.left != 1 {
			t.Errorf("the network was left %d times", n.left)
		}
	})
}

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
