package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// server pushes a few messages to every connection and prints what it receives. It can
// drop its connections, and be stopped and started again on the same address.
type server struct {
	address string

	mu    sync.Mutex
	http  *http.Server
	conns map[*websocket.Conn]bool
}

func startServer() *server {
	s := &server{address: "127.0.0.1:0", conns: make(map[*websocket.Conn]bool)}
	s.start()
	return s
}

// start listens, after the first time on the same address.
func (s *server) start() {
	listener, err := net.Listen("tcp", s.address)
	if err != nil {
		log.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.address = listener.Addr().String()
	s.http = &http.Server{Handler: s}
	go s.http.Serve(listener)
}

// drop cuts every connection, without a closing handshake.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.CloseNow()
	}
}

// stop stops listening and drops all connections.
func (s *server) stop() {
	s.mu.Lock()
	_ = s.http.Close()
	s.mu.Unlock()
	s.drop()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		OnPingReceived: func(context.Context, []byte) bool {
			say("server", "heartbeat: received a ping, answering with a pong")
			return true
		},
	})
	if err != nil {
		return
	}
	s.add(conn)
	defer s.remove(conn)
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go push(ctx, conn)
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		say("server", "received: %s", data)
	}
}

func (s *server) add(conn *websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = true
}

func (s *server) remove(conn *websocket.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}

// push sends three messages and is silent afterwards, so that the client has to ping.
func push(ctx context.Context, conn *websocket.Conn) {
	ticker := time.NewTicker(250 * time.Millisecond)
	defer ticker.Stop()
	for i := 1; i <= 3; i++ {
		if conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "push %d", i)) != nil {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
