// Quickstart shows the main job of resock in a few seconds, without any set-up:
// a program registers once, and pushes keep coming although the line is dropped
// and the server restarts. A message that is sent while the server is away
// arrives when it is back.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/resock/resock"
)

func main() {
	log.SetFlags(0)
	log.SetOutput(os.Stdout)
	log.SetPrefix("")
	started := time.Now()
	say := func(who, format string, args ...any) {
		log.Printf("%5.2fs  %-6s  %s", time.Since(started).Seconds(), who, fmt.Sprintf(format, args...))
	}

	server := startServer(say)
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
	go director(server, client, say)

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

// director makes things happen to the line.
func director(server *server, client *resock.Client, say func(who, format string, args ...any)) {
	pause := func(d time.Duration) { time.Sleep(d) }

	pause(2500 * time.Millisecond)
	say("story", "the line drops")
	server.drop()

	pause(2 * time.Second)
	say("story", "the server stops")
	server.stop()

	pause(300 * time.Millisecond)
	say("story", "a message is sent while the server is away")
	go func() {
		err := client.Send(context.Background(), resock.MessageText, []byte("written while you were away"))
		say("client", "the message was sent, error: %v", err)
	}()

	pause(1500 * time.Millisecond)
	say("story", "the server is back")
	server.start()

	if err := client.WaitOpen(context.Background()); err != nil {
		say("client", "%v", err)
	}
	pause(1500 * time.Millisecond)
	say("story", "the application has seen enough")
	_ = client.Close(resock.StatusNormalClosure, "thank you")
}
