package resume_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// process is a start of the program: a client and a feed, and what they must tell. The
// mutex of the schedule guards it.
type process struct {
	*schedule
	feed    *resume.Feed
	client  *resock.Client
	config  resume.Config
	recent  int
	drops   bool // a slow loop is not given all
	slow    time.Duration
	workers time.Duration // the most that one takes for a message, or 0 if the loop commits
	tasks   sync.WaitGroup
	over    bool // it has crashed: nothing is stored any more

	views   map[string]*view
	removed map[string]uint64 // and the last session that may have something of it
	queue   []record          // that the loop looks at
	session uint64            // which they came in
	busy    bool              // the consumer has the event
	current want              // that event
	held    *delivery         // that the loop was left in the middle of, or nil
	opened  uint64            // the session that it opens, or 0
	stats   resume.Stats
}

// live lets a process start, and crash; or the last one live to the end.
func (s *schedule) live(last bool) {
	p := s.start()
	p.tasks.Go(p.consume)
	p.tasks.Go(func() { _ = p.client.Run(context.Background()) })
	for range 2 + s.upTo(8) {
		s.pause(4 * time.Second)
		s.mu.Lock()
		p.settle()
		p.operate()
		s.mu.Unlock()
	}
	if last {
		p.finish()
	}
	s.mu.Lock()
	p.over = true
	s.mu.Unlock()
	_ = p.client.Close(resock.StatusNormalClosure, "")
	<-p.client.Done()
	p.tasks.Wait()
}

// start makes a feed on what is stored, and a client.
func (s *schedule) start() *process {
	p := &process{
		schedule: s, recent: 1024, drops: s.one(8),
		views: map[string]*view{}, removed: map[string]uint64{},
	}
	p.config = resume.Config{Read: p.read, Store: (*disk)(p), AutoCommit: s.one(3), Repeated: s.one(4)}
	if s.one(4) {
		p.recent = 1 + s.upTo(10)
		p.config.Recent = p.recent
	}
	if s.one(4) {
		p.config.SaveEvery = -1
	}
	if s.one(3) {
		p.slow = 2 * time.Second
	}
	if s.one(2) {
		p.workers = 5 * time.Second
	}
	var err error
	if p.feed, err = resume.New(context.Background(), p.config); err != nil {
		s.t.Fatal(err)
	}
	p.client, err = resock.New(s.server.URL, resock.WithOnOpen(p.open), resock.WithBackoff(100*time.Millisecond, 2*time.Second),
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: s.server.Client()}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.note("a process starts with %v", s.stored)
	for _, at := range s.stored {
		v := p.view(at.Stream)
		v.start(v.stream.find(at), p.recent)
	}
	for _, name := range s.names {
		if !s.streams[name].unasked {
			p.feed.Add(name)
			p.view(name)
		}
	}
	return p
}

// disk is the store of a process.
type disk process

func (d *disk) Load(context.Context) ([]resume.Position, error) { return d.stored, nil }

func (d *disk) Save(ctx context.Context, cursors []resume.Position) error {
	p := (*process)(d)
	p.mu.Lock()
	p.allows(cursors)
	hangs := p.one(10) && !p.settled
	p.mu.Unlock()
	if hangs {
		select {
		case <-time.After(time.Duration(p.upTo(int(8 * time.Second)))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.over || p.t.Failed():
		return nil
	case p.one(10) && !p.settled:
		return errors.New("no disk")
	}
	p.note("saved: %v", cursors)
	p.stored = nil
	for _, c := range cursors {
		p.stored = append(p.stored, stored(c))
	}
	if p.one(20) && !p.settled {
		return errors.New("it is not known whether it was written")
	}
	return nil
}

// stored returns what a store keeps of a position.
func stored(p resume.Position) resume.Position {
	return resume.Position{Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Token: p.Token}
}

// allows checks that nothing before a cursor is still to be handled.
func (p *process) allows(cursors []resume.Position) {
	p.settle()
	for _, c := range cursors {
		v := p.views[c.Stream]
		if v == nil {
			p.errorf("saved %v, which was removed", c)
			continue
		}
		for at := v.base + 1; at <= v.stream.find(c); at++ {
			if !v.handled[at] {
				p.errorf("saved %v, but %v was not handled", c, v.position(at))
			}
		}
	}
}

// read notes what the loop looks at.
func (p *process) read(m resock.MessageEvent, found *resume.Found) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	p.note("session %d: read %s", m.Session, m.Data)
	p.session = m.Session
	before := len(p.queue)
	for text := range strings.SplitSeq(string(m.Data), ",") {
		if r, ok := p.records[text]; ok {
			p.queue = append(p.queue, r)
		}
	}
	if len(p.queue) == before {
		p.queue = append(p.queue, record{what: "none"})
	}
	read(m, found)
}

// open subscribes, and learns what the server has lost.
func (p *process) open(ctx context.Context, session *resock.Session) error {
	p.pause(time.Millisecond)
	if err := session.Send(ctx, resock.MessageText, p.asks(session.ID())); err != nil {
		return err
	}
	typ, data, err := session.Receive(ctx)
	if err != nil {
		return err
	}
	p.pause(time.Millisecond)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	head := strings.Fields(string(data))
	p.note("session %d: %s", session.ID(), data)
	for _, name := range head[1:] {
		if v := p.views[name]; v != nil && v.known {
			v.hooked, v.asked = true, session.ID()
			v.owed = append(v.owed, v.asked)
		}
		p.feed.Lost(name)
	}
	if head[0] == "refused:" {
		return errors.New("expired")
	}
	if p.one(2) {
		session.Unread(typ, data)
	}
	return nil
}

// asks returns what the session asks for, as the model has it, too.
func (p *process) asks(session uint64) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	cursors := p.feed.Cursors()
	p.note("session %d: asks for %v", session, cursors)
	var text []byte
	for _, c := range cursors {
		at := p.asked(c)
		text = fmt.Appendf(text, "%s=%d ", c.Stream, at)
		if v := p.views[c.Stream]; v != nil && !v.known {
			v.blind = max(v.blind, session) // it may begin anywhere
		}
	}
	return text
}

// asked returns the place of a cursor, or -1.
func (p *process) asked(c resume.Cursor) int {
	at, want := -1, -2
	if c.Known {
		at = p.streams[c.Stream].find(c.Position)
	}
	if v := p.views[c.Stream]; v != nil {
		want = v.ask(p.recent)
		if v.known && want < 0 {
			v.owed = append(v.owed, p.client.Stats().Session+1)
		}
	}
	if at != want || c.Known && at < 0 {
		p.errorf("the cursor is %v, which is place %d, want %d", c, at, want)
	}
	return at
}

// operate does something that any goroutine may do.
func (p *process) operate() {
	name := p.names[p.upTo(len(p.names)-1)]
	switch p.upTo(9) {
	case 0:
		p.note("add %s", name)
		p.feed.Add(name)
		if p.views[name] == nil {
			p.view(name).blind = max(p.view(name).blind, p.client.Stats().Session+1) // that may not have asked for it
		}
	case 1:
		p.note("remove %s", name)
		p.feed.Remove(name)
		delete(p.views, name)
		p.removed[name] = p.client.Stats().Session + 1
	case 2:
		p.client.Reconnect()
	case 3:
		p.tasks.Go(p.save)
	}
	p.compare()
}

// save saves, after which the store has what the model has, if nothing happens meanwhile.
func (p *process) save() {
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	_ = p.feed.Save(ctx)
}

// compare compares the cursors and the counters with those of the model.
func (p *process) compare() {
	cursors := p.feed.Cursors()
	for _, c := range cursors {
		p.asked(c)
	}
	if len(cursors) != len(p.views) {
		p.errorf("%d streams, want %d", len(cursors), len(p.views))
	}
	if got := p.feed.Stats(); got != p.stats {
		p.errorf("got %+v, want %+v", got, p.stats)
	}
}

// consume follows the feed, and follows it again when it has left the loop.
func (p *process) consume() {
	for {
		var opts []resock.SubscribeOption
		if p.drops {
			opts = append(opts, resock.WithBuffer(2), resock.WithOverflow(resock.OverflowDropOldest))
		}
		events, err := p.feed.Follow(context.Background(), p.client, opts...)
		if err != nil {
			p.t.Error(err)
			return
		}
		p.mu.Lock()
		if p.held != nil {
			p.commits(p.held)
			p.held = nil
		}
		p.mu.Unlock()
		left := false
		for event := range events {
			p.take(event)
			if left = p.leaves(); left {
				break
			}
		}
		if !left {
			return
		}
		p.pause(3 * time.Second)
		p.mu.Lock()
		for _, v := range p.views { // what came meanwhile is gone
			v.blind = max(v.blind, p.client.Stats().Session)
		}
		p.mu.Unlock()
	}
}

// take is the body of the loop.
func (p *process) take(event resume.Event) {
	p.mu.Lock()
	p.busy = true
	p.expect(event)
	p.mu.Unlock()
	if p.slow > 0 && p.one(4) {
		p.pause(p.slow)
	}
	switch e := event.(type) {
	case resume.Message:
		if d := p.current.delivery; d != nil {
			d.p = e.Position
			p.handle(d)
			if p.one(50) {
				p.restart(d.view)
			}
		}
	case resume.Gap:
		if p.one(4) {
			p.restart(p.views[e.Stream])
		}
	}
}

// expect compares an event with that of the model.
func (p *process) expect(event resume.Event) {
	p.note("\t%s", show(event))
	p.current, p.opened = want{}, 0
	switch e := event.(type) {
	case resume.Message:
		w := p.next()
		if p.current = w; w.what == "none" && e.Position == (resume.Position{}) {
			return
		}
		if w.what != "message" || p.streams[e.Position.Stream].find(e.Position) != w.at {
			p.errorf("got message %v, want %+v", e.Position, w)
		}
	case resume.Repeated:
		if w := p.next(); w.what != "repeated" || p.streams[e.Position.Stream].find(e.Position) != w.at {
			p.errorf("got %v again, want %+v", e.Position, w)
		}
	case resume.Gap:
		p.stats.Gaps++
		w := p.next()
		e.Last.Prev, e.Last.Link, e.UpTo.Prev, e.UpTo.Link = w.gap.Last.Prev, w.gap.Last.Link, w.gap.UpTo.Prev, w.gap.UpTo.Link
		if p.current = w; w.what != "gap" || e != w.gap {
			p.errorf("got gap %+v, want %+v", e, w)
		}
	default:
		if w := p.next(); w.what != "" {
			p.errorf("got %T, want %+v", event, w)
		}
		if e, ok := event.(resume.Lifecycle); ok {
			if open, ok := e.Event.(resock.OpenEvent); ok {
				p.opened = open.Session
			}
		}
	}
}

// handle commits a message: at once, later, or never.
func (p *process) handle(d *delivery) {
	switch {
	case p.config.AutoCommit || p.one(50):
	case p.workers == 0:
		p.commit(d)
	default:
		p.tasks.Go(func() {
			p.pause(p.workers)
			p.commit(d)
		})
	}
}

func (p *process) commit(d *delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settle()
	p.commits(d)
	if err := p.feed.Commit(d.p); err != nil {
		p.errorf("commit: %v", err)
	}
}

// commits notes a commit in the model.
func (p *process) commits(d *delivery) {
	if p.views[d.view.stream.name] == d.view {
		d.view.commit(d)
	}
}

// restart goes on elsewhere: after a snapshot, or to read a part again. Tokens are told
// once in any case.
func (p *process) restart(v *view) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v == nil || p.views[v.stream.name] != v || p.settled {
		return
	}
	first := v.last
	if v.stream.kind != tokens && p.one(3) {
		first = max(0, v.base)
	}
	at := first + p.upTo(len(v.stream.log)-1-first)
	p.note("start %v", v.position(at))
	v.start(at, p.recent)
	v.blind = max(v.blind, p.client.Stats().Session+1) // the server need not go on there
	p.feed.Start(stored(v.position(at)))
}

// leaves ends the body of the loop, and reports whether the loop is left.
func (p *process) leaves() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.busy = false
	d := p.current.delivery
	if d != nil && !p.config.AutoCommit && p.current.what != "gap" {
		d = nil
	}
	if p.over || p.one(60) && !p.settled {
		p.note("left")
		p.queue, p.held = nil, d
		return true
	}
	if d != nil {
		p.commits(d)
	}
	for _, name := range slices.Sorted(maps.Keys(p.views)) {
		v := p.views[name]
		if p.opened > 0 && v.missed(p.opened) {
			p.queue = append(p.queue, record{"missed", name, 0})
			p.session = p.opened
		}
	}
	return false
}

// finish lets all faults end, and checks that the process has all in the end, and has
// saved it.
func (p *process) finish() {
	p.mu.Lock()
	p.settled = true
	p.mu.Unlock()
	time.Sleep(time.Minute)
	p.client.Reconnect() // to ask for what was added last
	time.Sleep(5 * time.Minute)
	for _, name := range p.names {
		p.mu.Lock()
		p.streams[name].grow(0)
		p.forward()
		p.mu.Unlock()
		time.Sleep(time.Minute)
	}
	p.mu.Lock()
	p.settle()
	p.compare()
	for _, v := range p.views {
		if end := len(v.stream.log) - 1; v.last != end {
			p.errorf("stream %s ends at %d, want %d", v.stream.name, v.last, end)
		}
	}
	if p.config.SaveEvery >= 0 {
		p.hasSaved()
	}
	p.mu.Unlock()
	_ = p.client.Close(resock.StatusNormalClosure, "")
	p.tasks.Wait()
	p.mu.Lock()
	p.hasSaved() // at the end of the loop
	p.mu.Unlock()
}

// hasSaved checks that the cursors are stored as they are.
func (p *process) hasSaved() {
	var want []resume.Position
	for _, name := range slices.Sorted(maps.Keys(p.views)) {
		if v := p.views[name]; v.cursor >= 0 {
			want = append(want, stored(v.position(v.cursor)))
		}
	}
	if !slices.Equal(p.stored, want) {
		p.errorf("stored are %v, want %v", p.stored, want)
	}
}
