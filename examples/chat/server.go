package main

import (
	"context"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// hello is the first message of a connection.
type hello struct {
	Name string `json:"name"`
	Seen int64  `json:"seen"` // number of the last line that the member has
}

// welcome is the answer to hello.
type welcome struct {
	Here []string `json:"here"` // names
}

// line is what somebody said. Members send its text alone.
type line struct {
	Number int64  `json:"number"` // from 1
	Name   string `json:"name"`
	Text   string `json:"text"`
}

// server is the chat room. It can be stopped and started again on the same address, and
// keeps the lines meanwhile, as if they were in a database.
type server struct {
	address string
	stop    func() // stops listening and cuts all connections

	mu    sync.Mutex
	lines []line
	more  chan struct{} // closed when there is another line
	here  map[*websocket.Conn]string
}

func startServer() *server {
	s := &server{address: "127.0.0.1:0", more: make(chan struct{}), here: make(map[*websocket.Conn]string)}
	s.start()
	return s
}

// start listens, after the first time on the same address.
func (s *server) start() {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		log.Fatal(err)
	}
	s.address = listener.Addr().String()
	ctx, cut := context.WithCancel(context.Background())
	server := &http.Server{Handler: s, BaseContext: func(net.Listener) context.Context { return ctx }}
	s.stop = func() {
		cut()
		_ = server.Close()
	}
	go server.Serve(listener)
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	var hello hello
	if err := wsjson.Read(r.Context(), conn, &hello); err != nil {
		return
	}
	defer s.leave(conn)
	if err := wsjson.Write(r.Context(), conn, s.enter(conn, hello.Name)); err != nil {
		return
	}
	go s.follow(r.Context(), conn, hello.Seen)
	for {
		_, text, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		s.add(hello.Name, string(text))
	}
}

// enter notes that somebody is here.
func (s *server) enter(conn *websocket.Conn, name string) welcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.here[conn] = name
	return welcome{slices.Compact(slices.Sorted(maps.Values(s.here)))}
}

func (s *server) leave(conn *websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.here, conn)
}

// add adds a line, and wakes those who follow.
func (s *server) add(name, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line{int64(len(s.lines) + 1), name, text})
	close(s.more)
	s.more = make(chan struct{})
}

// since returns the lines after the one of that number, and a channel that is closed when
// there are more.
func (s *server) since(seen int64) ([]line, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen = max(0, min(seen, int64(len(s.lines))))
	return s.lines[seen:], s.more
}

// follow sends every line after the one that was seen.
func (s *server) follow(ctx context.Context, conn *websocket.Conn, seen int64) {
	for {
		lines, more := s.since(seen)
		for _, line := range lines {
			if wsjson.Write(ctx, conn, line) != nil {
				return
			}
			seen = line.Number
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}
