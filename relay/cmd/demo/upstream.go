//go:build unix

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/resock/resock/relay/internal/feed"
)

// serve serves the feed on a free port.
func serve(f *feed.Server) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(listener) }()
	return "ws://" + listener.Addr().String(), func() { _ = server.Close(); f.Cut() }, nil
}

// freeAddress returns an address where nobody listens. No connection gets its port while
// NATS is down: systems take those above 32767 for connections.
func freeAddress() (string, error) {
	var err error
	for range 100 {
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", err
}

// pump lets the feed go on until it is stopped.
func (s *show) pump(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		began := time.Now()
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				due := uint64(time.Since(began).Seconds() * float64(s.rate))
				s.upstream.Push(due - min(due, s.upstream.Last()))
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
