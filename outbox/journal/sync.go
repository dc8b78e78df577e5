package journal

import (
	"errors"
	"fmt"
)

// sync syncs all that was written. A sync that failed is not tried again: the system may
// have dropped what it could not write. The caller has the token or holds syncing.
func (j *Journal) sync() error {
	j.mu.Lock()
	s := j.active()
	j.mu.Unlock()
	for _, f := range append(j.sealed, j.file) {
		if err := f.Sync(); err != nil {
			err = fmt.Errorf("sync of %s failed: %w", j.path(s), err)
			j.fail(err)
			return err
		}
	}
	_ = j.closeSealed()
	if err := j.checkFile(s); err != nil {
		return err
	}
	return j.syncName()
}

// closeSealed closes the files that were written before the active one.
func (j *Journal) closeSealed() (err error) {
	for _, f := range j.sealed {
		err = errors.Join(err, f.Close())
	}
	j.sealed = nil
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		s.open = false
	}
	return err
}

// syncName makes the name of the active segment survive a crash of the machine: it is the
// number that goes on if all before it is removed.
func (j *Journal) syncName() error {
	j.mu.Lock()
	s, named := j.active(), j.named
	j.mu.Unlock()
	if s == named {
		return nil
	}
	if err := j.syncFolder(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if s == j.active() {
		j.named = s
	}
	return nil
}

func (j *Journal) syncFolder() error {
	err := j.disk.sync()
	if err != nil {
		err = fmt.Errorf("sync of the folder %s failed: %w", j.folder, err)
		j.fail(err)
	}
	return err
}

// checkFile looks whether the active file is still in the folder.
func (j *Journal) checkFile(s *segment) error {
	err := j.disk.present(s.name(), j.file)
	if err != nil {
		err = fmt.Errorf("%s was removed or replaced while it was open: %w", j.path(s), err)
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
