package resockotel_test

import (
	"context"
	"maps"
	"os"
	"regexp"
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
			"resock.attempts{prices}": 3, "resock.sessions.opened{prices}": 1,
			"resock.attempt.failures{prices}tcp": 1, "resock.attempt.failures{prices}upgrade": 1, "resock.attempt.failures{prices}dns": 0,
			"resock.session.failures{prices}read": 0, "resock.session.closes{prices}1000": 0,
			"resock.messages{prices}receive": 1, "resock.messages{prices}transmit": 1,
			"resock.traffic{prices}receive": float64(stats.BytesIn), "resock.traffic{prices}transmit": float64(stats.BytesOut),
			"resock.queue.messages{prices}": 0, "resock.queue.size{prices}": 0, "resock.dropped_messages{prices}": 0,
			"resock.blocked{prices}": 0, "resock.blocked_time{prices}": 0, "resock.downtime{prices}": 0,
			"resock.last_message.timestamp{prices}": float64(opened.UnixNano()) / 1e9,
			"resock.state_change.timestamp{prices}": float64(opened.UnixNano()) / 1e9,
		})
		conn.Drop()
		next := server.Accept()
		synctest.Wait()
		down := client.Stats().Downtime.Seconds()
		_ = next.Close(4001, "no")
		synctest.Wait()
		tel.want(map[string]float64{
			"resock.session.failures{prices}read": 1, "resock.session.closes{prices}4xxx": 1, "resock.downtime{prices}": down,
			"resock.state{prices}open": 0, "resock.state{prices}waiting": 1, "resock.sessions.opened{prices}": 2,
		})
		if down <= 0 {
			t.Error("no downtime")
		}
	})
}

func TestQueueAndBlocking(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		client.Subscribe(t.Context(), resock.WithBuffer(0), resock.WithLabel("slow"))
		_ = client.Enqueue(resock.MessageText, []byte("12345"))
		tel.want(map[string]float64{"resock.queue.messages{prices}": 1, "resock.queue.size{prices}": 5, "resock.state{prices}idle": 1})
		go client.Run(t.Context())
		conn := server.Accept()
		for range 3 {
			_ = conn.Push("tick")
		}
		time.Sleep(time.Minute)
		tel.want(map[string]float64{"resock.blocked{prices}": 1, "resock.blocked_time{prices}": 60, "resock.queue.messages{prices}": 0})
		client.Suspend()
		time.Sleep(time.Minute)
		e := eventOf(t, tel, "resock.blocked")
		if e["resock.blocked.duration"] != 60.0 {
			t.Errorf("got %v", e)
		}
	})
}

// TestBlockedStill is about a handler that does not return: it is known at the end of the
// session, too.
func TestBlockedStill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		returns := make(chan struct{})
		client := connect(t, server, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { <-returns }))
		t.Cleanup(func() { close(returns) }) // before the client is closed
		tel.add("prices", client)
		go client.Run(t.Context())
		_ = server.Accept().Push("tick")
		time.Sleep(time.Minute)
		client.Suspend()
		time.Sleep(time.Minute)
		if e := eventOf(t, tel, "resock.blocked"); e["resock.blocked.by"] != "WithMessageHandler" {
			t.Errorf("got %v", e)
		}
		tel.want(map[string]float64{"resock.blocked{prices}": 1, "resock.state{prices}suspended": 1})
	})
}

func TestDrops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		lossy, cancel := context.WithCancel(t.Context())
		client.Subscribe(lossy, resock.WithBuffer(2), resock.WithOverflow(resock.OverflowDropOldest))
		go client.Run(t.Context())
		conn := server.Accept()
		for range 10 {
			_ = conn.Push("tick")
		}
		synctest.Wait()
		cancel() // or the end of the session may drop one more, after it was told here
		synctest.Wait()
		dropped := client.Stats().Dropped
		if dropped == 0 {
			t.Fatal("nothing was dropped")
		}
		tel.want(map[string]float64{"resock.dropped_messages{prices}": float64(dropped)})
		conn.Drop()
		synctest.Wait()
		if e := eventOf(t, tel, "resock.dropped"); e["resock.dropped.messages"] != int64(dropped) {
			t.Errorf("got %v, want %d", e, dropped)
		}
	})
}

// TestInstruments compares names, units and kinds with the table in doc.go.
func TestInstruments(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	documented := make(map[string]string)
	for _, row := range regexp.MustCompile(`(?m)^//\t(resock\.\S+) +(\S+) +(counter|updowncounter|gauge) `).FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2] + " " + row[3]
	}
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server, resock.WithHeartbeat(time.Second, 10*time.Second))
		tel.add("prices", client)
		go client.Run(t.Context())
		conn := server.Accept()
		_ = conn.Push("hello")
		conn.StopReading()
		time.Sleep(5 * time.Second)
		conn.StartReading() // and answer the beats
		synctest.Wait()
		trip := client.Stats().RoundTrip.Seconds()
		tel.want(map[string]float64{"resock.round_trip{prices}": trip})
		if trip <= 0 {
			t.Errorf("round trip %v s", trip)
		}
		found := make(map[string]string)
		for name, m := range tel.collect() {
			found[name] = m.Unit + " " + kindOf(m.Data)
		}
		if len(found) == 0 || !maps.Equal(found, documented) {
			t.Errorf("got  %v\nwant %v", found, documented)
		}
	})
}

func kindOf(data metricdata.Aggregation) string {
	kind := func(monotonic bool) string {
		if monotonic {
			return "counter"
		}
		return "updowncounter"
	}
	switch data := data.(type) {
	case metricdata.Sum[int64]:
		return kind(data.IsMonotonic)
	case metricdata.Sum[float64]:
		return kind(data.IsMonotonic)
	}
	return "gauge"
}

// TestCardinality closes sessions with all kinds of codes: what a server sends must not
// make ever more series.
func TestCardinality(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		sent := []resock.StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3999, 4000, 4001, 4999}
		var steps []resocktest.Step
		for _, code := range sent {
			steps = append(steps, resocktest.Serve(func(conn *resocktest.Conn) { _ = conn.Close(code, "") }))
		}
		server.Script(append(steps, resocktest.Hold())...)
		client := connect(t, server)
		tel.add("prices", client)
		const series = 42 // and two that are missing until there is a message and a ping
		if n := len(tel.series()); n != series {
			t.Errorf("%d series in the beginning, want %d", n, series)
		}
		go client.Run(t.Context())
		time.Sleep(time.Hour)
		all := tel.series()
		if n := len(all); n != series {
			t.Errorf("%d series, want %d", n, series)
		}
		if all["resock.session.closes{prices}3xxx"] != 3 || all["resock.session.closes{prices}4xxx"] != 3 || all["resock.session.closes{prices}1011"] != 1 || all["resock.session.closes{prices}1xxx"] != 6 {
			t.Errorf("got %v", all)
		}
	})
}
