// Package interop tests resock against real peers: Node's ws and Python's websockets
// as servers, nginx and haproxy as proxies before them, squid and tinyproxy as proxies
// before the client. The tests in programs_test.go use resock as
// applications do, against servers in Go that are killed or drop connections; those in
// page_test.go look at the page of package debug in a headless Chromium. All of
// them are processes on the loopback interface, started by the tests.
//
// The script install installs the peers. Tests whose peer is missing are skipped, or
// fail if RESOCK_INTEROP_REQUIRED=1 is set.
package interop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

func TestMain(m *testing.M) {
	if server := os.Getenv(serverVariable); server != "" {
		serve(server) // a test started this process as a server
		return
	}
	before := runtime.NumGoroutine()
	code := m.Run()
	_ = os.RemoveAll(toolFolder)
	if code == 0 && !settles(before) {
		buffer := make([]byte, 1<<20)
		fmt.Fprintf(os.Stderr, "goroutines leaked:\n%s\n", buffer[:runtime.Stack(buffer, true)])
		code = 1
	}
	os.Exit(code)
}

// settles reports whether the number of goroutines falls to before again.
func settles(before int) bool {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(pollEvery) {
		if runtime.NumGoroutine() <= before {
			return true
		}
	}
	return false
}

const (
	patience  = 20 * time.Second      // until a test fails
	pollEvery = 10 * time.Millisecond // where nothing can be waited for
)

// client is a running client whose events are checked against the grammar.
type client struct {
	*resock.Client
	t      *testing.T
	events <-chan resock.Event
}

// newClient returns a client with a short backoff.
func newClient(t *testing.T, url string, opts ...resock.Option) *resock.Client {
	t.Helper()
	opts = append([]resock.Option{resock.WithBackoff(5*time.Millisecond, 100*time.Millisecond)}, opts...)
	client, err := resock.New(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// run runs a client until the end of the test.
func run(t *testing.T, url string, opts ...resock.Option) *client {
	t.Helper()
	inner := newClient(t, url, opts...)
	c := &client{inner, t, grammar.Tee(t, inner)}
	go c.Run(context.Background()) //nolint:errcheck // it stays readable in Err
	t.Cleanup(func() {
		_ = c.Close(resock.StatusNormalClosure, "")
		deadline := time.After(patience)
		for c.events != nil {
			select {
			case _, ok := <-c.events:
				if !ok {
					c.events = nil
				}
			case <-deadline:
				t.Error("the client does not close")
				return
			}
		}
		<-c.Done()
		if err := c.Err(); err != nil {
			t.Errorf("Run returned %v after Close", err)
		}
	})
	return c
}

// next returns the next event, which must be an E.
func next[E resock.Event](c *client) E {
	c.t.Helper()
	event := c.next()
	e, ok := event.(E)
	if !ok {
		c.t.Fatalf("got %T %+v, want %T", event, event, e)
	}
	return e
}

// until returns the next E and skips other events.
func until[E resock.Event](c *client) E {
	c.t.Helper()
	for {
		if e, ok := c.next().(E); ok {
			return e
		}
	}
}

func (c *client) next() resock.Event {
	c.t.Helper()
	select {
	case event, ok := <-c.events:
		if !ok {
			c.t.Fatalf("the events ended; Run returned %v", c.Err())
		}
		return event
	case <-time.After(patience):
		c.t.Fatalf("no event for %v, state %v", patience, c.State())
	}
	return nil
}

func (c *client) send(typ resock.MessageType, data []byte) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Send(ctx, typ, data); err != nil {
		c.t.Fatalf("Send: %v", err)
	}
}

// echo sends a message and expects it back.
func (c *client) echo(typ resock.MessageType, data []byte) {
	c.t.Helper()
	c.send(typ, data)
	got := next[resock.MessageEvent](c)
	if got.Type != typ || string(got.Data) != string(data) {
		c.t.Fatalf("sent a %v of %d bytes, got a %v of %d bytes", typ, len(data), got.Type, len(got.Data))
	}
}

func (c *client) echoText(text string) {
	c.t.Helper()
	c.echo(resock.MessageText, []byte(text))
}

// dialError returns the error of a failed attempt.
func dialError(t *testing.T, e resock.FailEvent) *resock.DialError {
	t.Helper()
	var dial *resock.DialError
	if e.Session != 0 || !errors.As(e.Err, &dial) {
		t.Fatalf("got %+v, want a failed attempt", e)
	}
	return dial
}
