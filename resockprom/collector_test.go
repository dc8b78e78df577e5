package resockprom

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// connect returns a client of server that does not run yet, and is closed at the end of the
// test.
func connect(t testing.TB, server *resocktest.Server, opts ...resock.Option) *resock.Client {
	t.Helper()
	client, err := resock.New(server.URL, append(opts, resock.WithHTTPClient(server.Client()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// add adds a client until the end of the test.
func add(t testing.TB, c *Collector, name string, client *resock.Client) (remove func()) {
	t.Helper()
	remove, err := c.Add(name, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return remove
}

// registered returns a registry that checks all that a collector promises, and c in it.
func registered(t testing.TB, c *Collector) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	return registry
}

// values are all series of families: of client="feed" by name and the other labels, such
// as resock_state{state="open"}.
func values(families []*dto.MetricFamily) map[string]float64 {
	all := make(map[string]float64)
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				if label.GetName() != "client" || label.GetValue() != "feed" {
					labels = append(labels, fmt.Sprintf("%s=%q", label.GetName(), label.GetValue()))
				}
			}
			name := family.GetName()
			if labels != nil {
				name += "{" + strings.Join(labels, ",") + "}"
			}
			all[name] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue()
		}
	}
	return all
}

// gathered returns the values that a registry has now.
func gathered(t testing.TB, registry prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return values(families)
}

// expect compares some values; what it does not name and begins with one of zeros must be 0.
func expect(t *testing.T, got, want map[string]float64, zeros ...string) {
	t.Helper()
	for name, value := range want {
		if v, ok := got[name]; !ok || v != value {
			t.Errorf("%s: %v (%t), want %v", name, v, ok, value)
		}
	}
	for name, value := range got {
		for _, prefix := range zeros {
			if _, named := want[name]; !named && strings.HasPrefix(name, prefix) && value != 0 {
				t.Errorf("%s: %v, want 0", name, value)
			}
		}
	}
}

// fixedDelay waits 10 s before each attempt.
func fixedDelay() backoff.BackOff { return backoff.NewConstantBackOff(10 * time.Second) }

func TestAddRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		client := connect(t, resocktest.NewMemory(t))
		add(t, c, "taken", client)
		for _, tt := range []struct {
			name   string
			client *resock.Client
			want   string
		}{
			{"", client, "the name is empty"},
			{"taken", client, `Add("taken"): the name is taken`},
			{"\xff", client, `Add("\xff"): the name is not valid UTF-8`},
			{"new", nil, `Add("new"): the client is nil`},
		} {
			if remove, err := c.Add(tt.name, tt.client); err == nil || remove != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Add(%q): %v, want %q", tt.name, err, tt.want)
			}
		}
		if n := len(gathered(t, registered(t, c))); n != 51 { // no round trip and no message yet
			t.Errorf("%d series, want those of one client", n)
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		c := New(Options{})
		registry := registered(t, c)
		client := connect(t, resocktest.NewMemory(t)) // does not run
		remove := add(t, c, "feed", client)
		remove()
		if got := gathered(t, registry); len(got) != 0 {
			t.Errorf("after it was removed: %v", got)
		}
		add(t, c, "feed", client)
		remove() // does nothing
		if n := len(gathered(t, registry)); n != 51 {
			t.Errorf("%d series, want those of one client", n)
		}
	})
}

func TestOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{Namespace: "shop", ConstLabels: prometheus.Labels{"region": "eu"}})
		registry := registered(t, c)
		add(t, c, "feed", connect(t, resocktest.NewMemory(t)))
		expect(t, gathered(t, registry), map[string]float64{`shop_resock_state{region="eu",state="idle"}`: 1})
		for name, opts := range map[string]Options{
			"the same again":  {Namespace: "shop", ConstLabels: prometheus.Labels{"region": "eu"}},
			"a label of ours": {ConstLabels: prometheus.Labels{"client": "x"}},
			"no label name":   {ConstLabels: prometheus.Labels{"\xff": "x"}},
		} {
			if err := registry.Register(New(opts)); err == nil {
				t.Errorf("%s: registered", name)
			}
		}
		if err := registry.Register(New(Options{Namespace: "shop", ConstLabels: prometheus.Labels{"region": "us"}})); err != nil {
			t.Errorf("another region: %v", err)
		}
	})
}

// TestLint asks what Prometheus's own linter finds of the names and texts.
func TestLint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		add(t, c, "feed", connect(t, resocktest.NewMemory(t)))
		problems, err := testutil.GatherAndLint(registered(t, c))
		if err != nil || len(problems) != 0 {
			t.Errorf("%v, %v", problems, err)
		}
	})
}

// TestScrape serves two clients over HTTP, and has Prometheus's parser read the answer.
func TestScrape(t *testing.T) {
	c := New(Options{})
	server := resocktest.NewServer(t)
	client := connect(t, server, resock.WithHeartbeat(10*time.Millisecond, 10*time.Second))
	odd := "odd \"name\"\n\\"
	add(t, c, "feed", client)
	add(t, c, odd, client)
	go client.Run(context.Background())
	conn := server.Accept()
	messages := client.Messages(t.Context())
	if err := conn.Push("push"); err != nil {
		t.Fatal(err)
	}
	for range messages {
		break
	}
	for client.Stats().RoundTrip == 0 { // until a heartbeat is answered
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	registry := registered(t, c)
	scraped := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}))
	defer scraped.Close()
	res, err := http.Get(scraped.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	parsed, err := parser.TextToMetricFamilies(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	families := make([]*dto.MetricFamily, 0, len(parsed))
	for family := range maps.Values(parsed) {
		if family.GetHelp() == "" {
			t.Errorf("%s has no help", family.GetName())
		}
		families = append(families, family)
	}
	got := values(families)
	expect(t, got, map[string]float64{
		`resock_state{state="open"}`:                                  1,
		`resock_received_messages_total`:                              1,
		fmt.Sprintf(`resock_received_messages_total{client=%q}`, odd): 1,
	}, `resock_state{state=`)
	if trip := got["resock_round_trip_seconds"]; trip <= 0 || trip > 30 {
		t.Errorf("round trip of %v s", trip)
	}
	if last := time.Since(time.UnixMilli(int64(1000 * got["resock_last_message_timestamp_seconds"]))); last < -time.Second || last > time.Minute {
		t.Errorf("the last message came %v ago", last)
	}
	if len(got) != 2*53 { // as the documentation says
		t.Errorf("%d series of two clients, want %d", len(got), 2*53)
	}
}
