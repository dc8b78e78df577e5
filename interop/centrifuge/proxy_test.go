package centrifuge

import (
	"net"
	"sync"
	"testing"
)

// proxy passes TCP connections on to a server, and cuts them.
type proxy struct {
	listener net.Listener
	running  sync.WaitGroup

	mu     sync.Mutex
	target string
	over   bool
	links  map[*link]struct{}
}

// newProxy returns a proxy that runs until the test ends.
func newProxy(t *testing.T, target string) *proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener, target: target, links: make(map[*link]struct{})}
	p.running.Go(p.serve)
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) url() string { return "ws://" + p.listener.Addr().String() }

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.running.Go(func() { p.link(client) })
	}
}

// stop cuts all connections and joins.
func (p *proxy) stop() {
	_ = p.listener.Close()
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	p.cut(0)
	p.running.Wait()
}

// redirect lets later connections go to another server.
func (p *proxy) redirect(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// link passes on what comes on a connection, until one side ends it.
func (p *proxy) link(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	l := &link{client: client, server: server, left: unlimited}
	defer l.close()
	if !p.add(l) {
		return
	}
	defer p.remove(l)
	p.running.Go(func() {
		defer l.close()
		l.pass(server, client, func(n int) int { return n })
	})
	l.pass(client, server, l.take)
}

func (p *proxy) add(l *link) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.links[l] = struct{}{}
	return !p.over
}

func (p *proxy) remove(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// cut kills each connection once n more bytes have come from the server.
func (p *proxy) cut(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.condemn(n)
	}
}

// connected reports whether there is a connection that is not to be killed.
func (p *proxy) connected() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		if l.whole() {
			return true
		}
	}
	return false
}

const unlimited = -1

// link is one connection through the proxy.
type link struct {
	client, server net.Conn

	mu   sync.Mutex
	left int // how many bytes from the server still pass
}

func (l *link) whole() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left == unlimited
}

// condemn kills the link once n more bytes have come from the server, unless that is to happen
// already. If n is 0, it kills it now.
func (l *link) condemn(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == unlimited {
		l.left = n
	}
	if n == 0 {
		l.kill()
	}
}

// take returns how many of n bytes from the server pass.
func (l *link) take(n int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left == unlimited {
		return n
	}
	n = min(n, l.left)
	l.left -= n
	return n
}

// pass copies bytes as long as take lets all of them pass. Otherwise it kills the link.
func (l *link) pass(to, from net.Conn, take func(n int) int) {
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		passing := take(n)
		if _, failed := to.Write(buffer[:passing]); failed != nil || err != nil {
			return
		}
		if passing < n {
			l.kill()
			return
		}
	}
}

// kill cuts both connections: what is under way is lost.
func (l *link) kill() {
	for _, conn := range []net.Conn{l.client, l.server} {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	l.close()
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}
