package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// source makes a number every 5 ms, which both servers push.
type source struct {
	mu   sync.Mutex
	last int
	more chan struct{} // closed when there is another number
}

func newSource() *source {
	s := &source{more: make(chan struct{})}
	go func() {
		for range time.Tick(5 * time.Millisecond) {
			s.mu.Lock()
			s.last++
			close(s.more)
			s.more = make(chan struct{})
			s.mu.Unlock()
		}
	}()
	return s
}

// state returns the last number, and a channel that is closed when there is another.
func (s *source) state() (last int, more <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.more
}

// server pushes the numbers after the one that a client names.
type server struct {
	name  string
	url   string
	http  *httptest.Server
	moves chan string
	from  *source
}

func newServer(name string, from *source) *server {
	s := &server{name: name, from: from, moves: make(chan string)}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	s.url = "ws" + strings.TrimPrefix(s.http.URL, "http")
	return s
}

func (s *server) stop() { s.http.Close() }

// move asks the client to go to another server.
func (s *server) move(url string) { s.moves <- url }

func (s *server) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	_, data, err := conn.Read(r.Context())
	if err != nil {
		return
	}
	time.Sleep(100 * time.Millisecond) // a database is asked who that is
	if conn.Write(r.Context(), websocket.MessageText, []byte("welcome")) != nil {
		return
	}
	ctx := conn.CloseRead(r.Context())
	n := 0
	_, _ = fmt.Sscanf(string(data), "after %d", &n)
	for ctx.Err() == nil {
		last, more := s.from.state()
		for ; n < last; n++ {
			if conn.Write(ctx, websocket.MessageText, fmt.Append(nil, n+1)) != nil {
				return
			}
		}
		select {
		case <-more:
		case url := <-s.moves:
			_ = conn.Write(ctx, websocket.MessageText, []byte("move "+url))
		case <-ctx.Done():
		}
	}
}
