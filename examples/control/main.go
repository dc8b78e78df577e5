// Control shows how an application controls reconnecting: with a fresh token and a
// choice of server for every attempt, a registration on every connection, a retry
// policy of its own, and pauses. Both servers are part of the program.
//
//	go run ./examples/control
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
)

// revoked is the close code with which this service tells clients not to reconnect.
const revoked = resock.StatusCode(4001)

func main() {
	primary, backup := newServer("primary"), newServer("backup")
	defer primary.stop()
	defer backup.stop()

	endpoints := &failover{servers: []*server{primary, backup}}
	client, err := resock.New("", // the URL comes from the endpoint hook
		resock.WithEndpoint(endpoints.next),
		resock.WithOnOpen(register),
		resock.WithRetryPolicy(policy),
		resock.WithBackoff(200*time.Millisecond, time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx) // its error stays readable in client.Err()

	say("-- start")
	await[resock.OpenEvent](events)

	say("-- the primary server goes down")
	primary.stop()
	await[resock.OpenEvent](events)

	say("-- the application needs no connection for a while")
	client.Suspend()
	await[resock.CloseEvent](events)
	time.Sleep(time.Second)
	say("-- it needs one again")
	client.Resume()
	await[resock.OpenEvent](events)

	say("-- the service revokes access")
	backup.revoke()
	for event := range events {
		report(event)
	}
	var giveUp *resock.GiveUpError
	if !errors.As(client.Err(), &giveUp) {
		log.Fatalf("the client did not give up: %v", client.Err())
	}
	say("-- the client gave up, by the rule %q", giveUp.Rule)
}

// failover chooses the server: the last one again, unless dialing it failed.
type failover struct {
	servers []*server
	current int // needs no lock, since there is one attempt at a time
}

func (f *failover) next(ctx context.Context, attempt resock.Attempt) (resock.Endpoint, error) {
	var dial *resock.DialError
	if errors.As(attempt.Err, &dial) {
		f.current = (f.current + 1) % len(f.servers)
	}
	server := f.servers[f.current]
	token := server.newToken() // from an identity provider, in a real program
	say("endpoint   attempt %d goes to %s with token %s", attempt.N, server.name, token)
	return resock.Endpoint{
		URL:    server.url(),
		Header: http.Header{"Authorization": {"Bearer " + token}},
	}, nil
}

// register registers with the server and waits for the answer. Only then is the
// session open, and only then are queued messages sent.
func register(ctx context.Context, s *resock.Session) error {
	if err := s.Send(ctx, resock.MessageText, []byte("register billing")); err != nil {
		return err
	}
	_, answer, err := s.Receive(ctx)
	if err != nil {
		return err
	}
	say("on open    session %d: the server says %q", s.ID(), answer)
	return nil
}

// policy gives up if access is revoked, and leaves the rest to the default.
func policy(f resock.Failure) resock.Decision {
	decision := resock.DefaultRetryPolicy(f)
	if f.Code == revoked {
		decision = resock.Decision{Action: resock.ActionStop, Rule: "access revoked"}
	}
	say("policy     rule %q", decision.Rule)
	return decision
}

// await reports events up to the first one of type E.
func await[E resock.Event](events <-chan resock.Event) {
	for event := range events {
		report(event)
		if _, ok := event.(E); ok {
			return
		}
	}
	log.Fatal("the client closed too soon")
}

func report(event resock.Event) {
	switch e := event.(type) {
	case resock.OpenEvent:
		say("event      open, session %d", e.Session)
	case resock.FailEvent:
		say("event      fail in the %v phase, next: %v", e.Phase, e.Next)
	case resock.CloseEvent:
		say("event      close, code %d %q, next: %v", e.Code, e.Reason, e.Next)
	}
}

// server accepts only its latest token, and answers registrations.
type server struct {
	name string
	http *httptest.Server

	mu     sync.Mutex
	tokens int
	conn   *websocket.Conn
}

func newServer(name string) *server {
	s := &server{name: name}
	s.http = httptest.NewServer(s)
	return s
}

func (s *server) url() string { return "ws" + strings.TrimPrefix(s.http.URL, "http") }

func (s *server) newToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens++
	return s.token()
}

func (s *server) token() string { return fmt.Sprintf("%s-%d", s.name, s.tokens) }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	fresh := r.Header.Get("Authorization") == "Bearer "+s.token()
	s.mu.Unlock()
	if !fresh {
		http.Error(w, "the token is stale", http.StatusUnauthorized)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	for {
		_, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if name, ok := strings.CutPrefix(string(message), "register "); ok {
			_ = conn.Write(r.Context(), websocket.MessageText, []byte("welcome, "+name))
		}
	}
}

// stop takes the server down, without a closing handshake.
func (s *server) stop() {
	s.mu.Lock()
	if s.conn != nil {
		_ = s.conn.CloseNow()
	}
	s.mu.Unlock()
	s.http.Close()
}

// revoke closes the connection with the code revoked.
func (s *server) revoke() {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	_ = conn.Close(revoked, "access revoked")
}

var began = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%5.2fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
