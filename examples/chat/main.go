// Chat shows three members of a chat room who keep their place in it although the server
// restarts. They register by name on every connection, and tell which line they saw last,
// so that nobody misses a line or sees one twice. What one says while the server is away
// arrives once it is back. The server is part of the program.
//
//	go run ./examples/chat
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"slices"
	"time"
)

// goodbye is the line after which everybody leaves.
const goodbye = "That is all for today. Goodbye!"

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// run lets three members talk. It fails unless each of them saw every line once, in the
// same order.
func run(ctx context.Context) error {
	server := startServer()
	defer server.stop()
	var members []*member
	for _, name := range []string{"Ada", "Ben", "Cleo"} {
		m, err := join(ctx, name, server.address)
		if err != nil {
			return err
		}
		members = append(members, m)
	}
	said, err := talk(ctx, server, members)
	if err != nil {
		return err
	}
	for _, m := range members {
		lines, err := m.untilLeft()
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		if len(lines) != said || !slices.Equal(lines, members[0].lines) {
			return fmt.Errorf("%s saw other lines than those %d that were said: %+v", m.name, said, lines)
		}
	}
	say("story", "everybody saw the same %d lines", said)
	return nil
}

// talk tells the story, and returns how many lines were said.
func talk(ctx context.Context, server *server, members []*member) (said int, err error) {
	ada, ben, cleo := members[0], members[1], members[2]
	line := func(m *member, text string) {
		said++
		err = errors.Join(err, m.say(text))
		time.Sleep(700 * time.Millisecond)
	}
	line(ada, "Good morning!")
	line(ben, "Morning, Ada.")
	line(cleo, "Hello, you two.")

	err = errors.Join(err, untilRead(ctx, members))
	say("story", "the server stops")
	server.stop()
	for _, m := range members {
		err = errors.Join(err, m.untilLost(ctx))
	}
	line(ada, "Is anybody there?")
	line(ada, "I keep talking anyway.")
	line(cleo, "So do I.")

	say("story", "the server is up again")
	server.start()
	err = errors.Join(err, untilRead(ctx, members))
	time.Sleep(time.Second)
	line(ben, "I did not miss a word.")
	err = errors.Join(err, untilRead(ctx, members))
	line(cleo, goodbye)
	return said, err
}

// untilRead waits until the server has read everything that was said.
func untilRead(ctx context.Context, members []*member) (err error) {
	for _, m := range members {
		err = errors.Join(err, m.client.Flush(ctx))
	}
	return err
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-6s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
