package resume

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/resock/resock/internal/filelock"
)

// File is a [Store] in a file. The file is replaced as a whole and synced, so it is whole
// whenever the process or the machine stops. It is text, one cursor a line, and only its
// owner may read it, since tokens may be secrets.
type File struct {
	name string
	lock *filelock.Lock

	mu     sync.Mutex // held while a file is written
	closed bool
}

// OpenFile returns a store in a file, which need not be there yet; its folder must. A
// second File of that name is an error, in this process or another: the lock is a file
// beside it, with ".lock" after the name, and ends with the process. If name is a symbolic
// link, both are where it points.
func OpenFile(name string) (*File, error) {
	name = target(name)
	lock, err := filelock.Open(name + ".lock")
	if err != nil {
		return nil, fmt.Errorf("resume: open the cursors %s: %w", name, err)
	}
	return &File{name: name, lock: lock}, nil
}

// target follows links: to rename a file over a link would replace the link.
func target(name string) string {
	for range 40 { // as systems do; more is a circle
		to, err := os.Readlink(name)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Dir(name) + string(filepath.Separator) + to // not cleaned: the folder may be a link, too
		}
		name = to
	}
	return name
}

// Close gives the file back, once a Save under way has ended. A later Save is an error, and
// leaves the file to its next owner: leave the loop of the feed, and save, before.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return f.lock.Close()
}

const (
	format = "resock cursors 1"
	hint   = "restore the file, or remove it to begin without cursors"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Load reads the file. A file that does not exist has no cursors.
func (f *File) Load(context.Context) ([]Position, error) {
	text, err := os.ReadFile(f.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	head, body, _ := bytes.Cut(text, []byte("\n"))
	version, sum, _ := strings.Cut(string(head), " crc32c ")
	if version != format {
		return nil, fmt.Errorf("%s: it begins with %.40q, want %q: %s", f.name, head, format, hint)
	}
	if got := checksum(body); got != sum {
		return nil, fmt.Errorf("%s: its checksum is %s, want %.40q: %s", f.name, got, sum, hint)
	}
	var cursors []Position
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, len(body)+1)
	for n := 2; lines.Scan(); n++ {
		p, err := parse(lines.Text())
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", f.name, n, err)
		}
		cursors = append(cursors, p)
	}
	return cursors, lines.Err()
}

// Save writes a file beside the old one, and puts it in its place.
func (f *File) Save(_ context.Context, cursors []Position) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return fmt.Errorf("%s: %w", f.name, fs.ErrClosed)
	}
	var body []byte
	for _, p := range cursors {
		body = line(body, p)
	}
	text := fmt.Appendf(nil, "%s crc32c %s\n", format, checksum(body))
	temporary := f.name + ".new"
	if err := write(temporary, append(text, body...)); err != nil {
		return err
	}
	if err := os.Rename(temporary, f.name); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(f.name))
}

func checksum(body []byte) string { return fmt.Sprintf("%08x", crc32.Checksum(body, castagnoli)) }

// line appends the line of a cursor: quoted strings hold any bytes.
func line(b []byte, p Position) []byte {
	b = strconv.AppendQuote(b, p.Stream)
	b = strconv.AppendQuote(append(b, ' '), p.Epoch)
	b = strconv.AppendUint(append(b, ' '), p.Seq, 10)
	b = strconv.AppendQuote(append(b, ' '), p.Token)
	return append(b, '\n')
}

func parse(text string) (p Position, err error) {
	if n, err := fmt.Sscanf(text, "%q %q %d %q", &p.Stream, &p.Epoch, &p.Seq, &p.Token); n != 4 {
		return p, fmt.Errorf("%w: got %.40q, want a stream, an epoch, a number and a token", err, text)
	}
	return p, nil
}

// write writes a file so that a crash of the machine does not lose it.
func write(name string, text []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// syncFolder makes a renamed file survive a crash of the machine. Windows does so by
// itself, and cannot sync a folder.
func syncFolder(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	folder, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
