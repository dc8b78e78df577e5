package resock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock/internal/wire"
)

// MessageType is the type of a message: [MessageText] or [MessageBinary].
type MessageType = websocket.MessageType

const (
	MessageText   = websocket.MessageText
	MessageBinary = websocket.MessageBinary
)

// StatusCode is a close code (RFC 6455, section 7.4). coder/websocket has constants for
// the others.
type StatusCode = websocket.StatusCode

const (
	StatusNormalClosure   = websocket.StatusNormalClosure
	StatusGoingAway       = websocket.StatusGoingAway
	StatusProtocolError   = websocket.StatusProtocolError
	StatusPolicyViolation = websocket.StatusPolicyViolation
	StatusServiceRestart  = websocket.StatusServiceRestart
	StatusTryAgainLater   = websocket.StatusTryAgainLater
)

// Client keeps one WebSocket connection open. All its methods may be called
// concurrently.
type Client struct {
	config   config
	wire     wire.Config // shared by all connections
	events   fanout
	outbox   outbox
	counters counters
	tickets  atomic.Pointer[tickets] // of TLS; nil until they are needed

	machine loop
	hooks   hooks

	wake chan struct{} // holds a token when something changed that the state machine may wait for
	done chan struct{} // closed when the client is closed for good

	// mu guards what the application asks for and what it is told. It is separate from
	// the other locks because State and Stats must not wait for delivery or writing.
	mu       sync.Mutex
	ran      bool // Run was called
	intent   intent
	loopback bool        // the target needs no network
	deadline *time.Timer // the close timeout; nil until closing begins
	state    State
	since    time.Time     // when state began
	session  *session      // the open one, or nil
	changed  chan struct{} // closed when state or intent.closed changes; nil if nobody waits for that
	lostAt   time.Time     // when the last session ended
	downtime time.Duration // between sessions, until the last one opened
	lastErr  error         // the last failure, whatever came after it
	err      error         // what Run returns
}

// intent is what the application wants of the client.
type intent struct {
	closed    bool // by Close, the end of Run's context, or because the client gave up
	suspended bool

	// These are wishes. They are remembered in every state until they are granted.
	reconnect bool // an attempt soon; granted by the next one that begins or opens
	resume    bool // an attempt now, with a fresh count; what was under way before fails
}

// connected reports whether a connection is wanted.
func (i intent) connected() bool { return !i.closed && !i.suspended }

// allows reports whether the attempt or session that is there now may go on.
func (i intent) allows() bool { return i.connected() && !i.resume }

// counters hold what Stats reads without a lock.
type counters struct {
	wire                   wire.Counters
	attempts, opens, fails atomic.Uint64 // opens is also the number of the last session
	messagesOut            atomic.Uint64
}

// New returns a client for a ws or wss URL, which [Client.Run] connects. An option
// that cannot work is an [*OptionError]. Characters that no URL may have, such as a space,
// are percent-encoded in its path and its query, for an [Endpoint] too.
func New(url string, opts ...Option) (*Client, error) {
	g := given{settings: defaults(), url: url}
	for _, opt := range opts {
		if opt == nil {
			return nil, &OptionError{"Option", nil, "must not be nil"}
		}
		opt.apply(&g)
	}
	if fault := g.rules().fault(); fault != nil {
		return nil, fault
	}
	return newClient(g.config()), nil
}

func newClient(config config) *Client {
	c := &Client{config: config, loopback: config.target.loopback, since: time.Now()}
	c.wire = wire.Config{
		ReadLimit:    config.readLimit,
		WriteTimeout: config.writeTimeout,
		CloseTimeout: config.closeTimeout,
		CompressFrom: config.compressFrom(),
		Counters:     &c.counters.wire,
		Clock:        &c.outbox.clock,
	}
	c.machine.ctx = context.Background()
	c.wake = make(chan struct{}, 1)
	c.done = make(chan struct{})
	c.events.log = config.log
	c.events.abort = make(chan struct{})
	c.outbox.clock = wire.NewClock()
	c.outbox.maxMessages, c.outbox.maxBytes = config.queueMessages, config.queueBytes
	c.outbox.counters = &c.counters
	c.hooks.abort, c.hooks.log = c.events.abort, config.log
	c.outbox.hooks = &c.hooks
	c.outbox.limiter = config.sendLimiter
	c.outbox.idle.L = &c.outbox.mu
	if config.overlap > 0 {
		c.machine.handover, c.outbox.lanes = new(handover), new(lanes)
	}
	return c
}

// Run connects, and stays connected until [Client.Close] is called, ctx ends or the
// client gives up. It returns nil after Close and after [ActionFinish], the context's
// error, or a [*GiveUpError]: whichever comes first. [Client.Err] returns the same
// afterwards. When Run returns, every channel is closed and nothing that it started still
// runs: unlike [Client.Done], it waits for handlers, hooks and dialers that do not return.
// A second call returns [ErrAlreadyRun].
//
// When ctx ends, an open session is closed with code 1001 and queued messages are not
// sent.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	if c.ran {
		c.mu.Unlock()
		return ErrAlreadyRun
	}
	c.ran = true
	closed := c.intent.closed
	c.mu.Unlock()
	if closed { // before Run
		<-c.done
		return nil
	}

	c.machine.run(ctx, c)
	c.hooks.Wait()
	c.machine.ignoreNetwork()
	return c.Err()
}

// finish settles what is queued, ends every stream of events, and closes the client for
// good.
func (c *Client) finish() {
	c.limitClosing()
	c.outbox.finish()
	c.setState(StateClosed) // before the channels close: whoever sees the end sees this state
	c.events.finish()
	c.outbox.allTold()
	c.mu.Lock()
	c.deadline.Stop()
	c.mu.Unlock()
	close(c.done)
}

// Close closes the client for good, with a code and reason for the server, after what is
// queued was sent, all within [WithCloseTimeout]. While no session is open it closes at
// once, and what is queued gets [ErrClosed]; [Client.Shutdown] sends that first. Close
// only signals: it never blocks and may be called at any time, also by the consumer of
// the events. To wait, receive from [Client.Done], which also waits for the functions of
// [WithResult], or range to the end of the events. Calls after the first do nothing.
//
// A code that may not be sent (RFC 6455, section 7.4) is an [*OptionError], and nothing
// happens. A reason of more than 123 bytes is cut (RFC 6455, section 5.5).
func (c *Client) Close(code StatusCode, reason string) error {
	if !wire.ValidCloseCode(int(code)) {
		return &OptionError{"Close", int(code), "this close code may not be sent (RFC 6455, section 7.4)"}
	}
	c.stop(nil, code, wire.CutReason(reason), true)
	return nil
}

// stop begins to close the client, unless it is closing already. err is what Run
// returns; flush sends what is queued first.
func (c *Client) stop(err error, code StatusCode, reason string, flush bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intent.closed {
		return
	}
	c.intent.closed = true
	c.err = err
	if h := c.machine.handover; h != nil {
		h.closing = closing{code, reason, flush}
	}
	c.outbox.seal()
	c.limitClosingLocked()
	if c.session != nil {
		c.session.close(code, reason, flush)
	}
	c.tellChanged()
	notify(c.wake)
	if !c.ran {
		go c.finish()
	}
}

// tellChanged tells those who wait for a change; mu is held.
func (c *Client) tellChanged() {
	if c.changed != nil {
		close(c.changed)
		c.changed = nil
	}
}

// limitClosing starts the close timeout, unless it runs already. At its end delivery is
// aborted and the open session killed.
func (c *Client) limitClosing() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limitClosingLocked()
}

// limitClosingLocked is limitClosing; mu is held.
func (c *Client) limitClosingLocked() {
	if c.deadline != nil {
		return
	}
	c.deadline = time.AfterFunc(c.config.closeTimeout, func() {
		close(c.events.abort)
		c.mu.Lock()
		s := c.session
		c.mu.Unlock()
		if s != nil {
			s.expire()
		}
	})
}

// Reconnect replaces the connection: an open session is closed with code 1000 and
// Next == [StateConnecting], and the next attempt starts at once. The server gets a close
// frame, but its answer is not waited for: Clean is false, and what the server still sends
// is not delivered. The old connection is gone within [WithCloseTimeout], and is cut after
// 1 s if the network has not taken the close frame by then.
//
// In other states the wish is remembered. A client that waits for its next attempt starts
// it at once, and one that is offline does so when the network is back. An attempt under
// way goes on; if it fails, the next one follows at once. There is at most one such
// attempt per initial delay of [WithBackoff]. A client that is suspended or closed stays
// so.
//
// If an attempt under way must not open, say because its token is that of a user who has
// logged out, call [Client.Suspend] and then [Client.Resume] instead: they end it.
func (c *Client) Reconnect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.intent.connected() || c.intent.reconnect { // a hook that always asks must not always wake
		return
	}
	c.intent.reconnect = true
	if c.session != nil {
		c.session.replace()
	}
	notify(c.wake)
}

// Suspend says that the application needs no connection for now. An open session is
// closed with code 1000 and Next == [StateSuspended]; an attempt under way fails with the
// same Next. Until [Client.Resume] the client does not dial, and messages wait. Suspend
// only signals, and may be called in any state, also before Run.
func (c *Client) Suspend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.intent.connected() {
		return
	}
	c.intent.suspended = true
	if c.session != nil {
		c.session.close(StatusNormalClosure, "", false)
	}
	notify(c.wake)
}

// Resume ends what Suspend began: the client dials at once, with a fresh backoff and
// count of attempts, even if it was still busy with the Suspend; there is at most one such
// attempt per initial delay of [WithBackoff], then. If the client is not suspended, or is
// closed, Resume does nothing.
func (c *Client) Resume() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intent.suspended && !c.intent.closed {
		c.intent.suspended, c.intent.resume = false, true
		if c.session != nil {
			c.session.replace()
		}
		notify(c.wake)
	}
}

// wanted returns what the application wants.
func (c *Client) wanted() intent {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.intent
}

// takeResume reports whether there is a Resume to grant, and grants it.
func (c *Client) takeResume() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	taken := c.intent.resume
	c.intent.resume = false
	return taken
}

// begins notes that an attempt begins, which grants a Reconnect.
func (c *Client) begins() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intent.reconnect = false
}

// setState changes the state. No other function does.
func (c *Client) setState(state State) {
	c.mu.Lock()
	from := c.state
	if state != from {
		c.state, c.since = state, time.Now()
		c.tellChanged()
	}
	c.mu.Unlock()
	if state != from {
		c.log().Debug("state", "from", from, "to", state)
	}
}

// opened makes s the open session and lets messages flow into it. It reports false, and
// does neither, if the application no longer wants this connection.
func (c *Client) opened(s *session) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.intent.allows() {
		return false
	}
	c.intent.reconnect = false
	c.session = s
	c.outbox.attach(s)
	c.counters.opens.Add(1)
	s.event.Downtime = c.downFor() // here, or Stats would count more before than after
	c.downtime += s.event.Downtime
	return true
}

// ended notes that a session has ended, which may have been replaced before.
func (c *Client) ended(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session == s {
		c.session = nil
		c.lostAt = time.Now()
	}
}

// failed counts a failure and remembers its error.
func (c *Client) failed(err error) {
	c.counters.fails.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastErr = err
}

// Done returns a channel that is closed when the client is closed for good, after every
// event channel.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns what [Client.Run] returns once the state is [StateClosed], and nil before
// that.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != StateClosed {
		return nil
	}
	return c.err
}

// State returns what the client is doing.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// WaitOpen returns nil once a session is open; after [Client.Reconnect], once the next one
// is. When ctx ends first, the error wraps the context's error and the last failure, if
// there was one; before Run, while suspended or offline, it says so in place of the
// failure. [context.Canceled] and [context.DeadlineExceeded] in it are always about
// ctx. When the client is closed for good, or closing, the error is [ErrClosed],
// and wraps the error of [Client.Run], if there is one.
func (c *Client) WaitOpen(ctx context.Context) error {
	for {
		changed, err := c.untilOpen()
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return c.inVain(ctx, fmt.Errorf("resock: not open: %w", ctx.Err()))
		}
	}
}

// inVain returns err, and why no session was open if ctx has ended a wait for one: the last
// failure, unless the client does not even try.
func (c *Client) inVain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state == StateIdle:
		return fmt.Errorf("%w: Run has not been called", err)
	case c.state == StateSuspended:
		return fmt.Errorf("%w: the client is suspended (Resume)", err)
	case c.state == StateOffline:
		return fmt.Errorf("%w: there is no network (WithNetwork)", err)
	case c.state == StateOpen, c.lastErr == nil:
		return err
	}
	return &downError{err, c.lastErr}
}

// untilOpen returns what [Client.WaitOpen] returns, or a channel that is closed when that
// may have changed.
func (c *Client) untilOpen() (changed <-chan struct{}, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.intent.closed && c.err != nil:
		return nil, fmt.Errorf("%w: %w", ErrClosed, c.err)
	case c.intent.closed:
		return nil, ErrClosed
	case c.state == StateOpen && c.intent.allows() && !c.intent.reconnect:
		return nil, nil
	case c.changed == nil:
		c.changed = make(chan struct{})
	}
	return c.changed, nil
}

// Stats is a snapshot of the client: its state, and its counters since [New].
type Stats struct {
	State        State
	Session      uint64        // number of the last one opened, or 0
	Attempts     uint64        // attempts begun, after the wait for the dial limiter
	Opens        uint64        // sessions opened
	Fails        uint64        // attempts and sessions that failed
	Since        time.Time     // when State began
	Downtime     time.Duration // total time without a session, after the first one
	MessagesIn   uint64
	MessagesOut  uint64
	BytesIn      uint64 // in frames, without the handshake and TLS
	BytesOut     uint64
	Queued       int // messages of Enqueue that wait to be sent
	QueuedBytes  int
	Dropped      uint64        // messages that slow subscribers were not given
	RoundTrip    time.Duration // of the last ping that was answered
	LastMessage  time.Time     // when the last message came from the network; zero if none did
	Blocked      time.Duration // total time that delivery waited for subscribers and handlers
	BlockedSince time.Time     // when delivery became blocked; zero if it is not
	BlockedBy    string        // who blocks it: a label, "#2 of 3", or an option such as "WithFilter"
	LastErr      error         // the last failure, whatever came after it
	Handovers    uint64        // sessions that were replaced while they were open (WithHandover)
	HandoverOff  bool          // the server has ended such sessions, three in a row: Handover is Reconnect
}

// Stats returns a snapshot of the client.
func (c *Client) Stats() Stats {
	opens := c.counters.opens.Load()
	stats := Stats{
		Session:     opens,
		Attempts:    c.counters.attempts.Load(),
		Opens:       opens,
		Fails:       c.counters.fails.Load(),
		MessagesIn:  c.counters.wire.MessagesIn.Load(),
		MessagesOut: c.counters.messagesOut.Load(),
		BytesIn:     c.counters.wire.BytesIn.Load(),
		BytesOut:    c.counters.wire.BytesOut.Load(),
		Dropped:     c.events.dropped.Load(),
		Blocked:     c.blockedSum(),
		RoundTrip:   time.Duration(c.counters.wire.RoundTrip.Load()),
	}
	if h := c.machine.handover; h != nil {
		stats.Handovers, stats.HandoverOff = h.count.Load(), h.rivals.Load() >= maxRivals
	}
	stats.Queued, stats.QueuedBytes = c.outbox.size()
	if at := c.counters.wire.LastMessage.Load(); at != 0 {
		stats.LastMessage = time.Now().Add(time.Duration(at-1) - c.wire.Clock.Now())
	}
	stats.BlockedBy, stats.BlockedSince = c.blockedBy()
	c.mu.Lock()
	defer c.mu.Unlock()
	stats.State, stats.Since, stats.LastErr, stats.Downtime = c.state, c.since, c.lastErr, c.downtime
	switch {
	case c.session != nil:
	case c.state == StateClosed && !c.lostAt.IsZero():
		stats.Downtime += c.since.Sub(c.lostAt)
	default:
		stats.Downtime += c.downFor()
	}
	return stats
}

// downFor is how long ago the last session ended, or 0 if there was none; mu is held.
func (c *Client) downFor() time.Duration {
	if c.lostAt.IsZero() {
		return 0
	}
	return time.Since(c.lostAt)
}

// lastSession returns the number of the last session that was open, or 0, and how long
// ago it ended.
func (c *Client) lastSession() (id uint64, downtime time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session != nil {
		return c.counters.opens.Load(), 0
	}
	return c.counters.opens.Load(), c.downFor()
}

// blockedBy names who blocks delivery now, if anybody does, and since when. It may be a
// function that was called in an earlier session.
func (c *Client) blockedBy() (by string, since time.Time) {
	if by, since = c.events.blocked.now(); by != "" {
		return by, since
	}
	if s := c.machine.reading.Load(); s != nil {
		by, since, _ = s.awayIn()
	}
	return by, since
}

// blockedSum is the total time for which delivery was blocked.
func (c *Client) blockedSum() (blocked time.Duration) {
	s := c.machine.reading.Load()
	if s == nil {
		return c.events.blocked.sum()
	}
	_, _, blocked = s.awayIn()
	return blocked
}

func (c *Client) log() *slog.Logger { return c.config.log }

// Network tells whether there is a network. OnChange arranges for changed to be called,
// on any goroutine, whenever that may have changed, until stop is called. Neither method
// may block.
type Network interface {
	Online() bool
	OnChange(changed func()) (stop func())
}

// online reports whether there is a network, or the target needs none.
func (c *Client) online() bool {
	c.mu.Lock()
	loopback := c.loopback
	c.mu.Unlock()
	if c.config.network == nil || loopback {
		return true
	}
	return ask(c, hookNetwork, true, c.config.network.Online)
}

// networkChanged probes the open session, if there is one, and lets the state machine
// look at the network again.
func (c *Client) networkChanged() {
	c.mu.Lock()
	s := c.session
	c.mu.Unlock()
	if s != nil {
		s.spawned(s.heart.probe)
	}
	notify(c.wake)
}

// noteTarget notes whether the target of an attempt is on this machine.
func (c *Client) noteTarget(t target) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.loopback = t.loopback
}
