package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// made returns results in which all values are equal.
func made(wall float64) results {
	r := make(results)
	for _, g := range plan(true) {
		r[g.title] = make(map[string]figures)
		for _, c := range g.columns {
			taken := make(figures)
			for _, peer := range g.peers {
				s := sample{}
				for _, m := range g.metrics {
					s[m.key] = wall
				}
				taken[peer] = []sample{s, s, s}
			}
			r[g.title][c.label] = taken
		}
	}
	return r
}

func TestEveryGoalIsMeasured(t *testing.T) {
	r := made(1)
	for _, g := range goals() {
		if _, ok := g.reached(r); !ok {
			t.Errorf("nothing measures %q", g.text)
		}
	}
}

func TestGoalMet(t *testing.T) {
	for _, test := range []struct {
		goal  goal
		value float64
		met   bool
	}{
		{goal{want: 1.7}, 1.7, true},
		{goal{want: 1.7}, 1.698, true}, // shown as 1.70
		{goal{want: 1.7}, 1.69, false},
		{goal{want: 0, most: true}, 0.001, true},
		{goal{want: 1.15, most: true}, 1.16, false},
	} {
		if got := test.goal.met(test.value); got != test.met {
			t.Errorf("%+v: met(%v) = %v", test.goal, test.value, got)
		}
	}
}

func TestMedianAndSpread(t *testing.T) {
	if got := median([]float64{1, 2, 4, 8}); got != 3 {
		t.Errorf("median %v", got)
	}
	if got := spread([]float64{90, 95, 100, 105, 200}); got != 0.1 {
		t.Errorf("spread %v", got)
	}
}

func TestReportNamesEveryPeer(t *testing.T) {
	text := report(plan(true), made(1234), 3)
	for peer := range peers {
		if !strings.Contains(text, "| "+peer) {
			t.Errorf("%s is missing", peer)
		}
	}
}

func TestChartIsWellFormed(t *testing.T) {
	decoder := xml.NewDecoder(strings.NewReader(chart(made(1234))))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
