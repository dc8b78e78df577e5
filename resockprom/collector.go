package resockprom

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resock/resock"
)

// Options configure a [Collector]. The zero value is ready to use.
type Options struct {
	Namespace   string            // put before each name: "shop" makes shop_resock_state; defaults to none
	ConstLabels prometheus.Labels // added to each metric; defaults to none
}

// Collector is a [prometheus.Collector] of the clients that were added. All methods may be
// called concurrently.
type Collector struct {
	metrics *metrics

	mu      sync.Mutex // guards entries; no other lock is taken under it
	entries map[string]*entry
}

// New returns a collector without clients, to be registered. If a name or label of the
// options is not valid, or a label is one of client, state, phase and code, the error comes
// from Register.
func New(opts Options) *Collector {
	return &Collector{metrics: newMetrics(opts), entries: make(map[string]*entry)}
}

// Add adds a client under a name, the value of its label client. Attempts and sessions are
// counted by how they ended from then on, so add a client before it runs. Until remove is
// called its metrics are collected, also when it is closed. An empty name, one that is
// taken or not valid UTF-8, and a nil client are errors, and nothing happens. One client
// may have several names.
//
// An added client has one goroutine here, which receives its events but no messages, until
// the client is closed or removed. remove waits for it, and forgets the client; the name is
// free then. Calls after the first do nothing.
func (c *Collector) Add(name string, client *resock.Client) (remove func(), err error) {
	switch {
	case name == "":
		return nil, errors.New("resockprom: Add: the name is empty")
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("resockprom: Add(%q): the name is not valid UTF-8", name)
	case client == nil:
		return nil, fmt.Errorf("resockprom: Add(%q): the client is nil", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries[name] != nil {
		return nil, fmt.Errorf("resockprom: Add(%q): the name is taken", name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events := client.Subscribe(ctx, resock.WithoutMessages(), resock.WithLabel("prometheus"))
	e := &entry{name: name, client: client, followed: make(chan struct{})}
	c.entries[name] = e
	go e.follow(events)
	return sync.OnceFunc(func() {
		cancel()
		<-e.followed
		c.remove(name)
	}), nil
}

func (c *Collector) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, name)
}

// added returns the entries of all clients, by name.
func (c *Collector) added() []*entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*entry, 0, len(c.entries))
	for _, e := range c.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return all
}

// Describe sends the descriptions of all metrics, and never anything else.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range c.metrics.all {
		descs <- desc
	}
}

// Collect sends the metrics of all clients, one snapshot of each.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	for _, e := range c.added() {
		c.metrics.send(out, e)
	}
}
