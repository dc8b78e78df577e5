package relay_test

import (
	"context"
	"log"
	"net/http"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/resock/resock"
	"github.com/resock/resock/health"
	"github.com/resock/resock/relay"
)

// A readiness probe that bears a short loss of the feed, and wants a message each minute,
// while the replica leads.
func ExampleRelay_Check() {
	conn, err := nats.Connect("nats://nats:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	var feed health.Readiness
	replica, err := relay.New(relay.Config{
		Conn: conn, Name: "ticks", URL: "wss://example.com/push",
		Client: func(client *resock.Client) (remove func()) {
			remove, err := feed.Add("ticks", client, health.WithGrace(10*time.Second), health.WithFreshness(time.Minute))
			if err != nil {
				log.Fatal(err)
			}
			return remove
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		err := replica.Check()
		if replica.Stats().Leading {
			err = feed.Check()
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	})
	go http.ListenAndServe("localhost:8080", nil)
	if err := replica.Run(context.Background()); err != nil {
		log.Print(err)
	}
}
