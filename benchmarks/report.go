package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// Titles of the groups. The targets and the chart refer to them.
const (
	titleInbound      = "Receiving"
	titleOneProcessor = "Receiving on one processor"
	titleCompressed   = "Receiving compressed"
	titleSecure       = "Receiving over TLS"
	titleVariants     = "Receiving, other ways"
	titleOutbound     = "Sending"
	titleWrites       = "System calls of sending"
	titleEcho         = "Round trip"
	titleIdle         = "Idle connections"
	titleIdleStates   = "Idle connections, other states"
	titleDial         = "Connecting"
	titleHeartbeat    = "Heartbeat"
)

// report returns all results in Markdown.
func report(groups []group, r results, rounds int) string {
	var out strings.Builder
	fmt.Fprintf(&out, "# Benchmarks\n\nWritten by `go -C benchmarks run .`\n\n%s\n\n", setting(rounds))
	out.WriteString("![Time per received message](chart.svg)\n\n## Targets\n\n")
	out.WriteString("A ratio is the peer's median divided by resock's: above 1, resock is better.\n\n")
	out.WriteString(targetTable(r))
	for _, g := range groups {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n", g.title, g.note)
		for _, m := range g.metrics {
			fmt.Fprintf(&out, "\n%s\n", groupTable(g, m, r))
		}
	}
	return out.String()
}

// setting describes what was compared, where and how.
func setting(rounds int) string {
	versions := []string{runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH, fmt.Sprintf("%d CPUs", runtime.NumCPU())}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			for _, peer := range []string{"coder/websocket", "gorilla/websocket", "lxzan/gws", "gobwas/ws", "recws-org/recws"} {
				if strings.HasSuffix(module.Path, peer) {
					versions = append(versions, peer+" "+module.Version)
				}
			}
		}
	}
	return strings.Join(versions, ", ") + ".\n\n" +
		fmt.Sprintf("Medians of %d rounds, more where a note says so, with half the interquartile range. ", rounds) +
		"Client and server are separate processes on one machine; every sample has a new client process; the peers take turns. " +
		"Absolute figures depend on the machine and its load: compare only within one run. " +
		"All run with their defaults; for resock that includes heartbeat, read limit and write timeout."
}

// groupTable returns the table of one metric: a row for each peer, a column for each
// measurement.
func groupTable(g group, m metric, r results) string {
	var t table
	head := []string{m.label}
	for _, c := range g.columns {
		head = append(head, c.label)
	}
	t.add(head...)
	for _, peer := range g.peers {
		row := []string{peer}
		for _, c := range g.columns {
			row = append(row, cell(m, r.values(g.title, c.label, peer, m.key)))
		}
		t.add(row...)
	}
	return t.String()
}

func cell(m metric, sorted []float64) string {
	if len(sorted) == 0 {
		return "–"
	}
	text := m.format(median(sorted))
	if width := spread(sorted); width >= 0.005 && len(sorted) > 2 {
		text += fmt.Sprintf(" ±%.0f%%", 50*width)
	}
	return text
}

func (m metric) format(value float64) string {
	value /= m.unit
	switch {
	case m.decimals >= 0:
		return fmt.Sprintf("%.*f", m.decimals, value)
	case value < 10:
		return fmt.Sprintf("%.2f", value)
	case value < 100:
		return fmt.Sprintf("%.1f", value)
	default:
		return fmt.Sprintf("%.0f", value)
	}
}

// table is a Markdown table that is aligned to be readable as text, too.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) String() string {
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	var out strings.Builder
	for n, row := range t.rows {
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-len([]rune(cell)))
			if i == 0 {
				fmt.Fprintf(&out, "| %s%s |", cell, pad)
			} else {
				fmt.Fprintf(&out, " %s%s |", pad, cell)
			}
		}
		out.WriteByte('\n')
		if n > 0 {
			continue
		}
		for i, width := range widths {
			if i == 0 {
				fmt.Fprintf(&out, "|%s|", strings.Repeat("-", width+2))
			} else {
				fmt.Fprintf(&out, "%s:|", strings.Repeat("-", width+1))
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}
