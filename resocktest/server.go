package resocktest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Server is a WebSocket server that a test controls. All methods may be called
// concurrently.
type Server struct {
	URL string // ws://host:port, or wss://host:port with TLS; in memory without a port
	// TLS is nil without TLS. It may be changed before the first connection.
	TLS *tls.Config

	t       testing.TB
	network network
	roots   *x509.CertPool
	arrived *queue[*Conn]
	closed  chan struct{}
	tasks   sync.WaitGroup

	listening sync.Mutex // held while the server stops or restarts

	mu       sync.Mutex
	script   []Step
	stopped  bool // not listening
	closing  bool // no new goroutines
	links    map[*link]struct{}
	conns    []*Conn
	attempts []Attempt
}

// Attempt is one attempt to connect.
type Attempt struct {
	Time    time.Time
	Request *http.Request // the upgrade request, or nil if none was received
}

// NewServer returns a server that listens on a TCP port of the loopback interface. It
// is closed at the end of the test. In an example or a program t may be nil: then the
// caller closes the server, and what would fail the test panics.
func NewServer(t testing.TB) *Server { return start(t, new(loopback), withoutTLS) }

// NewTLSServer is [NewServer] with TLS, and a certificate that [Server.Client] trusts.
func NewTLSServer(t testing.TB) *Server { return start(t, new(loopback), withTLS) }

// NewMemory returns a server without sockets, which only [Server.Client] can reach. In
// a [testing/synctest] bubble everything that waits for it is durably blocked, so that
// virtual time advances. For t see [NewServer].
func NewMemory(t testing.TB) *Server { return start(t, new(memory), withoutTLS) }

// NewTLSMemory is [NewMemory] with TLS, and a certificate that [Server.Client] trusts.
func NewTLSMemory(t testing.TB) *Server { return start(t, new(memory), withTLS) }

func start(t testing.TB, n network, secure func(*Server) (scheme string, err error)) *Server {
	s := &Server{
		t:       t,
		network: n,
		arrived: newQueue[*Conn](),
		closed:  make(chan struct{}),
		script:  []Step{Hold()},
		links:   make(map[*link]struct{}),
	}
	scheme, err := secure(s)
	if err == nil {
		err = n.listen(s.accept)
	}
	if err != nil {
		s.fatalf("resocktest: %v", err)
	}
	s.URL = scheme + n.host()
	if t != nil {
		t.Cleanup(s.Close)
	}
	return s
}

func withoutTLS(*Server) (scheme string, err error) { return "ws://", nil }

func withTLS(s *Server) (scheme string, err error) {
	certificate, roots, err := newCertificate()
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.roots = roots
	return "wss://", err
}

func (s *Server) fatalf(format string, args ...any) {
	if s.t == nil {
		panic(fmt.Sprintf(format, args...))
	}
	s.t.Helper()
	s.t.Fatalf(format, args...)
}

// CertPool returns the root certificates that a client must trust. It is nil without
// TLS.
func (s *Server) CertPool() *x509.CertPool { return s.roots }

// Client returns a new HTTP client that connects to this server whatever host the URL
// names, and trusts its certificate. Its Transport is an [*http.Transport] without
// keep-alives, so that it leaves no goroutine behind.
func (s *Server) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:       s.dial,
		TLSClientConfig:   &tls.Config{RootCAs: s.roots},
		DisableKeepAlives: true,
	}}
}

// Script sets what happens to the next connections, one step for each. The last step
// repeats. Without steps, and before the first call, it is [Hold].
func (s *Server) Script(steps ...Step) {
	if len(steps) == 0 {
		steps = []Step{Hold()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.script = slices.Clone(steps)
}

// Handle upgrades all further connections and calls handler for each. It is
// [Server.Script] with the single step [Serve].
func (s *Server) Handle(handler func(*Conn)) { s.Script(Serve(handler)) }

// Accept waits for the next upgraded connection and returns it, even if a step serves
// it. The client may not have read the response yet, and may still reject it.
//
// Accept fails the test if no connection arrives within 30 s, or within 24 h of
// virtual time for [NewMemory]. Like Fatal, it must be called from the goroutine of
// the test.
func (s *Server) Accept() *Conn {
	patience := time.NewTimer(s.network.patience())
	defer patience.Stop()
	for {
		c, ok, more := s.arrived.pop()
		if ok {
			return c
		}
		select {
		case <-more:
		case <-s.closed:
			s.fatalf("resocktest: Accept: the server is closed")
		case <-patience.C:
			s.fatalf("resocktest: Accept: no connection within %v", s.network.patience())
		}
	}
}

// Conns returns all connections upgraded so far, in order.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conns)
}

// Attempts returns all attempts to connect so far, in order. Those that a stopped
// server refused are included if the client dials with [Server.Client].
func (s *Server) Attempts() []Attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.attempts)
}

// Stop acts like the end of the server's process: it drops all connections, and new
// ones are refused until [Server.Restart]. The script keeps its position.
func (s *Server) Stop() {
	s.listening.Lock()
	defer s.listening.Unlock()
	s.mu.Lock()
	stopped := s.stopped
	s.stopped = true
	s.mu.Unlock()
	if stopped {
		return
	}
	s.network.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.links {
		_ = l.Close()
	}
}

// Restart makes a stopped server listen again, on the same address. It fails the test
// if another process has taken the port.
func (s *Server) Restart() {
	s.listening.Lock()
	defer s.listening.Unlock()
	s.mu.Lock()
	restart := s.stopped && !s.closing
	if restart {
		s.stopped = false
	}
	s.mu.Unlock()
	if !restart {
		return
	}
	if err := s.network.listen(s.accept); err != nil {
		s.fatalf("resocktest: Restart: %v", err)
	}
}

// Close stops the server for good, drops all connections, and waits for all goroutines
// of the server, including handlers.
func (s *Server) Close() {
	s.mu.Lock()
	if !s.closing {
		s.closing = true
		close(s.closed)
	}
	s.mu.Unlock()
	s.Stop()
	s.tasks.Wait()
}

// dial is the DialContext of a Client.
func (s *Server) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if step, ok := s.takeDialStep(); ok {
		return nil, step.dial(ctx, s.closed)
	}
	conn, err := s.network.dial(ctx)
	if errors.Is(err, syscall.ECONNREFUSED) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.note()
	}
	return conn, err
}

// takeDialStep takes the next step if it replaces connecting.
func (s *Server) takeDialStep() (Step, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.script[0].dial == nil {
		return Step{}, false
	}
	s.note()
	return s.take(), true
}

// take takes the next step; mu is held.
func (s *Server) take() Step {
	step := s.script[0]
	if len(s.script) > 1 {
		s.script = s.script[1:]
	}
	return step
}

// note records an attempt and returns its index; mu is held.
func (s *Server) note() int {
	s.attempts = append(s.attempts, Attempt{Time: time.Now()})
	return len(s.attempts) - 1
}

func (s *Server) noteRequest(attempt int, request *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attempts[attempt].Request = request
}

// accept serves a connection on a new goroutine.
func (s *Server) accept(socket socket) {
	l := newLink(socket)
	s.mu.Lock()
	if s.stopped {
		s.note()
		s.mu.Unlock()
		_ = l.Close()
		return
	}
	s.links[l] = struct{}{}
	step, attempt := s.take(), s.note()
	s.mu.Unlock()

	started := s.spawn(func() {
		defer s.release(l)
		step.serve(&visit{server: s, attempt: attempt, link: l, stream: l})
	})
	if !started {
		s.release(l)
	}
}

// release closes and forgets a connection.
func (s *Server) release(l *link) {
	_ = l.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.links, l)
}

// opened records an upgraded connection.
func (s *Server) opened(c *Conn) {
	s.mu.Lock()
	s.conns = append(s.conns, c)
	s.mu.Unlock()
	s.arrived.push(c)
}

// spawn runs f on a goroutine that Close waits for. If the server is closing, it does
// nothing and reports false.
func (s *Server) spawn(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return false
	}
	s.tasks.Go(f)
	return true
}
