package relay

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func newLease(t *testing.T, js jetstream.JetStream, ttl time.Duration) *lease {
	t.Helper()
	bucket, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "lease", TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return &lease{bucket: bucket, key: "leader", ttl: ttl, told: func(error) {}}
}

func acquire(t *testing.T, l *lease) *term {
	t.Helper()
	held, err := l.acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func TestLeaseHasOneHolder(t *testing.T) {
	js := jetStream(t, connect(t, startServer(t)))
	l := newLease(t, js, time.Second)
	first := acquire(t, l)
	if _, err := l.try(t.Context()); err == nil {
		t.Fatal("two have the lease")
	}
	first.release()
	second := acquire(t, l)
	defer second.release()
	if second.epoch <= first.epoch {
		t.Errorf("the epoch went from %d to %d", first.epoch, second.epoch)
	}
	if first.held() || !second.held() {
		t.Errorf("held: first %t, second %t", first.held(), second.held())
	}
}

func TestLeaseIsRenewed(t *testing.T) {
	js := jetStream(t, connect(t, startServer(t)))
	l := newLease(t, js, 500*time.Millisecond)
	held := acquire(t, l)
	defer held.release()
	other, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
	defer cancel()
	if _, err := l.acquire(other); err == nil || !held.held() {
		t.Errorf("after three times the TTL: held %t, another has it: %t", held.held(), err == nil)
	}
}

func TestLeaseOfTheDeadIsTaken(t *testing.T) {
	s := startServer(t)
	conn := connect(t, s)
	ttl := 500 * time.Millisecond
	dead := acquire(t, newLease(t, jetStream(t, conn), ttl))
	conn.Close()
	began := time.Now()
	next := acquire(t, newLease(t, jetStream(t, connect(t, s)), ttl))
	defer next.release()
	if took := time.Since(began); took > ttl+time.Second {
		t.Errorf("taken over after %v", took)
	}
	if dead.held() {
		t.Error("the dead one still holds the lease")
	}
	dead.release()
	if !next.held() {
		t.Error("the dead one released the lease of the next")
	}
}

// TestLeaseAfterAStop has a holder whose clock went on and whose goroutines did not: the
// first question tells it.
func TestLeaseAfterAStop(t *testing.T) {
	js := jetStream(t, connect(t, startServer(t)))
	l := newLease(t, js, time.Second)
	stopped := acquire(t, l)
	stopped.mu.Lock()
	stopped.until = time.Now()
	stopped.mu.Unlock()
	if stopped.held() || context.Cause(stopped.ctx) != errLost {
		t.Errorf("held after the end of its time: %v", context.Cause(stopped.ctx))
	}
	stopped.release()
}

// TestLeaseWhoseAnswerWasLost renews an entry whose last revision it does not know.
func TestLeaseWhoseAnswerWasLost(t *testing.T) {
	js := jetStream(t, connect(t, startServer(t)))
	l := newLease(t, js, time.Second)
	held := acquire(t, l)
	defer held.release()
	if _, err := l.bucket.Put(t.Context(), l.key, held.value); err != nil {
		t.Fatal(err)
	}
	held.prolong() // finds the revision
	before := held.current()
	held.prolong()
	if !held.held() || held.current() <= before {
		t.Errorf("held %t, revision %d after %d", held.held(), held.current(), before)
	}
}

func TestLeaseThatAnotherTook(t *testing.T) {
	js := jetStream(t, connect(t, startServer(t)))
	l := newLease(t, js, time.Second)
	held := acquire(t, l)
	if _, err := l.bucket.Put(t.Context(), l.key, holder()); err != nil {
		t.Fatal(err)
	}
	held.prolong()
	if held.held() {
		t.Error("held, though another has it")
	}
	held.release()
	if _, err := l.try(t.Context()); err == nil {
		t.Error("the loser released the lease of another")
	}
}

// TestLeaseCountsFromTheRequest checks that a lease is never held for longer than the entry
// lasts.
func TestLeaseCountsFromTheRequest(t *testing.T) {
	l := newLease(t, jetStream(t, connect(t, startServer(t))), time.Second)
	held := acquire(t, l)
	defer held.release()
	held.prolong()
	held.mu.Lock()
	until := held.until
	held.mu.Unlock()
	if !until.Before(time.Now().Add(l.ttl)) {
		t.Errorf("held for %v, the entry lasts %v", time.Until(until), l.ttl)
	}
}
