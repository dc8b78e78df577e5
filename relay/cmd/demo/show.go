//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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

// open starts the processes, and waits until the feed is read.
func (s *show) open(url, dir string) error {
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	s.natsURL = "nats://" + addr
	s.cast.add("nats", "nats", dir, addr)
	s.cast.running.Go(func() {
		if err := s.cast.probe(s.natsURL); err != nil {
			s.cast.cancel(err)
		}
	})
	readers := 1
	if s.standby > 0 {
		readers = relays
	}
	flags := []string{"-ttl", s.ttl.String(), fmt.Sprintf("-resume=%v", s.resume), "-standby", fmt.Sprint(s.standby)}
	for n := range relays {
		s.cast.add(fmt.Sprintf("relay %d", n+1), "relay", slices.Concat(flags, []string{s.natsURL, url})...)
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
			return fmt.Errorf("fault %d of %d (%v): %w", i+1, len(plan), f.kind, err)
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

// waitFor waits until a condition holds.
func waitFor(ctx context.Context, holds func() bool) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v in vain", patience))
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
