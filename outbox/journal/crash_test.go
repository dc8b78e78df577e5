package journal

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

// life is a script of puts, dones and restarts, and what it was told.
type life struct {
	disk   *memory
	config Config
	last   uint64            // number that was told
	put    map[uint64]string // told as stored, by number, and not done
	safe   map[uint64]bool   // put before the last interval ended
	tried  map[string]bool   // all ids
	left   []uint64          // in put, in order
}

func newLife(d *memory, policy Sync) *life {
	config := Config{Sync: policy, SegmentBytes: 700, Interval: time.Second}
	return &life{disk: d, config: config, put: map[uint64]string{}, safe: map[uint64]bool{}, tried: map[string]bool{}}
}

// run lives until the first error.
func (l *life) run() error {
	for part := range 3 {
		j, err := openDisk(l.disk, "folder", l.config)
		if err != nil {
			return err
		}
		for i := range 24 {
			if err := l.step(j, fmt.Sprintf("%d/%d", part, i), i); err != nil {
				_ = j.Close()
				return err
			}
		}
		if err := j.Close(); err != nil {
			return err
		}
		l.allSafe()
	}
	return nil
}

func (l *life) allSafe() {
	for n := range l.put {
		l.safe[n] = true
	}
}

func (l *life) step(j *Journal, id string, i int) error {
	l.tried[id] = true
	n, err := j.Put(context.Background(), id, resock.MessageText, []byte(strings.Repeat(id, 30)))
	if err != nil {
		return err
	}
	l.put[n], l.last = id, n
	l.left = append(l.left, n)
	if i%5 == 4 {
		time.Sleep(l.config.Interval) // which ends before
		synctest.Wait()
		if j.failure() == nil {
			l.allSafe()
		}
	}
	if i%2 == 0 || i%9 == 0 {
		return nil
	}
	// One is left of each few, so that files are both removed and written anew.
	var numbers []uint64
	for len(l.left) > 3 {
		k := len(l.left) - 2
		if l.left[k]%7 == 0 {
			k--
		}
		numbers = append(numbers, l.left[k])
		delete(l.put, l.left[k])
		l.left = append(l.left[:k], l.left[k+1:]...)
	}
	return j.Done(numbers...)
}

// check opens the disk after a crash, and asks that what was promised is there.
func (l *life) check(t *testing.T, d *memory, promised func(n uint64) bool) {
	t.Helper()
	j, err := openDisk(d, "folder", l.config)
	if err != nil {
		t.Fatalf("open after the crash: %v", err)
	}
	defer j.Close()
	found := map[uint64]string{}
	for _, r := range all(t, j) {
		found[r.Number] = r.ID
		if !l.tried[r.ID] || string(r.Data) != strings.Repeat(r.ID, 30) {
			t.Errorf("record %d is %q with %q", r.Number, r.ID, r.Data)
		}
	}
	for n, id := range l.put {
		if promised(n) && found[n] != id {
			t.Errorf("record %d is %q, want %q", n, found[n], id)
		}
	}
	n := put(t, j, "new", "new")
	if promised(l.last) && n <= l.last || found[n] != "" {
		t.Errorf("the new number is %d, the last one was %d", n, l.last)
	}
}

// TestCrash stops the process or the machine at each operation of a life.
func TestCrash(t *testing.T) {
	always := func(uint64) bool { return true }
	for policy := SyncAlways; policy <= SyncNever; policy++ {
		synctest.Test(t, func(t *testing.T) {
			for n := 1; ; n++ {
				l := newLife(newMemory(), policy)
				l.disk.crashAt = n
				err := l.run()
				l.check(t, l.disk.crashed(false), always)
				machines := []*memory{l.disk.crashed(true)}
				for seed := range uint64(10) {
					machines = append(machines, l.disk.crashedPartly(rand.New(rand.NewPCG(seed, uint64(n)))))
				}
				for _, machine := range machines {
					switch policy {
					case SyncAlways:
						l.check(t, machine, always)
					case SyncInterval:
						l.check(t, machine, func(n uint64) bool { return l.safe[n] })
					case SyncNever:
						l.check(t, machine, func(uint64) bool { return false })
					}
				}
				l.checkTwice(t, n)
				if t.Failed() {
					t.Fatalf("policy %d, stopped at operation %d", policy, n)
				}
				if err == nil {
					return
				}
			}
		})
	}
}

// checkTwice stops while the journal is opened after the crash, too.
func (l *life) checkTwice(t *testing.T, n int) {
	t.Helper()
	d := l.disk.crashed(false)
	d.crashAt = 1 + n%5
	if j, err := openDisk(d, "folder", l.config); err == nil {
		_ = j.Close()
	}
	l.check(t, d.crashed(false), func(uint64) bool { return true })
}

// TestLife asks that the script does what the crashes are to meet.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, met := newMemory(), map[string]int{}
		d.fail = func(operation, _ string) error { met[operation]++; return nil }
		l := newLife(d, SyncAlways)
		if err := l.run(); err != nil {
			t.Fatal(err)
		}
		if got := len(all(t, openIn(t, d, l.config))); got != len(l.put) {
			t.Errorf("%d records are left, want %d", got, len(l.put))
		}
		for _, operation := range []string{"create", "write", "sync", "sync folder", "remove", "rename"} {
			if met[operation] < 3 {
				t.Errorf("%s: %d times", operation, met[operation])
			}
		}
	})
}
