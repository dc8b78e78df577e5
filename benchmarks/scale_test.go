package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

// TestMain runs the tests, or what a test starts this program as.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == commandServer || os.Args[1] == commandSample) {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestScaleMeasuresAll(t *testing.T) {
	groups := scalePlan(true)
	r, err := run(groups, 1, programs{own: os.Args[0]}, "", io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, c := range g.columns {
			for _, peer := range g.peers {
				for _, m := range g.metrics {
					values := r.values(g.title, c.label, peer, m.key)
					// So few clients may need no more memory than there was.
					if len(values) != 1 || values[0] <= 0 && m.key != metricResident {
						t.Errorf("%s, %s, %s: %s is %v", g.title, c.label, peer, m.label, values)
					}
				}
			}
		}
	}
	if text := scaleReport(groups, r); strings.Contains(text, "–") {
		t.Errorf("something is missing in\n%s", text)
	}
}
