package resockprom_test

import (
	"context"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/resock/resock"
	"github.com/resock/resock/resockprom"
)

// Serve the metrics of a client.
func ExampleCollector() {
	client, err := resock.New("wss://example.com/push")
	if err != nil {
		log.Fatal(err)
	}

	metrics := resockprom.New(resockprom.Options{})
	prometheus.MustRegister(metrics)
	remove, err := metrics.Add("prices", client)
	if err != nil {
		log.Fatal(err)
	}
	defer remove()

	http.Handle("/metrics", promhttp.Handler())
	go http.ListenAndServe("localhost:9100", nil)
	if err := client.Run(context.Background()); err != nil {
		log.Print(err)
	}
}
