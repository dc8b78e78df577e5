package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock/resocktest"
)

// binary is the program, built once.
var binary string

// patience bounds what a test waits for.
const patience = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "resock")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder)
	binary = filepath.Join(folder, "resock")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	if output, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "%v\n%s", err, output)
		return 1
	}
	return m.Run()
}

// process is a run of the program.
type process struct {
	t              *testing.T
	command        *exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *stream
	exited         chan struct{}
}

// start runs the program with its standard input open.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	p := prepare(t, args...)
	p.run()
	return p
}

// prepare returns a run of the program that has not begun.
func prepare(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{t: t, command: exec.Command(binary, args...), stdout: newStream(), stderr: newStream(), exited: make(chan struct{})}
	p.command.Stdout, p.command.Stderr = p.stdout, p.stderr
	p.command.Env = append(os.Environ(), "NO_PROXY=", "HTTP_PROXY=", "HTTPS_PROXY=", "GORACE=atexit_sleep_ms=0")
	return p
}

func (p *process) run() {
	p.t.Helper()
	if p.command.Stdin == nil {
		stdin, err := p.command.StdinPipe()
		if err != nil {
			p.t.Fatal(err)
		}
		p.stdin = stdin
	}
	if err := p.command.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = p.command.Wait()
		close(p.exited)
	}()
	p.t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.exited
		if p.t.Failed() {
			p.t.Logf("%v\nstandard output:\n%s\nstandard error:\n%s", p.command.Args[1:], clip(p.stdout.String()), clip(p.stderr.String()))
		}
	})
}

func clip(text string) string {
	if len(text) > 4000 {
		return text[:4000] + "…"
	}
	return text
}

// enter types lines.
func (p *process) enter(lines ...string) {
	p.t.Helper()
	for _, line := range lines {
		if _, err := io.WriteString(p.stdin, line+"\n"); err != nil {
			p.t.Fatal(err)
		}
	}
}

// exits waits for the end of the program, and checks its exit code.
func (p *process) exits(code int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatal("the program does not exit")
	}
	if got := p.command.ProcessState.ExitCode(); got != code {
		p.t.Errorf("exit code %d, want %d", got, code)
	}
}

// runs runs the program with an empty input, and checks its exit code.
func runs(t *testing.T, code int, args ...string) *process {
	t.Helper()
	p := start(t, args...)
	_ = p.stdin.Close()
	p.exits(code)
	return p
}

// stream is what the program writes.
type stream struct {
	mu      sync.Mutex
	data    bytes.Buffer
	changed chan struct{}
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return s.data.Write(p)
}

func (s *stream) String() string {
	text, _ := s.now()
	return text
}

func (s *stream) now() (text string, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.String(), s.changed
}

// until waits until what was written is as wanted.
func (s *stream) until(t *testing.T, what string, wanted func(text string) bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		text, changed := s.now()
		if wanted(text) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s is missing in:\n%s", what, clip(text))
		}
	}
}

// await waits for a text.
func (s *stream) await(t *testing.T, text string) {
	t.Helper()
	s.until(t, fmt.Sprintf("%q", text), func(all string) bool { return strings.Contains(all, text) })
}

// is checks all that was written.
func (s *stream) is(t *testing.T, want string) {
	t.Helper()
	if got := s.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", clip(got), clip(want))
	}
}

// has checks that a text was written.
func (s *stream) has(t *testing.T, text string) {
	t.Helper()
	if got := s.String(); !strings.Contains(got, text) {
		t.Errorf("%q is missing in:\n%s", text, clip(got))
	}
}

// entries are the lines of -json or of a recording.
func entries(t *testing.T, text string) (all []entry) {
	t.Helper()
	for line := range strings.Lines(text) {
		var e entry
		decoder := json.NewDecoder(strings.NewReader(line))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&e); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		all = append(all, e)
	}
	return all
}

// read returns the next message that the server received.
func read(t *testing.T, conn *resocktest.Conn) string {
	t.Helper()
	m, err := conn.Read()
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Data)
}

// push sends a message to the program.
func push(t *testing.T, conn *resocktest.Conn, text string) {
	t.Helper()
	if err := conn.Push(text); err != nil {
		t.Fatal(err)
	}
}
