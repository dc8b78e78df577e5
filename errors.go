package resock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// Errors of [Client.Send], [Client.Enqueue], [Client.Run] and of a lost session. Match
// them with [errors.Is].
var (
	// ErrNotSent says that a message was certainly not sent: sending it again is safe.
	ErrNotSent = errors.New("resock: not sent")

	// ErrMaybeSent says that the connection died while the message was being
	// written: the server may or may not have received it.
	ErrMaybeSent = errors.New("resock: may have been sent")

	// ErrQueueFull says that a bound of [WithQueue] was reached. It is an [ErrNotSent].
	ErrQueueFull error = &notSentError{"resock: queue full (WithQueue)"}

	// ErrExpired says that a message outlived its [WithTTL]. It is an [ErrNotSent].
	ErrExpired error = &notSentError{"resock: expired before it was sent (WithTTL)"}

	// ErrSessionOver says that the session to which [WithSession] bound a message is over,
	// or not there yet. It is an [ErrNotSent].
	ErrSessionOver error = &notSentError{"resock: session over"}

	// ErrClosed says that the client is closed for good, or closing. It is an
	// [ErrNotSent].
	ErrClosed error = &notSentError{"resock: client closed"}

	// ErrAlreadyRun says that [Client.Run] was called a second time.
	ErrAlreadyRun = errors.New("resock: Run called twice")

	// ErrHeartbeat says that the server was silent for too long. It is a [net.Error] that
	// is a timeout, as is the error of an attempt or a write that took too long.
	ErrHeartbeat error = &timeoutError{"resock: heartbeat timed out"}
)

// timeoutError says that something took too long, in the way of package net.
type timeoutError struct{ text string }

func (e *timeoutError) Error() string   { return e.text }
func (e *timeoutError) Timeout() bool   { return true }
func (e *timeoutError) Temporary() bool { return true }

// notSentError is a reason for which a message was certainly not sent.
type notSentError struct{ text string }

func (e *notSentError) Error() string        { return e.text }
func (e *notSentError) Is(target error) bool { return target == ErrNotSent }

var (
	errHookExited    = errors.New("the hook ended its goroutine (runtime.Goexit)")
	errHandlerExited = errors.New("resock: a handler, filter or hook ended the goroutine of Run (runtime.Goexit)")
)

// OptionError says that an option, or an argument, cannot work.
type OptionError struct {
	Option string // such as "WithHeartbeat"; or the method, such as "Send"
	Value  any    // what was passed
	Reason string // why it cannot work
}

func (e *OptionError) Error() string {
	return fmt.Sprintf("resock: %s(%v): %s", e.Option, e.Value, e.Reason)
}

// DialError says why an attempt failed. Its text says what came, what was expected, and
// which option has to do with it.
type DialError struct {
	Phase      Phase         // the part that failed
	Status     int           // HTTP status of a refused upgrade, or of a proxy that refused a tunnel (PhaseTCP), or 0
	RetryAfter time.Duration // of such a refusal, or 0
	Location   string        // of a redirect, which is never followed; secrets redacted
	Body       []byte        // of a refused upgrade, at most 1 KiB, as it came: it may be compressed, or repeat what was sent
	Err        error         // the cause
}

func (e *DialError) Error() string {
	return fmt.Sprintf("resock: dial: %v: %v", e.Phase, e.Err)
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// ProtocolError is a violation of RFC 6455 by the server, and the close code that was
// sent for it. If the violation is a close frame, Err wraps a [websocket.CloseError] with
// the code and reason that came.
type ProtocolError struct {
	Code StatusCode
	Err  error
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("resock: protocol error %d: %v", int(e.Code), e.Err)
}

// Unwrap returns the violation.
func (e *ProtocolError) Unwrap() error { return e.Err }

// GiveUpError is what [Client.Run] returns when the retry policy, the backoff policy, the
// attempt limit or a permanent error of a hook ended it.
type GiveUpError struct {
	Attempts int    // failed attempts in a row
	Rule     string // the rule that decided, as in the last event
	Err      error  // the last failure
}

func (e *GiveUpError) Error() string {
	attempts := "failed attempts"
	if e.Attempts == 1 {
		attempts = "failed attempt"
	}
	return fmt.Sprintf("resock: gave up after %d %s (%s): %v", e.Attempts, attempts, e.Rule, e.Err)
}

// Unwrap returns the last failure.
func (e *GiveUpError) Unwrap() error { return e.Err }

// lostError says that a connection ended when nobody meant it to.
type lostError struct {
	text string
	err  error
}

func (e *lostError) Error() string { return fmt.Sprintf("resock: %s: %v", e.text, e.err) }

func (e *lostError) Unwrap() error { return e.err }

// closedError says that the server closed the connection, where that is a failure.
type closedError struct{ close websocket.CloseError }

func (e *closedError) Error() string {
	return fmt.Sprintf("resock: closed by the server: code %d, reason %q", int(e.close.Code), e.close.Reason)
}

func (e *closedError) Unwrap() error { return e.close }

// blockedError is the end of a session in which delivery was blocked.
type blockedError struct {
	err             error
	blocked, lasted time.Duration
}

func (e *blockedError) Error() string {
	return fmt.Sprintf("%v (delivery was blocked for %v of %v)", e.err, e.blocked.Round(time.Millisecond), e.lasted.Round(time.Millisecond))
}

func (e *blockedError) Unwrap() error { return e.err }

// downError is the end of a wait while there was no session, and the failure because of
// which there was none.
type downError struct{ err, last error }

func (e *downError) Error() string { return fmt.Sprintf("%v: %v", e.err, e.last) }

// Unwrap returns the end of the wait.
func (e *downError) Unwrap() error { return e.err }

// Is finds what is in the failure, except for what says how a call ended: that is about
// this call only.
func (e *downError) Is(target error) bool {
	switch target {
	case context.Canceled, context.DeadlineExceeded, ErrNotSent, ErrMaybeSent, ErrQueueFull, ErrExpired, ErrSessionOver, ErrClosed:
		return false
	}
	return errors.Is(e.last, target)
}

// As finds what is in the end of the wait, or else in the failure.
func (e *downError) As(target any) bool { return errors.As(e.err, target) || errors.As(e.last, target) }

// limitError says that an attempt took longer than a limit of the application.
type limitError struct {
	option string // whose limit it is
	limit  time.Duration
	err    error // what was under way
}

func (e *limitError) Error() string {
	text := fmt.Sprintf("took longer than %s(%v)", e.option, e.limit)
	if e.err == context.DeadlineExceeded || e.err == context.Canceled {
		return text
	}
	return fmt.Sprintf("%s: %v", text, e.err)
}

func (e *limitError) Unwrap() []error { return []error{context.DeadlineExceeded, e.err} }

// late returns err, and if the attempt's ctx has ended, why.
func (c *config) late(ctx context.Context, err error) error {
	switch ended := ctx.Err(); {
	case ended == context.DeadlineExceeded:
		return &limitError{"WithDialTimeout", c.dialTimeout, err}
	case ended != nil && !errors.Is(err, ended):
		return fmt.Errorf("%w: %w", ended, err)
	}
	return err
}
