package relayprom

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/resock/resock/relay"
)

// Options configure a [Collector]. The zero value is ready to use.
type Options struct {
	Namespace   string            // put before each name: "shop" makes shop_resock_relay_leading; defaults to none
	ConstLabels prometheus.Labels // added to each metric; defaults to none
}

// Collector is a [prometheus.Collector] of the relays that were added. All methods may be
// called concurrently.
type Collector struct {
	metrics *metrics

	mu     sync.Mutex // guards relays; no other lock is taken under it
	relays map[string]*relay.Relay
}

// New returns a collector without relays, to be registered. If a name or label of the
// options is not valid, or a label is relay, the error comes from Register.
func New(opts Options) *Collector {
	return &Collector{metrics: newMetrics(opts), relays: make(map[string]*relay.Relay)}
}

// Add adds a relay under a name, the value of its label relay, before it runs, while it
// runs, or after its end. Until remove is called its metrics are collected, also when it has
// ended. An empty name, one that is taken or not valid UTF-8, and a nil relay are errors,
// and nothing happens. One relay may have several names.
//
// remove forgets the relay; the name is free then. Calls after the first do nothing.
func (c *Collector) Add(name string, r *relay.Relay) (remove func(), err error) {
	switch {
	case name == "":
		return nil, errors.New("relayprom: Add: the name is empty")
	case !utf8.ValidString(name):
		return nil, fmt.Errorf("relayprom: Add(%q): the name is not valid UTF-8", name)
	case r == nil:
		return nil, fmt.Errorf("relayprom: Add(%q): the relay is nil", name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.relays[name] != nil {
		return nil, fmt.Errorf("relayprom: Add(%q): the name is taken", name)
	}
	c.relays[name] = r
	return sync.OnceFunc(func() { c.remove(name) }), nil
}

func (c *Collector) remove(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.relays, name)
}

// added returns the relays by name.
func (c *Collector) added() map[string]*relay.Relay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.relays)
}

// Describe sends the descriptions of all metrics, and never anything else.
func (c *Collector) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range c.metrics.all {
		descs <- desc
	}
}

// Collect sends the metrics of all relays, one snapshot of each.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	added := c.added()
	for _, name := range slices.Sorted(maps.Keys(added)) {
		c.metrics.send(sender{out, name}, added[name].Stats())
	}
}
