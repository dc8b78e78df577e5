package resockotel_test

import (
	"context"
	"log"

	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/resock/resock"
	"github.com/resock/resock/resockotel"
)

// Report a client to the global providers, which the program may set before or afterwards.
func Example() {
	client, err := resock.New("wss://example.com/push")
	if err != nil {
		log.Fatal(err)
	}
	telemetry, err := resockotel.New()
	if err != nil {
		log.Fatal(err)
	}
	remove, err := telemetry.Add("prices", client)
	if err != nil {
		log.Fatal(err)
	}
	defer remove() // before the providers are shut down

	if err := client.Run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Use providers of the program's own, for metrics alone.
func ExampleWithMeterProvider() {
	meters := metric.NewMeterProvider(metric.WithReader(metric.NewManualReader()))
	telemetry, err := resockotel.New(
		resockotel.WithMeterProvider(meters),
		resockotel.WithTracerProvider(noop.NewTracerProvider()))
	if err != nil {
		log.Fatal(err)
	}
	_ = telemetry // telemetry.Add for each client
}
