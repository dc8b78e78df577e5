package resock_test

import (
	"context"
	"math"
	"testing"
	"time"

	"github.com/resock/resock"
)

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
