//go:build unix

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestMain plays a role if this process is one that the demonstration started.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// TestDemo runs the demonstration in short. How long a takeover takes is not tested: the
// machine may run other tests beside this one.
func TestDemo(t *testing.T) {
	for name, args := range map[string][]string{
		"resume":    nil,
		"standby":   {"-standby", "20000"},
		"no resume": {"-resume=false"},
	} {
		t.Run(name, func(t *testing.T) {
			short := []string{"-kills", "2", "-stops", "1", "-restarts", "2", "-cuts", "2", "-workers", "1",
				"-every", "200ms", "-rate", "300", "-limit", "30s"}
			c, _, err := parse(append(short, args...))
			if err != nil {
				t.Fatal(err)
			}
			if err := demonstrate(t.Context(), c, t.ArtifactDir(), t.Output()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	c := config{counts: counts{50, 20, 20, 200, 20}, seed: 7, every: time.Second, ttl: 2 * time.Second}
	var got counts
	signals := make(map[os.Signal]int)
	for _, f := range draw(c) {
		got[f.kind]++
		if f.kind == restartNATS {
			signals[f.signal]++
		}
		if f.after < c.every/2 || f.after > c.every*3/2 {
			t.Errorf("a pause of %v", f.after)
		}
	}
	if got != c.counts {
		t.Errorf("got %v, want %v", got, c.counts)
	}
	for signal, n := range signals {
		if n != c.counts[restartNATS]/2 {
			t.Errorf("NATS gets %d × %v", n, signal)
		}
	}
}

func TestPlanOfSeed(t *testing.T) {
	c := config{counts: counts{5, 5, 5, 5, 5}, seed: 7, every: time.Second, ttl: 2 * time.Second}
	first, second := draw(c), draw(c)
	for i := range first {
		if first[i] != second[i] {
			t.Fatalf("fault %d is %+v, and then %+v", i, first[i], second[i])
		}
	}
}

func TestChecker(t *testing.T) {
	const gap = -1 // a record at demo.gap; others are numbers
	for _, test := range []struct {
		name    string
		resume  bool
		records []int
		want    string
	}{
		{"in order", true, []int{1, 2, 3}, ""},
		{"missing", true, []int{1, 4, 5}, "2 to 3 are missing"},
		{"the first is missing", true, []int{2}, "1 is missing"},
		{"twice", true, []int{1, 2, 2, 3}, "2 stands after 2"},
		{"out of order", true, []int{1, 2, 1, 3}, "1 stands after 2"},
		{"a gap", true, []int{1, gap, 2}, "a gap after 1: {}"},
		{"holes that are told", false, []int{5, 6, gap, 9, gap, 10, gap, gap, 20}, ""},
		{"a hole that is not told", false, []int{1, gap, 2, 5}, "3 to 4 are missing, and no record says so"},
		{"twice without resume", false, []int{1, gap, 1}, "1 stands after 1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := checker{resume: test.resume}
			for _, n := range test.records {
				if n == gap {
					c.gap([]byte("{}"))
				} else {
					c.number(uint64(n))
				}
			}
			got := ""
			if err := c.faults.err(); err != nil {
				got = err.Error()
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestCheckerOfTerms(t *testing.T) {
	var c checker
	for _, term := range []uint64{3, 3, 7, 5, 7} {
		c.of(term)
	}
	if c.faults.count != 1 {
		t.Errorf("got %d faults, want that of term 5 after 7", c.faults.count)
	}
}

func TestFaultsAreFew(t *testing.T) {
	var f faults
	for n := range 8 {
		f.add("%d", n)
	}
	if got, want := f.err().Error(), "0; 1; 2; 3; 4; and 3 more"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTakeovers(t *testing.T) {
	start := time.Now().Add(-time.Hour)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(math.Round(seconds * 1e9))) }
	strikes := []strike{{at(10), 1}, {at(20), 2}, {at(30), 3}, {at(40), 5}, {at(60), 6}}
	begins := []begin{{at(0), 1}, {at(12), 2}, {at(21), 3}, {at(29), 4}, {at(32.5), 5}, {at(44), 6}, {at(63), 7}}
	outages := []outage{{at(41), at(42)}, {at(57), at(58)}}
	c := config{ttl: 2 * time.Second, limit: 3 * time.Second}
	got := measure(strikes, begins, outages, c)
	if want := "takeovers: median 2s, at most 2.5s, limit 3s (3; in 2 more NATS was down or slow)"; got.String() != want {
		t.Errorf("got  %v\nwant %s", got, want)
	}
	if err := got.err(); err != nil {
		t.Error(err)
	}
	if got := measure(strikes[:1], nil, nil, c); got.err() == nil {
		t.Error("a leader that was not replaced is no error")
	}
}

// TestEndWithParent closes the pipes that the parent holds, as its end does.
func TestEndWithParent(t *testing.T) {
	relay, parent := start(t, "relay", "nats://127.0.0.1:1", "ws://127.0.0.1:1") // it waits for NATS
	if err := relay.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waker, wakersParent := start(t, "waker", fmt.Sprint(relay.Process.Pid))
	_ = parent.Close()
	_ = wakersParent.Close()
	if err := waker.Wait(); err != nil {
		t.Errorf("the process that wakes the other ended with %v", err)
	}
	if _ = relay.Wait(); relay.ProcessState.ExitCode() != endedWithParent {
		t.Errorf("the stopped process ended with %v", relay.ProcessState)
	}
}

func start(t *testing.T, role string, args ...string) (*exec.Cmd, io.Closer) {
	t.Helper()
	process, input, err := command(role, args...)
	if err == nil {
		err = process.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = process.Process.Kill() })
	return process, input
}
