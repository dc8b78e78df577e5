package resock

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// blocked adds up the time for which delivery waited, and knows for whom it waits
// now.
type blocked struct {
	mu    sync.Mutex
	by    *subscriber // or nil
	since time.Time
	total time.Duration
	timer *time.Timer // of the log
}

// begin notes that delivery waits for s from now on.
func (b *blocked) begin(log *slog.Logger, s *subscriber) {
	logged := log.Enabled(context.Background(), slog.LevelWarn) // asks the application
	b.mu.Lock()
	defer b.mu.Unlock()
	b.by, b.since = s, time.Now()
	switch {
	case b.timer != nil:
		b.timer.Reset(blockedLogAfter)
	case logged:
		b.timer = time.AfterFunc(blockedLogAfter, func() {
			if by, _ := b.now(); by != "" {
				log.Warn("a subscriber blocks delivery", "subscriber", by, "for", blockedLogAfter)
			}
		})
	}
}

// end notes that delivery goes on.
func (b *blocked) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += time.Since(b.since)
	b.by, b.since = nil, time.Time{}
	if b.timer != nil {
		b.timer.Stop()
	}
}

// add adds the time that a handler took.
func (b *blocked) add(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total += d
}

// now tells who blocks delivery now, or nobody, and since when.
func (b *blocked) now() (by string, since time.Time) {
	b.mu.Lock()
	s := b.by
	since = b.since
	b.mu.Unlock()
	if s == nil {
		return "", since
	}
	s.fanout.mu.Lock()
	defer s.fanout.mu.Unlock()
	return s.position(), since
}

// sum is the time for which delivery was blocked, in all.
func (b *blocked) sum() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.by != nil {
		return b.total + time.Since(b.since)
	}
	return b.total
}
