package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/resock/resock"
)

// recorder writes a recording. A nil recorder writes nothing. Errors are sticky, and told
// by flush and close.
type recorder struct {
	file  *os.File
	start time.Time

	sending atomic.Pointer[chan struct{}] // closed when the message that is being sent is recorded; or nil

	mu    sync.Mutex // what is sent is recorded by the goroutine that sends it
	w     lineWriter
	line  []byte
	open  uint64        // the session that is open, or 0
	early []sentMessage // before the event of the session that is being opened
}

const answerWaits = 100 * time.Millisecond

// sentMessage is a message that was sent before its session's open event.
type sentMessage struct {
	at time.Time
	e  entry
}

func newRecorder(name string, start time.Time) (*recorder, error) {
	file, err := os.Create(name)
	if err != nil {
		return nil, fmt.Errorf("-record: %w", err)
	}
	r := &recorder{file: file, start: start, w: newLineWriter(file)}
	line, err := json.Marshal(header{Version: recordVersion, Start: start})
	if err != nil {
		return nil, err
	}
	_, _ = r.w.Write(append(line, '\n')) // flush tells
	return r, r.flush()
}

// sends says that a message is being sent, and sentOrNot that it was, or not. What comes
// in between is perhaps the answer, and waits a little to be recorded after it.
func (r *recorder) sends() {
	if r != nil {
		sent := make(chan struct{})
		r.sending.Store(&sent)
	}
}

func (r *recorder) sentOrNot() {
	if r == nil {
		return
	}
	if sent := r.sending.Swap(nil); sent != nil {
		close(*sent)
	}
}

// awaitSent waits for sentOrNot, once for each message and not for long: the server may not
// read.
func (r *recorder) awaitSent() {
	sent := r.sending.Load()
	if sent == nil {
		return
	}
	timer := time.NewTimer(answerWaits)
	defer timer.Stop()
	select {
	case <-*sent:
	case <-timer.C:
		r.sending.CompareAndSwap(sent, nil)
	}
}

// message records a message that came.
func (r *recorder) message(at time.Time, m resock.MessageEvent) {
	if r == nil {
		return
	}
	r.awaitSent()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.line = appendMessage(r.line[:0], r.start, at, false, m)
	_, _ = r.w.Write(r.line)
	if cap(r.line) > longLine {
		r.line = nil
	}
}

// event records what is no message. What was sent on the way to an open follows that.
func (r *recorder) event(at time.Time, e entry) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = writeEntry(r.w, r.start, at, e)
	switch e.Event {
	case "open":
		r.open = e.Session
		for _, sent := range r.early {
			sent.e.Session = r.open
			_ = writeEntry(r.w, r.start, sent.at, sent.e)
		}
		r.early = nil
	case "fail", "close":
		r.open, r.early = 0, nil
	}
}

// sent records a message that was sent at a time.
func (r *recorder) sent(at time.Time, typ resock.MessageType, data []byte) {
	if r == nil {
		return
	}
	e := entry{Event: "sent"}
	if typ == resock.MessageBinary {
		e.Binary = data
	} else {
		text := string(data)
		e.Text = &text
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == 0 {
		r.early = append(r.early, sentMessage{at, e})
		return
	}
	e.Session = r.open
	_ = writeEntry(r.w, r.start, at, e)
}

func (r *recorder) flush() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.told(r.w.Flush())
}

func (r *recorder) close() error {
	if err := r.flush(); err != nil || r == nil {
		return err
	}
	return r.told(r.file.Close())
}

// told adds the name of the file to an error.
func (r *recorder) told(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("-record %s: %w", r.file.Name(), plain(err))
}
