package resock_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

// TestIdleMemory measures what an open client with a heartbeat and a default
// subscriber adds to the resident memory of a process of its own.
func TestIdleMemory(t *testing.T) {
	const role, most = "RESOCK_TEST_IDLE", 22.0
	if target := os.Getenv(role); target != "" {
		idle(t, target)
		return
	}
	if raceEnabled {
		t.Skip("the race detector's own memory would be measured")
	}
	clients := 3000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	clients = min(clients, int(limit.Max)/2-100) // go test raises the soft limit to the hard one
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { accept(w, r, untilGone) }))
	defer server.Close()
	// How much garbage lies between what lives depends on when it is collected.
	goroutines, memory := 0.0, most+1
	for try := 0; try < 3 && memory > most; try++ {
		goroutines, memory = measureIdle(t, role, webSocketURL(server)+" "+strconv.Itoa(clients))
		t.Logf("%d clients, each %.2f goroutines and %.1f KiB resident", clients, goroutines, memory)
	}
	if goroutines > 1.01 || memory > most {
		t.Errorf("an idle client is %.2f goroutines and %.1f KiB, want 1 and at most %.0f", goroutines, memory, most)
	}
}

// measureIdle runs idle in a process of its own.
func measureIdle(t *testing.T, role, task string) (goroutines, memory float64) {
	t.Helper()
	command := exec.Command(os.Args[0], "-test.run=^TestIdleMemory$", "-test.v")
	command.Env = append(os.Environ(), role+"="+task)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	_, result, _ := strings.Cut(string(output), "per client: ")
	if _, err := fmt.Sscanf(result, "%f goroutines, %f KiB", &goroutines, &memory); err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	return goroutines, memory
}

// idle is the process that is measured.
func idle(t *testing.T, role string) {
	target, count, _ := strings.Cut(role, " ")
	clients, err := strconv.Atoi(count)
	if err != nil {
		t.Fatal(err)
	}
	resident := func() float64 {
		debug.FreeOSMemory()
		debug.FreeOSMemory() // what pools held until the first one
		fields, _ := os.ReadFile("/proc/self/statm")
		pages, _ := strconv.Atoi(strings.Fields(string(fields))[1])
		return float64(pages*os.Getpagesize()) / 1024
	}
	goroutines, memory := runtime.NumGoroutine(), resident()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all := make([]*resock.Client, clients)
	subscriptions := make([]<-chan resock.Event, clients)
	for i := range all {
		if all[i], err = resock.New(target); err != nil {
			t.Fatal(err)
		}
		subscriptions[i] = all[i].Subscribe(ctx)
		go all[i].Run(context.Background())
		if err := all[i].WaitOpen(ctx); err != nil {
			t.Fatal(err)
		}
	}
	n := float64(clients)
	fmt.Printf("per client: %.2f goroutines, %.1f KiB\n", float64(runtime.NumGoroutine()-goroutines)/n, (resident()-memory)/n)
	for _, client := range all {
		_ = client.Close(resock.StatusNormalClosure, "")
	}
	for _, events := range subscriptions {
		if n := len(slices.Collect(new(grammar.Checker).All(t, events))); n != 2 {
			t.Errorf("%d events, want an open and a close", n)
		}
	}
}
