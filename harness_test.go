package resock

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/resock/resock/internal/wire"
)

// script is a transport whose server has already sent everything. If room is not
// negative, a Write fails after that many bytes.
type script struct {
	in   []byte
	end  error
	room int

	mu  sync.Mutex
	out bytes.Buffer
}

// silentScript returns a script whose server sends nothing and hangs up.
func silentScript() *script { return &script{end: io.EOF, room: -1} }

func (s *script) Read(p []byte) (int, error) {
	if len(s.in) == 0 {
		return 0, s.end
	}
	n := copy(p, s.in)
	s.in = s.in[n:]
	return n, nil
}

func (s *script) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.room >= 0 && len(p) > s.room {
		n, _ := s.out.Write(p[:s.room])
		s.room = 0
		return n, io.ErrClosedPipe
	}
	if s.room > 0 {
		s.room -= len(p)
	}
	return s.out.Write(p)
}

func (s *script) Close() error { return nil }

func (s *script) written() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.out.Bytes())
}

// frame returns an unmasked frame with a short payload, as a server sends it.
func frame(first byte, payload string) []byte {
	return append([]byte{first, byte(len(payload))}, payload...)
}

// wiredSession returns a session over src, ready to be read.
func wiredSession(t testing.TB, src io.ReadWriteCloser) *session {
	t.Helper()
	client, err := New("ws://server.test", WithReadLimit(100))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{client: client, id: 1}
	s.start(src, nil, wire.Deflate{}, nil)
	return s
}

// text returns an outbound text message.
func text(data string) outbound { return newOutbound(MessageText, []byte(data)) }
