package resock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

func Example() {
	ctx := context.Background()
	client, err := resock.New("wss://example.com/push")
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(ctx) // register once, before Run
	go client.Run(ctx)              // its error stays readable in client.Err()
	for event := range events {     // ends when the client is closed for good, or ctx ends
		switch e := event.(type) {
		case resock.OpenEvent:
			log.Printf("open, session %d", e.Session)
		case resock.MessageEvent:
			log.Printf("push: %s", e.Data)
		case resock.FailEvent:
			log.Printf("fail: %v, next try in %v", e.Err, e.RetryIn)
		case resock.CloseEvent:
			log.Printf("close: %d %s", e.Code, e.Reason)
		}
	}
}

// The program in the README is the Example, which compiles.
func TestREADME(t *testing.T) {
	body := func(file, function string) string {
		t.Helper()
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, found := strings.Cut(string(text), "\nfunc "+function+"() {\n")
		if !found {
			t.Fatalf("%s has no func %s", file, function)
		}
		body, _, _ := strings.Cut(rest, "\n}\n")
		return body
	}
	if readme, example := body("README.md", "main"), body("example_test.go", "Example"); readme != example {
		t.Errorf("the README's program:\n%s\nis not the Example:\n%s", readme, example)
	}
}

// echoServer echoes every message. If token is not empty, it demands it of each client.
func echoServer(token string) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if token != "" && r.Header.Get("Authorization") != "Bearer "+token {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		for {
			typ, data, err := conn.Read(r.Context())
			if err != nil || conn.Write(r.Context(), typ, data) != nil {
				return
			}
		}
	}))
}

// serverOf returns a server that calls serve for each connection.
func serverOf(serve func(ctx context.Context, conn *websocket.Conn)) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		serve(r.Context(), conn)
	}))
}

func webSocketURL(server *httptest.Server) string {
	return "ws" + strings.TrimPrefix(server.URL, "http")
}

func ExampleClient_Send() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)

	// Not open yet: Send waits, for as long as its context allows.
	sendCtx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	switch err := client.Send(sendCtx, resock.MessageText, []byte("hello")); {
	case errors.Is(err, resock.ErrNotSent):
		fmt.Println("not sent, sending it again is safe")
	case errors.Is(err, resock.ErrMaybeSent):
		fmt.Println("perhaps sent, ask the server")
	}
	for event := range events {
		if message, ok := event.(resock.MessageEvent); ok {
			fmt.Printf("%s\n", message.Data)
			_ = client.Close(resock.StatusNormalClosure, "")
		}
	}
	// Output: hello
}

func ExampleClient_Enqueue() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	// Enqueue returns at once, also while the client is down.
	outcome := make(chan error, 1)
	err = client.Enqueue(resock.MessageText, []byte("later"),
		resock.WithTTL(time.Minute),
		resock.WithResult(func(err error) { outcome <- err }))
	if err != nil {
		log.Fatal(err) // the queue is full, or the client is closed
	}
	go client.Run(context.Background())
	fmt.Println("sent, error:", <-outcome)
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	// Output: sent, error: <nil>
}

func ExampleClient_Close() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			_ = client.Close(resock.StatusNormalClosure, "goodbye") // only signals
		case resock.CloseEvent:
			fmt.Println(int(e.Code), e.Clean, e.Next)
		}
	}
	<-client.Done()
	fmt.Println("error:", client.Err())
	// Output:
	// 1000 true closed
	// error: <nil>
}

// Run and the program's senders share a context. When the work is done, Shutdown sends
// what is left, and Run returns.
func ExampleClient_Shutdown() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var group sync.WaitGroup
	group.Go(func() { cancel(client.Run(ctx)) }) // when Run returns, everything else ends, too
	group.Go(func() {
		if err := client.WaitOpen(ctx); err != nil {
			return
		}
		for _, reading := range []string{"18.2", "18.4", "18.3"} {
			if err := client.Enqueue(resock.MessageText, []byte(reading)); err != nil {
				log.Print(err) // the queue is full
			}
		}
		patience, done := context.WithTimeout(context.Background(), 10*time.Second)
		defer done()
		if err := client.Shutdown(patience); err != nil {
			log.Print(err)                                       // not everything was sent in time
			_ = client.Close(resock.StatusNormalClosure, "time") // so close without waiting
		}
	})
	group.Wait()
	fmt.Println("sent:", client.Stats().MessagesOut, "error:", client.Err())
	// Output: sent: 3 error: <nil>
}

// Flush waits until the server has read everything sent before.
func ExampleClient_Flush() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	go client.Run(context.Background())
	if err := client.Enqueue(resock.MessageText, []byte("reading")); err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	switch err := client.Flush(ctx); {
	case err == nil:
		fmt.Println("received")
	case errors.Is(err, resock.ErrMaybeSent):
		fmt.Println("perhaps received, the session was lost")
	default:
		fmt.Println("not confirmed in time:", err)
	}
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	// Output: received
}

// An acknowledgement belongs to the connection on which the message came: on another one
// the server would misunderstand it, and send the message again.
func ExampleWithSession() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)
	go func() { _ = client.Send(ctx, resock.MessageText, []byte("job 7")) }()
	for event := range events {
		message, ok := event.(resock.MessageEvent)
		if !ok {
			continue
		}
		if bytes.HasPrefix(message.Data, []byte("ack")) { // this server echoes everything
			fmt.Printf("the server got %q\n", message.Data)
			_ = client.Close(resock.StatusNormalClosure, "")
			continue
		}
		ack := append([]byte("ack "), message.Data...)
		switch err := client.Enqueue(resock.MessageText, ack, resock.WithSession(message.Session)); {
		case errors.Is(err, resock.ErrSessionOver):
			fmt.Println("too late: the server sends the job again")
		case err != nil:
			log.Print(err)
		}
	}
	// Output: the server got "ack job 7"
}

// The server checks by a message of its own whether the client is alive. A filter
// answers it, and no subscriber sees it.
func ExampleWithFilter() {
	server := serverOf(func(ctx context.Context, conn *websocket.Conn) {
		_ = conn.Write(ctx, websocket.MessageText, []byte("ping"))
		_, answer, _ := conn.Read(ctx)
		_ = conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "news, after a %s", answer))
		_, _, _ = conn.Read(ctx) // until the client leaves
	})
	defer server.Close()
	var client *resock.Client
	client, err := resock.New(webSocketURL(server),
		resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool {
			isPing := string(m.Data) == "ping"
			if isPing {
				_ = client.Enqueue(resock.MessageText, []byte("pong"), resock.WithSession(m.Session))
			}
			return !isPing
		}))
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		if message, ok := event.(resock.MessageEvent); ok {
			fmt.Printf("%s\n", message.Data)
			_ = client.Close(resock.StatusNormalClosure, "")
		}
	}
	// Output: news, after a pong
}

func ExampleWithOverflow() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	// A dashboard wants the newest state and may miss what came before.
	dashboard := client.Subscribe(ctx, resock.WithBuffer(16), resock.WithOverflow(resock.OverflowDropOldest))
	// A monitor watches the connection only.
	monitor := client.Subscribe(ctx, resock.WithoutMessages())
	go client.Run(ctx)
	go func() {
		_ = client.Send(ctx, resock.MessageText, []byte("state"))
	}()
	for event := range dashboard {
		if message, ok := event.(resock.MessageEvent); ok {
			fmt.Printf("%s, %d lost before it\n", message.Data, message.Lost)
			_ = client.Close(resock.StatusNormalClosure, "")
		}
	}
	for event := range monitor {
		fmt.Printf("%T\n", event)
	}
	// Output:
	// state, 0 lost before it
	// resock.OpenEvent
	// resock.CloseEvent
}

// A token that expires is fetched anew for each attempt.
func ExampleWithEndpoint_token() {
	server := echoServer("fresh")
	defer server.Close()
	tokens := []string{"stale", "fresh"}
	client, err := resock.New(webSocketURL(server),
		resock.WithBackoff(time.Millisecond, 10*time.Millisecond),
		resock.WithEndpoint(func(ctx context.Context, a resock.Attempt) (resock.Endpoint, error) {
			token := tokens[min(a.N, len(tokens))-1] // ask the token service here
			return resock.Endpoint{Header: http.Header{"Authorization": {"Bearer " + token}}}, nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		switch e := event.(type) {
		case resock.FailEvent:
			var refused *resock.DialError
			if errors.As(e.Err, &refused) {
				fmt.Println("refused:", refused.Status)
			}
		case resock.OpenEvent:
			fmt.Println("open, attempt", e.Attempt)
			_ = client.Close(resock.StatusNormalClosure, "")
		}
	}
	// Output:
	// refused: 401
	// open, attempt 2
}

// Each failed attempt moves on to the next of several servers.
func ExampleWithEndpoint_failover() {
	server := echoServer("")
	defer server.Close()
	urls := []string{"ws://127.0.0.1:1/down", webSocketURL(server)}
	client, err := resock.New("",
		resock.WithBackoff(time.Millisecond, 10*time.Millisecond),
		resock.WithEndpoint(func(ctx context.Context, a resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{URL: urls[(a.N-1)%len(urls)]}, nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	go client.Run(context.Background())
	if err := client.WaitOpen(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println("open after", client.Stats().Fails, "failure")
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	// Output: open after 1 failure
}

// A feed resumes where the last session ended.
func ExampleWithEndpoint_resume() {
	var cursor string // of the last message that was handled; guard it if it is shared
	endpoint := func(ctx context.Context, a resock.Attempt) (resock.Endpoint, error) {
		url := "wss://example.com/feed"
		if a.Session > 0 {
			url += "?after=" + cursor
		}
		return resock.Endpoint{URL: url}, nil
	}
	first, _ := endpoint(context.Background(), resock.Attempt{N: 1})
	cursor = "42"
	second, _ := endpoint(context.Background(), resock.Attempt{N: 1, Session: 1})
	fmt.Println(first.URL)
	fmt.Println(second.URL)

	client, err := resock.New("", resock.WithEndpoint(endpoint))
	fmt.Println(client.State(), err)
	// Output:
	// wss://example.com/feed
	// wss://example.com/feed?after=42
	// idle <nil>
}

// Register on every connection, and wait for the reply.
func ExampleWithOnOpen() {
	server := echoServer("")
	defer server.Close()
	client, err := resock.New(webSocketURL(server),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			if err := s.Send(ctx, resock.MessageText, []byte("register me")); err != nil {
				return err
			}
			_, answer, err := s.Receive(ctx)
			if err != nil {
				return err
			}
			fmt.Printf("answer for session %d: %s\n", s.ID(), answer)
			return nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	go client.Run(context.Background())
	if err := client.WaitOpen(context.Background()); err != nil {
		log.Fatal(err)
	}
	fmt.Println(client.State())
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	// Output:
	// answer for session 1: register me
	// open
}

// Topics are added while the client runs. Every session subscribes to each of them, and
// to none twice.
func ExampleWithOnOpen_topics() {
	server := echoServer("") // the echo serves as the confirmation
	defer server.Close()
	var (
		mu      sync.Mutex
		topics  = []string{"weather"}
		session uint64 // that OnOpen was called for, and has the topics before
	)
	client, err := resock.New(webSocketURL(server),
		resock.WithBackoff(time.Millisecond, 10*time.Millisecond),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			mu.Lock()
			known := slices.Clone(topics)
			session = s.ID()
			mu.Unlock()
			for _, topic := range known {
				if err := s.Send(ctx, resock.MessageText, []byte(topic)); err != nil {
					return err
				}
			}
			return nil
		}))
	if err != nil {
		log.Fatal(err)
	}
	// Enqueue is called under the lock: when OnOpen fails, the next connection has the
	// same number, and has the topic from OnOpen.
	add := func(topic string) {
		mu.Lock()
		defer mu.Unlock()
		topics = append(topics, topic)
		if session == 0 {
			return // the first session gets it from OnOpen
		}
		err := client.Enqueue(resock.MessageText, []byte(topic), resock.WithSession(session))
		if err != nil && !errors.Is(err, resock.ErrSessionOver) { // the next session gets it from OnOpen
			log.Print(err)
		}
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		message, ok := event.(resock.MessageEvent)
		if !ok {
			continue
		}
		topic := string(message.Data)
		fmt.Printf("session %d: %s\n", message.Session, topic)
		switch {
		case message.Session == 1 && topic == "weather":
			add("traffic")
		case message.Session == 1:
			client.Reconnect()
		case topic == "traffic":
			_ = client.Close(resock.StatusNormalClosure, "")
		}
	}
	// Output:
	// session 1: weather
	// session 1: traffic
	// session 2: weather
	// session 2: traffic
}

// A server may push before it replies: messages other than the reply go to the
// subscribers.
func ExampleSession_Unread() {
	server := serverOf(func(ctx context.Context, conn *websocket.Conn) {
		_, _, _ = conn.Read(ctx)
		for _, text := range []string{"news", "registered", "more news"} {
			_ = conn.Write(ctx, websocket.MessageText, []byte(text))
		}
		_, _, _ = conn.Read(ctx) // until the client leaves
	})
	defer server.Close()
	client, err := resock.New(webSocketURL(server),
		resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			if err := s.Send(ctx, resock.MessageText, []byte("register me")); err != nil {
				return err
			}
			for {
				typ, data, err := s.Receive(ctx)
				if err != nil || string(data) == "registered" {
					return err
				}
				s.Unread(typ, data)
			}
		}))
	if err != nil {
		log.Fatal(err)
	}
	events := client.Subscribe(context.Background())
	go client.Run(context.Background())
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			fmt.Println("registered")
		case resock.MessageEvent:
			fmt.Printf("%s\n", e.Data)
			if string(e.Data) == "more news" {
				_ = client.Close(resock.StatusNormalClosure, "")
			}
		}
	}
	// Output:
	// registered
	// news
	// more news
}

// By close code 4001 this server says that it has banned the client.
func ExampleWithRetryPolicy() {
	policy := func(f resock.Failure) resock.Decision {
		if f.Code == 4001 {
			return resock.Decision{Action: resock.ActionStop, Rule: "banned"}
		}
		return resock.DefaultRetryPolicy(f)
	}
	_, err := resock.New("wss://example.com/push", resock.WithRetryPolicy(policy))
	fmt.Println(err, policy(resock.Failure{Code: 4001}).Rule, policy(resock.Failure{Code: 1012}).Rule)
	// Output: <nil> banned server busy
}
