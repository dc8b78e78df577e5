package rig

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// Patience is how long the client waits for a hook after the hook's context has ended.
const Patience = time.Second

// ErrTest stands for an error of the application.
var ErrTest = errors.New("test error")

// Limiter is a function that serves as a dial limiter or a send limiter.
type Limiter func(context.Context) error

// Wait calls f.
func (f Limiter) Wait(ctx context.Context) error { return f(ctx) }

// BackOff is a function that serves as a backoff policy. It keeps no state to reset.
type BackOff func() time.Duration

// NextBackOff calls f.
func (f BackOff) NextBackOff() time.Duration { return f() }

// Reset does nothing.
func (BackOff) Reset() {}

// Online is a function that serves as a network. It reports no changes.
type Online func() bool

// Online calls f.
func (f Online) Online() bool { return f() }

// OnChange never calls the function, and returns a nil stop function.
func (Online) OnChange(func()) (stop func()) { return nil }

// OnPing returns an option that calls do for each ping received. The ping is answered.
func OnPing(do func()) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{OnPingReceived: func(context.Context, []byte) bool { do(); return true }})
}

// OnPong returns an option that calls do for each pong received.
func OnPong(do func()) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{OnPongReceived: func(context.Context, []byte) { do() }})
}

// Network is a network that the test switches on and off. The zero value is online.
type Network struct {
	mu          sync.Mutex
	offline     bool
	subscribers []func()
	stopped     int
}

// Offline returns a Network that is offline.
func Offline() *Network { return &Network{offline: true} }

// Online returns the value last given to Set.
func (n *Network) Online() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.offline
}

// OnChange registers changed, to be called by each Set. The stop function is only
// counted: changed may be called after it, as by any careless Network.
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

// Set sets the network's state and announces a change, even if there is none.
func (n *Network) Set(online bool) {
	n.mu.Lock()
	n.offline = !online
	subscribers := slices.Clone(n.subscribers)
	n.mu.Unlock()
	for _, changed := range subscribers {
		changed()
	}
}

// Subscriptions returns how often OnChange and the stop functions were called.
func (n *Network) Subscriptions() (begun, stopped int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.subscribers), n.stopped
}

// roundTripper is a function as an http.RoundTripper.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// RoundTrip is the option to make the upgrade request by a function.
func RoundTrip(f func(*http.Request) (*http.Response, error)) resock.Option {
	return resock.WithHTTPClient(&http.Client{Transport: roundTripper(f)})
}

// Dial is the option to dial by a function.
func Dial(dial func(ctx context.Context) (net.Conn, error)) resock.Option {
	return resock.WithHTTPClient(&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
	}})
}
