// Package grammar checks, for tests, that a stream of events follows the grammar that
// resock promises:
//
//	stream  = { attempt } end-of-channel
//	attempt = Fail                       never opened (Session 0)
//	        | Open { Message } Fail
//	        | Open { Message } Close
package grammar

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"time"

	"github.com/resock/resock"
)

// Checker checks one stream. Its zero value is for a subscriber that subscribes before
// the first attempt and reads to the end. It reports only the first violation, since
// others may follow from it.
type Checker struct {
	// Late allows the first session to have any number, for a subscriber that
	// subscribes later.
	Late bool

	// Cut allows the stream to end inside a session, because the context of the
	// subscriber is canceled or the close timeout expires.
	Cut bool

	// Behind allows whole attempts to be missing, for a subscriber that does not keep
	// up with the events other than messages.
	Behind bool

	events  int
	session uint64 // the last one opened
	open    bool
	closed  bool // StateClosed was announced
	last    time.Time
	broken  bool // a violation was reported
}

// Event checks the next event and returns its violation, if any.
func (c *Checker) Event(event resock.Event) error {
	if c.broken {
		return nil
	}
	c.events++
	if err := c.check(event); err != nil {
		c.broken = true
		return fmt.Errorf("event %d, %s: %w", c.events, describe(event), err)
	}
	return nil
}

// End checks the end of the stream, which may come at any time outside of a session,
// with or without an event that announces it.
func (c *Checker) End() error {
	if c.open && !c.Cut && !c.broken {
		return fmt.Errorf("the channel closed after %d events inside session %d", c.events, c.session)
	}
	return nil
}

func (c *Checker) check(event resock.Event) error {
	if c.closed {
		return errors.New("came after Next == StateClosed")
	}
	switch e := event.(type) {
	case resock.OpenEvent:
		return c.opened(e)
	case resock.MessageEvent:
		return c.message(e)
	case resock.FailEvent:
		switch {
		case e.Err == nil:
			return errors.New("has no error")
		case e.Phase < resock.PhaseEndpoint || e.Phase > resock.PhaseProtocol:
			return errors.New("has no phase")
		case e.Attempt < 1:
			return errors.New("attempts count from 1")
		case e.Session == 0 && c.open:
			return fmt.Errorf("an attempt failed inside session %d", c.session)
		case e.Session != 0:
			if err := c.ended(e.Session); err != nil {
				return err
			}
		}
		return c.next(e.Time, e.Took, e.Next, e.RetryIn, e.Rule)
	case resock.CloseEvent:
		if err := c.ended(e.Session); err != nil {
			return err
		}
		return c.next(e.Time, e.Took, e.Next, e.RetryIn, e.Rule)
	}
	return errors.New("is not one of the four event types")
}

func (c *Checker) opened(e resock.OpenEvent) error {
	first := c.session == 0
	switch {
	case c.open:
		return fmt.Errorf("session %d is still open", c.session)
	case e.Session == 0:
		return errors.New("sessions count from 1")
	case e.Session <= c.session || e.Session != c.session+1 && !c.Behind && !(first && c.Late):
		return fmt.Errorf("session %d must follow", c.session+1)
	case e.Attempt < 1:
		return errors.New("attempts count from 1")
	case e.Session == 1 && e.Downtime != 0:
		return errors.New("downtime before the first session")
	}
	if first && c.Late {
		c.last = time.Time{} // the Open that a late subscriber receives is in the past
	}
	c.open, c.session = true, e.Session
	return c.at(e.Time, e.Took)
}

func (c *Checker) message(e resock.MessageEvent) error {
	switch {
	case !c.open:
		return errors.New("outside of a session")
	case e.Session != c.session:
		return fmt.Errorf("inside session %d", c.session)
	case e.Type != resock.MessageText && e.Type != resock.MessageBinary:
		return errors.New("neither text nor binary")
	case len(e.Data) != cap(e.Data):
		return fmt.Errorf("data has len %d and cap %d", len(e.Data), cap(e.Data))
	}
	return nil
}

// ended checks an event that ends a session.
func (c *Checker) ended(session uint64) error {
	switch {
	case !c.open:
		return errors.New("ends a session, but none is open")
	case session != c.session:
		return fmt.Errorf("ends a session other than the open one, %d", c.session)
	}
	c.open = false
	return nil
}

// next checks the state that an event announces, which rule decided on it, and when the
// event happened.
func (c *Checker) next(at time.Time, took time.Duration, next resock.State, retryIn time.Duration, rule string) error {
	switch next {
	case resock.StateWaiting:
		switch {
		case retryIn < 0:
			return errors.New("RetryIn is negative")
		case rule == "":
			return errors.New("no rule decided on the wait")
		}
	case resock.StateConnecting, resock.StateOffline, resock.StateSuspended, resock.StateClosed:
		switch {
		case retryIn != 0:
			return errors.New("RetryIn is set, but Next is not StateWaiting")
		case next == resock.StateSuspended && rule != "":
			return fmt.Errorf("rule %q, but the application decided", rule)
		}
		c.closed = next == resock.StateClosed
	default:
		return fmt.Errorf("announces state %v", next)
	}
	return c.at(at, took)
}

// at checks that time does not run backwards.
func (c *Checker) at(at time.Time, took time.Duration) error {
	switch {
	case at.IsZero():
		return errors.New("has no time")
	case at.Before(c.last):
		return fmt.Errorf("is %v older than the event before it", c.last.Sub(at))
	case took < 0:
		return fmt.Errorf("took %v", took)
	}
	c.last = at
	return nil
}

func describe(event resock.Event) string {
	switch e := event.(type) {
	case resock.OpenEvent:
		return fmt.Sprintf("Open(session %d, attempt %d)", e.Session, e.Attempt)
	case resock.MessageEvent:
		return fmt.Sprintf("Message(session %d, %v, %d bytes)", e.Session, e.Type, len(e.Data))
	case resock.FailEvent:
		return fmt.Sprintf("Fail(session %d, attempt %d, phase %v, %v, next %v, retry in %v, rule %q)",
			e.Session, e.Attempt, e.Phase, e.Err, e.Next, e.RetryIn, e.Rule)
	case resock.CloseEvent:
		return fmt.Sprintf("Close(session %d, code %d %q, next %v, retry in %v, rule %q)",
			e.Session, e.Code, e.Reason, e.Next, e.RetryIn, e.Rule)
	}
	return fmt.Sprintf("%T", event)
}

// Tee subscribes to client for the duration of a test, checks the events and passes
// them on. It reports violations as errors of t. When the test ends, Tee closes the
// client, and checks the events that the test has not received, too.
//
// Tee receives one event ahead of the test. A test for which that matters uses
// [Checker.All] with a subscription of its own.
func Tee(t testing.TB, client *resock.Client, opts ...resock.SubscribeOption) <-chan resock.Event {
	return new(Checker).Tee(context.Background(), t, client, opts...)
}

// Tee is like the function [Tee], with c as the checker and ctx as the context of the
// subscription.
func (c *Checker) Tee(ctx context.Context, t testing.TB, client *resock.Client, opts ...resock.SubscribeOption) <-chan resock.Event {
	in := client.Subscribe(ctx, opts...)
	out, over := make(chan resock.Event), make(chan struct{})
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(out)
		for event := range c.All(t, in) {
			select {
			case out <- event:
			case <-over: // nobody receives any more, but the rest is checked
			}
		}
	})
	t.Cleanup(func() {
		close(over)
		_ = client.Close(resock.StatusNormalClosure, "")
		reader.Wait()
	})
	return out
}

// All returns an iterator over the events of a subscription, each of which it receives
// only when it is asked for. It reports violations as errors of t.
func (c *Checker) All(t testing.TB, in <-chan resock.Event) iter.Seq[resock.Event] {
	return func(yield func(resock.Event) bool) {
		for event := range in {
			c.report(t, c.Event(event))
			if !yield(event) {
				return
			}
		}
		c.report(t, c.End())
	}
}

func (c *Checker) report(t testing.TB, err error) {
	if err != nil {
		t.Errorf("event grammar: %v", err)
	}
}
