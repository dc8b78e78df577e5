package rig

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// ErrTest is an error of the application.
var ErrTest = errors.New("of the test")

// Limiter is a dial limiter, or a send limiter.
type Limiter func(context.Context) error

// Wait calls f.
func (f Limiter) Wait(ctx context.Context) error { return f(ctx) }

// BackOff is a backoff policy that nothing resets.
type BackOff func() time.Duration

// NextBackOff calls f.
func (f BackOff) NextBackOff() time.Duration { return f() }

// Reset does nothing.
func (BackOff) Reset() {}

// Online is a network that does not tell of changes.
type Online func() bool

// Online calls f.
func (f Online) Online() bool { return f() }

// OnChange returns nil.
func (Online) OnChange(func()) (stop func()) { return nil }

// OnPing is the option to do something when a ping comes, which is answered.
func OnPing(do func()) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { do(); return true }})
}

// OnPong is the option to do something when a pong comes.
func OnPong(do func()) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{OnPongReceived: func(context.Context, []byte) { do() }})
}

// Network is a network that a test changes. Its zero value is online.
type Network struct {
	mu          sync.Mutex
	offline     bool
	subscribers []func()
	stopped     int
}

// Offline returns a network that is not there.
func Offline() *Network { return &Network{offline: true} }

// Online returns what Set said last.
func (n *Network) Online() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.offline
}

// OnChange has changed called by each Set.
func (n *Network) OnChange(changed func()) (stop func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.subscribers = append(n.subscribers, changed)
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.stopped++
	}
}

// Set changes the network, or not, and tells of it.
func (n *Network) Set(online bool) {
	n.mu.Lock()
	n.offline = !online
	subscribers := slices.Clone(n.subscribers)
	n.mu.Unlock()
	for _, changed := range subscribers {
		changed()
	}
}

// Subscriptions returns how many calls of OnChange there were, and of stop.
func (n *Network) Subscriptions() (begun, stopped int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.subscribers), n.stopped
}
