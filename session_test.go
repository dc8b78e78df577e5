package resock_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
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
