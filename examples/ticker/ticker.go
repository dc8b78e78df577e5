package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// ticker is the program: it shows the prices of the exchange. It can be run again, and goes
// on where it ended.
type ticker struct {
	url     string
	cursors string // a file
	screen  *screen
	ledger  *ledger
}

// start runs the program until it is stopped, or the exchange closes.
func (t *ticker) start(ctx context.Context) (stop context.CancelFunc, ended <-chan error) {
	ctx, stop = context.WithCancel(ctx)
	result := make(chan error, 1)
	go func() { result <- t.run(ctx) }()
	return stop, result
}

// run follows the exchange until it closes, or until ctx ends.
func (t *ticker) run(ctx context.Context) (err error) {
	store, err := resume.OpenFile(t.cursors)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	feed, err := resume.New(ctx, resume.Config{Read: read, Store: store, AutoCommit: true})
	if err != nil {
		return err
	}
	feed.Add("gold")
	feed.Add("oil")
	defer func() { t.ledger.repeated += feed.Stats().Duplicates }()
	return t.follow(ctx, feed)
}

// follow takes the events of a client.
func (t *ticker) follow(ctx context.Context, feed *resume.Feed) error {
	client, err := resock.New(t.url,
		resock.WithBackoff(100*time.Millisecond, 300*time.Millisecond),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			return ask(ctx, s, feed.Cursors())
		}))
	if err != nil {
		return err
	}
	events, err := feed.Follow(ctx, client)
	if err != nil {
		return err
	}
	go client.Run(ctx) // its error stays readable in client.Err()
	defer func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		t.screen.connected(false, "ended")
	}()
	for event := range events {
		if closed, err := t.take(event); closed || err != nil {
			return errors.Join(err, feed.Save(ctx)) // a loop that is left saves, too, but cannot tell an error
		}
	}
	if context.Cause(ctx) == context.Canceled { // stopped
		return nil
	}
	return cmp.Or(client.Err(), ctx.Err())
}

// ask asks the exchange for what comes after the cursors.
func ask(ctx context.Context, s *resock.Session, cursors []resume.Cursor) error {
	after := make(map[string]uint64)
	for _, c := range cursors {
		after[c.Stream] = c.Seq // 0 if it is not known
	}
	data, err := json.Marshal(request{after})
	if err != nil {
		return err
	}
	return s.Send(ctx, resock.MessageText, data)
}

// read is what package resume has to know of the protocol: where a price stands among those
// of its symbol, and where the exchange goes on.
func read(m resock.MessageEvent, found *resume.Found) {
	var q quote
	if json.Unmarshal(m.Data, &q) != nil || q.Symbol == "" {
		return
	}
	if q.Number == 0 {
		found.At(resume.Position{Stream: q.Symbol, Seq: q.After})
		return
	}
	found.Message(resume.Position{Stream: q.Symbol, Seq: q.Number}, m.Data)
}

// take handles an event, and reports whether the exchange has closed. Nothing of the event
// is left to do when it returns, so the feed may commit by itself (AutoCommit).
func (t *ticker) take(event resume.Event) (closed bool, err error) {
	switch e := event.(type) {
	case resume.Message:
		var q quote
		if err := json.Unmarshal(e.Data, &q); err != nil {
			return false, fmt.Errorf("a quote: %w", err)
		}
		if q.Number > 0 {
			t.screen.price(q)
			err = t.ledger.price(q)
		}
		return q.Closed, err
	case resume.Gap:
		missing, _ := e.Missing()
		t.screen.mark(fmt.Sprintf("%s -%d", e.Stream, missing))
		t.ledger.gaps = append(t.ledger.gaps, e)
	case resume.Lifecycle:
		t.screen.lifecycle(e.Event)
	case resume.StoreError:
		return false, e.Err
	}
	return false, nil
}
