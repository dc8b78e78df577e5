package rig

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resocktest"
)

// Client is a client that is checked when the test ends. Its methods fail the test
// if something else happens than they wait for.
type Client struct {
	*resock.Client

	// Events are the events that no method has taken yet.
	Events <-chan resock.Event

	// Outcomes are what the test waits for before it ends.
	Outcomes sync.WaitGroup

	t        *testing.T
	log      *Log
	returned chan struct{} // closed when Run has
	patience time.Duration // for an event
	closeIn  time.Duration // at most

	mu   sync.Mutex
	seen []resock.Event
}

// QuickOptions are those of [Quick], and then opts.
func QuickOptions(opts ...resock.Option) []resock.Option {
	return append([]resock.Option{
		resock.WithBackoff(20*time.Millisecond, 100*time.Millisecond),
		resock.WithStableAfter(time.Second),
		resock.WithCloseTimeout(time.Second),
	}, opts...)
}

// Quick starts a client that is quick enough for real sockets.
func Quick(t *testing.T, url string, opts ...resock.Option) *Client {
	t.Helper()
	c := Prepare(t, url, QuickOptions(opts...)...)
	c.patience, c.closeIn = 2*time.Minute, 2*time.Second
	c.Go()
	return c
}

// Reaching is [Quick] for a client of s, which sends secrets.
func Reaching(t *testing.T, s *resocktest.Server, opts ...resock.Option) *Client {
	t.Helper()
	return Quick(t, s.URL+"/?token="+Secret, append([]resock.Option{Reach(s)}, opts...)...)
}

// Start starts a client with the default options.
func Start(t *testing.T, url string, opts ...resock.Option) *Client {
	t.Helper()
	c := Prepare(t, url, opts...)
	c.Go()
	return c
}

// Prepare is [Start] without [Client.Go].
func Prepare(t *testing.T, url string, opts ...resock.Option) *Client {
	t.Helper()
	log := new(Log)
	logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client, err := resock.New(url, append([]resock.Option{resock.WithLogger(logger)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	return &Client{
		Client: client, Events: grammar.Tee(t, client),
		t: t, log: log, returned: make(chan struct{}),
		patience: time.Hour, closeIn: 6 * time.Second,
	}
}

// Go calls Run, on a goroutine of its own.
func (c *Client) Go() {
	go func() {
		defer close(c.returned)
		_ = c.Run(context.Background()) // see Err
	}()
	c.t.Cleanup(c.end)
}

// Returned returns a channel that is closed when Run has returned.
func (c *Client) Returned() <-chan struct{} { return c.returned }

// Next returns the next event.
func (c *Client) Next() resock.Event {
	c.t.Helper()
	select {
	case event, ok := <-c.Events:
		if !ok {
			c.t.Fatal("the events have ended")
		}
		c.note(event)
		return event
	case <-time.After(c.patience):
		c.t.Fatalf("no event; state %v, log:\n%s", c.State(), c.log)
	}
	return nil
}

// Next returns the next event of c, which must be an E.
func Next[E resock.Event](c *Client) E {
	c.t.Helper()
	event := c.Next()
	e, ok := event.(E)
	if !ok {
		c.t.Fatalf("%T %+v, want a %T", event, event, e)
	}
	return e
}

// Open returns the next event, which must be an OpenEvent.
func (c *Client) Open() resock.OpenEvent {
	c.t.Helper()
	return Next[resock.OpenEvent](c)
}

// Fail returns the next event, which must be a FailEvent in the phase.
func (c *Client) Fail(phase resock.Phase) resock.FailEvent {
	c.t.Helper()
	fail := Next[resock.FailEvent](c)
	if fail.Phase != phase {
		c.t.Fatalf("%+v, want a FailEvent in phase %v", fail, phase)
	}
	return fail
}

// DialError returns why the next attempt fails, in the phase.
func (c *Client) DialError(phase resock.Phase) *resock.DialError {
	c.t.Helper()
	fail := c.Fail(phase)
	var dial *resock.DialError
	if !errors.As(fail.Err, &dial) || dial.Phase != phase || fail.Session != 0 {
		c.t.Fatalf("%+v, want a DialError in phase %v", fail, phase)
	}
	return dial
}

// Message takes the next event, which must be a MessageEvent with the text, and
// returns it.
func (c *Client) Message(text string) resock.MessageEvent {
	c.t.Helper()
	message := Next[resock.MessageEvent](c)
	if string(message.Data) != text {
		c.t.Fatalf("%+v, want the message %q", message, text)
	}
	return message
}

// Closed returns the next event, which must be a CloseEvent that tells this.
func (c *Client) Closed(code resock.StatusCode, reason string, clean bool) resock.CloseEvent {
	c.t.Helper()
	e := Next[resock.CloseEvent](c)
	if e.Code != code || e.Reason != reason || e.Clean != clean {
		c.t.Fatalf("%+v, want a CloseEvent with code %d, reason %q, clean %t", e, code, reason, clean)
	}
	return e
}

// Quiet lets d of virtual time pass, without an event.
func (c *Client) Quiet(d time.Duration) {
	c.t.Helper()
	select {
	case event := <-c.Events:
		c.t.Fatalf("%T %+v, want no event for %v", event, event, d)
	case <-time.After(d):
	}
	synctest.Wait()
}

// Is waits until all is quiet, in virtual time, and checks the state.
func (c *Client) Is(want resock.State) {
	c.t.Helper()
	synctest.Wait()
	if state := c.State(); state != want {
		c.t.Fatalf("state %v, want %v", state, want)
	}
}

// Queue enqueues a text message, and returns its outcome, of which there must be one
// before the test ends.
func (c *Client) Queue(text string) <-chan error {
	c.t.Helper()
	outcome := make(chan error, 2)
	c.Outcomes.Add(1)
	err := c.Enqueue(resock.MessageText, []byte(text), resock.WithResult(func(err error) {
		outcome <- err
		c.Outcomes.Done() // a second call would panic
	}))
	if err != nil {
		c.t.Fatal(err)
	}
	return outcome
}
