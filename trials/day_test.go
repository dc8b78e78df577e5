package trials

import (
	"bytes"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

const day = 24 * time.Hour

// resockGoroutines returns how many goroutines run code of the library or were started
// by it.
func resockGoroutines() (n int) {
	stacks := make([]byte, 1<<20)
	for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
		if bytes.Contains(stack, []byte("github.com/resock/resock.")) {
			n++
		}
	}
	return n
}

func TestDayOfHeartbeats(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(30*time.Second, 10*time.Second))
		c := s.Accept()
		r.Open()
		for range 24 {
			time.Sleep(time.Hour)
			synctest.Wait()
			if n := resockGoroutines(); n != 1 {
				t.Fatalf("an open client has %d goroutines, want only that of Run", n)
			}
		}
		if stats := r.Stats(); stats.Fails != 0 || stats.State != resock.StateOpen || stats.RoundTrip < 0 {
			t.Errorf("after a day: got %+v, want one healthy session", stats)
		}
		// Jitter shortens each interval by up to a tenth.
		if n := len(c.Received().Pings); n < 2880 || n > 3200 {
			t.Errorf("%d pings in a day of 30 s intervals, want 2880 to 3200", n)
		}
	})
}

func TestDayOfReconnecting(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			_ = c.Push("push")
			time.Sleep(time.Minute)
			c.Drop()
		})
		r := rig.Reaching(t, s)
		sessions := uint64(0)
		for started := time.Now(); time.Since(started) < day; {
			sessions = r.Open().Session
			r.Message("push")
			if fail := r.Fail(resock.PhaseRead); fail.RetryIn > 20*time.Millisecond {
				t.Errorf("session %d: retry in %v after a stable session, want at most 20ms", sessions, fail.RetryIn)
			}
		}
		if sessions < 1430 {
			t.Errorf("%d sessions in a day, want at least 1430", sessions)
		}
	})
}

func TestDayWithoutAServer(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		client, err := resock.New(s.URL, rig.Reach(s))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(t.Context())
		time.Sleep(day)
		// With a bound of 30 s, the mean delay is 15 s.
		if attempts := client.Stats().Attempts; attempts < 5300 || attempts > 6300 {
			t.Errorf("%d attempts in a day, want about one every 15 s", attempts)
		}
		s.Restart()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Error(err)
		}
		if downtime := client.Stats().Downtime; downtime != 0 {
			t.Errorf("downtime %v before the first session, want 0", downtime)
		}
	})
}
