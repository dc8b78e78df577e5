package main

import (
	"bytes"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// screen is standard error and, if that is the same terminal, standard output: what is
// printed, the status line and the line that is being typed never mix.
//
// The status line is the last line; while lines are typed it stands above the line that
// is being typed, which is the work of term.Terminal.
type screen struct {
	stderr, stdout *os.File
	shared         bool // standard output is the same terminal
	capable        bool // standard error is a terminal that lines can be edited on
	live           bool // there is a status line

	saved *term.State // of the terminal of standard input, before raw mode; nil without typing
	keys  *keys
	line  *term.Terminal // nil without typing
	whole *wholeWriter   // beneath line

	mu      sync.Mutex
	waiting []byte // lines of standard output that are drawn with the next status line
	failed  error  // to draw them
	status  string
	latest  string // the status line that was drawn last; empty if it must be drawn again
	shown   bool   // the status line is on the screen
	held    bool   // it must not be: term.Terminal moves to a new line
	closed  bool
	behind  bool // the program is in the background
	width   int
	drawn   time.Time // when the status line was drawn last
}

const mostWaiting = 64 << 10 // bytes

const (
	eraseAbove = "\x1b[A\r\x1b[K" // the status line, from the line below
	eraseHere  = "\r\x1b[J"
)

// newScreen takes over the terminal, if there is one.
func newScreen(quiet bool) *screen {
	s := &screen{stderr: os.Stderr, stdout: os.Stdout}
	if !isTerminal(s.stderr) || os.Getenv("TERM") == "dumb" || !enableEscapes(s.stderr) {
		return s
	}
	s.live, s.capable = !quiet, true
	s.shared = isTerminal(s.stdout)
	return s
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// mayType reports whether standard input is a terminal from which the program may read.
func mayType() bool { return isTerminal(os.Stdin) && foreground(os.Stdin) }

// edit lets lines be edited as they are typed, if they are typed at a terminal that can
// show them. interrupt is called for Ctrl-C.
func (s *screen) edit(interrupt func()) {
	if !s.capable || !mayType() || s.shared && !sameTerminal(s.stdout, s.stderr) {
		return
	}
	saved, err := term.MakeRaw(int(os.Stdin.Fd()))
	if err != nil {
		return
	}
	s.saved, s.held = saved, true
	s.keys = &keys{screen: s, interrupt: interrupt}
	s.whole = &wholeWriter{to: s.stderr}
	s.line = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{s.keys, s.whole}, "> ")
	s.resize()
}

func (s *screen) typing() bool { return s.line != nil }

// readLine returns the next line that is typed, and io.EOF after Ctrl-D.
func (s *screen) readLine() (string, error) { return s.line.ReadLine() }

// output returns where messages are written.
func (s *screen) output() io.Writer {
	if s.shared {
		return sharedOutput{s}
	}
	return s.stdout
}

// sharedOutput is standard output that is the screen.
type sharedOutput struct{ *screen }

// Write writes whole lines. If the status line was drawn just now, they wait for when it
// is next: both are drawn at once then, and not too often.
func (s sharedOutput) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting = append(s.waiting, p...)
	if s.live && time.Since(s.drawn) < redrawEvery && len(s.waiting) < mostWaiting {
		return len(p), nil
	}
	if err := s.paint(nil, s.stdout); err != nil {
		return 0, err
	}
	return len(p), nil
}

// tell writes whole lines to standard error. An error of that has nowhere to go.
func (s *screen) tell(lines string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.paint([]byte(lines), s.stderr)
}

// setStatus changes the status line to text, of the width that there is. It reports false
// when the screen is closed.
func (s *screen) setStatus(text func(width int) string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.behind = !foreground(s.stderr)
	if s.resize() {
		s.latest = ""
	}
	s.status = text(max(0, s.width-1)) // a full line would wrap
	if s.status != s.latest || !s.shown || len(s.waiting) > 0 {
		_ = s.paint(nil, s.stderr) // if it is not due, a later call draws it
	}
	return true
}

// resize asks for the size of the terminal, and reports whether it changed; mu is held.
func (s *screen) resize() bool {
	width, height, err := term.GetSize(int(s.stderr.Fd()))
	if err != nil || width == 0 {
		width, height = 80, 24
	}
	if s.line != nil {
		_ = s.line.SetSize(width, height)
	}
	changed := width != s.width
	s.width = width
	return changed
}

// paint writes what waits, whole lines, and the status line again if it is due; mu is held.
// An error of standard output is told by this and every later call.
func (s *screen) paint(lines []byte, to *os.File) error {
	now := time.Now()
	wanted := s.live && !s.held && !s.behind && s.status != ""
	due := wanted && now.Sub(s.drawn) >= redrawEvery-time.Millisecond
	if wanted && !due && len(lines)+len(s.waiting) == 0 {
		return s.failed // what is on the screen stays there
	}
	var b bytes.Buffer
	if s.shown {
		b.WriteString(s.erase())
		s.shown = false
	}
	if len(s.waiting) > 0 {
		to = s.stdout
		b.Write(s.waiting)
		s.waiting = s.waiting[:0]
	}
	b.Write(lines)
	if due {
		b.WriteString(s.status + s.after())
		s.latest, s.shown, s.drawn = s.status, true, now
	}
	if err := s.write(b.Bytes(), to); err != nil && to == s.stdout {
		s.failed = err
	}
	return s.failed
}

// wholeWriter writes what is between begin and end at once: term.Terminal erases the line
// that is being typed and draws it again in several writes, which would flicker.
type wholeWriter struct {
	to *os.File

	mu      sync.Mutex
	waiting bool
	buffer  []byte
}

func (w *wholeWriter) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = true
}

func (w *wholeWriter) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.to.Write(w.buffer)
	w.waiting, w.buffer = false, w.buffer[:0]
	return err
}

// Write implements [io.Writer].
func (w *wholeWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting {
		return w.to.Write(p)
	}
	w.buffer = append(w.buffer, p...)
	return len(p), nil
}

// write writes to the terminal, or to a file that is none.
func (s *screen) write(b []byte, to *os.File) (err error) {
	switch {
	case len(b) == 0:
	case s.line != nil && !s.closed && (s.shared || to == s.stderr):
		s.whole.begin()
		_, _ = s.line.Write(b) // into memory
		err = s.whole.end()
	default:
		_, err = to.Write(b)
	}
	return err
}

// erase erases the status line.
func (s *screen) erase() string {
	if s.line != nil {
		return eraseAbove
	}
	return eraseHere
}

// after is what follows the status line. Without typing, the cursor stands at its
// beginning, so that it can be erased even after the terminal has wrapped it.
func (s *screen) after() string {
	if s.line != nil {
		return "\n"
	}
	return "\r"
}

// hold takes the status line away until release is called.
func (s *screen) hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	_ = s.paint(nil, s.stderr)
}

// release lets the status line be drawn again.
func (s *screen) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
}

// suspend stops the program, as Ctrl-Z does, with the terminal as it was.
func (s *screen) suspend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	_ = s.paint(nil, s.stderr)
	s.restore()
	stopSelf()
	s.held = false
	if s.line != nil && !s.closed {
		_, _ = term.MakeRaw(int(os.Stdin.Fd()))
		_, _ = io.WriteString(s.line, eraseHere)
	}
}

// close erases the status line and what is being typed, and leaves the terminal as it was.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.live = false
	_ = s.paint(nil, s.stderr)
	s.closed = true
	if s.line != nil {
		s.line.SetPrompt("")
		_, _ = io.WriteString(s.line, eraseHere)
		_, _ = io.WriteString(s.stderr, eraseHere)
	}
	s.restore()
}

// abandon is close for a program that ends at once: it does not wait for what is stuck in
// writing.
func (s *screen) abandon() {
	if s.mu.TryLock() {
		s.mu.Unlock()
		s.close()
	}
	s.restore()
}

// restore ends raw mode. It never waits.
func (s *screen) restore() {
	if s.saved != nil {
		_ = term.Restore(int(os.Stdin.Fd()), s.saved)
	}
}

// keys is what is typed. It stops at what ends a line, so that the status line is gone when
// term.Terminal moves to the next one.
type keys struct {
	screen    *screen
	interrupt func()
	buffer    [256]byte
	rest      []byte
}

// Keys that are no signals in raw mode.
const (
	keyInterrupt = 'C' & 31
	keyStop      = 'Z' & 31
)

// Read implements [io.Reader]. term.Terminal calls it when it has drawn the line.
func (k *keys) Read(p []byte) (int, error) {
	for len(k.rest) == 0 {
		k.screen.release()
		n, err := os.Stdin.Read(k.buffer[:])
		if err != nil {
			return 0, err
		}
		k.rest = k.keep(k.buffer[:n])
	}
	n := bytes.IndexAny(k.rest, "\r\n")
	switch {
	case n < 0:
		n = len(k.rest)
	case n == 0:
		k.screen.hold()
		n = 1
	}
	n = copy(p, k.rest[:n])
	k.rest = k.rest[n:]
	return n, nil
}

// keep returns b without what the program answers itself.
func (k *keys) keep(b []byte) []byte {
	kept := b[:0]
	for i, c := range b {
		switch {
		case c == keyInterrupt:
			k.interrupt()
		case c == keyStop:
			stopJob()
		case c == '\n' && i > 0 && b[i-1] == '\r':
		default:
			kept = append(kept, c)
		}
	}
	return kept
}
