package resockotel_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Refuse(), resocktest.Status(503, nil, ""), resocktest.Hold())
		client := connect(t, server)
		tel.add("prices", client)
		go client.Run(t.Context())
		conn := server.Accept()
		opened := time.Now()
		_ = conn.Push("hello")
		_ = client.Send(t.Context(), resock.MessageText, []byte("world"))
		time.Sleep(time.Minute)
		synctest.Wait()
		stats := client.Stats()
		tel.want(map[string]float64{
			"resock.state{prices}open": 1, "resock.state{prices}waiting": 0, "resock.state{prices}closed": 0,
			"resock.attempts{prices}": 3, "resock.sessions{prices}": 1,
			"resock.attempt.failures{prices}tcp": 1, "resock.attempt.failures{prices}upgrade": 1, "resock.attempt.failures{prices}dns": 0,
			"resock.session.failures{prices}read": 0, "resock.session.closes{prices}1000": 0,
			"resock.messages{prices}receive": 1, "resock.messages{prices}transmit": 1,
			"resock.traffic{prices}receive": float64(stats.BytesIn), "resock.traffic{prices}transmit": float64(stats.BytesOut),
			"resock.queue.messages{prices}": 0, "resock.queue.size{prices}": 0, "resock.dropped_messages{prices}": 0,
			"resock.blocked{prices}": 0, "resock.blocked_time{prices}": 0, "resock.downtime{prices}": 0,
			"resock.last_message.timestamp{prices}":      float64(opened.UnixNano()) / 1e9,
			"resock.last_state_change.timestamp{prices}": float64(opened.UnixNano()) / 1e9,
		})
		conn.Drop()
		next := server.Accept()
		synctest.Wait()
		down := client.Stats().Downtime.Seconds()
		_ = next.Close(4001, "no")
		synctest.Wait()
		tel.want(map[string]float64{
			"resock.session.failures{prices}read": 1, "resock.session.closes{prices}4xxx": 1, "resock.downtime{prices}": down,
			"resock.state{prices}open": 0, "resock.state{prices}waiting": 1, "resock.sessions{prices}": 2,
		})
		if down <= 0 {
			t.Error("no downtime")
		}
	})
}

func TestQueueDropsAndBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		client.Subscribe(t.Context(), resock.WithBuffer(0), resock.WithLabel("slow"))
		client.Subscribe(t.Context(), resock.WithBuffer(1), resock.WithOverflow(resock.OverflowDropOldest))
		_ = client.Enqueue(resock.MessageText, []byte("12345"))
		tel.want(map[string]float64{"resock.queue.messages{prices}": 1, "resock.queue.size{prices}": 5, "resock.state{prices}idle": 1})
		go client.Run(t.Context())
		conn := server.Accept()
		for range 3 {
			_ = conn.Push("tick")
		}
		time.Sleep(time.Minute)
		tel.want(map[string]float64{"resock.blocked{prices}": 1, "resock.blocked_time{prices}": 60, "resock.queue.messages{prices}": 0})
		if n := client.Stats().Dropped; n > 0 {
			tel.want(map[string]float64{"resock.dropped_messages{prices}": float64(n)})
		}
	})
}

// TestInstruments compares names, units and kinds with what the documentation says.
func TestInstruments(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {}))
		tel.add("prices", client)
		go client.Run(t.Context())
		_ = server.Accept().Push("hello")
		_ = client.Flush(t.Context()) // a round trip, which takes no time here
		time.Sleep(time.Minute)
		for name, m := range tel.collect() {
			if m.Description == "" || m.Unit == "" {
				t.Errorf("%s: description %q, unit %q", name, m.Description, m.Unit)
			}
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && sum.Temporality != metricdata.CumulativeTemporality {
				t.Errorf("%s: %v", name, sum.Temporality)
			}
		}
	})
}
