// Observers shows one connection with three subscribers: one that keeps every
// push, one that only watches the connection, and a slow one that may miss pushes.
// The server is part of the program and drops the connection once.
//
//	go run ./examples/observers
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
)

const pushes = 60 // half of them before the server drops the connection

func main() {
	served := make(chan struct{})
	server := httptest.NewServer(pushServer(served))
	defer server.Close()

	client, err := resock.New("ws"+strings.TrimPrefix(server.URL, "http"),
		resock.WithBackoff(200*time.Millisecond, time.Second))
	if err != nil {
		log.Fatal(err)
	}

	// All of them subscribe before Run, and so see the stream from its beginning. The
	// channels are closed when the client is.
	ctx := context.Background()
	var observers sync.WaitGroup
	all := client.Subscribe(ctx)
	observers.Go(func() { archive(all) })
	lifecycle := client.Subscribe(ctx, resock.WithoutMessages())
	observers.Go(func() { watch(lifecycle) })
	latest := client.Subscribe(ctx, resock.WithBuffer(3), resock.WithOverflow(resock.OverflowDropOldest))
	observers.Go(func() { display(latest) })

	go func() {
		<-served
		_ = client.Close(resock.StatusNormalClosure, "seen enough")
	}()
	if err := client.Run(ctx); err != nil {
		log.Fatal(err)
	}
	observers.Wait()
}

// archive keeps every push: its subscription blocks delivery rather than drop one.
func archive(events <-chan resock.Event) {
	var kept [][]byte
	for event := range events {
		if message, ok := event.(resock.MessageEvent); ok {
			kept = append(kept, message.Data)
		}
	}
	say("archive", "kept %d of %d pushes", len(kept), pushes)
}

// watch follows the connection. Without messages it never falls behind.
func watch(events <-chan resock.Event) {
	for event := range events {
		switch e := event.(type) {
		case resock.OpenEvent:
			say("lifecycle", "open, session %d, downtime %d ms", e.Session, e.Downtime.Milliseconds())
		case resock.FailEvent:
			say("lifecycle", "lost in the %v phase, next: %v for %d ms", e.Phase, e.Next, e.RetryIn.Milliseconds())
		case resock.CloseEvent:
			say("lifecycle", "closed, code %d %q, next: %v", e.Code, e.Reason, e.Next)
		}
	}
}

// display is slow, and skips the pushes that it cannot show in time. It does not delay
// the others.
func display(events <-chan resock.Event) {
	var shown int
	for event := range events {
		message, ok := event.(resock.MessageEvent)
		if !ok {
			continue
		}
		shown++
		say("display", "%s (dropped before it: %d)", message.Data, message.Lost)
		time.Sleep(250 * time.Millisecond)
	}
	say("display", "showed %d of %d pushes", shown, pushes)
}

// pushServer sends half of the pushes on its first connection and drops it. The second
// connection gets the rest.
func pushServer(served chan<- struct{}) http.Handler {
	var connections atomic.Int64
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := conn.CloseRead(r.Context())
		first := connections.Add(1) == 1
		from, to := 1, pushes/2
		if !first {
			from, to = pushes/2+1, pushes
		}
		for i := from; i <= to; i++ {
			if err := conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "push %d", i)); err != nil {
				return
			}
			time.Sleep(40 * time.Millisecond)
		}
		if first {
			return // without a closing handshake
		}
		close(served)
		<-ctx.Done()
	})
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-10s %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
