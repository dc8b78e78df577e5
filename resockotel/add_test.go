package resockotel_test

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/resock/resock"
	"github.com/resock/resock/resockotel"
	"github.com/resock/resock/resocktest"
)

func TestAddRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		client := connect(t, resocktest.NewMemory(t))
		tel.add("taken", client)
		for _, tt := range []struct {
			name   string
			client *resock.Client
			want   string
		}{
			{"", client, "the name is empty"},
			{"taken", client, `Add("taken"): the name is taken`},
			{"new", nil, `Add("new"): the client is nil`},
		} {
			if remove, err := tel.Add(tt.name, tt.client); err == nil || remove != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Add(%q): %v, want %q", tt.name, err, tt.want)
			}
		}
		if _, ok := tel.series()["resock.attempts{taken}"]; !ok {
			t.Error("the client is gone")
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		remove := tel.add("prices", client)
		go client.Run(t.Context())
		server.Accept()
		time.Sleep(time.Minute)
		remove()
		if s := tel.last("resock.session"); s.EndTime.Sub(s.StartTime) != time.Minute || s.attrs["resock.phase"] != nil || s.attrs["resock.close.code"] != nil {
			t.Errorf("the span of the open session: %+v", s)
		}
		if all := tel.series(); len(all) != 0 {
			t.Errorf("still reported: %v", all)
		}
		tel.add("prices", client)
		remove() // does nothing
		tel.want(map[string]float64{"resock.sessions.opened{prices}": 1})
	})
}

// TestAddLate is about a client that was added in the middle of a session: that session
// begins when it began, and its sums at Add.
func TestAddLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		began := time.Now()
		go client.Run(t.Context())
		conn := server.Accept()
		_ = conn.Push("before")
		time.Sleep(time.Minute)
		tel.add("prices", client)
		_ = conn.Push("after")
		time.Sleep(time.Minute)
		conn.Drop()
		synctest.Wait()
		s := tel.last("resock.session")
		if !s.StartTime.Equal(began) || s.EndTime.Sub(began) != 2*time.Minute || s.attrs["resock.session.messages_received"] != int64(1) {
			t.Errorf("from %v to %v: %v", s.StartTime, s.EndTime, s.attrs)
		}
		tel.want(map[string]float64{"resock.messages{prices}receive": 2, "resock.session.failures{prices}read": 1})
	})
}

func TestSeveralClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		open, idle := connect(t, server), connect(t, server)
		tel.add("open", open)
		tel.add("idle", idle)
		tel.add("again", open)
		go open.Run(t.Context())
		server.Accept()
		synctest.Wait()
		tel.want(map[string]float64{"resock.state{open}open": 1, "resock.state{again}open": 1, "resock.state{idle}idle": 1, "resock.state{idle}open": 0})
		if n := len(tel.ended()); n != 2 { // of the attempt, for each name
			t.Errorf("%d spans, want 2", n)
		}
	})
}

// TestConcurrently registers, collects and removes while sessions come and go, for the race
// detector. In the end nothing is left.
func TestConcurrently(t *testing.T) {
	tel := newTelemetry(t)
	server := resocktest.NewServer(t)
	server.Handle((*resocktest.Conn).Drop)
	client := connect(t, server, resock.WithBackoff(time.Millisecond, time.Millisecond))
	go client.Run(t.Context())
	var group sync.WaitGroup
	for _, name := range []string{"a", "b", "c"} {
		group.Go(func() {
			for range 50 {
				remove, err := tel.Add(name, client)
				if err != nil {
					t.Error(err)
					return
				}
				tel.series()
				remove()
			}
		})
	}
	group.Wait()
	if all := tel.series(); len(all) != 0 {
		t.Errorf("still reported: %v", all)
	}
}

// The global providers can be set once in the life of a process.
var (
	globalReader = sdkmetric.NewManualReader()
	globalSpans  = tracetest.NewInMemoryExporter()
	setGlobals   = sync.OnceFunc(func() {
		otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(globalReader)))
		otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(globalSpans)))
	})
)

// TestGlobalProviders sets the global providers after a client was added, as programs do
// whose packages begin in any order.
func TestGlobalProviders(t *testing.T) {
	globalSpans.Reset()
	synctest.Test(t, func(t *testing.T) {
		tel := &telemetry{t: t, reader: globalReader, spans: globalSpans}
		var err error
		if tel.Instrumentation, err = resockotel.New(nil, resockotel.WithMeterProvider(nil)); err != nil {
			t.Fatal(err)
		}
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		remove := tel.add("prices", client)
		setGlobals()
		go client.Run(t.Context())
		server.Accept()
		synctest.Wait()
		tel.want(map[string]float64{"resock.state{prices}open": 1})
		tel.last("resock.attempt")
		remove()
		if all := tel.series(); len(all) != 0 {
			t.Errorf("still reported: %v", all)
		}
	})
}
