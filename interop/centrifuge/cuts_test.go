package centrifuge

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

var cuts = flag.Int("resock.cuts", 40, "how many connections TestCuts cuts, in each of its three parts")

// TestCuts publishes 2,000 messages per second and cuts the connection again and again. Each
// publication is delivered once and in order, or is in a gap that names it.
func TestCuts(t *testing.T) {
	for _, test := range []struct {
		name     string
		history  int // how many publications the server keeps, in each channel
		restarts bool
		gaps     []resume.Reason // that there must be
	}{
		{"recovered", 100_000, false, nil},
		{"short history", 4, false, []resume.Reason{resume.CursorLost}},
		{"restarts", 100_000, true, []resume.Reason{resume.NewEpoch}},
	} {
		t.Run(test.name, func(t *testing.T) {
			channels := []string{"a", "b", "c", "d", "e"}
			source := newSource(t, channels, test.history, test.restarts)
			// What was published before the first subscription is not asked for.
			if err := source.publish(7 * len(channels)); err != nil {
				t.Fatal(err)
			}
			follow(t, source).check(t, test.gaps)
		})
	}
}

// follow starts a client, and the source once that is open, and reads until it has seen all.
func follow(t *testing.T, source *source) *reader {
	t.Helper()
	p := newProtocol(t, source.proxy.url(), source.channels, resock.WithBackoff(time.Millisecond, 20*time.Millisecond))
	r := newReader(p, source)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(*cuts)*time.Second)
	defer cancel()
	events, err := p.feed.Follow(ctx, p.client)
	if err != nil {
		t.Fatal(err)
	}
	go p.client.Run(ctx)
	for event := range events {
		if opened(event) {
			source.start(*cuts)
		}
		if err := r.take(event); err != nil {
			t.Fatal(err)
		}
		if r.sawAll() {
			source.running.Wait()
			return r
		}
	}
	t.Fatalf("the end was not delivered: %v", ctx.Err())
	return nil
}

func opened(event resume.Event) bool {
	e, ok := event.(resume.Lifecycle)
	if !ok {
		return false
	}
	_, ok = e.Event.(resock.OpenEvent)
	return ok
}

// TestPings stays on one connection, which the server closes unless its pings are answered.
func TestPings(t *testing.T) {
	server, err := newServer(1, centrifuge.PingPongConfig{PingInterval: 2 * time.Second, PongTimeout: 1900 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.stop(t) })
	p := newProtocol(t, "ws://"+server.address(), []string{"a"})
	go p.client.Run(t.Context())
	for n := range 2 {
		if session := <-p.pings; session != 1 {
			t.Errorf("ping %d came in session %d", n+1, session)
		}
	}
}
