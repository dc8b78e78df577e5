package main

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// fault is something that goes wrong on purpose, and when.
type fault struct {
	text string // as it was written
	kind *faultKind

	every    bool          // again and again
	delay    time.Duration // after the connection was made
	messages int64         // after so many messages

	code   int    // a close code or an HTTP status
	reason string // for the close code
	number int64  // of messages, or bytes per second
	size   int64  // of a message, or -1

	lasts      time.Duration // 0 is for ever
	times      int           // so many connections, or 0
	retryAfter time.Duration // in the response
}

// faultKind is a kind of fault: its form, and what it does to a connection or, if it is
// about new connections, to the server.
type faultKind struct {
	name, form, what string
	lasting          bool                       // it changes what is so, and takes no time
	read             func(*fault, *words) error // what follows the name; nil if nothing may
	peer             func(*peer, *fault)
	server           func(*server, *fault)
}

var faultKinds []*faultKind // set by init, since "help" lists them

func init() {
	faultKinds = []*faultKind{
		{"drop", "", "cut the connection by a reset, without a close frame", false, nil, (*peer).drop, nil},
		{"end", "", "end the TCP connection without a close frame", false, nil, (*peer).end, nil},
		{"close", "[CODE [REASON]]", "close with a code, even one that must not be sent; without one by an empty close frame", false, readClose, (*peer).close, nil},
		{"stall", "[for DURATION]", "read and write nothing, pongs included", true, readFor, (*peer).stall, nil},
		{"deaf", "[for DURATION]", "read nothing", true, readFor, (*peer).deafen, nil},
		{"slow", "BYTES [for DURATION]", "read and write so many bytes per second", true, readSlow, (*peer).slow, nil},
		{"no-pongs", "[for DURATION]", "answer no pings", true, readFor, (*peer).stopPongs, nil},
		{"silence", "[for DURATION]", "send no messages, but answer pings", true, readFor, (*peer).silence, nil},
		{"garbage", "", "send bytes that are no frame", false, nil, (*peer).garbage, nil},
		{"half", "", "send half a frame, and end the TCP connection", false, nil, (*peer).half, nil},
		{"burst", "N [SIZE]", "send N messages at once", false, readBurst, (*peer).burst, nil},
		{"status", "CODE [retry-after DURATION] [for DURATION | N times]", "answer new connections by an HTTP status", true, readStatus, nil, (*server).fail},
		{"hang", "[for DURATION | N times]", "accept new connections and answer nothing", true, readNew, nil, (*server).fail},
		{"refuse", "[for DURATION | N times]", "reset new connections", true, readNew, nil, (*server).fail},
		{"ok", "", "end all faults that last", true, nil, (*peer).recover, (*server).recover},
	}
}

// faultHelp describes all faults.
func faultHelp() string {
	var b strings.Builder
	b.WriteString("  [after|every DURATION | after|every N messages] and one of:\n")
	for _, k := range faultKinds {
		b.WriteString("  " + strings.TrimSpace(k.name+" "+k.form) + "\n" + wrap(k.what) + "\n")
	}
	return b.String()
}

// parseFault reads a fault such as "every 100 messages close 1012 restart".
func parseFault(text string) (*fault, error) {
	f := &fault{text: strings.Join(strings.Fields(text), " "), size: -1}
	w := &words{strings.Fields(text)}
	err := f.read(w)
	if err == nil && len(w.rest) > 0 {
		err = fmt.Errorf("%q is not expected", strings.Join(w.rest, " "))
	}
	if err != nil {
		return nil, fmt.Errorf("fault %q: %w", f.text, err)
	}
	return f, nil
}

func (f *fault) read(w *words) error {
	if err := f.readWhen(w); err != nil {
		return err
	}
	name, ok := w.next()
	if !ok {
		return errors.New("the fault is missing, such as drop")
	}
	for _, k := range faultKinds {
		if k.name != name {
			continue
		}
		f.kind = k
		if k.peer == nil && f.messages > 0 {
			return errors.New("is about new connections, which have no messages")
		}
		if k.read == nil {
			return nil
		}
		return k.read(f, w)
	}
	return fmt.Errorf("%q is none of %s", name, faultNames())
}

// atOnce reports whether the fault may strike right away, whoever asks for it.
func (f *fault) atOnce() bool {
	return f.kind.lasting && f.delay == 0 && f.messages == 0
}

func faultNames() string {
	names := make([]string, len(faultKinds))
	for i, k := range faultKinds {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}

// readWhen reads what stands before the fault.
func (f *fault) readWhen(w *words) error {
	every := w.take("every")
	if !every && !w.take("after") {
		return nil
	}
	f.every = every
	what, ok := w.next()
	if !ok {
		return errors.New(`a duration, or "N messages", is missing`)
	}
	if w.take("messages") || w.take("message") {
		n, err := strconv.ParseInt(what, 10, 64)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is no number of messages", what)
		}
		f.messages = n
		return nil
	}
	d, err := parseDuration(what)
	if err != nil {
		return fmt.Errorf("%q: %w", what, err)
	}
	if d < 0 || every && d == 0 {
		return fmt.Errorf("%q is too short", what)
	}
	f.delay = d
	return nil
}

// readFor reads "for DURATION", if it is there.
func readFor(f *fault, w *words) error {
	if !w.take("for") {
		return nil
	}
	what, _ := w.next()
	d, err := parseDuration(what)
	if err == nil && d <= 0 {
		err = errors.New("must be positive")
	}
	if err != nil {
		return fmt.Errorf("for %q: %w", what, err)
	}
	f.lasts = d
	return nil
}

// readNew reads "for DURATION" or "N times", if it is there.
func readNew(f *fault, w *words) error {
	if len(w.rest) != 2 || w.rest[1] != "times" && w.rest[1] != "time" {
		return readFor(f, w)
	}
	n, err := strconv.Atoi(w.rest[0])
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number of times", w.rest[0])
	}
	f.times, w.rest = n, nil
	return nil
}

func readStatus(f *fault, w *words) error {
	what, _ := w.next()
	code, err := strconv.Atoi(what)
	if err != nil || code < 200 || code > 599 {
		return fmt.Errorf("%q is no HTTP status from 200 to 599", what)
	}
	f.code = code
	if w.take("retry-after") {
		what, _ := w.next()
		if f.retryAfter, err = parseDuration(what); err != nil {
			return fmt.Errorf("retry-after %q: %w", what, err)
		}
	}
	return readNew(f, w)
}

// readClose reads "[CODE [REASON]]"; code 0 is an empty close frame.
func readClose(f *fault, w *words) error {
	what, ok := w.next()
	if !ok {
		return nil
	}
	code, err := strconv.ParseUint(what, 10, 16)
	if err != nil || code == 0 {
		return fmt.Errorf("%q is no close code", what)
	}
	f.code, f.reason, w.rest = int(code), strings.Join(w.rest, " "), nil
	if len(f.reason) > maxReason {
		return fmt.Errorf("the reason has %d bytes, of at most %d", len(f.reason), maxReason)
	}
	return nil
}

// maxReason is the size of the longest reason that a close frame has room for (RFC 6455,
// section 5.5).
const maxReason = 123

func readSlow(f *fault, w *words) error {
	what, _ := w.next()
	n, err := parseSize(what)
	if err != nil || n == 0 {
		return fmt.Errorf("%q is no number of bytes per second", what)
	}
	f.number = n
	return readFor(f, w)
}

func readBurst(f *fault, w *words) error {
	what, _ := w.next()
	n, err := strconv.ParseInt(what, 10, 64)
	if err != nil || n < 1 {
		return fmt.Errorf("%q is no number of messages", what)
	}
	f.number = n
	if what, ok := w.next(); ok {
		if f.size, err = parseSize(what); err != nil {
			return fmt.Errorf("%q: %w", what, err)
		}
	}
	return nil
}

// words are those that are not read yet.
type words struct{ rest []string }

func (w *words) next() (string, bool) {
	if len(w.rest) == 0 {
		return "", false
	}
	word := w.rest[0]
	w.rest = w.rest[1:]
	return word, true
}

// take skips a word if it is the next one.
func (w *words) take(word string) bool {
	if len(w.rest) == 0 || w.rest[0] != word {
		return false
	}
	w.rest = w.rest[1:]
	return true
}

// fail makes new connections fail, until the next such fault.
func (s *server) fail(f *fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing, s.failsLeft = f, f.times
	s.failure.begin(f.lasts)
}

// recover ends what fail began.
func (s *server) recover(*fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = nil
	close(s.recovered)
	s.recovered = make(chan struct{})
}

// nextFailure returns the fault that a new connection meets, if it is one of kind, or nil.
func (s *server) nextFailure(kinds ...string) *fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.failing
	if f == nil || s.failure.left() == 0 {
		return nil
	}
	for _, kind := range kinds {
		if f.kind.name != kind {
			continue
		}
		if f.times > 0 {
			if s.failsLeft--; s.failsLeft == 0 {
				s.failing = nil
			}
		}
		return f
	}
	return nil
}

// meet lets a request meet a fault. It reports whether that was the answer.
func (s *server) meet(f *fault, w http.ResponseWriter, r *http.Request) bool {
	if f == nil {
		return false
	}
	s.log("%s: %s", r.RemoteAddr, f.text)
	if f.kind.name == "hang" {
		s.mu.Lock()
		left, recovered := s.failure.left(), s.recovered
		s.mu.Unlock()
		if f.times > 0 {
			left = time.Until(forever)
		}
		timer := time.NewTimer(left)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-recovered:
		case <-s.stopping:
		case <-r.Context().Done():
			return true
		}
		return false
	}
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.retryAfter+time.Second-1)/time.Second)))
	}
	http.Error(w, "resock serve: "+f.text, f.code)
	return true
}
