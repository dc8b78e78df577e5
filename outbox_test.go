package resock

import (
	"errors"
	"io"
	"net"
	"testing"
)

// A message that the closing handshake refused was not sent, even if the close
// frame has gone out since.
func TestRefusedByAClosingHandshake(t *testing.T) {
	src := &script{end: io.EOF}
	s := wiredSession(t, setting{limit: 100}, src)
	o := &s.client.outbox
	o.token = true
	s.wire.mark()
	start, end := s.wire.frame()
	if _, err := s.wire.Write(masked(finBit|opClose, closePayload(1000, ""))); err != nil {
		t.Fatal(err)
	}
	settled := errors.New("not settled")
	o.flight = []flight{{outbound{typ: MessageText, data: []byte("x"), result: func(err error) { settled = err }}, start, end}}
	o.land(s, net.ErrClosed)
	if messages, bytes := o.size(); messages != 1 || bytes != 1 {
		t.Errorf("%d messages of %d bytes wait for the next session, outcome %v", messages, bytes, settled)
	}
	if written := src.written(); len(written) != 8 {
		t.Errorf("written: % x", written)
	}
}
