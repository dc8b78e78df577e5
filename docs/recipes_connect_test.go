package docs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// serve makes a server of resocktest the one that http.DefaultClient reaches, whatever
// the host, so that the recipes need no option for tests. It needs virtual time.
func serve(t *testing.T, steps ...resocktest.Step) *resocktest.Server {
	server := resocktest.NewTLSMemory(t)
	server.Script(steps...)
	client, old := server.Client(), http.DefaultClient
	client.Transport.(*http.Transport).TLSClientConfig.ServerName = strings.TrimPrefix(server.URL, "wss://")
	http.DefaultClient = client
	t.Cleanup(func() { http.DefaultClient = old })
	return server
}

// start runs a client until the test ends.
func start(t *testing.T, client *resock.Client, err error) *resock.Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	go client.Run(context.Background())
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// expect reads the messages that a connection receives, and checks their text.
func expect(t *testing.T, conn *resocktest.Conn, texts ...string) {
	t.Helper()
	for _, want := range texts {
		m, err := conn.Read()
		if err != nil {
			t.Fatalf("got %v, want %q", err, want)
		}
		if string(m.Data) != want {
			t.Errorf("the server got %q, want %q", m.Data, want)
		}
	}
}

var errLoggedOut = errors.New("logged out")

// tokenSource issues tokens 1, 2, … and keeps the last one until it is forgotten.
type tokenSource struct {
	mu     sync.Mutex
	issued int
	fresh  bool
	err    error
}

func (s *tokenSource) token(context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.fresh {
		s.issued++
		s.fresh = true
	}
	return fmt.Sprint("token-", s.issued), s.err
}

func (s *tokenSource) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fresh = false
}

func (s *tokenSource) logOut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = errLoggedOut
}

// snippet: token
func withToken(tokens *tokenSource) (*resock.Client, error) {
	return resock.New("wss://example.com/feed",
		resock.WithEndpoint(func(ctx context.Context, a resock.Attempt) (resock.Endpoint, error) {
			var refused *resock.DialError
			if errors.As(a.Err, &refused) && refused.Status == http.StatusUnauthorized {
				tokens.forget() // the cached one is no longer good
			}
			token, err := tokens.token(ctx)
			if errors.Is(err, errLoggedOut) {
				err = backoff.Permanent(err) // no attempt can succeed: this ends the client
			}
			return resock.Endpoint{Header: http.Header{"Authorization": {"Bearer " + token}}}, err
		}))
}

// end of snippet

// snippet: renew
// renew replaces the connection a minute before its token expires.
func renew(client *resock.Client, expires time.Time) *time.Timer {
	return time.AfterFunc(time.Until(expires.Add(-time.Minute)), client.Reconnect)
}

// end of snippet

func TestToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t, resocktest.Status(http.StatusUnauthorized, nil, ""), resocktest.Hold())
		var tokens tokenSource
		client, err := withToken(&tokens)
		start(t, client, err)
		conn := server.Accept()
		timer := renew(client, time.Now().Add(time.Hour))
		defer timer.Stop()
		began := time.Now()
		next := server.Accept()
		if waited := time.Since(began); waited != 59*time.Minute {
			t.Errorf("the connection was replaced after %v, want 59 minutes", waited)
		}
		<-conn.Done()
		for i, want := range []string{"Bearer token-1", "Bearer token-2", "Bearer token-2"} {
			if got := server.Attempts()[i].Request.Header.Get("Authorization"); got != want {
				t.Errorf("attempt %d came with %q, want %q", i+1, got, want)
			}
		}
		tokens.logOut()
		next.Drop()
		<-client.Done()
		if err := client.Err(); !errors.Is(err, errLoggedOut) {
			t.Errorf("the client ended by %v, want %v", err, errLoggedOut)
		}
	})
}

// snippet: subprotocol-token
func withTokenAsSubprotocol(tokens *tokenSource) (*resock.Client, error) {
	return resock.New("wss://example.com/feed",
		resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			token, err := tokens.token(ctx)
			return resock.Endpoint{Subprotocols: []string{"feed.v1", "bearer." + token}}, err
		}))
}

// end of snippet

func TestTokenAsSubprotocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chosen := http.Header{"Sec-Websocket-Protocol": {"feed.v1"}}
		server := serve(t, resocktest.Upgrade(chosen, nil))
		client, err := withTokenAsSubprotocol(new(tokenSource))
		if err != nil {
			t.Fatal(err)
		}
		events := client.Subscribe(t.Context())
		start(t, client, err)
		conn := server.Accept()
		if got := conn.Request().Header.Get("Sec-Websocket-Protocol"); got != "feed.v1,bearer.token-1" && got != "feed.v1, bearer.token-1" {
			t.Errorf("the client offered %q", got)
		}
		if open, ok := (<-events).(resock.OpenEvent); !ok || open.Subprotocol != "feed.v1" {
			t.Errorf("the client did not open with the subprotocol feed.v1: %+v", open)
		}
	})
}

// snippet: failover
// inTurn returns an endpoint hook that moves on to the next URL when dialing one has
// failed, and stays where it was when a session was lost.
func inTurn(urls ...string) func(context.Context, resock.Attempt) (resock.Endpoint, error) {
	current := 0 // needs no lock: there is one attempt at a time
	return func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
		var failed *resock.DialError
		if errors.As(a.Err, &failed) {
			current = (current + 1) % len(urls)
		}
		return resock.Endpoint{URL: urls[current]}, nil
	}
}

// end of snippet

func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t, resocktest.Hold(), resocktest.Hold(), resocktest.Status(503, nil, ""), resocktest.Hold())
		client, err := resock.New("", resock.WithEndpoint(inTurn("wss://a.example.com/", "wss://b.example.com/")))
		start(t, client, err)
		server.Accept().Drop()
		server.Accept().Drop()
		server.Accept()
		var hosts []string
		for _, attempt := range server.Attempts() {
			hosts = append(hosts, attempt.Request.Host)
		}
		if got, want := fmt.Sprint(hosts), "[a.example.com a.example.com a.example.com b.example.com]"; got != want {
			t.Errorf("the client dialed %v, want %v", got, want)
		}
	})
}
