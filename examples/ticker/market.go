package main

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

const (
	tick    = 50 * time.Millisecond
	history = 40 // how many prices of a symbol the exchange can send again
	page    = 10 // prices that were sent before come in whole pages
)

// symbol is what is traded.
type symbol struct {
	name   string
	every  int       // ticks from one price to the next
	prices []float64 // all that there were, from number 1
	hide   int       // how many of the next ones nobody is sent
	hidden map[uint64]bool
}

func newSymbol(name string, price float64, every int) *symbol {
	return &symbol{name: name, every: every, prices: []float64{price}, hidden: make(map[uint64]bool)}
}

// newest returns the number of the last price.
func (s *symbol) newest() uint64 { return uint64(len(s.prices)) }

// oldest returns the number of the first price that can be sent again.
func (s *symbol) oldest() uint64 { return uint64(max(0, len(s.prices)-history)) + 1 }

// move makes the next price.
func (s *symbol) move() {
	last := s.prices[len(s.prices)-1]
	s.prices = append(s.prices, math.Round(100*last*(0.995+0.01*rand.Float64()))/100)
	if s.hide > 0 {
		s.hide--
		s.hidden[s.newest()] = true
	}
}

// trade makes prices until the exchange closes.
func (s *server) trade(ctx context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if !s.tick(n) {
			return
		}
	}
}

func (s *server) tick(n int) (open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	for _, symbol := range s.market {
		if n%symbol.every == 0 {
			symbol.move()
		}
	}
	s.wake()
	return true
}

// wake wakes who waits for prices; mu is held.
func (s *server) wake() {
	close(s.more)
	s.more = make(chan struct{})
}

// begin returns where each symbol goes on, and the quotes that tell the client: at the page
// of the last price that it has, or later if the exchange has forgotten what follows that.
func (s *server) begin(r request) (after map[string]uint64, answer []quote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	after = make(map[string]uint64)
	for _, symbol := range s.market {
		has := r.After[symbol.name]
		last := max(has-has%page, symbol.oldest()-1)
		if has > 0 && last <= has {
			s.whole++
		}
		after[symbol.name] = last
		answer = append(answer, quote{Symbol: symbol.name, After: last})
	}
	return after, answer
}

// since returns the prices after those numbers, which it raises, and whether there will be
// no more.
func (s *server) since(after map[string]uint64) (quotes []quote, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, symbol := range s.market {
		for n := max(after[symbol.name]+1, symbol.oldest()); n <= symbol.newest(); n++ {
			if !symbol.hidden[n] {
				quotes = append(quotes, quote{Symbol: symbol.name, Number: n, Price: symbol.prices[n-1]})
			}
		}
		after[symbol.name] = symbol.newest()
	}
	return quotes, s.closed
}

// changed returns a channel that is closed when there are more prices, or no more.
func (s *server) changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.more
}

// hide keeps the next prices of oil from everybody, as a fault of the exchange.
func (s *server) hide(prices int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.market[1].hide = prices
}

// outage cuts all connections, and takes no other until so many prices of gold that nobody
// was sent are forgotten.
func (s *server) outage(forgotten uint64) {
	s.cut()
	last, _ := s.gold()
	for {
		changed := s.changed()
		if _, oldest := s.gold(); oldest > last+forgotten {
			break
		}
		<-changed
	}
	s.back()
}

// gold returns the numbers of the last price of gold, and of the first one that is kept.
func (s *server) gold() (newest, oldest uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.market[0].newest(), s.market[0].oldest()
}

// bell closes the exchange.
func (s *server) bell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wake()
}
