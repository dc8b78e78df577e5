package rig

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

// Bare returns a client that is not run and has no subscriber. It is closed, and
// waited for, when the test ends.
func Bare(t *testing.T, url string, opts ...resock.Option) *resock.Client {
	t.Helper()
	client, err := resock.New(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// Await returns the next of the events, which must be an E.
func Await[E resock.Event](t *testing.T, events <-chan resock.Event) E {
	t.Helper()
	var want E
	select {
	case event, ok := <-events:
		if e, is := event.(E); is {
			return e
		}
		t.Fatalf("got %T %+v (open channel: %v), want %T", event, event, ok, want)
	case <-time.After(time.Hour):
		t.Fatal("no event in an hour")
	}
	return want
}

// Abandon subscribes on behalf of somebody who does not read on, and so checks nothing.
func Abandon(ctx context.Context, client *resock.Client, opts ...resock.SubscribeOption) <-chan resock.Event {
	return client.Subscribe(ctx, opts...)
}

// ClosesWithin closes a client, and checks that it is closed within d.
func ClosesWithin(t *testing.T, client *resock.Client, d time.Duration) {
	t.Helper()
	began := time.Now()
	if err := client.Close(resock.StatusNormalClosure, ""); err != nil {
		t.Fatal(err)
	}
	<-client.Done()
	if took := time.Since(began); took > d {
		t.Errorf("closing took %v, want at most %v", took, d)
	}
}

// OpensWithin waits until session n, or a later one, is open, in virtual time.
func OpensWithin(t *testing.T, client *resock.Client, n uint64, d time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if stats := client.Stats(); stats.State == resock.StateOpen && stats.Session >= n {
			return
		}
	}
	t.Fatalf("session %d is not open after %v: %+v", n, d, client.Stats())
}

// Within checks how long ago began is.
func Within(t *testing.T, began time.Time, low, high time.Duration) {
	t.Helper()
	if took := time.Since(began); took < low || took > high {
		t.Errorf("took %v, want %v to %v", took, low, high)
	}
}

// Outcome returns an option that tells the outcome of a message, and where.
func Outcome() (resock.SendOption, <-chan error) {
	told := make(chan error, 2) // a second one shows
	return resock.WithResult(func(err error) { told <- err }), told
}

// Settled returns what was told, if it was, once all is quiet in virtual time.
func Settled(told <-chan error) (err error, ok bool) {
	synctest.Wait()
	select {
	case err := <-told:
		return err, true
	default:
		return nil, false
	}
}
