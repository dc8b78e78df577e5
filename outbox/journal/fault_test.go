package journal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/resock/resock"
)

// TestDiskFull fills the disk at each byte: what was told as stored is there, what was not
// is not, and when there is room again, the journal goes on.
func TestDiskFull(t *testing.T) {
	for room := int64(headSize); room < 700; room++ {
		d := newMemory()
		d.limited, d.room = true, room
		j := openIn(t, d, Config{SegmentBytes: 300})
		var want []string
		full := 0
		for i := range 12 {
			id := fmt.Sprintf("id%d", i)
			_, err := j.Put(context.Background(), id, resock.MessageText, make([]byte, 10+i))
			switch {
			case err == nil:
				want = append(want, id)
			case errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrMaybeStored) && strings.Contains(err.Error(), "free space"):
				full++
			default:
				t.Fatal(err)
			}
		}
		if full == 0 && room < 550 {
			t.Errorf("the disk was never full")
		}
		d.limited = false
		put(t, j, "more", "")
		want = append(want, "more")
		wantIDs(t, j, strings.Join(want, " "))
		wantIDs(t, openIn(t, d.crashed(true), Config{}), strings.Join(want, " "))
		if t.Failed() {
			t.Fatalf("room for %d bytes", room)
		}
	}
}

// TestFaults breaks one operation: what it means for this Put, and for the next.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, operation string
		also            string // breaks, too
		policy          Sync
		maybe, refuses  bool
	}{
		{"a write", "write", "", SyncAlways, false, false},
		{"a write, and taking it back", "write", "truncate", SyncAlways, true, true},
		{"a write, and the sync after it was taken back", "write", "sync", SyncNever, true, true},
		{"a sync", "sync", "", SyncAlways, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newMemory()
			j := openIn(t, d, Config{Sync: tt.policy})
			put(t, j, "before", "")
			syncs := 0
			d.fail = func(operation, _ string) error {
				if operation == "sync" {
					syncs++
				}
				if operation == tt.operation || operation == tt.also {
					return errBroken
				}
				return nil
			}
			n, err := j.Put(context.Background(), "broken", resock.MessageText, nil)
			if !errors.Is(err, errBroken) || errors.Is(err, ErrMaybeStored) != tt.maybe {
				t.Errorf("Put: got %v, want ErrMaybeStored: %v", err, tt.maybe)
			}
			if n != 0 {
				t.Errorf("Put: number %d with an error", n)
			}
			d.fail = nil
			_, err = j.Put(context.Background(), "next", resock.MessageText, nil)
			if errors.Is(err, errBroken) != tt.refuses || errors.Is(err, ErrMaybeStored) {
				t.Errorf("the next Put: got %v, want an error: %v", err, tt.refuses)
			}
			if tt.refuses && !strings.Contains(err.Error(), "open it again") {
				t.Errorf("the next Put: %v", err)
			}
			if r, ok, err := j.Next(0); !ok || r.ID != "before" || err != nil {
				t.Errorf("Next: %+v, %v", r, err)
			}
			if err := j.Done(1); tt.refuses && !errors.Is(err, errBroken) {
				t.Errorf("Done: %v", err)
			}
			_ = j.Close()
			if _, err := j.Put(context.Background(), "late", resock.MessageText, nil); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Put after Close: %v", err)
			}
			if tt.refuses && syncs > 1 {
				t.Errorf("%d syncs", syncs)
			}
			put(t, openIn(t, d, Config{}), "again", "")
		})
	}
}

// TestReadOnly has a disk that nothing can be made on.
func TestReadOnly(t *testing.T) {
	d := newMemory()
	d.fail = func(operation, _ string) error {
		return &fs.PathError{Op: operation, Path: "folder", Err: fs.ErrPermission}
	}
	_, err := openDisk(d, "folder", Config{})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "writable") {
		t.Errorf("got %v", err)
	}
	d.fail = func(operation, name string) error {
		if operation == "create" {
			return fs.ErrPermission
		}
		return nil
	}
	if _, err := openDisk(d, "folder", Config{}); !errors.Is(err, fs.ErrPermission) || d.locked {
		t.Errorf("got %v, locked: %v", err, d.locked)
	}
}
