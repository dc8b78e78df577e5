// Package check compares the dashboard and the alerts of resockprom, and the alerts of
// relay/relayprom, with what is exported, by the parsers of Prometheus and Grafana. It is a
// module of its own since those are large.
package check

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/textparse"
	"github.com/prometheus/prometheus/promql/parser"

	"github.com/resock/resock"
	"github.com/resock/resock/resockprom"
	"github.com/resock/resock/resocktest"
)

var promQL = parser.NewParser(parser.Options{})

// exported are the labels of each metric that g gathers, and the values of each label.
func exported(t *testing.T, g prometheus.Gatherer) map[string]map[string][]string {
	t.Helper()
	body, kind := scrape(t, g, "application/openmetrics-text;version=1.0.0")
	return parse(t, body, kind)
}

// gatherer returns a registry with a client that received a message and a pong.
func gatherer(t *testing.T) prometheus.Gatherer {
	t.Helper()
	server := resocktest.NewServer(t)
	client, err := resock.New(server.URL, resock.WithHTTPClient(server.Client()), resock.WithHeartbeat(10*time.Millisecond, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	collector := resockprom.New(resockprom.Options{})
	remove, err := collector.Add("feed", client)
	if err != nil {
		t.Fatal(err)
	}
	go client.Run(context.Background())
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		remove()
	})
	if err := server.Accept().Push("push"); err != nil {
		t.Fatal(err)
	}
	for stats := client.Stats(); stats.RoundTrip == 0 || stats.MessagesIn == 0; stats = client.Stats() {
		if err := client.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector)
	return registry
}

// scrape serves what g gathers over HTTP. It returns the answer and its content type.
func scrape(t *testing.T, g prometheus.Gatherer, accept string) (body []byte, kind string) {
	t.Helper()
	server := httptest.NewServer(promhttp.HandlerFor(g, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	defer server.Close()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", accept)
	res, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body, res.Header.Get("Content-Type")
}

// parse has the parser of Prometheus's server read a scrape.
func parse(t *testing.T, body []byte, kind string) map[string]map[string][]string {
	t.Helper()
	p, err := textparse.New(body, kind, labels.NewSymbolTable(), textparse.ParserOptions{})
	if err != nil {
		t.Fatal(err)
	}
	metrics := make(map[string]map[string][]string)
	for {
		entry, err := p.Next()
		if errors.Is(err, io.EOF) {
			return metrics
		}
		if err != nil {
			t.Fatal(err)
		}
		if entry == textparse.EntrySeries {
			note(metrics, p)
		}
	}
}

// note notes the labels of a series.
func note(metrics map[string]map[string][]string, p textparse.Parser) {
	var series labels.Labels
	p.Labels(&series)
	name := series.Get("__name__")
	if metrics[name] == nil {
		metrics[name] = map[string][]string{"job": nil, "instance": nil} // which Prometheus adds
	}
	series.Range(func(l labels.Label) {
		if l.Name != "__name__" {
			metrics[name][l.Name] = append(metrics[name][l.Name], l.Value)
		}
	})
}

// variables are what Grafana replaces in an expression.
var variables = regexp.MustCompile(`\$__rate_interval`)

// check parses an expression and compares it with what is exported. It returns the metrics
// in it.
func check(t *testing.T, where, query string, exported map[string]map[string][]string) (names []string) {
	t.Helper()
	expr, err := promQL.ParseExpr(variables.ReplaceAllString(query, "5m"))
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return nil
	}
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok {
			names = append(names, selector.Name)
			checkSelector(t, where, selector, exported)
		}
		return nil
	})
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		for _, label := range grouped(node) {
			if !known(names, label, exported) {
				t.Errorf("%s: no metric of %s has the label %s", where, query, label)
			}
		}
		return nil
	})
	return names
}

// grouped returns the labels by which a node groups or matches.
func grouped(node parser.Node) []string {
	switch node := node.(type) {
	case *parser.AggregateExpr:
		return node.Grouping
	case *parser.BinaryExpr:
		if node.VectorMatching != nil {
			return slices.Concat(node.VectorMatching.MatchingLabels, node.VectorMatching.Include)
		}
	}
	return nil
}

// known reports whether one of the metrics has the label.
func known(names []string, label string, exported map[string]map[string][]string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		_, ok := exported[name][label]
		return ok
	})
}

func checkSelector(t *testing.T, where string, selector *parser.VectorSelector, exported map[string]map[string][]string) {
	t.Helper()
	metric := exported[selector.Name]
	if metric == nil {
		t.Errorf("%s: there is no metric %s", where, selector.Name)
		return
	}
	for _, matcher := range selector.LabelMatchers {
		if matcher.Name == "__name__" {
			continue
		}
		values, ok := metric[matcher.Name]
		if !ok {
			t.Errorf("%s: %s has no label %s", where, selector.Name, matcher.Name)
		}
		for value := range strings.SplitSeq(matcher.Value, "|") {
			if !strings.HasPrefix(value, "$") && !slices.Contains(values, value) {
				t.Errorf("%s: %s is never %q in %s", where, matcher.Name, value, selector.Name)
			}
		}
	}
}
