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
	stays  uint64            // each so many puts one is never done
}

func newLife(d *memory, policy Sync, seed uint64) *life {
	config := Config{Sync: policy, SegmentBytes: 700, Interval: time.Second}
	return &life{disk: d, config: config, put: map[uint64]string{}, safe: map[uint64]bool{}, tried: map[string]bool{}, stays: 5 + 2*seed}
}

// run lives until the first error.
func (l *life) run() error {
	for part := range 3 {
		j, err := openDisk(l.disk, "folder", l.config)
		if err != nil {
			return err
		}
		for i := range 32 {
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
	// Some are left, so that files are both removed and written anew.
	var numbers, left []uint64
	for k, n := range l.left {
		if k < len(l.left)-3 && n%l.stays != 1 {
			numbers = append(numbers, n)
			delete(l.put, n)
		} else {
			left = append(left, n)
		}
	}
	l.left = left
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

// TestCrash stops the process or the machine at each operation of some lives.
func TestCrash(t *testing.T) {
	for policy := SyncAlways; policy <= SyncNever; policy++ {
		for seed := range uint64(2) {
			synctest.Test(t, func(t *testing.T) {
				for n := 1; crash(t, policy, seed, n); n++ {
					if t.Failed() {
						t.Fatalf("policy %d, seed %d, stopped at operation %d", policy, seed, n)
					}
				}
			})
		}
	}
}

// crash stops a life at its n-th operation. more is false if it has not so many.
func crash(t *testing.T, policy Sync, seed uint64, n int) (more bool) {
	l := newLife(newMemory(), policy, seed)
	l.disk.crashAt = n
	err := l.run()
	all := func(uint64) bool { return true }
	promised := map[Sync]func(uint64) bool{
		SyncAlways:   all,
		SyncInterval: func(n uint64) bool { return l.safe[n] },
		SyncNever:    func(uint64) bool { return false },
	}[policy]
	l.check(t, l.disk.crashed(false), all)
	l.check(t, l.disk.crashed(true), promised)
	for seed := range uint64(5) {
		l.check(t, l.disk.crashedPartly(rand.New(rand.NewPCG(seed, uint64(n)))), promised)
	}
	l.checkTwice(t, n)
	return err != nil
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
		l := newLife(d, SyncAlways, 0)
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

// TestCrashNumbers asks that numbers go on after a crash of the machine at any time, even
// if nothing but the names of files was synced.
func TestCrashNumbers(t *testing.T) {
	d, config := newMemory(), Config{Sync: SyncNever, SegmentBytes: 300}
	j := openIn(t, d, config)
	for range 50 {
		done(t, j, put(t, j, "id", ""))
		first, _ := parseName(lastFile(d))
		for name := range d.names {
			if n, ok := parseName(name); ok {
				first = min(first, n)
			}
		}
		for seed := range uint64(10) {
			n := put(t, openIn(t, d.crashedPartly(rand.New(rand.NewPCG(seed, first))), config), "id", "")
			if n < first {
				t.Fatalf("number %d, after those below %d were done and removed", n, first)
			}
		}
	}
}
