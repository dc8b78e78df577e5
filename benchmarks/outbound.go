package main

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
)

// sender sends messages on one goroutine.
type sender interface {
	send(data []byte) error
	finish() error // returns once all messages are handed to the network
}

// sendFunc is a sender that returns once the message is handed to the network.
type sendFunc func(data []byte) error

func (f sendFunc) send(data []byte) error { return f(data) }
func (f sendFunc) finish() error          { return nil }

// outbound measures sending to a server that only reads.
func outbound(s spec, p peer) (sample, error) {
	newSender, err := p.connect(s.target("/sink"))
	if err != nil {
		return nil, err
	}
	if err := burst(s, newSender, warmUp(s.Count)); err != nil {
		return nil, err
	}
	start := now()
	err = burst(s, newSender, s.Count)
	return start.per(s.Count/s.Goroutines*s.Goroutines, now()), err
}

// countWrites counts how often a peer calls Write on its connection. That needs samples
// of its own, since a peer may treat a wrapped connection differently.
func countWrites(s spec, p peer) (sample, error) {
	t := s.target("/sink")
	t.writes = new(writeCounter)
	t.http = httpClient(t)
	newSender, err := p.connect(t)
	if err != nil {
		return nil, err
	}
	before := t.writes.total.Load()
	err = burst(s, newSender, s.Count)
	return sample{metricWrites: float64(t.writes.total.Load()-before) / float64(s.Count)}, err
}

// burst sends count messages, divided evenly among the goroutines.
func burst(s spec, newSender func() sender, count int) error {
	errs := make([]error, s.Goroutines)
	var running sync.WaitGroup
	for i := range errs {
		running.Go(func() {
			to, data := newSender(), payloadOf(s.Size)
			for range count / s.Goroutines {
				if err := to.send(data); err != nil {
					errs[i] = err
					return
				}
			}
			errs[i] = to.finish()
		})
	}
	running.Wait()
	return errors.Join(errs...)
}

// writeCounter dials connections and counts their calls of Write.
type writeCounter struct{ total atomic.Int64 }

func (c *writeCounter) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &countedConn{conn, c}, nil
}

// Dial is DialContext for gws.
func (c *writeCounter) Dial(network, address string) (net.Conn, error) {
	return c.DialContext(context.Background(), network, address)
}

type countedConn struct {
	net.Conn
	counter *writeCounter
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.counter.total.Add(1)
	return c.Conn.Write(p)
}
