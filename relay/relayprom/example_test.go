package relayprom_test

import (
	"context"
	"log"
	"net/http"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/resock/resock"
	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/relayprom"
	"github.com/resock/resock/resockprom"
)

// Serve the metrics of a relay, and of its client while it has one.
func ExampleCollector() {
	conn, err := nats.Connect("nats://nats:4222", nats.MaxReconnects(-1))
	if err != nil {
		log.Fatal(err)
	}
	clients := resockprom.New(resockprom.Options{})
	replica, err := relay.New(relay.Config{
		Conn: conn, Name: "ticks", URL: "wss://example.com/push",
		Client: func(client *resock.Client) (remove func()) {
			remove, err := clients.Add("ticks", client)
			if err != nil {
				log.Fatal(err)
			}
			return remove
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	metrics := relayprom.New(relayprom.Options{})
	if _, err := metrics.Add("ticks", replica); err != nil {
		log.Fatal(err)
	}
	prometheus.MustRegister(clients, metrics)
	http.Handle("/metrics", promhttp.Handler())
	go http.ListenAndServe("localhost:9100", nil)
	if err := replica.Run(context.Background()); err != nil {
		log.Print(err)
	}
}
