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
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock/internal/redact"
	"github.com/resock/resock/internal/wire"
)

// tracer watches one attempt: how far it got, and every connection that it dialed, so
// that none outlives a failure. (net/http goes on dialing after a request was canceled,
// for the sake of later requests.)
type tracer struct {
	owner  *Client
	ctx    context.Context // of the request
	secure bool            // TLS to the server
	zoned  bool            // the server is an IPv6 address with a zone

	// Only the goroutine of the attempt changes these, before the request.
	dialing     *dialContext // of the application's dialer; nil if it is net/http's
	headerLimit int64        // of the copied transport; 0 if the application's makes the request itself

	mu       sync.Mutex // guards what follows: a dial may outlast the attempt
	over     bool
	dials    int32 // dialers that have not returned
	phase    Phase
	offered  bool       // compression was offered
	proxy    string     // that the connection goes through, redacted
	tunnels  *connector // through that proxy, if net/http does not
	through  bool       // the proxy no longer matters
	conns    []net.Conn
	sent     *http.Request      // as the transport got it
	changed  *http.Request      // as the transport made it, if it is another; or nil
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

// newTracer returns the tracer of an attempt of c. It changes its copy of the
// application's options so that everything passes by the tracer.
func newTracer(ctx context.Context, c *Client, to target, opts websocket.DialOptions) *tracer {
	t := &tracer{owner: c, secure: strings.HasPrefix(to.redacted, "wss"), zoned: to.zoned, phase: PhaseTCP, opts: opts}
	t.trace(ctx)
	t.client = *cmp.Or(opts.HTTPClient, http.DefaultClient)
	t.client.Transport = &upgrader{t, t.watched(t.client.Transport)}
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
	return t
}

// trace prepares the context of the request.
func (t *tracer) trace(ctx context.Context) {
	t.hooks = httptrace.ClientTrace{
		DNSStart:          func(httptrace.DNSStartInfo) { t.reached(PhaseDNS) },
		ConnectStart:      func(string, string) { t.reached(PhaseTCP) },
		TLSHandshakeStart: func() { t.reached(PhaseTLS) },
		TLSHandshakeDone:  func(_ tls.ConnectionState, err error) { t.secured(err) },
		GotConn:           func(httptrace.GotConnInfo) { t.connected() },
	}
	t.ctx = httptrace.WithClientTrace(ctx, &t.hooks)
}

func (t *tracer) reached(phase Phase) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase = phase
}

// secured notes the end of a TLS handshake. If it was the one with a proxy, asking for the
// tunnel follows.
func (t *tracer) secured(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil && t.proxy != "" && !t.through {
		t.phase = PhaseTCP
	}
}

// connected notes that nothing is left but the upgrade.
func (t *tracer) connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.phase, t.through = PhaseUpgrade, true
}

// upgrader keeps the connection from coder/websocket, and redirects from net/http,
// which would follow them with all credentials.
type upgrader struct {
	t         *tracer
	transport http.RoundTripper
}

func (u *upgrader) RoundTrip(request *http.Request) (*http.Response, error) {
	t := u.t
	if t.headerLimit > 0 { // the application's transport may look for canonical names
		spell(request.Header)
	}
	t.noteSent(request)
	response, err := u.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	if response == nil {
		return nil, &ownError{errors.New("the transport of WithHTTPClient returned neither a response nor an error")}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if made := response.Request; made != request && made != nil && made.URL != nil {
		t.changed = made
	}
	if body, ok := response.Body.(io.ReadWriteCloser); ok && response.StatusCode == http.StatusSwitchingProtocols {
		t.body = body
		response.Body = inert{}
		t.accepted = response.Header[extensions]
		delete(response.Header, extensions)
	}
	if response.StatusCode/100 == 3 {
		if location, err := response.Location(); err == nil {
			t.location = redact.URL(location.String())
			if t.tells(location.Path) { // its host may stand in an Origin
				t.location = "redacted"
			}
		}
		response.Header.Del("Location")
	}
	return response, nil
}

// spell gives the fields of the handshake the case of RFC 6455, which some servers insist
// on.
func spell(header http.Header) {
	const canonical, spelled = "Sec-Websocket-", "Sec-WebSocket-"
	for _, name := range [...]string{"Extensions", "Key", "Protocol", "Version"} {
		if values, ok := header[canonical+name]; ok {
			delete(header, canonical+name)
			header[spelled+name] = values
		}
	}
}

func (t *tracer) noteSent(request *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sent = request
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

// agreed notes what the server answered to the offers. The error says what is wrong with
// the answer.
func (t *tracer) agreed(header http.Header) (err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deflate, err = wire.Accept(t.accepted, t.offered); err != nil {
		return &handshakeError{"Sec-WebSocket-Extensions: " + err.Error()}
	}
	if n := len(header.Values("Sec-WebSocket-Protocol")); n > 1 {
		return &handshakeError{fmt.Sprintf("Sec-WebSocket-Protocol came %d times, want once", n)}
	}
	if len(t.opts.Subprotocols) > 0 && header.Get("Sec-WebSocket-Protocol") == "" {
		return &handshakeError{fmt.Sprintf("the server chose no subprotocol, want one of %q (WithSubprotocols)", redact.Subprotocols(t.opts.Subprotocols))}
	}
	return nil
}

// asOffered returns the subprotocol that the server chose in the case in which it was
// offered: servers may answer in another.
func (t *tracer) asOffered(chosen string) string {
	i := slices.IndexFunc(t.opts.Subprotocols, func(name string) bool { return strings.EqualFold(name, chosen) })
	if i < 0 || slices.Contains(t.opts.Subprotocols, chosen) {
		return chosen
	}
	return t.opts.Subprotocols[i]
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

// inTime reports whether the attempt has not ended. The context of the application's
// dialer then no longer ends with it.
func (t *tracer) inTime() bool {
	if t.dialing != nil {
		return t.dialing.detach()
	}
	return t.ctx.Err() == nil
}

// upgraded ends watching after a success, and returns what the wire starts with, and what
// ends the context of the application's dialer, or nil.
func (t *tracer) upgraded() (body io.ReadWriteCloser, network net.Conn, deflate wire.Deflate, release context.CancelCauseFunc) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end()
	if t.dialing != nil {
		t.dialing.values.attempt.Store(nil)
		release = t.dialing.cancel
	}
	network = t.network()
	if meter, ok := network.(*wire.Network); ok && !t.secure && t.proxy == "" {
		meter.Direct()
	}
	return t.body, network, t.deflate, release
}

func (t *tracer) remote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.conns) == 0 {
		return ""
	}
	if address := t.conns[0].RemoteAddr(); address != nil {
		return address.String()
	}
	return ""
}

// failed ends watching after a failure, closes what was dialed, and says what failed.
func (t *tracer) failed(err error, response *http.Response) *DialError {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.end()
	if t.dialing != nil {
		t.dialing.detach()
		t.dialing.cancel(cmp.Or(t.ctx.Err(), context.Canceled)) // who notices a timeout first does not matter
	}
	for _, conn := range t.conns {
		_ = conn.Close()
	}
	if t.body != nil {
		_ = t.body.Close()
	}
	switch {
	case response == nil:
		return t.unanswered(err)
	case response.StatusCode == http.StatusSwitchingProtocols:
		return t.misupgraded(err, response)
	}
	return t.refused(response)
}

// unanswered describes an attempt that failed before there was a response; mu is held.
func (t *tracer) unanswered(err error) *DialError {
	e := &DialError{Phase: t.phase}
	var dns *net.DNSError
	var refusal *proxyRefusal
	switch {
	case errors.As(err, &refusal):
		e.Phase, e.Status, e.RetryAfter = PhaseTCP, refusal.status, refusal.retryAfter
	case errors.As(err, &dns):
		e.Phase = PhaseDNS
	case badCertificate(err):
		e.Phase = PhaseTLS
	}
	cause := t.cause(err)
	if ended := t.ctx.Err(); ended != nil && (errors.Is(cause, context.DeadlineExceeded) || errors.Is(cause, context.Canceled)) {
		cause = ended // who noticed it first does not matter
	}
	e.Err = t.owner.config.late(t.ctx, t.discreet(t.named(cause)))
	return e
}

// misupgraded describes a 101 response that is wrong; mu is held.
func (t *tracer) misupgraded(err error, response *http.Response) *DialError {
	e := &DialError{Phase: PhaseProtocol, Status: http.StatusSwitchingProtocols, Err: err}
	if t.ctx.Err() != nil {
		e.Err = t.owner.config.late(t.ctx, t.ctx.Err())
	} else if !errors.As(err, new(*handshakeError)) {
		e.Err = t.discreet(&handshakeError{t.handshakeFault(response)})
	}
	return e
}

// discreet returns err, or an error without its text if that repeats what was sent; mu is
// held.
func (t *tracer) discreet(err error) error {
	if t.tells(err.Error()) {
		return &hiddenError{"the text of the error repeats what was sent, and is withheld", err}
	}
	return err
}

// tells reports whether text contains a secret that was sent; mu is held.
func (t *tracer) tells(text string) bool { return redact.Repeats(text, t.sent, t.changed) }

// maxBodyText bounds what an error tells of the server's body, and of the text behind its
// status, in bytes.
const maxBodyText = 120

// refused describes a response other than 101; mu is held.
func (t *tracer) refused(response *http.Response) *DialError {
	e := &DialError{
		Phase:      PhaseUpgrade,
		Status:     response.StatusCode,
		RetryAfter: parseRetryAfter(response.Header.Get("Retry-After"), time.Now()),
		Location:   t.location,
	}
	e.Body, _ = io.ReadAll(io.LimitReader(response.Body, 1024))
	text := statusText(response, t.sent, t.changed) + ", want 101"
	switch {
	case e.Location != "":
		text += fmt.Sprintf(": redirects to %s are not followed, dial it yourself (WithEndpoint)", e.Location)
	case e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden:
		text += " (credentials for each attempt: WithEndpoint)"
	case e.RetryAfter > 0:
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	if body := t.quotable(response, e.Body); body != "" && e.Location == "" {
		text += fmt.Sprintf(": %q", body)
	}
	e.Err = t.discreet(errors.New(text))
	return e
}

// quotable returns what an error may tell of the body of a response; mu is held. That is
// nothing if the body is compressed, or repeats what was sent.
func (t *tracer) quotable(response *http.Response, body []byte) string {
	text := redact.Printable(body, maxBodyText)
	if response.Header.Get("Content-Encoding") != "" || t.tells(string(body)) || t.tells(text) {
		return ""
	}
	return text
}

// statusText returns "status 404 Not Found". The text is the one that came, which may be all
// that says what is wrong, unless it repeats what the requests sent.
func statusText(response *http.Response, requests ...*http.Request) string {
	code := strconv.Itoa(response.StatusCode)
	came := strings.TrimPrefix(response.Status, code)
	text := redact.Printable([]byte(came), maxBodyText)
	goes := "status code " + code // what Go's servers send if they know no text
	if text == "" || text == goes || redact.Repeats(came, requests...) || redact.Repeats(text, requests...) {
		text = http.StatusText(response.StatusCode)
	}
	return strings.TrimSpace("status " + code + " " + text)
}

// cause returns what failed without the texts of net/http and coder/websocket around it,
// which contain the whole URL; mu is held.
func (t *tracer) cause(err error) error {
	var request *url.Error
	if errors.As(err, &request) {
		err = request.Err
	}
	var connect *net.OpError
	if errors.As(err, &connect) && connect.Op == "proxyconnect" {
		err = connect.Err
	}
	var own *ownError
	switch {
	case errors.As(err, &own):
		return redact.Error(own.err)
	case errors.Is(err, context.DeadlineExceeded) && t.ctx.Err() == nil && t.client.Timeout > 0:
		return &limitError{"http.Client.Timeout", t.client.Timeout, context.DeadlineExceeded}
	case errors.Is(err, http.ErrSchemeMismatch):
		return errors.New("the server speaks HTTP without TLS: use ws in place of wss, or its port for TLS")
	case t.phase == PhaseTLS && errors.Is(err, io.EOF):
		return fmt.Errorf("the server ended the connection during the handshake, as one without TLS may do: %w", err)
	case refusedCertificate(err) != nil:
		return fmt.Errorf("%w: the server wants another client certificate (TLSClientConfig of the transport of WithHTTPClient)", refusedCertificate(err))
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("%w: trust it by RootCAs (TLSClientConfig of the transport of WithHTTPClient)", redact.Error(err))
	case t.headerLimit == 0: // the application's transport knows best
	case t.phase == PhaseUpgrade:
		return unreadable(err, "response", t.headerLimit)
	case t.proxy != "" && !t.through && t.phase == PhaseTCP:
		return unreadable(err, "answer to CONNECT", t.headerLimit)
	}
	return redact.Error(err)
}

// unreadable describes the failure to read an answer over HTTP. net/http quotes what it
// cannot parse: if the server echoes, that is our own request, secrets included.
func unreadable(err error, answer string, limit int64) error {
	var network net.Error
	var refusal *proxyRefusal
	var hidden *hiddenError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("the connection ended before the %s: %w", answer, io.ErrUnexpectedEOF)
	case errors.As(err, &network):
		return redact.Error(network)
	case errors.As(err, &refusal):
		return refusal
	case errors.As(err, &hidden):
		return hidden
	case errors.Is(err, context.Canceled), errors.Is(err, net.ErrClosed):
		return err
	}
	switch line := malformed(err); {
	case strings.HasPrefix(line, "\x15\x03"): // an alert (RFC 8446, section 5.1)
		return fmt.Errorf("the %s is TLS, not HTTP: use wss in place of ws, or https in the URL of a proxy", answer)
	case len(line) > 8 && line[:2] == "\x00\x00" && line[3:9] == "\x04\x00\x00\x00\x00\x00": // settings (RFC 9113, section 6.5)
		return fmt.Errorf("the %s is HTTP/2, where an upgrade needs HTTP/1.1 (RFC 6455, section 4.1)", answer)
	}
	return fmt.Errorf("the %s is not HTTP, or its header is longer than %d bytes", answer, limit)
}

// malformed returns what came in place of the first line of an answer, which net/http
// quotes, or nothing.
func malformed(err error) string {
	_, rest, _ := strings.Cut(err.Error(), "malformed HTTP response ")
	quoted, _ := strconv.QuotedPrefix(rest)
	line, _ := strconv.Unquote(quoted)
	return line
}

// ownError is an error of a function of the application, so that it is told from those of
// net/http.
type ownError struct{ err error }

func (e *ownError) Error() string { return e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

// handshakeError says that a 101 response is not a valid WebSocket handshake.
type handshakeError struct{ fault string }

func (e *handshakeError) Error() string { return "bad handshake: " + e.fault }

// handshakeFault returns what is wrong with the header of a 101 response (RFC 6455,
// section 4.1), where coder/websocket found a fault; mu is held.
func (t *tracer) handshakeFault(response *http.Response) string {
	const most = 40 // bytes of a value that came
	header := response.Header
	came := func(name string) string {
		if t.tells(header.Get(name)) {
			return "(withheld)"
		}
		return redact.Printable([]byte(header.Get(name)), most)
	}
	switch chosen := came("Sec-WebSocket-Protocol"); {
	case response.Close && header.Get("Connection") == "": // net/http has removed it
		return "Connection has close, want Upgrade alone"
	case !hasToken(header["Connection"], "upgrade"):
		return fmt.Sprintf("Connection is %q, want Upgrade", came("Connection"))
	case !hasToken(header["Upgrade"], "websocket"):
		return fmt.Sprintf("Upgrade is %q, want websocket", came("Upgrade"))
	case chosen != "" && len(t.opts.Subprotocols) == 0:
		return fmt.Sprintf("Sec-WebSocket-Protocol is %q, but none was offered (WithSubprotocols)", chosen)
	case chosen != "" && !slices.ContainsFunc(t.opts.Subprotocols, func(name string) bool { return strings.EqualFold(name, chosen) }):
		return fmt.Sprintf("Sec-WebSocket-Protocol is %q, want one of %q (WithSubprotocols)", chosen, redact.Subprotocols(t.opts.Subprotocols))
	case t.body == nil:
		return "the transport of WithHTTPClient hides the connection: the body of its response is no io.ReadWriteCloser"
	}
	return "Sec-WebSocket-Accept does not belong to the key that was sent"
}

// hasToken reports whether a header with a list of tokens has the token.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for other := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(other), token) {
				return true
			}
		}
	}
	return false
}

// badCertificate reports whether a TLS handshake failed because of the certificate.
func badCertificate(err error) bool {
	if hidden := (*hiddenError)(nil); errors.As(err, &hidden) {
		err = hidden.err
	}
	var verification *tls.CertificateVerificationError
	var authority x509.UnknownAuthorityError
	var hostname x509.HostnameError
	var invalid x509.CertificateInvalidError
	return errors.As(err, &verification) || errors.As(err, &authority) ||
		errors.As(err, &hostname) || errors.As(err, &invalid) || refusedCertificate(err) != nil
}

// refusedCertificate returns the alert by which the server refused the client's
// certificate, or that there is none, or nil. In TLS 1.3 it comes when the client's
// handshake is done already.
func refusedCertificate(err error) error {
	var remote *net.OpError
	if !errors.As(err, &remote) || remote.Op != "remote error" {
		return nil
	}
	alert := reflect.ValueOf(remote.Err) // of a type that crypto/tls does not export
	if alert.Kind() != reflect.Uint8 {
		return nil
	}
	switch alert.Uint() {
	case 42, 43, 44, 45, 46, 48, 49, 116: // RFC 8446, section 6.2: bad certificate to unknown authority, access denied, required
		return remote
	}
	return nil
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
