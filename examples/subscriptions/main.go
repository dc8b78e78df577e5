// Subscriptions shows a feed whose topics are added and removed at run time, with and
// without a connection, and asked for again on every new one: each exactly once, even if
// it is added at the moment in which the connection is replaced. The server is part of the
// program.
//
//	go run ./examples/subscriptions
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/resock/resock"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	server := startServer()
	defer func() { server.stop() }()
	feed, err := newFeed("ws://"+server.address, resock.WithBackoff(100*time.Millisecond, time.Second))
	if err != nil {
		return err
	}
	go show(feed.client.Messages(ctx))
	go feed.client.Run(ctx) // its error stays readable in client.Err()

	if err := errors.Join(change(ctx, feed, server), replace(ctx, feed, server)); err != nil {
		return err
	}
	say("story", "on each of %d connections the server was asked once for each topic", feed.client.Stats().Opens)
	return feed.client.Shutdown(ctx)
}

// show shows what comes, until the client is closed.
func show(messages iter.Seq[resock.MessageEvent]) {
	for m := range messages {
		say("client", "%s", m.Data)
	}
}

// change changes the topics in the states of a connection: before it, while it is there,
// while the server is away, and at the next one.
func change(ctx context.Context, feed *feed, server *server) error {
	say("story", "two topics")
	err := errors.Join(feed.add("gold"), feed.add("oil"), agree(ctx, feed, server))
	time.Sleep(1200 * time.Millisecond)

	say("story", "another one")
	err = errors.Join(err, feed.add("wheat"), agree(ctx, feed, server))
	time.Sleep(1200 * time.Millisecond)

	say("story", "the server stops; meanwhile copper comes, and oil goes")
	server.stop()
	err = errors.Join(err, feed.add("copper"), feed.remove("oil"))
	time.Sleep(time.Second)
	say("story", "the server is up again")
	server.start()
	return errors.Join(err, agree(ctx, feed, server))
}

// replace replaces the connection again and again, and meanwhile adds topics and removes
// them, at any moment of it.
func replace(ctx context.Context, feed *feed, server *server) error {
	time.Sleep(1200 * time.Millisecond)
	say("story", "topics come and go while the connection is replaced")
	for i := range 12 {
		do := feed.add
		if i%2 == 1 {
			do = feed.remove
		}
		feed.client.Reconnect()
		for _, topic := range []string{"iron", "lead", "tin", "zinc"} {
			time.Sleep(rand.N(60 * time.Millisecond))
			if err := do(topic); err != nil {
				return err
			}
		}
		if err := agree(ctx, feed, server); err != nil {
			return err
		}
	}
	return nil
}

// agree fails unless the server comes to send exactly the topics of the feed, and was asked
// for each of them once.
func agree(ctx context.Context, feed *feed, server *server) error {
	if err := feed.client.WaitOpen(ctx); err != nil {
		return err
	}
	if err := feed.client.Flush(ctx); err != nil {
		return err
	}
	topics, faults := server.subscribed()
	if want := feed.sorted(); !slices.Equal(topics, want) || len(faults) > 0 {
		return fmt.Errorf("the server sends %q instead of %q, after %q", topics, want, faults)
	}
	return nil
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-6s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
