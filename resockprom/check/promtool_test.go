package check

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// promtool runs promtool, which must find no fault. Without it the test is skipped, or fails
// if RESOCK_INTEROP_REQUIRED=1 is set.
func promtool(t *testing.T, input []byte, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		if os.Getenv("RESOCK_INTEROP_REQUIRED") == "1" {
			t.Fatalf("%v; not skipped, because of RESOCK_INTEROP_REQUIRED=1", err)
		}
		t.Skip(err)
	}
	command := exec.CommandContext(t.Context(), path, args...)
	command.Stdin = bytes.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", command.Args, err, output)
	}
}

func TestPromtoolMetrics(t *testing.T) {
	body, _ := scrape(t, gatherer(t), "text/plain")
	promtool(t, body, "check", "metrics")
}

func TestPromtoolRules(t *testing.T) {
	promtool(t, nil, "check", "rules", "../alerts.yaml")
}

// Each alert fires when it should, and not before.
func TestPromtoolAlerts(t *testing.T) {
	promtool(t, nil, "test", "rules", "testdata/alerts_test.yaml")
}
