package resock

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/resock/resock/internal/wire"
)

// maxResponseHeader bounds the header of the response to the upgrade, in bytes, unless
// the application's transport does.
const maxResponseHeader = 256 << 10

// handshakeBuffer is the size of net/http's buffers for the upgrade, in bytes.
const handshakeBuffer = 1 << 10

// watched returns what makes the request of the attempt: base, or a copy of it. The copy
// is made for each attempt, since the application may have changed base.
func (t *tracer) watched(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		return base
	}
	if !t.secure {
		return t.copied(transport, plainCopy(transport))
	}
	own := transport.Clone()
	if base == http.DefaultTransport {
		t.owner.resumeTLS(own)
	}
	return t.copied(transport, own)
}

// plainCopy returns a copy of base without what only TLS and HTTP/2 need. What is made
// for each attempt is garbage between what stays, so it had better be little.
func plainCopy(base *http.Transport) *http.Transport {
	return &http.Transport{
		Proxy:                  base.Proxy,
		OnProxyConnectResponse: base.OnProxyConnectResponse,
		ProxyConnectHeader:     base.ProxyConnectHeader,
		GetProxyConnectHeader:  base.GetProxyConnectHeader,
		DialContext:            base.DialContext,
		Dial:                   base.Dial, //lint:ignore SA1019 an application's transport may still set it
		DialTLSContext:         base.DialTLSContext,
		DialTLS:                base.DialTLS, //lint:ignore SA1019 an application's transport may still set it
		ResponseHeaderTimeout:  base.ResponseHeaderTimeout,
		MaxResponseHeaderBytes: base.MaxResponseHeaderBytes,
		WriteBufferSize:        base.WriteBufferSize,
		ReadBufferSize:         base.ReadBufferSize,
	}
}

// copied changes a copy of base: it keeps no idle connection, dials under the eyes of the
// tracer, and tunnels through proxies.
func (t *tracer) copied(base, own *http.Transport) *http.Transport {
	own.DisableKeepAlives = true
	own.DisableCompression = true       // no upgrade needs it, and middleware that compresses prevents some
	own.Protocols = new(http.Protocols) // an upgrade needs HTTP/1, and setting up HTTP/2 costs
	own.Protocols.SetHTTP1(true)
	own.MaxResponseHeaderBytes = cmp.Or(own.MaxResponseHeaderBytes, maxResponseHeader)
	t.headerLimit = own.MaxResponseHeaderBytes
	// These buffers serve one request, and are garbage after it.
	own.ReadBufferSize = cmp.Or(own.ReadBufferSize, handshakeBuffer)
	own.WriteBufferSize = cmp.Or(own.WriteBufferSize, handshakeBuffer)
	plain, secure := plainDialer(own), secureDialer(own)
	if secure != nil || !isNetDialer(plain) {
		t.dialing = newDialContext(t.owner.machine.ctx, t.ctx)
	}
	own.DialContext = t.dialer(plain)
	if secure != nil {
		own.DialTLSContext = t.dialer(secure)
	} else if t.secure {
		own.DialTLSContext = t.tlsDialer(own)
	}
	if own.Proxy != nil {
		own.OnProxyConnectResponse = t.answered(own.OnProxyConnectResponse)
		t.tunnel(base, own)
	}
	return own
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// plainDialer returns the function by which a transport dials TCP.
func plainDialer(transport *http.Transport) dialFunc {
	//lint:ignore SA1019 an application's transport may still set it
	switch legacy := transport.Dial; {
	case transport.DialContext != nil:
		return transport.DialContext
	case legacy != nil:
		return func(_ context.Context, network, address string) (net.Conn, error) { return legacy(network, address) }
	}
	return new(net.Dialer).DialContext
}

// secureDialer returns the function by which a transport dials TLS, or nil.
func secureDialer(transport *http.Transport) dialFunc {
	//lint:ignore SA1019 an application's transport may still set it
	switch legacy := transport.DialTLS; {
	case transport.DialTLSContext != nil:
		return transport.DialTLSContext
	case legacy != nil:
		return func(_ context.Context, network, address string) (net.Conn, error) { return legacy(network, address) }
	}
	return nil
}

// tlsDialer returns what dials TLS where net/http does not do what the application asks for,
// or nil: along with an upgrade it offers no protocols by ALPN, and it looks for the zone
// of an address in the certificate.
func (t *tracer) tlsDialer(own *http.Transport) dialFunc {
	config := own.TLSClientConfig
	if config == nil {
		config = new(tls.Config)
	}
	protocols := slices.DeleteFunc(slices.Clone(config.NextProtos), func(name string) bool { return name == "h2" })
	if !t.zoned && !slices.ContainsFunc(protocols, func(name string) bool { return name != "http/1.1" }) {
		return nil
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := own.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		config := config.Clone()
		if config.NextProtos = protocols; t.proxied() {
			config.NextProtos = nil // CONNECT is spoken in HTTP/1
		}
		host, _, _ := net.SplitHostPort(address)
		host, _, _ = strings.Cut(host, "%")
		config.ServerName = cmp.Or(config.ServerName, host)
		return tls.Client(conn, config), nil // net/http begins the handshake
	}
}

// isNetDialer reports whether dial is the method of a net.Dialer, as in
// http.DefaultTransport. Its connections do not depend on its context, which then need not
// be kept.
func isNetDialer(dial dialFunc) bool {
	return reflect.ValueOf(dial).Pointer() == reflect.ValueOf(new(net.Dialer).DialContext).Pointer()
}

// dialer ties dial to the attempt: dialing ends when the attempt does, and the tracer
// knows the connection.
func (t *tracer) dialer(dial dialFunc) dialFunc {
	return func(_ context.Context, network, address string) (net.Conn, error) {
		if !t.beginDial() {
			return nil, net.ErrClosed
		}
		defer t.endDial()
		ctx := t.ctx
		if t.dialing != nil {
			ctx = t.dialing
		}
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, &ownError{err}
		}
		if conn == nil {
			return nil, &ownError{errors.New("the dialer of the transport of WithHTTPClient returned neither a connection nor an error")}
		}
		if speaksHTTP2(conn) {
			_ = conn.Close()
			return nil, &ownError{errors.New("the dialer of the transport of WithHTTPClient agreed on HTTP/2 with the server: leave h2 out of its NextProtos")}
		}
		return t.noteConn(conn)
	}
}

// speaksHTTP2 reports whether a dialer has agreed on HTTP/2, over which net/http upgrades
// nothing. The connection may be one that wraps a *tls.Conn, or of another library whose
// ConnectionState has a type of its own.
func speaksHTTP2(conn net.Conn) bool {
	if secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState }); ok {
		return secure.ConnectionState().NegotiatedProtocol == "h2"
	}
	method := reflect.ValueOf(conn).MethodByName("ConnectionState")
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 || method.Type().Out(0).Kind() != reflect.Struct {
		return false
	}
	agreed := method.Call(nil)[0].FieldByName("NegotiatedProtocol")
	return agreed.IsValid() && agreed.Kind() == reflect.String && agreed.String() == "h2"
}

// beginDial notes that a dialer is called, which Run joins. It reports false if the attempt
// is over.
func (t *tracer) beginDial() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return false
	}
	t.owner.hooks.Add(1)
	t.dials++
	return true
}

func (t *tracer) endDial() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dials--
	if t.over {
		t.owner.machine.strays.Add(-1)
	}
	t.owner.hooks.Done()
}

// end ends watching; mu is held. Dialers that have not returned are left behind: net/http
// does not wait for them.
func (t *tracer) end() {
	t.over = true
	t.owner.machine.strays.Add(t.dials)
}

// noteConn notes a connection, or closes it if the attempt is over.
func (t *tracer) noteConn(conn net.Conn) (net.Conn, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		_ = conn.Close()
		return nil, net.ErrClosed
	}
	if _, secure := conn.(overNetwork); !secure { // net/http has to see that it is TLS already
		conn = wire.NewNetwork(conn)
	}
	t.conns = append(t.conns, conn)
	if conn.RemoteAddr() == nil && t.proxy != "" {
		return unnamedConn{conn}, nil
	}
	return conn, nil
}

// unnamedConn is a connection without a remote address, to a proxy: net/http's SOCKS
// client would panic.
type unnamedConn struct{ net.Conn }

func (unnamedConn) RemoteAddr() net.Addr { return &net.TCPAddr{} }

// dialContext is what the application's dialers get. It has the deadline and the values of
// the attempt, but it ends only when the attempt fails or the session is over: some
// connections live as long as the context that they were dialed with.
type dialContext struct {
	context.Context // with cancel
	deadline        time.Time
	values          *dialValues
	cancel          context.CancelCauseFunc
	detach          func() bool // from the attempt
}

// dialValues are the values of a dialContext.
type dialValues struct {
	context.Context                                 // of the client
	attempt         atomic.Pointer[context.Context] // nil once the attempt is over: it holds much memory
}

// newDialContext returns the dialContext of an attempt. Its owner must call cancel.
func newDialContext(client, attempt context.Context) *dialContext {
	c := &dialContext{values: &dialValues{Context: context.WithoutCancel(client)}}
	c.deadline, _ = attempt.Deadline()
	values := context.WithoutCancel(attempt)
	c.values.attempt.Store(&values)
	c.Context, c.cancel = context.WithCancelCause(c.values)
	c.detach = context.AfterFunc(attempt, func() { c.cancel(attempt.Err()) })
	return c
}

func (c *dialContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Err tells a timeout as such.
func (c *dialContext) Err() error {
	if c.Context.Err() == nil {
		return nil
	}
	return context.Cause(c.Context)
}

func (v *dialValues) Value(key any) any {
	if attempt := v.attempt.Load(); attempt != nil {
		return (*attempt).Value(key)
	}
	return v.Context.Value(key)
}

// tickets keeps a client's TLS sessions, so that a reconnect can resume one.
type tickets struct {
	cache tls.ClientSessionCache
	roots *x509.CertPool // that the sessions were verified against
}

// maxTickets is how many servers a client keeps TLS sessions of: a few that it fails over
// to, and a proxy.
const maxTickets = 4

// resumeTLS lets a copy of http.DefaultTransport resume sessions, unless the
// application decides on more than the roots: a resumed session is not verified by
// VerifyPeerCertificate, and goes on with the client certificate that it began with.
func (c *Client) resumeTLS(transport *http.Transport) {
	config := transport.TLSClientConfig
	switch {
	case config == nil:
		config = new(tls.Config)
		transport.TLSClientConfig = config
	case config.ClientSessionCache != nil, config.VerifyPeerCertificate != nil,
		config.GetClientCertificate != nil, len(config.Certificates) > 0:
		return
	}
	known := c.tickets.Load()
	if known == nil || known.roots != config.RootCAs {
		known = &tickets{tls.NewLRUClientSessionCache(maxTickets), config.RootCAs}
		c.tickets.Store(known)
	}
	config.ClientSessionCache = known.cache
}

// overNetwork is what a TLS connection is.
type overNetwork interface{ NetConn() net.Conn }
