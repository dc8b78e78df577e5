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

// missing skips the test because a peer is missing, or fails it if all are required.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	reason := fmt.Sprintf(format, args...) + "; interop/install installs it"
	if os.Getenv("RESOCK_INTEROP_REQUIRED") == "1" {
		t.Fatalf("%s; not skipped, because of RESOCK_INTEROP_REQUIRED=1", reason)
	}
	t.Skip(reason)
}

// program returns the path of an installed program. It also looks in the directories
// of daemons, which may not be in PATH.
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

// address returns an address that is free. Its port is below the ephemeral ports (from
// 32768 on), so that it stays free while a peer restarts.
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
	// The servers exit when this pipe is closed, even if the tests were killed.
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

// Write collects the standard error of the process.
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
			p.t.Fatalf("%s exited too soon: %v", p.name, p.command.ProcessState)
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

// kill kills the process, which has no time to close its connections.
func (p *process) kill() {
	_ = p.command.Process.Kill()
	<-p.exited
}

// stop terminates the process and waits for it. Unlike kill it lets a proxy end its
// workers.
func (p *process) stop() {
	_ = p.command.Process.Signal(syscall.SIGTERM)
	_ = p.command.Process.Signal(syscall.SIGCONT)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("%s does not exit", p.name)
		p.kill()
	}
}

// end is how a connection ended, as reported by a server in peers/.
type end struct {
	ID     string `json:"id"`
	Code   int    `json:"code"`
	Reason string `json:"reason"`
}

// ended returns the end of the connection whose query has the id.
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
		p.t.Fatalf("%s wrote no more lines", p.name)
	}
	return ""
}

// rest returns the remaining lines of standard output of a process that has ended.
func (p *process) rest() iter.Seq[string] {
	return func(yield func(string) bool) {
		for len(p.lines) > 0 && yield(<-p.lines) {
		}
	}
}

// serverVariable is set to the name of a server and a port to run the test binary as
// that server.
const serverVariable = "RESOCK_INTEROP_SERVER"

// servers are the servers in Go. They run in processes, so that they can be killed.
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

// serve runs a server until standard input is closed.
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
	defer conn.CloseNow() //nolint:errcheck // nothing depends on it
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
