package docs

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

// snippet: observers
// observe gives each part of a program its own subscription. All begin before Run, so that
// none misses the first events.
func observe(ctx context.Context, client *resock.Client, store, show func([]byte), down func(error)) {
	all := client.Messages(ctx, resock.WithLabel("store"))
	latest := client.Subscribe(ctx, resock.WithLabel("screen"),
		resock.WithBuffer(16), resock.WithOverflow(resock.OverflowDropOldest))
	connection := client.Subscribe(ctx, resock.WithLabel("alarm"), resock.WithoutMessages())
	go func() {
		for m := range all {
			store(m.Data) // shared by all subscribers: read only
		}
	}()
	go func() {
		for event := range latest {
			if m, ok := event.(resock.MessageEvent); ok {
				show(m.Data)
			}
		}
	}()
	go func() {
		for event := range connection {
			if fail, ok := event.(resock.FailEvent); ok {
				down(fail.Err)
			}
		}
	}()
}

// end of snippet

func TestObservers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := resock.New("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		counts := make(map[string]int)
		count := func(what string) {
			mu.Lock()
			defer mu.Unlock()
			counts[what]++
		}
		observe(t.Context(), client,
			func([]byte) { count("stored") }, func([]byte) { count("shown") }, func(error) { count("down") })
		start(t, client, err)
		conn := server.Accept()
		for range 3 {
			_ = conn.Push("tick")
		}
		synctest.Wait()
		conn.Drop()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got, want := fmt.Sprint(counts), "map[down:1 shown:3 stored:3]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	})
}

// snippet: slow
// conflate calls show with the newest message, as often as show can take one, and with the
// number of messages that it had to leave out.
func conflate(ctx context.Context, client *resock.Client, show func(data []byte, missed uint64)) {
	events := client.Subscribe(ctx, resock.WithBuffer(1), resock.WithOverflow(resock.OverflowDropOldest))
	go func() {
		for event := range events {
			if m, ok := event.(resock.MessageEvent); ok {
				show(m.Data, m.Lost)
			}
		}
	}()
}

// end of snippet

func TestConflate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := resock.New("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var last string
		var shown, missed uint64
		conflate(t.Context(), client, func(data []byte, lost uint64) {
			time.Sleep(time.Second) // a slow screen
			mu.Lock()
			defer mu.Unlock()
			last, shown, missed = string(data), shown+1, missed+lost
		})
		start(t, client, err)
		conn := server.Accept()
		for i := range 100 {
			_ = conn.Push(fmt.Sprint("tick ", i+1))
			time.Sleep(50 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		mu.Lock()
		defer mu.Unlock()
		if last != "tick 100" || shown+missed != 100 || missed < 50 {
			t.Errorf("shown %d and missed %d, and at last %q; want 100 in all, most missed, and the last one shown", shown, missed, last)
		}
		if stats := client.Stats(); stats.Blocked > 0 || stats.Dropped != missed {
			t.Errorf("delivery was blocked for %v, and %d messages were dropped, want 0 and %d", stats.Blocked, stats.Dropped, missed)
		}
	})
}

// snippet: blocked
// blockedBy names the subscriber or function that has kept the client from reading for
// more than d, if there is one.
func blockedBy(client *resock.Client, d time.Duration) (who string, ok bool) {
	stats := client.Stats()
	if stats.BlockedBy == "" || time.Since(stats.BlockedSince) < d {
		return "", false
	}
	return stats.BlockedBy, true
}

// end of snippet

func TestBlockedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := serve(t)
		client, err := resock.New("wss://example.com/feed")
		if err != nil {
			t.Fatal(err)
		}
		client.Subscribe(t.Context(), resock.WithLabel("stuck"), resock.WithBuffer(1)) // and nobody reads it
		start(t, client, err)
		conn := server.Accept()
		for range 10 {
			_ = conn.Push("tick")
		}
		time.Sleep(10 * time.Second)
		if who, ok := blockedBy(client, 5*time.Second); !ok || who != "stuck" {
			t.Errorf("got %q, %t, want stuck", who, ok)
		}
		if who, ok := blockedBy(client, time.Minute); ok {
			t.Errorf("after 10 s, %q is said to have blocked for a minute", who)
		}
	})
}
