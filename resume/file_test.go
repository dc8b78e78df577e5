package resume_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/resock/resock/internal/filelock"
	"github.com/resock/resock/resume"
)

// open opens a file of cursors, until the end of the test.
func open(t *testing.T, name string) *resume.File {
	t.Helper()
	file, err := resume.OpenFile(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	return file
}

func load(t *testing.T, file *resume.File) []resume.Position {
	t.Helper()
	cursors, err := file.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return cursors
}

func save(t *testing.T, file *resume.File, cursors ...resume.Position) {
	t.Helper()
	if err := file.Save(context.Background(), cursors); err != nil {
		t.Fatal(err)
	}
}

// TestFile stores what is hard to write in a line.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	file := open(t, name)
	if got := load(t, file); got != nil {
		t.Errorf("a file that is not there has %v", got)
	}
	want := []resume.Position{
		{},
		{Stream: "trades BTC", Epoch: "e", Seq: math.MaxUint64},
		{Stream: "line\nbreak \"quoted\" \\", Token: "\xff\x00\xfe €"},
		{Stream: strings.Repeat("long ", 100_000), Seq: 1},
	}
	save(t, file, want...)
	if got := load(t, file); !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	save(t, file)
	if got := load(t, file); got != nil {
		t.Errorf("got %v, want none", got)
	}
	if info, err := os.Stat(name); err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("the file is open to others: %v, %v", info.Mode(), err)
	}
}

func TestFileHasOneOwner(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	first := open(t, name)
	if _, err := resume.OpenFile(name); !errors.Is(err, filelock.ErrLocked) || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want that it is in use", err)
	}
	_ = first.Close()
	open(t, name)
	if _, err := resume.OpenFile(filepath.Join(t.TempDir(), "no", "folder")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no folder", err)
	}
}

// TestLinkToFile keeps a link, which may point to nothing yet, and saves where it points.
func TestLinkToFile(t *testing.T) {
	folder := t.TempDir()
	name, link := filepath.Join(folder, "cursors"), filepath.Join(folder, "link")
	other := filepath.Join(folder, "other")
	if err := errors.Join(os.Symlink("cursors", link), os.Symlink(link, other)); err != nil {
		t.Skip(err) // Windows may forbid it
	}
	file := open(t, other)
	if _, err := resume.OpenFile(name); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("got %v, want that it is in use", err)
	}
	save(t, file, resume.Position{Seq: 1})
	_ = file.Close()
	if got := load(t, open(t, name)); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("got %v, want 1", got)
	}
	if err := errors.Join(os.Remove(name), os.Symlink("link", name)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(t, link).Load(context.Background()); err == nil {
		t.Error("a circle of links: got nil, want an error")
	}
}

// TestClosedFile leaves a file to its next owner, though the timer of a feed still saves.
func TestClosedFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	first := open(t, name)
	_ = first.Close()
	second := open(t, name)
	save(t, second, resume.Position{Seq: 7})
	err := first.Save(context.Background(), []resume.Position{{Seq: 1}})
	if !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), name) {
		t.Errorf("got %v, want that it is closed", err)
	}
	if got := load(t, second); len(got) != 1 || got[0].Seq != 7 {
		t.Errorf("got %v, want 7", got)
	}
}

// TestTornFile cuts a file after each of its bytes, and changes each of them: that is an
// error, and never other cursors.
func TestTornFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	file := open(t, name)
	save(t, file, resume.Position{Stream: "a", Seq: 12}, resume.Position{Stream: "b", Token: "t"})
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	try := func(text []byte) {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cursors, err := file.Load(context.Background())
		if err == nil {
			t.Fatalf("got %v of %q, want an error", cursors, text)
		}
		if !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "remove it") {
			t.Fatalf("the error does not help: %v", err)
		}
	}
	for n := range whole {
		try(whole[:n])
		changed := append([]byte(nil), whole...)
		changed[n] ^= 1
		try(changed)
	}
	try(append(whole, '\n'))
}

// TestKilledBeforeRename finds what a process leaves that is killed at any byte of a Save:
// a part of the new file beside the old one.
func TestKilledBeforeRename(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	file := open(t, name)
	save(t, file, resume.Position{Seq: 2})
	next, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	save(t, file, resume.Position{Seq: 1})
	for n := range len(next) + 1 {
		if err := os.WriteFile(name+".new", next[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		if got := load(t, file); len(got) != 1 || got[0].Seq != 1 {
			t.Fatalf("with %d bytes of the new file: got %v", n, got)
		}
	}
	save(t, file, resume.Position{Seq: 3})
	if got := load(t, file); len(got) != 1 || got[0].Seq != 3 {
		t.Errorf("got %v, want 3", got)
	}
}

// TestFileErrors keeps the old cursors when the new ones cannot be written.
func TestFileErrors(t *testing.T) {
	name := filepath.Join(t.TempDir(), "cursors")
	file := open(t, name)
	save(t, file, resume.Position{Seq: 1})
	if err := os.Mkdir(name+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := file.Save(context.Background(), []resume.Position{{Seq: 2}}); err == nil {
		t.Error("got nil, want an error")
	}
	if got := load(t, file); len(got) != 1 || got[0].Seq != 1 {
		t.Errorf("got %v, want the old cursor", got)
	}
	_ = os.Remove(name)
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Load(context.Background()); err == nil {
		t.Error("a folder: got nil, want an error")
	}
}

// TestKilled kills a process in the middle of its saves, again and again. The file then
// has the last cursor that was told to be saved, or the one after that.
func TestKilled(t *testing.T) {
	const variable = "RESOCK_TEST_CURSORS"
	if name := os.Getenv(variable); name != "" {
		saves(t, name)
		return
	}
	kills := 10
	if testing.Short() {
		kills = 2
	}
	name := filepath.Join(t.TempDir(), "cursors")
	saved := uint64(0)
	for range kills {
		saved = killed(t, exec.Command(os.Args[0], "-test.run", "^TestKilled$"), variable+"="+name, saved)
		file := open(t, name)
		got := load(t, file)
		if len(got) != 100 {
			t.Fatalf("%d cursors, want 100", len(got))
		}
		for _, p := range got {
			if p.Seq != got[0].Seq || p.Seq < saved || p.Seq > saved+1 {
				t.Fatalf("the cursor is %v, and %d was saved", p, saved)
			}
		}
		saved = got[0].Seq
		_ = file.Close()
	}
}

// killed runs a process that saves, kills it after some saves, and returns the last one
// that it told.
func killed(t *testing.T, process *exec.Cmd, variable string, saved uint64) uint64 {
	t.Helper()
	process.Env = append(os.Environ(), variable)
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(output)
	kill := 1 + rand.IntN(20)
	for n := 0; lines.Scan(); n++ {
		if _, err := fmt.Sscanf(lines.Text(), "saved %d", &saved); err != nil {
			t.Fatalf("the process says %q", lines.Text())
		}
		if n == kill {
			_ = process.Process.Kill()
		}
	}
	_ = process.Wait()
	return saved
}

// saves saves until the process is killed.
func saves(t *testing.T, name string) {
	file := open(t, name)
	n := uint64(0)
	if cursors := load(t, file); len(cursors) > 0 {
		n = cursors[0].Seq
	}
	cursors := make([]resume.Position, 100)
	for {
		n++
		for i := range cursors {
			cursors[i] = resume.Position{Stream: fmt.Sprint(i), Seq: n}
		}
		save(t, file, cursors...)
		fmt.Printf("saved %d\n", n)
	}
}
