package main

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/resock/resock"
)

// gate is a send limiter at which replay waits, with the session known and nothing sent.
type gate struct {
	reached chan struct{}
	pass    chan error // what the limiter answers; nil for ever once it is closed
}

func (g *gate) Wait(ctx context.Context) error {
	select {
	case g.reached <- struct{}{}:
	case err := <-g.pass:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-g.pass:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newGatedFeed returns a feed of one topic whose first replay has reached the gate.
func newGatedFeed(t *testing.T) (*feed, *server, *gate) {
	server := startServer()
	t.Cleanup(server.stop)
	gate := &gate{reached: make(chan struct{}), pass: make(chan error)}
	feed, err := newFeed("ws://"+server.address,
		resock.WithSendLimiter(gate),
		resock.WithBackoff(time.Millisecond, time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	must(t, feed.add("gold"))
	go feed.client.Run(t.Context())
	t.Cleanup(func() {
		_ = feed.client.Close(resock.StatusNormalClosure, "")
		<-feed.client.Done()
	})
	<-gate.reached
	return feed, server, gate
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestChangeDuringReplay(t *testing.T) {
	feed, server, gate := newGatedFeed(t)
	must(t, feed.add("oil"))
	must(t, feed.add("wheat"))
	must(t, feed.remove("gold"))
	close(gate.pass)
	must(t, agree(t.Context(), feed, server))
}

func TestChangeAroundAFailedReplay(t *testing.T) {
	feed, server, gate := newGatedFeed(t)
	failed := feed.client.Subscribe(t.Context(), resock.WithoutMessages())
	must(t, feed.add("oil"))
	must(t, feed.remove("gold"))
	gate.pass <- errors.New("the limiter is broken")
	if _, ok := (<-failed).(resock.FailEvent); !ok {
		t.Fatal("the attempt did not fail")
	}
	must(t, feed.add("wheat"))
	<-gate.reached
	must(t, feed.add("copper"))
	close(gate.pass)
	must(t, agree(t.Context(), feed, server))
}

// Without a server, a change is only remembered.
func TestChangeBeforeRun(t *testing.T) {
	server := startServer()
	t.Cleanup(server.stop)
	feed, err := newFeed("ws://" + server.address)
	must(t, err)
	must(t, feed.add("gold"))
	must(t, feed.add("gold"))
	must(t, feed.add("oil"))
	must(t, feed.remove("oil"))
	must(t, feed.remove("tin"))
	go feed.client.Run(t.Context())
	must(t, agree(t.Context(), feed, server))
}
