// Package feed is a server for tests and demonstrations: it numbers its messages, keeps all
// of them, and takes messages that it acknowledges.
package feed

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resume"
)

// Message is a message of the feed, as JSON.
type Message struct {
	Epoch string `json:"epoch"`
	Seq   uint64 `json:"seq"`
	Pad   string `json:"pad,omitempty"`
}

// Server is the handler of a feed. A client asks by ?since=SEQ where it wants to go on; by
// default it gets what is new.
type Server struct {
	Epoch string

	mu       sync.Mutex
	last     uint64
	pad      string // of each message
	moved    chan struct{}
	cut      chan struct{} // closed to cut all connections
	sessions int
	open     int
	received map[string]int
}

// New returns a feed that has no messages.
func New(epoch string) *Server {
	return &Server{Epoch: epoch, moved: make(chan struct{}), cut: make(chan struct{}), received: make(map[string]int)}
}

// Push adds messages.
func (s *Server) Push(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last += n
	close(s.moved)
	s.moved = make(chan struct{})
}

// SetPad sets what the messages that are sent from now on have beside their number.
func (s *Server) SetPad(pad string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pad = pad
}

// Cut kills all connections.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.cut)
	s.cut = make(chan struct{})
}

// Last returns the number of the last message.
func (s *Server) Last() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Sessions returns how many connections there were.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// Open returns how many connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// opened counts a connection, until the function that it returns is called.
func (s *Server) opened() (closed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions++
	s.open++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.open--
	}
}

// Received returns how often each message of the clients came.
func (s *Server) Received() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	received := make(map[string]int, len(s.received))
	for id, n := range s.received {
		received[id] = n
	}
	return received
}

func (s *Server) state() (last uint64, pad string, moved, cut chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.pad, s.moved, s.cut
}

// ServeHTTP serves one connection.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	next, _, _, cut := s.state()
	if since := r.URL.Query().Get("since"); since != "" {
		next, _ = strconv.ParseUint(since, 10, 64)
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer s.opened()()
	go s.receive(ctx, cancel, conn)
	for {
		last, pad, moved, _ := s.state()
		for ; next < last; next++ {
			data, _ := json.Marshal(Message{s.Epoch, next + 1, pad})
			if conn.Write(ctx, websocket.MessageText, data) != nil {
				return
			}
		}
		select {
		case <-moved:
		case <-cut:
			return
		case <-ctx.Done():
			return
		}
	}
}

// receive acknowledges what the client sends: "ID TEXT" by "ack ID".
func (s *Server) receive(ctx context.Context, cancel func(), conn *websocket.Conn) {
	defer cancel()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		id, _, _ := strings.Cut(string(data), " ")
		s.mu.Lock()
		s.received[id]++
		s.mu.Unlock()
		if conn.Write(ctx, websocket.MessageText, []byte("ack "+id)) != nil {
			return
		}
	}
}

// Read is the recogniser of the positions.
func Read(m resock.MessageEvent, found *resume.Found) {
	var read Message
	if json.Unmarshal(m.Data, &read) == nil && read.Seq > 0 {
		found.Message(resume.Position{Epoch: read.Epoch, Seq: read.Seq}, m.Data)
	}
}

// ReadAck is the recogniser of the acknowledgements.
func ReadAck(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	id, ok := strings.CutPrefix(string(m.Data), "ack ")
	if ok {
		found.Acked(id)
	}
	return !ok
}

// Options are those of a client that goes on where the feed of package resume is.
func Options(url string) func(*resume.Feed) []resock.Option {
	return func(f *resume.Feed) []resock.Option {
		return []resock.Option{resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			if at := f.Cursor(""); at.Known {
				return resock.Endpoint{URL: fmt.Sprintf("%s?since=%d", url, at.Seq)}, nil
			}
			return resock.Endpoint{URL: url}, nil
		})}
	}
}
