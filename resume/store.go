package resume

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Store keeps the cursors of a feed from one start of the process to the next. A feed
// calls one method at a time.
type Store interface {
	// Load returns what was saved last: at most one position for each stream.
	Load(ctx context.Context) ([]Position, error)

	// Save replaces what is stored. When it returns nil, a crash must not lose it; when it
	// returns an error, either the new cursors or the old ones are stored. Stream, Epoch,
	// Seq and Token are to be kept. The slice belongs to the store.
	Save(ctx context.Context, cursors []Position) error
}

// saver saves the cursors of a feed.
type saver struct {
	feed   *Feed
	store  Store // or nil
	every  time.Duration
	turn   chan struct{} // has a place for who saves
	failed chan error    // the last failure of a timer

	mu      sync.Mutex
	timer   *time.Timer
	armed   bool
	version uint64 // of the cursors
	saved   uint64
}

func (s *saver) init(f *Feed, store Store, every time.Duration) {
	s.feed, s.store, s.every = f, store, every
	if every == 0 {
		s.every = time.Second
	}
	s.turn, s.failed = make(chan struct{}, 1), make(chan error, 1)
}

// changed notes that the cursors have changed.
func (s *saver) changed() {
	if s.store == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.arm()
}

// arm lets a timer save; mu is held.
func (s *saver) arm() {
	switch {
	case s.every < 0 || s.armed:
		return
	case s.timer == nil:
		s.timer = time.AfterFunc(s.every, s.due)
	default:
		s.timer.Reset(s.every)
	}
	s.armed = true
}

// due saves when the timer fires.
func (s *saver) due() {
	s.mu.Lock()
	s.armed = false
	s.mu.Unlock()
	err := s.save(context.Background())
	if err == nil {
		return
	}
	select {
	case <-s.failed: // an older one
	default:
	}
	select {
	case s.failed <- err:
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arm()
}

// save saves the cursors if they have changed.
func (s *saver) save(ctx context.Context) error {
	if s.store == nil {
		return nil
	}
	if err := s.await(ctx); err != nil {
		return err
	}
	defer func() { <-s.turn }()
	s.mu.Lock()
	version := s.version
	clean := version == s.saved
	s.mu.Unlock()
	if clean {
		return nil
	}
	if err := s.store.Save(ctx, s.feed.cursors()); err != nil {
		return fmt.Errorf("resume: save the cursors: %w", err)
	}
	select {
	case <-s.failed: // that is over
	default:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.saved = version
	return nil
}

// await waits for the turn to save. If that is free, a context that has ended does not
// matter: the store is to judge it.
func (s *saver) await(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("resume: save the cursors: %w while the store was busy", context.Cause(ctx))
	}
}
