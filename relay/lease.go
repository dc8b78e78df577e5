package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// errLost says that a term is over: the lease was not renewed in time, or another has it.
var errLost = errors.New("relay: the lease is lost")

// lease is the right to lead, which one process has at a time. It is a key in a bucket whose
// entries expire.
type lease struct {
	bucket jetstream.KeyValue
	key    string
	ttl    time.Duration   // of the bucket
	told   func(err error) // why nobody can take it
}

// term is the time in which this process holds the lease.
type term struct {
	lease *lease
	epoch uint64 // the revision of the entry that began it: a later term has a higher one
	value []byte // of the entry; no other term has the same

	ctx     context.Context // ends with the term
	end     context.CancelCauseFunc
	renewed chan struct{} // closed when nothing renews the lease any more

	mu       sync.Mutex
	revision uint64 // of the entry as it is now
	until    time.Time
	expiry   *time.Timer
}

// acquire waits until the lease is free, and takes it, unless the connection is closed. The context of the term ends when
// the lease is lost, but not with ctx; release it in any case.
func (l *lease) acquire(ctx context.Context) (*term, error) {
	every := min(max(l.ttl/5, 50*time.Millisecond), 250*time.Millisecond)
	for failed := false; ; {
		t, err := l.try(ctx)
		if err == nil {
			return t, nil
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return nil, fmt.Errorf("relay: take the lease: %w", err)
		}
		if odd := !errors.Is(err, jetstream.ErrKeyExists); odd != failed {
			if failed = odd; failed && ctx.Err() == nil {
				l.told(err)
			}
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// try takes the lease if it is free. Any error means that it is not: if the answer was lost,
// the entry expires.
func (l *lease) try(ctx context.Context) (*term, error) {
	asking, cancel := context.WithTimeout(ctx, l.ttl)
	defer cancel()
	t := &term{lease: l, value: holder(), renewed: make(chan struct{}), until: time.Now().Add(l.ttl)}
	var err error
	if t.epoch, err = l.bucket.Create(asking, l.key, t.value); err != nil {
		return nil, err
	}
	t.revision = t.epoch
	t.ctx, t.end = context.WithCancelCause(context.WithoutCancel(ctx))
	t.expiry = time.AfterFunc(time.Until(t.until), t.expire)
	go t.renew()
	return t, nil
}

// holder names a term of this process.
func holder() []byte {
	host, _ := os.Hostname()
	return fmt.Appendf(nil, "%s %d %s", host, os.Getpid(), rand.Text())
}

// held reports whether the lease is certainly held. A process that was stopped finds out
// here, even before its timer does.
func (t *term) held() bool {
	t.mu.Lock()
	until := t.until
	t.mu.Unlock()
	if !time.Now().Before(until) {
		t.end(errLost)
	}
	return t.ctx.Err() == nil
}

// expire ends the term when the lease was not renewed in time.
func (t *term) expire() { t.held() }

// renew renews the lease until the term ends.
func (t *term) renew() {
	defer close(t.renewed)
	ticks := time.NewTicker(t.lease.ttl / 5)
	defer ticks.Stop()
	for {
		select {
		case <-ticks.C:
		case <-t.ctx.Done():
			return
		}
		if t.held() {
			t.prolong()
		}
	}
}

// prolong renews the lease once. The time counts from before the request: the server may
// have taken it at any moment since.
func (t *term) prolong() {
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.ctx, t.lease.ttl/3) // the answer may stand behind many others
	defer cancel()
	revision, err := t.lease.bucket.Update(ctx, t.lease.key, t.value, t.current())
	switch {
	case err == nil:
		t.set(revision, began.Add(t.lease.ttl))
	case wrongSequence(err):
		t.look(ctx)
	}
}

// look finds out whether the entry that was changed is one whose answer was lost.
func (t *term) look(ctx context.Context) {
	entry, err := t.lease.bucket.Get(ctx, t.lease.key)
	switch {
	case err == nil && string(entry.Value()) == string(t.value):
		t.set(entry.Revision(), time.Time{})
	case err == nil, errors.Is(err, jetstream.ErrKeyNotFound):
		t.end(errLost)
	}
}

func (t *term) current() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revision
}

// set notes the revision, and how long the lease is held if that is later than before.
func (t *term) set(revision uint64, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.revision = revision
	if until.After(t.until) {
		t.until = until
		t.expiry.Reset(time.Until(until))
	}
}

// release ends the term, and frees the lease if no other holds it by now.
func (t *term) release() {
	t.end(context.Canceled)
	<-t.renewed
	t.expiry.Stop()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = t.lease.bucket.Delete(ctx, t.lease.key, jetstream.LastRevision(t.current())) // else it expires
}

// wrongSequence reports whether the server refused a message because of what was written
// before it.
func wrongSequence(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence ||
		api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant)
}
