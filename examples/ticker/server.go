package main

import (
	"context"
	"log"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// request is the first message of a connection: for each symbol the number of the last
// price that the client has, or 0.
type request struct {
	After map[string]uint64 `json:"after"`
}

// quote is what the exchange sends: a price; or, in answer to the request, the number after
// which a symbol goes on; or that the exchange has closed.
type quote struct {
	Symbol string  `json:"symbol,omitempty"`
	Number uint64  `json:"number,omitempty"` // from 1
	Price  float64 `json:"price,omitempty"`
	After  uint64  `json:"after,omitempty"`
	Closed bool    `json:"closed,omitempty"`
}

// server is the exchange. Its market opens with the first connection.
type server struct {
	url  string
	open func()
	stop context.CancelFunc

	mu     sync.Mutex
	market []*symbol
	more   chan struct{}      // closed when there are more prices, or no more
	live   context.Context    // of the connections; over while the exchange is away
	cut    context.CancelFunc // ends live
	closed bool
	whole  int // how often a symbol went on without a gap
}

func startServer() *server {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &server{url: "ws://" + listener.Addr().String(), stop: stop, more: make(chan struct{})}
	s.market = []*symbol{newSymbol("gold", 412, 1), newSymbol("oil", 71, 4)}
	s.open = sync.OnceFunc(func() { go s.trade(ctx) })
	s.back()
	server := &http.Server{Handler: s}
	context.AfterFunc(ctx, func() { server.Close() })
	go server.Serve(listener)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	live := s.live
	s.mu.Unlock()
	if live.Err() != nil {
		http.Error(w, "the exchange is away", http.StatusServiceUnavailable)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	var request request
	if err := wsjson.Read(live, conn, &request); err != nil {
		return
	}
	s.open()
	after, quotes := s.begin(request)
	s.push(conn.CloseRead(live), conn, after, quotes)
}

// push sends the answer to a request, and then what comes after it, until ctx ends.
func (s *server) push(ctx context.Context, conn *websocket.Conn, after map[string]uint64, quotes []quote) {
	for {
		for _, quote := range quotes {
			if wsjson.Write(ctx, conn, quote) != nil {
				return
			}
		}
		more, closed := s.changed(), false
		if quotes, closed = s.since(after); len(quotes) > 0 {
			continue
		}
		if closed {
			_ = wsjson.Write(ctx, conn, quote{Closed: true})
			more = nil // nothing is left but to wait for the client to go
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// drop cuts all connections.
func (s *server) drop() {
	s.cut()
	s.back()
}

// back lets connections live from now on.
func (s *server) back() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live, s.cut = context.WithCancel(context.Background())
}
