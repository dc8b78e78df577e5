package snippets

import (
	"context"
	"net/http"
	"testing"
	"time"

	coder "github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// Each program registers on every connection, and receives after a lost one, too.
func TestReceivers(t *testing.T) {
	for name, receive := range map[string]func(ctx context.Context, url string, handle func([]byte)){
		"gorilla before": func(ctx context.Context, url string, handle func([]byte)) {
			(&feed{url: url, handle: handle}).run(ctx)
		},
		"recws before": receiveByRecws,
		"coder before": receiveByCoder,
		"gws before":   receiveByGws,
		"gorilla after": func(ctx context.Context, url string, handle func([]byte)) {
			_ = receive(ctx, url, handle) // the end of the context
		},
		"recws after": func(ctx context.Context, url string, handle func([]byte)) {
			client, err := afterRecws(url, http.Header{"Origin": {"https://example.com"}})
			drain(t, ctx, client, err, handle)
		},
		"coder after": func(ctx context.Context, url string, handle func([]byte)) {
			client, err := afterCoder(url, &coder.DialOptions{})
			drain(t, ctx, client, err, handle)
		},
		"gws after": func(ctx context.Context, url string, handle func([]byte)) {
			client, err := afterGws(url, handle)
			if err != nil {
				t.Error(err)
				return
			}
			_ = client.Run(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := resocktest.NewServer(t)
			ctx, cancel := context.WithCancel(context.Background())
			handled, ended := make(chan string, 10), make(chan struct{})
			go func() {
				defer close(ended)
				receive(ctx, server.URL, func(data []byte) { handled <- string(data) })
			}()
			var conn *resocktest.Conn
			for _, text := range []string{"one", "two"} {
				conn = server.Accept()
				if m, err := conn.Read(); err != nil || string(m.Data) != "register me" {
					t.Errorf("the server got %q, %v", m.Data, err)
				}
				_ = conn.Push(text)
				if got := <-handled; got != text {
					t.Errorf("handled %q, want %q", got, text)
				}
				if text == "one" {
					conn.Drop()
				}
			}
			cancel()
			if name == "recws before" { // its read ends with the connection only
				conn.Drop()
			}
			<-ended
		})
	}
}

// drain runs a client until ctx ends.
func drain(t *testing.T, ctx context.Context, client *resock.Client, err error, handle func([]byte)) {
	if err != nil {
		t.Error(err)
		return
	}
	messages := client.Messages(ctx)
	go client.Run(ctx)
	for m := range messages {
		handle(m.Data)
	}
	<-client.Done()
}

func TestPolite(t *testing.T) {
	server := resocktest.NewServer(t)
	client, err := polite(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	go client.Run(context.Background())
	conn := server.Accept()
	began := time.Now()
	for range 15 {
		if err := client.Send(context.Background(), resock.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took < 900*time.Millisecond {
		t.Errorf("15 messages took %v: ten at once, and five a second, take 1 s", took)
	}
	for range 15 {
		if _, err := conn.Read(); err != nil {
			t.Fatal(err)
		}
	}
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
}

func TestFinish(t *testing.T) {
	server := resocktest.NewServer(t)
	client, err := resock.New(server.URL, resock.WithRetryPolicy(finish), resock.WithBackoff(time.Millisecond, time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- client.Run(context.Background()) }()
	_ = server.Accept().Close(resock.StatusGoingAway, "")
	_ = server.Accept().Close(resock.StatusNormalClosure, "")
	if err := <-ended; err != nil {
		t.Errorf("Run returned %v", err)
	}
}
