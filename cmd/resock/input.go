package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/resock/resock"
)

// sender sends the lines of standard input, one message each. What is typed waits here
// while there is no connection, so that typing goes on; what is piped waits in the pipe.
type sender struct {
	program *program
	most    int // lines that wait

	mu      sync.Mutex
	changed sync.Cond
	lines   [][]byte
	over    bool // no line comes any more
	ends    bool // and so the program ends
	number  int  // of the last line taken

	arrivals *arrivals // or nil

	turn   sync.Mutex // held while a line is being sent and its outcome told
	failed atomic.Int64
}

var errNotUTF8 = errors.New("it is not valid UTF-8, as a text message must be; see -binary")

// start begins to read and to send.
func (s *sender) start() {
	s.changed.L = &s.mu
	s.most = 64
	read := s.readLines
	switch {
	case s.program.screen.typing():
		s.most = 1 << 20
		read = s.readTyped
	case isTerminal(os.Stdin) && !foreground(os.Stdin):
		return // reading would stop the program
	}
	if p := s.program; p.exitOnEOF && p.heartbeat > 0 { // else the server may not answer pings
		s.arrivals = &arrivals{client: p.client}
		go s.arrivals.confirm()
	}
	go s.send()
	go read()
}

// readLines reads lines that are piped, or typed without editing.
func (s *sender) readLines() {
	defer func() { s.finish(s.program.exitOnEOF) }()
	input := bufio.NewReaderSize(os.Stdin, 64<<10)
	for {
		line, err := input.ReadBytes('\n')
		if len(line) > 0 {
			s.push(trimLine(line))
		}
		if err != nil {
			if err != io.EOF {
				s.program.complain(time.Now(), fmt.Sprintf("standard input: %v", plain(err)))
			}
			return
		}
	}
}

// readTyped reads lines that are typed, with editing. Their end, Ctrl-D, closes at once if
// there is no connection on which to send what waits.
func (s *sender) readTyped() {
	for {
		line, err := s.program.screen.readLine()
		if err != nil {
			break
		}
		s.push([]byte(line))
	}
	if s.program.client.State() != resock.StateOpen {
		s.program.end(exitDone, nil)
		return
	}
	s.finish(true)
}

func trimLine(line []byte) []byte {
	if n := len(line); line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}

// push adds a line, once there is room.
func (s *sender) push(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.lines) >= s.most {
		s.changed.Wait()
	}
	s.lines = append(s.lines, line)
	s.changed.Broadcast()
}

// finish says that no line comes any more, and whether that ends the program.
func (s *sender) finish(ends bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.ends = true, ends
	s.changed.Broadcast()
}

// send sends the lines as they come.
func (s *sender) send() {
	for s.await() {
		s.turn.Lock()
		s.sendNext()
		s.turn.Unlock()
	}
	if s.endsProgram() {
		s.settle()
	}
}

func (s *sender) endsProgram() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends
}

// await waits for a line. It reports false when no line comes any more.
func (s *sender) await() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.lines) == 0 && !s.over {
		s.changed.Wait()
	}
	return len(s.lines) > 0
}

// sendNext sends the next line, as soon as there is a connection, and tells if it could not.
func (s *sender) sendNext() {
	s.mu.Lock()
	line := s.lines[0]
	s.lines = s.lines[1:]
	s.number++
	s.changed.Broadcast()
	s.mu.Unlock()

	p, typ := s.program, resock.MessageText
	if p.binary {
		typ = resock.MessageBinary
	}
	at := time.Now()
	err := errNotUTF8
	p.recorder.sends()
	defer p.recorder.sentOrNot()
	if p.binary || utf8.Valid(line) {
		err = s.sendLine(typ, line)
	}
	switch {
	case err == nil:
		p.recorder.sent(at, typ, line)
	case errors.Is(err, resock.ErrClosed):
		s.giveUp(explain(err))
	case errors.Is(err, resock.ErrMaybeSent):
		s.failed.Add(1)
		p.complain(time.Now(), fmt.Sprintf("line %d may not have arrived: the connection was lost", s.number))
	default:
		s.failed.Add(1)
		p.complain(time.Now(), fmt.Sprintf("line %d was not sent: %s", s.number, explain(err)))
	}
}

// sendLine sends a line, in a session that is known if it has to be.
func (s *sender) sendLine(typ resock.MessageType, line []byte) error {
	client := s.program.client
	for s.arrivals != nil && client.WaitOpen(context.Background()) == nil {
		session := client.Stats().Session
		err := client.Send(context.Background(), typ, line, resock.WithSession(session))
		if errors.Is(err, resock.ErrSessionOver) {
			s.arrivals.pause()
			continue
		}
		if err == nil {
			s.doubt(s.arrivals.took(session, s.number))
		}
		return err
	}
	return client.Send(context.Background(), typ, line)
}

// doubt tells which lines, if any, may not have arrived.
func (s *sender) doubt(lines string) {
	if lines == "" {
		return
	}
	s.failed.Add(1)
	s.program.complain(time.Now(), lines+" may not have arrived: the connection was lost")
}

// settle ends the program once the server has read everything.
func (s *sender) settle() {
	p := s.program
	if err := p.client.WaitOpen(context.Background()); err != nil {
		return // the program ends already
	}
	if p.heartbeat > 0 { // else the server may not answer pings, and the closing handshake has to do
		ctx, cancel := context.WithTimeout(context.Background(), max(p.heartbeatTimeout, time.Second))
		defer cancel()
		if err := p.client.Flush(ctx); err != nil {
			s.failed.Add(1)
			p.complain(time.Now(), "what was sent last may not have arrived: "+explain(err))
		} else if s.arrivals != nil {
			s.doubt(s.arrivals.lost())
		}
	}
	p.end(exitDone, nil)
}

// giveUp tells that the line that was taken last, and those that wait, are not sent.
func (s *sender) giveUp(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	lines := fmt.Sprintf("line %d was", s.number)
	if len(s.lines) > 0 {
		lines = fmt.Sprintf("lines from %d on were", s.number)
	}
	s.failed.Add(1)
	s.lines, s.over, s.ends = nil, true, false
	s.program.complain(time.Now(), fmt.Sprintf("%s not sent: %s", lines, why))
}

// join waits until nothing is sent any more, when the client is closed, and tells what is
// not sent.
func (s *sender) join() {
	s.turn.Lock() // for good
	s.mu.Lock()
	waiting := len(s.lines) > 0
	if waiting {
		s.lines = s.lines[1:]
		s.number++
	}
	s.mu.Unlock()
	if waiting {
		s.giveUp("client closed")
	}
}
