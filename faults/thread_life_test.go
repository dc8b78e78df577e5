package faults

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// replies answers each message of the client by a text, until the connection ends.
func replies(c *resocktest.Conn, text string) {
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
			go replies(c, "answer")
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

// A server that answers pings by empty pongs lives, and no round trip is made up. Flush
// waits for an answer until its context ends.
func TestThreadEmptyPongs(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Start(t, s.URL, rig.Reach(s))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		answered := 0
		go everySecond(c, func() (err error) {
			for ; err == nil && answered < len(c.Received().Pings); answered++ {
				err = c.Pong("")
			}
			return err
		})
		r.Quiet(10 * time.Minute)
		if d := r.Stats().RoundTrip; d != 0 {
			t.Errorf("round trip %v, want none", d)
		}
		_ = r.Enqueue(resock.MessageText, []byte("m"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush: %v", err)
		}
		r.Is(resock.StateOpen)
	})
}

// A client that sends all the time finds a server whose process was paused, although the
// system of the server takes bytes for a while. It needs the buffers of a kernel.
func TestThreadPausedServer(t *testing.T) {
	const interval, timeout = 200 * time.Millisecond, 300 * time.Millisecond
	s := resocktest.NewServer(t)
	r := rig.Quick(t, s.URL, resock.WithHeartbeat(interval, timeout), resock.WithWriteTimeout(time.Second))
	r.Open()
	s.Accept().StopReading()
	began := time.Now()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-time.After(time.Millisecond):
				_ = r.Enqueue(resock.MessageBinary, make([]byte, 1000))
			case <-stop:
				return
			}
		}
	}()
	// The heartbeat, the write timeout and, where there is one, the system's own timeout for
	// unacknowledged bytes are close together. The last ends reading, too.
	switch fail := rig.Next[resock.FailEvent](r); fail.Phase {
	case resock.PhaseHeartbeat, resock.PhaseWrite, resock.PhaseRead:
	default:
		t.Errorf("got %+v, want silence or a lost connection", fail)
	}
	rig.Within(t, began, timeout, 10*time.Second)
	r.Open()
}

// A pong does not wait behind what is queued: only what is being written comes before it.
func TestThreadPongBehindTheQueue(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		const perSecond = 20_000
		reach, lines := rig.ReachLines(s)
		r := rig.Start(t, s.URL, reach)
		r.Open()
		c := s.Accept()
		defer pace(<-lines, perSecond/10)()
		for range 100 {
			if err := r.Enqueue(resock.MessageBinary, make([]byte, 40_000)); err != nil {
				t.Fatal(err)
			}
		}
		r.Quiet(10 * time.Second)
		began := time.Now()
		_ = c.Ping("?")
		for pongs(c) == 0 && time.Since(began) < time.Hour {
			time.Sleep(100 * time.Millisecond)
		}
		rig.Within(t, began, 0, 10*time.Second) // 64 KiB are being written, and 40 KB may have been added to them
		r.Quiet(5 * time.Minute)
		if n := len(c.Received().Messages); n != 100 {
			t.Errorf("%d messages arrived", n)
		}
	})
}

// stuck is a limiter that lets nothing pass.
type stuck struct{}

func (stuck) Wait(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Messages that the limiter holds back do not hold back the heartbeat messages.
func TestThreadLimiterUsedUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, textBeat(), resock.WithSendLimiter(stuck{}), resock.WithHeartbeat(15*time.Second, 0))
		c := s.Accept()
		r.Open()
		for range 100 {
			r.Queue("held back")
		}
		r.Quiet(10 * time.Minute)
		beats := rig.Payloads(c)
		if len(beats) < 39 || len(beats) > 41 || slices.ContainsFunc(beats, func(m string) bool { return m != "beat" }) {
			t.Errorf("got %d messages in 10 minutes, want 40 beats: %q", len(beats), beats)
		}
	})
}

// A timeout that is longer than the interval is kept: the server may be silent for several
// beats, and is dead only after the timeout.
func TestThreadTimeoutOfManyIntervals(t *testing.T) {
	const interval, timeout = 5 * time.Second, time.Minute
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(interval, timeout))
		c := s.Accept()
		c.IgnorePings()
		r.Open()
		for range 10 {
			r.Quiet(timeout - time.Second)
			_ = c.Pong("")
		}
		began := time.Now()
		r.Fail(resock.PhaseHeartbeat)
		rig.Within(t, began, timeout, timeout+interval)
		if n := len(c.Received().Pings); n < 120 || n > 132 {
			t.Errorf("%d pings in 11 minutes of 5 s intervals", n)
		}
	})
}

// A server that stops reading for a while, because it has enough to do, is neither dead nor
// stalled if the write timeout allows that. The beat behind the messages does not count.
func TestThreadThrottlingServer(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		r := rig.Start(t, s.URL, reach, resock.WithWriteTimeout(2*time.Minute))
		r.Open()
		c, line := s.Accept(), <-lines
		for range 5 {
			line.Limit(1000)
			for range 20 {
				r.Queue(strings.Repeat("m", 1000))
			}
			r.Quiet(100 * time.Second)
			line.Unlimit()
			r.Quiet(time.Minute)
		}
		if n := len(c.Received().Messages); n != 100 {
			t.Errorf("%d messages arrived", n)
		}
	})
}

// A server that closes idle connections by 1002, minute after minute, is not taken for one
// that chokes on a message: the next attempt comes at the normal pace.
func TestThreadIdleClosedByProtocolError(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) {
			time.Sleep(time.Minute)
			_ = c.Close(resock.StatusProtocolError, "timeout")
		})
		r := rig.Start(t, s.URL, rig.Reach(s))
		for range 5 {
			r.Open()
			if e := r.Closed(resock.StatusProtocolError, "timeout", true); e.RetryIn > 500*time.Millisecond {
				t.Errorf("retry in %v, want at most 500ms", e.RetryIn)
			}
		}
		r.Open()
	})
}

// A beat that was open when its connection was lost is not held against the next one.
func TestThreadOpenBeatOfALostSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, textBeat(), without("answer"), resock.WithHeartbeat(30*time.Second, 30*time.Second))
		for range 10 {
			c := s.Accept()
			r.Open()
			for len(c.Received().Messages) == 0 {
				time.Sleep(time.Millisecond)
			}
			c.Drop() // before it answers
			r.Fail(resock.PhaseRead)
		}
		c := s.Accept()
		go replies(c, "answer")
		r.Open()
		r.Quiet(time.Hour)
	})
}

// A dead peer over TLS does not delay the next attempt: nothing waits for the alert that
// the end of a TLS connection calls for.
func TestThreadDeadPeerOverTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := resocktest.NewTLSMemory(t)
		base := s.Client().Transport.(*http.Transport)
		transport := &http.Transport{TLSClientConfig: base.TLSClientConfig, DialContext: base.DialContext}
		r := rig.Start(t, s.URL, resock.WithHTTPClient(&http.Client{Transport: transport}), resock.WithQueue(100, 64<<20))
		r.Open()
		s.Accept().StopReading()
		began := time.Now()
		for range 50 {
			if err := r.Enqueue(resock.MessageBinary, make([]byte, 1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		r.Next()
		rig.Within(t, began, 0, 12*time.Second)
		r.Open()
		rig.Within(t, began, 0, 13*time.Second)
	})
}
