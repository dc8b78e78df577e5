package rig

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

// Bare returns a client that has no subscriber and is not running. When the test
// ends, the client is closed and its Done channel awaited.
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

// Await returns the next event, and fails the test unless it is an E.
func Await[E resock.Event](t *testing.T, events <-chan resock.Event) E {
	t.Helper()
	var want E
	select {
	case event, ok := <-events:
		if e, is := event.(E); is {
			return e
		}
		t.Fatalf("got %T %+v (channel open: %t), want %T", event, event, ok, want)
	case <-time.After(time.Hour):
		t.Fatalf("got no event within an hour, want %T", want)
	}
	return want
}

// Abandon subscribes without reading the stream to its end. Such a stream cannot be
// checked against the grammar.
func Abandon(ctx context.Context, client *resock.Client, opts ...resock.SubscribeOption) <-chan resock.Event {
	return client.Subscribe(ctx, opts...)
}

// ClosesWithin closes the client and checks that this takes no longer than d.
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

// OpensWithin waits until session n or a later one is open, and fails the test if that
// takes longer than d. It needs virtual time.
func OpensWithin(t *testing.T, client *resock.Client, n uint64, d time.Duration) {
	t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if stats := client.Stats(); stats.State == resock.StateOpen && stats.Session >= n {
			return
		}
	}
	t.Fatalf("session %d not open within %v: %+v", n, d, client.Stats())
}

// Within checks that the time elapsed since began is between low and high.
func Within(t *testing.T, began time.Time, low, high time.Duration) {
	t.Helper()
	if took := time.Since(began); took < low || took > high {
		t.Errorf("took %v, want %v to %v", took, low, high)
	}
}

// Outcome returns an option for Enqueue, and the channel on which the outcome of the
// message arrives.
func Outcome() (resock.SendOption, <-chan error) {
	told := make(chan error, 2) // room for a second outcome, so that a test notices it
	return resock.WithResult(func(err error) { told <- err }), told
}

// Settled waits until all goroutines of the bubble are blocked. It returns the outcome,
// and whether there is one.
func Settled(told <-chan error) (err error, ok bool) {
	synctest.Wait()
	select {
	case err := <-told:
		return err, true
	default:
		return nil, false
	}
}
