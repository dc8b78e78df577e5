//go:build unix

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// usage is the resource usage of this process so far.
type usage struct {
	at      time.Time
	cpu     time.Duration
	mallocs uint64
}

func now() usage {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err) // the arguments are valid
	}
	return usage{
		at:      time.Now(),
		cpu:     time.Duration(r.Utime.Nano() + r.Stime.Nano()),
		mallocs: memory.Mallocs,
	}
}

// per returns the usage between u and end, divided by n.
func (u usage) per(n int, end usage) sample {
	return sample{
		metricWall:   float64(end.at.Sub(u.at)) / float64(n),
		metricCPU:    float64(end.cpu-u.cpu) / float64(n),
		metricAllocs: float64(end.mallocs-u.mallocs) / float64(n),
	}
}

// resident returns the resident memory of this process in bytes.
func resident() (float64, error) {
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err // not Linux
	}
	fields := bytes.Fields(statm)
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/self/statm: %q", statm)
	}
	pages, err := strconv.Atoi(string(fields[1]))
	return float64(pages * os.Getpagesize()), err
}

// fileLimit returns how many files this process may open, once the limit is raised.
func fileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return 1024
	}
	return int(min(limit.Max, 1<<30))
}

// raiseFileLimit raises the limit of open files to the maximum.
func raiseFileLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		// If that fails, dialing fails later and tells why.
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}
