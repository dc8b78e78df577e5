package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/resock/resock/relay/internal/feed"
)

// relays is how many there are.
const relays = 3

// patience is how long anything may take that must happen.
const patience = 30 * time.Second

// show is one demonstration.
type show struct {
	config
	tell     *teller
	cast     *cast
	upstream *feed.Server
	natsURL  string
	done     counts
}

// demonstrate starts the processes in a folder, does all faults of a plan, and checks what
// is left.
func demonstrate(ctx context.Context, c config, dir string, to io.Writer) error {
	plan := draw(c)
	log, err := os.Create(filepath.Join(dir, "demo.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s := &show{config: c, upstream: feed.New("demo"), tell: newTeller(to, log, len(plan) > 40)}
	url, stop, err := serve(s.upstream)
	if err != nil {
		return err
	}
	defer stop()
	s.cast = newCast(ctx, dir, s.tell)
	defer s.cast.end()
	s.tell.say("NATS, %d relays, %d workers, %d messages a second; seed %d", relays, workers, c.rate, c.seed)
	if err := s.open(url, filepath.Join(dir, "nats")); err != nil {
		return err
	}
	err = s.perform(s.cast.ctx, plan)
	s.tell.say("done: %v", s.done)
	if err != nil {
		return err
	}
	return s.check(s.cast.ctx)
}

// serve serves the feed on a free port.
func serve(f *feed.Server) (url string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{Handler: f}
	go func() { _ = server.Serve(listener) }()
	return "ws://" + listener.Addr().String(), func() { _ = server.Close(); f.Cut() }, nil
}

// freeAddress returns an address where nobody listens. No connection gets its port while
// NATS is down: systems take those above 32767 for connections.
func freeAddress() (string, error) {
	var err error
	for range 100 {
		var listener net.Listener
		if listener, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))); err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", err
}

// open starts the processes, and waits until the feed is read.
func (s *show) open(url, dir string) error {
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	s.natsURL = "nats://" + addr
	s.cast.add("nats", "nats", dir, addr)
	readers := 1
	if s.standby > 0 {
		readers = relays
	}
	flags := []string{"-ttl", s.ttl.String(), fmt.Sprintf("-resume=%v", s.resume), "-standby", fmt.Sprint(s.standby)}
	for n := range relays {
		s.cast.add(fmt.Sprintf("relay %d", n+1), "relay", append(flags, s.natsURL, url)...)
	}
	for n := range workers {
		s.cast.add(fmt.Sprintf("worker %d", n+1), "worker", s.natsURL)
	}
	if err := waitFor(s.cast.ctx, func() bool { return s.cast.led() && s.upstream.Open() >= readers }); err != nil {
		return fmt.Errorf("no relay reads the feed: %w", err)
	}
	return nil
}

// perform does the faults while the feed goes on, and waits until all is calm again.
func (s *show) perform(ctx context.Context, plan []fault) error {
	stop := s.pump(ctx)
	defer stop()
	reported := time.Now()
	for i, f := range plan {
		if err := s.do(ctx, f); err != nil {
			return fmt.Errorf("fault %d of %d, %v: what it hits was not there: %w", i+1, len(plan), f.kind, err)
		}
		if s.tell.brief && time.Since(reported) >= 10*time.Second {
			reported = time.Now()
			s.tell.say("%d of %d faults, the feed is at %d, %s", i+1, len(plan), s.upstream.Last(), s.cast.state())
		}
	}
	if err := waitFor(ctx, s.cast.calm); err != nil {
		return fmt.Errorf("no relay leads after the last fault: %w", err)
	}
	return nil
}

// do waits until a fault is due and what it hits is there, and does it.
func (s *show) do(ctx context.Context, f fault) error {
	if f.led {
		if err := waitFor(ctx, s.cast.led); err != nil {
			return err
		}
	}
	select {
	case <-time.After(f.after):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := waitFor(ctx, func() bool { return s.try(f) }); err != nil {
		return err
	}
	s.done[f.kind]++
	return nil
}

// pump lets the feed go on until it is stopped.
func (s *show) pump(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		began := time.Now()
		ticks := time.NewTicker(10 * time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				due := uint64(time.Since(began).Seconds() * float64(s.rate))
				s.upstream.Push(due - min(due, s.upstream.Last()))
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}

// try does a fault, if what it hits is there.
func (s *show) try(f fault) bool {
	switch f.kind {
	case killLeader:
		return s.cast.killLeader()
	case stopLeader:
		return s.cast.stopLeader(2 * s.ttl)
	case restartNATS:
		return s.cast.restartNATS(f.signal, f.down)
	case killWorker:
		return s.cast.killWorker(fmt.Sprintf("worker %d", f.worker))
	}
	if !s.cast.led() || s.upstream.Open() == 0 {
		return false
	}
	s.tell.detail("the feed is cut")
	s.upstream.Cut()
	return true
}

// check checks the stream, the workers and the takeovers, and tells of all before it returns
// an error.
func (s *show) check(ctx context.Context) error {
	return errors.Join(s.drain(ctx), s.checkAll(ctx))
}

func (s *show) checkAll(ctx context.Context) error {
	c := checker{resume: s.resume}
	if err := c.read(ctx, s.natsURL); err != nil {
		return err
	}
	s.tell.say("the stream: %d of %d numbers, %d terms; wrong: %d", len(c.numbers), s.upstream.Last(), len(c.begins), c.faults.count)
	if !s.resume {
		s.tell.say("%d holes, where %d numbers are missing; %d records of gaps", c.holes, c.missing, c.gaps)
	}
	strikes, outages := s.cast.struckAndDown()
	t := measure(strikes, c.begins, outages, s.config)
	s.tell.say("%v", t)
	return errors.Join(c.faults.err(), t.err(), s.checkWorkers(ctx, c.numbers))
}

// drain waits until the last number of the feed went to the workers. What the feed sends
// while no session is open comes only with resume, so another number is sent now and then.
func (s *show) drain(ctx context.Context) error {
	for range 10 {
		s.upstream.Push(1)
		last := s.upstream.Last()
		trying, cancel := context.WithTimeout(ctx, patience/10)
		err := waitFor(trying, func() bool { return s.cast.handledUpTo() == last })
		cancel()
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return fmt.Errorf("the feed ended at %d, and %d is the last number that a worker handled", s.upstream.Last(), s.cast.handledUpTo())
}

// checkWorkers waits until the workers have handled each number of the stream.
func (s *show) checkWorkers(ctx context.Context, numbers []uint64) error {
	var missing []uint64
	repeated := 0
	err := waitFor(ctx, func() bool {
		missing, repeated = s.cast.unhandled(numbers)
		return len(missing) == 0
	})
	s.tell.say("the workers: %d of %d numbers, %d of them more than once", len(numbers)-len(missing), len(numbers), repeated)
	if err != nil {
		return fmt.Errorf("no worker handled %d of %d numbers, the first %v: %w", len(missing), len(numbers), missing[:min(5, len(missing))], err)
	}
	return nil
}

// waitFor waits until a condition holds.
func waitFor(ctx context.Context, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	for !holds() {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}
