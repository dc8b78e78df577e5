package resock_test

import (
	"context"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
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
		events := grammar.Tee(t, client.Subscribe(t.Context()))
		go client.Run(t.Context())
		open := await[resock.OpenEvent](t, events)
		synctest.Wait()
		if err := client.Enqueue(resock.MessageText, []byte("x")); err != nil {
			t.Fatal(err)
		}
		fail := await[resock.FailEvent](t, events)
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
		events := grammar.Tee(t, client.Subscribe(t.Context()))
		go client.Run(t.Context())
		await[resock.OpenEvent](t, events)
		client.Suspend()
		if end := await[resock.CloseEvent](t, events); !end.Clean || end.Took != 30*time.Second {
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
				events := grammar.Tee(t, client.Subscribe(context.Background()))
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				go client.Run(ctx)
				await[resock.OpenEvent](t, events)
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
				if end := await[resock.CloseEvent](t, events); end.Next != tt.next || !end.Clean {
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
					await[resock.OpenEvent](t, events)
					client.Close(resock.StatusNormalClosure, "")
					await[resock.CloseEvent](t, events)
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
