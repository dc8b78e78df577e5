// Demo starts three relays and two workers as processes of their own, kills and stops them
// at random, cuts the feed, and checks that the workers have each number of the feed. It
// ends by itself, and fails if one is missing:
//
//	go -C relay run ./cmd/demo
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
)

func main() {
	lasting := flag.Duration("for", 20*time.Second, "how long processes are killed")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	switch args := flag.Args(); {
	case len(args) == 0:
		err = demonstrate(ctx, *lasting)
	case args[0] == "relay":
		err = runRelay(ctx, args[1], args[2])
	case args[0] == "worker":
		err = runWorker(ctx, args[1])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

var began = time.Now()

// say prints a line with the time.
func say(format string, args ...any) {
	fmt.Printf("%6.2fs  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}

// perSecond is how many messages the feed has.
const perSecond = 1000

func demonstrate(ctx context.Context, lasting time.Duration) error {
	dir, err := os.MkdirTemp("", "relay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	nats, err := server.Start(server.Config{Dir: dir, Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer nats.Close()
	upstream := feed.New("demo")
	url, err := serve(upstream)
	if err != nil {
		return err
	}
	c := newCast()
	defer c.end()
	for n := range 3 {
		c.add(fmt.Sprintf("relay %d", n+1), "relay", nats.URL(), url)
	}
	for n := range 2 {
		c.add(fmt.Sprintf("worker %d", n+1), "worker", nats.URL())
	}
	return play(ctx, c, upstream, lasting)
}

// serve serves the feed on a free port.
func serve(f *feed.Server) (url string, err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = http.Serve(listener, f) }()
	return "ws://" + listener.Addr().String(), nil
}

// play lets the feed run and kills at random, and then waits for the last number.
func play(ctx context.Context, c *cast, upstream *feed.Server, lasting time.Duration) error {
	say("three relays, two workers, %d messages a second", perSecond)
	if err := waitFor(ctx, 20*time.Second, func() bool { return upstream.Sessions() > 0 }); err != nil {
		return fmt.Errorf("no relay reads the feed: %w", err)
	}
	pushes, faults := time.NewTicker(time.Second/100), time.NewTicker(time.Second)
	defer pushes.Stop()
	defer faults.Stop()
	for end := time.After(lasting); end != nil; {
		select {
		case <-pushes.C:
			upstream.Push(perSecond / 100)
		case <-faults.C:
			fault(c, upstream)
		case <-end:
			end = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	say("no more faults: the feed ends at %d", upstream.Last())
	err := waitFor(ctx, 30*time.Second, func() bool { return c.highest() == upstream.Last() && c.missing() == 0 })
	say("the workers have %d numbers, %d of them more than once; missing: %d", c.numbers(), c.repeated(), c.missing())
	if err != nil {
		return errors.New("the workers' numbers have a hole")
	}
	return nil
}

// fault does one of the things that happen.
func fault(c *cast, upstream *feed.Server) {
	switch rand.IntN(6) {
	case 0, 1:
		c.kill("leader", c.leader())
	case 2:
		c.freeze(c.leader(), 2*ttl)
	case 3:
		c.kill("worker", fmt.Sprintf("worker %d", 1+rand.IntN(2)))
	default:
		say("the feed is cut")
		upstream.Cut()
	}
}

// waitFor waits until a condition holds.
func waitFor(ctx context.Context, limit time.Duration, holds func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	ticks := time.NewTicker(20 * time.Millisecond)
	defer ticks.Stop()
	for !holds() {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
