// Package filelock lets a process own a file: a second owner gets an error, and a process
// that is killed owns nothing.
package filelock

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// ErrLocked says that the lock has an owner.
var ErrLocked = errors.New("in use already, by this process or another")

// Lock is a lock that is held.
type Lock struct {
	file *os.File
	once sync.Once
	err  error
}

// Open takes the lock that a file stands for, which is made if need be, or fails at once.
func Open(name string) (*Lock, error) {
	file, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return &Lock{file: file}, nil
}

// Close gives the lock back. The file stays: to remove it would let two processes own
// files of the same name.
func (l *Lock) Close() error {
	l.once.Do(func() { l.err = l.file.Close() })
	return l.err
}
