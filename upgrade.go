package resock

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock/internal/wire"
)

// maxResponseHeader bounds the response to the upgrade, unless the application's
// transport does.
const maxResponseHeader = 256 << 10

// handshakeBuffer is the size of net/http's buffers for the upgrade.
const handshakeBuffer = 1 << 10

// tracer watches one attempt: how far it got, and every connection that it
// dialed, so that none outlives a failure. (net/http goes on dialing after the
// request was cancelled, for the sake of later requests.)
type tracer struct {
	ctx context.Context // of the request

	mu       sync.Mutex // of what follows; a dial may go on beside the attempt
	over     bool
	phase    Phase
	offered  bool // compression
	conns    []net.Conn
	body     io.ReadWriteCloser // of a 101 response
	accepted []string           // its Sec-WebSocket-Extensions
	deflate  wire.Deflate       // what they say
	location string             // of a redirect

	// What the request is made with stands here to be one piece of garbage: pieces
	// of many sizes leave holes among what stays.
	opts   websocket.DialOptions
	client http.Client
	hooks  httptrace.ClientTrace
}

// newTracer returns the tracer of an attempt with the application's options, which
// it makes safe.
func newTracer(ctx context.Context, opts websocket.DialOptions) *tracer {
	t := &tracer{phase: PhaseTCP, opts: opts}
	if opts.HTTPClient != nil {
		t.client = *opts.HTTPClient
	}
	t.client.Transport = traced(t.client.Transport)
	t.opts.HTTPClient = &t.client
	t.opts.OnPingReceived, t.opts.OnPongReceived = nil, nil // the wire's owner calls them
	if t.offered = opts.CompressionMode != websocket.CompressionDisabled; t.offered {
		// coder/websocket neither offers nor takes all that the wire can do.
		t.opts.CompressionMode = websocket.CompressionDisabled
		t.opts.HTTPHeader = maps.Clone(opts.HTTPHeader)
		if t.opts.HTTPHeader == nil {
			t.opts.HTTPHeader = http.Header{}
		}
		t.opts.HTTPHeader.Set(extensions, wire.Offer(opts.CompressionMode == websocket.CompressionContextTakeover))
	}
	t.hooks = httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { t.reached(PhaseDNS) },
		ConnectStart:      func(string, string) { t.reached(PhaseTCP) },
		TLSHandshakeStart: func() { t.reached(PhaseTLS) },
		GotConn:           func(httptrace.GotConnInfo) { t.reached(PhaseUpgrade) },
	}
	t.ctx = httptrace.WithClientTrace(context.WithValue(ctx, tracerKey{}, t), &t.hooks)
	return t
}

func (t *tracer) reached(phase Phase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
}

// defaultTransport is the traced http.DefaultTransport, which most clients share.
// The transport of an application is copied for each attempt, since it may have
// changed.
var defaultTransport atomic.Pointer[upgrader]

// traced returns base under the tracer in the request's context.
func traced(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	transport, ok := base.(*http.Transport)
	if !ok {
		return &upgrader{transport: base}
	}
	if known := defaultTransport.Load(); known != nil && known.base == base {
		return known
	}
	u := &upgrader{base, tracedTransport(transport)}
	if base == http.DefaultTransport {
		defaultTransport.Store(u)
	}
	return u
}

// tracedTransport returns a copy of base that keeps no connection and dials by way
// of the tracer in the request's context.
func tracedTransport(base *http.Transport) *http.Transport {
	own := base.Clone()
	own.DisableKeepAlives = true
	own.Protocols = new(http.Protocols) // an upgrade needs HTTP/1, and preparing for more costs
	own.Protocols.SetHTTP1(true)
	own.MaxResponseHeaderBytes = cmp.Or(own.MaxResponseHeaderBytes, maxResponseHeader)
	// They serve one request and are garbage after it.
	own.ReadBufferSize = cmp.Or(own.ReadBufferSize, handshakeBuffer)
	own.WriteBufferSize = cmp.Or(own.WriteBufferSize, handshakeBuffer)
	own.DialContext = tracedDial(plainDialer(own))
	if own.DialTLSContext != nil {
		own.DialTLSContext = tracedDial(own.DialTLSContext)
	}
	return own
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// plainDialer is how a transport dials TCP.
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

// tracedDial ties dial to the attempt: it ends with it, and its connection is
// known.
func tracedDial(dial dialFunc) dialFunc {
	return func(detached context.Context, network, address string) (net.Conn, error) {
		t := detached.Value(tracerKey{}).(*tracer)
		conn, err := dial(t.ctx, network, address)
		if err != nil {
			return nil, err
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.over {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		t.conns = append(t.conns, conn)
		return conn, nil
	}
}

// tracerKey is where a request's context has its tracer.
type tracerKey struct{}

// upgrader keeps the connection from coder/websocket, and redirects from net/http,
// which would follow them with all credentials.
type upgrader struct {
	base      http.RoundTripper // the application's
	transport http.RoundTripper // made of it
}

func (u *upgrader) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := u.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	t := request.Context().Value(tracerKey{}).(*tracer)
	t.mu.Lock()
	defer t.mu.Unlock()
	if body, ok := response.Body.(io.ReadWriteCloser); ok && response.StatusCode == http.StatusSwitchingProtocols {
		t.body = body
		response.Body = inert{}
		t.accepted = response.Header[extensions]
		delete(response.Header, extensions)
	}
	if response.StatusCode/100 == 3 {
		if location, err := response.Location(); err == nil {
			t.location = redactURL(location.String())
		}
		response.Header.Del("Location")
	}
	return response, nil
}

// extensions is the header, in canonical form, that negotiates extensions.
const extensions = "Sec-Websocket-Extensions"

// inert is the connection that coder/websocket gets. Its buffers, which it keeps in
// pools, go on pointing to it.
type inert struct{}

func (inert) Read([]byte) (int, error)    { return 0, io.EOF }
func (inert) Write(p []byte) (int, error) { return len(p), nil }
func (inert) Close() error                { return nil }

// agreed returns what is wrong with the server's answer to the offer of compression.
func (t *tracer) agreed() (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deflate, err = wire.Accept(t.accepted, t.offered); err != nil {
		return &handshakeError{"Sec-WebSocket-Extensions: " + err.Error()}
	}
	return nil
}

// restored returns the header of the response as it came.
func (t *tracer) restored(header http.Header) http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accepted != nil {
		header[extensions] = t.accepted
	}
	return header
}

// network returns the connection beneath TLS, if exactly one is known; mu is held.
func (t *tracer) network() net.Conn {
	if len(t.conns) != 1 {
		return nil
	}
	if tls, ok := t.conns[0].(interface{ NetConn() net.Conn }); ok {
		return tls.NetConn()
	}
	return t.conns[0]
}

// upgraded ends watching after a success.
func (t *tracer) upgraded() (io.ReadWriteCloser, net.Conn, wire.Deflate) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.body, t.network(), t.deflate
}

func (t *tracer) remote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) == 0 {
		return ""
	}
	return t.conns[0].RemoteAddr().String()
}

// failed ends watching after a failure, and says what failed.
func (t *tracer) failed(err error, response *http.Response) *DialError {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	for _, conn := range t.conns {
		_ = conn.Close()
	}
	if t.body != nil {
		_ = t.body.Close()
	}
	e := &DialError{Phase: t.phase, Err: dialCause(err, t.ctx)}
	if response == nil {
		var dns *net.DNSError
		switch {
		case errors.As(err, &dns):
			e.Phase = PhaseDNS
		case badCertificate(err):
			e.Phase = PhaseTLS
		case e.Phase == PhaseUpgrade:
			e.Err = unquote(e.Err)
		}
		return e
	}
	e.Phase = PhaseUpgrade
	e.Status = response.StatusCode
	e.Location = t.location
	if response.StatusCode == http.StatusSwitchingProtocols {
		e.Phase = PhaseProtocol
		if e.Err = err; !errors.As(err, new(*handshakeError)) {
			e.Err = &handshakeError{handshakeFault(err)}
		}
		return e
	}
	e.RetryAfter = parseRetryAfter(response.Header.Get("Retry-After"), time.Now())
	e.Err = fmt.Errorf("status %d %s", e.Status, http.StatusText(e.Status))
	e.Body, _ = io.ReadAll(io.LimitReader(response.Body, 1024))
	return e
}

// dialCause takes off what net/http and coder/websocket wrap around the cause
// of a failed request: texts with the whole URL in them.
func dialCause(err error, ctx context.Context) error {
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		err = redact(urlErr.Err)
	}
	if ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		err = fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// unquote returns err without what net/http quotes in it: a response that it could
// not parse, which is our own request, secrets and all, if the server echoes.
func unquote(err error) error {
	if text, _, quoted := strings.Cut(err.Error(), ` "`); quoted {
		return errors.New(text)
	}
	return err
}

// handshakeError is a 101 response that is no WebSocket handshake.
type handshakeError struct{ fault string }

func (e *handshakeError) Error() string { return "bad handshake: " + e.fault }

// handshakeFault names what was wrong. The text of coder/websocket holds header
// values and the handshake key.
func handshakeFault(err error) string {
	for _, header := range []string{"Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Connection"} {
		if strings.Contains(err.Error(), header) {
			return header
		}
	}
	return "Upgrade"
}

// badCertificate reports whether a TLS handshake failed by the certificate.
func badCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &hostname) || errors.As(err, &invalid)
}

// parseRetryAfter reads a Retry-After header, in seconds or as a date (RFC 9110,
// section 10.2.3). What it cannot read, or lies in the past, is 0.
func parseRetryAfter(value string, now time.Time) time.Duration {
	value = strings.TrimSpace(value)
	if seconds, err := strconv.ParseInt(value, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		const most = int64(math.MaxInt64 / time.Second)
		return time.Duration(max(0, min(seconds, most))) * time.Second
	}
	if date, err := http.ParseTime(value); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
