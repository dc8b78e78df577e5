package journal

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/resock/resock"
)

const killed = "RESOCK_JOURNAL_KILLED" // the folder of the process that is killed

// TestKill kills a process that puts, with each policy: all that it told as stored is
// there.
func TestKill(t *testing.T) {
	if folder := os.Getenv(killed); folder != "" {
		putForEver(t, folder)
	}
	for policy := SyncAlways; policy <= SyncNever; policy++ {
		folder := filepath.Join(t.TempDir(), "j")
		command := exec.Command(os.Args[0], "-test.run=^TestKill$")
		command.Env = append(os.Environ(), killed+"="+folder, fmt.Sprintf("%s_POLICY=%d", killed, policy))
		output, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		told, lines := map[string]bool{}, bufio.NewScanner(output)
		for lines.Scan() {
			if told[lines.Text()] = true; len(told) == 300 {
				_ = command.Process.Kill()
			}
		}
		_ = command.Wait()
		j := openFolder(t, folder, Config{})
		for _, r := range all(t, j) {
			delete(told, fmt.Sprintf("%s %d", r.ID, r.Number))
		}
		if len(told) > 0 || len(j.Repairs()) > 1 {
			t.Errorf("policy %d: %d records are lost, repairs: %+v", policy, len(told), j.Repairs())
		}
	}
}

// putForEver puts from some goroutines, and tells what is stored.
func putForEver(t *testing.T, folder string) {
	var policy Sync
	_, _ = fmt.Sscan(os.Getenv(killed+"_POLICY"), &policy)
	j, err := Open(folder, Config{Sync: policy, SegmentBytes: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for w := range 4 {
		wait.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("%d/%d", w, i)
				n, err := j.Put(context.Background(), id, resock.MessageText, []byte(strings.Repeat("x", i%200)))
				if err != nil {
					os.Exit(1)
				}
				if _, err := fmt.Printf("%s %d\n", id, n); err != nil {
					os.Exit(1) // the parent is gone
				}
			}
		})
	}
	wait.Wait()
}
