package journal

import "errors"

// rotate begins the next segment. If it cannot, the active one grows, and the next commit
// tries again. The caller has the token.
func (j *Journal) rotate() {
	if !j.syncing.TryLock() {
		return
	}
	defer j.syncing.Unlock()
	j.mu.Lock()
	s := &segment{first: j.active().last + 1, last: j.active().last}
	j.mu.Unlock()
	f, err := j.createSegment(s)
	if err != nil {
		return
	}
	later := j.config.Sync == SyncInterval
	if later {
		j.sealed = append(j.sealed, j.file)
	} else {
		_ = j.file.Close()
	}
	j.file = f
	j.mu.Lock()
	j.active().open = later
	j.segments = append(j.segments, s)
	j.total += s.size
	j.mu.Unlock()
}

// createSegment makes the file of a segment, with its head.
func (j *Journal) createSegment(s *segment) (file, error) {
	f, err := j.disk.create(s.name())
	if err != nil {
		return nil, err
	}
	if _, err = f.WriteAt(appendHead(nil, s.first), 0); err != nil {
		return nil, errors.Join(err, f.Close(), j.disk.remove(s.name()))
	}
	s.size = headSize
	return f, nil
}
