package resock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A server that dictates the heartbeat is obeyed, in its session.
func TestSetHeartbeat(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		sessions := 0
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				if sessions++; sessions == 1 {
					return session.SetHeartbeat(10*time.Second, time.Second)
				}
				return nil
			}))
		events := grammar.Tee(t, client)
		go client.Run(context.Background())
		rig.Await[resock.OpenEvent](t, events)
		time.Sleep(time.Minute)
		first := s.Conns()[0]
		if pings := len(first.Received().Pings); pings < 5 || pings > 8 {
			t.Errorf("%d pings in a minute, one every 10 s is wanted", pings)
		}
		first.IgnorePings()
		if fail := rig.Await[resock.FailEvent](t, events); fail.Phase != resock.PhaseHeartbeat || !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Errorf("%+v", fail)
		}
		rig.Await[resock.OpenEvent](t, events)
		time.Sleep(time.Minute)
		if pings := len(s.Conns()[1].Received().Pings); pings > 0 {
			t.Errorf("%d pings in the next session", pings)
		}
	})
}

func TestSetIdleTimeout(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error { return session.SetIdleTimeout(time.Minute) }))
		events := grammar.Tee(t, client)
		go client.Run(context.Background())
		open := rig.Await[resock.OpenEvent](t, events)
		fail := rig.Await[resock.FailEvent](t, events)
		if idle := fail.Time.Sub(open.Time); idle != time.Minute || !errors.Is(fail.Err, resock.ErrHeartbeat) {
			t.Errorf("%+v, after %v", fail, idle)
		}
	})
}

// What cannot work is refused, by name, and changes nothing.
func TestSetPulseRefuses(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				for _, err := range []error{
					session.SetHeartbeat(-1, time.Second), session.SetHeartbeat(time.Second, -1), session.SetHeartbeat(time.Second, 0),
				} {
					wantOption(t, err, "Session.SetHeartbeat")
				}
				wantOption(t, session.SetIdleTimeout(-1), "Session.SetIdleTimeout")
				return nil
			}))
		go client.Run(context.Background())
		rig.OpensWithin(t, client, 1, time.Minute)
		time.Sleep(time.Hour)
		if pings := len(s.Conns()[0].Received().Pings); pings > 0 || client.Stats().Session != 1 {
			t.Errorf("%d pings, %+v", pings, client.Stats())
		}
	})
}

func wantOption(t *testing.T, err error, name string) {
	t.Helper()
	var option *resock.OptionError
	if !errors.As(err, &option) || option.Option != name {
		t.Errorf("%v, want an OptionError for %s", err, name)
	}
}

func TestSessionSubprotocol(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Upgrade(map[string][]string{"Sec-WebSocket-Protocol": {"two"}}, nil))
		chosen := make(chan string, 1)
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithSubprotocols("one", "two"),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				chosen <- session.Subprotocol()
				return nil
			}))
		go client.Run(context.Background())
		if got := <-chosen; got != "two" {
			t.Errorf("chosen: %q", got)
		}
	})
}

// While a subscriber blocks delivery, the server hears from the client, and is not
// taken for dead.
func TestBeatsWhileDeliveryIsBlocked(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(10*time.Second, 5*time.Second))
		rig.Abandon(context.Background(), client, resock.WithBuffer(0))
		go client.Run(context.Background())
		c := s.Accept()
		for range 10 {
			if err := c.Push("push"); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		if pings := len(c.Received().Pings); pings < 58 || pings > 61 {
			t.Errorf("%d pings in 10 minutes", pings)
		}
		if stats := client.Stats(); stats.State != resock.StateOpen || stats.Session != 1 || stats.Blocked < 9*time.Minute {
			t.Errorf("%+v", stats)
		}
	})
}
