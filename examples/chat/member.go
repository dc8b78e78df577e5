package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/resock/resock"
)

// member is somebody in the room.
type member struct {
	name   string
	client *resock.Client
	seen   atomic.Int64  // number of the last line
	lost   chan struct{} // holds a token when a connection was lost

	left  chan struct{} // closed when the member has left; the rest may be read then
	lines []line
	err   error
}

// join returns a member who is in the room.
func join(ctx context.Context, name, address string) (m *member, err error) {
	m = &member{name: name, lost: make(chan struct{}, 1), left: make(chan struct{})}
	m.client, err = resock.New("ws://"+address,
		resock.WithOnOpen(m.register),
		resock.WithBackoff(200*time.Millisecond, time.Second))
	if err != nil {
		return nil, err
	}
	events := m.client.Subscribe(ctx)
	go m.client.Run(ctx) // its error stays readable in client.Err()
	go m.listen(events)
	return m, m.client.WaitOpen(ctx)
}

// register tells the server who this is, on every connection. The server sends what was
// said after the last line that this member saw; it is delivered once register returns.
func (m *member) register(ctx context.Context, s *resock.Session) error {
	hello, err := json.Marshal(hello{Name: m.name, Seen: m.seen.Load()})
	if err != nil {
		return err
	}
	if err := s.Send(ctx, resock.MessageText, hello); err != nil {
		return err
	}
	_, answer, err := s.Receive(ctx)
	if err != nil {
		return err
	}
	var welcome welcome
	if err := json.Unmarshal(answer, &welcome); err != nil {
		return fmt.Errorf("the answer to hello: %w", err)
	}
	say(m.name, "in the room, session %d: %s", s.ID(), strings.Join(welcome.Here, ", "))
	return nil
}

// listen takes what the others say, until somebody says goodbye.
func (m *member) listen(events <-chan resock.Event) {
	defer close(m.left)
	for event := range events { // ends when the client is closed for good
		switch e := event.(type) {
		case resock.MessageEvent:
			if err := m.hear(e.Data); err != nil {
				m.err = err
				_ = m.client.Close(resock.StatusPolicyViolation, "a line cannot be read")
			}
		case resock.FailEvent:
			if e.Session != 0 {
				say(m.name, "lost the server")
				select {
				case m.lost <- struct{}{}:
				default:
				}
			}
		}
	}
	m.err = cmp.Or(m.err, m.client.Err())
}

// hear takes one line. A line that was still on its way to listen when the connection was
// lost comes twice, since register did not know of it.
func (m *member) hear(data []byte) error {
	var l line
	if err := json.Unmarshal(data, &l); err != nil {
		return fmt.Errorf("a line: %w", err)
	}
	if l.Number <= m.seen.Load() {
		return nil
	}
	m.seen.Store(l.Number)
	m.lines = append(m.lines, l)
	say(m.name, "sees %d  %s: %s", l.Number, l.Name, l.Text)
	if l.Text == goodbye {
		return m.client.Close(resock.StatusNormalClosure, "goodbye")
	}
	return nil
}

// say queues a line. While there is no connection it waits for the next one. If the
// connection is lost just then, the outcome is an ErrMaybeSent, and a person has to decide
// whether to say it again.
func (m *member) say(text string) error {
	return m.client.Enqueue(resock.MessageText, []byte(text), resock.WithResult(func(err error) {
		if err != nil {
			say(m.name, "could not say %q: %v", text, err)
		}
	}))
}

// untilLost waits until the connection is lost.
func (m *member) untilLost(ctx context.Context) error {
	select {
	case <-m.lost:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// untilLeft waits until the member has left, and returns what it saw.
func (m *member) untilLeft() ([]line, error) {
	<-m.left
	return m.lines, m.err
}
