package trials

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
)

var soakTime = flag.Duration("resock.soak", 3*time.Second, "how long TestPushesWithDrops lasts")

// farm is a server that can be killed, with all its connections, and started again.
type farm struct {
	address string
	handler http.HandlerFunc
	wrap    func(*net.TCPConn) net.Conn // wraps each connection, unless nil

	mu    sync.Mutex
	http  *http.Server
	conns map[net.Conn]bool // nil while the server is down
	tasks sync.WaitGroup
}

func (f *farm) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = map[net.Conn]bool{}
	f.http = &http.Server{Handler: f.handler, ReadHeaderTimeout: time.Minute}
	f.tasks.Go(func() { _ = f.http.Serve(&farmListener{listener, f}) })
}

// kill stops the server and resets its connections, as if its process had died.
func (f *farm) kill() {
	_ = f.http.Close()
	f.mu.Lock()
	conns := f.conns
	f.conns = nil
	f.mu.Unlock()
	for conn := range conns {
		_ = conn.Close()
	}
	f.tasks.Wait()
}

// farmListener keeps track of the connections, and has them reset when they are closed:
// thousands of connections in TIME-WAIT would use up all ports.
type farmListener struct {
	net.Listener
	f *farm
}

func (l *farmListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0)
	c := &farmConn{Conn: tcp, f: l.f}
	if l.f.wrap != nil {
		c.Conn = l.f.wrap(tcp)
	}
	l.f.mu.Lock()
	defer l.f.mu.Unlock()
	if l.f.conns == nil {
		_ = tcp.Close()
		return nil, net.ErrClosed
	}
	l.f.conns[c] = true
	return c, nil
}

type farmConn struct {
	net.Conn
	f *farm
}

func (c *farmConn) Close() error {
	c.f.mu.Lock()
	delete(c.f.conns, c)
	c.f.mu.Unlock()
	return c.Conn.Close()
}

// TestPushesWithDrops has the server push as fast as it can, over connections that break
// at random places. Every message must arrive, and in order, since the client resumes
// after the last one it has handled. It does not wait for its subscribers before it
// reconnects, so messages that they had not received by then come again in the next
// session; with a handler, none does.
func TestPushesWithDrops(t *testing.T) {
	duration := *soakTime
	if testing.Short() {
		duration /= 3
	}
	modes := []struct {
		name        string
		handler     bool
		compression websocket.CompressionMode
	}{
		{"subscriber", false, websocket.CompressionDisabled},
		{"handler", true, websocket.CompressionDisabled},
		{"compressed", false, websocket.CompressionContextTakeover},
	}
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			testPushes(t, duration/time.Duration(len(modes)), mode.handler, mode.compression)
		})
	}
}

func testPushes(t *testing.T, duration time.Duration, handler bool, compression websocket.CompressionMode) {
	f := feed{t: t, compression: compression}
	server := &farm{address: rig.UnusedAddress(t), handler: f.serve}
	server.wrap = func(conn *net.TCPConn) net.Conn {
		return &brittle{TCPConn: conn, left: 1000 + rand.IntN(1<<18)}
	}
	server.start(t)

	cursor := cursor{t: t, repeats: !handler}
	opts := []resock.Option{
		resock.WithBackoff(time.Millisecond, 5*time.Millisecond),
		resock.WithStableAfter(0),
		resock.WithDialOptions(&websocket.DialOptions{CompressionMode: compression}),
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			return resock.Endpoint{URL: fmt.Sprintf("ws://%s/?after=%d", server.address, cursor.last.Load())}, nil
		}),
	}
	if handler {
		opts = append(opts, resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) { cursor.take(m.Data) }))
	}
	c, err := resock.New("", opts...)
	if err != nil {
		t.Fatal(err)
	}
	events := c.Subscribe(context.Background(), resock.WithBuffer(0))
	ran := make(chan error, 1)
	go func() { ran <- c.Run(context.Background()) }()

	a := announcer{t: t, client: c, cursor: &cursor}
	a.run(events, duration)
	if err := <-ran; err != nil {
		t.Errorf("Run: got %v, want nil", err)
	}
	server.kill()
	f.tasks.Wait()

	t.Logf("%d messages in %d sessions", cursor.last.Load(), a.sessions)
	if got, want := a.outcomes.Load(), a.enqueued; got != want {
		t.Errorf("%d outcomes, want one for each of %d messages", got, want)
	}
	if cursor.last.Load() == 0 || a.sessions < 2 {
		t.Errorf("%d messages in %d sessions are too few to test anything", cursor.last.Load(), a.sessions)
	}
}

// announcer is the subscriber of TestPushesWithDrops. It announces each session to the
// server, by a message.
type announcer struct {
	t        *testing.T
	client   *resock.Client
	cursor   *cursor
	check    grammar.Checker
	sessions uint64
	enqueued int64
	outcomes atomic.Int64
}

// run receives the events to their end. It closes the client after duration, but not
// before there were some sessions.
func (a *announcer) run(events <-chan resock.Event, duration time.Duration) {
	stop := time.NewTimer(duration)
	defer stop.Stop()
	for {
		select {
		case event, open := <-events:
			if !open {
				if err := a.check.End(); err != nil {
					a.t.Errorf("event grammar: %v", err)
				}
				return
			}
			a.take(event)
		case <-stop.C:
			if a.sessions < 3 { // on a slow machine
				stop.Reset(100 * time.Millisecond)
				continue
			}
			_ = a.client.Close(resock.StatusNormalClosure, "")
		}
	}
}

func (a *announcer) take(event resock.Event) {
	if err := a.check.Event(event); err != nil {
		a.t.Errorf("event grammar: %v", err)
	}
	switch e := event.(type) {
	case resock.OpenEvent:
		a.sessions = e.Session
		err := a.client.Enqueue(resock.MessageBinary, binary.BigEndian.AppendUint64(nil, a.sessions),
			resock.WithResult(func(error) { a.outcomes.Add(1) }))
		if err == nil {
			a.enqueued++
		} else if !errors.Is(err, resock.ErrClosed) {
			a.t.Errorf("Enqueue: got %v, want nil or ErrClosed", err)
		}
	case resock.MessageEvent:
		a.cursor.take(e.Data)
	}
}

// pushed returns message n of a feed: its number, noise that depends on it, and a
// checksum. One in a hundred is larger than any buffer.
func pushed(n uint64) []byte {
	source := rand.New(rand.NewPCG(n, 0))
	size := source.IntN(300)
	if n%100 == 0 {
		size = 100_000
	}
	data := binary.BigEndian.AppendUint64(make([]byte, 0, size+12), n)
	for len(data) < size {
		data = binary.BigEndian.AppendUint64(data, source.Uint64()&0x0F0F0F0F0F0F0F0F)
	}
	return binary.BigEndian.AppendUint32(data, crc32.ChecksumIEEE(data))
}

// cursor records how far a client has come in a feed.
type cursor struct {
	t       *testing.T
	repeats bool // whether messages may come again
	last    atomic.Uint64
}

// take checks that data is the next message.
func (c *cursor) take(data []byte) {
	body, sum := data[:max(0, len(data)-4)], data[max(0, len(data)-4):]
	if len(body) < 8 || crc32.ChecksumIEEE(body) != binary.BigEndian.Uint32(sum) {
		c.t.Errorf("a message of %d bytes after message %d is damaged", len(data), c.last.Load())
		return
	}
	got, want := binary.BigEndian.Uint64(body), c.last.Load()+1
	switch {
	case got < want && c.repeats:
		return
	case got != want:
		c.t.Errorf("message %d, want %d", got, want)
	}
	c.last.Store(got)
}

// feed is the server's side of TestPushesWithDrops.
type feed struct {
	t           *testing.T
	compression websocket.CompressionMode
	tasks       sync.WaitGroup

	mu   sync.Mutex
	seen uint64 // the last session that the client announced
}

// serve pushes messages until the connection breaks.
func (f *feed) serve(w http.ResponseWriter, r *http.Request) {
	f.tasks.Add(1)
	defer f.tasks.Done()
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: f.compression})
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // the connection is over
	f.tasks.Go(func() { f.listen(conn) })
	after, err := strconv.ParseUint(r.URL.Query().Get("after"), 10, 64)
	if err != nil {
		f.t.Error(err)
	}
	for n := after + 1; ; n++ {
		if conn.Write(context.Background(), websocket.MessageBinary, pushed(n)) != nil {
			return
		}
	}
}

// listen checks that the client announces each session at most once, and in order.
func (f *feed) listen(conn *websocket.Conn) {
	defer conn.CloseNow() //nolint:errcheck // the connection is over
	for {
		_, data, err := conn.Read(context.Background())
		if err != nil {
			return
		}
		f.mu.Lock()
		session := binary.BigEndian.Uint64(data)
		if session <= f.seen {
			f.t.Errorf("session %d came after session %d, want each once, in order", session, f.seen)
		}
		f.seen = session
		f.mu.Unlock()
	}
}

// brittle is a connection that breaks after some bytes, in the middle of a write, either
// by a reset or by a normal close.
type brittle struct {
	*net.TCPConn
	mu   sync.Mutex
	left int
}

func (b *brittle) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(p) < b.left {
		b.left -= len(p)
		return b.TCPConn.Write(p)
	}
	n, _ := b.TCPConn.Write(p[:b.left])
	b.left = 0
	if rand.IntN(2) == 0 {
		_ = b.SetLinger(-1) // a FIN instead of a RST: what was written arrives
	}
	_ = b.TCPConn.Close()
	return n, net.ErrClosed
}
