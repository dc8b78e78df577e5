// The command benchmarks compares resock with other WebSocket clients for Go.
//
//	go -C benchmarks run .
//
// It prints the results and writes them to results.md and chart.svg.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

func main() {
	if err := execute(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// execute is the whole program. It starts itself as the server and as the client
// of each sample.
func execute(args []string) error {
	switch {
	case len(args) == 1 && args[0] == commandServer:
		return serve()
	case len(args) == 2 && args[0] == commandSample:
		return takeSample(args[1])
	}
	flags := flag.NewFlagSet("benchmarks", flag.ExitOnError)
	short := flags.Bool("short", false, "see that everything works: one small round, no files written")
	rounds := flags.Int("rounds", 7, "samples of each measurement")
	only := flags.String("only", "", "measure only groups whose title contains this; no files written")
	_ = flags.Parse(args) // exits on errors
	if *short {
		*rounds = 1
	}

	groups := plan(*short)
	if *only != "" {
		groups = matching(groups, *only)
	}
	r, failed := run(groups, *rounds, os.Stderr)
	if r == nil {
		return failed
	}
	text := report(groups, r, *rounds)
	fmt.Print(text)
	if *short || *only != "" {
		return failed
	}
	return errors.Join(failed,
		os.WriteFile("results.md", []byte(text), 0o644),
		os.WriteFile("chart.svg", []byte(chart(r)), 0o644))
}

func matching(groups []group, title string) []group {
	var found []group
	for _, g := range groups {
		if strings.Contains(strings.ToLower(g.title), strings.ToLower(title)) {
			found = append(found, g)
		}
	}
	return found
}
