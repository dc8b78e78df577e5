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
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if err := execute(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "benchmarks:", err)
		os.Exit(1)
	}
}

// execute runs the benchmarks. The program starts itself as the server, and as the
// client of each sample: then execute does that instead.
func execute(args []string) error {
	switch {
	case len(args) == 1 && args[0] == commandServer:
		return serve()
	case len(args) == 2 && args[0] == commandSample:
		return takeSample(args[1])
	}
	flags := flag.NewFlagSet("benchmarks", flag.ExitOnError)
	scale := flags.Bool("scale", false, "measure what many clients of resock in one process need,\nin three minutes, and only print that (see docs/scale.md)")
	short := flags.Bool("short", false, "only check that everything works: one small round")
	rounds := flags.Int("rounds", 7, "take `n` samples of each measurement")
	only := flags.String("only", "", "measure only groups whose title contains `text`")
	peer := flags.String("peer", "", "measure only peers whose name contains `text`")
	profiles := flags.String("profile", "", "write a CPU profile of each sample into `directory`")
	beside := flags.String("beside", "", "also measure with `program`, which is this one built with another version of resock")
	out := flags.String("out", "", "write results.md and chart.svg into `directory`; by default\nthe current one, or none with -short, -only, -peer, -profile or -beside")
	_ = flags.Parse(args) // exits on errors
	if *short {
		*rounds = 1
	}

	groups := plan(*short)
	if *scale {
		groups, *rounds = scalePlan(*short), 1
	}
	groups = matching(groups, *only, *peer)
	if *beside != "" {
		groups = withOther(groups)
	}
	r, failed := run(groups, *rounds, programs{os.Args[0], *beside}, *profiles, os.Stderr)
	if r == nil {
		return failed
	}
	if *scale {
		fmt.Print(scaleReport(groups, r))
		return failed
	}
	text := report(groups, r, *rounds)
	fmt.Print(text)
	if *out == "" && (*short || *only+*peer+*profiles+*beside != "") {
		return failed
	}
	return errors.Join(failed,
		os.WriteFile(filepath.Join(*out, "results.md"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(*out, "chart.svg"), []byte(chart(r)), 0o644))
}

// matching returns the groups whose title contains title, with the peers whose name
// contains peer.
func matching(groups []group, title, peer string) []group {
	var found []group
	for _, g := range groups {
		g.peers = slices.DeleteFunc(slices.Clone(g.peers), func(name string) bool { return !contains(name, peer) })
		if contains(g.title, title) && len(g.peers) > 0 {
			found = append(found, g)
		}
	}
	return found
}

func contains(s, part string) bool {
	return strings.Contains(strings.ToLower(s), strings.ToLower(part))
}
