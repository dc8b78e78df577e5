//go:build unix

package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// slow is how long NATS takes for an answer at most, if nothing keeps it: not its own end,
// and not a machine or a disk that is busy.
const slow = 100 * time.Millisecond

// probe asks NATS again and again, and notes when an answer was slow, for which a takeover
// waited, too.
type probe struct {
	js     jetstream.JetStream
	leases jetstream.KeyValue // nil while the relays have not made it
}

// probe probes NATS until the end.
func (c *cast) probe(url string) error {
	conn, err := connect(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	p := &probe{js: js}
	ticks := time.NewTicker(slow / 2)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-c.ctx.Done():
			return nil
		}
		began := time.Now()
		if err := p.ask(c.ctx); err != nil || time.Since(began) > slow {
			c.noteStall(outage{began, time.Now()})
		}
	}
}

// ask writes to a stream of the probe, and reads from the bucket of the lease: while the
// server removes what has expired it answers nobody, and it waits for the disk there.
func (p *probe) ask(ctx context.Context) error {
	if p.leases == nil {
		return p.prepare(ctx)
	}
	if _, err := p.js.Publish(ctx, "probe", nil); err != nil {
		return err
	}
	if _, err := p.leases.Get(ctx, "probe"); !errors.Is(err, jetstream.ErrKeyNotFound) {
		return err
	}
	return nil
}

func (p *probe) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := p.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "probe", Subjects: []string{"probe"}, MaxMsgs: 1})
	if err != nil {
		return err
	}
	p.leases, err = p.js.KeyValue(ctx, "demo-lease")
	return err
}

func (c *cast) noteStall(o outage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalls = append(c.stalls, o)
	c.tell.note("NATS did not answer for %v", o.to.Sub(o.from).Round(time.Millisecond))
}
