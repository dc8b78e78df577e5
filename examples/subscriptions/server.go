package main

import (
	"context"
	"fmt"
	"log"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// server sends each connection the topics that it asked for. It notes requests that make
// no sense, such as a second subscription to a topic. It can be stopped and started again
// on the same address.
type server struct {
	address string
	stop    func() // stops listening and cuts all connections

	mu     sync.Mutex
	conns  int
	latest *conn
	faults []string
}

// conn is a connection.
type conn struct {
	number int
	topics map[string]bool // guarded by server.mu
}

func startServer() *server {
	s := &server{address: "127.0.0.1:0"}
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
	socket, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer socket.CloseNow()
	c := s.connected()
	go s.push(r.Context(), socket, c)
	for {
		var request request
		if err := wsjson.Read(r.Context(), socket, &request); err != nil {
			return
		}
		s.handle(c, request)
	}
}

func (s *server) connected() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns++
	s.latest = &conn{number: s.conns, topics: make(map[string]bool)}
	return s.latest
}

// handle does what a client asks for.
func (s *server) handle(c *conn, r request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	say("server", "connection %d: %s %s", c.number, r.Do, strings.Join(r.Topics, ", "))
	for _, topic := range r.Topics {
		if c.topics[topic] == (r.Do == "subscribe") {
			s.faults = append(s.faults, fmt.Sprintf("connection %d: needless %s %s", c.number, r.Do, topic))
		}
		c.topics[topic] = r.Do == "subscribe"
		if r.Do == "unsubscribe" {
			delete(c.topics, topic)
		}
	}
}

// subscribed returns the topics of the latest connection, and what made no sense so far.
func (s *server) subscribed() (topics, faults []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.latest != nil {
		topics = s.sortedLocked(s.latest)
	}
	return topics, slices.Clone(s.faults)
}

// sortedLocked returns the topics of a connection; mu is held.
func (s *server) sortedLocked(c *conn) []string { return slices.Sorted(maps.Keys(c.topics)) }

// push sends a price for each topic, again and again.
func (s *server) push(ctx context.Context, socket *websocket.Conn, c *conn) {
	for i := 1; ; i++ {
		select {
		case <-time.After(900 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		s.mu.Lock()
		topics := s.sortedLocked(c)
		s.mu.Unlock()
		for _, topic := range topics {
			if socket.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%s costs %d", topic, 100+i)) != nil {
				return
			}
		}
	}
}
