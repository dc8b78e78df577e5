package resock

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// recorder is a log handler that takes its time.
type recorder struct {
	slog.Handler
	takes time.Duration

	mu   sync.Mutex
	told []string
}

func (r *recorder) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (r *recorder) Handle(_ context.Context, record slog.Record) error {
	time.Sleep(r.takes)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, record.Message)
	return nil
}

// Records wait for each other, but not for one that is stuck.
func TestPatienceWithTheLog(t *testing.T) {
	for _, test := range []struct {
		takes time.Duration
		want  []string
	}{
		{patience / 10, []string{"first", "second", "third"}},
		{10 * patience, []string{"first"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{Handler: slog.DiscardHandler, takes: test.takes}
			var c config
			WithLogger(slog.New(r)).apply(&c)
			var tasks sync.WaitGroup
			began := time.Now()
			tasks.Go(func() { c.log.Info("first") })
			synctest.Wait()
			tasks.Go(func() { c.log.Info("second") })
			c.log.Debug("is not enabled")
			tasks.Wait()
			c.log.Info("third")
			if took := time.Since(began); took > patience {
				t.Errorf("logging took %v", took)
			}
			time.Sleep(test.takes)
			r.mu.Lock()
			defer r.mu.Unlock()
			if !slices.Equal(r.told, test.want) {
				t.Errorf("with %v for each, the log is %q", test.takes, r.told)
			}
		})
	}
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
