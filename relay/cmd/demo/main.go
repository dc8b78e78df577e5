//go:build unix

// Demo proves what package relay promises. It starts NATS, three relays and two workers as
// processes of their own, kills, stops and restarts them, and cuts the feed, as a plan says
// that is drawn at random. Then it reads the stream from its start and checks that each
// number of the feed is there once and in order, that no old leader wrote after a new one,
// that the workers have each number, and that dead leaders were replaced in time. It ends
// by itself, and fails if anything does not hold:
//
//	go -C relay run ./cmd/demo
//	go -C relay run ./cmd/demo -kills 50 -stops 20 -restarts 20 -cuts 200 -workers 20
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"time"
)

// config is what the flags say.
type config struct {
	counts  counts
	seed    uint64
	every   time.Duration // between two faults, on average
	ttl     time.Duration // of the lease
	limit   time.Duration // of a takeover
	rate    int           // messages a second
	resume  bool          // the relays go on where the stream ends
	standby int           // messages that a relay keeps that reads along
}

// parse returns the configuration, and the arguments behind the flags.
func parse(args []string) (c config, rest []string, err error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.IntVar(&c.counts[killLeader], "kills", 5, "how often the leader is killed")
	flags.IntVar(&c.counts[stopLeader], "stops", 2, "how often the leader is stopped, for longer than its lease")
	flags.IntVar(&c.counts[restartNATS], "restarts", 3, "how often NATS is restarted, by SIGKILL and SIGTERM in turn")
	flags.IntVar(&c.counts[cutFeed], "cuts", 6, "how often the feed is cut")
	flags.IntVar(&c.counts[killWorker], "workers", 2, "how often a worker is killed")
	flags.Uint64Var(&c.seed, "seed", 0, "of the plan; 0 is random")
	flags.DurationVar(&c.every, "every", 500*time.Millisecond, "the pause between two faults, on average")
	flags.DurationVar(&c.ttl, "ttl", time.Second, "how long the lease of a dead leader lasts")
	flags.DurationVar(&c.limit, "limit", 0, "how long a takeover may take; 0 is the lease and a second, as the relay promises")
	flags.IntVar(&c.rate, "rate", 1000, "how many messages the feed has in a second")
	flags.BoolVar(&c.resume, "resume", true, "the relays go on where the stream ends; else each session begins with what is new")
	flags.IntVar(&c.standby, "standby", 0, "how many messages a relay keeps that reads along; 0 is none")
	if err := flags.Parse(args); err != nil {
		return c, nil, err
	}
	if c.seed == 0 {
		c.seed = 1 + rand.Uint64N(1e9)
	}
	if c.limit == 0 {
		c.limit = c.ttl + time.Second
	}
	return c, flags.Args(), c.check()
}

func (c *config) check() error {
	for _, n := range c.counts {
		if n < 0 {
			return errors.New("a number of faults is negative")
		}
	}
	switch {
	case c.every <= 0 || c.rate <= 0:
		return errors.New("-every and -rate must be positive")
	case c.ttl < 500*time.Millisecond || c.limit < 0:
		return errors.New("-ttl must be at least 500ms, and -limit not negative")
	case c.standby < 0 || c.standby > 0 && !c.resume:
		return errors.New("-standby must not be negative, and needs -resume")
	}
	return nil
}

func main() {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(play(role, os.Args[1:]))
	}
	c, _, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(c)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run demonstrates in a new folder, and leaves that if something does not hold.
func run(c config) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	dir, err := os.MkdirTemp("", "relay-demo-")
	if err != nil {
		return err
	}
	if err := demonstrate(ctx, c, dir, os.Stdout); err != nil && ctx.Err() == nil {
		return fmt.Errorf("%w\nthe stream and the logs are in %s", err, dir)
	}
	return errors.Join(context.Cause(ctx), os.RemoveAll(dir))
}
