//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
)

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

// drain waits until the last number of the feed went to the workers, as long as there is any
// progress. What the feed sends while no session is open comes only with resume, so another
// number is sent now and then.
func (s *show) drain(ctx context.Context) error {
	at := uint64(0)
	for idle := 0; idle < 10; idle++ {
		s.upstream.Push(1)
		last := s.upstream.Last()
		trying, cancel := context.WithTimeout(ctx, patience/10)
		err := waitFor(trying, func() bool { return s.cast.handledUpTo() == last })
		cancel()
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if n := s.cast.handledUpTo(); n > at {
			at, idle = n, 0
		}
	}
	return fmt.Errorf("the feed ended at %d, and %d is the last number that a worker handled", s.upstream.Last(), at)
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
