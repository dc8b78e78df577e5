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

// server pushes the time to every connection, prints what it receives, and can
// be dropped, stopped and started again on the same address.
type server struct {
	address string
	say     func(who, format string, args ...any)

	mu    sync.Mutex
	http  *http.Server
	conns map[*websocket.Conn]bool
}

func startServer(say func(who, format string, args ...any)) *server {
	s := &server{address: "127.0.0.1:0", say: say, conns: make(map[*websocket.Conn]bool)}
	s.start()
	return s
}

// start listens, again on the address of the first time.
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

// drop cuts every connection without a word.
func (s *server) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		_ = conn.CloseNow()
	}
}

// stop listens no more and drops all connections.
func (s *server) stop() {
	s.mu.Lock()
	_ = s.http.Close()
	s.mu.Unlock()
	s.drop()
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		OnPingReceived: func(context.Context, []byte) bool {
			s.say("server", "heartbeat: a ping came, a pong goes")
			return true
		},
	})
	if err != nil {
		return
	}
	s.remember(conn, true)
	defer s.remember(conn, false)
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go push(ctx, conn)
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		s.say("server", "received: %s", data)
	}
}

func (s *server) remember(conn *websocket.Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.conns[conn] = true
	} else {
		delete(s.conns, conn)
	}
}

// push sends three messages and then is silent, so that the heartbeat shows.
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
