package resock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock/internal/header"
	"github.com/resock/resock/internal/redact"
)

// Endpoint is where to dial, and what to ask for. Its zero value is what the options say.
// The client keeps none of it beyond the attempt.
type Endpoint struct {
	URL          string      // if empty, the URL given to New
	Header       http.Header // if not nil, in place of WithHeader
	Subprotocols []string    // if not empty, in place of WithSubprotocols
	Host         string      // if not empty, the Host of the request, in place of the URL's
}

// fault says why the endpoint cannot be dialed, apart from its URL, or returns nothing.
func (e *Endpoint) fault() string {
	if name, bad := header.FindBad(e.Header); bad != "" {
		return fmt.Sprintf("the header %s %s", name, bad)
	}
	if name, bad := header.FindBadSubprotocol(e.Subprotocols); bad != "" {
		return fmt.Sprintf("the subprotocol %q %s", redact.Subprotocol(name), bad)
	}
	return header.BadHost(e.Host)
}

// Attempt tells the function of [WithEndpoint] about the attempt that begins. If Err is
// about a failed attempt it has a [*DialError], with the status of a refusal; the code of
// a close is [websocket.CloseStatus](Err).
type Attempt struct {
	N        int           // which attempt in a row, from 1
	Session  uint64        // number of the last session opened, or 0
	Downtime time.Duration // since the last session ended, or 0
	Err      error         // why the last attempt or session ended; nil if the application ended it
}

// dial makes one attempt, OnOpen included, until ctx ends. It keeps its phase in at.
func (c *Client) dial(ctx context.Context, attempt Attempt, at *atomic.Int32) (*session, error) {
	started := time.Now()
	target, opts, err := c.whereTo(ctx, attempt)
	if err != nil {
		return nil, &DialError{Phase: PhaseEndpoint, Err: err}
	}

	at.Store(int32(PhaseTCP))
	t := newTracer(ctx, c, target, opts)
	conn, response, err := websocket.Dial(t.ctx, target.url, &t.opts)
	if err == nil {
		_ = conn.CloseNow() // returns its buffers to the pools; its connection is inert
		err = t.agreed(response.Header)
	}
	if err != nil {
		return nil, t.failed(err, response)
	}
	if !t.inTime() { // the attempt may have been left behind meanwhile
		return nil, t.failed(ctx.Err(), nil)
	}
	s := &session{client: c, id: attempt.Session + 1}
	s.event = OpenEvent{
		Time:        started,
		Session:     s.id,
		URL:         target.redacted,
		Subprotocol: t.asOffered(conn.Subprotocol()),
		Attempt:     attempt.N,
	}
	s.start(t.upgraded())
	if c.config.onOpen != nil {
		at.Store(int32(PhaseSetup))
		if err := s.register(ctx, t.restored(response.Header), t.remote()); err != nil {
			if e := s.discard(err); e.phase == PhaseProtocol && !permanent(err) {
				return nil, &DialError{Phase: PhaseProtocol, Err: e.err}
			}
			return nil, &DialError{Phase: PhaseSetup, Err: c.config.late(ctx, redactHook(err))}
		}
	}
	return s, nil
}

// whereTo asks the endpoint hook, if there is one, where to dial.
func (c *Client) whereTo(ctx context.Context, attempt Attempt) (target target, opts websocket.DialOptions, err error) {
	target, opts = c.config.target, c.config.dial
	var endpoint Endpoint
	if c.config.endpoint != nil {
		if endpoint, err = c.config.endpoint(ctx, attempt); err != nil {
			return target, opts, c.config.late(ctx, redactHook(err))
		}
		if endpoint.Header != nil {
			opts.HTTPHeader = endpoint.Header
		}
		if len(endpoint.Subprotocols) > 0 {
			opts.Subprotocols = endpoint.Subprotocols
		}
		var fault string
		if target, fault = parseTarget(cmp.Or(endpoint.URL, target.url)); fault != "" {
			return target, opts, errors.New(fault)
		}
		if fault = endpoint.fault(); fault != "" {
			return target, opts, errors.New(fault)
		}
		c.noteTarget(target)
	}
	opts.HTTPHeader, opts.Host = header.SplitHost(header.Recognizable(opts.HTTPHeader), opts.Host)
	opts.Host = cmp.Or(endpoint.Host, opts.Host)
	return target, opts, nil
}

// dialed is the outcome of an attempt.
type dialed struct {
	session *session
	err     error
}

// maxStrays bounds the attempts that are left behind in hooks that do not return.
const maxStrays = 4

// attempt runs f, a part of an attempt, until ctx ends or the application no longer wants
// this connection, which canceled reports. If f does not return then, it is left behind. f
// keeps its phase in at, which is nil for the dial limiter.
func (l *loop) attempt(ctx context.Context, cancel context.CancelFunc, at *atomic.Int32, f func() (*session, error)) (s *session, err error, canceled bool) {
	defer cancel()
	c := l.c
	outcome := make(chan dialed, 1)
	c.hooks.Go(func() {
		d := dialed{err: errHookExited}
		defer func() { outcome <- d }()
		d.session, d.err = f()
	})
	done := ctx.Done()
	var late <-chan time.Time
	for {
		select {
		case d := <-outcome:
			if d.err == errHookExited {
				phase, _ := hookAt(at)
				d.err = &DialError{Phase: phase, Err: d.err}
			}
			return d.session, d.err, canceled
		case <-c.wake:
			if l.fated() || !c.wanted().allows() {
				canceled = true
				cancel()
			}
		case <-done:
			done = nil
			timer := time.NewTimer(patience)
			defer timer.Stop()
			late = timer.C
		case <-late:
			return nil, l.leaveBehind(ctx, outcome, at), canceled
		case <-c.events.abort:
			return nil, l.leaveBehind(ctx, outcome, at), canceled
		}
	}
}

// leaveBehind gives up an attempt whose hook does not return.
func (l *loop) leaveBehind(ctx context.Context, outcome <-chan dialed, at *atomic.Int32) error {
	l.strays.Add(1)
	l.c.hooks.Go(func() {
		defer l.strays.Add(-1)
		if d := <-outcome; d.session != nil {
			d.session.discard(context.Canceled)
		}
	})
	phase, hook := hookAt(at)
	l.c.hooks.overstays(hook)
	err := fmt.Errorf("the function of %s has not returned", hook)
	if ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", context.Canceled, err)
	}
	return &DialError{Phase: phase, Err: l.c.config.late(ctx, err)}
}

// hookAt returns the phase of an attempt, and the option whose function it may be in.
func hookAt(at *atomic.Int32) (phase Phase, hook string) {
	if at == nil {
		return PhaseEndpoint, "WithDialLimiter"
	}
	switch phase = Phase(at.Load()); phase {
	case PhaseEndpoint:
		return phase, "WithEndpoint"
	case PhaseSetup:
		return phase, "WithOnOpen"
	}
	return phase, "WithHTTPClient"
}

// dialFailure describes a failed attempt to the retry policy.
func dialFailure(err error, attempt int) Failure {
	f := Failure{Err: err, Attempt: attempt, Code: websocket.CloseStatus(err)}
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		f.Reason = closed.Reason
	}
	var violation *ProtocolError
	if errors.As(err, &violation) {
		f.Code = violation.Code
	}
	var dial *DialError
	if errors.As(err, &dial) {
		f.Phase, f.Status, f.RetryAfter = dial.Phase, dial.Status, dial.RetryAfter
	}
	return f
}

// target is where to dial.
type target struct {
	url      string
	redacted string
	loopback bool // on this machine: it needs no network
	zoned    bool // an IPv6 address with a zone
}

// parseTarget parses a URL. fault says why it cannot be dialed, and is empty if it can.
func parseTarget(raw string) (t target, fault string) {
	u, err := url.Parse(raw)
	switch {
	case raw == "":
		return t, "the URL is empty"
	case err != nil:
		return t, "the URL cannot be parsed"
	case u.Scheme != "ws" && u.Scheme != "wss":
		return t, "the URL's scheme must be ws or wss"
	case u.Hostname() == "":
		return t, "the URL has no host"
	case u.Fragment != "":
		return t, "a WebSocket URL has no fragment (RFC 6455, section 3)"
	}
	u.Host, u.RawQuery = withoutDefaultPort(u), encodeQuery(u.RawQuery)
	address, err := netip.ParseAddr(u.Hostname())
	loopback := u.Hostname() == "localhost" || err == nil && address.Unmap().IsLoopback()
	return target{url: u.String(), redacted: redact.Parsed(u), loopback: loopback, zoned: address.Zone() != ""}, ""
}

// withoutDefaultPort returns the host of a URL, with its port unless that is the default,
// which a request does not tell (RFC 6455, section 4.1).
func withoutDefaultPort(u *url.URL) string {
	port := map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	if u.Port() != port {
		return u.Host
	}
	return strings.TrimSuffix(u.Host, ":"+port)
}

// encodeQuery returns a query with what no URL may have percent-encoded (RFC 3986, section
// 3.4): a space would end the target of the request. Brackets are left, as net/url leaves
// them in a path.
func encodeQuery(query string) string {
	var b strings.Builder
	for i := range len(query) {
		if c := query[i]; c <= ' ' || c >= 0x7F || strings.IndexByte("\"<>\\^`{|}", c) >= 0 {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
