package health

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

// Readiness tells whether all clients that were added are ready. The zero value is ready to
// use, and reports not ready as long as there is no client. It must not be copied after
// first use. All methods may be called concurrently.
type Readiness struct {
	mu      sync.Mutex // guards entries; no lock of an entry is taken under it
	entries map[string]*entry
}

// Option sets what [Readiness.Add] asks of a client.
type Option func(*entry)

// WithGrace keeps a client ready until d after it lost its connection. A client that was
// never open is not ready, and neither is one that was added while it had no connection,
// until it opens. Defaults to zero, which is no grace; must not be negative.
func WithGrace(d time.Duration) Option { return func(e *entry) { e.grace = d } }

// WithFreshness asks for a message within the last d, whatever its session; pings and pongs
// do not count. So a client that has just opened is not ready before its first message, and
// a grace period that is longer than d ends with d: with a grace of 30 s and a d of 5 s the
// client is unready 5 s after its last message. It changes nothing about the connection: a
// feed that fell silent is reconnected by [resock.WithIdleTimeout]. Defaults to zero, which
// asks for none; must not be negative.
func WithFreshness(d time.Duration) Option { return func(e *entry) { e.freshness = d } }

// WithSuspended takes a client for ready while it is suspended ([resock.Client.Suspend]),
// without asking for freshness: for a program that can do without the connection then.
func WithSuspended() Option { return func(e *entry) { e.suspended = true } }

// Add asks for client, under a name that the answers tell, before it runs, while it runs, or
// after it was closed. An empty name, a name that is taken, a nil client, a nil option and a
// negative duration are errors, and nothing happens.
//
// With [WithGrace] a client has one goroutine here, which receives its events but no
// messages, until the client is closed or removed. remove waits for it, and asks for the
// client no longer; the name is free then. Calls after the first do nothing.
func (r *Readiness) Add(name string, client *resock.Client, opts ...Option) (remove func(), err error) {
	e := &entry{name: name, client: client}
	if err := e.apply(opts); err != nil {
		return nil, fmt.Errorf("health: Add(%q): %w", name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[name] != nil {
		return nil, fmt.Errorf("health: Add(%q): the name is taken", name)
	}
	if r.entries == nil {
		r.entries = make(map[string]*entry)
	}
	r.entries[name] = e
	unfollow := e.start()
	return sync.OnceFunc(func() {
		unfollow()
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.entries, name)
	}), nil
}

// Check returns nil if all clients are ready. Otherwise the error tells which are not, and
// why. It contains names and states, but no URL and no error of a client. Check does not
// wait for the network.
func (r *Readiness) Check() error {
	if reasons := r.reasons(); len(reasons) > 0 {
		return fmt.Errorf("health: not ready: %s", strings.Join(reasons, "; "))
	}
	return nil
}

// reasons tells why the program is not ready, a client each, by name.
func (r *Readiness) reasons() (reasons []string) {
	all := r.all()
	if len(all) == 0 {
		return []string{"no client was added"}
	}
	for _, e := range all {
		if why := e.unready(time.Now()); why != "" {
			reasons = append(reasons, e.name+": "+why)
		}
	}
	return reasons
}

func (r *Readiness) all() []*entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*entry, 0, len(r.entries))
	for _, e := range r.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return all
}

// entry is a client, and what is asked of it.
type entry struct {
	name      string
	client    *resock.Client
	grace     time.Duration
	freshness time.Duration
	suspended bool   // is ready
	before    uint64 // the last session that began before Add

	mu     sync.Mutex // guards what follows
	opened uint64     // the last session whose begin was seen
	ended  uint64     // the last session whose end was seen
	lostAt time.Time  // when that was
}

func (e *entry) apply(opts []Option) error {
	switch {
	case e.name == "":
		return errors.New("the name is empty")
	case e.client == nil:
		return errors.New("the client is nil")
	}
	for _, opt := range opts {
		if opt == nil {
			return errors.New("an option is nil")
		}
		opt(e)
	}
	switch {
	case e.grace < 0:
		return fmt.Errorf("WithGrace(%v) must not be negative", e.grace)
	case e.freshness < 0:
		return fmt.Errorf("WithFreshness(%v) must not be negative", e.freshness)
	}
	return nil
}

// start follows the events of the client, if a grace period needs them, until stop is
// called.
func (e *entry) start() (stop func()) {
	if e.grace == 0 {
		return func() {}
	}
	e.before = e.client.Stats().Session
	ctx, cancel := context.WithCancel(context.Background())
	events := e.client.Subscribe(ctx, resock.WithoutMessages(), resock.WithLabel("health"))
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		for event := range events {
			e.note(event)
		}
	}()
	return func() {
		cancel()
		<-followed
	}
}
