//go:build unix

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/creack/pty"

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
	screen   *stream // what the program writes to the terminal
	width    int
}

// at runs the program at a terminal of a width. Some of its files may be others.
func at(t *testing.T, width int, other func(*process), args ...string) *console {
	t.Helper()
	ours, theirs, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	c := &console{process: prepare(t, args...), terminal: ours, screen: newStream()}
	c.resize(width)
	c.command.Stdin, c.command.Stdout, c.command.Stderr = theirs, theirs, theirs
	c.command.Env = append(c.command.Env, "TERM=xterm")
	if other != nil {
		other(c.process)
	}
	c.stdin = ours
	c.run()
	_ = theirs.Close()
	go func() {
		buffer := make([]byte, 4096)
		for {
			n, err := ours.Read(buffer)
			if err != nil {
				return
			}
			_, _ = c.screen.Write(buffer[:n])
		}
	}()
	return c
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
	c.shows(`resock: connected to ws://\S+\nopen #1  in 0/s 0B/s  out 0/s 0B/s\n>`)
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
