package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// save copies damaged bytes to a file of their own. One that an earlier Open made is left.
func (l *loader) save(d *Repair) error {
	for n := 1; ; n++ {
		name := fmt.Sprintf("%08d.%d.corrupt", l.segment.first, d.Offset)
		if n > 1 {
			name = fmt.Sprintf("%08d.%d-%d.corrupt", l.segment.first, d.Offset, n)
		}
		d.Saved = filepath.Join(l.journal.folder, name)
		there, same, err := l.compare(name, d)
		if err == nil && !there {
			same, err = true, l.copy(name, d)
		}
		if err != nil {
			return fmt.Errorf("set damaged bytes aside in %s: %w", name, err)
		}
		if same {
			return nil
		}
	}
}

// compare reports whether a file is there, and has the damaged bytes.
func (l *loader) compare(name string, d *Repair) (there, same bool, err error) {
	f, err := l.journal.disk.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	size, err := f.Size()
	same = size == d.Length
	saved := chunks{file: f, size: size}
	for done := int64(0); err == nil && same && done < d.Length; done += chunk {
		var a, b []byte
		n := min(chunk, d.Length-done)
		a, err = l.chunks.at(d.Offset+done, n)
		if err == nil {
			b, err = saved.at(done, n)
		}
		same = bytes.Equal(a, b)
	}
	return true, same, errors.Join(err, f.Close())
}

// copy copies damaged bytes to a new file.
func (l *loader) copy(name string, d *Repair) error {
	f, err := l.journal.disk.create(name)
	if err != nil {
		return err
	}
	for done := int64(0); err == nil && done < d.Length; done += chunk {
		var b []byte
		if b, err = l.chunks.at(d.Offset+done, min(chunk, d.Length-done)); err == nil {
			_, err = f.WriteAt(b, done)
		}
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close(), l.journal.disk.sync())
}
