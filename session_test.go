package resock_test

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A network that takes no more bytes, but does not end either, is read for a
// second: the server may have said why.
func TestFailedWriteEndsASilentSession(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, inMemory(func(_ int, p *peer) {
			p.upgrade()
			p.in.close(io.ErrClosedPipe)
			time.Sleep(10 * time.Second)
		}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		open := rig.Await[resock.OpenEvent](t, events)
		synctest.Wait()
		if err := client.Enqueue(resock.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		fail := rig.Await[resock.FailEvent](t, events)
		if lived := fail.Time.Sub(open.Time); lived != time.Second || fail.Phase != resock.PhaseWrite {
			t.Errorf("phase %v after %v", fail.Phase, lived)
		}
	})
}

// While the server takes its time for the closing handshake, the heartbeat has
// nothing to say.
func TestNoHeartbeatWhileClosing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithHeartbeat(time.Second, time.Second), resock.WithCloseTimeout(time.Minute),
			inMemory(func(_ int, p *peer) {
				p.upgrade()
				if opcode, _, err := p.next(); opcode != 0x8 || err != nil {
					t.Errorf("opcode %d, %v", opcode, err)
				}
				time.Sleep(30 * time.Second)
				p.close(1000)
			}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		rig.Await[resock.OpenEvent](t, events)
		client.Suspend()
		if end := rig.Await[resock.CloseEvent](t, events); !end.Clean || end.Took != 30*time.Second {
			t.Errorf("%+v", end)
		}
	})
}

// Close sends what is queued before it closes. Suspend and the end of Run's
// context do not: the former keeps it for the next session.
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
			bubble(t, func(t *testing.T) {
				received := make(chan byte, 2*messages)
				client := newClient(t, resock.WithHeartbeat(0, 0), inMemoryRoom(1<<10, func(_ int, p *peer) {
					p.upgrade()
					time.Sleep(time.Second)
					p.echoClose(func(payload string) { received <- payload[0] })
				}))
				events := grammar.Tee(t, client)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go client.Run(ctx)
				rig.Await[resock.OpenEvent](t, events)
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
					t.Errorf("%+v", end)
				}
				switch n := len(received); {
				case tt.name == "Close" && n != messages:
					t.Errorf("%d messages were flushed", n)
				case tt.name != "Close" && n > messages/2:
					t.Errorf("%d messages were sent", n)
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
				close(received)
				got := []byte{}
				for b := range received {
					got = append(got, b)
				}
				if !slices.Equal(got, want) {
					t.Errorf("received %v", got)
				}
			})
		})
	}
}

// A heartbeat message that may not be sent ends the session, and is told: without
// it a dead connection would not be found.
func TestBadHeartbeatMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t,
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("\xff") }),
			inMemory(func(_ int, p *peer) {
				p.upgrade()
				p.echoClose(func(payload string) { t.Errorf("the server received %q", payload) })
			}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		rig.Await[resock.OpenEvent](t, events)
		fail := rig.Await[resock.FailEvent](t, events)
		var option *resock.OptionError
		if fail.Phase != resock.PhaseHeartbeat || !errors.As(fail.Err, &option) || option.Option != "WithHeartbeatMessage" {
			t.Errorf("%+v", fail)
		}
	})
}

// A violation is told with what it was, whoever found it.
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
			bubble(t, func(t *testing.T) {
				client := newClient(t, inMemory(func(_ int, p *peer) {
					p.upgrade()
					_, _ = p.Write([]byte(bytes))
					_, _ = io.Copy(io.Discard, p)
				}))
				events := grammar.Tee(t, client)
				go client.Run(t.Context())
				rig.Await[resock.OpenEvent](t, events)
				fail := rig.Await[resock.FailEvent](t, events)
				var violation *resock.ProtocolError
				if !errors.As(fail.Err, &violation) || violation.Err == nil || fail.Phase != resock.PhaseProtocol {
					t.Errorf("%+v", fail)
				}
			})
		})
	}
}

// The end of a connection is told at once, whoever still waits for the network to
// take something: the goroutine that answers pings, or the one that flushes the
// queue for Close.
func TestEndWaitsForNoBlockedWrite(t *testing.T) {
	serve := func(pings int) resock.Option {
		return inMemoryRoom(1<<12, func(_ int, p *peer) {
			p.upgrade()
			for range pings {
				p.frame(0x89, strings.Repeat("x", 125))
			}
			time.Sleep(time.Second)
			_ = p.CloseWrite()
			time.Sleep(time.Minute)
		})
	}
	t.Run("pongs", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			client := newClient(t, serve(100))
			events := grammar.Tee(t, client)
			go client.Run(t.Context())
			open := rig.Await[resock.OpenEvent](t, events)
			fail := rig.Await[resock.FailEvent](t, events)
			if after := fail.Time.Sub(open.Time); after != time.Second || fail.Phase != resock.PhaseRead {
				t.Errorf("after %v: %+v", after, fail)
			}
		})
	})
	t.Run("queue", func(t *testing.T) {
		bubble(t, func(t *testing.T) {
			client := newClient(t, serve(0))
			events := grammar.Tee(t, client)
			go client.Run(t.Context())
			open := rig.Await[resock.OpenEvent](t, events)
			if err := client.Enqueue(resock.MessageBinary, make([]byte, 1<<16)); err != nil {
				t.Fatal(err)
			}
			client.Close(resock.StatusNormalClosure, "")
			end := rig.Await[resock.CloseEvent](t, events)
			if after := end.Time.Sub(open.Time); after != time.Second || end.Clean {
				t.Errorf("after %v: %+v", after, end)
			}
		})
	})
}

// patience is how long the client waits for a hook.
const patience = time.Second

// What a session started is over when its end is told.
func TestEndWaitsForTheHeartbeatMessage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var over atomic.Bool
		beating := make(chan struct{}, 10)
		client := newClient(t, resock.WithHeartbeat(time.Second, time.Second),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
				beating <- struct{}{}
				time.Sleep(patience / 2)
				over.Store(true)
				return resock.MessageText, nil
			}),
			inMemory(func(_ int, p *peer) {
				p.upgrade()
				<-beating
			}))
		events := grammar.Tee(t, client)
		go client.Run(t.Context())
		rig.Await[resock.OpenEvent](t, events)
		rig.Await[resock.FailEvent](t, events)
		if !over.Load() {
			t.Error("the function still runs")
		}
	})
}

func TestMaxSessionAge(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithMaxSessionAge(10*time.Minute),
			resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
				t.Errorf("asked about %+v, which is no failure", f)
				return resock.Decision{}
			}))
		ages := make(map[time.Duration]bool)
		for session := uint64(1); session <= 5; session++ {
			if open := rig.Next[resock.OpenEvent](client); open.Session != session || open.Attempt != 1 {
				t.Errorf("%+v", open)
			}
			event := rig.Next[resock.CloseEvent](client)
			if event.Code != 1000 || !event.Clean || event.Next != resock.StateConnecting || event.RetryIn != 0 {
				t.Errorf("%+v", event)
			}
			if event.Took < 9*time.Minute || event.Took > 10*time.Minute {
				t.Errorf("session %d lived for %v", session, event.Took)
			}
			ages[event.Took] = true
		}
		if len(ages) < 2 {
			t.Error("every session lived equally long")
		}
	})
}

// TestNetworkLostWhileOpen: the probe finds the dead connection, and the client
// waits for the network.
func TestNetworkLostWhileOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Minute, 5*time.Second))
		rig.Next[resock.OpenEvent](client)
		client.Quiet(time.Minute - time.Second)
		s.Accept().StopReading()
		began := time.Now()
		network.Set(false)
		fail := rig.Next[resock.FailEvent](client)
		if fail.Phase != resock.PhaseHeartbeat || !errors.Is(fail.Err, resock.ErrHeartbeat) || fail.Next != resock.StateOffline || fail.RetryIn != 0 {
			t.Errorf("%+v", fail)
		}
		rig.Within(t, began, 5*time.Second, 5*time.Second)
		client.Quiet(time.Minute)
		began = time.Now()
		network.Set(true)
		if open := rig.Next[resock.OpenEvent](client); open.Session != 2 || open.Attempt != 1 {
			t.Errorf("%+v", open)
		}
		rig.Within(t, began, 0, 500*time.Millisecond)
	})
}

// TestProbe: a change of the network finds a dead connection within the heartbeat
// timeout, whenever the next beat is due.
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
					rig.Next[resock.OpenEvent](client)
					client.Quiet(after)
					s.Accept().StopReading()
					began := time.Now()
					network.Set(true)
					if fail := rig.Next[resock.FailEvent](client); !errors.Is(fail.Err, resock.ErrHeartbeat) {
						t.Errorf("%+v", fail)
					}
					if took := time.Since(began); took > 10*time.Second+2*time.Millisecond { // looks are at least 1 ms apart
						t.Errorf("change after %v: dead connection found after %v, want 10 s", after, took)
					}
				})
			}
		})
	}
}

// TestProbeFlapping: changes that never end do not put off the verdict.
func TestProbeFlapping(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(time.Hour, 10*time.Second))
		rig.Next[resock.OpenEvent](client)
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
		t.Error("a dead connection lives on")
	})
}

// TestProbeBesideBeats: the server gets the messages that it asked for at their
// time, however often the network changes.
func TestProbeBesideBeats(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(10*time.Second, 5*time.Second),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }))
		rig.Next[resock.OpenEvent](client)
		for range 100 {
			network.Set(true)
			client.Quiet(time.Second)
		}
		if beats := len(s.Accept().Received().Messages); beats < 9 || beats > 11 {
			t.Errorf("%d beats in 100 s, want one per 10 s", beats)
		}
	})
}

// TestProbeHealthy: changes do no harm to a connection that is well.
func TestProbeHealthy(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		client := rig.Start(t, "ws://a/", rig.Reach(s), resock.WithNetwork(network), resock.WithHeartbeat(0, 0))
		rig.Next[resock.OpenEvent](client)
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

// Until its own close frame the server may send whatever it likes: messages whole
// and in pieces, and pings, which get no pong any more (RFC 6455, section 5.5.1).
func TestClosingDeliversWhatPrecedesTheClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var afterClose []byte // opcodes
		client := newClient(t, inMemory(func(_ int, p *peer) {
			p.upgrade()
			p.frame(0x01, "a message ")
			for {
				opcode, _, err := p.next()
				if err != nil {
					t.Errorf("before the client's close frame: %v", err)
					return
				}
				if opcode == 0x8 {
					break
				}
			}
			p.frame(0x89, "ping inside of a message")
			p.frame(0x80, "in pieces")
			p.text("a whole one")
			p.frame(0x89, "ping between messages")
			p.text("another")
			p.frame(0x02, "more ")
			p.frame(0x80, "pieces")
			p.close(1000)
			for {
				opcode, _, err := p.next()
				if err != nil {
					return
				}
				afterClose = append(afterClose, opcode)
			}
		}))
		events := grammar.Tee(t, client)
		go client.Run(context.Background())
		rig.Await[resock.OpenEvent](t, events)
		if err := client.Close(1000, ""); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"a message in pieces", "a whole one", "another", "more pieces"} {
			if got := rig.Await[resock.MessageEvent](t, events); string(got.Data) != want {
				t.Errorf("message %q, want %q", got.Data, want)
			}
		}
		if got := rig.Await[resock.CloseEvent](t, events); !got.Clean || got.Code != 1000 {
			t.Errorf("got %+v, want a clean 1000", got)
		}
		<-client.Done()
		synctest.Wait()
		if len(afterClose) != 0 {
			t.Errorf("after its close frame the client sent frames with the opcodes %v", afterClose)
		}
	})
}

// The longest of all times means never.
func TestHeartbeatForever(t *testing.T) {
	const forever = time.Duration(math.MaxInt64)
	bubble(t, func(t *testing.T) {
		beats := 0
		client := newClient(t,
			resock.WithHeartbeat(forever, forever), resock.WithIdleTimeout(forever),
			resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) {
				beats++
				return resock.MessageText, nil
			}),
			inMemory(func(n int, p *peer) {
				p.upgrade()
				p.echoClose(nil)
			}))
		go client.Run(context.Background())
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if state := client.State(); state != resock.StateOpen || beats > 0 {
			t.Errorf("%v after 10 s, %d beats", state, beats)
		}
	})
}
