package faults

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// jumpingClock is a file that is added to the package, and replaces the functions of
// package time. Its wall clock shows a different hour at each call. The monotonic clock
// reading, which is in another word of a time.Time, is left alone.
const jumpingClock = `package resock

import (
	"math/rand/v2"
	"time"
	"unsafe"
)

func jumpingNow() time.Time {
	now := time.Now()
	hours := rand.Uint64N(9) // earlier or later than at the last call
	*(*uint64)(unsafe.Pointer(&now)) += hours * 3600 << 30 // seconds, above 30 bits of nanoseconds
	return now
}

func jumpingSince(t time.Time) time.Duration { return jumpingNow().Sub(t) }
func jumpingUntil(t time.Time) time.Duration { return t.Sub(jumpingNow()) }
`

var jumpingNames = strings.NewReplacer("time.Now", "jumpingNow", "time.Since", "jumpingSince", "time.Until", "jumpingUntil")

// TestFault45 goes through everything that measures time, in a build of the package
// whose wall clock jumps.
func TestFault45_WallClockJumps(t *testing.T) {
	const role = "RESOCK_TEST_JUMPS"
	if os.Getenv(role) != "" {
		t.Run("jumps", func(t *testing.T) { wallClockStory(t, true) })
		return
	}
	t.Run("no jumps", func(t *testing.T) { wallClockStory(t, false) })

	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the package cannot be built: ", err)
	}
	arguments := []string{"test", "-count=1", "-timeout=1m", "-run=^TestFault45_WallClockJumps$", "-overlay=" + overlay(t)}
	if rig.Race {
		arguments = append(arguments, "-race")
	}
	command := exec.Command(tool, arguments...)
	command.Env = append(os.Environ(), role+"=1")
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("with a jumping clock: %v\n%s", err, output)
	}
}

// root is the directory of package resock.
const root = ".."

// overlay returns the path of an overlay file, by which the go command builds the
// package with jumpingClock.
func overlay(t *testing.T) string {
	t.Helper()
	folder, replace := t.TempDir(), make(map[string]string)
	write := func(name, text string) {
		path, err := filepath.Abs(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		replace[path] = filepath.Join(folder, name)
		if err := os.WriteFile(replace[path], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(root, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if text := jumpingNames.Replace(string(source)); text != string(source) {
			write(name, text+"\nvar _ time.Time // the import is used\n")
		}
	}
	write("jumping_clock.go", jumpingClock)
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(path, list, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// wallClockStory goes through everything that depends on time. All of it is over
// within a minute, so an hour too many or too few shows.
func wallClockStory(t *testing.T, jumps bool) {
	s := resocktest.NewMemory(t)
	s.Script(resocktest.Refuse(), resocktest.Hold())
	w := &wallClock{t: t, server: s, began: time.Now()}
	w.client = rig.Quick(t, s.URL, rig.Reach(s),
		resock.WithBackoff(100*ms, 100*ms),
		resock.WithNetwork(&w.network),
		resock.WithStableAfter(30*time.Minute),
		resock.WithHeartbeat(20*ms, 20*time.Second),
		resock.WithWriteTimeout(time.Second),
		resock.WithRetryPolicy(func(resock.Failure) resock.Decision { return resock.Decision{After: 100 * ms} }))

	w.heartbeats()
	w.reconnects()
	c := w.expiries()
	c = w.waitsForPolicy(c)
	w.writeTimeout(c)
	w.short("Stats().Downtime", w.client.Stats().Downtime)
	if w.jumped != jumps {
		t.Errorf("the clock jumped: %t, want %t", w.jumped, jumps)
	}
	if took := time.Since(w.began); took > time.Minute {
		t.Errorf("all of it took %v, want at most a minute", took)
	}
}

const ms = time.Millisecond

// wallClock is one run of wallClockStory.
type wallClock struct {
	t       *testing.T
	server  *resocktest.Server
	client  *rig.Client
	network rig.Network
	began   time.Time
	jumped  bool // whether an OpenEvent showed another hour
}

// short checks a duration that the client reports: it cannot exceed the time so far.
func (w *wallClock) short(what string, d time.Duration) {
	w.t.Helper()
	if all := time.Since(w.began); d < 0 || d > all {
		w.t.Errorf("%s is %v, want at most the %v since the start", what, d, all)
	}
}

func (w *wallClock) failed(attempt int, phases ...resock.Phase) resock.FailEvent {
	w.t.Helper()
	fail := w.client.Fail(phases...)
	if fail.Attempt != attempt { // a session taken for stable restarts the count
		w.t.Errorf("attempt %d failed, want attempt %d", fail.Attempt, attempt)
	}
	w.short("Took", fail.Took)
	w.short("Stats().Downtime", w.client.Stats().Downtime)
	return fail
}

func (w *wallClock) opened() *resocktest.Conn {
	w.t.Helper()
	open := w.client.Open()
	w.short("Took", open.Took)
	w.short("Downtime", open.Downtime)
	off := open.Time.Round(0).Sub(time.Now().Round(0)).Abs()
	w.jumped = w.jumped || off > 30*time.Minute
	return w.server.Accept()
}

// heartbeats checks that they are sent, and that their pongs are noticed.
func (w *wallClock) heartbeats() {
	w.failed(1, resock.PhaseTCP)
	c := w.opened()
	for beats := 0; beats < 3; beats = len(c.Received().Pings) {
		<-time.After(ms)
	}
	c.Drop()
	w.failed(2, resock.PhaseRead)
}

// reconnects checks that Reconnect dials at most once per initial backoff.
func (w *wallClock) reconnects() {
	w.opened()
	for range 4 {
		asked := time.Now()
		for range 2 {
			w.client.Reconnect()
			w.client.Closed(resock.StatusNormalClosure, "", false)
			w.opened()
		}
		if took := time.Since(asked); took < 100*ms {
			w.t.Errorf("reconnected twice in %v, want at least %v", took, 100*ms)
		}
	}
}

// expiries checks that messages expire by their TTL, no sooner and no later.
func (w *wallClock) expiries() *resocktest.Conn {
	w.client.Suspend()
	w.client.Closed(resock.StatusNormalClosure, "", true)
	_ = w.client.Enqueue(resock.MessageText, []byte("for long"), resock.WithTTL(30*time.Minute))
	for range 10 {
		option, expired := rig.Outcome()
		_ = w.client.Enqueue(resock.MessageText, []byte("expires"), resock.WithTTL(ms), option)
		if err := <-expired; !errors.Is(err, resock.ErrExpired) {
			w.t.Errorf("a message with a TTL of 1ms: got %v, want ErrExpired", err)
		}
	}
	w.client.Resume()
	c := w.opened()
	if message, err := c.Read(); err != nil || string(message.Data) != "for long" {
		w.t.Errorf("got %q, %v; want the message with a TTL of 30 minutes", message.Data, err)
	}
	return c
}

// waitsForPolicy checks that the delay of the retry policy outlasts a change of the
// network.
func (w *wallClock) waitsForPolicy(c *resocktest.Conn) *resocktest.Conn {
	for attempt := 1; attempt <= 5; attempt++ {
		began := time.Now()
		w.network.Set(false)
		c.Drop()
		// The probe that the change of the network asks for may meet the end first.
		if fail := w.failed(attempt, resock.PhaseRead, resock.PhaseWrite); fail.Next != resock.StateOffline {
			w.t.Errorf("next is %v, want offline", fail.Next)
		}
		w.network.Set(true)
		c = w.opened()
		if back := time.Since(began); back < 100*ms {
			w.t.Errorf("reconnected after %v, want the %v of the policy at least", back, 100*ms)
		}
	}
	return c
}

// writeTimeout checks that a blocked write ends the session, and then closes the client.
func (w *wallClock) writeTimeout(c *resocktest.Conn) {
	c.StopReading()
	if err := w.client.Send(w.t.Context(), resock.MessageBinary, make([]byte, 1<<20)); !errors.Is(err, resock.ErrMaybeSent) {
		w.t.Errorf("a Send that the server does not read: got %v, want ErrMaybeSent", err)
	}
	w.failed(6, resock.PhaseWrite)
	w.opened()
	_ = w.client.Close(resock.StatusNormalClosure, "")
	<-w.client.Done()
}
