package relay_test

import (
	"context"
	"log"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/health"
	"github.com/resock/resock/relay"
)

// A worker reads the stream of a relay by a consumer that it shares with all workers of the
// same name. Each message goes to one of them, and comes again if it is not acknowledged.
func Example_worker() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	conn, err := nats.Connect("nats://127.0.0.1:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		log.Fatal(err)
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, "ticks", jetstream.ConsumerConfig{
		Durable:        "workers",
		FilterSubjects: []string{"ticks.msg.>", "ticks.gap"},
		AckPolicy:      jetstream.AckExplicitPolicy,
	})
	if err != nil {
		log.Fatal(err)
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		if m.Subject() == "ticks.gap" {
			log.Printf("missing: %s", m.Data())
		} else {
			at, _ := relay.PositionOf(m.Headers())
			log.Printf("%d: %s", at.Seq, m.Data())
		}
		if err := m.Ack(); err != nil {
			log.Print(err)
		}
	})
	if err != nil {
		log.Fatal(err)
	}
	<-ctx.Done()
	consuming.Stop()
}

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
