package resock

import (
	"errors"
	"net/http"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"

	"github.com/resock/resock/internal/delay"
	"github.com/resock/resock/internal/redact"
)

// Phase is the part of an attempt or session that failed.
type Phase int

const (
	PhaseEndpoint  Phase = iota + 1 // the endpoint hook or the dial limiter
	PhaseDNS                        // name resolution
	PhaseTCP                        // connecting, to a proxy and through it too
	PhaseTLS                        // the TLS handshake
	PhaseUpgrade                    // the HTTP upgrade
	PhaseSetup                      // the OnOpen hook
	PhaseRead                       // reading: the connection was lost
	PhaseWrite                      // writing, or the write timeout
	PhaseHeartbeat                  // the heartbeat, or the idle timeout: silence
	PhaseProtocol                   // a violation of RFC 6455 by the server
)

func (p Phase) String() string {
	names := [...]string{"none", "endpoint", "DNS", "TCP", "TLS", "upgrade", "setup", "read", "write", "heartbeat", "protocol"}
	if p < 0 || int(p) >= len(names) {
		return "unknown"
	}
	return names[p]
}

// Failure is what a retry policy decides on: a failed attempt, a lost session or a close.
type Failure struct {
	Phase      Phase // 0 for a close
	Err        error
	Status     int           // HTTP status of a refused upgrade or tunnel, or 0
	RetryAfter time.Duration // from the response, or 0
	Code       StatusCode    // the close code that was sent or received, or -1
	Reason     string        // that the server gave for the close
	Attempt    int           // which attempt failed or opened the session, from 1
	Uptime     time.Duration // of the session, or 0; see WithStableAfter
	Repeats    int           // sessions in a row that ended by the same Code without becoming stable
	Renewable  bool          // the first Status 401 or 403 or Code 1008 in a row, and a hook may bring fresh credentials
}

// Action is what follows a failure.
type Action int

const (
	ActionRetry     Action = iota // after the backoff's delay
	ActionRetrySlow               // after half to all of the backoff's maximum; with WithBackoffPolicy, at least 30 s
	ActionStop                    // give up: Run returns a GiveUpError
	ActionFinish                  // end the client as intended: Run returns nil
)

// Decision is a retry policy's answer.
type Decision struct {
	Action Action
	After  time.Duration // a floor for the delay, with the jitter on top; 0 is none
	Spread float64       // factor of the jitter; 0 means 1
	Rule   string        // a short name, for the events and the log; defaults to "retry policy"
}

const (
	maxRetryAfter   = 5 * time.Minute
	busySpread      = 2
	poisonSlow      = 2 // repeats
	unknownPeerCode = StatusCode(-1)
)

// DefaultRetryPolicy retries everything for ever, since a feed that must not stop has to
// outlive any outage. It is a pure function.
//
//   - Network errors, silence, a bad handshake, and every status and close code not
//     named below, such as 408, 425, 429 and 5xx: retry. A Retry-After of up to 5 min is
//     a floor, with the jitter on top, since many clients are told the same.
//   - Close codes 1012 (service restart) and 1013 (try again later): retry with twice
//     the spread.
//   - The first status 401 or 403, or close code 1008 (policy violation), in a row, with
//     [WithEndpoint], or [WithOnOpen] for 1008, which may bring fresh credentials: retry.
//     A stable session ends the row.
//   - Any other status 3xx or 4xx, any other close code 1008, and a certificate that
//     either side does not trust: retry slowly.
//   - One of the close codes 1002, 1003, 1007, 1009 and 1010, sent or received, in the
//     second session in a row: retry slowly, since the server will most likely repeat
//     what led to it.
func DefaultRetryPolicy(f Failure) Decision {
	switch {
	case f.Code == StatusServiceRestart, f.Code == StatusTryAgainLater:
		return Decision{Spread: busySpread, Rule: "server busy"}
	case f.Renewable:
		return Decision{After: floor(f.RetryAfter), Rule: "fresh credentials"}
	case f.Code == StatusPolicyViolation:
		return Decision{Action: ActionRetrySlow, Rule: "policy violation"}
	case poisonous(f.Code) && f.Repeats >= poisonSlow:
		return Decision{Action: ActionRetrySlow, Rule: "repeated close code"}
	case f.Status >= 300 && f.Status <= 499 && !temporaryStatus(f.Status):
		return Decision{Action: ActionRetrySlow, After: floor(f.RetryAfter), Rule: "refused"}
	case f.Status != 0:
		return Decision{After: floor(f.RetryAfter), Rule: "status"}
	case f.Phase == PhaseTLS && badCertificate(f.Err):
		return Decision{Action: ActionRetrySlow, Rule: "certificate"}
	case f.Phase == 0:
		return Decision{Rule: "closed"}
	}
	return Decision{Rule: "connection"}
}

// permanent reports whether a hook returned what backoff.Permanent makes of an error.
func permanent(err error) bool {
	var p *backoff.PermanentError
	return errors.As(err, &p)
}

// redactHook is [redact.Error] for what a hook returned. A permanent error stays one.
func redactHook(err error) error {
	clean := redact.Error(err)
	if permanent(err) && !permanent(clean) {
		return backoff.Permanent(clean)
	}
	return clean
}

// poisonous reports whether a close code blames a message: as long as that message comes
// again, so does the code.
func poisonous(code StatusCode) bool {
	switch code {
	case websocket.StatusProtocolError, websocket.StatusUnsupportedData,
		websocket.StatusInvalidFramePayloadData, websocket.StatusMessageTooBig,
		websocket.StatusMandatoryExtension:
		return true
	}
	return false
}

// temporaryStatus reports whether a status 4xx does not blame the client.
func temporaryStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return false
}

// floor is the part of a Retry-After that is respected.
func floor(retryAfter time.Duration) time.Duration {
	return min(max(0, retryAfter), maxRetryAfter)
}

// wish is the decision as [delay.Schedule.Draw] takes it.
func (d Decision) wish() delay.Wish {
	return delay.Wish{Slow: d.Action == ActionRetrySlow, Floor: max(0, d.After), Spread: d.Spread}
}
