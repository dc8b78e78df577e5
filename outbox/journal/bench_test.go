package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock"
)

// BenchmarkPut compares Put with a bare append of the same bytes to one file, which syncs
// likewise.
func BenchmarkPut(b *testing.B) {
	data := make([]byte, 200)
	for policy, name := range map[Sync]string{SyncNever: "never", SyncInterval: "interval", SyncAlways: "always"} {
		for _, callers := range []int{1, 64} {
			b.Run(fmt.Sprintf("journal/%s/%d", name, callers), func(b *testing.B) {
				j, err := Open(filepath.Join(b.TempDir(), "j"), Config{Sync: policy, MaxBytes: 1 << 40})
				if err != nil {
					b.Fatal(err)
				}
				run(b, callers, func() error {
					_, err := j.Put(context.Background(), "order-17", resock.MessageBinary, data)
					return err
				})
				_ = j.Close()
			})
			b.Run(fmt.Sprintf("bare/%s/%d", name, callers), func(b *testing.B) {
				f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
				if err != nil {
					b.Fatal(err)
				}
				record := appendPut(nil, 1, "order-17", resock.MessageBinary, data)
				stop := syncEvery(f, policy)
				run(b, callers, func() error {
					_, err := f.Write(record)
					if err == nil && policy == SyncAlways {
						err = f.Sync()
					}
					return err
				})
				stop()
				_ = f.Close()
			})
		}
	}
}

// syncEvery syncs a file as SyncInterval does, until stop.
func syncEvery(f *os.File, policy Sync) (stop func()) {
	if policy != SyncInterval {
		return func() {}
	}
	ended, ticker := make(chan struct{}), time.NewTicker(100*time.Millisecond)
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-ticker.C:
				_ = f.Sync()
			case <-ended:
				return
			}
		}
	})
	return func() { close(ended); ticker.Stop(); wait.Wait() }
}

// run has callers call f b.N times together.
func run(b *testing.B, callers int, f func() error) {
	b.ReportAllocs()
	b.ResetTimer()
	var wait sync.WaitGroup
	for c := range callers {
		wait.Go(func() {
			for n := c; n < b.N; n += callers {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.StopTimer()
}
