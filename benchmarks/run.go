package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
)

// figures are all samples of one column by peer, in the order in which they were taken.
type figures map[string][]sample

// results are the figures of every column, by group title and column label.
type results map[string]map[string]figures

// run takes rounds samples of every measurement. The peers of a column take turns, so
// that other load on the machine affects all of them. Failed samples are left out, and
// joined in the error.
func run(groups []group, rounds int, with programs, profiles string, progress io.Writer) (results, error) {
	server, stop, err := startServer()
	if err != nil {
		return nil, err
	}
	defer stop()
	var failed error
	all := make(results)
	for _, g := range groups {
		all[g.title] = make(map[string]figures)
		if g.rounds == 0 || g.rounds > rounds {
			g.rounds = rounds
		}
		if rounds > 1 {
			g.rounds *= max(1, g.more)
		}
		for _, c := range g.columns {
			fmt.Fprintf(progress, "%s, %s\n", g.title, c.label)
			c.spec.Profiles = profiles
			figures, err := runColumn(g, c, with, server)
			failed = errors.Join(failed, err)
			all[g.title][c.label] = figures
		}
	}
	return all, failed
}

func runColumn(g group, c column, with programs, server addresses) (figures, error) {
	taken := make(figures)
	var failed error
	for round := range g.rounds {
		for i := range g.peers {
			row := g.peers[(i+round)%len(g.peers)] // no peer always follows the same one
			program, name := with.of(row)
			if slices.Contains(c.skip, name) {
				continue
			}
			s := c.spec
			s.Peer, s.Server = name, server
			if count := c.count[name]; count > 0 {
				s.Count = count
			}
			if s.Profiles != "" {
				s.Count, s.Length = 10*s.Count, 10*s.Length // a profile takes a sample every 10 ms
			}
			result, err := sampleInProcess(program, s)
			if err != nil {
				failed = errors.Join(failed, err)
				continue
			}
			taken[row] = append(taken[row], result)
		}
	}
	return taken, failed
}

// values returns the values of a metric in ascending order, or none if it was not
// measured.
func (r results) values(title, label, peer, metric string) []float64 {
	var values []float64
	for _, s := range r[title][label][peer] {
		if v, ok := s[metric]; ok {
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

// median returns the median of sorted values.
func median(sorted []float64) float64 {
	middle := len(sorted) / 2
	if len(sorted)%2 == 0 {
		return (sorted[middle-1] + sorted[middle]) / 2
	}
	return sorted[middle]
}

// spread returns the interquartile range of sorted values, relative to the median.
func spread(sorted []float64) float64 {
	n := len(sorted)
	if m := median(sorted); m > 0 {
		return (sorted[n-1-n/4] - sorted[n/4]) / m
	}
	return 0
}
