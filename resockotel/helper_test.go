package resockotel_test

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/resock/resock"
	"github.com/resock/resock/resockotel"
	"github.com/resock/resock/resocktest"
)

// connect returns a client of server, which is closed at the end of the test.
func connect(t testing.TB, server *resocktest.Server, opts ...resock.Option) *resock.Client {
	t.Helper()
	client, err := resock.New(server.URL+"/push?token=verysecret", append(opts, resock.WithHTTPClient(server.Client()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// telemetry is an Instrumentation, and what the SDK makes of it.
type telemetry struct {
	*resockotel.Instrumentation
	t      testing.TB
	reader *sdkmetric.ManualReader
	spans  *tracetest.InMemoryExporter
}

func newTelemetry(t testing.TB) *telemetry {
	t.Helper()
	tel := &telemetry{t: t, reader: sdkmetric.NewManualReader(), spans: tracetest.NewInMemoryExporter()}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(tel.reader))
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSyncer(tel.spans))
	var err error
	tel.Instrumentation, err = resockotel.New(resockotel.WithMeterProvider(meters), resockotel.WithTracerProvider(tracers))
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// add registers a client until the end of the test.
func (tel *telemetry) add(name string, client *resock.Client) (remove func()) {
	tel.t.Helper()
	remove, err := tel.Add(name, client)
	if err != nil {
		tel.t.Fatal(err)
	}
	tel.t.Cleanup(remove)
	return remove
}

// collect returns the metrics by name.
func (tel *telemetry) collect() map[string]metricdata.Metrics {
	tel.t.Helper()
	var all metricdata.ResourceMetrics
	if err := tel.reader.Collect(context.Background(), &all); err != nil {
		tel.t.Fatal(err)
	}
	found := make(map[string]metricdata.Metrics)
	for _, scope := range all.ScopeMetrics {
		if scope.Scope.Name != resockotel.ScopeName {
			tel.t.Errorf("scope %q", scope.Scope.Name)
		}
		for _, m := range scope.Metrics {
			found[m.Name] = m
		}
	}
	return found
}

// series returns the values of all metrics, such as "resock.state{prices}open": the name of
// the client, and the value of the other attribute, if there is one.
func (tel *telemetry) series() map[string]float64 {
	tel.t.Helper()
	all := make(map[string]float64)
	for name, m := range tel.collect() {
		switch data := m.Data.(type) {
		case metricdata.Sum[int64]:
			addPoints(all, name, data.DataPoints)
		case metricdata.Sum[float64]:
			addPoints(all, name, data.DataPoints)
		case metricdata.Gauge[float64]:
			addPoints(all, name, data.DataPoints)
		default:
			tel.t.Errorf("%s is a %T", name, data)
		}
	}
	return all
}

func addPoints[N int64 | float64](all map[string]float64, name string, points []metricdata.DataPoint[N]) {
	for _, p := range points {
		label := ""
		for _, kv := range p.Attributes.ToSlice() { // sorted by key
			if kv.Key != "resock.client.name" {
				label = kv.Value.AsString()
			}
		}
		client, _ := p.Attributes.Value("resock.client.name")
		all[name+"{"+client.AsString()+"}"+label] = float64(p.Value)
	}
}

// want compares some of the series.
func (tel *telemetry) want(values map[string]float64) {
	tel.t.Helper()
	all := tel.series()
	for name, want := range values {
		if got, ok := all[name]; !ok || got != want {
			tel.t.Errorf("%s: %v (there: %t), want %v", name, got, ok, want)
		}
	}
}

// span is one that has ended, with its attributes by name.
type span struct {
	tracetest.SpanStub
	attrs map[string]any
}

func byName(attrs []attribute.KeyValue) map[string]any {
	m := make(map[string]any)
	for _, kv := range attrs {
		m[string(kv.Key)] = kv.Value.AsInterface()
	}
	return m
}

// ended returns the spans that have ended, in this order.
func (tel *telemetry) ended() []span {
	var all []span
	for _, stub := range tel.spans.GetSpans() {
		all = append(all, span{stub, byName(stub.Attributes)})
	}
	return all
}

// last returns the last span of this name that has ended.
func (tel *telemetry) last(name string) span {
	tel.t.Helper()
	all := tel.ended()
	for _, s := range slices.Backward(all) {
		if s.Name == name {
			return s
		}
	}
	tel.t.Fatalf("%d spans, none of them %s", len(all), name)
	return span{}
}

// eventOf returns the attributes of the only event of this name, of the last session.
func eventOf(t *testing.T, tel *telemetry, name string) map[string]any {
	t.Helper()
	var found []map[string]any
	session := tel.last("resock.session")
	for _, e := range session.Events {
		if e.Name == name && e.Time.Equal(session.EndTime) {
			found = append(found, byName(e.Attributes))
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d events %s at the end in %+v", len(found), name, session.Events)
	}
	return found[0]
}
