package resock

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"

	"github.com/resock/resock/internal/header"
	"github.com/resock/resock/internal/redact"
)

// settings are what the options set and the client keeps as it is. CONTRIBUTING.md says
// what belongs to an option besides its field here.
type settings struct {
	endpoint    func(context.Context, Attempt) (Endpoint, error)
	onOpen      func(context.Context, *Session) error
	filters     []func(context.Context, MessageEvent) bool
	handler     func(context.Context, MessageEvent)
	network     Network
	dialLimiter interface{ Wait(context.Context) error }
	sendLimiter interface{ Wait(context.Context) error }
	log         *slog.Logger

	dialTimeout  time.Duration
	writeTimeout time.Duration
	closeTimeout time.Duration

	beatInterval time.Duration
	beatTimeout  time.Duration
	beatMessage  func() (MessageType, []byte)
	idleTimeout  time.Duration

	backoffInitial time.Duration
	backoffMax     time.Duration
	backoffPolicy  func() backoff.BackOff
	retryPolicy    func(Failure) Decision // nil: the default
	maxAttempts    int
	stableAfter    time.Duration
	maxSessionAge  time.Duration
	overlap        time.Duration

	readLimit     int64
	queueMessages int
	queueBytes    int
}

// given is all that New is given. Only what config returns outlives New.
type given struct {
	settings

	url          string
	dial         websocket.DialOptions // of WithDialOptions
	header       separate[http.Header]
	subprotocols separate[[]string]
	httpClient   separate[*http.Client]
	compression  separate[websocket.CompressionMode]

	nils []string // the options that were given nil, and not replaced since

	// Between objects of its own size that live as long as the client, this garbage would
	// leave holes: 0.2 KiB for each idle client.
	_ [32]byte
}

// separate is what an option sets in place of a part of the dial options.
type separate[T any] struct {
	value T
	given bool
}

func (s *separate[T]) set(value T) { *s = separate[T]{value, true} }

func (s *separate[T]) over(other T) T {
	if s.given {
		return s.value
	}
	return other
}

// config is what the client works with: what it was given, and what follows from it.
type config struct {
	settings
	target target                // of the URL given to New
	dial   websocket.DialOptions // the separate options included
}

var silence = slog.New(slog.DiscardHandler)

func defaults() settings {
	return settings{
		dialTimeout:  10 * time.Second,
		writeTimeout: 10 * time.Second,
		closeTimeout: 5 * time.Second,

		beatInterval: 15 * time.Second,
		beatTimeout:  10 * time.Second,

		backoffInitial: 500 * time.Millisecond,
		backoffMax:     30 * time.Second,
		stableAfter:    5 * time.Second,

		readLimit:     1 << 20,
		queueMessages: 1024,
		queueBytes:    8 << 20,

		log: silence,
	}
}

// Option configures a [Client]. Different options may be given in any order. If one
// is given twice the last one wins, except for [WithFilter].
//
// [New] returns an [*OptionError] for an option that cannot work, and for one that is
// given nil, unless the option says what nil means.
type Option interface {
	apply(*given)
}

type optionFunc func(*given)

func (f optionFunc) apply(g *given) { f(g) }

// notNil applies set unless the option was given nil, which New rejects.
func notNil(name string, isNil bool, set func(*given)) Option {
	return optionFunc(func(g *given) {
		g.nils = slices.DeleteFunc(g.nils, func(other string) bool { return other == name }) // the last one wins
		if isNil {
			g.nils = append(g.nils, name)
			return
		}
		set(g)
	})
}

// WithDialOptions sets the options that coder/websocket dials with: header,
// subprotocols, compression, HTTP client (proxy, TLS, dialer), and hooks for pings
// and pongs. [WithHeader], [WithSubprotocols], [WithHTTPClient] and [WithCompression]
// set one of these each, and win over opts whatever the order. What they reject is
// rejected here too. opts is copied, with its header and its subprotocols, and never
// changed. Defaults to none; nil is none.
//
// Redirects are never followed, whatever the HTTP client says, because that would
// send credentials to other hosts: a redirect fails the attempt, and the [DialError]
// tells its Location.
//
// OnPingReceived and OnPongReceived are called on the reading goroutine, with a
// payload that is theirs to keep and a context that ends with the connection.
// OnPongReceived sees the pongs of the heartbeat too.
func WithDialOptions(opts *websocket.DialOptions) Option {
	return optionFunc(func(g *given) {
		g.dial = websocket.DialOptions{}
		if opts != nil {
			g.dial = *opts
			g.dial.HTTPHeader = opts.HTTPHeader.Clone()
			g.dial.Subprotocols = append([]string(nil), opts.Subprotocols...)
		}
	})
}

// WithHeader sets the header of the upgrade request, in place of the HTTPHeader of
// [WithDialOptions], whatever the order. The header of an [Endpoint] replaces it. A
// Host in it is the Host of the request. Fields that belong to the handshake, such as
// Connection and Sec-WebSocket-Protocol, and names and values that HTTP does not
// allow, are rejected. h is copied. Defaults to none; nil is none.
func WithHeader(h http.Header) Option {
	h = h.Clone()
	return optionFunc(func(g *given) { g.header.set(h) })
}

// WithSubprotocols offers subprotocols, the preferred one first (RFC 6455, section
// 1.9), in place of the Subprotocols of [WithDialOptions], whatever the order. Those
// of an [Endpoint] replace them. The server's choice is in [OpenEvent]; if it chooses
// none, the attempt fails in [PhaseProtocol], as in browsers. Each name must be a token
// (RFC 9110, section 5.6.2), and none may be given twice. Errors do not
// tell a name of 32 bytes or more, which may be a token that authenticates; such a token
// belongs in a header, if the server reads it there. names is copied. Defaults to none.
func WithSubprotocols(names ...string) Option {
	names = slices.Clone(names)
	return optionFunc(func(g *given) { g.subprotocols.set(names) })
}

// WithHTTPClient sets the client that makes the upgrade request (proxy, TLS, dialer),
// in place of the HTTPClient of [WithDialOptions], whatever the order. Its transport
// is copied for each attempt, so that changes of it count at the next one; its
// redirect policy is not consulted. Defaults to [http.DefaultClient], as it is at each
// attempt; nil is the default.
//
// If the transport is an [*http.Transport]: ws URLs, too, go through an HTTP proxy by
// CONNECT. Protocols in the NextProtos of its TLSClientConfig are offered to the server,
// except for h2, and except through a proxy. The context that a dialer of the transport
// gets has the deadline of the attempt, but ends only when the attempt fails or the
// session is over. A dialer must return then: while four have not, no attempt dials, and
// Run waits for all. If the transport is [http.DefaultTransport], reconnects resume the
// TLS session, unless its TLSClientConfig has a client certificate, a
// VerifyPeerCertificate or a ClientSessionCache.
func WithHTTPClient(client *http.Client) Option {
	return optionFunc(func(g *given) { g.httpClient.set(client) })
}

// WithCompression offers permessage-deflate to the server (RFC 7692), in place of the
// CompressionMode of [WithDialOptions], whatever the order. The server's answer
// decides.
//
// With websocket.CompressionContextTakeover the server's messages may refer to
// earlier ones, which compresses a feed of small, similar messages best, and costs up
// to 32 KiB of memory for each connection. With
// websocket.CompressionNoContextTakeover the server is asked to compress each message
// by itself.
//
// Sent messages are compressed each by itself, if they have at least the
// CompressionThreshold of WithDialOptions, 512 bytes by default. Compressing secrets
// together with data that others can choose may reveal the secrets by the size.
//
// Defaults to websocket.CompressionDisabled; an unknown mode is rejected.
func WithCompression(mode websocket.CompressionMode) Option {
	return optionFunc(func(g *given) { g.compression.set(mode) })
}

// WithDialTimeout bounds one attempt: the endpoint hook, DNS, TCP, TLS, the upgrade,
// and the OnOpen hook. Defaults to 10 s; must be positive.
func WithDialTimeout(d time.Duration) Option {
	return optionFunc(func(g *given) { g.dialTimeout = d })
}

// WithHeartbeat sends a beat every interval, by default a ping (RFC 6455, section
// 5.5.2), and takes the server for dead when it shows no sign of life for timeout after a
// beat: a [FailEvent] in [PhaseHeartbeat] with [ErrHeartbeat].
//
// Beats are sent whatever was received, since many servers drop clients that say nothing.
// The first one comes at a random time within the first interval. Behind a proxy that
// cuts idle connections the interval must be below the limit of the proxy.
//
// Any byte from the network is a sign of life, even part of a TLS record or of a message,
// and so are bytes that the network takes after its buffers were full. The timeout
// begins when the network has taken the beat, so a large message on a slow line does no
// harm. Silence counts only while the client waits for the socket: the client never takes
// a server for dead because of a slow consumer. A process that stood still (SIGSTOP, a
// suspended machine) looks a second time, 100 ms later, before it decides; one whose timers
// are always late looks 20 times.
//
// The client learns all that from the connections that an [http.Transport] dials. With
// another [http.RoundTripper], or a transport whose DialTLSContext returns a TLS
// connection, it counts what comes out of TLS.
//
// While delivery is blocked nothing is read, and a dead connection shows when a beat cannot
// be written. On Linux and macOS TCP gives up what has not been acknowledged for interval
// plus timeout, or for [WithWriteTimeout] if that is longer, and the next beat shows it:
// with the defaults after about 45 s, and within a minute. If TCP retransmits seldom,
// because the network is slow, it may take longer, and on other systems it does.
//
// Defaults to 15 s and 10 s. An interval of zero disables the heartbeat; any other
// needs a positive timeout, unless [WithHeartbeatMessage] is given. Neither may be
// negative.
func WithHeartbeat(interval, timeout time.Duration) Option {
	return optionFunc(func(g *given) { g.beatInterval, g.beatTimeout = interval, timeout })
}

// WithHeartbeatMessage makes the heartbeat send what beat returns, such as a payload
// that the server asks for, in place of a ping, every interval of [WithHeartbeat], which
// must not be zero. With it, a heartbeat timeout of zero means that no answer is expected.
//
// beat is called on a goroutine of its own and must not block: if it has not returned
// after 1 s, a ping is sent instead. Its data is copied. A message that cannot be sent
// ends the session: a [FailEvent] in [PhaseHeartbeat] with an [*OptionError]. Defaults to
// a ping.
func WithHeartbeatMessage(beat func() (MessageType, []byte)) Option {
	return notNil("WithHeartbeatMessage", beat == nil, func(g *given) { g.beatMessage = beat })
}

// WithIdleTimeout takes the server for dead when no message came for d, for servers
// that promise traffic: a feed may be dead although its server still answers pings. Like
// the heartbeat it ends the session with [ErrHeartbeat].
//
// Pings and pongs do not count, nor do messages that a [WithFilter] keeps. Bytes of an
// unfinished message do. The time that messages wait for subscribers, handlers and
// filters is left out. Around such times the client may notice d/16 later. Defaults to
// zero, which disables it; must not be negative.
func WithIdleTimeout(d time.Duration) Option {
	return optionFunc(func(g *given) { g.idleTimeout = d })
}

// WithBackoff sets the delays between attempts. Each delay is drawn uniformly from
// zero to a bound ("full jitter"), so that clients that lost their server together do
// not come back together. The bound starts at initial, doubles with each failure, and
// never exceeds max.
//
// Defaults to 500 ms and 30 s. Both must be positive, and max not below initial.
func WithBackoff(initial, max time.Duration) Option {
	return optionFunc(func(g *given) { g.backoffInitial, g.backoffMax = initial, max })
}

// WithBackoffPolicy takes the delays from a policy of cenkalti/backoff. They are used
// verbatim: no jitter is added, and backoff.Stop gives up. The function is called
// once, by [Client.Run], which returns an [*OptionError] if it gets nil, and goes on
// with the policy of [WithBackoff] if it gets none within 1 s. Defaults to the policy
// of WithBackoff.
//
// Note that backoff.NewExponentialBackOff stops after 15 minutes unless its
// MaxElapsedTime is set to 0.
func WithBackoffPolicy(policy func() backoff.BackOff) Option {
	return notNil("WithBackoffPolicy", policy == nil, func(g *given) { g.backoffPolicy = policy })
}

// WithMaxAttempts gives up after n failed attempts in a row: the last event has
// Next == [StateClosed], and [Client.Run] returns a [*GiveUpError]. A session shorter
// than [WithStableAfter] counts as a failed attempt. Defaults to zero, which never
// gives up; must not be negative.
func WithMaxAttempts(n int) Option {
	return optionFunc(func(g *given) { g.maxAttempts = n })
}

// WithStableAfter sets how long a session must last to restart the backoff and the
// count of failed attempts, so that a server that accepts and drops at once meets
// growing delays. Time counts up to the last byte from the server: not the silence that
// ends a session, nor the closing handshake, nor time in which delivery was blocked. If a
// change of the network made the client look, it counts up to then. Defaults to 5 s; with
// zero every session counts as stable. It must not be negative.
func WithStableAfter(d time.Duration) Option {
	return optionFunc(func(g *given) { g.stableAfter = d })
}

// WithReadLimit bounds the size of a received message, in bytes. A larger one ends
// the session with close code 1009, as soon as its size is known. Defaults to 1 MiB;
// must be positive, and less than [math.MaxInt64], which would be no limit.
func WithReadLimit(bytes int64) Option {
	return optionFunc(func(g *given) { g.readLimit = bytes })
}

// WithWriteTimeout bounds how long a write may go on without progress. If the network
// takes no byte for longer, the session fails in [PhaseWrite]; as long as it takes some, a
// message may take any time. The client looks at intervals, and a second time before it
// decides, so that it may find out up to twice as late. Progress within a write of 16 KiB
// shows only if the connection is a socket of package net.
//
// Defaults to 10 s; must be positive.
func WithWriteTimeout(d time.Duration) Option {
	return optionFunc(func(g *given) { g.writeTimeout = d })
}

// WithQueue bounds the outbound queue of [Client.Enqueue], in messages and in bytes
// of payload. The message of a [Client.Send] that waits does not count. Defaults to
// 1024 messages and 8 MiB; both must be positive.
func WithQueue(messages, bytes int) Option {
	return optionFunc(func(g *given) { g.queueMessages, g.queueBytes = messages, bytes })
}

// WithCloseTimeout bounds all of closing: sending what is queued, and the closing
// handshake. Defaults to 5 s; must be positive.
func WithCloseTimeout(d time.Duration) Option {
	return optionFunc(func(g *given) { g.closeTimeout = d })
}

// WithMessageHandler hands messages to a function in place of the subscribers, which
// still get all other events. handle is called on the reading goroutine, in order,
// and without any allocation: m.Data is valid only during the call. Defaults to none.
//
// While handle runs nothing is read, so it should not block for long. ctx has the
// values of the context of [Client.Run]. It ends when the session is over: at once
// when the session is known to be lost, and at the end of the close timeout when it
// is being closed. handle should return then; messages that came before still reach
// it, with a context that has ended. If it does not return within 1 s, the client
// reconnects without it: events may then run ahead of the handler, and the messages
// of the next session wait for it.
func WithMessageHandler(handle func(ctx context.Context, m MessageEvent)) Option {
	return notNil("WithMessageHandler", handle == nil, func(g *given) { g.handler = handle })
}

// WithFilter shows each message to pass before the handler and the subscribers, and
// keeps it from them if pass returns false: heartbeats that the server starts,
// acknowledgements, replies. It may be given several times; the filters run in order,
// until one returns false. A nil filter is rejected, whatever follows. Defaults to
// none.
//
// pass is called on the reading goroutine, after the session's [OpenEvent]. It sees
// what [Session.Unread] gave back, but not what [Session.Receive] took. m.Data is
// valid only during the call. A message that is kept back counts in Stats.MessagesIn,
// and is neither lost nor dropped. As with [WithMessageHandler], ctx ends when the
// session is over, and pass should return then.
func WithFilter(pass func(ctx context.Context, m MessageEvent) bool) Option {
	return optionFunc(func(g *given) {
		if pass == nil {
			g.nils = append(g.nils, "WithFilter") // no later filter takes its place
		}
		g.filters = append(g.filters, pass)
	})
}

// WithEndpoint asks next where to dial, and with which header, in each attempt: fresh
// tokens, failover, resume cursors. An error, or an [Endpoint] that cannot be dialed,
// fails the attempt in [PhaseEndpoint], and an error of backoff.Permanent
// (cenkalti/backoff) ends the client with a [*GiveUpError], whatever the retry policy
// says. next may block; its context ends with the dial timeout and when the client
// closes, and it must return then. If it waits for the client itself, no session opens.
//
// A subscriber may still have messages of the last session in its buffer when next is
// called: a resume cursor tells what was handled so far, and the server sends the
// rest again.
//
// A header belongs to the endpoint that it came with and is sent nowhere else.
// Defaults to the URL given to [New] with the header of [WithHeader] or
// [WithDialOptions]. With this option, that URL may be empty.
func WithEndpoint(next func(ctx context.Context, a Attempt) (Endpoint, error)) Option {
	return notNil("WithEndpoint", next == nil, func(g *given) { g.endpoint = next })
}

// WithOnOpen calls setup on every connection, the first and all later ones, before
// its [OpenEvent] and before any queued message: to register, to authenticate, to
// subscribe to topics and wait for the answers. Messages that it does not receive are
// delivered after the OpenEvent. Defaults to none.
//
// An error of setup fails the attempt in [PhaseSetup] and counts for the backoff, and
// so does an error of [Session.Receive]. An error of backoff.Permanent ends the client, as
// in [WithEndpoint]. The context ends with the dial timeout and
// when the client closes; setup must return then. If it waits for the client itself,
// as [Client.Send] does, and not for its [Session], no session opens.
func WithOnOpen(setup func(ctx context.Context, s *Session) error) Option {
	return notNil("WithOnOpen", setup == nil, func(g *given) { g.onOpen = setup })
}

// WithRetryPolicy decides what follows a failure. decide is called once per failure;
// a session that the application itself ended is none, and for a permanent error of a
// hook, which ends the client, decide is not called. decide may call
// [DefaultRetryPolicy], which also decides when decide has not returned after 1 s.
// [ActionStop] and [ActionFinish] end the client. [WithMaxAttempts] takes precedence over
// a retry. Defaults to DefaultRetryPolicy.
func WithRetryPolicy(decide func(Failure) Decision) Option {
	return notNil("WithRetryPolicy", decide == nil, func(g *given) { g.retryPolicy = decide })
}

// WithMaxSessionAge reconnects on purpose when a session is about d old, before a
// server that cuts old connections does it at a worse moment. d is cut short at
// random, by up to a tenth, so that clients do not reconnect together. The
// [CloseEvent] has code 1000 and Next == [StateConnecting]. Defaults to zero, which
// disables it; must not be negative.
func WithMaxSessionAge(d time.Duration) Option {
	return optionFunc(func(g *given) { g.maxSessionAge = d })
}

// WithHandover makes [Client.Handover] and [WithMaxSessionAge] replace a session that
// lives: the next one is dialed and registered, by [WithOnOpen], while the old one still
// delivers. Then messages go out on the new one, and the old one is closed and read to its
// end, for overlap at most. Only then come its [CloseEvent], with Next ==
// [StateConnecting], and the [OpenEvent] of the new one, whose Downtime is 0; the new one
// is not read before. If the old one ends meanwhile, the attempt becomes the reconnect. If
// the attempt fails, the old one stays, and the next attempt comes after the backoff: that
// is no event, but in the log and in [Stats].
//
// What is pushed during the overlap may come on both. An answer that the server gives
// after its close frame does not come. Servers that allow one session per identity, or
// that deal out messages between sessions, forbid it: if the server ends the old session
// three times in a row when the new one registers, handover switches itself off, and the
// log and Stats say so. Defaults to zero, which disables it; at most 5 s.
func WithHandover(overlap time.Duration) Option {
	return optionFunc(func(g *given) { g.overlap = overlap })
}

const maxOverlap = 5 * time.Second

// WithDialLimiter makes every attempt wait for l, which may be shared by many
// clients; a rate.Limiter of golang.org/x/time/rate fits. The dial timeout starts
// after the wait. An error of l fails the attempt in [PhaseEndpoint], and an error of
// backoff.Permanent ends the client, as in [WithEndpoint]. If Wait waits for the client
// itself, no session opens. Defaults to none.
func WithDialLimiter(l interface{ Wait(context.Context) error }) Option {
	return notNil("WithDialLimiter", l == nil, func(g *given) { g.dialLimiter = l })
}

// WithSendLimiter makes every message wait for l, which may be shared by many
// clients; a rate.Limiter of golang.org/x/time/rate fits. l is asked once for each
// message of [Client.Send], [Client.Enqueue] and [Session.Send], when its turn comes
// and what passed before is written, so messages keep their order. Pings, pongs and
// the messages of the heartbeat pass without asking.
//
// The context that l gets ends with the context or the TTL of the message, and with
// the session; after the session the message waits for the next one, and l is asked
// again. Wait must return when its context ends. Any other error of l fails the
// message, with an [ErrNotSent] that wraps it. Defaults to none.
func WithSendLimiter(l interface{ Wait(context.Context) error }) Option {
	return notNil("WithSendLimiter", l == nil, func(g *given) { g.sendLimiter = l })
}

// WithNetwork asks n before each attempt whether there is a network. While there is
// none the client does not dial and counts no attempt ([StateOffline]); it dials when
// the network is back, after a random part of the initial backoff, but no sooner than it
// would have dialed without the interruption. When the network changes while a session is
// open, the connection is probed at once, by a ping that has to be answered within the
// timeout of [WithHeartbeat], or 10 s if that is zero. With [WithHeartbeatMessage] and a
// timeout, a ping without an answer calls for the next message, and that decides.
//
// Loopback addresses are dialed in any case. With [WithEndpoint], the URL of the last
// attempt tells whether the address is one, and before the first attempt the URL
// given to [New]. Defaults to none.
func WithNetwork(n Network) Option {
	return notNil("WithNetwork", n == nil, func(g *given) { g.network = n })
}

// WithLogger logs state changes, failures with the retry rule that decided, a
// subscriber that blocks for long, and hooks that do not return. No secret is logged.
// A handler that takes longer than 1 s misses records, and is the one thing that
// [Client.Run] does not wait for. Defaults to silence; nil is silence.
func WithLogger(l *slog.Logger) Option {
	return optionFunc(func(g *given) {
		g.log = silence
		if l != nil {
			g.log = slog.New(newPatientHandler(l.Handler()))
		}
	})
}

// config returns what the client works with, given what has no fault.
func (g *given) config() config {
	target, _ := parseTarget(g.url) // the zero target if only the endpoint hook knows
	return config{settings: g.settings, target: target, dial: g.dialOptions()}
}

// dialOptions lays the separate options over those of WithDialOptions.
func (g *given) dialOptions() websocket.DialOptions {
	dial := g.dial
	if dial.Host != "" { // before a Host in the header beside it, but not before that of WithHeader
		dial.HTTPHeader, _ = header.SplitHost(dial.HTTPHeader, "")
	}
	dial.HTTPHeader = g.header.over(dial.HTTPHeader)
	dial.Subprotocols = g.subprotocols.over(dial.Subprotocols)
	dial.HTTPClient = g.httpClient.over(dial.HTTPClient)
	dial.CompressionMode = g.compression.over(dial.CompressionMode)
	return dial
}

// defaultCompressFrom is where compressing begins to be worth it.
const defaultCompressFrom = 512

// compressFrom is the size from which messages are compressed.
func (c *config) compressFrom() int32 {
	if threshold := c.dial.CompressionThreshold; threshold > 0 {
		return int32(min(threshold, math.MaxInt32))
	}
	return defaultCompressFrom
}

// rule is one thing that must hold of an option.
type rule struct {
	option string
	value  any
	broken string // how, or nothing if it holds
}

type rules []rule

// rules are all that must hold. New reports the first that does not, so what concerns
// one value stands before what concerns several.
func (g *given) rules() rules {
	dial := g.dialOptions()
	unknownMode := dial.CompressionMode < websocket.CompressionDisabled || dial.CompressionMode > websocket.CompressionNoContextTakeover
	subprotocol, badSubprotocol := header.FindBadSubprotocol(dial.Subprotocols)
	field, badField := header.FindBad(dial.HTTPHeader)
	headerOption := "WithDialOptions"
	if g.header.given {
		headerOption = "WithHeader"
	}
	return rules{
		{cmp.Or(g.nils...), nil, when(len(g.nils) > 0, "must not be nil")},
		{"New", redact.URL(g.url), g.badURL()},
		{"WithDialTimeout", g.dialTimeout, notPositive(g.dialTimeout)},
		{"WithWriteTimeout", g.writeTimeout, notPositive(g.writeTimeout)},
		{"WithCloseTimeout", g.closeTimeout, notPositive(g.closeTimeout)},
		{"WithBackoff", g.backoffInitial, notPositive(g.backoffInitial)},
		{"WithBackoff", g.backoffMax, notPositive(g.backoffMax)},
		{"WithHeartbeat", g.beatInterval, negative(g.beatInterval)},
		{"WithHeartbeat", g.beatTimeout, negative(g.beatTimeout)},
		{"WithIdleTimeout", g.idleTimeout, negative(g.idleTimeout)},
		{"WithStableAfter", g.stableAfter, negative(g.stableAfter)},
		{"WithMaxSessionAge", g.maxSessionAge, negative(g.maxSessionAge)},
		{"WithHandover", g.overlap, cmp.Or(negative(g.overlap), when(g.overlap > maxOverlap, "must be at most 5s: meanwhile the new session is not read"))},
		{"WithMaxAttempts", int64(g.maxAttempts), negative(g.maxAttempts)},
		{"WithReadLimit", g.readLimit, notPositive(g.readLimit)},
		{"WithQueue", int64(g.queueMessages), notPositive(g.queueMessages)},
		{"WithQueue", int64(g.queueBytes), notPositive(g.queueBytes)},
		{"WithReadLimit", g.readLimit, when(g.readLimit == math.MaxInt64, "is no limit")},
		{"WithBackoff", g.backoffMax, when(g.backoffMax < g.backoffInitial, "the maximum is below the initial delay")},
		{"WithHeartbeat", g.beatTimeout, when(g.beatInterval > 0 && g.beatTimeout == 0 && g.beatMessage == nil, "an interval needs a timeout")},
		{"WithHeartbeatMessage", "func", when(g.beatInterval == 0 && g.beatMessage != nil, "needs the interval of WithHeartbeat")},
		{"WithDialOptions", dial.CompressionMode, when(unknownMode && !g.compression.given, "unknown CompressionMode")},
		{"WithCompression", dial.CompressionMode, when(unknownMode && g.compression.given, "unknown CompressionMode")},
		{"WithSubprotocols", strconv.Quote(redact.Subprotocol(subprotocol)), badSubprotocol},
		{headerOption, field, badField},
		{"WithDialOptions", "Host", header.BadHost(dial.Host)},
	}
}

// of returns the rules of one option.
func (rs rules) of(option string) rules {
	return slices.DeleteFunc(rs, func(r rule) bool { return r.option != option })
}

// fault returns the first rule that does not hold as an error, or nil.
func (rs rules) fault() *OptionError {
	for _, r := range rs {
		if r.broken != "" {
			return &OptionError{r.option, r.value, r.broken}
		}
	}
	return nil
}

// when returns how a rule is broken, if it is.
func when(broken bool, how string) string {
	if broken {
		return how
	}
	return ""
}

func negative[T ~int | ~int64](n T) string { return when(n < 0, "must not be negative") }

func notPositive[T ~int | ~int64](n T) string {
	return cmp.Or(negative(n), when(n == 0, "must be positive"))
}

func (g *given) badURL() string {
	if g.url == "" && g.endpoint != nil {
		return "" // every attempt asks the endpoint hook
	}
	_, bad := parseTarget(g.url)
	return bad
}
