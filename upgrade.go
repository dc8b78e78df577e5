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

// maxResponseHeader bounds the header of the response to the upgrade, in bytes, unless
// the application's transport does.
const maxResponseHeader = 256 << 10

// handshakeBuffer is the size of net/http's buffers for the upgrade, in bytes.
const handshakeBuffer = 1 << 10

// tracer watches one attempt: how far it got, and every connection that it dialed, so
// that none outlives a failure. (net/http goes on dialing after a request was canceled,
// for the sake of later requests.)
type tracer struct {
	ctx context.Context // of the request

	mu       sync.Mutex // guards what follows: a dial may outlast the attempt
	over     bool
	phase    Phase
	offered  bool // compression was offered
	conns    []net.Conn
	body     io.ReadWriteCloser // of a 101 response
	accepted []string           // Sec-WebSocket-Extensions of a 101 response
	deflate  wire.Deflate       // the compression that was agreed upon
	location string             // of a redirect, redacted

	// What the request is made with is part of the tracer, and so one piece of garbage:
	// pieces of many sizes would leave holes between what stays.
	opts   websocket.DialOptions
	client http.Client
	hooks  httptrace.ClientTrace
}

// newTracer returns the tracer of an attempt. It changes its copy of the application's
// options so that everything passes by the tracer.
func newTracer(ctx context.Context, opts websocket.DialOptions) *tracer {
	t := &tracer{phase: PhaseTCP, opts: opts}
	if opts.HTTPClient != nil {
		t.client = *opts.HTTPClient
	}
	t.client.Transport = traced(t.client.Transport)
	t.opts.HTTPClient = &t.client
	t.opts.OnPingReceived, t.opts.OnPongReceived = nil, nil // the wire's owner calls them
	if t.offered = opts.CompressionMode != websocket.CompressionDisabled; t.offered {
		// coder/websocket neither offers nor accepts all that the wire can do.
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

// defaultTransport is the traced http.DefaultTransport, which most clients share. An
// application's own transport is copied for each attempt, since it may have changed.
var defaultTransport atomic.Pointer[upgrader]

// traced returns base, watched by the tracer in the request's context.
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

// tracedTransport returns a copy of base that keeps no idle connection and dials through
// the tracer in the request's context.
func tracedTransport(base *http.Transport) *http.Transport {
	own := base.Clone()
	own.DisableKeepAlives = true
	own.Protocols = new(http.Protocols) // an upgrade needs HTTP/1, and setting up HTTP/2 costs
	own.Protocols.SetHTTP1(true)
	own.MaxResponseHeaderBytes = cmp.Or(own.MaxResponseHeaderBytes, maxResponseHeader)
	// These buffers serve one request, and are garbage after it.
	own.ReadBufferSize = cmp.Or(own.ReadBufferSize, handshakeBuffer)
	own.WriteBufferSize = cmp.Or(own.WriteBufferSize, handshakeBuffer)
	own.DialContext = tracedDial(plainDialer(own))
	if own.DialTLSContext != nil {
		own.DialTLSContext = tracedDial(own.DialTLSContext)
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

// tracedDial ties dial to the attempt: dialing ends when the attempt does, and the tracer
// knows the connection.
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
		if _, secure := conn.(overNetwork); !secure { // net/http has to see that it is TLS already
			conn = wire.NewNetwork(conn)
		}
		t.conns = append(t.conns, conn)
		return conn, nil
	}
}

// overNetwork is what a TLS connection is.
type overNetwork interface{ NetConn() net.Conn }

// tracerKey is the key of the tracer in a request's context.
type tracerKey struct{}

// upgrader keeps the connection from coder/websocket, and redirects from net/http,
// which would follow them with all credentials.
type upgrader struct {
	base      http.RoundTripper // what transport is a copy of; nil if it is none
	transport http.RoundTripper
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

// extensions is the header that negotiates extensions (RFC 6455, section 11.3.2), in the
// canonical form of net/http.
const extensions = "Sec-Websocket-Extensions"

// inert is the connection that coder/websocket gets. The buffers that coder/websocket
// keeps in pools go on pointing to it, and so hold nothing in memory.
type inert struct{}

func (inert) Read([]byte) (int, error)    { return 0, io.EOF }
func (inert) Write(p []byte) (int, error) { return len(p), nil }
func (inert) Close() error                { return nil }

// agreed notes what the server answered to the offer of compression. The error says what
// is wrong with the answer.
func (t *tracer) agreed() (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deflate, err = wire.Accept(t.accepted, t.offered); err != nil {
		return &handshakeError{"Sec-WebSocket-Extensions: " + err.Error()}
	}
	return nil
}

// restored returns the header of the response as the server sent it.
func (t *tracer) restored(header http.Header) http.Header {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.accepted != nil {
		header[extensions] = t.accepted
	}
	return header
}

// network returns the connection beneath TLS, if exactly one is known; mu is held. It is a
// [wire.Network] unless the application dials TLS itself.
func (t *tracer) network() net.Conn {
	if len(t.conns) != 1 {
		return nil
	}
	if tls, ok := t.conns[0].(overNetwork); ok {
		return tls.NetConn()
	}
	return t.conns[0]
}

// upgraded ends watching after a success, and returns what the wire starts with.
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

// failed ends watching after a failure, closes what was dialed, and says what failed.
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

// dialCause strips what net/http and coder/websocket wrap around the cause of a failed
// request: texts that contain the whole URL.
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

// unquote returns err without what net/http quotes in it: a response that it could not
// parse. If the server echoes, that is our own request, secrets included.
func unquote(err error) error {
	if text, _, quoted := strings.Cut(err.Error(), ` "`); quoted {
		return errors.New(text)
	}
	return err
}

// handshakeError says that a 101 response is not a valid WebSocket handshake.
type handshakeError struct{ fault string }

func (e *handshakeError) Error() string { return "bad handshake: " + e.fault }

// handshakeFault names the header that was wrong, in place of the text of
// coder/websocket, which contains header values and the handshake key.
func handshakeFault(err error) string {
	for _, header := range []string{"Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Connection"} {
		if strings.Contains(err.Error(), header) {
			return header
		}
	}
	return "Upgrade"
}

// badCertificate reports whether a TLS handshake failed because of the certificate.
func badCertificate(err error) bool {
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &hostname) || errors.As(err, &invalid)
}

// parseRetryAfter reads a Retry-After header, in seconds or as a date (RFC 9110,
// section 10.2.3). A value that is invalid or lies in the past is 0.
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
