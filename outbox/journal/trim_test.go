package journal

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"

	"github.com/resock/resock"
)

// TestTrim asks that files go when all in them is done, from the first on.
func TestTrim(t *testing.T) {
	d := newMemory()
	j := openIn(t, d, Config{SegmentBytes: 1000})
	for range 100 {
		put(t, j, "id", strings.Repeat("x", 100))
	}
	files := len(d.names)
	for n := uint64(100); n > 1; n-- {
		done(t, j, n)
		if n > 80 && len(d.names) < files {
			t.Fatalf("%d files after %d was done, %d before", len(d.names), n, files)
		}
	}
	done(t, j, 1)
	if _, size := j.Len(); len(d.names) != 1 || size > 10_000 {
		t.Errorf("all is done: %d files, %d bytes", len(d.names), size)
	}
	wantIDs(t, j, "")
}

// TestRewrite leaves few records in many files: they become few files, with the same
// numbers, also while another reads, and after a restart.
func TestRewrite(t *testing.T) {
	d, config := newMemory(), Config{SegmentBytes: 2000}
	j := openIn(t, d, config)
	var want []string
	for i := range 2000 {
		id := fmt.Sprintf("id%d", i)
		n := put(t, j, id, strings.Repeat("x", i%50))
		if i%100 == 17 {
			want = append(want, id)
		} else {
			done(t, j, n)
		}
		if i%7 == 0 {
			_, _, err := j.Next(n / 2) // leaves a file open
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	wantIDs(t, j, strings.Join(want, " "))
	records, size := j.Len()
	if records != len(want) || size > 5*2000 || len(d.names) > 8 {
		t.Errorf("Len: %d records of %d, %d bytes in %d files", records, len(want), size, len(d.names))
	}
	var stored int64
	for _, c := range d.names {
		stored += int64(len(c.data))
	}
	if stored != size {
		t.Errorf("the files have %d bytes, Len %d", stored, size)
	}
	closeNow(t, j)
	j = openIn(t, d, config)
	wantIDs(t, j, strings.Join(want, " "))
	if _, again := j.Len(); again != size {
		t.Errorf("Len: %d bytes, want %d", again, size)
	}
}

// TestRewriteFull asks that one record that is never done does not fill the journal.
func TestRewriteFull(t *testing.T) {
	j := openIn(t, newMemory(), Config{MaxBytes: 20_000, SegmentBytes: 2000})
	put(t, j, "stuck", "")
	for range 1000 {
		done(t, j, put(t, j, "id", strings.Repeat("x", 500)))
	}
	wantIDs(t, j, "stuck")
}

// TestRewriteFails breaks each operation of rewriting: nothing is lost, and it is done
// later, or when the journal is opened again.
func TestRewriteFails(t *testing.T) {
	for _, operation := range []string{"create", "write", "sync", "rename", "sync folder", "remove", "read"} {
		d, config, armed, met := newMemory(), Config{Sync: SyncNever, SegmentBytes: 1000}, false, 0
		d.fail = func(op, name string) error {
			rewriting := strings.HasSuffix(name, suffixNew) || op == "sync folder" || op == "remove" || op == "read"
			if armed && op == operation && rewriting {
				armed = false
				met++
				return errBroken
			}
			return nil
		}
		j, random := openIn(t, d, config), rand.New(rand.NewPCG(1, 0))
		var want []string
		for i := range 400 {
			id := fmt.Sprintf("id%d", i)
			n := put(t, j, id, strings.Repeat("x", 50))
			if armed = random.IntN(3) == 0; i%40 == 0 {
				want = append(want, id)
			} else if err := j.Done(n); err != nil && (!errors.Is(err, errBroken) || !strings.HasPrefix(err.Error(), "journal: ")) {
				t.Fatal(err)
			}
			if armed = false; j.failure() != nil {
				_ = j.Close()
				j = openIn(t, d, config)
			}
		}
		wantIDs(t, j, strings.Join(want, " "))
		if _, size := j.Len(); met == 0 || size > 10_000 {
			t.Errorf("%s: broken %d times, %d bytes are left", operation, met, size)
		}
		wantIDs(t, openIn(t, d.crashed(false), config), strings.Join(want, " "))
		if t.Failed() {
			t.Fatal(operation)
		}
	}
}

var many = flag.Int("resock.records", 100_000, "records of TestMany")

// TestMany opens and reads many records that are not done in little memory, and leaves a
// small folder when all are.
func TestMany(t *testing.T) {
	name := t.TempDir()
	config := Config{Sync: SyncNever, SegmentBytes: 1 << 20}
	j := openFolder(t, name, config)
	for i := range *many {
		if _, err := j.Put(context.Background(), "id", resock.MessageText, fmt.Appendf(nil, "%0100d", i)); err != nil {
			t.Fatal(err)
		}
	}
	closeNow(t, j)
	before := heap()
	j = openFolder(t, name, config)
	numbers := make([]uint64, 0, 100)
	read, after := 0, uint64(0)
	for ; ; read++ {
		r, ok, err := j.Next(after)
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		after = r.Number
	}
	if grown := heap() - before; read != *many || grown > 2<<20 {
		t.Errorf("%d records, and %d bytes of memory", read, grown)
	}
	for n := uint64(1); n <= uint64(*many); n++ {
		if numbers = append(numbers, n); len(numbers) == cap(numbers) {
			done(t, j, numbers...)
			numbers = numbers[:0]
		}
	}
	closeNow(t, j)
	j = openFolder(t, name, config)
	if records, size := j.Len(); records != 0 || size > chunk {
		t.Errorf("all is done: %d records, %d bytes", records, size)
	}
}

// heap is the memory in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
