package main

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// mover is where the client is to be.
type mover struct {
	client *resock.Client
	target atomic.Pointer[string]
}

// connect makes the client, and the feed that drops what comes on both sessions.
func (m *mover) connect(ctx context.Context) (*resock.Client, *resume.Feed) {
	feed, err := resume.New(ctx, resume.Config{Read: read, AutoCommit: true})
	if err != nil {
		log.Fatal(err)
	}
	m.client, err = resock.New("", // the URL comes from the endpoint hook
		resock.WithHandover(time.Second),
		resock.WithFilter(m.asked),
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{URL: *m.target.Load()}, nil
		}),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			hello := fmt.Appendf(nil, "after %d", feed.Cursor("").Seq)
			if err := s.Send(ctx, resock.MessageText, hello); err != nil {
				return err
			}
			_, _, err := s.Receive(ctx) // "welcome": until then the old session delivers
			return err
		}))
	if err != nil {
		log.Fatal(err)
	}
	return m.client, feed
}

// asked sees each message first. Handover only begins the move, and returns at once.
func (m *mover) asked(_ context.Context, message resock.MessageEvent) (pass bool) {
	url, ok := strings.CutPrefix(string(message.Data), "move ")
	if ok {
		m.target.Store(&url)
		m.client.Handover()
	}
	return !ok
}

// read finds the number of a message.
func read(m resock.MessageEvent, found *resume.Found) {
	if seq, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
		found.Message(resume.Position{Seq: seq}, m.Data)
	}
}
