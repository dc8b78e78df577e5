// Quickstart shows what resock is for, in about ten seconds and without any setup: a
// program subscribes once, and keeps receiving pushes although the connection is
// dropped and the server restarts. A message that is sent while the server is down
// arrives once it is up again.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/resock/resock"
)

func main() {
	server := startServer()
	client, err := resock.New("ws://"+server.address,
		resock.WithHeartbeat(700*time.Millisecond, time.Second),
		resock.WithBackoff(200*time.Millisecond, time.Second),
		resock.WithStableAfter(time.Second),
	)
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	events := client.Subscribe(ctx) // register once, before Run
	go client.Run(ctx)              // its error stays readable in client.Err()
	go director(server, client)

	for event := range events { // ends when the client is closed for good
		switch e := event.(type) {
		case resock.OpenEvent:
			say("client", "open: session %d, attempt %d", e.Session, e.Attempt)
		case resock.MessageEvent:
			say("client", "message: %s", e.Data)
		case resock.FailEvent:
			say("client", "fail: %v; next: %v in %v", e.Err, e.Next, e.RetryIn.Round(time.Millisecond))
		case resock.CloseEvent:
			say("client", "close: %d %q, clean: %t", e.Code, e.Reason, e.Clean)
		}
	}
	stats := client.Stats()
	say("client", "done: %d sessions, %d messages, last heartbeat round trip %v, error: %v",
		stats.Opens, stats.MessagesIn, stats.RoundTrip.Round(time.Microsecond), client.Err())
	server.stop()
}

// director tells the story: it drops the connection and restarts the server.
func director(server *server, client *resock.Client) {
	time.Sleep(2500 * time.Millisecond)
	say("story", "the connection is dropped")
	server.drop()

	time.Sleep(2 * time.Second)
	say("story", "the server stops")
	server.stop()

	time.Sleep(300 * time.Millisecond)
	say("story", "a message is sent while the server is down")
	go func() {
		err := client.Send(context.Background(), resock.MessageText, []byte("sent while you were down"))
		say("client", "the message was sent, error: %v", err)
	}()

	time.Sleep(1500 * time.Millisecond)
	say("story", "the server is up again")
	server.start()

	if err := client.WaitOpen(context.Background()); err != nil {
		say("client", "%v", err)
	}
	time.Sleep(1500 * time.Millisecond)
	say("story", "the application closes the client")
	_ = client.Close(resock.StatusNormalClosure, "thank you")
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-6s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
