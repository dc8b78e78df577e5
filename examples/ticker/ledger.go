package main

import (
	"fmt"

	"github.com/resock/resock/resume"
)

// ledger is what the program got, in all of its runs.
type ledger struct {
	prices   map[string]map[uint64]float64 // of a symbol, by number
	gaps     []resume.Gap
	repeated uint64 // how many came again and were dropped
}

// price enters a price. None may come twice.
func (l *ledger) price(q quote) error {
	if l.prices == nil {
		l.prices = make(map[string]map[uint64]float64)
	}
	of := l.prices[q.Symbol]
	if of == nil {
		of = make(map[uint64]float64)
		l.prices[q.Symbol] = of
	}
	if _, ok := of[q.Number]; ok {
		return fmt.Errorf("%s %d came twice", q.Symbol, q.Number)
	}
	of[q.Number] = q.Price
	return nil
}

// check compares the ledger with the prices that a symbol had: each of them was delivered
// once, or is missing and was named in a gap once.
func (l *ledger) check(s *symbol) (delivered, missing int, err error) {
	named := make(map[uint64]int)
	for _, gap := range l.gaps {
		if gap.Stream != s.name {
			continue
		}
		for n := gap.From; n <= gap.To; n++ {
			named[n]++
			missing++
		}
	}
	got := l.prices[s.name]
	for i, price := range s.prices {
		n := uint64(i + 1)
		p, ok := got[n]
		switch {
		case ok && p != price:
			return 0, 0, fmt.Errorf("%s %d was %.2f, and %.2f arrived", s.name, n, price, p)
		case ok && named[n] > 0:
			return 0, 0, fmt.Errorf("%s %d was delivered, and named as missing", s.name, n)
		case !ok && named[n] != 1:
			return 0, 0, fmt.Errorf("%s %d was not delivered, and was named as missing %d times", s.name, n, named[n])
		}
	}
	if len(got)+missing != len(s.prices) {
		return 0, 0, fmt.Errorf("%s had %d prices: %d were delivered, and %d are missing", s.name, len(s.prices), len(got), missing)
	}
	return len(got), missing, nil
}
