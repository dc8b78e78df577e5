package check

import (
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/relayprom"
)

const relayAlerts = "../../relay/relayprom/alerts.yaml"

// relayGatherer returns a registry with a relay, which has all its metrics before it runs.
func relayGatherer(t *testing.T) prometheus.Gatherer {
	t.Helper()
	r, err := relay.New(relay.Config{Conn: new(nats.Conn), Name: "ticks", URL: "wss://example.com/push"})
	if err != nil {
		t.Fatal(err)
	}
	collector := relayprom.New(relayprom.Options{})
	if _, err := collector.Add("ticks", r); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	return registry
}

func TestRelayAlerts(t *testing.T) {
	checkAlerts(t, relayAlerts, exported(t, relayGatherer(t)),
		"ResockRelayNoLeader", "ResockRelayLeaders", "ResockRelayTerms", "ResockRelayBlocked", "ResockRelayDropped", "ResockRelayGaps")
}

func TestPromtoolRelayMetrics(t *testing.T) {
	body, _ := scrape(t, relayGatherer(t), "text/plain")
	promtool(t, body, "check", "metrics")
}

func TestPromtoolRelayRules(t *testing.T) {
	promtool(t, nil, "check", "rules", relayAlerts)
}

// Each alert of the relay fires when it should, and not before.
func TestPromtoolRelayAlerts(t *testing.T) {
	promtool(t, nil, "test", "rules", "testdata/relay_alerts_test.yaml")
}
