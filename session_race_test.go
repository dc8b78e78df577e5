package resock

import (
	"io"
	"testing"
)

// hangUp is a script that tells when its server has hung up.
type hangUp struct {
	script
	gone chan struct{}
}

func (h *hangUp) Read(p []byte) (int, error) {
	n, err := h.script.Read(p)
	if err != nil {
		close(h.gone)
	}
	return n, err
}

// TestCloseDuringSlowDelivery: while a fragmented message is delivered, another
// goroutine reads for the closing handshake. The race detector watches.
func TestCloseDuringSlowDelivery(t *testing.T) {
	src := &hangUp{
		script: script{in: join(frame(opText, "a"), frame(finBit|opContinuation, "b")), end: io.EOF},
		gone:   make(chan struct{}),
	}
	s := wiredSession(t, setting{limit: 100}, src)
	count := 0
	s.wire.deliver = func(MessageType, []byte) bool {
		count++
		s.shut(StatusNormalClosure, "", false)
		<-src.gone
		return true
	}
	e := s.finish(s.read())
	if count != 1 || !e.closing || e.clean || e.code != StatusNormalClosure {
		t.Errorf("%d messages, %+v", count, e)
	}
	if got := s.client.counters.messagesIn.Load(); got != 1 {
		t.Errorf("counted %d messages", got)
	}
}
