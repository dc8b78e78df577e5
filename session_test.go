package resock_test

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// After a failed write the client reads on for a second, since the server may have said
// why it closes.
func TestFailedWriteEndsASilentSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach)
		open := client.Open()
		(<-lines).Fail()
		synctest.Wait()
		if err := client.Enqueue(resock.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		fail := client.Fail(resock.PhaseWrite)
		if lived := fail.Time.Sub(open.Time); lived != time.Second {
			t.Errorf("the session lived for %v, want 1s", lived)
		}
	})
}

// A server that is slow to answer the close frame gets no heartbeat meanwhile.
func TestNoHeartbeatWhileClosing(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithHeartbeat(time.Second, time.Second), resock.WithCloseTimeout(time.Minute))
		c := s.Accept()
		c.IgnoreClose()
		client.Open()
		client.Suspend()
		time.Sleep(30 * time.Second)
		received := c.Received()
		if received.Close == nil || len(received.Pings) != 0 {
			t.Errorf("the server received %+v, want a close frame and no ping", received)
		}
		_ = c.Close(resock.StatusNormalClosure, "")
		if end := client.Closed(resock.StatusNormalClosure, "", true); end.Took != 30*time.Second {
			t.Errorf("got %+v, want the handshake to take 30s", end)
		}
	})
}

// received returns the first bytes of all messages that s received.
func received(s *resocktest.Server) (first []byte) {
	for _, c := range s.Conns() {
		for _, message := range rig.Payloads(c) {
			first = append(first, message[0])
		}
	}
	return first
}

// Close sends what is queued before the closing handshake. Suspend keeps it for the next
// session, and the end of Run's context drops it.
func TestWhoFlushesTheQueue(t *testing.T) {
	const messages = 100
	type end struct {
		name string
		stop func(*resock.Client, context.CancelFunc)
		next resock.State
	}
	for _, tt := range []end{
		{"Close", func(c *resock.Client, _ context.CancelFunc) { c.Close(resock.StatusNormalClosure, "") }, resock.StateClosed},
		{"cancel", func(_ *resock.Client, cancel context.CancelFunc) { cancel() }, resock.StateClosed},
		{"Suspend", func(c *resock.Client, _ context.CancelFunc) { c.Suspend() }, resock.StateSuspended},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				reach, lines := rig.ReachLines(s)
				client := rig.Bare(t, s.URL, reach, resock.WithHeartbeat(0, 0))
				events := grammar.Tee(t, client)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go client.Run(ctx)
				rig.Await[resock.OpenEvent](t, events)
				line := <-lines
				line.Limit(1 << 10)
				time.AfterFunc(time.Second, line.Unlimit)
				want := []byte{}
				for i := range byte(messages) {
					want = append(want, i)
					message := make([]byte, 10_000)
					message[0] = i
					if err := client.Enqueue(resock.MessageBinary, message); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				tt.stop(client, cancel)
				if end := rig.Await[resock.CloseEvent](t, events); end.Next != tt.next || !end.Clean {
					t.Errorf("got %+v, want a clean close", end)
				}
				switch n := len(received(s)); {
				case tt.name == "Close" && n != messages:
					t.Errorf("%d messages were flushed, want all", n)
				case tt.name != "Close" && n > messages/2:
					t.Errorf("%d messages were sent, want at most half", n)
				}
				if tt.name == "cancel" {
					return
				}
				if tt.name == "Suspend" {
					client.Resume()
					rig.Await[resock.OpenEvent](t, events)
					client.Close(resock.StatusNormalClosure, "")
					rig.Await[resock.CloseEvent](t, events)
				}
				if got := received(s); !slices.Equal(got, want) {
					t.Errorf("received %v, want %v", got, want)
				}
			})
		})
	}
}

// An invalid heartbeat message ends the session with an error: without heartbeats, a
// dead connection would go unnoticed.
func TestBadHeartbeatMessage(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("\xff") }))
		client.Open()
		fail := client.Fail(resock.PhaseHeartbeat)
		var option *resock.OptionError
		if !errors.As(fail.Err, &option) || option.Option != "WithHeartbeatMessage" {
			t.Errorf("got %+v, want an OptionError for WithHeartbeatMessage", fail)
		}
		if got := rig.Payloads(s.Accept()); len(got) != 0 {
			t.Errorf("the server received %q, want nothing", got)
		}
	})
}

// While the function of WithHeartbeatMessage does not return, pings stand in for it: no
// server that answers is taken for dead, and one that does not is.
func TestStuckHeartbeatMessage(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		stuck := make(chan struct{})
		defer close(stuck)
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
				<-stuck
				return resock.MessageText, nil
			}))
		client.Open()
		client.Quiet(5 * time.Minute)
		c := s.Accept()
		if pings := len(c.Received().Pings); pings < 19 || pings > 20 {
			t.Errorf("%d pings in 5 min, want one per 15 s", pings)
		}
		c.IgnorePings()
		client.Fail(resock.PhaseHeartbeat)
		client.Open()
	})
}

// The error of a protocol violation says what the violation was, whichever layer
// detected it.
func TestViolationsAreNamed(t *testing.T) {
	for name, bytes := range map[string]string{
		"reserved opcode":         "\x83\x00",
		"reserved bit":            "\xc1\x00",
		"continuation of nothing": "\x80\x00",
		"message in a message":    "\x01\x00\x81\x00",
		"masked":                  "\x81\x80\x00\x00\x00\x00",
		"ping in pieces":          "\x09\x00",
		"text":                    "\x81\x01\xff",
		"close code":              "\x88\x02\x03\xed",
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				s.Handle(func(c *resocktest.Conn) { _ = c.Raw([]byte(bytes)) })
				client := rig.Start(t, s.URL, rig.Reach(s))
				client.Open()
				fail := client.Fail(resock.PhaseProtocol)
				var violation *resock.ProtocolError
				if !errors.As(fail.Err, &violation) || violation.Err == nil {
					t.Errorf("got %+v, want a ProtocolError with its cause", fail)
				}
			})
		})
	}
}

// The end of a session is reported in time even if a write is still blocked, be it a
// pong or the queue that Close flushes.
func TestEndWaitsForNoBlockedWrite(t *testing.T) {
	for name, tt := range map[string]struct {
		write func(*rig.Client, *resocktest.Conn)
		ends  func(*rig.Client) time.Time
	}{
		"pongs": {
			func(_ *rig.Client, c *resocktest.Conn) { _ = c.Ping("ping") },
			func(client *rig.Client) time.Time { return client.Fail(resock.PhaseRead).Time },
		},
		"queue": {
			func(client *rig.Client, _ *resocktest.Conn) {
				client.Queue("message")
				client.Close(resock.StatusNormalClosure, "")
			},
			func(client *rig.Client) time.Time {
				return client.Closed(resock.StatusNormalClosure, "", false).Time
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				reach, lines := rig.ReachLines(s)
				client := rig.Start(t, s.URL, reach)
				open := client.Open()
				c := s.Accept()
				(<-lines).Limit(1)
				tt.write(client, c)
				time.Sleep(time.Second)
				_ = c.HalfClose()
				if after := tt.ends(client).Sub(open.Time); after != time.Second {
					t.Errorf("reported after %v, want 1s", after)
				}
			})
		})
	}
}

// The goroutines of a session have ended when its end is reported.
func TestEndWaitsForTheHeartbeatMessage(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		var over atomic.Bool
		beating := make(chan struct{}, 10)
		client := rig.Start(t, s.URL, rig.Reach(s), resock.WithHeartbeat(time.Second, time.Second),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
				beating <- struct{}{}
				time.Sleep(rig.Patience / 2)
				over.Store(true)
				return resock.MessageText, nil
			}))
		client.Open()
		<-beating
		s.Accept().Drop()
		rig.Next[resock.FailEvent](client)
		if !over.Load() {
			t.Error("the session was reported over while its hook was running")
		}
	})
}

func TestMaxSessionAge(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithMaxSessionAge(10*time.Minute),
			resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
				t.Errorf("the policy was asked about %+v, which is no failure", f)
				return resock.Decision{}
			}))
		ages := make(map[time.Duration]bool)
		for session := uint64(1); session <= 5; session++ {
			if open := client.Open(); open.Session != session || open.Attempt != 1 {
				t.Errorf("got %+v, want the next session, attempt 1", open)
			}
			event := rig.Next[resock.CloseEvent](client)
			if event.Code != 1000 || !event.Clean || event.Next != resock.StateConnecting || event.RetryIn != 0 {
				t.Errorf("got %+v, want 1000, clean, and then connecting at once", event)
			}
			if event.Took < 9*time.Minute || event.Took > 10*time.Minute {
				t.Errorf("session %d lived for %v, want 9 to 10 minutes", session, event.Took)
			}
			ages[event.Took] = true
		}
		if len(ages) < 2 {
			t.Error("all sessions lived equally long, want jitter")
		}
	})
}

// When the network is lost, a probe detects the dead connection, and the client waits
// until the network is back.
func TestNetworkLostWhileOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Minute, 5*time.Second))
		client.Open()
		client.Quiet(time.Minute - time.Second)
		s.Accept().StopReading()
		began := time.Now()
		network.Set(false)
		fail := rig.Next[resock.FailEvent](client)
		if fail.Phase != resock.PhaseHeartbeat || !errors.Is(fail.Err, resock.ErrHeartbeat) || fail.Next != resock.StateOffline || fail.RetryIn != 0 {
			t.Errorf("got %+v, want ErrHeartbeat, and then offline", fail)
		}
		rig.Within(t, began, 5*time.Second, 5*time.Second)
		client.Quiet(time.Minute)
		began = time.Now()
		network.Set(true)
		if open := client.Open(); open.Session != 2 || open.Attempt != 1 {
			t.Errorf("got %+v, want session 2, attempt 1", open)
		}
		rig.Within(t, began, 0, 500*time.Millisecond)
	})
}

// After a change of the network, a dead connection is detected within the heartbeat
// timeout, whenever the next heartbeat is due.
func TestProbe(t *testing.T) {
	text := func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }
	heartbeats := map[string][]resock.Option{
		"15 s":                  {resock.WithHeartbeat(15*time.Second, 10*time.Second)},
		"1 h":                   {resock.WithHeartbeat(time.Hour, 10*time.Second)},
		"none":                  {resock.WithHeartbeat(0, 0)}, // a probe has a timeout of its own: 10 s
		"beats without answers": {resock.WithHeartbeat(15*time.Second, 0), resock.WithHeartbeatMessage(text)},
	}
	for name, heartbeat := range heartbeats {
		t.Run(name, func(t *testing.T) {
			for after := time.Duration(0); after < 40*time.Second; after += 1300 * time.Millisecond {
				rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
					network := new(rig.Network)
					client := rig.Start(t, "ws://a/", append(heartbeat, rig.Reach(s), resock.WithNetwork(network))...)
					client.Open()
					client.Quiet(after)
					s.Accept().StopReading()
					began := time.Now()
					network.Set(true)
					if fail := rig.Next[resock.FailEvent](client); !errors.Is(fail.Err, resock.ErrHeartbeat) {
						t.Errorf("got %+v, want ErrHeartbeat", fail)
					}
					if took := time.Since(began); took > 10*time.Second+2*time.Millisecond { // the pulse is checked every ms at most
						t.Errorf("change after %v: dead connection found after %v, want 10 s", after, took)
					}
				})
			}
		})
	}
}

// A network that changes all the time does not put off the verdict of a probe.
func TestProbeFlapping(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(time.Hour, 10*time.Second))
		client.Open()
		s.Accept().StopReading()
		began := time.Now()
		for range 10 {
			network.Set(true)
			select {
			case <-client.Events:
				rig.Within(t, began, 10*time.Second, 10*time.Second)
				return
			case <-time.After(3 * time.Second):
			}
		}
		t.Error("a dead connection is still open")
	})
}

// Heartbeat messages are sent on schedule, however often the network changes.
func TestProbesKeepTheHeartbeatSchedule(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Second, 5*time.Second),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }))
		client.Open()
		for range 100 {
			network.Set(true)
			client.Quiet(time.Second)
		}
		if beats := len(s.Accept().Received().Messages); beats < 9 || beats > 11 {
			t.Errorf("%d beats in 100 s, want one per 10 s", beats)
		}
	})
}

// Changes of the network do not disturb a healthy connection.
func TestProbeHealthy(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(0, 0))
		client.Open()
		for range 20 {
			out := client.Stats().BytesOut
			network.Set(true)
			client.Quiet(7 * time.Second)
			if sent := client.Stats().BytesOut - out; sent != 10 {
				t.Errorf("%d bytes sent, want those of one ping", sent)
			}
		}
		client.Quiet(time.Hour / 2)
		client.Is(resock.StateOpen)
	})
}

// The server may send messages, fragments and pings until its own close frame. The
// messages are delivered; the pings get no pong any more (RFC 6455, section 5.5.1).
func TestClosingDeliversWhatPrecedesTheClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, s.URL, rig.Reach(s))
		c := s.Accept()
		c.IgnoreClose()
		send := func(first byte, payload string) { _ = c.Raw(resocktest.Frame(first, []byte(payload))) }
		send(rig.Text, "a message ")
		client.Open()
		if err := client.Close(resock.StatusNormalClosure, ""); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		before := c.Received()
		if before.Close == nil {
			t.Fatal("the client has not sent its close frame")
		}
		send(rig.Fin|9, "ping inside of a message")
		send(rig.Fin, "in pieces")
		_ = c.Push("a whole one")
		_ = c.Ping("between messages")
		_ = c.Push("another")
		send(rig.Binary, "more ")
		send(rig.Fin, "pieces")
		_ = c.Close(resock.StatusNormalClosure, "")
		for _, want := range []string{"a message in pieces", "a whole one", "another", "more pieces"} {
			client.Message(want)
		}
		client.Closed(resock.StatusNormalClosure, "", true)
		<-client.Done()
		synctest.Wait()
		after := c.Received()
		if n := len(after.Messages) + len(after.Pings) + len(after.Pongs); n != 0 || after.Err != io.EOF {
			t.Errorf("the client sent %+v after its close frame, want nothing", after)
		}
	})
}

// The largest duration means never, and must not overflow.
func TestHeartbeatForever(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		beats := 0
		client := rig.Start(t, s.URL, rig.Reach(s),
			resock.WithHeartbeat(forever, forever), resock.WithIdleTimeout(forever),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
				beats++
				return resock.MessageText, nil
			}))
		client.Open()
		client.Quiet(10 * time.Second)
		client.Is(resock.StateOpen)
		if beats > 0 {
			t.Errorf("%d heartbeats, want none", beats)
		}
	})
}
