// Herd simulates, in virtual time, a fleet of clients that lose their server at the same
// instant. It uses the library's own retry policy and delays:
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
	clients := flag.Int("clients", 10_000, "`number` of clients in the fleet")
	most := flag.Int("most", 1_000_000, "`number` of clients in the largest fleet")
	folder := flag.String("out", "herd", "write results.md and the charts into `directory`; empty for none")
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

// report returns all tables in Markdown.
func report(clients, most int) string {
	var r reporter
	r.outages(clients)
	r.firstDelays(clients)
	r.admissions(clients)
	r.fleets(most)
	r.WriteString(advice)
	return r.String()
}

// reporter writes the tables.
type reporter struct{ strings.Builder }

// row writes a row of a table. Durations are rounded.
func (r *reporter) row(cells ...any) {
	for _, cell := range cells {
		if d, ok := cell.(time.Duration); ok {
			cell = d.Round(100 * time.Millisecond)
		}
		fmt.Fprintf(r, "| %v ", cell)
	}
	r.WriteString("|\n")
}

// times are the last cells of a row: when which share of the clients was back.
func times(o *outcome, outage time.Duration) []any {
	cells := make([]any, 0, 4)
	for _, share := range []float64{0.5, 0.9, 0.99, 1} {
		cells = append(cells, o.quantile(share)-outage)
	}
	return cells
}

func (r *reporter) outages(clients int) {
	fmt.Fprintf(r, "# A fleet that loses its server\n\n%d clients with the default backoff (500 ms, 30 s) lose their server at the same instant.\nTimes are counted from its return.\n\n", clients)
	r.WriteString("| outage | | peak attempts per second | relative to no jitter | 50 % back | 90 % | 99 % | all |\n|---|---|---|---|---|---|---|---|\n")
	for _, outage := range []time.Duration{0, 5 * time.Second, 10 * time.Second, time.Minute} {
		worst := simulate(with(fleet(clients, outage), func(s *scenario) { s.jitter = none })).peak(outage)
		for _, j := range []jitter{full, equal, none} {
			o := simulate(with(fleet(clients, outage), func(s *scenario) { s.jitter = j }))
			peak := o.peak(outage)
			r.row(append([]any{outage, j, peak, ratio(peak, worst)}, times(o, outage)...)...)
		}
	}
}

func (r *reporter) firstDelays(clients int) {
	r.WriteString("\n## The first delay\n\nAfter a quick restart, only the first delay spreads the clients.\n\n| first bound | outage | peak | 50 % back | 90 % | 99 % | all |\n|---|---|---|---|---|---|---|\n")
	for _, initial := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second} {
		for _, outage := range []time.Duration{0, 10 * time.Second} {
			o := simulate(with(fleet(clients, outage), func(s *scenario) { s.initial = initial }))
			r.row(append([]any{fmt.Sprint(initial), outage, o.peak(outage)}, times(o, outage)...)...)
		}
	}
	announced := simulate(with(fleet(clients, 0), func(s *scenario) { s.announced = true }))
	r.row(append([]any{"500ms, close code 1012", time.Duration(0), announced.peak(0)}, times(announced, 0)...)...)
}

func (r *reporter) admissions(clients int) {
	fmt.Fprintf(r, "\n## A server that admits %d per second\n\nIt answers further attempts with 503 and a Retry-After. resock adds the jitter to it.\n\n| Retry-After | delay | attempts in all | 50 %% back | 90 %% | 99 %% | all |\n|---|---|---|---|---|---|---|\n", clients/admittedPart)
	for _, retryIn := range []time.Duration{0, time.Second, 5 * time.Second, 30 * time.Second} {
		for _, literal := range []bool{false, true} {
			o := simulate(admission(clients, retryIn, literal))
			name := "Retry-After + jitter"
			if literal {
				name = "max(Retry-After, jitter)"
			}
			r.row(append([]any{retryIn, name, o.total}, times(o, 0)...)...)
		}
	}
}

func (r *reporter) fleets(most int) {
	r.WriteString("\n## Larger fleets\n\nAn outage of 10 s, full jitter.\n\n| clients | peak | relative to no jitter | 50 % back | 90 % | 99 % | all |\n|---|---|---|---|---|---|---|\n")
	for n := 1000; n <= most; n *= 10 {
		outage := 10 * time.Second
		o := simulate(fleet(n, outage))
		r.row(append([]any{n, o.peak(outage), ratio(o.peak(outage), n)}, times(o, outage)...)...)
	}
}

func ratio(n, to int) string { return fmt.Sprintf("%.2f", float64(n)/float64(to)) }

const advice = `
## What to configure

- WithBackoff: after a quick restart every client dials within the first bound, so nothing else can spread them. Set it
  to the number of clients divided by the connections that the server accepts per second: 10 s for 10,000 clients and
  1,000 per second. The default of 500 ms is for up to about a hundred clients, which reconnect after 250 ms on average.
- A server that restarts on purpose should close with 1012, which doubles the first bound.
- An overloaded server should answer 503 with a Retry-After of at least the number of clients divided by the connections
  that it accepts per second. The jitter is added to it.
- The maximum of 30 s bounds how long the last client is away after any outage.
- WithDialLimiter limits the rate at which clients in one process dial.
`

// admittedPart is the part of a fleet that the server of admission admits per second.
const admittedPart = 20

// admission is a quick restart of a server that admits a part of the fleet per second.
func admission(clients int, retryIn time.Duration, literal bool) scenario {
	return with(fleet(clients, 0), func(s *scenario) {
		s.admits, s.retryIn, s.literal = clients/admittedPart, retryIn, literal
	})
}

func with(s scenario, change func(*scenario)) scenario {
	change(&s)
	return s
}
