package resock_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

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
