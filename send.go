package resock

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"
)

// Send sends one message and returns nil once it was handed to the network on an open
// connection. While no session is open it waits for the next one, or for the one that
// [WithSession] names.
//
// ctx and [WithTTL] bound the waiting only: once writing has begun, [WithWriteTimeout]
// does. An error is an [ErrNotSent], after which the message may safely be sent again, or
// [ErrMaybeSent]. [ErrClosed], [ErrExpired], [ErrSessionOver] and an [*OptionError] are
// all ErrNotSent. When ctx ends while no session is open, the error tells why there is
// none, as that of [Client.WaitOpen] does.
//
// Messages of one goroutine keep their order. Send does not keep data.
func (c *Client) Send(ctx context.Context, typ MessageType, data []byte, opts ...SendOption) error {
	if err := checkMessage("Send", typ, data); err != nil {
		return err
	}
	m, session := newOutbound(typ, data), uint64(0)
	if len(opts) > 0 {
		options, err := newSendOptions(opts)
		if err != nil {
			return err
		}
		if options.results {
			return &messageError{&OptionError{"WithResult", "func", "is for Enqueue: Send returns the outcome"}}
		}
		session, m.expiry = options.session, c.outbox.expiry(options.ttl)
	}
	return c.inVain(ctx, c.outbox.send(ctx, &m, session))
}

// Enqueue queues one message and returns at once. Queued messages survive reconnects and
// go out in order, after the OnOpen hook. A message is sent at most once: one that may
// have been sent is not sent again.
//
// An error is an [ErrNotSent], and means that the message was not queued: [ErrQueueFull],
// [ErrClosed], [ErrSessionOver] or an [*OptionError], also for a message that is larger
// than the whole queue ([WithQueue]). [WithResult] tells the final outcome. Enqueue
// copies data.
func (c *Client) Enqueue(typ MessageType, data []byte, opts ...SendOption) error {
	if err := checkMessage("Enqueue", typ, data); err != nil {
		return err
	}
	if most := c.config.queueBytes; len(data) > most {
		return &messageError{&OptionError{"Enqueue", fmt.Sprintf("%d bytes", len(data)), fmt.Sprintf("the message is larger than the queue, of %d bytes (WithQueue)", most)}}
	}
	m, session := newOutbound(typ, nil), uint64(0)
	if len(opts) > 0 {
		options, err := newSendOptions(opts)
		if err != nil {
			return err
		}
		session, m.expiry, m.result = options.session, c.outbox.expiry(options.ttl), options.result
	}
	return c.outbox.enqueue(&m, data, session)
}

// checkMessage rejects what cannot be a message, or what the server would answer with a
// close (RFC 6455, section 8.1). Messages of the heartbeat come here too.
func checkMessage(method string, typ MessageType, data []byte) error {
	if typ != MessageText && typ != MessageBinary {
		return &messageError{&OptionError{method, int(typ), "the message type must be MessageText or MessageBinary"}}
	}
	if typ == MessageText && !utf8.Valid(data) {
		return &messageError{&OptionError{method, MessageText, "the text is not valid UTF-8 (RFC 6455, section 5.6)"}}
	}
	return nil
}

// messageError is an OptionError about a message, and so an ErrNotSent.
type messageError struct{ *OptionError }

func (e *messageError) Unwrap() []error { return []error{ErrNotSent, e.OptionError} }

// sendOptions are what the options of a message set.
type sendOptions struct {
	ttl     time.Duration
	expires bool // WithTTL was given
	result  func(error)
	results bool   // WithResult was given
	session uint64 // the only session that may take the message, or 0
	bound   bool   // WithSession was given
}

// newSendOptions applies the options of a message, and rejects what cannot work.
func newSendOptions(opts []SendOption) (options sendOptions, err error) {
	for _, opt := range opts {
		if opt != nil {
			opt.applySend(&options)
		}
	}
	switch {
	case options.expires && options.ttl <= 0:
		return options, &messageError{&OptionError{"WithTTL", options.ttl, "must be positive"}}
	case options.bound && options.session == 0:
		return options, &messageError{&OptionError{"WithSession", 0, "sessions are numbered from 1"}}
	}
	return options, nil
}

// SendOption configures one message of [Client.Send] or [Client.Enqueue].
type SendOption interface {
	applySend(*sendOptions)
}

type sendFunc func(*sendOptions)

func (f sendFunc) applySend(o *sendOptions) { f(o) }

// WithTTL gives a message up with [ErrExpired] when it could not be sent within d. A Send
// that waits returns then; a message that is being written is waited for. Defaults to no
// limit; d must be positive.
func WithTTL(d time.Duration) SendOption {
	return sendFunc(func(o *sendOptions) { o.ttl, o.expires = d, true })
}

// WithResult reports the outcome of a message of [Client.Enqueue] to done: nil once it
// was handed to the network, else [ErrMaybeSent] or an [ErrNotSent], such as
// [ErrExpired], [ErrSessionOver] or [ErrClosed]. done is called exactly once, on any
// goroutine, unless Enqueue returned an error. It must not block: [Client.Send] may wait
// for it, and [Client.Done] does, so it must not wait for either. With Send, which
// returns its outcome, this option is an [*OptionError]. Defaults to none; nil is none.
func WithResult(done func(error)) SendOption {
	return sendFunc(func(o *sendOptions) { o.result, o.results = done, true })
}

// WithSession sends a message in session n or not at all, for an answer that means
// nothing on another connection. Session n must be open or in OnOpen, after which the
// message goes out. With any other n the error is [ErrSessionOver] at once; zero is an
// [*OptionError].
//
// The message is bound to the connection, not to its number: it gets ErrSessionOver as
// soon as the connection closes or is lost, even if OnOpen fails and the next connection
// has the same number. Defaults to any session.
func WithSession(n uint64) SendOption {
	return sendFunc(func(o *sendOptions) { o.session, o.bound = n, true })
}
