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
	Subprotocol string        // negotiated, or empty
	Attempt     int           // which attempt succeeded, from 1
	Took        time.Duration // from the start of the attempt
	Downtime    time.Duration // since the end of the last session; 0 for the first
}

// MessageEvent carries one complete message.
//
// Data has len == cap, is shared by all subscribers and must not be written
// to. Keeping it may pin up to 16 KiB of memory; clone what is kept for long.
type MessageEvent struct {
	Session uint64
	Type    MessageType
	Data    []byte // shared, read-only
	Lost    uint64 // messages that this subscriber was not given just before this one
}

// FailEvent says that an attempt never opened (Session 0), or that a session
// was lost.
type FailEvent struct {
	Time    time.Time
	Session uint64
	Attempt int           // which attempt failed or opened the session, from 1
	Phase   Phase         // what failed
	Err     error         // works with errors.Is and errors.As; no secrets
	Took    time.Duration // length of the attempt or of the session
	Next    State         // what follows
	RetryIn time.Duration // when Next is StateWaiting
}

// CloseEvent says that a session ended by a closing handshake that one side
// began.
type CloseEvent struct {
	Time    time.Time
	Session uint64
	Code    StatusCode    // the server's if it sent one, else ours
	Reason  string        // belongs to Code
	Clean   bool          // both close frames were exchanged
	Took    time.Duration // length of the session
	Next    State         // what follows
	RetryIn time.Duration // when Next is StateWaiting
}

func (OpenEvent) event()    {}
func (MessageEvent) event() {}
func (FailEvent) event()    {}
func (CloseEvent) event()   {}

// Overflow is what happens when a subscriber's buffer is full.
type Overflow int

const (
	// OverflowBlock makes delivery wait for the subscriber, and so slows the
	// connection down, for as long as the session lasts. It is the default.
	OverflowBlock Overflow = iota

	// OverflowDropOldest drops the oldest buffered message and counts it in
	// the Lost field of the session's next one.
	OverflowDropOldest
)

// Subscribe returns a channel of all events from now on, in order. A
// subscription made while a session is open starts with that session's
// [OpenEvent]. The channel closes when the client is closed for good, or
// promptly once ctx ends; what was not delivered by then is discarded.
//
// Subscribe before [Client.Run] to see everything. A subscriber that does not read
// delays the messages of all others ([OverflowBlock]) unless it may lose messages
// ([WithOverflow]) or does not want any ([WithoutMessages]). It never keeps the client
// from reconnecting or closing: when a session is lost, the messages that were received
// and not delivered wait for the subscriber, about 256 KiB of them, and the next session
// reads nothing until it has taken them. Of the other events, 64 wait beside its
// buffer; beyond that, whole attempts and sessions are left out for it, oldest first,
// and the numbers in the events show the gap.
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

// subscription is what the options of Subscribe set.
type subscription struct {
	buffer   int
	overflow Overflow
	messages bool
	borrows  bool // of Messages
	label    string
}

// SubscribeOption configures a subscription.
type SubscribeOption interface {
	applySubscribe(*subscription)
}

type subscribeFunc func(*subscription)

func (f subscribeFunc) applySubscribe(s *subscription) { f(s) }

// WithBuffer sets how many events wait for the subscriber. Defaults to 64, and to 256
// messages for [Client.Messages]; zero is unbuffered, and a negative number is taken for
// zero. Messages has room for at least one.
func WithBuffer(n int) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.buffer = max(0, n) })
}

// WithBorrowedData makes the data of each message of [Client.Messages] valid only until
// the loop goes on, as that of a bufio.Scanner is, and receiving free of garbage. It
// has no meaning for [Client.Subscribe].
func WithBorrowedData() SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.borrows = true })
}

// WithLabel names the subscriber in [Stats] and in the log, where it is otherwise
// known by its place, as "#2 of 3".
func WithLabel(name string) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.label = name })
}

// WithOverflow sets what happens when the subscriber's buffer is full. Defaults
// to [OverflowBlock].
func WithOverflow(o Overflow) SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.overflow = o })
}

// WithoutMessages leaves out messages: only open, fail and close events are
// delivered.
func WithoutMessages() SubscribeOption {
	return subscribeFunc(func(s *subscription) { s.messages = false })
}
