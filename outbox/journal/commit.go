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
	settled     bool          // err is set; guarded by mu of the journal
	done        chan struct{} // closed then; nil if nobody waits so long
	err         error
}

// admit gives a put a number, if there is room. The caller holds mu.
func (j *Journal) admit(id string, data []byte) (number uint64, err error) {
	size := int64(headerSize + len(id) + len(data))
	switch {
	case j.closed:
		return 0, j.errClosed()
	case j.failed != nil:
		return 0, j.errFailed("not stored", j.failed)
	case j.total+size > j.config.MaxBytes:
		return 0, fmt.Errorf("journal: not stored: %s has %d bytes, and %d more are beyond %d (MaxBytes): %w",
			j.folder, j.total, size, j.config.MaxBytes, resock.ErrQueueFull)
	case j.next >= mostNumber:
		return 0, fmt.Errorf("journal: not stored: %s has no more numbers (begin with another folder)", j.folder)
	}
	number = j.next
	j.next++
	j.total += size
	return number, nil
}

// enqueue adds a put to the batch that is written next. The caller holds mu.
func (j *Journal) enqueue(id string, typ resock.MessageType, data []byte) (*batch, uint64, error) {
	number, err := j.admit(id, data)
	if err != nil {
		return nil, 0, err
	}
	b := j.openBatch()
	b.add(number, id, typ, data)
	b.waiting++
	return b, number, nil
}

func (b *batch) add(number uint64, id string, typ resock.MessageType, data []byte) {
	b.data = appendPut(b.data, number, id, typ, data)
	if b.puts == 0 {
		b.first = number
	}
	b.last = number
	b.puts++
}

func (j *Journal) enqueueDone(ranges []span) *batch {
	b := j.openBatch()
	before := len(b.data)
	b.data = appendDone(b.data, ranges)
	j.total += int64(len(b.data) - before)
	return b
}

func (j *Journal) openBatch() *batch {
	if j.batch == nil {
		j.batch = &batch{data: j.spare[:0]}
		j.spare = nil
	}
	return j.batch
}

// take takes the token and the batch, if nobody is writing. The caller holds mu.
func (j *Journal) take() bool {
	select {
	case <-j.token:
		j.batch = nil
		return true
	default:
		return false
	}
}

// await waits until b is stored, or stores it if nobody else is writing.
func (j *Journal) await(ctx context.Context, b *batch) error {
	j.mu.Lock()
	if b.settled {
		j.mu.Unlock()
		return b.err
	}
	if b.done == nil {
		b.done = make(chan struct{})
	}
	j.mu.Unlock()
	select {
	case <-b.done:
		return b.err
	case <-j.token:
		j.lead()
		return b.err
	case <-ctx.Done():
		j.mu.Lock()
		b.waiting--
		j.mu.Unlock()
		return fmt.Errorf("%w: the wait ended: %w", ErrMaybeStored, ctx.Err())
	}
}

// lead writes the batch, if there is one, and gives the token back.
func (j *Journal) lead() {
	j.mu.Lock()
	b := j.batch
	j.batch = nil
	j.mu.Unlock()
	j.commit(b)
}

// commit writes b, which may be nil, and gives the token back. If then there is more, with
// nobody who waits for it, and so would take the token, it is written before.
func (j *Journal) commit(b *batch) {
	for {
		j.write(b)
		j.mu.Lock()
		if j.batch == nil || j.batch.waiting > 0 {
			j.token <- struct{}{}
			j.mu.Unlock()
			return
		}
		b, j.batch = j.batch, nil
		j.mu.Unlock()
	}
}

// write writes a batch, and tells those who wait. The caller has the token.
func (j *Journal) write(b *batch) {
	if b == nil {
		return
	}
	j.mu.Lock()
	s, err := j.active(), j.failed
	j.mu.Unlock()
	if err != nil {
		err = j.errFailed("not stored", err)
	} else {
		err = j.append(s, b)
	}
	j.landed(s, b, err)
	j.mu.Lock()
	defer j.mu.Unlock()
	if cap(b.data) <= mostSpare {
		j.spare = b.data
	}
	b.data, b.err, b.settled = nil, err, true
	if b.done != nil {
		close(b.done)
	}
}

// landed notes how a write ended, and begins the next segment if it is time. The caller
// has the token.
func (j *Journal) landed(s *segment, b *batch, err error) {
	j.mu.Lock()
	full := j.land(s, b, err)
	j.mu.Unlock()
	if full {
		j.rotate()
	}
}

// land notes how a write ended, and reports whether it is time for the next segment. The
// caller holds mu.
func (j *Journal) land(s *segment, b *batch, err error) (full bool) {
	if err != nil {
		j.total -= int64(len(b.data))
	} else {
		j.publish(b)
	}
	return j.failed == nil && s.full(j.config.SegmentBytes)
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

// append writes a batch to the end of the active file.
func (j *Journal) append(s *segment, b *batch) error {
	if _, err := j.file.WriteAt(b.data, s.size); err != nil {
		return j.undo(s, err)
	}
	if b.puts > 0 && j.config.Sync == SyncAlways {
		return maybe(j.sync())
	}
	if time.Since(j.checked) >= time.Second {
		j.checked = time.Now()
		return maybe(j.checkFile(s))
	}
	return nil
}

func maybe(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w (mend that, then open the journal again: it has the record or not)", ErrMaybeStored, err)
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
		return fmt.Errorf("journal: not stored: write to %s: %w (free space, then put it again)", j.path(s), cause)
	}
	err = fmt.Errorf("a write to %s failed, and could not be taken back: %w", j.path(s), errors.Join(cause, err))
	j.fail(err)
	return maybe(err)
}
