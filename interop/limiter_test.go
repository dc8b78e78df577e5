package interop

import (
	"context"
	"fmt"
	"log"
	"time"

	"golang.org/x/time/rate"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// Clients of one process can share a rate.Limiter as their dial limiter.
func Example_dialLimiter() {
	server := resocktest.NewServer(nil)
	defer server.Close()
	limiter := rate.NewLimiter(rate.Every(50*time.Millisecond), 1)
	clients := make([]*resock.Client, 5)
	started := time.Now()
	for i := range clients {
		client, err := resock.New(server.URL, resock.WithDialLimiter(limiter))
		if err != nil {
			log.Fatal(err)
		}
		clients[i] = client
		go client.Run(context.Background())
	}
	for _, client := range clients {
		if err := client.WaitOpen(context.Background()); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("the last of 5 waited for its turn:", time.Since(started) >= 4*50*time.Millisecond)
	for _, client := range clients {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	}
	// Output: the last of 5 waited for its turn: true
}
