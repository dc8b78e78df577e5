package resock

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/cenkalti/backoff/v4"
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
	ErrQueueFull error = &notSentError{"resock: queue full"}

	// ErrExpired says that a message outlived its [WithTTL]. It is an [ErrNotSent].
	ErrExpired error = &notSentError{"resock: expired before it was sent"}

	// ErrSessionOver says that the session to which [WithSession] bound a message is over,
	// or not there yet. It is an [ErrNotSent].
	ErrSessionOver error = &notSentError{"resock: session over"}

	// ErrClosed says that the client is closed for good, or closing. It is an
	// [ErrNotSent].
	ErrClosed error = &notSentError{"resock: client closed"}

	// ErrAlreadyRun says that [Client.Run] was called a second time.
	ErrAlreadyRun = errors.New("resock: Run called twice")

	// ErrHeartbeat says that the server was silent for too long.
	ErrHeartbeat = errors.New("resock: heartbeat timed out")
)

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

// DialError says why an attempt failed.
type DialError struct {
	Phase      Phase         // the part that failed
	Status     int           // HTTP status of a refused upgrade, or 0
	RetryAfter time.Duration // of a refused upgrade, or 0
	Location   string        // of a redirect, which is never followed; secrets redacted
	Body       []byte        // of a refused upgrade, at most 1 KiB
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
	return fmt.Sprintf("resock: gave up after %d failed attempts (%s): %v", e.Attempts, e.Rule, e.Err)
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

// blockedError is the end of a session in which delivery was blocked.
type blockedError struct {
	err             error
	blocked, lasted time.Duration
}

func (e *blockedError) Error() string {
	return fmt.Sprintf("%v (delivery was blocked for %v of %v)", e.err, e.blocked.Round(time.Millisecond), e.lasted.Round(time.Millisecond))
}

func (e *blockedError) Unwrap() error { return e.err }

// redact returns err without a raw URL in its text or chain. net/url and
// net/http put the URL, query included, into every error they return.
func redact(err error) error {
	var urlErr *url.Error
	if !errors.As(err, &urlErr) {
		return err
	}
	return &url.Error{Op: urlErr.Op, URL: redactURL(urlErr.URL), Err: redact(urlErr.Err)}
}

// redactHook returns what a hook returned, redacted. A permanent error stays one.
func redactHook(err error) error {
	clean := redact(err)
	if permanent(err) && !permanent(clean) {
		return backoff.Permanent(clean)
	}
	return clean
}

// redactURL removes what may be secret from a URL: userinfo, query and fragment.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "redacted" // what cannot be parsed may be secret as a whole
	}
	return redacted(u)
}

// redacted is redactURL for a parsed URL, which it changes.
func redacted(u *url.URL) string {
	if u.Opaque != "" {
		return "redacted"
	}
	if u.User != nil {
		u.User = url.User("redacted")
	}
	if u.RawQuery != "" {
		u.RawQuery = "redacted"
	}
	u.Fragment, u.RawFragment = "", ""
	return u.String()
}
