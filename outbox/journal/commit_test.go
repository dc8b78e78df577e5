package journal

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

// holdSync has the next sync wait until the function is called.
func (m *memory) holdSync(syncs *int) (goOn func()) {
	held := make(chan struct{})
	m.fail = func(operation, _ string) error {
		if operation == "sync" {
			*syncs++
			<-held
		}
		return nil
	}
	return func() { close(held) }
}

// TestGroup has puts come while a sync is under way: they share the next one.
func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, syncs := newMemory(), 0
		j := openIn(t, d, Config{})
		goOn := d.holdSync(&syncs)
		var wait sync.WaitGroup
		for i := range 20 {
			wait.Go(func() { put(t, j, fmt.Sprintf("id%d", i), "") })
			synctest.Wait()
		}
		if _, ok, _ := j.Next(0); ok {
			t.Error("a record that is not synced is there")
		}
		goOn()
		wait.Wait()
		if records, _ := j.Len(); records != 20 || syncs != 2 {
			t.Errorf("%d records with %d syncs, want 20 with 2", records, syncs)
		}
	})
}

// TestContext ends the context of a Put that waits: it may be stored, and here is.
func TestContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, syncs := newMemory(), 0
		j := openIn(t, d, Config{})
		goOn := d.holdSync(&syncs)
		var wait sync.WaitGroup
		wait.Go(func() { put(t, j, "first", "") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, err := j.Put(ctx, "second", resock.MessageText, nil)
		if !errors.Is(err, ErrMaybeStored) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		goOn()
		wait.Wait()
		wantIDs(t, j, "first second")
	})
}

// TestGroupFails has a sync fail that others wait for, and others wait behind: those may
// be stored, these are not.
func TestGroupFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newMemory()
		j := openIn(t, d, Config{})
		held := make(chan struct{})
		d.fail = func(operation, _ string) error {
			if operation == "sync" {
				<-held
				return errBroken
			}
			return nil
		}
		errs := make([]error, 5)
		var wait sync.WaitGroup
		for i := range errs {
			wait.Go(func() { _, errs[i] = j.Put(context.Background(), "id", resock.MessageText, nil) })
			synctest.Wait()
		}
		close(held)
		wait.Wait()
		for i, err := range errs {
			if !errors.Is(err, errBroken) || errors.Is(err, ErrMaybeStored) != (i == 0) {
				t.Errorf("Put %d: %v", i, err)
			}
		}
		if err := j.Close(); !errors.Is(err, errBroken) {
			t.Errorf("Close: %v", err)
		}
	})
}

// TestInterval asks for one sync an interval, while there is something to sync, which has
// all files, and tells of one that failed.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, syncs := newMemory(), map[string]int{}
		config := Config{Sync: SyncInterval, SegmentBytes: 200}
		j := openIn(t, d, config)
		broken := false
		d.fail = func(operation, name string) error {
			if operation == "sync" {
				if syncs[name]++; broken {
					return errBroken
				}
			}
			return nil
		}
		seen := func() map[string]int {
			d.mu.Lock()
			defer d.mu.Unlock()
			return maps.Clone(syncs)
		}
		for range 10 {
			put(t, j, "id", "twenty bytes of data")
		}
		if got := seen(); len(got) != 0 {
			t.Errorf("synced at once: %v", got)
		}
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if got := seen(); len(got) < 2 || len(got) != len(d.names) {
			t.Errorf("synced %v of %d files", got, len(d.names))
		}
		time.Sleep(time.Hour)
		for name, n := range seen() {
			if n != 1 {
				t.Errorf("%s was synced %d times", name, n)
			}
		}
		if got := len(all(t, openIn(t, d.crashed(true), config))); got != 10 {
			t.Errorf("%d records after a crash", got)
		}
		d.mu.Lock()
		broken = true
		d.mu.Unlock()
		put(t, j, "id", "")
		time.Sleep(time.Second)
		if _, err := j.Put(context.Background(), "id", resock.MessageText, nil); !errors.Is(err, errBroken) {
			t.Errorf("Put after a sync failed: %v", err)
		}
	})
}
