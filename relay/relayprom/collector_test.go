package relayprom

import (
	"context"
	"fmt"
	"maps"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
)

// idle returns a relay that does not run.
func idle(t *testing.T) *relay.Relay {
	t.Helper()
	r, err := relay.New(relay.Config{Conn: new(nats.Conn), Name: "ticks", URL: "ws://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// registered returns a registry that checks all that a collector promises, and c in it.
func registered(t *testing.T, c *Collector) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	return registry
}

// gathered returns the values that a registry has now, of the relay with that name, without
// the beginning of their names that all have.
func gathered(t *testing.T, registry prometheus.Gatherer, relay string) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[string]float64)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "relay" && label.GetValue() == relay {
					values[strings.TrimPrefix(family.GetName(), "resock_relay_")] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
				}
			}
		}
	}
	return values
}

// TestValues has each field of the statistics in its place.
func TestValues(t *testing.T) {
	stats := relay.Stats{
		Leading: true, Term: 2, Terms: 3, Written: 4, Repeated: 5, Resent: 6, Gaps: 7, Dropped: 8, Unacknowledged: 9,
		Blocked: 1500 * time.Millisecond, Outgoing: 10, Requests: 11, Refused: 12, Bytes: 13,
	}
	m := newMetrics(Options{})
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.CollectorFunc(func(out chan<- prometheus.Metric) { m.send(sender{out, "ticks"}, stats) }))
	want := map[string]float64{
		"leading": 1, "term": 2, "terms_total": 3, "written_messages_total": 4, "repeated_messages_total": 5,
		"resent_messages_total": 6, "gaps_total": 7, "dropped_messages_total": 8, "unacknowledged_messages": 9,
		"blocked_seconds_total": 1.5, "outgoing_messages_total": 10,
		"requests_total": 11, "refused_messages_total": 12, "unacknowledged_bytes": 13,
	}
	if got := gathered(t, registry, "ticks"); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestLife collects from a relay before it runs, while it leads, and after its end.
func TestLife(t *testing.T) {
	nats, err := server.Start(server.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer nats.Close()
	conn, err := nats.Connect()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	upstream := feed.New("e")
	upstream.Push(10)
	listening := httptest.NewServer(upstream)
	defer listening.Close()
	defer upstream.Cut()
	url := "ws" + strings.TrimPrefix(listening.URL, "http") + "?since=0"
	r, err := relay.New(relay.Config{Conn: conn, Name: "ticks", URL: url, Read: feed.Read})
	if err != nil {
		t.Fatal(err)
	}
	c := New(Options{})
	registry := registered(t, c)
	if _, err := c.Add("ticks", r); err != nil {
		t.Fatal(err)
	}
	if got := gathered(t, registry, "ticks"); len(got) != 14 || got["leading"] != 0 { // as the documentation says
		t.Errorf("before it runs: %v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- r.Run(ctx) }()
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for gathered(t, registry, "ticks")["written_messages_total"] < 10 {
		<-ticks.C
	}
	if got := gathered(t, registry, "ticks"); got["leading"] != 1 || got["term"] != 1 || got["terms_total"] != 1 {
		t.Errorf("while it leads: %v", got)
	}
	cancel()
	<-ran
	if got := gathered(t, registry, "ticks"); got["leading"] != 0 || got["terms_total"] != 1 || got["written_messages_total"] < 10 {
		t.Errorf("after its end: %v", got)
	}
}

func TestAddRejects(t *testing.T) {
	c, r := New(Options{}), idle(t)
	if _, err := c.Add("taken", r); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		relay *relay.Relay
		want  string
	}{
		{"", r, "the name is empty"},
		{"taken", r, `Add("taken"): the name is taken`},
		{"\xff", r, `Add("\xff"): the name is not valid UTF-8`},
		{"new", nil, `Add("new"): the relay is nil`},
	} {
		if remove, err := c.Add(tt.name, tt.relay); err == nil || remove != nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Add(%q): %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestRemove(t *testing.T) {
	c, r := New(Options{}), idle(t)
	registry := registered(t, c)
	remove, err := c.Add("ticks", r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Add("other", r); err != nil {
		t.Fatal(err)
	}
	remove()
	if got, other := gathered(t, registry, "ticks"), gathered(t, registry, "other"); len(got) != 0 || len(other) != 14 {
		t.Errorf("after one was removed: %v, and of the other %v", got, other)
	}
	if _, err := c.Add("ticks", r); err != nil {
		t.Fatal(err)
	}
	remove() // does nothing
	if got := gathered(t, registry, "ticks"); len(got) != 14 {
		t.Errorf("after it was added again: %v", got)
	}
}

func TestOptions(t *testing.T) {
	c := New(Options{Namespace: "shop", ConstLabels: prometheus.Labels{"region": "eu"}})
	registry := registered(t, c)
	if _, err := c.Add("ticks", idle(t)); err != nil {
		t.Fatal(err)
	}
	want := "# HELP shop_resock_relay_leading 1 while this replica leads, else 0.\n# TYPE shop_resock_relay_leading gauge\n" +
		"shop_resock_relay_leading{region=\"eu\",relay=\"ticks\"} 0\n"
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "shop_resock_relay_leading"); err != nil {
		t.Error(err)
	}
	if registry.Register(New(Options{ConstLabels: prometheus.Labels{"relay": "x"}})) == nil {
		t.Error("a label of ours is registered")
	}
}

// TestLint asks what Prometheus's own linter finds of the names and texts.
func TestLint(t *testing.T) {
	c := New(Options{})
	if _, err := c.Add("ticks", idle(t)); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registered(t, c))
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// Each metric is in the documentation of the package, and in the README of the module.
func TestDocumented(t *testing.T) {
	c := New(Options{})
	registry := registered(t, c)
	if _, err := c.Add("ticks", idle(t)); err != nil {
		t.Fatal(err)
	}
	for file, format := range map[string]string{"doc.go": "//\tresock_relay_%s ", "../README.md": "`%s`"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name := range gathered(t, registry, "ticks") {
			if !strings.Contains(string(text), fmt.Sprintf(format, name)) {
				t.Errorf("%s has no %s", file, name)
			}
		}
	}
}
