package resume_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// memory is a store in memory.
type memory struct {
	mu      sync.Mutex
	cursors []resume.Position
	err     error
	saves   int
	hangs   time.Duration
}

func (m *memory) Load(context.Context) ([]resume.Position, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors, m.err
}

func (m *memory) Save(ctx context.Context, cursors []resume.Position) error {
	m.mu.Lock()
	hangs := m.hangs
	m.mu.Unlock()
	select {
	case <-time.After(hangs):
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.err == nil {
		m.cursors = cursors
	}
	return m.err
}

// has saves, and expects what is stored then.
func (m *memory) has(w *world, want string) {
	w.Helper()
	if err := w.feed.Save(context.Background()); err != nil {
		w.Error(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var got []string
	for _, p := range m.cursors {
		got = append(got, p.String())
	}
	if got := strings.Join(got, ", "); got != want {
		w.Errorf("stored are %q, want %q", got, want)
	}
}

func (m *memory) saved() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

func (m *memory) breaks(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

// TestSaves saves once for many commits, a second after the first.
func TestSaves(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store})
		conn := w.start()
		for n := range 10 {
			text := fmt.Sprintf("a %d", n)
			w.commit(w.pushes(conn, text, text))
		}
		time.Sleep(time.Second - time.Nanosecond)
		synctest.Wait()
		if n := store.saved(); n != 0 {
			t.Errorf("saved %d times, want none yet", n)
		}
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		if n := store.saved(); n != 1 {
			t.Errorf("saved %d times, want once", n)
		}
		time.Sleep(time.Minute)
		store.has(w, "a 9")
		if n := store.saved(); n != 1 {
			t.Errorf("saved %d times, want once: nothing has changed", n)
		}
		w.feed.Remove("a")
		time.Sleep(time.Second)
		synctest.Wait()
		if n := store.saved(); n != 2 {
			t.Errorf("saved %d times, want twice", n)
		}
		store.has(w, "")
	})
}

// TestSavesWhileBusy saves a second after the first commit, not after the last one.
func TestSavesWhileBusy(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store})
		conn := w.start()
		for n := range 20 { // for 10 s
			text := fmt.Sprintf("a %d", n)
			w.commit(w.pushes(conn, text, text))
			time.Sleep(500 * time.Millisecond)
		}
		synctest.Wait()
		if n := store.saved(); n < 5 || n > 10 {
			t.Errorf("saved %d times in 10 s, want about once in each or two", n)
		}
	})
}

// TestLastStoreError tells a slow loop the last of several failures.
func TestLastStoreError(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store})
		conn := w.start()
		store.breaks(errors.New("no disk"))
		w.commit(w.pushes(conn, "a 1", "a 1"))
		time.Sleep(1500 * time.Millisecond)
		store.breaks(errors.New("no room"))
		time.Sleep(time.Second)
		w.sees("store: resume: save the cursors: no room")
		time.Sleep(2 * time.Second)
		store.breaks(nil)
		store.has(w, "a 1")
		w.pushes(conn, "a 2", "a 2") // the last failure is over
	})
}

// TestRestart lets another process go on, which gets all that was not saved.
func TestRestart(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
		conn := w.start()
		e := w.pushes(conn, "a/x 1; a/x 2; a/x 3", "a/x 1")
		w.commit(e)
		w.commit(w.sees("a/x 2"))
		store.has(w, "a x:2")
		w.commit(w.sees("a/x 3"))
		w.feed = w.make(resume.Config{Store: store})
		w.stop()
		w.asks("a x:2")
		w.next, w.stop = iter.Pull(w.follow())
		w.pushes(conn, "a/x 2; a/x 3; a/x 5", "open 1", "a/x 3", "[a 4-4: hole]", "a/x 5")
		if err := w.feed.Commit(e.(resume.Message).Position); err == nil {
			t.Error("a commit of a position of another process")
		}
	})
}

// TestEndSaves saves what was committed when the loop ends, and when it is left.
func TestEndSaves(t *testing.T) {
	for _, left := range []bool{false, true} {
		bubble(t, func(w *world) {
			store := new(memory)
			w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
			w.commit(w.pushes(w.start(), "a 1", "a 1"))
			if left {
				w.stop()
			} else {
				_ = w.client.Close(resock.StatusNormalClosure, "")
				w.sees("close")
				if event, ok := w.next(); ok {
					t.Errorf("got %s, want the end", show(event))
				}
			}
			if n := store.saved(); n != 1 {
				t.Errorf("saved %d times, want once", n)
			}
		})
	}
}

// TestStoreErrors tells each failure, and tries again.
func TestStoreErrors(t *testing.T) {
	bubble(t, func(w *world) {
		store := new(memory)
		w.feed = w.make(resume.Config{Store: store})
		conn := w.start()
		store.breaks(errors.New("no disk"))
		w.commit(w.pushes(conn, "a 1", "a 1"))
		const told = "store: resume: save the cursors: no disk"
		w.sees(told, told)
		if err := w.feed.Save(context.Background()); err == nil {
			t.Error("Save: got nil, want an error")
		}
		store.breaks(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if n := store.saved(); n != 4 {
			t.Errorf("saved %d times, want 4", n)
		}
		store.has(w, "a 1")
		w.pushes(conn, "a 2", "a 2")
		store.breaks(errors.New("no disk"))
		w.feed.Start(resume.Position{Stream: "a", Seq: 7})
		_ = w.client.Close(resock.StatusNormalClosure, "")
		w.sees("close", told)
	})
}

// TestStoreThatHangs delays the end of the loop for 5 s, and nothing else.
func TestStoreThatHangs(t *testing.T) {
	bubble(t, func(w *world) {
		store := &memory{hangs: time.Hour}
		w.feed = w.make(resume.Config{Store: store})
		conn := w.start()
		w.commit(w.pushes(conn, "a 1", "a 1"))
		time.Sleep(2 * time.Second)
		w.commit(w.pushes(conn, "a 2", "a 2"))
		started := time.Now()
		w.stop()
		if took := time.Since(started); took != 5*time.Second {
			t.Errorf("the loop ended after %v, want 5s", took)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.feed.Save(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Save: got %v, want the deadline", err)
		}
		time.Sleep(2 * time.Hour)
	})
}

// TestSaveWithEndedContext never says that a store was busy that was not.
func TestSaveWithEndedContext(t *testing.T) {
	bubble(t, func(w *world) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		for range 20 {
			store := new(memory)
			w.feed = w.make(resume.Config{Store: store, SaveEvery: -1})
			if err := w.feed.Save(ctx); err != nil {
				t.Fatalf("nothing has changed: got %v", err)
			}
			w.feed.Start(resume.Position{Stream: "a", Seq: 7})
			if err := w.feed.Save(ctx); err != nil && strings.Contains(err.Error(), "busy") {
				t.Fatalf("got %v", err)
			}
		}
	})
}
