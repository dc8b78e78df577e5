package resockprom

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// BenchmarkMessage measures a message from a server over the loopback interface to a
// handler: of a client that was not added, and of one that was and is scraped each second.
func BenchmarkMessage(b *testing.B) {
	b.Run("none", func(b *testing.B) { rig.BenchmarkMessage(b, func(*resock.Client) {}) })
	b.Run("scraped", func(b *testing.B) {
		rig.BenchmarkMessage(b, func(client *resock.Client) {
			c := New(Options{})
			add(b, c, "feed", client)
			scrape(b, registered(b, c))
		})
	})
}

// scrape scrapes each second until the end of the benchmark.
func scrape(b *testing.B, registry prometheus.Gatherer) {
	handler := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for ctx.Err() == nil {
			handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/metrics", nil))
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-over })
}

// BenchmarkCollect measures a scrape without its HTTP, of so many clients.
func BenchmarkCollect(b *testing.B) {
	for _, clients := range []int{1, 100} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			c := New(Options{})
			server := resocktest.NewServer(b)
			for i := range clients {
				add(b, c, fmt.Sprint("feed", i), connect(b, server))
			}
			out := make(chan prometheus.Metric, 64*clients)
			b.ReportAllocs()
			for b.Loop() {
				c.Collect(out)
				for len(out) > 0 {
					<-out
				}
			}
		})
	}
}
