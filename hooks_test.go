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

// A slow log handler misses no record, and one that is stuck delays nobody for long.
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
			t.Errorf("the record that blocks took %v, want the patience of the client", d)
		}
		if d := took(func() { log.Info("dropped") }); d != 0 {
			t.Errorf("the record after it took %v, want no time", d)
		}
		close(release)
		synctest.Wait()
		log.Info("again")
		if len(got) != 5 || got[4] != "again" {
			t.Errorf("logged %q, want 5 records, the last again", got)
		}
	})
}

// A hook that was abandoned is called again once it has returned, and not before.
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
			t.Errorf("got %d after %v, want the default 2 when patience ends", got, time.Since(began))
		}
		if got := ask(client, hookRetryPolicy, 3, func() int { return 1 }); got != 3 {
			t.Errorf("a hook that has not returned: got %d, want the default 3", got)
		}
		if got := ask(client, hookNetwork, 3, func() int { return 1 }); got != 1 {
			t.Errorf("another hook: got %d, want its answer 1", got)
		}
		close(release)
		synctest.Wait()
		if got := ask(client, hookRetryPolicy, 3, func() int { return 1 }); got != 1 {
			t.Errorf("a hook that has returned since: got %d, want its answer 1", got)
		}
		if got := ask(client, hookRetryPolicy, 3, func() int { runtime.Goexit(); return 1 }); got != 3 {
			t.Errorf("a hook that exits by Goexit: got %d, want the default 3", got)
		}
		client.hooks.Wait()
		for h, name := range map[hook]string{hookRetryPolicy: "WithRetryPolicy", hookBackoffPolicy: "WithBackoffPolicy", hookNetwork: "WithNetwork", hookHeartbeatMessage: "WithHeartbeatMessage"} {
			if h.String() != name {
				t.Errorf("hook %v has the name %s in the table", h, name)
			}
		}
	})
}

// lateNetwork is a network whose OnChange is slow to return the stop function.
type lateNetwork struct{ left int }

func (*lateNetwork) Online() bool { return true }

func (n *lateNetwork) OnChange(func()) (stop func()) {
	time.Sleep(5 * patience)
	return func() { n.left++ }
}

// Run calls the stop function of OnChange even if OnChange returned it too late.
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
			t.Errorf("the stop function of the network was called %d times, want 1", n.left)
		}
	})
}

// Outcomes are told in order, even if one result function exits by Goexit.
func TestTellerKeepsTheOrder(t *testing.T) {
	var teller teller
	var got []int
	for i := range 100 {
		teller.tell(func(err error) {
			if got = append(got, i); err == nil {
				t.Error("got no outcome")
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
		t.Errorf("outcomes told in the order %v, want %v", got, want)
	}
}

// A result function that does not return is waited for once, and not for long.
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
			t.Errorf("waiting took %v, want no time when nothing is left to tell", took)
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
			t.Errorf("waited %v, want 1ms for a function that returns", took)
		}
		abort := make(chan struct{})
		teller.hooks.abort = abort
		close(abort)
		teller.tell(func(error) { time.Sleep(time.Millisecond) }, nil)
		if took := wait(); took != 0 {
			t.Errorf("waited %v, want no time after an abort", took)
		}
		teller.join()
	})
}
