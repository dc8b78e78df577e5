package main

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/resock/resock"
)

// feed is a connection to a server that sends the topics it was asked for. They may be
// changed at any time, with and without a connection.
type feed struct {
	client *resock.Client

	mu      sync.Mutex
	topics  map[string]bool
	session uint64 // the last one that replay began; 0 before the first
}

// request is what the server understands.
type request struct {
	Do     string   `json:"do"` // subscribe or unsubscribe
	Topics []string `json:"topics"`
}

func newFeed(url string, opts ...resock.Option) (f *feed, err error) {
	f = &feed{topics: make(map[string]bool)}
	f.client, err = resock.New(url, append(opts, resock.WithOnOpen(f.replay))...)
	return f, err
}

// replay asks for all topics, on every connection. A topic that is added once the session
// is known belongs to add: it is not in the list, but it is sent in the same session, after
// the list. So each topic is asked for exactly once, whenever it was added.
func (f *feed) replay(ctx context.Context, s *resock.Session) error {
	f.mu.Lock()
	f.session = s.ID()
	topics := f.sortedLocked()
	f.mu.Unlock()
	if len(topics) == 0 {
		return nil
	}
	data, err := json.Marshal(request{"subscribe", topics})
	if err != nil {
		return err
	}
	return s.Send(ctx, resock.MessageText, data)
}

// add asks for a topic, now and on every later connection.
func (f *feed) add(topic string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.topics[topic] {
		return nil
	}
	if err := f.tellLocked("subscribe", topic); err != nil {
		return err
	}
	f.topics[topic] = true
	return nil
}

// remove no longer asks for a topic. What is on its way may still come.
func (f *feed) remove(topic string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.topics[topic] {
		return nil
	}
	if err := f.tellLocked("unsubscribe", topic); err != nil {
		return err
	}
	delete(f.topics, topic)
	return nil
}

// tellLocked sends a change to the session that has the topics as they were; mu is held.
// If that session is over, or ends before the message is sent, replay brings the change to
// the next one.
func (f *feed) tellLocked(do, topic string) error {
	if f.session == 0 {
		return nil
	}
	data, err := json.Marshal(request{do, []string{topic}})
	if err != nil {
		return err
	}
	err = f.client.Enqueue(resock.MessageText, data, resock.WithSession(f.session))
	if errors.Is(err, resock.ErrSessionOver) {
		return nil
	}
	return err
}

// sorted returns the topics.
func (f *feed) sorted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sortedLocked()
}

// sortedLocked is sorted; mu is held.
func (f *feed) sortedLocked() []string { return slices.Sorted(maps.Keys(f.topics)) }
