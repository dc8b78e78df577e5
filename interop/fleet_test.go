package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/debug"
)

// fleetServer does to a connection what its path says.
func fleetServer(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/overloaded":
		http.Error(w, "try again later", http.StatusServiceUnavailable)
		return
	case "/stalled":
		<-r.Context().Done()
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx := conn.CloseRead(r.Context())
	pause, left := 200*time.Millisecond, time.Hour
	switch r.URL.Path {
	case "/fast":
		pause = 5 * time.Millisecond
	case "/quiet":
		pause = 10 * time.Second
	case "/flaky", "/restarts":
		left = 3*time.Second + rand.N(15*time.Second)
	}
	over := time.After(left)
	for {
		select {
		case <-ctx.Done():
			return
		case <-over:
			if r.URL.Path == "/restarts" {
				_ = conn.Close(websocket.StatusServiceRestart, "the server restarts")
			}
			return
		case <-time.After(pause):
			_ = conn.Write(ctx, websocket.MessageText, make([]byte, 120))
		}
	}
}

// noNetwork is a network that is not there.
type noNetwork struct{}

func (noNetwork) Online() bool                { return false }
func (noNetwork) OnChange(func()) (no func()) { return func() {} }

// member is a kind of client in a fleet: what the server does, and what the client does.
type member struct {
	name, path string
	opts       []resock.Option
	then       func(context.Context, *resock.Client)
}

func members() []member {
	quick := resock.WithBackoff(2*time.Second, 8*time.Second)
	limited := []resock.Option{resock.WithMaxAttempts(3), resock.WithBackoff(time.Millisecond, time.Millisecond)}
	return []member{
		{"prices", "/fast", nil, nil},
		{"orders", "/steady", nil, nil},
		{"accounts", "/quiet", nil, nil},
		{"trades", "/flaky", []resock.Option{quick}, nil},
		{"news", "/steady", nil, nil},
		{"alerts", "/overloaded", []resock.Option{resock.WithBackoff(10*time.Second, 40*time.Second)}, enqueueSome},
		{"chat", "/restarts", []resock.Option{quick}, nil},
		{"audit", "/fast", nil, block},
		{"sensors", "/steady", nil, nil},
		{"mobile", "/steady", nil, func(_ context.Context, c *resock.Client) { c.Suspend() }},
		{"billing", "/steady", nil, nil},
		{"legacy", "/overloaded", limited, nil},
		{"jobs", "/quiet", nil, nil},
		{"metrics", "/stalled", nil, nil},
		{"search", "/steady", nil, nil},
		{"replica", "/offline", []resock.Option{resock.WithNetwork(noNetwork{})}, nil},
		{"presence", "/steady", nil, nil},
		{"quotes", "/fast", nil, nil},
		{"reports", "/quiet", nil, nil},
		{"logs", "/steady", nil, nil},
	}
}

// block subscribes, and never reads.
func block(ctx context.Context, c *resock.Client) {
	c.Subscribe(ctx, resock.WithLabel("audit log"), resock.WithBuffer(0))
}

func enqueueSome(_ context.Context, c *resock.Client) {
	for range 12 {
		_ = c.Enqueue(resock.MessageText, make([]byte, 300))
	}
}

// fleet runs n clients in mixed states until the end of the test, and registers them. Most
// of those beyond the first twenty are well.
func fleet(t *testing.T, h *debug.Handler, n int) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(fleetServer))
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
		server.CloseClientConnections()
		server.Close()
	})
	kinds := members()
	for i := range n {
		m := kinds[i%len(kinds)]
		if i >= len(kinds) {
			if m.name == "prices" || m.name == "quotes" || m.name == "audit" {
				m.path, m.then = "/quiet", nil // this machine has other things to do, too
			}
			m.name = fmt.Sprintf("%s-%03d", m.name, i)
		}
		url := "ws" + strings.TrimPrefix(server.URL, "http") + m.path
		opts := append([]resock.Option{resock.WithCloseTimeout(100 * time.Millisecond), resock.WithDialTimeout(time.Minute)}, m.opts...)
		if m.path == "/offline" {
			url = "ws://feed.example.com" // the loopback interface needs no network
		}
		client, err := resock.New(url, opts...)
		if err != nil {
			t.Fatal(err)
		}
		if m.then != nil {
			m.then(ctx, client)
		}
		remove, err := h.Add(m.name, client)
		if err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			_ = client.Run(ctx) // its end is on the page
			<-ctx.Done()
			remove()
		})
	}
}
