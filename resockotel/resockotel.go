package resockotel

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/resock/resock"
)

// ScopeName is the name of the instrumentation scope, of the metrics and the traces.
const ScopeName = "github.com/resock/resock/resockotel"

// Option configures an [Instrumentation].
type Option interface {
	apply(*providers)
}

type providers struct {
	meters  metric.MeterProvider
	tracers trace.TracerProvider
}

type optionFunc func(*providers)

func (f optionFunc) apply(p *providers) { f(p) }

// WithMeterProvider sets where the metrics go. Defaults to [otel.GetMeterProvider]; nil is
// the default. For traces alone, give the provider of package metric/noop.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(all *providers) { all.meters = p })
}

// WithTracerProvider sets where the traces go. Defaults to [otel.GetTracerProvider]; nil is
// the default. For metrics alone, give the provider of package trace/noop.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(all *providers) { all.tracers = p })
}

// Instrumentation tells OpenTelemetry what its clients do. All methods may be called
// concurrently.
type Instrumentation struct {
	meter       metric.Meter
	tracer      trace.Tracer
	instruments instruments

	mu    sync.Mutex // guards what follows
	names map[string]bool
}

// New returns an Instrumentation without clients. An error is one of the meter, which
// cannot make an instrument, for a view of its provider, say. The global providers may be
// set afterwards. Options that are nil do nothing.
func New(opts ...Option) (*Instrumentation, error) {
	var p providers
	for _, opt := range opts {
		if opt != nil {
			opt.apply(&p)
		}
	}
	if p.meters == nil {
		p.meters = otel.GetMeterProvider()
	}
	if p.tracers == nil {
		p.tracers = otel.GetTracerProvider()
	}
	i := &Instrumentation{
		meter:  p.meters.Meter(ScopeName, metric.WithSchemaURL(semconv.SchemaURL)),
		tracer: p.tracers.Tracer(ScopeName, trace.WithSchemaURL(semconv.SchemaURL)),
		names:  make(map[string]bool),
	}
	var err error
	if i.instruments, err = newInstruments(i.meter); err != nil {
		return nil, fmt.Errorf("resockotel: New: %w", err)
	}
	return i, nil
}

// Add registers a client under a name, which is the attribute resock.client.name of all
// its metrics and spans, before it runs, while it runs, or after it was closed. Until
// remove is called its metrics are reported, also if it is closed. An empty name, a name
// that is taken and a nil client are errors, and nothing happens. One client may have
// several names.
//
// A registered client has one goroutine here, which receives its events but no messages,
// until the client is closed or removed. remove waits for it, and ends the span of a
// session that is still open; the name is free then. Calls after the first do nothing.
func (i *Instrumentation) Add(name string, client *resock.Client) (remove func(), err error) {
	switch {
	case name == "":
		return nil, errors.New("resockotel: Add: the name is empty")
	case client == nil:
		return nil, fmt.Errorf("resockotel: Add(%q): the client is nil", name)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.names[name] {
		return nil, fmt.Errorf("resockotel: Add(%q): the name is taken", name)
	}
	e := newEntry(name, client, i.tracer)
	callback, err := i.instruments.observe(i.meter, e)
	if err != nil {
		return nil, fmt.Errorf("resockotel: Add(%q): %w", name, err)
	}
	i.names[name] = true
	ctx, cancel := context.WithCancel(context.Background())
	go e.follow(client.Subscribe(ctx, resock.WithoutMessages(), resock.WithLabel("resockotel")))
	return sync.OnceFunc(func() {
		_ = callback.Unregister() // fails only for a provider that ignores it
		cancel()
		<-e.followed
		i.forget(name)
	}), nil
}

func (i *Instrumentation) forget(name string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.names, name)
}
