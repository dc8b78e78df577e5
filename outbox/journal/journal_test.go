package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/filelock"
)

// openIn opens a journal on a disk, until the end of the test.
func openIn(t testing.TB, d disk, config Config) *Journal {
	t.Helper()
	j, err := openDisk(d, "folder", config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func openFolder(t testing.TB, name string, config Config) *Journal {
	t.Helper()
	j, err := Open(name, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func put(t testing.TB, j *Journal, id, data string) uint64 {
	t.Helper()
	n, err := j.Put(context.Background(), id, resock.MessageText, []byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func done(t testing.TB, j *Journal, numbers ...uint64) {
	t.Helper()
	if err := j.Done(numbers...); err != nil {
		t.Fatal(err)
	}
}

func closeNow(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// all reads what is not done, and checks that the numbers rise.
func all(t testing.TB, j *Journal) (records []Record) {
	t.Helper()
	var after uint64
	for {
		r, ok, err := j.Next(after)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return records
		}
		if r.Number <= after {
			t.Fatalf("Next(%d) has %d", after, r.Number)
		}
		records, after = append(records, r), r.Number
	}
}

// ids are those of records, in one line.
func ids(records []Record) string {
	var list []string
	for _, r := range records {
		list = append(list, r.ID)
	}
	return strings.Join(list, " ")
}

func wantIDs(t testing.TB, j *Journal, want string) {
	t.Helper()
	if got := ids(all(t, j)); got != want {
		t.Errorf("not done are %q, want %q", got, want)
	}
}

// TestJournal stores what is hard to store, and has it back after a restart.
func TestJournal(t *testing.T) {
	name := filepath.Join(t.TempDir(), "outgoing")
	j := openFolder(t, name, Config{})
	want := []Record{
		{1, "", resock.MessageText, nil},
		{2, "a", resock.MessageBinary, []byte{0, 255}},
		{3, strings.Repeat("i", mostID), resock.MessageText, bytes.Repeat([]byte("long "), 100_000)},
		{4, "a", resock.MessageText, []byte("an id may come again")},
	}
	for _, r := range want {
		n, err := j.Put(context.Background(), r.ID, r.Type, r.Data)
		if n != r.Number || err != nil {
			t.Fatalf("Put: got %d and %v, want %d", n, err, r.Number)
		}
	}
	compare := func(j *Journal) {
		t.Helper()
		got := all(t, j)
		if len(got) != len(want) {
			t.Fatalf("got %d records, want %d", len(got), len(want))
		}
		for i, r := range got {
			w := want[i]
			if r.Number != w.Number || r.ID != w.ID || r.Type != w.Type || !bytes.Equal(r.Data, w.Data) {
				t.Errorf("got record %d, %.10q, %v, %d bytes, want %d", r.Number, r.ID, r.Type, len(r.Data), w.Number)
			}
		}
	}
	compare(j)
	compare(j) // from the beginning again
	done(t, j, 2, 2, 99)
	want = append(want[:1:1], want[2:]...)
	compare(j)
	closeNow(t, j)
	j = openFolder(t, name, Config{})
	compare(j)
	if records, size := j.Len(); records != 3 || size < 500_000 {
		t.Errorf("Len: got %d and %d", records, size)
	}
	if got := j.Repairs(); got != nil {
		t.Errorf("repairs: %+v", got)
	}
}

// TestNumbers asks that no number comes twice, also when all is done.
func TestNumbers(t *testing.T) {
	d := newMemory()
	var last uint64
	for range 10 {
		j := openIn(t, d, Config{SegmentBytes: 1000})
		for range 30 {
			n := put(t, j, "id", strings.Repeat("x", 100))
			if n <= last {
				t.Fatalf("number %d after %d", n, last)
			}
			last = n
			done(t, j, n)
		}
		if records, size := j.Len(); records != 0 || size > 1200 {
			t.Errorf("all is done: Len has %d records and %d bytes", records, size)
		}
		closeNow(t, j)
	}
}

// TestRefused has what Put and Open refuse.
func TestRefused(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	j := openIn(t, newMemory(), Config{MaxBytes: 1000})
	for _, tt := range []struct {
		typ      resock.MessageType
		id, data string
	}{{0, "", ""}, {3, "", ""}, {resock.MessageText, strings.Repeat("i", mostID+1), ""}, {resock.MessageText, "", strings.Repeat("x", 500)}} {
		if _, err := j.Put(ctx, tt.id, tt.typ, []byte(tt.data)); err == nil || errors.Is(err, resock.ErrQueueFull) || errors.Is(err, ErrMaybeStored) {
			t.Errorf("Put(%d, %.10q, %.10q): got %v", tt.typ, tt.id, tt.data, err)
		}
	}
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = j.Put(ctx, "id", resock.MessageText, make([]byte, 74))
	}
	if n != 9 || !errors.Is(err, resock.ErrQueueFull) || errors.Is(err, ErrMaybeStored) {
		t.Errorf("Put %d at MaxBytes: %v", n, err)
	}
	done(t, j, 1, 2, 3, 4, 5, 6, 7, 8)
	put(t, j, "id", "there is room again")
	cancel()
	if _, err := j.Put(ctx, "id", resock.MessageText, nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrMaybeStored) {
		t.Errorf("Put with a context that ended: %v", err)
	}
	closeNow(t, j)
	closeNow(t, j)
	_, err = j.Put(context.Background(), "id", resock.MessageText, nil)
	_, _, errNext := j.Next(0)
	for _, err := range []error{err, errNext, j.Done(1)} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	}
}

// TestFolder has what Open says of the folder.
func TestFolder(t *testing.T) {
	parent := t.TempDir()
	name := filepath.Join(parent, "outgoing")
	j := openFolder(t, name, Config{})
	if _, err := Open(name, Config{}); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("a second owner: %v", err)
	}
	if runtime.GOOS != "windows" {
		for path, want := range map[string]os.FileMode{name: 0o700, filepath.Join(name, "00000001.log"): 0o600} {
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
				t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
			}
		}
	}
	closeNow(t, j)
	if _, err := Open(filepath.Join(parent, "not", "there"), Config{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no parent: %v", err)
	}
	if _, err := Open(filepath.Join(name, "00000001.log"), Config{}); err == nil {
		t.Error("a file in place of the folder: no error")
	}
	j = openFolder(t, name, Config{})
	if err := os.Rename(name, name+"2"); err != nil && runtime.GOOS == "windows" {
		return // it cannot vanish
	}
	_, err := j.Put(context.Background(), "id", resock.MessageText, nil)
	if !errors.Is(err, ErrMaybeStored) || !strings.Contains(err.Error(), "removed or replaced") {
		t.Errorf("the folder is gone: %v", err)
	}
	_, err = j.Put(context.Background(), "id", resock.MessageText, nil)
	if err == nil || errors.Is(err, ErrMaybeStored) {
		t.Errorf("then: %v", err)
	}
}

// TestConcurrent puts, reads and does from many goroutines at once.
func TestConcurrent(t *testing.T) {
	for policy := SyncAlways; policy <= SyncNever; policy++ {
		j := openFolder(t, filepath.Join(t.TempDir(), "j"), Config{Sync: policy, SegmentBytes: 20_000, Interval: 1})
		const writers, each = 16, 200
		var wait sync.WaitGroup
		for w := range writers {
			wait.Go(func() {
				for i := range each {
					put(t, j, fmt.Sprintf("%d/%d", w, i), strings.Repeat("x", i))
				}
			})
		}
		next := make([]int, writers)
		for got, after := 0, uint64(0); got < writers*each && !t.Failed(); {
			r, ok, err := j.Next(after)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				runtime.Gosched()
				continue
			}
			var w, i int
			if _, err := fmt.Sscanf(r.ID, "%d/%d", &w, &i); err != nil || i != next[w] || len(r.Data) != i {
				t.Fatalf("record %d is %q with %d bytes, want %d of %d", r.Number, r.ID, len(r.Data), next[w], w)
			}
			next[w]++
			after = r.Number
			got++
			if i%50 != 0 {
				wait.Go(func() { done(t, j, r.Number) })
			}
		}
		wait.Wait()
		if records, _ := j.Len(); records != writers*each/50 {
			t.Errorf("policy %d: %d records are left", policy, records)
		}
		want := ids(all(t, j))
		closeNow(t, j)
		wantIDs(t, openFolder(t, strings.TrimSuffix(j.folder, "/"), Config{}), want)
	}
}
