package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"
)

// server receives reports. It can be stopped and started again on the same address.
type server struct {
	address string
	stop    func() // stops listening and cuts all connections

	mu      sync.Mutex
	reports []string
	changed chan struct{} // closed when there is another report
}

func startServer() *server {
	s := &server{address: "127.0.0.1:0", changed: make(chan struct{})}
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
	for {
		_, report, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		s.add(string(report))
	}
}

func (s *server) add(report string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, report)
	close(s.changed)
	s.changed = make(chan struct{})
}

// received returns all reports so far, and a channel that is closed when there is another.
func (s *server) received() ([]string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reports, s.changed
}

// untilReceived waits for n reports.
func (s *server) untilReceived(ctx context.Context, n int) error {
	for {
		reports, changed := s.received()
		if len(reports) >= n {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
