package faults

import (
	"context"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// answers answers each message of the client by a text, until the connection ends.
func answers(c *resocktest.Conn, text string) {
	for {
		if _, err := c.Read(); err != nil {
			return
		}
		_ = c.Push(text)
	}
}

// textBeat is the option of a client whose server wants a text as heartbeat.
func textBeat() resock.Option {
	return resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") })
}

// without is the option of a client that keeps messages of this text from its events.
func without(text string) resock.Option {
	return resock.WithFilter(func(_ context.Context, m resock.MessageEvent) bool { return string(m.Data) != text })
}

// TestFault95: a change of the network is no reason to drop a server that answers the
// heartbeat messages that it asks for, and no pings. A dead one is found as soon as without
// the change.
func TestFault95_ProbeOfAServerWithoutPongs(t *testing.T) {
	const interval, timeout = 15 * time.Second, 10 * time.Second
	for after := time.Duration(0); after < 2*interval; after += 1700 * time.Millisecond {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			network := new(rig.Network)
			r := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), textBeat(), without("answer"))
			c := s.Accept()
			c.IgnorePings()
			go answers(c, "answer")
			r.Open()
			r.Quiet(after)
			for range 20 {
				network.Set(true)
				r.Quiet(17 * time.Second)
			}
			began := time.Now()
			c.StopReading()
			network.Set(true)
			r.Fail(resock.PhaseHeartbeat)
			rig.Within(t, began, timeout, interval+timeout+time.Millisecond)
		})
	}
}
