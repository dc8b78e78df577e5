package resockotel_test

import (
	"context"
	"testing"
	"time"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resockotel"
)

// BenchmarkMessage measures a message from a server over the loopback interface to a
// handler: of a client that is not registered, and of one that is, whose metrics are
// collected each second.
func BenchmarkMessage(b *testing.B) {
	b.Run("none", func(b *testing.B) { rig.BenchmarkMessage(b, func(*resock.Client) {}) })
	b.Run("registered", func(b *testing.B) {
		rig.BenchmarkMessage(b, func(client *resock.Client) {
			reader := sdkmetric.NewManualReader()
			newBenchmarked(b, reader, client)
			collectEachSecond(b, reader)
		})
	})
}

// BenchmarkCollect measures a collection from one registered client.
func BenchmarkCollect(b *testing.B) {
	client, err := resock.New("ws://127.0.0.1:1")
	if err != nil {
		b.Fatal(err)
	}
	reader := sdkmetric.NewManualReader()
	newBenchmarked(b, reader, client)
	var all metricdata.ResourceMetrics
	b.ReportAllocs()
	for b.Loop() {
		if err := reader.Collect(context.Background(), &all); err != nil {
			b.Fatal(err)
		}
	}
}

func newBenchmarked(b *testing.B, reader sdkmetric.Reader, client *resock.Client) {
	telemetry, err := resockotel.New(
		resockotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))),
		resockotel.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(tracetest.NewInMemoryExporter()))))
	if err != nil {
		b.Fatal(err)
	}
	remove, err := telemetry.Add("feed", client)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(remove)
}

func collectEachSecond(b *testing.B, reader *sdkmetric.ManualReader) {
	ticker, stop, stopped := time.NewTicker(time.Second), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		var all metricdata.ResourceMetrics
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
				_ = reader.Collect(context.Background(), &all)
			}
		}
	}()
	b.Cleanup(func() {
		ticker.Stop()
		close(stop)
		<-stopped
	})
}
