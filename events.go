package resock

import (
	"context"
	"time"
)

// Event is an [OpenEvent], a [MessageEvent], a [FailEvent] or a [CloseEvent].
type Event interface {
	event()
}

// OpenEvent says that a session began.
type OpenEvent struct {
	Time        time.Time
	Session     uint64        // 1, 2, 3…
	URL         string        // dialed, secrets redacted
	Subprotocol string        // negotiated, spelled as it was offered; or empty
	Attempt     int           // which attempt succeeded, from 1
	Took        time.Duration // from the start of the attempt
	Downtime    time.Duration // since the end of the last session; 0 for the first
}

// MessageEvent carries one complete message.
//
// Data has len == cap, is shared by all subscribers and must not be written to. Keeping it
// may pin up to 16 KiB of memory; clone what is kept for long.
type MessageEvent struct {
	Session uint64
	Type    MessageType
	Data    []byte // shared, read-only
	Lost    uint64 // messages just before this one that this subscriber was not given
}

// FailEvent says that an attempt failed (Session 0), or that a session was lost, or ended
// by the server's violation of the protocol.
type FailEvent struct {
	Time    time.Time
	Session uint64
	Attempt int           // which attempt failed or opened the session, from 1
	Phase   Phase         // the part that failed
	Err     error         // works with errors.Is and errors.As; no secrets
	Took    time.Duration // length of the attempt or of the session
	Next    State         // the state that follows
	RetryIn time.Duration // if Next is StateWaiting
	Rule    string        // that decided on Next; empty if only the application did
}

// CloseEvent says that a session ended by a closing handshake that one side began.
type CloseEvent struct {
	Time    time.Time
	Session uint64
	Code    StatusCode    // the server's if it sent one, else ours
	Reason  string        // belongs to Code
	Clean   bool          // both close frames were exchanged
	Took    time.Duration // length of the session
	Next    State         // the state that follows
	RetryIn time.Duration // if Next is StateWaiting
	Rule    string        // that decided on Next; empty if only the application did
}

func (OpenEvent) event()    {}
func (MessageEvent) event() {}
func (FailEvent) event()    {}
func (CloseEvent) event()   {}

// Overflow is what happens when a subscriber's buffer is full.
type Overflow int

const (
	// OverflowBlock makes delivery wait for the subscriber, which puts backpressure on
	// the connection, for as long as the session lasts: nothing is read meanwhile, pings
	// of the server included. It is the default.
	OverflowBlock Overflow = iota

	// OverflowDropOldest drops the oldest buffered message, and counts it in the Lost
	// field of the session's next one.
	OverflowDropOldest
)

// Subscribe returns a channel of all events from now on, in order. If a session is open,
// the first is the [OpenEvent] of that session. The channel closes when the client is
// closed for good, or promptly once ctx ends; what was not delivered by then is
// discarded.
//
// Subscribe before [Client.Run] to see everything. A subscriber that does not read delays
// the messages of all others ([OverflowBlock]), unless it may lose messages
// ([WithOverflow]) or wants none ([WithoutMessages]). It never keeps the client from
// reconnecting or closing: when a session is lost, up to about 256 KiB of messages wait
// for the subscriber, and the next session reads nothing until it has taken them. Of the
// other events, 64 wait beside its buffer; beyond that, whole attempts and sessions are
// left out, oldest first, and the numbers in the events show the gap.
//
// The defaults are [WithBuffer](64) and [OverflowBlock].
func (c *Client) Subscribe(ctx context.Context, opts ...SubscribeOption) <-chan Event {
	sub := subscription{buffer: 64, messages: true}
	for _, opt := range opts {
		if opt != nil {
			opt.applySubscribe(&sub)
		}
	}
	sub.messages = sub.messages && c.config.handler == nil
	return c.events.subscribe(ctx, sub)
}

// subscription is what the options of Subscribe and Messages set.
type subscription struct {
	buffer   int
	overflow Overflow
	messages bool
	borrows  bool // for Messages only
	label    string
}

// SubscribeOption configures a subscription.
type SubscribeOption interface {
	applySubscribe(*subscription)
}

type subscribeFunc func(*subscription)

func (f subscribeFunc) applySubscribe(s *subscription) { f(s) }

// WithBuffer sets how many events wait for the subscriber. Defaults to 64, and for
// [Client.Messages] to 256 messages; zero is unbuffered, and a negative number is taken
// as zero. Messages has room for at least one.
func WithBuffer(n int) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.buffer = max(0, n) })
}

// WithBorrowedData makes the data of a message of [Client.Messages] valid only until the
// loop goes on, like that of a [bufio.Scanner], so that receiving makes no garbage.
// Defaults to data that may be kept. It has no meaning for [Client.Subscribe].
func WithBorrowedData() SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.borrows = true })
}

// WithLabel names the subscriber in [Stats] and in the log. Defaults to its place among
// all subscribers, such as "#2 of 3".
func WithLabel(name string) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.label = name })
}

// WithOverflow sets what happens when the subscriber's buffer is full. Defaults to
// [OverflowBlock].
func WithOverflow(o Overflow) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.overflow = o })
}

// WithoutMessages leaves out messages: the subscriber gets only open, fail and close
// events.
func WithoutMessages() SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.messages = false })
}
