package journal

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Repair is what [Open] found damaged. Damage within a file stays there, passed over,
// until the file is rewritten, and so is told again by each Open.
type Repair struct {
	File   string // its path
	Offset int64  // of the bytes
	Length int64
	Reason string
	Saved  string // path of a file with the bytes; empty for a record that was not whole when writing stopped, which is cut
}

// Open opens the journal in a folder, which is made if its parent is there, for its owner
// only, and reads all files of it. A second owner, in this process or another, is an error.
func Open(folder string, config Config) (*Journal, error) {
	disk, err := makeFolder(folder)
	if err != nil {
		return nil, fmt.Errorf("journal: open %s: %w", folder, err)
	}
	return openDisk(disk, folder, config)
}

func openDisk(disk disk, folder string, config Config) (*Journal, error) {
	lock, err := disk.lock()
	if err != nil {
		return nil, fmt.Errorf("journal: open %s: %w (it must be writable, and not in use)", folder, err)
	}
	j := &Journal{folder: folder, config: config.withDefaults(), disk: disk, lock: lock, token: make(chan struct{}, 1), lane: newLane()}
	j.token <- struct{}{}
	if err = j.load(); err == nil {
		err = j.begin()
	}
	if err == nil {
		err = j.trim()
	}
	if err != nil {
		if j.file != nil {
			err = errors.Join(err, j.file.Close())
		}
		return nil, errors.Join(fmt.Errorf("journal: open %s: %w", folder, err), lock.Close())
	}
	return j, nil
}

// load reads all segments.
func (j *Journal) load() error {
	names, err := j.disk.list()
	if err != nil {
		return err
	}
	for _, name := range names {
		if first, ok := parseName(name); ok {
			j.segments = append(j.segments, &segment{first: first, last: first - 1})
		} else if base, ok := strings.CutSuffix(name, suffixNew); ok && strings.HasSuffix(base, suffix) {
			if err := j.disk.remove(name); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(j.segments, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	for i, s := range j.segments {
		if err := j.loadSegment(i); err != nil {
			return fmt.Errorf("%s: %w", s.name(), err)
		}
	}
	return nil
}

// begin makes the last segment the active one. A new one is begun if there is none, or
// if all is done and it is not small.
func (j *Journal) begin() error {
	if n := len(j.segments); n > 0 {
		s := j.active()
		f, err := j.disk.open(s.name())
		if err != nil {
			return err
		}
		j.file = f
		if s.live() > 0 || s.last < s.first || s.size < chunk {
			j.next = s.last + 1
			return nil
		}
	}
	s := &segment{first: 1}
	if len(j.segments) > 0 {
		s.first = j.active().last + 1
	}
	s.last, j.next = s.first-1, s.first
	f, err := j.createSegment(s)
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close()
	}
	j.file = f
	j.segments = append(j.segments, s)
	j.total += s.size
	return f.Sync() // and its name, before anything is removed or told as stored
}
