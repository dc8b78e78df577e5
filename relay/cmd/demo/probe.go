package main

import (
	"context"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// slow is how long NATS takes for a write at most, if nothing keeps it: not its own end,
// and not a machine or a disk that is busy.
const slow = 100 * time.Millisecond

// probe writes to a stream of its own, again and again, and notes when that was slow. A
// takeover waits for such writes, too.
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
	ticks := time.NewTicker(slow / 2)
	defer ticks.Stop()
	for there := false; ; {
		select {
		case <-ticks.C:
		case <-c.ctx.Done():
			return nil
		}
		began := time.Now()
		if there {
			_, err = js.Publish(c.ctx, "probe", nil)
		} else {
			there = makeProbe(c.ctx, js) == nil
		}
		if ended := time.Now(); err != nil || ended.Sub(began) > slow {
			c.noteStall(outage{began, ended})
		}
	}
}

func makeProbe(ctx context.Context, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "probe", Subjects: []string{"probe"}, MaxMsgs: 1})
	return err
}

func (c *cast) noteStall(o outage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stalls = append(c.stalls, o)
}
