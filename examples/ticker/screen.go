package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/resock/resock"
)

// cells is how many parts of a second a line shows.
const cells = 10

// screen draws a line every second: the prices; how many came, in all and in each tenth of
// the second; and what happened to the connection, with gaps in their place.
type screen struct {
	mu    sync.Mutex
	last  map[string]float64
	begin time.Time // of the line
	came  [cells]int
	marks []string
	open  bool
}

func newScreen() *screen { return &screen{last: make(map[string]float64), begin: began} }

// draw draws until ctx ends.
func (s *screen) draw(ctx context.Context) {
	for {
		select {
		case <-time.After(time.Second - time.Since(began)%time.Second):
			fmt.Printf("%5.2fs  %s\n", time.Since(began).Seconds(), s.line(time.Now()))
		case <-ctx.Done():
			return
		}
	}
}

// line ends a line, and begins the next one.
func (s *screen) line(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.marks) == 0 && !s.open {
		s.marks = []string{"no connection"}
	}
	var bars strings.Builder
	sum := 0
	for _, n := range s.came {
		sum += n
		bars.WriteRune([]rune(" ▁▂▃▄▅▆▇█")[min(n, 8)])
	}
	line := fmt.Sprintf("gold %6.2f  oil %5.2f  %3d %s  %s",
		s.last["gold"], s.last["oil"], sum, bars.String(), strings.Join(s.marks, ", "))
	s.begin, s.came, s.marks = now, [cells]int{}, nil
	return strings.TrimRight(line, " ")
}

// price shows a price.
func (s *screen) price(q quote) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[q.Symbol] = q.Price
	s.came[min(int(time.Since(s.begin)*cells/time.Second), cells-1)]++
}

// mark notes something beside the line.
func (s *screen) mark(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.marks = append(s.marks, text)
}

// lifecycle shows that a connection came or went. Attempts that fail change nothing.
func (s *screen) lifecycle(event resock.Event) {
	switch e := event.(type) {
	case resock.OpenEvent:
		s.connected(true, "open")
	case resock.FailEvent:
		if e.Session != 0 {
			s.connected(false, "lost")
		}
	case resock.CloseEvent:
		s.connected(false, "closed")
	}
}

func (s *screen) connected(open bool, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = open
	s.marks = append(s.marks, text)
}
