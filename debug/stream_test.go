package debug

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// reader is a ResponseWriter that keeps the updates of a stream.
type reader struct {
	header http.Header
	code   int
	block  chan struct{} // if not nil, writes wait for it

	mu      sync.Mutex
	beats   int
	updates []decodedUpdate
}

type decodedUpdate struct {
	All     bool
	Clients []struct {
		decodedClient
		Spans, Live []decodedSpan
	}
	Removed []string
	at      time.Time
}

func (r *reader) Header() http.Header  { return r.header }
func (r *reader) WriteHeader(code int) { r.code = code }
func (r *reader) Flush()               {}

func (r *reader) Write(b []byte) (int, error) {
	if r.block != nil {
		<-r.block
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, ":") {
			r.beats++
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			u := decodedUpdate{at: time.Now()}
			if err := json.Unmarshal([]byte(data), &u); err != nil {
				return 0, err
			}
			r.updates = append(r.updates, u)
		}
	}
	return len(b), nil
}

// take returns the updates since the last call.
func (r *reader) take() []decodedUpdate {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.updates
	r.updates = nil
	return taken
}

// watch reads the stream of h until stop is called, or the end of the test.
func watch(t *testing.T, h http.Handler) (r *reader, stop func()) {
	r = &reader{header: http.Header{}, code: http.StatusOK}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		h.ServeHTTP(r, httptest.NewRequest(http.MethodGet, "/?events", nil).WithContext(ctx))
	}()
	stop = func() { cancel(); <-over }
	t.Cleanup(stop)
	return r, stop
}

func TestStreamTellsWhatChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server, resock.WithRetryPolicy(fixedBackoff(5*time.Second).decide), resock.WithHeartbeat(0, 0))
		add(t, &h, "feed", client)
		remove := add(t, &h, "idle", connect(t, server))
		r, _ := watch(t, &h)
		if u := r.take(); len(u) != 1 || !u[0].All || len(u[0].Clients) != 2 {
			t.Fatalf("first: %+v", u)
		}
		time.Sleep(10 * time.Second)
		if u := r.take(); len(u) != 0 {
			t.Errorf("nothing happened, and yet: %+v", u)
		}

		go client.Run(t.Context())
		conn := server.Accept()
		time.Sleep(time.Second)
		u := r.take()
		if len(u) == 0 || u[len(u)-1].Clients[0].State != "open" || len(u[len(u)-1].Clients) != 1 {
			t.Fatalf("after it opened: %+v", u)
		}
		conn.Drop()
		time.Sleep(300 * time.Millisecond)
		if u = r.take(); len(u) != 1 || u[0].Clients[0].State != "waiting" || len(u[0].Clients[0].Ends) != 1 {
			t.Fatalf("after it was dropped: %+v", u)
		}
		if spans := u[0].Clients[0].Spans; len(spans) != 1 || spans[0].State != "open" || spans[0].Error == "" {
			t.Errorf("spans: %+v", spans)
		}
		remove()
		time.Sleep(time.Second)
		if u = r.take(); len(u) != 1 || len(u[0].Removed) != 1 || u[0].Removed[0] != "idle" {
			t.Errorf("after one was removed: %+v", u)
		}
	})
}

func TestStreamBeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		r, _ := watch(t, &h)
		time.Sleep(time.Minute + time.Second)
		r.take()
		if r.beats < 3 || r.beats > 4 {
			t.Errorf("%d beats in a minute, want about 4", r.beats)
		}
	})
}

// TestStreamOfAStorm lets a client fail a thousand times per second.
func TestStreamOfAStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		client := connect(t, resocktest.NewMemory(t))
		add(t, &h, "feed", client)
		r, _ := watch(t, &h)
		r.take()
		h.mu.Lock()
		e := h.entries["feed"]
		h.mu.Unlock()
		for range 10_000 {
			e.note(fails(time.Now(), 0))
			h.wake()
			time.Sleep(time.Millisecond)
		}
		updates := r.take()
		if len(updates) < 30 || len(updates) > 41 {
			t.Errorf("%d updates in 10 s, want about 40", len(updates))
		}
		if c := only(t, &h); len(c.Timeline) > maxSpans+2 || len(c.Ends) != maxEnds {
			t.Errorf("%d spans, %d ends", len(c.Timeline), len(c.Ends))
		}
	})
}

// TestSlowReader has a reader that takes nothing, while a client goes on.
func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		slow := &reader{header: http.Header{}, block: make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			h.ServeHTTP(slow, httptest.NewRequest(http.MethodGet, "/?events", nil).WithContext(ctx))
		}()
		r, _ := watch(t, &h)
		remove := add(t, &h, "feed", client)
		go client.Run(t.Context())
		server.Accept().Drop()
		server.Accept()
		time.Sleep(time.Second)
		if c := only(t, &h); c.State != "open" || c.Session != 2 {
			t.Errorf("got %+v", c)
		}
		if u := r.take(); len(u) == 0 {
			t.Error("the other reader is told nothing")
		}
		remove()
		cancel()
		close(slow.block)
		<-over
	})
}

func TestStreamsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		var stop func()
		for range maxStreams {
			_, stop = watch(t, &h)
		}
		synctest.Wait()
		if w := get(&h, "/?events"); w.Code != http.StatusServiceUnavailable {
			t.Errorf("status %d, want 503", w.Code)
		}
		stop()
		r, _ := watch(t, &h)
		if u := r.take(); r.code != http.StatusOK || len(u) != 1 {
			t.Errorf("status %d, updates %+v", r.code, u)
		}
	})
}

// TestStreamOverHTTP serves a stream as programs do, with timeouts and behind StripPrefix.
func TestStreamOverHTTP(t *testing.T) {
	var h Handler
	mux := http.NewServeMux()
	mux.Handle("/debug/resock/", http.StripPrefix("/debug/resock", &h))
	server := httptest.NewUnstartedServer(mux)
	server.Config.WriteTimeout = 50 * time.Millisecond // which is not for streams
	server.Config.ReadTimeout = 50 * time.Millisecond
	server.Start()
	defer server.Close()
	res, err := http.Get(server.URL + "/debug/resock/?events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if kind := res.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Errorf("Content-Type %s", kind)
	}
	lines := bufio.NewScanner(res.Body)
	next := func(prefix string) string {
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), prefix); ok {
				return data
			}
		}
		t.Fatalf("no line with %q: %v", prefix, lines.Err())
		return ""
	}
	if retry := next("retry: "); retry != "2000" {
		t.Errorf("retry: %s", retry)
	}
	next("data: ")
	for i := range 3 { // beyond the timeouts of the server: each takes 250 ms
		name := fmt.Sprint("client", i)
		client, err := resock.New("ws://localhost")
		if err != nil {
			t.Fatal(err)
		}
		add(t, &h, name, client)
		if data := next("data: "); !strings.Contains(data, name) {
			t.Errorf("got %s, want %s", data, name)
		}
	}

	// A server that shuts down waits for its requests: the stream must end by itself.
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := server.Config.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	for lines.Scan() {
		t.Logf("in the end: %q", lines.Text()) // what was under way, and no more
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) != 0 || len(h.servers) != 0 {
		t.Errorf("%d streams and %d servers are left", len(h.streams), len(h.servers))
	}
}

// onePipe is a listener that accepts one connection, which is a pipe without a buffer.
type onePipe struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *onePipe) Accept() (net.Conn, error) {
	conn, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (l *onePipe) Addr() net.Addr { return &net.TCPAddr{} }
func (l *onePipe) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }

// TestVanishedReader has a reader that asks for a stream, and takes nothing of it.
func TestVanishedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		listener := &onePipe{conns: make(chan net.Conn, 1)}
		server := &http.Server{Handler: &h}
		over := make(chan struct{})
		go func() {
			defer close(over)
			_ = server.Serve(listener) // it is closed
		}()
		ours, theirs := net.Pipe()
		listener.conns <- theirs
		if _, err := fmt.Fprint(ours, "GET /?events HTTP/1.1\r\nHost: test\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		streams := func() int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return len(h.streams)
		}
		time.Sleep(writeTimeout - time.Second)
		if n := streams(); n != 1 {
			t.Fatalf("%d streams, want 1", n)
		}
		time.Sleep(2 * time.Second)
		if n := streams(); n != 0 {
			t.Errorf("%d streams after the write timeout, want none", n)
		}
		_ = ours.Close()
		_ = server.Close()
		<-over
	})
}
