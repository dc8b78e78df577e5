package trials

import (
	"context"
	"flag"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

var slowFor = flag.Duration("resock.slow", 3*time.Second, "how long TestSlowLine loads its line; 10m tells more")

// slowRate is what a slow line carries each way, in bytes per second.
const slowRate = 24_000

// slowLine passes bytes on between one client and a server, at the rate of a slow line,
// and takes little ahead. After cut it takes nothing any more, in silence.
type slowLine struct {
	url  string
	dead context.Context
	cut  context.CancelFunc
	took atomic.Int64 // when it last took bytes from the client, in Unix nanoseconds
}

func newSlowLine(t *testing.T, s *resocktest.Server) *slowLine {
	l := new(slowLine)
	l.dead, l.cut = context.WithCancel(t.Context())
	over, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	l.url = "ws://" + rig.Listen(t, func(client net.Conn) {
		_ = client.(*net.TCPConn).SetReadBuffer(64 << 10)
		server, err := net.Dial("tcp", strings.TrimPrefix(s.URL, "ws://"))
		if err != nil {
			return
		}
		defer server.Close()
		go l.pass(client, server, new(atomic.Int64))
		l.pass(server, client, &l.took)
		<-over.Done()
	})
	return l
}

// pass passes bytes on, in pieces of a fiftieth of a second, until the line is cut or one
// end fails, for which it closes the other.
func (l *slowLine) pass(to, from net.Conn, took *atomic.Int64) {
	buffer := make([]byte, slowRate/50)
	for {
		n, err := from.Read(buffer)
		select {
		case <-l.dead.Done():
			return
		case <-time.After(time.Duration(n) * time.Second / slowRate):
		}
		took.Store(time.Now().UnixNano())
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			_ = to.Close()
			return
		}
	}
}

// loaded returns a client whose line is loaded both ways: the server pushes nearly what the
// line carries, and the client sends messages of 32 KiB, one after the other.
func loaded(t *testing.T, l *slowLine, s *resocktest.Server, opts ...resock.Option) *rig.Client {
	messages := resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {})
	r := rig.Quick(t, l.url, append(opts, messages)...)
	r.Open()
	c := s.Accept()
	go func() {
		push := make([]byte, slowRate/10*9/10)
		for c.PushBinary(push) == nil { // no faster, or the server would wait for itself, and not read
			<-time.After(time.Second / 10)
		}
	}()
	go func() {
		message := make([]byte, 32<<10)
		for r.Send(t.Context(), resock.MessageBinary, message) == nil {
		}
	}()
	return r
}

// TestSlowLine loads a slow line both ways. With the defaults, a short time says little;
// many beats say more. (The write timeout has to be longer than the pauses of TCP itself,
// which are seconds here: half of the relay's buffer, and then a probe of its window.)
func TestSlowLine(t *testing.T) {
	for name, opts := range map[string][]resock.Option{
		"defaults":   nil,
		"many beats": {resock.WithHeartbeat(time.Second, 5*time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := resocktest.NewServer(t)
			r := loaded(t, newSlowLine(t, s), s, opts...)
			select {
			case event := <-r.Events:
				t.Errorf("%+v", event)
			case <-time.After(*slowFor):
			}
			if stats := r.Stats(); stats.MessagesIn == 0 || stats.Fails > 0 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

// TestSlowLineDies: a loaded line that dies in silence is found soon after it took the
// last byte.
func TestSlowLineDies(t *testing.T) {
	const interval, timeout = time.Second, time.Second
	s := resocktest.NewServer(t)
	l := newSlowLine(t, s)
	r := loaded(t, l, s, resock.WithHeartbeat(interval, timeout), resock.WithWriteTimeout(timeout))
	<-time.After(2 * time.Second)
	l.cut()
	fail, ok := r.Next().(resock.FailEvent)
	found := time.Since(time.Unix(0, l.took.Load()))
	if !ok || fail.Phase != resock.PhaseHeartbeat && fail.Phase != resock.PhaseWrite {
		t.Errorf("%+v", fail)
	}
	if found > interval+timeout+time.Second {
		t.Errorf("found %v after the last byte was taken: %v", found, fail.Err)
	}
}
