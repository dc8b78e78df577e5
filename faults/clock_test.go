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

// jumpingClock is added to the package, and takes the place of time's functions.
// Its wall clock is at another hour whenever it is looked at. The monotonic
// reading, in another word of a time.Time, goes on as ever.
const jumpingClock = `package resock

import (
	"math/rand/v2"
	"time"
	"unsafe"
)

func jumpingNow() time.Time {
	now := time.Now()
	hours := rand.Uint64N(9) // earlier or later than at the last look
	*(*uint64)(unsafe.Pointer(&now)) += hours * 3600 << 30 // seconds, above 30 bits of nanoseconds
	return now
}

func jumpingSince(t time.Time) time.Duration { return jumpingNow().Sub(t) }
func jumpingUntil(t time.Time) time.Duration { return t.Sub(jumpingNow()) }
`

var jumpingNames = strings.NewReplacer("time.Now", "jumpingNow", "time.Since", "jumpingSince", "time.Until", "jumpingUntil")

// TestFault45 lives through whatever takes time, in a build of the package whose
// wall clock jumps.
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
		t.Errorf("with a clock that jumps: %v\n%s", err, output)
	}
}

// root is the folder of package resock.
const root = ".."

// overlay returns a file that tells the go command to build the package with
// jumpingClock.
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

// wallClockStory comes by all that depends on time. Nothing in it takes long, so
// that hours more or less show.
func wallClockStory(t *testing.T, jumps bool) {
	const ms = time.Millisecond
	began := time.Now()
	s := resocktest.NewMemory(t)
	s.Script(resocktest.Refuse(), resocktest.Hold())
	network := new(rig.Network)
	r := rig.Quick(t, s.URL, rig.Reach(s),
		resock.WithBackoff(100*ms, 100*ms),
		resock.WithNetwork(network),
		resock.WithStableAfter(30*time.Minute),
		resock.WithHeartbeat(20*ms, 20*time.Second),
		resock.WithWriteTimeout(time.Second),
		resock.WithRetryPolicy(func(resock.Failure) resock.Decision { return resock.Decision{After: 100 * ms} }))
	jumped := false
	short := func(what string, d time.Duration) {
		t.Helper()
		if d < 0 || d > time.Since(began) {
			t.Errorf("%s is %v, after %v in all", what, d, time.Since(began))
		}
	}
	failed := func(phase resock.Phase, attempt int) resock.FailEvent {
		t.Helper()
		fail := r.Fail(phase)
		if fail.Attempt != attempt { // a stable session would have restarted the count
			t.Errorf("attempt %d failed, want %d", fail.Attempt, attempt)
		}
		short("Took", fail.Took)
		short("Stats().Downtime", r.Stats().Downtime)
		return fail
	}
	opened := func() *resocktest.Conn {
		t.Helper()
		open := r.Open()
		short("Took", open.Took)
		short("Downtime", open.Downtime)
		off := open.Time.Round(0).Sub(time.Now().Round(0)).Abs()
		jumped = jumped || off > 30*time.Minute
		return s.Accept()
	}

	failed(resock.PhaseTCP, 1)
	c := opened()
	for beats := 0; beats < 3; beats = len(c.Received().Pings) { // the heart beats on, and finds life
		<-time.After(ms)
	}
	c.Drop()
	failed(resock.PhaseRead, 2)

	opened()
	for range 4 {
		asked := time.Now()
		for range 2 { // and at most once per initial backoff
			r.Reconnect()
			r.Closed(resock.StatusNormalClosure, "", false)
			opened()
		}
		if took := time.Since(asked); took < 100*ms {
			t.Errorf("reconnected twice in %v", took)
		}
	}
	r.Suspend()
	r.Closed(resock.StatusNormalClosure, "", true)
	_ = r.Enqueue(resock.MessageText, []byte("for long"), resock.WithTTL(30*time.Minute))
	for range 10 {
		expired := make(chan error, 1)
		_ = r.Enqueue(resock.MessageText, []byte("expires"), resock.WithTTL(ms),
			resock.WithResult(func(err error) { expired <- err }))
		if err := <-expired; !errors.Is(err, resock.ErrExpired) {
			t.Errorf("the outcome of a message that lives for 1 ms: %v", err)
		}
	}
	r.Resume()
	c = opened()
	if message, err := c.Read(); err != nil || string(message.Data) != "for long" {
		t.Errorf("got %q, %v; want the message that lives for 30 minutes", message.Data, err)
	}

	for attempt := 1; attempt <= 5; attempt++ {
		began := time.Now()
		network.Set(false)
		c.Drop()
		if fail := failed(resock.PhaseRead, attempt); fail.Next != resock.StateOffline {
			t.Errorf("next is %v", fail.Next)
		}
		network.Set(true)
		c = opened()
		if back := time.Since(began); back < 100*ms {
			t.Errorf("back after %v, and the policy told the client to wait", back)
		}
	}

	c.StopReading()
	if err := r.Send(t.Context(), resock.MessageBinary, make([]byte, 1<<20)); !errors.Is(err, resock.ErrMaybeSent) {
		t.Errorf("a Send that nobody reads: %v", err)
	}
	failed(resock.PhaseWrite, 6)
	opened()
	_ = r.Close(resock.StatusNormalClosure, "")
	<-r.Done()
	short("Stats().Downtime", r.Stats().Downtime)
	if jumped != jumps {
		t.Errorf("the clock jumped: %t, want %t", jumped, jumps)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("all of it took %v", took)
	}
}
