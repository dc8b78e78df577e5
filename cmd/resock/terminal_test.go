//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// display is a terminal: what its user sees of what the program writes.
type display struct {
	width, row, column int
	rows               [][]rune
}

// sees returns what the user sees after text was written, line by line without trailing
// blanks, and where the cursor is.
func sees(text string, width int) (lines []string, row, column int) {
	d := &display{width: width}
	text = text[:len(text)-len(partial.FindString(text))]
	for len(text) > 0 {
		text = text[d.take(text):]
	}
	for _, row := range d.rows {
		lines = append(lines, strings.TrimRight(string(row), " "))
	}
	for len(lines) > 0 && lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	return lines, d.row, d.column
}

var escape = regexp.MustCompile(`^\x1b\[(\d*)([A-Za-z])`)

// partial is the beginning of an escape sequence.
var partial = regexp.MustCompile(`\x1b(\[\d*)?$`)

// take takes a character or an escape sequence.
func (d *display) take(text string) int {
	if m := escape.FindStringSubmatch(text); m != nil {
		n := 1
		if m[1] != "" {
			n = int(m[1][0] - '0')
			for _, digit := range m[1][1:] {
				n = 10*n + int(digit-'0')
			}
		}
		d.escape(m[2], n, m[1] != "")
		return len(m[0])
	}
	r, n := utf8.DecodeRuneInString(text)
	switch r {
	case '\r':
		d.column = 0
	case '\n':
		d.row++
	case '\b':
		d.column = max(0, d.column-1)
	default:
		if d.column == d.width {
			d.row, d.column = d.row+1, 0
		}
		d.line()[d.column] = r
		d.column++
	}
	return n
}

func (d *display) escape(command string, n int, given bool) {
	switch command {
	case "A":
		d.row = max(0, d.row-n)
	case "B":
		d.row += n
	case "C":
		d.column = min(d.width-1, d.column+n)
	case "D":
		d.column = max(0, d.column-n)
	case "K":
		d.clear(d.line(), d.column)
	case "J":
		d.clear(d.line(), d.column)
		d.rows = d.rows[:d.row+1]
	}
}

func (d *display) clear(line []rune, from int) {
	for i := from; i < len(line); i++ {
		line[i] = ' '
	}
}

// line is the row of the cursor.
func (d *display) line() []rune {
	for len(d.rows) <= d.row {
		d.rows = append(d.rows, []rune(strings.Repeat(" ", d.width)))
	}
	return d.rows[d.row]
}

// console is a terminal that the program runs at.
type console struct {
	*process
	terminal *os.File
	screen   *stream       // what the program writes to the terminal
	ended    chan struct{} // closed when nobody can write to the terminal any more
	width    int
	before   unix.Termios
}

// at runs the program at a terminal of a width. Some of its files may be others.
func at(t *testing.T, width int, other func(*process), args ...string) *console {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	c := &console{process: prepare(t, args...), terminal: ours, screen: newStream(), ended: make(chan struct{})}
	c.resize(width)
	c.before = c.attributes()
	c.command.Stdin, c.command.Stdout, c.command.Stderr = theirs, theirs, theirs
	c.command.Env = append(c.command.Env, "TERM=xterm")
	if other != nil {
		other(c.process)
	}
	c.stdin = ours
	c.run()
	_ = theirs.Close()
	go func() {
		defer close(c.ended)
		_, _ = io.Copy(c.screen, ours)
	}()
	return c
}

// all is everything that was written to the terminal. It waits until the last program there
// has exited.
func (c *console) all() string {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatal("a program at the terminal does not exit")
	}
	return c.screen.String()
}

func (c *console) resize(width int) {
	c.t.Helper()
	c.width = width
	if err := pty.Setsize(c.terminal, &pty.Winsize{Rows: 24, Cols: uint16(width)}); err != nil {
		c.t.Fatal(err)
	}
}

// keys types keys.
func (c *console) keys(keys string) {
	c.t.Helper()
	if _, err := c.terminal.WriteString(keys); err != nil {
		c.t.Fatal(err)
	}
}

// shows waits until the user sees lines that match a pattern, from the first line of the
// screen to the last one.
func (c *console) shows(pattern string) {
	c.t.Helper()
	match := regexp.MustCompile(`\A` + pattern + `\z`)
	c.screen.until(c.t, pattern, func(text string) bool {
		lines, _, _ := sees(text, c.width)
		return match.MatchString(strings.Join(lines, "\n"))
	})
}

// TestTyping checks that neither messages nor the status line destroy what is being typed.
func TestTyping(t *testing.T) {
	server := resocktest.NewServer(t)
	c := at(t, 80, nil, server.URL)
	conn := server.Accept()
	c.shows(`resock: connected to ws://\S+\nopen #1  in 0/s .*\n>`)
	c.keys("hel")
	c.shows(`resock: connected to ws://\S+\nopen #1  .*\n> hel`)
	push(t, conn, "a push")
	c.shows(`resock: connected to ws://\S+\na push\nopen #1  .*\n> hel`)
	c.keys("lo\r")
	if got := read(t, conn); got != "hello" {
		t.Errorf("the server received %q", got)
	}
	c.shows(`resock: connected to ws://\S+\na push\n> hello\nopen #1  .*\n>`)
	c.keys("one\rtwo\rthr")
	if got := read(t, conn) + read(t, conn); got != "onetwo" {
		t.Errorf("the server received %q", got)
	}
	c.shows(`resock: connected to ws://\S+\na push\n> hello\n> one\n> two\nopen #1  .*\n> thr`)
	c.keys("\x15\x04") // Ctrl-U, Ctrl-D
	c.exits(0)
	c.shows(`resock: connected to ws://\S+\na push\n> hello\n> one\n> two\nresock: closed after \S+ code 1000`)
}

// TestTerminalIsRestored checks that no status line, prompt or raw mode is left however the
// program ends.
func TestTerminalIsRestored(t *testing.T) {
	for name, end := range map[string]struct {
		code int
		does func(*console, *resocktest.Conn)
	}{
		"Ctrl-C":  {130, func(c *console, _ *resocktest.Conn) { c.keys("half a line\x03") }},
		"SIGTERM": {143, func(c *console, _ *resocktest.Conn) { c.signal(syscall.SIGTERM) }},
		"Ctrl-D":  {0, func(c *console, _ *resocktest.Conn) { c.keys("\x04") }},
		"count":   {0, func(c *console, conn *resocktest.Conn) { push(c.t, conn, "last"); _ = conn.Push("beyond") }},
		"two Ctrl-C": {130, func(c *console, conn *resocktest.Conn) {
			conn.IgnoreClose()
			c.keys("\x03")
			for conn.Received().Close == nil {
				if err := conn.Ping(""); err != nil {
					c.t.Fatal(err)
				}
			}
			c.keys("\x03")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			server := resocktest.NewServer(t)
			c := at(t, 80, nil, "-n", "2", server.URL)
			conn := server.Accept()
			push(t, conn, "first")
			c.shows(`resock: connected to \S+\nfirst\nopen .*\n>`)
			if during := c.attributes(); during.Lflag&unix.ICANON != 0 {
				t.Error("the terminal is not in raw mode")
			}
			end.does(c, conn)
			c.exits(end.code)
			c.shows(`resock: connected to \S+\nfirst(\nlast)?(\nresock: closed after .*)?`)
			if after := c.attributes(); after != c.before {
				t.Errorf("the terminal is left as %+v, was %+v", after, c.before)
			}
		})
	}
}

// attributes are those of the terminal.
func (c *console) attributes() unix.Termios {
	c.t.Helper()
	state, err := unix.IoctlGetTermios(int(c.terminal.Fd()), getTermios)
	if err != nil {
		c.t.Fatal(err)
	}
	return *state
}

// TestStatus checks what the status line says through an outage, while messages go to a
// file.
func TestStatus(t *testing.T) {
	server := resocktest.NewServer(t)
	c := at(t, 300, func(p *process) { // no line is wrapped
		p.command.Stdin = strings.NewReader("")
		p.command.Stdout = p.stdout
	}, "-heartbeat", "50ms", "-backoff", "3s", server.URL)
	conn := server.Accept()
	c.shows(`resock: connected to \S+\nopen #1  in 0/s [0-9]+B/s  out 0/s [0-9]+B/s  round trip [0-9.]+(µs|ms)`)
	for range 50 {
		push(t, conn, "message")
	}
	c.shows(`resock: connected to \S+\nopen #1  in [1-9][0-9]*/s [0-9]+B/s  out .*`)
	server.Stop()
	c.shows(`resock: connected(.*\n)*waiting, next in [0-2]\.[0-9]s(, attempt \d+)?, #1 lost  down [0-9]+s`)
	server.Restart()
	c.shows(`resock: connected(.*\n)*resock: connected again after .*, session 2\nopen #2  .*  down [0-9]+s`)
	c.signal(syscall.SIGINT)
	c.exits(130)
	c.shows(`(resock: .*\n)+resock: closed .*`)
	c.stdout.is(t, strings.Repeat("message\n", 50))
}

// TestNarrowTerminal checks that the status line fits, and tells the most important.
func TestNarrowTerminal(t *testing.T) {
	server := resocktest.NewServer(t)
	c := at(t, 40, nil, "-heartbeat", "20ms", server.URL)
	conn := server.Accept()
	c.shows(`resock: connected to ws://\S*\n\S*\nopen #1 in 0/s out 0/s [0-9.]+(µs|ms)\n>`)
	push(t, conn, "a message")
	c.keys("typed")
	c.shows(`resock: connected to ws://\S*\n\S*\na message\nopen #1 in \d/s out 0/s [0-9.]+(µs|ms)\n> typed`)
	c.resize(20)
	c.screen.await(t, "\x1b[Kopen #1 in 0/s\r\n")
	c.resize(120)
	c.screen.until(t, "a long status line", func(text string) bool {
		return strings.Contains(text[strings.LastIndex(text, "\x1b[Kopen"):], "  round trip ")
	})
}

// TestPlainLines checks that nothing is drawn without a terminal that can show it, and with
// -quiet.
func TestPlainLines(t *testing.T) {
	for name, other := range map[string]func(*process){
		"dumb":   func(p *process) { p.command.Env = append(p.command.Env, "TERM=dumb") },
		"2>file": func(p *process) { p.command.Stderr = p.stderr },
		"no keys": func(p *process) {
			p.command.Args = append(p.command.Args, "-q")
			p.command.Stdin = strings.NewReader("")
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := resocktest.NewServer(t)
			c := at(t, 80, other, server.URL)
			conn := server.Accept()
			push(t, conn, "a message")
			c.shows(`(resock: connected.*\n)?a message`)
			if text := c.screen.String(); strings.Contains(text, "\x1b") {
				t.Errorf("escape sequences in %q", text)
			}
			if name != "no keys" {
				c.keys("a line\n")
				if got := read(t, conn); got != "a line" {
					t.Errorf("got %q", got)
				}
			}
			c.signal(syscall.SIGINT)
			c.exits(130)
		})
	}
}

// TestControlCharacters checks that a server cannot control the terminal.
func TestControlCharacters(t *testing.T) {
	server := resocktest.NewServer(t)
	c := at(t, 80, nil, "-q", server.URL)
	conn := server.Accept()
	push(t, conn, "\x1b[2J\x07\u009b2J\ttab\nline\x7f")
	c.screen.await(t, `\x1b[2J\x07\x9b2J`+"\ttab\r\nline"+`\x7f`)
}

// TestRedraws checks that the status line is not drawn too often, whatever comes, and that
// nothing is lost.
func TestRedraws(t *testing.T) {
	const messages = 20000
	server := resocktest.NewServer(t)
	began := time.Now()
	c := at(t, 80, nil, "-n", fmt.Sprint(messages), server.URL)
	conn := server.Accept()
	go func() {
		for n := range messages {
			_ = conn.Push(fmt.Sprint("message ", n))
		}
	}()
	c.exits(0)
	most := int(time.Since(began)/redrawEvery) + 3
	text := c.all()
	if n := strings.Count(text, "open #1"); n > most {
		t.Errorf("%d redraws, want at most %d", n, most)
	}
	lines, _, _ := sees(text, 80)
	var got []string
	for _, line := range lines {
		if !strings.HasPrefix(line, "resock: ") {
			got = append(got, line)
		}
	}
	for n, line := range got {
		if line != fmt.Sprint("message ", n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if len(got) != messages {
		t.Errorf("%d messages", len(got))
	}
}

// TestTypingWhileDisconnected checks that typed lines wait for the connection, and that
// editing goes on.
func TestTypingWhileDisconnected(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Stop()
	c := at(t, 80, nil, "-backoff-max", "100ms", "-preamble", "login", server.URL)
	c.shows(`(resock: attempt.*\n(refused\b.*\n)?)+(.*\n)*>`)
	c.keys("one\rtwo\rthref\x7fe")
	c.shows(`(.*\n)*> one\n(.*\n)*> two\n(.*\n)*> three`)
	server.Restart()
	conn := server.Accept()
	for _, want := range []string{"login", "one", "two"} {
		if got := read(t, conn); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	c.keys("\r")
	if got := read(t, conn); got != "three" {
		t.Errorf("got %q", got)
	}
}

// TestClosedPipeAtATerminal checks that the terminal is restored when the reader of the
// output has gone.
func TestClosedPipeAtATerminal(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	server := resocktest.NewServer(t)
	c := at(t, 80, func(p *process) { p.command.Stdout = writer }, server.URL)
	_ = writer.Close()
	server.Accept()
	c.shows(`resock: connected to \S+\nopen .*\n>`)
	_ = reader.Close()
	c.exits(-1)
	c.shows(`resock: connected to \S+`)
	if after := c.attributes(); after != c.before {
		t.Errorf("the terminal is left as %+v, was %+v", after, c.before)
	}
}

// inShell runs a script of bash, with job control, at a terminal. $resock is the program.
func inShell(t *testing.T, script string, args ...string) *console {
	t.Helper()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is missing")
	}
	return at(t, 80, func(p *process) {
		p.command.Path = shell
		p.command.Args = append([]string{"bash", "-c", script, "bash"}, args...)
		p.command.Env = append(p.command.Env, "resock="+binary)
		p.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	}, args...)
}

// TestStop checks that Ctrl-Z stops the program and leaves the terminal as it was, and that
// what was being typed is there again afterwards.
func TestStop(t *testing.T) {
	server := resocktest.NewServer(t)
	c := inShell(t, `set -m; "$resock" "$1"; echo stopped; read -r; fg >/dev/null; echo "ended $?"`, server.URL)
	conn := server.Accept()
	c.shows(`resock: connected to \S+\nopen .*\n>`)
	c.keys("typed")
	c.shows(`resock: connected to \S+\nopen .*\n> typed`)
	c.keys("\x1a")
	c.shows(`resock: connected to \S+\n> typed(.*\n)+stopped`)
	if c.attributes() != c.before {
		t.Error("the terminal is not as it was")
	}
	push(t, conn, "meanwhile")
	c.keys("\n")
	c.shows(`resock: connected to \S+\n> typed(.*\n)+stopped\n+meanwhile\nopen .*\n> typed`)
	c.keys("\r")
	if got := read(t, conn); got != "typed" {
		t.Errorf("got %q", got)
	}
	c.keys("\x03")
	c.screen.await(t, "ended 130")
	c.exits(0)
}

// TestBackground checks that the program runs in the background, without drawing there.
func TestBackground(t *testing.T) {
	server := resocktest.NewServer(t)
	c := inShell(t, `set -m; "$resock" -n 2 -heartbeat 20ms "$1" & wait; echo "ended $?"`, server.URL)
	conn := server.Accept()
	push(t, conn, "first")
	c.screen.await(t, "first")
	for len(conn.Received().Pings) < 20 { // there is something to draw
		if err := conn.Ping(""); err != nil {
			t.Fatal(err)
		}
	}
	push(t, conn, "second")
	c.screen.await(t, "ended 0")
	if text := c.screen.String(); strings.Contains(text, "open #1") {
		t.Errorf("it draws: %q", text)
	}
}

// TestStatusStays checks that a status line that is not due again is left alone: it must
// not vanish until it is.
func TestStatusStays(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s := &screen{stderr: writer, stdout: writer, live: true, status: "open", shown: true, drawn: time.Now()}
	if err := s.paint(nil, writer); err != nil || !s.shown {
		t.Errorf("shown: %v, %v", s.shown, err)
	}
	_ = writer.Close()
	if written, _ := io.ReadAll(reader); len(written) > 0 {
		t.Errorf("%q was written", written)
	}
}

// TestStatusIsDrawnLater checks that a status line that changes when it is not due is drawn
// when it is, even if it does not change again.
func TestStatusIsDrawnLater(t *testing.T) {
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	s := &screen{stderr: writer, stdout: writer, live: true}
	set := func(status string, drawn time.Time) {
		s.drawn = drawn
		s.setStatus(func(int) string { return status })
	}
	set("one", time.Time{})
	set("two", time.Now().Add(time.Hour))
	set("two", time.Time{})
	set("two", time.Time{})
	_ = writer.Close()
	written, _ := io.ReadAll(reader)
	if got, want := string(written), "one\r"+eraseHere+"two\r"; got != want {
		t.Errorf("%q was written, want %q", got, want)
	}
}

// TestStatusBetweenLines checks that the status line is never drawn in the middle of a line
// of the output, however much comes at once: what precedes it would be erased with it.
func TestStatusBetweenLines(t *testing.T) {
	for _, format := range []settings{{}, {json: true}, {hex: true}} {
		plain := printed(t, &format, &screen{})
		drawn := printed(t, &format, &screen{live: true, shared: true, status: "open"})
		if !strings.Contains(drawn, "open\r") {
			t.Error("the status line is not drawn")
		}
		lines, _, _ := sees(strings.ReplaceAll(drawn, "\n", "\r\n"), 120)
		for n, want := range strings.Split(strings.TrimSuffix(plain, "\n"), "\n") {
			if n >= len(lines) || lines[n] != want {
				t.Fatalf("line %d is not %q in %q", n, want, lines[min(n, len(lines)):min(n+3, len(lines))])
			}
		}
	}
}

// printed is what a screen is given when many messages come at once.
func printed(t *testing.T, format *settings, s *screen) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "screen"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s.stderr, s.stdout = file, file
	began := time.Now()
	o := newOutput(format, s, began)
	for n := range 1200 { // more than the buffer holds
		m := resock.MessageEvent{Session: 1, Type: resock.MessageText, Data: fmt.Appendf(nil, "message %060d", n)}
		if err := o.message(began, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.flush(); err != nil {
		t.Fatal(err)
	}
	s.close()
	data, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestServeInTheBackground checks that the server does not wait for what is typed there: the
// system would stop it.
func TestServeInTheBackground(t *testing.T) {
	c := inShell(t, `set -m; "$resock" serve -q -listen 127.0.0.1:0 & echo "pid $!"; wait; echo "ended $?"`, "")
	url := regexp.MustCompile(`ws://\S+/\r\n`)
	pid := regexp.MustCompile(`pid (\d+)\r\n`)
	c.screen.until(t, "the URL and the process", func(text string) bool {
		return url.MatchString(text) && pid.MatchString(text)
	})
	text := c.screen.String()
	server, _ := strconv.Atoi(pid.FindStringSubmatch(text)[1])
	t.Cleanup(func() { _ = syscall.Kill(server, syscall.SIGKILL) }) // it outlives its shell
	conn := dial(t, strings.TrimSpace(url.FindString(text)))
	says(t, conn, "hello")
	hears(t, conn, "hello")
	if err := syscall.Kill(server, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	c.screen.await(t, "ended 0")
	c.exits(0)
}
