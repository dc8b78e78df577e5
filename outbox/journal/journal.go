// Package journal keeps messages in files until they are done, so that what was accepted
// is still there after the process or the machine stopped. It is the store of an outbox.
//
//	j, err := journal.Open("outgoing", journal.Config{})
//	…
//	number, err := j.Put(ctx, "order-17", resock.MessageText, data) // nil: it is stored
//	…
//	record, ok, err := j.Next(0) // the first that is not done
//	err = j.Done(record.Number)
//
// # What is lost, and when
//
// A process that is killed loses nothing that Put accepted, whatever Sync says. When the
// machine stops, [SyncAlways] loses nothing, [SyncInterval] at most what was put in the
// last interval, and [SyncNever] what the system had not written yet. What was done may
// come again after either.
//
// # Damage
//
// [Open] passes over bytes that are no record, loses no record but the damaged ones, and
// tells what it did ([Journal.Repairs]).
//
// # Errors
//
// A full disk refuses a Put, and the next one may succeed. After a sync that failed, or when
// the files were removed, the journal takes nothing any more until it is opened again:
// nobody knows what the disk has. What is in it can still be read.
package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/resock/resock"
)

// ErrMaybeStored says that a record may be stored or not: a write or sync failed, or the
// context ended while Put waited. Any other error of [Journal.Put] means that it is not.
var ErrMaybeStored = errors.New("journal: may have been stored")

// Record is a message in a journal.
type Record struct {
	Number uint64 // rises from 1 with each Put, and is never used again
	ID     string
	Type   resock.MessageType
	Data   []byte
}

// Sync says when records are forced to the disk (fsync).
type Sync int

const (
	SyncAlways   Sync = iota // before Put returns; concurrent ones share it
	SyncInterval             // once an interval
	SyncNever                // when the system likes to; Close does, too
)

// Config configures [Open]. The zero value has the defaults.
type Config struct {
	Sync     Sync          // SyncAlways by default
	Interval time.Duration // of SyncInterval; 100 ms by default

	// SegmentBytes is the size at which the next file begins; 8 MiB by default, and at
	// most an eighth of MaxBytes.
	SegmentBytes int64

	// MaxBytes bounds the size of all files; 1 GiB by default. Put beyond it returns
	// [resock.ErrQueueFull]. A record may have half of it.
	MaxBytes int64
}

func (c Config) withDefaults() Config {
	if c.Interval <= 0 {
		c.Interval = 100 * time.Millisecond
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = 8 << 20
	}
	c.SegmentBytes = min(c.SegmentBytes, c.MaxBytes/8)
	return c
}

// Journal is a folder of files with records. It has one owner at a time: the lock is the
// file "lock" in it, and ends with the process. Its methods may be called concurrently.
type Journal struct {
	folder  string // for errors
	config  Config
	disk    disk
	lock    io.Closer
	repairs []Repair
	token   chan struct{} // holds one; who takes it writes
	lane    lane          // of puts that wait for no sync
	lone    batch         // of the one that has the lane
	checked time.Time     // when the files were last seen to be there; the token's

	// Locks are taken in the order trimming → reading → mu, and syncing → mu.
	trimming sync.Mutex
	trimNext int64 // total at which rewriting is tried again

	reading sync.Mutex
	cursor  cursor

	syncing sync.Mutex // held to sync without the token, and to change or close file
	file    file       // of the active segment; the token's, too
	sealed  []file     // of segments before it that are not synced
	timers  sync.WaitGroup

	mu       sync.Mutex
	segments []*segment // by number; the last is the active one
	named    *segment   // whose name was synced last
	total    int64      // size of all files, with what is under way
	next     uint64     // number of the next put
	batch    *batch     // to be written next, or nil
	spare    []byte     // for the next batch
	failed   error      // why nothing can be written any more
	closed   bool
	timer    *time.Timer // for the sync of SyncInterval, or nil
	closing  sync.Once
	closeErr error
}

// Put stores a message, and returns its number. A nil error means that it is stored as
// [Config.Sync] says; [ErrMaybeStored], that it may be; any other, that it is not:
// [resock.ErrQueueFull] at [Config.MaxBytes], and [os.ErrClosed] after Close. When ctx ends
// Put stops waiting, and the error is ErrMaybeStored and that of ctx. An id may have
// 65,535 bytes, and may be used again. Put does not keep data.
func (j *Journal) Put(ctx context.Context, id string, typ resock.MessageType, data []byte) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("journal: not stored: %w", err)
	}
	if err := j.check(id, typ, data); err != nil {
		return 0, err
	}
	number, err := j.store(ctx, id, typ, data)
	if errors.Is(err, resock.ErrQueueFull) && j.trim() == nil {
		number, err = j.store(ctx, id, typ, data)
	}
	return number, err
}

// store stores a message if there is room.
func (j *Journal) store(ctx context.Context, id string, typ resock.MessageType, data []byte) (uint64, error) {
	if j.config.Sync != SyncAlways {
		return j.direct(ctx, id, typ, data)
	}
	j.mu.Lock()
	b, number, err := j.enqueue(id, typ, data)
	leads := err == nil && j.take()
	j.mu.Unlock()
	if leads {
		j.commit(b)
		err = b.err
	} else if err == nil {
		err = j.await(ctx, b)
	}
	if err != nil {
		return 0, err
	}
	return number, nil
}

// check returns an error for a message that can never be stored.
func (j *Journal) check(id string, typ resock.MessageType, data []byte) error {
	size := int64(headerSize + len(id) + len(data))
	switch {
	case typ != resock.MessageText && typ != resock.MessageBinary:
		return fmt.Errorf("journal: the type of the message is %d, want MessageText or MessageBinary", typ)
	case len(id) > mostID:
		return fmt.Errorf("journal: the id has %d bytes, want at most %d", len(id), mostID)
	case size > j.config.MaxBytes/2 || size > math.MaxUint32:
		return fmt.Errorf("journal: the message needs %d bytes, want at most half of MaxBytes, which is %d, and 4 GiB", size, j.config.MaxBytes)
	}
	return nil
}

// Done notes that records need not come again. Numbers that are done already, or that
// there are none of, are passed over. It does not wait for a sync: what was done shortly
// before a crash may come again. Files of which all is done are removed. After an error
// the records are done as long as the journal is open, and may come again after that.
func (j *Journal) Done(numbers ...uint64) error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return j.errClosed()
	}
	marked := j.markDone(numbers)
	if len(marked.list) == 0 {
		j.mu.Unlock()
		return nil
	}
	if err := j.failed; err != nil {
		j.mu.Unlock()
		return j.errFailed("done, but not written down", err)
	}
	b := j.enqueueDone(marked.list)
	leads := j.take()
	j.mu.Unlock()
	var err error
	if leads { // else who has the token writes it
		j.commit(b)
		if b.err != nil {
			err = fmt.Errorf("journal: done, but not written down, so it may come again after the next Open: %w", b.err)
		}
	}
	return errors.Join(err, j.trim())
}

// Len returns the number of records that are not done, and the size of all files.
func (j *Journal) Len() (records int, bytes int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		records += int(s.live())
	}
	return records, j.total
}

// Repairs tells what [Open] found damaged. The caller owns the slice.
func (j *Journal) Repairs() []Repair { return append([]Repair(nil), j.repairs...) }

// Close writes and syncs what is left, and gives the folder back. It waits for calls that
// write. Calls after it return [os.ErrClosed], a second Close what the first did.
func (j *Journal) Close() error {
	j.closing.Do(func() { j.closeErr = j.shut() })
	return j.closeErr
}

func (j *Journal) shut() error {
	j.mu.Lock()
	j.closed = true
	if j.timer != nil && j.timer.Stop() {
		j.timers.Done()
	}
	j.mu.Unlock()
	j.timers.Wait()
	<-j.token
	defer func() { j.token <- struct{}{} }() // a put that waits for it finds the journal closed
	j.mu.Lock()
	b := j.batch
	j.batch = nil
	j.mu.Unlock()
	j.write(b)
	j.trimming.Lock()
	defer j.trimming.Unlock()
	j.reading.Lock()
	defer j.reading.Unlock()
	err := j.failure()
	if err == nil {
		err = j.sync()
	}
	if err != nil {
		err = fmt.Errorf("journal: close %s: %w", j.folder, err)
	}
	return errors.Join(err, j.cursor.close(), j.closeSealed(), j.file.Close(), j.lock.Close())
}

func (j *Journal) path(s *segment) string { return filepath.Join(j.folder, s.name()) }

func (j *Journal) errClosed() error { return fmt.Errorf("journal: %s: %w", j.folder, os.ErrClosed) }

// errFailed is the error of what came after the journal failed.
func (j *Journal) errFailed(what string, cause error) error {
	return fmt.Errorf("journal: %s: %s takes nothing any more, since: %w (mend that, then open it again)", what, j.folder, cause)
}

func (j *Journal) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.failed
}

// fail stops all writing. The first cause stays.
func (j *Journal) fail(cause error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.failed == nil {
		j.failed = cause
	}
}
