package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/resock/resock"
)

const mostSpare = 1 << 20 // bytes of a buffer that is kept

// batch is what one write and one sync store.
type batch struct {
	data        []byte
	first, last uint64 // numbers of the puts
	puts        uint64
	waiting     int           // Put calls
	done        chan struct{} // closed when err is set
	err         error
}

// enqueue adds a put to the batch that is written next.
func (j *Journal) enqueue(id string, typ resock.MessageType, data []byte) (*batch, uint64, error) {
	size := int64(headerSize + len(id) + len(data))
	switch {
	case j.closed:
		return nil, 0, j.errClosed()
	case j.failed != nil:
		return nil, 0, j.errFailed("not stored", j.failed)
	case j.total+size > j.config.MaxBytes:
		return nil, 0, fmt.Errorf("journal: not stored: %s has %d bytes, and %d more are beyond %d (MaxBytes): %w",
			j.folder, j.total, size, j.config.MaxBytes, resock.ErrQueueFull)
	case j.next >= mostNumber:
		return nil, 0, fmt.Errorf("journal: not stored: %s has no more numbers (begin with another folder)", j.folder)
	}
	b, number := j.openBatch(), j.next
	b.data = appendPut(b.data, number, id, typ, data)
	if b.puts == 0 {
		b.first = number
	}
	b.last = number
	b.puts++
	b.waiting++
	j.next++
	j.total += size
	return b, number, nil
}

func (j *Journal) enqueueDone(ranges []span) {
	b := j.openBatch()
	before := len(b.data)
	b.data = appendDone(b.data, ranges)
	j.total += int64(len(b.data) - before)
}

func (j *Journal) openBatch() *batch {
	if j.batch == nil {
		j.batch = &batch{data: j.spare[:0], done: make(chan struct{})}
		j.spare = nil
	}
	return j.batch
}

// await waits until b is stored, and stores it if nobody else is writing.
func (j *Journal) await(ctx context.Context, b *batch) error {
	select {
	case <-j.token:
		return j.lead(b)
	default:
	}
	select {
	case <-b.done:
		return b.err
	case <-j.token:
		return j.lead(b)
	case <-ctx.Done():
		j.mu.Lock()
		b.waiting--
		j.mu.Unlock()
		return fmt.Errorf("%w: the wait ended: %w", ErrMaybeStored, ctx.Err())
	}
}

// lead writes with the token. b is the batch that is written, or was written before.
func (j *Journal) lead(b *batch) error {
	_ = j.commit() // the error is that of the batch
	j.release()
	return b.err
}

// release gives the token back. If what is left has nobody who waits for it, and so would
// take the token, it is written before.
func (j *Journal) release() {
	for {
		j.mu.Lock()
		if j.batch == nil || j.batch.waiting > 0 {
			j.token <- struct{}{}
			j.mu.Unlock()
			return
		}
		j.mu.Unlock()
		_ = j.commit() // done records: they may be lost
	}
}

// commit writes the batch, if there is one. The caller has the token.
func (j *Journal) commit() error {
	j.mu.Lock()
	b, failed := j.batch, j.failed
	j.batch = nil
	j.mu.Unlock()
	if b == nil {
		return nil
	}
	if failed != nil {
		b.err = j.errFailed("not stored", failed)
	} else {
		b.err = j.store(b)
	}
	j.mu.Lock()
	if b.err != nil {
		j.total -= int64(len(b.data))
	} else {
		j.publish(b)
	}
	if cap(b.data) <= mostSpare {
		j.spare = b.data
	}
	b.data = nil
	full := j.failed == nil && j.active().full(j.config.SegmentBytes)
	j.mu.Unlock()
	close(b.done)
	if full {
		j.rotate()
	}
	return b.err
}

// publish makes a batch that was stored visible. The caller holds mu.
func (j *Journal) publish(b *batch) {
	s := j.active()
	s.size += int64(len(b.data))
	if b.puts == 0 {
		return
	}
	s.done.add(span{s.last + 1, b.first - 1}) // numbers of batches that failed
	s.last = b.last
	s.puts += b.puts
	if j.config.Sync == SyncInterval && j.timer == nil && !j.closed {
		j.timers.Add(1)
		j.timer = time.AfterFunc(j.config.Interval, j.syncLater)
	}
}

// full reports whether the next segment may begin: it needs a number of its own.
func (s *segment) full(most int64) bool { return s.size >= most && s.last >= s.first }

// store writes a batch to the end of the active file.
func (j *Journal) store(b *batch) error {
	j.mu.Lock()
	s := j.active()
	j.mu.Unlock()
	if _, err := j.file.WriteAt(b.data, s.size); err != nil {
		return j.undo(s, err)
	}
	if b.puts > 0 && j.config.Sync == SyncAlways {
		return maybe(j.sync())
	}
	if time.Since(j.checked) < time.Second {
		return nil
	}
	return maybe(j.checkFiles(s))
}

func maybe(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrMaybeStored, err)
	}
	return err
}

// undo takes back a write that failed, as on a full disk.
func (j *Journal) undo(s *segment, cause error) error {
	err := j.file.Truncate(s.size)
	if err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		return fmt.Errorf("journal: not stored: %s: %w (free space, then put it again)", j.folder, cause)
	}
	err = fmt.Errorf("write to %s failed, and could not be taken back: %w", s.name(), errors.Join(cause, err))
	j.fail(err)
	return maybe(err)
}

// sync syncs the active file. A sync that failed is not tried again: the system may have
// dropped what it could not write. The caller has the token or holds syncing.
func (j *Journal) sync() error {
	j.mu.Lock()
	s := j.active()
	j.mu.Unlock()
	if err := j.file.Sync(); err != nil {
		err = fmt.Errorf("sync of %s failed: %w", s.name(), err)
		j.fail(err)
		return err
	}
	return j.checkPresent(s)
}

// checkFiles looks whether the folder is still there. The caller has the token.
func (j *Journal) checkFiles(s *segment) error {
	j.checked = time.Now()
	return j.checkPresent(s)
}

func (j *Journal) checkPresent(s *segment) error {
	err := j.disk.present(s.name(), j.file)
	if err != nil {
		err = fmt.Errorf("%s was removed or replaced while it was open: %w", s.name(), err)
		j.fail(err)
	}
	return err
}

// syncLater syncs at the end of an interval, while others may write.
func (j *Journal) syncLater() {
	defer j.timers.Done()
	j.syncing.Lock()
	defer j.syncing.Unlock()
	j.mu.Lock()
	j.timer = nil
	failed := j.failed
	j.mu.Unlock()
	if failed == nil {
		_ = j.sync() // the next Put tells
	}
}

// rotate begins the next segment. If it cannot, the active one grows, and the next commit
// tries again. The caller has the token.
func (j *Journal) rotate() {
	if j.config.Sync != SyncNever && j.sync() != nil {
		return
	}
	j.mu.Lock()
	s := &segment{first: j.active().last + 1, last: j.active().last}
	j.mu.Unlock()
	f, err := j.createSegment(s)
	if err != nil {
		return
	}
	j.syncing.Lock()
	defer j.syncing.Unlock()
	_ = j.file.Close() // it was synced, if it should be
	j.file = f
	j.mu.Lock()
	j.segments = append(j.segments, s)
	j.total += s.size
	j.mu.Unlock()
}

// createSegment makes the file of a segment, with its head. It survives a crash of the
// machine: its name is the number that goes on if all before it is removed.
func (j *Journal) createSegment(s *segment) (file, error) {
	f, err := j.disk.create(s.name())
	if err != nil {
		return nil, err
	}
	_, err = f.WriteAt(appendHead(nil, s.first), 0)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = j.disk.sync()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), j.disk.remove(s.name()))
	}
	s.size = headSize
	return f, nil
}
