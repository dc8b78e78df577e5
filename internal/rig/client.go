package rig

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resocktest"
)

// Client is a client under test. Its methods fail the test unless the event they
// describe comes next. When the test ends, the client is closed and its guarantees are
// checked.
type Client struct {
	*resock.Client

	// Events delivers the events that no method has received yet.
	Events <-chan resock.Event

	// Outcomes counts the pending outcomes. The test ends only when there are none.
	Outcomes sync.WaitGroup

	t        *testing.T
	log      *Log
	returned chan struct{} // closed when Run has returned
	patience time.Duration // how long to wait for an event
	closeIn  time.Duration // how long closing may take

	mu   sync.Mutex
	seen []resock.Event
}

// QuickOptions returns the options of [Quick], followed by opts.
func QuickOptions(opts ...resock.Option) []resock.Option {
	return append([]resock.Option{
		resock.WithBackoff(20*time.Millisecond, 100*time.Millisecond),
		resock.WithStableAfter(time.Second),
		resock.WithCloseTimeout(time.Second),
	}, opts...)
}

// Quick starts a client whose timeouts are short enough for tests on real sockets.
func Quick(t *testing.T, url string, opts ...resock.Option) *Client {
	t.Helper()
	c := Prepare(t, url, QuickOptions(opts...)...)
	c.patience, c.closeIn = 2*time.Minute, 2*time.Second
	c.Go()
	return c
}

// Reaching is [Quick] for a client that connects to s. Its URL and its headers contain
// [Secret].
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

// Prepare returns a client that [Client.Go] starts.
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

// Go calls Run on a goroutine of its own.
func (c *Client) Go() {
	go func() {
		defer close(c.returned)
		_ = c.Run(context.Background()) // Err returns its error, too
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
			c.t.Fatal("the event channel is closed, want an event")
		}
		c.note(event)
		return event
	case <-time.After(c.patience):
		c.t.Fatalf("no event within %v; state %v, log:\n%s", c.patience, c.State(), c.log)
	}
	return nil
}

// Next returns the next event of c, and fails the test unless it is an E.
func Next[E resock.Event](c *Client) E {
	c.t.Helper()
	event := c.Next()
	e, ok := event.(E)
	if !ok {
		c.t.Fatalf("got %T %+v, want a %T", event, event, e)
	}
	return e
}

// Open returns the next event, which must be an OpenEvent.
func (c *Client) Open() resock.OpenEvent {
	c.t.Helper()
	return Next[resock.OpenEvent](c)
}

// Fail returns the next event, which must be a FailEvent in one of the given phases.
func (c *Client) Fail(phases ...resock.Phase) resock.FailEvent {
	c.t.Helper()
	fail := Next[resock.FailEvent](c)
	if !slices.Contains(phases, fail.Phase) {
		c.t.Fatalf("got %+v, want a FailEvent in phase %v", fail, phases)
	}
	return fail
}

// ProtocolError returns the next event, which must be a FailEvent in phase protocol
// whose [resock.ProtocolError] has the given code.
func (c *Client) ProtocolError(code resock.StatusCode) resock.FailEvent {
	c.t.Helper()
	fail := c.Fail(resock.PhaseProtocol)
	var protocol *resock.ProtocolError
	if !errors.As(fail.Err, &protocol) || protocol.Code != code {
		c.t.Errorf("got %v, want a ProtocolError with code %d", fail.Err, code)
	}
	return fail
}

// DialError returns the error of the next event, which must tell of an attempt that
// failed in the given phase.
func (c *Client) DialError(phase resock.Phase) *resock.DialError {
	c.t.Helper()
	fail := c.Fail(phase)
	var dial *resock.DialError
	if !errors.As(fail.Err, &dial) || dial.Phase != phase || fail.Session != 0 {
		c.t.Fatalf("got %+v, want a DialError in phase %v", fail, phase)
	}
	return dial
}

// Message returns the next event, which must be a MessageEvent with the given text.
func (c *Client) Message(text string) resock.MessageEvent {
	c.t.Helper()
	message := Next[resock.MessageEvent](c)
	if string(message.Data) != text {
		c.t.Fatalf("got %+v, want the message %q", message, text)
	}
	return message
}

// Closed returns the next event, which must be a CloseEvent with the given fields.
func (c *Client) Closed(code resock.StatusCode, reason string, clean bool) resock.CloseEvent {
	c.t.Helper()
	e := Next[resock.CloseEvent](c)
	if e.Code != code || e.Reason != reason || e.Clean != clean {
		c.t.Fatalf("got %+v, want a CloseEvent with code %d, reason %q, clean %t", e, code, reason, clean)
	}
	return e
}

// Quiet checks that no event comes for a virtual time of d.
func (c *Client) Quiet(d time.Duration) {
	c.t.Helper()
	select {
	case event := <-c.Events:
		c.t.Fatalf("got %T %+v, want no event for %v", event, event, d)
	case <-time.After(d):
	}
	synctest.Wait()
}

// Is waits until all goroutines of the bubble are blocked, and checks the state.
func (c *Client) Is(want resock.State) {
	c.t.Helper()
	synctest.Wait()
	if state := c.State(); state != want {
		c.t.Fatalf("the client is %v, want %v", state, want)
	}
}

// Queue enqueues a text message and returns the channel on which its outcome arrives.
// The test does not end before that, and fails if there is a second outcome.
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
