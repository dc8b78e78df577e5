// Package resume tells an application that follows a feed what it missed, and where to go
// on: it drops what comes a second time, reports each gap in its place, and keeps a cursor
// of what was handled for the next session and the next start of the process. How a
// message names its position is the protocol's business, and one function of the
// application:
//
//	feed, err := resume.New(ctx, resume.Config{Read: func(m resock.MessageEvent, found *resume.Found) { … }})
//	…
//	client, err := resock.New(url, resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
//		return subscribe(ctx, s, feed.Cursors())
//	}))
//	events, err := feed.Follow(ctx, client)
//	go client.Run(ctx)
//	for event := range events {
//		switch e := event.(type) {
//		case resume.Message:
//			handle(e)
//			feed.Commit(e.Position)
//		case resume.Gap:
//			fetch(e.Stream, e.From, e.To)
//		}
//	}
//
// # What is delivered
//
// A message whose number is not above that of the last one delivered, in its stream and the
// present epoch, is dropped and counted. A [Gap] comes before the message that shows it.
// What is missing at the end of a session shows with the next message, whenever that comes.
//
// # What is remembered
//
// A cursor is the position of the last message that was committed, if all before it were
// committed, too. After a crash everything since the last saved cursor comes again: at
// least once. [Feed.Cursors] is what a session asks for in WithOnOpen or WithEndpoint.
// That may be behind what was delivered; what comes again is dropped. Before the
// first commit, and after a new epoch or a loss, it is the place where the stream went on,
// committed or not: there is no other, and what was delivered is in the hands of the
// process.
//
// Where each connection has numbers of its own, the application makes an epoch that no
// other connection of any process has, such as the start of the process with the number of
// the session. Without it the new numbers are taken for repeated ones.
package resume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/resock/resock"
)

// Config configures [New]. Read is required.
type Config struct {
	// Read finds the positions in a message. It is called in the loop of [Feed.Follow],
	// once for each message, and must not call methods of the Feed. A message in which it
	// finds nothing is delivered without a position. It sees the messages in order, one at a
	// time, and may keep what later ones need, such as an epoch. If the hook of WithOnOpen receives
	// the answer to a subscription itself, Session.Unread puts it back for Read.
	Read func(m resock.MessageEvent, found *Found)

	// Store keeps the cursors. Without one they are forgotten with the Feed, which does not
	// close it.
	Store Store

	// SaveEvery is how long a commit may wait to be saved. Defaults to 1 s. If it is
	// negative, only Save and the end of the loop save.
	SaveEvery time.Duration

	// AutoCommit commits a message when the loop asks for the next event.
	AutoCommit bool

	// Repeated makes an event of each message that comes again, for servers that want an
	// acknowledgement for those, too.
	Repeated bool

	// Recent is the number of tokens of a stream that are recognised when they come again.
	// Defaults to 1024.
	Recent int
}

// Feed is what is known of the streams of a client. Its methods may be called
// concurrently.
type Feed struct {
	read       func(resock.MessageEvent, *Found)
	autoCommit bool
	repeated   bool
	recent     int
	saver      saver

	mu        sync.Mutex
	streams   map[string]*stream
	removed   map[string]uint64 // and the session that was the last one then
	client    *resock.Client
	following bool
	inHand    Position // a delivery to be committed when the loop goes on, or zero
	stats     Stats
}

// Stats counts what a feed did since New.
type Stats struct {
	Messages   uint64 // delivered with a position
	Duplicates uint64 // dropped, because they were delivered before
	Unwanted   uint64 // dropped, because their stream was removed
	Gaps       uint64
}

// New returns a feed that goes on where the cursors of the store are. ctx bounds the
// loading.
func New(ctx context.Context, config Config) (*Feed, error) {
	switch {
	case config.Read == nil:
		return nil, errors.New("resume: Config.Read is nil")
	case config.Recent < 0:
		return nil, fmt.Errorf("resume: Config.Recent is %d, want a positive number, or 0 for 1024", config.Recent)
	}
	f := &Feed{
		read: config.Read, autoCommit: config.AutoCommit, repeated: config.Repeated, recent: config.Recent,
		streams: make(map[string]*stream), removed: make(map[string]uint64),
	}
	if f.recent == 0 {
		f.recent = 1024
	}
	f.saver.init(f, config.Store, config.SaveEvery)
	if config.Store == nil {
		return f, nil
	}
	cursors, err := config.Store.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("resume: load the cursors: %w", err)
	}
	for _, p := range cursors {
		if f.streams[p.Stream] != nil {
			return nil, fmt.Errorf("resume: load the cursors: the store has two of stream %q", p.Stream)
		}
		f.open(p.Stream).start(plain(p))
	}
	return f, nil
}

// open returns a stream, which is made if need be; mu is held.
func (f *Feed) open(name string) *stream {
	s := f.streams[name]
	if s == nil {
		s = &stream{feed: f, name: name}
		f.streams[name] = s
		delete(f.removed, name)
	}
	return s
}

// Add adds a stream to those that [Feed.Cursors] returns. If it is there already, it stays
// as it is, cursor included. Streams that the server sends unasked need no Add.
func (f *Feed) Add(stream string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.open(stream)
}

// Start lets a stream go on after p, as if all up to p were handled, and adds it if need
// be: after a snapshot, for instance, or to read a part of it again. Call it in the loop
// of [Feed.Follow]; elsewhere messages that are about to be delivered may come in between.
//
// In a [Gap], p should not be before the end of that: what is missing after p is told at
// once as another gap, so a loop that answers each with Start(gap.Last) never ends.
func (f *Feed) Start(p Position) {
	f.mu.Lock()
	f.open(p.Stream).start(plain(p))
	f.mu.Unlock()
	f.saver.changed()
}

// Remove forgets a stream and its cursor. Messages of it that are still under way are
// dropped.
func (f *Feed) Remove(stream string) {
	f.mu.Lock()
	delete(f.streams, stream)
	if f.client != nil {
		f.removed[stream] = f.client.Stats().Session
	}
	f.mu.Unlock()
	f.saver.changed()
}

// Commit says that a message was handled. Messages may be committed in any order; the
// cursor moves when all before have been. To commit twice, or what has no position, does
// nothing. The error is that of a position that no message of this feed had: [Feed.Start]
// is for those.
func (f *Feed) Commit(p Position) error {
	if p == (Position{}) {
		return nil
	}
	if p.of == nil || p.of.feed != f {
		return fmt.Errorf("resume: Commit: %v is not the position of a message that this feed delivered (Start takes any)", p)
	}
	f.mu.Lock()
	moved := f.streams[p.Stream] == p.of && p.of.commit(p)
	f.mu.Unlock()
	if moved {
		f.saver.changed()
	}
	return nil
}

// Cursors returns where each stream goes on, in the order of their names. It is meant for
// the hook of WithOnOpen, or for WithEndpoint.
func (f *Feed) Cursors() []Cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	cursors, next := make([]Cursor, 0, len(f.streams)), f.next()
	for _, s := range f.streams {
		cursors = append(cursors, s.ask(next))
	}
	slices.SortFunc(cursors, func(a, b Cursor) int { return strings.Compare(a.Stream, b.Stream) })
	return cursors
}

// Cursor returns where one stream goes on. A stream that is not there is not known.
func (f *Feed) Cursor(stream string) Cursor {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[stream]; s != nil {
		return s.ask(f.next())
	}
	return Cursor{Position: Position{Stream: stream}}
}

// Lost is for a hook that learns that the server cannot go on after the cursor of a
// stream: the answer in WithOnOpen, or the status of a refused attempt in WithEndpoint.
// From now on Cursors returns the stream without a position, and when a session opens the
// loop gets a [Gap]. What the loop itself reads is for [Found.Lost] and [Found.At].
func (f *Feed) Lost(stream string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.streams[stream]; s != nil && s.known {
		s.lost, s.lostIn = true, f.next()
		s.owe(s.lostIn)
	}
}

// next returns the number of the client's next session; mu is held.
func (f *Feed) next() uint64 {
	if f.client == nil {
		return 1
	}
	return f.client.Stats().Session + 1
}

// Stats returns the counters of the feed.
func (f *Feed) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stats
}

// Save saves the cursors now, if they have changed since they were saved. Call it before
// the process ends, if messages are committed after the loop.
func (f *Feed) Save(ctx context.Context) error { return f.saver.save(ctx) }

// cursors returns what is to be saved.
func (f *Feed) cursors() []Position {
	f.mu.Lock()
	defer f.mu.Unlock()
	positions := make([]Position, 0, len(f.streams))
	for _, s := range f.streams {
		if s.cursor.Known {
			positions = append(positions, s.cursor.Position)
		}
	}
	slices.SortFunc(positions, func(a, b Position) int { return strings.Compare(a.Stream, b.Stream) })
	return positions
}
