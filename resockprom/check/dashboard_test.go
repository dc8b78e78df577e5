package check

import (
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// board is what the tests read of the dashboard.
type board struct {
	SchemaVersion int
	Panels        []struct {
		ID                       int
		Type, Title, Description string
		Datasource               struct{ UID string }
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []struct {
			Expr, LegendFormat string
			Datasource         struct{ UID string }
		}
	}
	Templating struct {
		List []struct{ Name, Type, Definition string }
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func readBoard(t *testing.T) (b board) {
	t.Helper()
	if err := json.Unmarshal(read(t, "../dashboard.json"), &b); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDashboardSchema reads the dashboard as Grafana's own types do.
func TestDashboardSchema(t *testing.T) {
	plugins.RegisterDefaultPlugins()
	//lint:ignore SA1019 the schema that every Grafana imports; the second one is for the newest only
	var d dashboard.Dashboard
	// Its error may be a list without entries.
	if err := d.UnmarshalJSONStrict(read(t, "../dashboard.json")); err != nil && err.Error() != "" {
		t.Fatal(err)
	}
	if len(d.Panels) == 0 {
		t.Error("no panels")
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
}

var placeholder = regexp.MustCompile(`{{(\w+)}}`)

// Each metric and label in an expression is exported, and each metric that is exported is
// on the dashboard.
func TestDashboardExpressions(t *testing.T) {
	metrics := exported(t, gatherer(t))
	missing := make(map[string]bool)
	for name := range metrics {
		missing[name] = true
	}
	for _, panel := range readBoard(t).Panels {
		for _, target := range panel.Targets {
			names := check(t, panel.Title, target.Expr, metrics)
			for _, name := range names {
				delete(missing, name)
			}
			for _, label := range placeholder.FindAllStringSubmatch(target.LegendFormat, -1) {
				if !known(names, label[1], metrics) {
					t.Errorf("%s: the legend has the label %s, which no metric has", panel.Title, label[1])
				}
			}
		}
	}
	for name := range missing {
		t.Errorf("%s is not on the dashboard", name)
	}
}

// The panels have descriptions, do not overlap, and ask the data source that was chosen.
func TestDashboardPanels(t *testing.T) {
	b := readBoard(t)
	seen := make(map[int]bool)
	cells := make(map[[2]int]string)
	for _, p := range b.Panels {
		if seen[p.ID] {
			t.Errorf("%s: the id %d is taken", p.Title, p.ID)
		}
		seen[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := cells[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s overlaps %q, or the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if p.Description == "" || len(p.Targets) == 0 || p.Datasource.UID != "${datasource}" {
			t.Errorf("%s: no description, no target, or a fixed data source", p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" {
				t.Errorf("%s: a fixed data source", p.Title)
			}
		}
	}
}

var labelValues = regexp.MustCompile(`^label_values\((.+), (\w+)\)$`)

func TestDashboardVariables(t *testing.T) {
	metrics := exported(t, gatherer(t))
	var names []string
	for _, v := range readBoard(t).Templating.List {
		names = append(names, v.Name)
		if v.Type != "query" {
			continue
		}
		query := labelValues.FindStringSubmatch(v.Definition)
		if query == nil || !known(check(t, v.Name, query[1], metrics), query[2], metrics) {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
		}
	}
	if want := []string{"datasource", "job", "client"}; !slices.Equal(names, want) {
		t.Errorf("variables %q, want %q", names, want)
	}
}
