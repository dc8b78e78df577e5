package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/resock/resock/internal/filelock"
)

// disk is the folder of a journal. Names are those of files in it.
type disk interface {
	lock() (io.Closer, error)
	list() ([]string, error)
	open(name string) (file, error)
	create(name string) (file, error) // replaces what was there
	rename(from, to string) error
	remove(name string) error
	sync() error // makes created, renamed and removed files survive a crash of the machine

	// present returns an error if name does not stand for f any more.
	present(name string, f file) error
}

type file interface {
	io.ReaderAt
	io.WriterAt
	Size() (int64, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// folder is a disk of the operating system.
type folder string

// makeFolder returns a folder, which is made if need be.
func makeFolder(name string) (folder, error) {
	if err := os.Mkdir(name, 0o700); err == nil {
		return folder(name), syncFolder(filepath.Dir(filepath.Clean(name)))
	} else if !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	info, err := os.Stat(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a folder", name)
	}
	return folder(name), err
}

func (d folder) path(name string) string      { return filepath.Join(string(d), name) }
func (d folder) lock() (io.Closer, error)     { return filelock.Open(d.path("lock")) }
func (d folder) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }
func (d folder) remove(name string) error     { return os.Remove(d.path(name)) }
func (d folder) sync() error                  { return syncFolder(string(d)) }

func (d folder) list() (names []string, err error) {
	entries, err := os.ReadDir(string(d))
	for _, entry := range entries {
		if entry.Type().IsRegular() {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

func (d folder) open(name string) (file, error) { return d.openFile(name, os.O_RDWR) }
func (d folder) create(name string) (file, error) {
	return d.openFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
}

func (d folder) openFile(name string, flags int) (file, error) {
	f, err := os.OpenFile(d.path(name), flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (d folder) present(name string, f file) error {
	want, err := f.(osFile).Stat()
	if err != nil {
		return err
	}
	got, err := os.Stat(d.path(name))
	if err == nil && !os.SameFile(got, want) {
		err = errors.New("another file stands in its place")
	}
	return err
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// syncFolder makes the names in a folder survive a crash of the machine. Windows does so
// by itself, and cannot sync a folder.
func syncFolder(name string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
