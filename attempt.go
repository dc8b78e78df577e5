package resock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// dialed is what an attempt led to.
type dialed struct {
	session *session
	err     error
}

// maxStrays is how many attempts may be left behind in hooks that do not return.
const maxStrays = 4

// attempt runs f, a part of an attempt, until ctx ends or the application wants no
// connection any more, which it reports. If f does not return then, it is left behind.
// f notes in at where it is, but for the dial limiter, which has none.
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
			if !c.wanted() {
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

// leaveBehind gives an attempt up whose hook does not return.
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
	return &DialError{Phase: phase, Err: fmt.Errorf("%w: the function of %s has not returned", cmp.Or(ctx.Err(), context.Canceled), hook)}
}

// dialFailure tells a retry policy about a failed attempt.
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
