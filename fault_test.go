package resock_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

// secret stands in every place where a test puts something that must not be
// told: URL queries, user info, header values.
const secret = "s3cr3t"

// rig runs a client under a fault and checks what must hold under every fault:
// the event grammar (G1), an end after which nothing follows (G2), no goroutine
// and no descriptor left (G3), a bounded rate of attempts (G5), a bounded end
// (G7), no secret anywhere (G8), one outcome per message (G9). The race detector
// and the test binary itself check G4; G6 has tests of its own.
type rig struct {
	t      *testing.T
	client *resock.Client
	events <-chan resock.Event
	log    *lockedBuffer

	mu       sync.Mutex
	seen     []resock.Event
	outcomes sync.WaitGroup
	closeIn  time.Duration
}

// rigOptions make a client quick enough for tests on real sockets.
func rigOptions(opts ...resock.Option) []resock.Option {
	return append([]resock.Option{
		resock.WithBackoff(20*time.Millisecond, 100*time.Millisecond),
		resock.WithStableAfter(time.Second),
		resock.WithCloseTimeout(time.Second),
	}, opts...)
}

// startRig starts a client. The invariants are checked when the test ends.
func startRig(t *testing.T, target string, opts ...resock.Option) *rig {
	t.Helper()
	r := &rig{t: t, log: new(lockedBuffer), closeIn: 2 * time.Second}
	opts = append(rigOptions(resock.WithLogger(slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})))), opts...)
	client, err := resock.New(target, opts...)
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	r.events = grammar.Tee(t, client)
	done := make(chan error, 1)
	go func() { done <- client.Run(context.Background()) }()
	t.Cleanup(func() {
		started := time.Now()
		_ = client.Close(resock.StatusNormalClosure, "")
		for range r.events { // to the end: the channel closes
		}
		select {
		case <-done:
		case <-time.After(r.closeIn):
			t.Errorf("Run has not returned within %v", r.closeIn)
			return
		}
		if took := time.Since(started); took > r.closeIn {
			t.Errorf("closing took %v", took)
		}
		r.outcomes.Wait()
		r.checkSecrets()
		r.checkRate()
	})
	return r
}

// next returns the next event.
func (r *rig) next() resock.Event {
	r.t.Helper()
	return r.nextWithin(2 * time.Minute)
}

func (r *rig) nextWithin(limit time.Duration) resock.Event {
	r.t.Helper()
	select {
	case event, ok := <-r.events:
		if !ok {
			r.t.Fatal("the events have ended")
		}
		r.note(event)
		return event
	case <-time.After(limit):
		r.t.Fatalf("no event; state %v, log:\n%s", r.client.State(), r.log)
	}
	return nil
}

func (r *rig) note(event resock.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, event)
}

// fail returns the next event, which must be a FailEvent in the phase.
func (r *rig) fail(phase resock.Phase) resock.FailEvent {
	r.t.Helper()
	event := r.next()
	fail, ok := event.(resock.FailEvent)
	if !ok || fail.Phase != phase {
		r.t.Fatalf("%T %+v, want a FailEvent in phase %v", event, event, phase)
	}
	return fail
}

// dialError returns the cause of a failed attempt.
func (r *rig) dialError(phase resock.Phase) *resock.DialError {
	r.t.Helper()
	fail := r.fail(phase)
	var dial *resock.DialError
	if !errors.As(fail.Err, &dial) || dial.Phase != phase || fail.Session != 0 {
		r.t.Fatalf("%+v, want a DialError in phase %v", fail, phase)
	}
	return dial
}

func (r *rig) open() resock.OpenEvent {
	r.t.Helper()
	event := r.next()
	open, ok := event.(resock.OpenEvent)
	if !ok {
		r.t.Fatalf("%T %+v, want an OpenEvent", event, event)
	}
	return open
}

func (r *rig) message(want string) {
	r.t.Helper()
	event := r.next()
	if message, ok := event.(resock.MessageEvent); !ok || string(message.Data) != want {
		r.t.Fatalf("%T %+v, want the message %q", event, event, want)
	}
}

func (r *rig) closed(code resock.StatusCode, reason string, clean bool) resock.CloseEvent {
	r.t.Helper()
	event := r.next()
	e, ok := event.(resock.CloseEvent)
	if !ok || e.Code != code || e.Reason != reason || e.Clean != clean {
		r.t.Fatalf("%T %+v, want a CloseEvent with code %d, reason %q, clean %t", event, event, code, reason, clean)
	}
	return e
}

// enqueue queues a message whose outcome is checked to come exactly once.
func (r *rig) enqueue(text string) <-chan error {
	r.t.Helper()
	outcome := make(chan error, 2)
	r.outcomes.Add(1)
	err := r.client.Enqueue(resock.MessageText, []byte(text), resock.WithResult(func(err error) {
		outcome <- err
		r.outcomes.Done() // a second call would panic
	}))
	if err != nil {
		r.t.Fatal(err)
	}
	return outcome
}

// checkSecrets looks for the secret in events, error chains and the log (G8).
func (r *rig) checkSecrets() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, event := range r.seen {
		if message, ok := event.(resock.MessageEvent); ok {
			_ = message // what the server sends is the application's
			continue
		}
		if text := fmt.Sprintf("%+v %#v", event, event); strings.Contains(text, secret) {
			r.t.Errorf("an event tells the secret: %s", text)
		}
		if fail, ok := event.(resock.FailEvent); ok {
			checkErrorSecrets(r.t, fail.Err)
		}
	}
	checkErrorSecrets(r.t, r.client.Err())
	checkErrorSecrets(r.t, r.client.Stats().LastErr)
	if strings.Contains(r.log.String(), secret) {
		r.t.Errorf("the log tells the secret:\n%s", r.log)
	}
}

var websocketKey = regexp.MustCompile(`[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{27}=`)

func checkErrorSecrets(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if text := err.Error(); strings.Contains(text, secret) || websocketKey.MatchString(text) {
		t.Errorf("an error tells a secret: %s", text)
	}
	var raw *url.Error
	if errors.As(err, &raw) && strings.Contains(raw.URL, secret) {
		t.Errorf("a url.Error in the chain tells the secret: %s", raw.URL)
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		checkErrorSecrets(t, err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			checkErrorSecrets(t, err)
		}
	}
}

// checkRate looks for more than 20 failed attempts within a second (G5).
func (r *rig) checkRate() {
	r.mu.Lock()
	defer r.mu.Unlock()
	var fails []time.Time
	for _, event := range r.seen {
		if fail, ok := event.(resock.FailEvent); ok && fail.Session == 0 {
			fails = append(fails, fail.Time)
		}
	}
	const most = 60 // the rig's backoff is ten times as quick as the default
	for i := most; i < len(fails); i++ {
		if fails[i].Sub(fails[i-most]) < time.Second {
			r.t.Errorf("%d attempts in %v", most, fails[i].Sub(fails[i-most]))
			return
		}
	}
}

// checkLeaks checks, when all else of the test is cleaned up, that no goroutine
// and no descriptor is left (G3). It is called first in a test.
func checkLeaks(t *testing.T) {
	t.Helper()
	goroutines, descriptors := countResources()
	t.Cleanup(func() {
		deadline := time.After(5 * time.Second)
		for {
			g, d := countResources()
			if g <= goroutines && d <= descriptors {
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-deadline:
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines and %d descriptors, %d and %d before:\n%s",
					g, d, goroutines, descriptors, stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}

func countResources() (goroutines, descriptors int) {
	open, _ := os.ReadDir("/proc/self/fd")
	return runtime.NumGoroutine(), len(open)
}

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

// readUpgrade reads a request to upgrade and returns the Sec-WebSocket-Accept that
// it wants.
func readUpgrade(conn net.Conn) string {
	request, err := http.ReadRequest(bufio.NewReader(conn))
	if err != nil {
		return ""
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// TestEveryFaultHasATest keeps FAULTS.md and the tests together.
func TestEveryFaultHasATest(t *testing.T) {
	table, err := os.ReadFile("FAULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("fault_*test.go")
	if err != nil {
		t.Fatal(err)
	}
	var tests strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(text)
	}
	rows := regexp.MustCompile("(?m)^\\| (\\d+) \\|.*\\| `(TestFault(\\d+)_\\w+)` \\|$").FindAllStringSubmatch(string(table), -1)
	last := 0
	for _, row := range rows {
		number, _ := strconv.Atoi(row[1])
		if number <= last || row[3] != fmt.Sprintf("%02d", number) {
			t.Errorf("row %s stands behind row %d and names %s", row[1], last, row[2])
		}
		last = number
		if !strings.Contains(tests.String(), "\nfunc "+row[2]+"(") {
			t.Errorf("row %s: there is no %s", row[1], row[2])
		}
	}
	if len(rows) < 52 {
		t.Errorf("%d rows, want 52 and more", len(rows))
	}
	for _, name := range regexp.MustCompile(`(?m)^func (TestFault\d+_\w+)\(`).FindAllStringSubmatch(tests.String(), -1) {
		if !strings.Contains(string(table), "`"+name[1]+"`") {
			t.Errorf("%s has no row", name[1])
		}
	}
}
