package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// recorded is a session of a recording: where it is in the file, and how it ended.
type recorded struct {
	offset int64   // of its open
	opened float64 // seconds
	end    *entry  // its close or fail; nil if the recording ends before
}

// player replays a recording.
type player struct {
	*serveSettings
	sessions []recorded

	mu   sync.Mutex
	next int // the session that the next connection gets
}

// newPlayer reads a recording once, to know its sessions. The messages stay in the file.
func newPlayer(set *serveSettings) (*player, error) {
	file, err := os.Open(set.replay)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sessions, cut, err := readSessions(file)
	if err == nil && len(sessions) == 0 {
		err = errors.New("it has no session")
	}
	if err != nil {
		return nil, err
	}
	if cut {
		fmt.Fprintf(os.Stderr, "resock: -replay %s: the last line is cut off and is left out\n", set.replay)
	}
	return &player{serveSettings: set, sessions: sessions}, nil
}

// readSessions finds the sessions of a recording. cut says that its last line is not whole.
func readSessions(r io.Reader) (sessions []recorded, cut bool, err error) {
	lines := newLineReader(r, 0)
	for {
		offset := lines.offset
		e, err := lines.next()
		if err != nil {
			if err == io.EOF || err == errCutOff {
				return sessions, err == errCutOff, nil
			}
			return nil, false, err
		}
		switch last := len(sessions) - 1; {
		case e.Event == "open":
			if last >= 0 && sessions[last].end == nil { // the program that recorded it was killed
				sessions[last].end = &entry{Event: "fail", Error: "without an end"}
			}
			sessions = append(sessions, recorded{offset: offset, opened: e.At})
		case last >= 0 && sessions[last].end == nil && e.Session > 0 && (e.Event == "close" || e.Event == "fail"):
			sessions[last].end = e
		}
	}
}

// lineReader reads the entries of a recording, of any size.
type lineReader struct {
	r      *bufio.Reader
	number int
	offset int64 // of the next line
}

var errCutOff = errors.New("the last line is cut off")

func newLineReader(r io.Reader, offset int64) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 64<<10), offset: offset}
}

// next returns the next entry. The header is none.
func (l *lineReader) next() (*entry, error) {
	for {
		line, err := l.r.ReadBytes('\n')
		if err == io.EOF && len(line) > 0 {
			if !json.Valid(line) {
				return nil, errCutOff
			}
			err = nil
		}
		if err != nil {
			return nil, err
		}
		l.number++
		l.offset += int64(len(line))
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		e, err := l.parse(line)
		if e != nil || err != nil {
			return e, err
		}
	}
}

// parse returns the entry of a line, or nil for the header.
func (l *lineReader) parse(line []byte) (*entry, error) {
	var both struct {
		header
		entry
	}
	if err := json.Unmarshal(line, &both); err != nil {
		return nil, fmt.Errorf("line %d is no line of a recording: %w", l.number, err)
	}
	switch {
	case both.Version > recordVersion:
		return nil, fmt.Errorf("it has version %d of the format, and this program knows versions up to %d", both.Version, recordVersion)
	case both.Version > 0:
		return nil, nil
	case both.Event == "":
		return nil, fmt.Errorf("line %d is no line of a recording: it has no event", l.number)
	}
	return &both.entry, nil
}

// take returns the session that a connection gets. It reports false after the last one.
func (c *player) take() (recorded, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.whole {
		return c.sessions[0], true
	}
	if c.loop {
		c.next %= len(c.sessions)
	}
	if c.next >= len(c.sessions) {
		return recorded{}, false
	}
	c.next++
	return c.sessions[c.next-1], true
}

// play replays a session, or all of the recording, on a connection.
func (c *player) play(p *peer) {
	session, ok := c.take()
	if !ok {
		p.close(&fault{text: "the recording is over", code: int(websocket.StatusNormalClosure), reason: "the recording is over"})
		return
	}
	for {
		sent, err := c.messages(p, session)
		if err != nil {
			if p.ctx.Err() == nil {
				p.log("-replay: %v", err)
				p.close(&fault{text: "the recording cannot be read", code: int(websocket.StatusInternalError)})
			}
			return
		}
		if !c.whole || !c.loop || !sent { // a loop without a message would spin
			break
		}
	}
	end := session.end
	if c.whole {
		end = c.sessions[len(c.sessions)-1].end
	}
	switch {
	case end == nil: // nobody knows how it ended
	case end.Event == "fail": // not by a reset, which could overtake the last messages
		p.end(&fault{text: "as recorded: " + end.Error})
	case end.Code == int(websocket.StatusNoStatusRcvd): // which stands for an empty close frame
		p.close(&fault{text: "as recorded"})
	default:
		p.close(&fault{text: "as recorded", code: end.Code, reason: end.Reason})
	}
}

// messages sends what the recording says, up to the end of the session, at its times. It
// reports whether there was a message.
func (c *player) messages(p *peer, session recorded) (sent bool, err error) {
	file, err := os.Open(c.replay)
	if err != nil {
		return false, err
	}
	defer file.Close()
	if _, err := file.Seek(session.offset, io.SeekStart); err != nil {
		return false, err
	}
	began, opened := time.Now(), false
	for lines := newLineReader(file, session.offset); ; {
		e, err := lines.next()
		if err == io.EOF || err == errCutOff {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
		if e.Event == "open" && !c.whole {
			if opened {
				return sent, nil
			}
			opened = true
		}
		ends := e.Session > 0 && (e.Event == "close" || e.Event == "fail") && !c.whole
		if e.Event != "message" && !ends {
			continue
		}
		if !c.wait(p, began, e.At-session.opened) {
			return sent, p.ctx.Err()
		}
		if ends {
			return sent, nil
		}
		if err := p.replay(e); err != nil {
			return sent, err
		}
		sent = true
	}
}

// wait waits until at, in seconds of the recording. It reports false when the connection
// ends.
func (c *player) wait(p *peer, began time.Time, at float64) bool {
	if c.speed > 0 {
		due := began.Add(time.Duration(at / c.speed * float64(time.Second)))
		if left := time.Until(due); left > 0 && !p.gate.sleep(left, nil) {
			return false
		}
	}
	return p.audible()
}

// replay sends a recorded message.
func (p *peer) replay(e *entry) error {
	if e.Text != nil {
		return p.send(websocket.MessageText, []byte(*e.Text))
	}
	return p.send(websocket.MessageBinary, e.Binary)
}
