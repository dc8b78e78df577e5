package resocktest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resocktest"
)

func Example() {
	server := resocktest.NewServer(nil)
	defer server.Close()
	server.Script(
		resocktest.Status(http.StatusServiceUnavailable, nil, ""),
		resocktest.Serve(func(c *resocktest.Conn) {
			_ = c.Push("first")
			c.Drop()
		}),
		resocktest.Serve(func(c *resocktest.Conn) {
			_ = c.Push("second")
		}),
	)

	client, err := resock.New(server.URL, resock.WithBackoff(time.Millisecond, time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			fmt.Println("open, session", e.Session)
		case resock.MessageEvent:
			fmt.Printf("push: %s\n", e.Data)
			if e.Session == 2 {
				_ = client.Close(resock.StatusNormalClosure, "seen enough")
			}
		case resock.FailEvent:
			fmt.Println("fail:", e.Phase)
		case resock.CloseEvent:
			fmt.Println("close:", e.Next)
		}
	}
	fmt.Println(server.Conns()[1].Received().Close.Reason)
	// Output:
	// fail: upgrade
	// open, session 1
	// push: first
	// fail: read
	// open, session 2
	// push: second
	// close: closed
	// seen enough
}

// start returns a running client of server, which is stopped at the end of the test.
func start(t *testing.T, server *resocktest.Server, opts ...resock.Option) *resock.Client {
	t.Helper()
	opts = append(opts, resock.WithDialOptions(&websocket.DialOptions{HTTPClient: server.Client()}))
	client, err := resock.New(server.URL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	go client.Run(t.Context())
	return client
}

// The program of the package's documentation.
func TestExample_drop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewMemory(t)
		client, err := resock.New(server.URL, resock.WithDialOptions(
			&websocket.DialOptions{HTTPClient: server.Client()}))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(t.Context())

		server.Accept().Drop() // the connection is lost
		server.Accept()        // and the client reconnects
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
}

// During an outage of an hour the client does not flood the server with attempts, and
// it reconnects soon after the restart.
func TestExample_outage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewMemory(t)
		client := start(t, server, resock.WithBackoff(time.Second, time.Minute))
		server.Accept()

		server.Stop()
		time.Sleep(time.Hour)
		if attempts := len(server.Attempts()); attempts < 60 || attempts > 240 {
			t.Errorf("%d attempts in an hour", attempts)
		}
		server.Restart()
		restarted := time.Now()
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(restarted); took > time.Minute {
			t.Errorf("open %v after the restart", took)
		}
	})
}

// The heartbeat detects a server that went silent.
func TestExample_silence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewMemory(t)
		client := start(t, server, resock.WithHeartbeat(10*time.Second, 5*time.Second))
		events := grammar.Tee(t, client)
		server.Accept().StopReading()
		silent := time.Now()

		<-events // open
		fail, ok := (<-events).(resock.FailEvent)
		if !ok || !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Fatalf("got %+v", fail)
		}
		if took := time.Since(silent); took > 15*time.Second {
			t.Errorf("detected after %v", took)
		}
		server.Accept() // it reconnects
	})
}

// Every attempt has its own token.
func TestExample_credentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := resocktest.NewTLSMemory(t)
		server.Script(resocktest.Status(http.StatusUnauthorized, nil, ""), resocktest.Hold())
		start(t, server, resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			token := fmt.Sprintf("token %d", a.N)
			return resock.Endpoint{Header: http.Header{"Authorization": {token}}}, nil
		}))
		server.Accept()
		for i, attempt := range server.Attempts() {
			want := fmt.Sprintf("token %d", i+1)
			if got := attempt.Request.Header.Get("Authorization"); got != want {
				t.Errorf("attempt %d has the header %q, want %q", i+1, got, want)
			}
		}
	})
}
