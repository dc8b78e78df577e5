package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// A ledger that is not right in one place is found out.
func TestLedger(t *testing.T) {
	gap := func(from, to uint64) resume.Gap { return resume.Gap{Stream: "gold", From: from, To: to} }
	other := resume.Gap{Stream: "oil", From: 1, To: 9}
	for _, test := range []struct {
		name   string
		quotes []uint64
		gaps   []resume.Gap
		want   string // in the error
	}{
		{"right", []uint64{1, 2, 5}, []resume.Gap{other, gap(3, 4)}, ""},
		{"missing", []uint64{1, 2, 5}, []resume.Gap{other, gap(3, 3)}, "gold 4 was not delivered"},
		{"missing at the end", []uint64{1, 2}, []resume.Gap{gap(3, 4)}, "gold 5 was not delivered"},
		{"named twice", []uint64{1, 2, 5}, []resume.Gap{gap(3, 4), gap(4, 4)}, "gold 4 was not delivered"},
		{"named and delivered", []uint64{1, 2, 4, 5}, []resume.Gap{gap(3, 4)}, "gold 4 was delivered, and"},
		{"unknown", []uint64{1, 2, 3, 4, 5, 6}, nil, "had 5 prices"},
		{"named and unknown", []uint64{1, 2, 3, 4, 5}, []resume.Gap{gap(6, 7)}, "had 5 prices"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &ledger{gaps: test.gaps}
			for _, n := range test.quotes {
				if err := l.price(quote{Symbol: "gold", Number: n, Price: float64(n)}); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err := l.check(&symbol{name: "gold", prices: []float64{1, 2, 3, 4, 5}})
			if test.want == "" != (err == nil) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("check returned %v, want %q", err, test.want)
			}
		})
	}
}

func TestLedgerOfOnePrice(t *testing.T) {
	l := &ledger{}
	first := quote{Symbol: "gold", Number: 1, Price: 412}
	if err := l.price(first); err != nil {
		t.Fatal(err)
	}
	if err := l.price(first); err == nil {
		t.Error("a price came twice, and nobody said so")
	}
	if _, _, err := l.check(&symbol{name: "gold", prices: []float64{413}}); err == nil {
		t.Error("another price arrived, and nobody said so")
	}
}

// The answer of the exchange says where it goes on, and its quotes begin there.
func TestBegin(t *testing.T) {
	gold := &symbol{name: "gold", prices: make([]float64, 100)} // 61 to 100 are kept
	s := &server{market: []*symbol{gold}}
	for _, test := range []struct {
		has, after uint64
		whole      int
	}{
		{0, 60, 0},
		{59, 60, 0},
		{60, 60, 1},
		{65, 60, 1},
		{99, 90, 1},
		{100, 100, 1},
	} {
		s.whole = 0
		after, answer := s.begin(request{map[string]uint64{"gold": test.has}})
		if answer[0].After != test.after || s.whole != test.whole {
			t.Errorf("has %d: the answer is %+v, without a gap %d", test.has, answer, s.whole)
		}
		quotes, _ := s.since(after)
		if len(quotes) != int(100-test.after) || len(quotes) > 0 && quotes[0].Number != test.after+1 {
			t.Errorf("has %d: the quotes are %+v", test.has, quotes)
		}
	}
}

// The fullest line that one second of the story can have fits on a terminal.
func TestLineFits(t *testing.T) {
	s := newScreen()
	s.begin = time.Now()
	for _, symbol := range []string{"gold", "oil"} {
		s.price(quote{Symbol: symbol, Number: 1, Price: 99.99})
	}
	s.lifecycle(resock.FailEvent{Session: 1})
	s.lifecycle(resock.FailEvent{})
	s.lifecycle(resock.OpenEvent{})
	s.mark("gold -20")
	s.mark("oil -3")
	line := s.line(time.Now())
	if n := utf8.RuneCountInString("10.00s  " + line); n > 80 {
		t.Errorf("the line has %d columns: %s", n, line)
	}
	if !strings.HasSuffix(line, "lost, open, gold -20, oil -3") {
		t.Errorf("the line is %q", line)
	}
	if line := s.line(time.Now()); !strings.HasSuffix(line, "    0") {
		t.Errorf("the next line is %q", line)
	}
}
