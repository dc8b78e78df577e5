package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
)

func startNATS(t *testing.T) *server.Server {
	t.Helper()
	s, err := server.Start(server.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0", NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// startFeed starts a feed with ten messages.
func startFeed(t *testing.T) (url string) {
	t.Helper()
	f := feed.New("e")
	f.Push(10)
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	t.Cleanup(f.Cut)
	return "ws" + strings.TrimPrefix(s.URL, "http") + "?since=0"
}

// program is the program as it runs with -http.
type program struct {
	base   string // of its URLs
	admin  *admin
	cancel context.CancelFunc
	ended  chan error
}

// start starts the program beside a server of NATS until the end of the test.
func start(t *testing.T, nats *server.Server, url string) *program {
	t.Helper()
	s, err := parse([]string{"-nats", nats.URL(), "-ttl", "3s", "-http", "127.0.0.1:0", url})
	if err != nil {
		t.Fatal(err)
	}
	a, err := listen(s.http, s.name)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &program{"http://" + a.listener.Addr().String(), a, cancel, make(chan error, 1)}
	go func() { p.ended <- s.run(ctx, a.run) }()
	t.Cleanup(func() { _ = p.stop() })
	return p
}

// stop ends the program in order, and returns why it ended.
func (p *program) stop() error {
	p.cancel()
	return p.wait()
}

// wait waits for the end of the program, and returns why it ended.
func (p *program) wait() error {
	err := <-p.ended
	p.ended <- err
	return err
}

func (p *program) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	res, err := http.Get(p.base + path)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	all, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(all)
}

// until asks until the answer has that status and contains all texts.
func (p *program) until(t *testing.T, path string, want int, texts ...string) {
	t.Helper()
	deadline, ticks := time.After(20*time.Second), time.NewTicker(10*time.Millisecond)
	defer ticks.Stop()
	for {
		status, body := p.get(t, path)
		if status == want && containsAll(body, texts) {
			return
		}
		select {
		case <-ticks.C:
		case <-deadline:
			t.Fatalf("%s: after 20 s %d %s, want %d and %q", path, status, body, want, texts)
		}
	}
}

func containsAll(body string, texts []string) bool {
	for _, text := range texts {
		if !strings.Contains(body, text) {
			return false
		}
	}
	return true
}

// clients returns the states of the clients on the page of debug, by name.
func (p *program) clients(t *testing.T) map[string]string {
	t.Helper()
	status, body := p.get(t, "/debug/resock?json")
	var page struct {
		Clients []struct{ Name, State string }
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil || status != http.StatusOK {
		t.Fatalf("the page: %d, %v", status, err)
	}
	states := make(map[string]string)
	for _, c := range page.Clients {
		states[c.Name] = c.State
	}
	return states
}

// TestHTTP has one program lead and another stand by, which leads when the first has ended,
// and then takes NATS away.
func TestHTTP(t *testing.T) {
	nats, url := startNATS(t), startFeed(t)
	first := start(t, nats, url)
	first.until(t, "/metrics", http.StatusOK, `resock_relay_leading{relay="feed"} 1`,
		`resock_state{client="feed",state="open"} 1`, `resock_relay_written_messages_total{relay="feed"} 10`)
	first.until(t, "/readyz", http.StatusOK, "ok")
	first.until(t, "/livez", http.StatusOK, "ok")
	if clients := first.clients(t); len(clients) != 1 || clients["feed"] != "open" {
		t.Errorf("the page of the leader has %v", clients)
	}

	second := start(t, nats, url)
	second.until(t, "/readyz", http.StatusOK)
	second.until(t, "/metrics", http.StatusOK, `resock_relay_leading{relay="feed"} 0`)
	if _, body := second.get(t, "/metrics"); strings.Contains(body, "resock_state") {
		t.Error("metrics of a client that is not there")
	}
	if clients := second.clients(t); len(clients) != 0 {
		t.Errorf("the page of one that stands by has %v", clients)
	}

	stream, err := http.Get(first.base + "/debug/resock?events") // must not hold up the end
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	if _, err := bufio.NewReader(stream.Body).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := first.stop(); err != context.Canceled {
		t.Errorf("ended by %v", err)
	}
	if res, err := http.Get(first.base + "/livez"); err == nil {
		res.Body.Close()
		t.Error("it serves after its end")
	}

	second.until(t, "/metrics", http.StatusOK, `resock_relay_leading{relay="feed"} 1`, `resock_state{client="feed",state="open"} 1`)
	second.until(t, "/readyz", http.StatusOK)
	nats.Close()
	second.until(t, "/readyz", http.StatusServiceUnavailable, "relay: NATS is RECONNECTING")
	second.until(t, "/livez", http.StatusOK)
	second.until(t, "/metrics", http.StatusOK, `resock_relay_leading{relay="feed"} 0`)
	if clients := second.clients(t); len(clients) != 0 {
		t.Errorf("after the term the page has %v", clients)
	}
}

// TestHTTPAddressTaken wants an error before anything runs.
func TestHTTPAddressTaken(t *testing.T) {
	taken := httptest.NewServer(http.NotFoundHandler())
	defer taken.Close()
	store := t.TempDir() + "/store"
	err := run(t.Context(), []string{"-store", store, "-listen", "none", "-http", taken.Listener.Addr().String(), "ws://a"})
	if err == nil || !strings.HasPrefix(err.Error(), "-http: ") {
		t.Errorf("ended by %v", err)
	}
	if _, err := os.Stat(store); err == nil {
		t.Error("the server of NATS was started")
	}
}

// TestHTTPFails ends the program with the reason when it cannot serve any more.
func TestHTTPFails(t *testing.T) {
	nats, url := startNATS(t), startFeed(t)
	p := start(t, nats, url)
	p.until(t, "/readyz", http.StatusOK)
	p.admin.listener.Close()
	if err := p.wait(); err == nil || !strings.HasPrefix(err.Error(), "-http: accept") {
		t.Errorf("ended by %v", err)
	}
}
