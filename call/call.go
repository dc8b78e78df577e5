// Package call adds requests and their answers to a client. How a message names the
// request that it answers is the protocol's business, and one function of the
// application:
//
//	calls := call.New(func(m resock.MessageEvent) (id string, ok bool) { … })
//	client, err := resock.New(url, resock.WithFilter(calls.Filter))
//	…
//	calls.Bind(client)
//	go client.Run(ctx)
//	…
//	answer, err := calls.Do(ctx, "42", resock.MessageText, request)
//
// # What an error says
//
// A request is sent at most once. The error of Do is a [resock.ErrNotSent] if it was
// certainly not sent, as while no session is open until the context ends. It is a
// [resock.ErrMaybeSent] if it was, and the answer did not come: the session was lost, the
// context ended, or delivery was blocked. Then the server may have done what was asked,
// and only a request that may be done twice should be made again.
package call

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/resock/resock"
)

// Errors of [Calls.Do].
var (
	// ErrDuplicate says that a call with the same id is under way. Nothing was sent.
	ErrDuplicate = errors.New("call: a call with this id is under way")

	// ErrNotBound says that [Calls.Bind] was not called before. Nothing was sent.
	ErrNotBound = errors.New("call: not bound to a client (Bind)")
)

// Option configures [New].
type Option func(*Calls)

// WithPatience sets how long delivery may be blocked before the calls that wait fail: the
// answers stand behind the messages that are not taken. Defaults to 10 s; a d that is
// not positive means the default.
func WithPatience(d time.Duration) Option {
	return func(c *Calls) {
		if d > 0 {
			c.patience = d
		}
	}
}

// WithSplit says how a message is split into records, each of which may be an answer: at
// line breaks, for instance. split is called as answers is, which then gets messages with
// the Data of a record. Empty records are passed over. A message is kept from the
// subscribers only if calls wait for all its records.
func WithSplit(split func(data []byte) iter.Seq[[]byte]) Option {
	return func(c *Calls) { c.split = split }
}

// Calls are the requests of one client that are under way. Its methods may be called
// concurrently.
type Calls struct {
	answers  func(m resock.MessageEvent) (id string, ok bool)
	patience time.Duration
	split    func([]byte) iter.Seq[[]byte] // or nil

	mu      sync.Mutex
	client  *resock.Client // nil before Bind
	waiting map[string]*call
	unused  []*call       // to be used again
	session uint64        // the one that is open, or 0
	ended   uint64        // the last one that is over
	closed  bool          // the client is
	changed chan struct{} // closed when one of these three changes
	watch   *time.Timer   // looks for blocked delivery while watched
	watched bool
}

// New returns Calls without a client. answers reads the id of the request that a message
// answers; ok is false for any other message. It is called on the reading goroutine, for
// each message while calls are under way, so it should be quick; m.Data is valid during
// the call.
func New(answers func(m resock.MessageEvent) (id string, ok bool), opts ...Option) *Calls {
	c := &Calls{answers: answers, patience: 10 * time.Second, waiting: make(map[string]*call), changed: make(chan struct{})}
	for _, opt := range opts {
		opt(c)
	}
	return c
}

// call is one request that waits for its answer.
type call struct {
	session uint64       // it was written in, or 0
	done    chan outcome // has room for the one outcome
}

type outcome struct {
	answer resock.MessageEvent
	err    error
}

// Filter takes the answers. It is for [resock.WithFilter], and keeps from the subscribers
// what a call waits for, and nothing else.
func (c *Calls) Filter(_ context.Context, m resock.MessageEvent) (pass bool) {
	c.mu.Lock()
	none := len(c.waiting) == 0
	c.mu.Unlock()
	if none {
		return true
	}
	if c.split == nil {
		return !c.answer(m)
	}
	taken := false
	for record := range c.split(m.Data) {
		part := m
		part.Data = record
		switch {
		case len(record) == 0:
		case c.answer(part):
			taken = true
		default:
			pass = true
		}
	}
	return pass || !taken
}

// answer reports whether m is an answer that a call waits for, which gets it.
func (c *Calls) answer(m resock.MessageEvent) bool {
	id, ok := c.answers(m)
	if !ok {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[id]
	if w == nil {
		return false // late, or nobody's
	}
	m.Data = append(make([]byte, 0, len(m.Data)), m.Data...)
	c.settle(id, w, outcome{answer: m})
	return true
}

// settle ends a call; mu is held.
func (c *Calls) settle(id string, w *call, o outcome) {
	delete(c.waiting, id)
	w.done <- o
}

// Bind says whose calls they are. It may be called before [resock.Client.Run] or while
// that runs, and once: the error of another call says so. A goroutine waits for the
// client's events other than messages, until the client is closed.
func (c *Calls) Bind(client *resock.Client) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case client == nil:
		return errors.New("call: Bind: the client is nil")
	case c.client != nil:
		return errors.New("call: Bind: bound to a client already")
	}
	c.client = client
	go c.follow(client.Subscribe(context.Background(), resock.WithoutMessages(), resock.WithLabel("call")))
	return nil
}

// follow notes which session is open, and ends the calls of those that are over.
func (c *Calls) follow(events <-chan resock.Event) {
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			c.over(e.Session-1, nil) // its own event may have been left out
			c.change(func() { c.session = e.Session })
		case resock.FailEvent:
			c.over(e.Session, e.Err)
		case resock.CloseEvent:
			c.over(e.Session, fmt.Errorf("closed with %d %q", int(e.Code), e.Reason))
		}
	}
	c.change(func() { c.closed = true })
}

// change changes what calls wait for.
func (c *Calls) change(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// over ends the calls that were written in a session, or in an earlier one. Session 0 is
// an attempt that failed.
func (c *Calls) over(session uint64, why error) {
	if session == 0 {
		return
	}
	c.change(func() {
		if c.session <= session {
			c.session = 0
		}
		c.ended = max(c.ended, session)
		for id, w := range c.waiting {
			if w.session > 0 && w.session <= session {
				c.settle(id, w, outcome{err: lost(w.session, why)})
			}
		}
	})
}

// lost is the error of a call whose session is over.
func lost(session uint64, why error) error {
	if why == nil {
		return fmt.Errorf("call: %w: session %d ended before the answer came", resock.ErrMaybeSent, session)
	}
	return fmt.Errorf("call: %w: session %d ended before the answer came: %w", resock.ErrMaybeSent, session, why)
}

// Do sends a request and returns the message that answers it, which is the caller's to
// keep. id must be what answers reads from that message; it must differ from the ids of
// all calls under way ([ErrDuplicate]), and should never have been used before.
//
// While no session is open Do waits, as [resock.Client.Send] does. ctx bounds the waiting
// for a session and for the answer. With the context of a message handler or a filter, Do
// fails at once: the answer can only be read when that has returned. Do does not keep
// data.
func (c *Calls) Do(ctx context.Context, id string, typ resock.MessageType, data []byte) (resock.MessageEvent, error) {
	if err := c.check(ctx); err != nil {
		return resock.MessageEvent{}, err
	}
	w, err := c.register(id)
	if err != nil {
		return resock.MessageEvent{}, err
	}
	err = c.send(ctx, w, id, typ, data)
	if err == nil {
		select {
		case o := <-w.done:
			c.reuse(w)
			return o.answer, o.err
		case <-ctx.Done():
			err = fmt.Errorf("call: %w: %w before the answer came", resock.ErrMaybeSent, context.Cause(ctx))
		}
	}
	if c.forget(id, w) {
		return resock.MessageEvent{}, err
	}
	o := <-w.done // it was faster
	c.reuse(w)
	return o.answer, o.err
}

// check rejects a call that cannot succeed.
func (c *Calls) check(ctx context.Context) error {
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	switch {
	case client == nil:
		return ErrNotBound
	case ctx.Err() != nil:
		return notSent(context.Cause(ctx))
	case ctx.Done() == nil:
		return nil // no context of a handler
	}
	// With a context that has ended, Flush does nothing, and still tells a handler's.
	if err := client.Flush(ended{ctx}); !errors.Is(err, errEnded) {
		return notSent(err)
	}
	return nil
}

// ended is a context that has ended.
type ended struct{ context.Context }

var (
	errEnded = errors.New("call: ended")
	isEnded  = make(chan struct{})
)

func init() { close(isEnded) }

func (ended) Err() error            { return errEnded }
func (ended) Done() <-chan struct{} { return isEnded }

// register registers a call, before its request is written.
func (c *Calls) register(id string) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] != nil {
		return nil, fmt.Errorf("%w: %q", ErrDuplicate, id)
	}
	var w *call
	if last := len(c.unused) - 1; last >= 0 {
		w, c.unused = c.unused[last], c.unused[:last]
	} else {
		w = &call{done: make(chan outcome, 1)}
	}
	c.waiting[id] = w
	if !c.watched {
		c.watched = true
		c.look(c.patience)
	}
	return w, nil
}

// mostUnused bounds the memory that is kept after a burst of calls.
const mostUnused = 64

// reuse keeps a call whose outcome was taken.
func (c *Calls) reuse(w *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.session = 0; len(c.unused) < mostUnused {
		c.unused = append(c.unused, w)
	}
}

// forget ends a call without an outcome. It reports false if it has one.
func (c *Calls) forget(id string, w *call) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] != w {
		return false
	}
	delete(c.waiting, id)
	return true
}

// notSent is the error of a request that was not sent.
func notSent(why error) error {
	if errors.Is(why, resock.ErrNotSent) {
		return fmt.Errorf("call: %w", why)
	}
	return fmt.Errorf("call: %w: %w", resock.ErrNotSent, why)
}

// send sends the request in a session whose number is known, so that the end of that ends
// the call.
func (c *Calls) send(ctx context.Context, w *call, id string, typ resock.MessageType, data []byte) error {
	for session := uint64(0); ; {
		var err error
		if session, err = c.await(ctx, session); err != nil {
			return err
		}
		err = c.client.Send(ctx, typ, data, resock.WithSession(session))
		switch {
		case err == nil:
			c.sent(id, w, session)
			return nil
		case !errors.Is(err, resock.ErrSessionOver):
			return fmt.Errorf("call: %w", err)
		}
	}
}

// sent notes that a request was written in a session, which may be over already.
func (c *Calls) sent(id string, w *call, session uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting[id] != w {
		return // answered already
	}
	w.session = session
	if session <= c.ended || c.closed {
		c.settle(id, w, outcome{err: lost(session, nil)})
	}
}

// await returns the number of the session that is open, once one after that is.
func (c *Calls) await(ctx context.Context, after uint64) (uint64, error) {
	for asked := false; ; {
		c.mu.Lock()
		session, closed, changed := c.session, c.closed, c.changed
		c.mu.Unlock()
		switch {
		case session > after:
			return session, nil
		case closed:
			return 0, notSent(resock.ErrClosed)
		case !asked:
			if err := c.client.WaitOpen(ctx); err != nil { // tells best why there is none
				return 0, notSent(err)
			}
			asked = true
			continue
		}
		select {
		case <-changed:
			asked = false
		case <-ctx.Done():
			return 0, notSent(context.Cause(ctx))
		}
	}
}

// look looks after d whether delivery is blocked; mu is held.
func (c *Calls) look(d time.Duration) {
	if c.watch == nil {
		c.watch = time.AfterFunc(d, c.failBlocked)
		return
	}
	c.watch.Reset(d)
}

// failBlocked ends the calls that wait for an answer, if delivery has been blocked for
// too long, and looks again as long as there are calls.
func (c *Calls) failBlocked() {
	stats := c.client.Stats()
	wait := c.patience
	c.mu.Lock()
	defer c.mu.Unlock()
	if stats.BlockedBy != "" {
		blocked := time.Since(stats.BlockedSince)
		if wait -= blocked; wait <= 0 {
			wait = c.patience
			err := fmt.Errorf("call: %w: the answer cannot be read: delivery was blocked for %v by %s",
				resock.ErrMaybeSent, blocked.Round(time.Millisecond), stats.BlockedBy)
			for id, w := range c.waiting {
				if w.session > 0 {
					c.settle(id, w, outcome{err: err})
				}
			}
		}
	}
	if c.watched = len(c.waiting) > 0 && !c.closed; c.watched {
		c.look(wait)
	}
}
