package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// missing skips the test for want of a peer, or fails it if all must be there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...) + "; interop/install gets it"
	if os.Getenv("RESOCK_INTEROP_REQUIRED") == "1" {
		t.Fatalf("%s, and RESOCK_INTEROP_REQUIRED=1 forbids to skip", reason)
	}
	t.Skip(reason)
}

// program returns the path of an installed program. The directories of daemons
// may be missing in PATH.
func program(t *testing.T, name string) string {
	t.Helper()
	for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(candidate); err == nil {
			return path
		}
	}
	missing(t, "%s is missing", name)
	return ""
}

// address returns an address on which nobody listens. Its port is none of those
// that the kernel hands out by itself (from 32768 on), so that it stays free
// while a peer restarts.
func address(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(22000)))
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

func port(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// process is a peer that runs until the end of the test.
type process struct {
	t       *testing.T
	name    string
	command *exec.Cmd
	exited  chan struct{}
	lines   chan string // of standard output

	mu     sync.Mutex
	errors bytes.Buffer // standard error
}

// start starts a peer and waits until it listens on address.
func start(t *testing.T, address string, command *exec.Cmd) *process {
	t.Helper()
	p := &process{
		t: t, name: filepath.Base(command.Path), command: command,
		exited: make(chan struct{}), lines: make(chan string, 4096),
	}
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = p
	// The peers in peers/ end when this pipe does, even if the tests were killed.
	input, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatalf("%s does not start: %v", p.name, err)
	}
	go func() {
		defer close(p.exited)
		scanner := bufio.NewScanner(output)
		for scanner.Scan() {
			p.lines <- scanner.Text()
		}
		_ = command.Wait()
		_ = input.Close()
	}()
	t.Cleanup(func() {
		p.stop()
		if t.Failed() {
			p.mu.Lock()
			defer p.mu.Unlock()
			t.Logf("%s wrote:\n%s", p.name, p.errors.String())
		}
	})
	p.await(address)
	return p
}

// Write takes standard error.
func (p *process) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.errors.Write(data)
}

// await returns when the process listens on address.
func (p *process) await(address string) {
	p.t.Helper()
	deadline := time.After(patience)
	for {
		connection, err := net.Dial("tcp", address)
		if err == nil {
			_ = connection.Close()
			return
		}
		select {
		case <-p.exited:
			p.t.Fatalf("%s ended early: %v", p.name, p.command.ProcessState)
		case <-deadline:
			p.t.Fatalf("%s does not listen on %s: %v", p.name, address, err)
		case <-time.After(pollEvery):
		}
	}
}

func (p *process) signal(signal os.Signal) {
	p.t.Helper()
	if err := p.command.Process.Signal(signal); err != nil {
		p.t.Fatalf("%v of %s: %v", signal, p.name, err)
	}
}

// kill kills the process without a word.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.exited
}

// stop asks the process to end, which gives a proxy the time to end its
// workers, and waits for it.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("%s does not end", p.name)
		p.kill()
	}
}

// end is how a connection ended, as a peer in peers/ saw it.
type end struct {
	ID     string `json:"id"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// ended returns the end of the connection with that id in its query.
func (p *process) ended(id string) end {
	p.t.Helper()
	for deadline := time.After(patience); ; {
		line := p.line(deadline)
		var e end
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			p.t.Fatalf("%s wrote %q: %v", p.name, line, err)
		}
		if e.ID == id {
			return e
		}
	}
}

// line returns the next line of standard output.
func (p *process) line(deadline <-chan time.Time) string {
	p.t.Helper()
	select {
	case line := <-p.lines:
		return line
	case <-deadline:
		p.t.Fatalf("%s says no more", p.name)
	}
	return ""
}

// rest is what a process that has ended wrote, and nobody took.
func (p *process) rest() iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(p.lines) > 0 && yield(<-p.lines) {
		}
	}
}

// serverVariable makes the test's own program one of the servers in it: its name, and
// the port.
const serverVariable = "RESOCK_INTEROP_SERVER"

// servers are those in Go. They are processes, so that they can be killed.
var servers = map[string]http.HandlerFunc{"echo": echo, "push": push, "jobs": jobs, "topics": topics}

// startServer starts one of the servers on address.
func startServer(t *testing.T, name, address string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self)
	command.Env = append(os.Environ(), serverVariable+"="+name+" "+port(address))
	return start(t, address, command)
}

// serve runs the server until standard input ends.
func serve(server string) {
	name, port, _ := strings.Cut(server, " ")
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+port, servers[name]))
	os.Exit(1)
}

// echo sends every message back.
func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
	conn.SetReadLimit(-1)
	for {
		typ, data, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if err := conn.Write(r.Context(), typ, data); err != nil {
			return
		}
	}
}
