// Herd simulates a fleet of clients that lose their server at the same instant,
// with the retry policy and the delays of the library itself, in virtual time:
//
//	go -C benchmarks run ./herd
//
// It prints tables and writes results.md and two charts beside its source.
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	clients := flag.Int("clients", 10_000, "size of the fleet")
	most := flag.Int("most", 1_000_000, "size of the largest fleet")
	folder := flag.String("out", "herd", "where results.md and the charts go; empty writes none")
	flag.Parse()

	report := report(*clients, *most)
	fmt.Print(report)
	if *folder == "" {
		return
	}
	for name, text := range map[string]string{
		"results.md":    report,
		"attempts.svg":  attemptsChart(*clients),
		"admission.svg": admissionChart(*clients),
	} {
		if err := os.WriteFile(filepath.Join(*folder, name), []byte(text), 0o644); err != nil {
			log.Fatal(err)
		}
	}
}

// fleet is a scenario with the library's defaults.
func fleet(clients int, outage time.Duration) scenario {
	return scenario{clients: clients, outage: outage, initial: 500 * time.Millisecond, max: 30 * time.Second, seed: 1}
}

var outages = []time.Duration{0, 5 * time.Second, 10 * time.Second, time.Minute}

func report(clients, most int) string {
	var b strings.Builder
	row := func(cells ...any) {
		for _, cell := range cells {
			if d, ok := cell.(time.Duration); ok {
				cell = d.Round(100 * time.Millisecond)
			}
			fmt.Fprintf(&b, "| %v ", cell)
		}
		b.WriteString("|\n")
	}
	times := func(o *outcome, outage time.Duration) []any {
		cells := make([]any, 0, 4)
		for _, share := range []float64{0.5, 0.9, 0.99, 1} {
			cells = append(cells, o.quantile(share)-outage)
		}
		return cells
	}

	fmt.Fprintf(&b, "# A fleet that loses its server\n\n%d clients with the default backoff (500 ms, 30 s) lose their server at the same instant.\nTimes are counted from its return.\n\n", clients)
	fmt.Fprintf(&b, "| outage | | attempts per second, peak | against no jitter | 50 %% back | 90 %% | 99 %% | all |\n|---|---|---|---|---|---|---|---|\n")
	for _, outage := range outages {
		alone := simulate(with(fleet(clients, outage), func(s *scenario) { s.jitter = none })).peak(outage)
		for _, j := range []jitter{full, equal, none} {
			o := simulate(with(fleet(clients, outage), func(s *scenario) { s.jitter = j }))
			peak := o.peak(outage)
			row(append([]any{outage, j, peak, fmt.Sprintf("%.2f", float64(peak)/float64(alone))}, times(o, outage)...)...)
		}
	}

	b.WriteString("\n## The first delay\n\nA server that is back at once sees what the first delay spreads.\n\n| first bound | outage | peak | 50 % back | 90 % | 99 % | all |\n|---|---|---|---|---|---|---|\n")
	for _, initial := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second} {
		for _, outage := range []time.Duration{0, 10 * time.Second} {
			o := simulate(with(fleet(clients, outage), func(s *scenario) { s.initial = initial }))
			row(append([]any{fmt.Sprint(initial), outage, o.peak(outage)}, times(o, outage)...)...)
		}
	}
	announced := simulate(with(fleet(clients, 0), func(s *scenario) { s.announced = true }))
	row(append([]any{"500ms, close code 1012", time.Duration(0), announced.peak(0)}, times(announced, 0)...)...)

	admits := clients / 20
	fmt.Fprintf(&b, "\n## A server that admits %d per second\n\nBeyond that it answers 503 with a Retry-After. Jitter on top of it is what resock does.\n\n| Retry-After | wait | attempts in all | 50 %% back | 90 %% | 99 %% | all |\n|---|---|---|---|---|---|---|\n", admits)
	for _, retryIn := range []time.Duration{0, time.Second, 5 * time.Second, 30 * time.Second} {
		for _, literal := range []bool{false, true} {
			o := simulate(admission(clients, retryIn, literal))
			name := "Retry-After + jitter"
			if literal {
				name = "max(Retry-After, jitter)"
			}
			row(append([]any{retryIn, name, o.total}, times(o, 0)...)...)
		}
	}

	b.WriteString("\n## Larger fleets\n\nAn outage of 10 s, full jitter.\n\n| clients | peak | against no jitter | 50 % back | 90 % | 99 % | all |\n|---|---|---|---|---|---|---|\n")
	for n := 1000; n <= most; n *= 10 {
		outage := 10 * time.Second
		o := simulate(fleet(n, outage))
		row(append([]any{n, o.peak(outage), fmt.Sprintf("%.2f", float64(o.peak(outage))/float64(n))}, times(o, outage)...)...)
	}
	b.WriteString(advice)
	return b.String()
}

const advice = `
## What to set

- The first bound of WithBackoff spreads a fleet after a quick restart: nothing else can, since every client dials
  within it. Set it to the size of the fleet over the connections that the server accepts per second. The default of
  500 ms is for one client or a hundred, for whom a quarter of a second's wait is right; 10,000 clients of a server that
  accepts 1,000 per second want 10 s.
- A server that restarts on purpose should close with 1012: the first bound doubles.
- A server that is full should answer 503 with a Retry-After of (fleet / accepted per second), and not less: the jitter
  comes on top of it.
- The maximum of 30 s bounds how long the last client is away after any outage.
- WithDialLimiter paces clients that share a process.
`

// admission is a quick restart of a server that accepts a twentieth of the fleet
// per second.
func admission(clients int, retryIn time.Duration, literal bool) scenario {
	return with(fleet(clients, 0), func(s *scenario) {
		s.admits, s.retryIn, s.literal = clients/20, retryIn, literal
	})
}

func with(s scenario, change func(*scenario)) scenario {
	change(&s)
	return s
}
