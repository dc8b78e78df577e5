package check

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
)

func TestAlerts(t *testing.T) {
	checkAlerts(t, "../alerts.yaml", exported(t, gatherer(t)), "ResockDown", "ResockFlapping", "ResockStale", "ResockBlocked")
}

// checkAlerts has Prometheus read a file of alerts, templates included, and compares them
// with what is exported.
func checkAlerts(t *testing.T, file string, exported map[string]map[string][]string, want ...string) {
	t.Helper()
	groups, errs := rulefmt.Parse(read(t, file), false, model.UTF8Validation, promQL, slog.Default())
	if len(errs) != 0 {
		t.Fatal(errs)
	}
	var alerts []string
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			alerts = append(alerts, rule.Alert)
			check(t, rule.Alert, rule.Expr, exported)
		}
	}
	if !slices.Equal(alerts, want) {
		t.Errorf("alerts %q, want %q", alerts, want)
	}
}
