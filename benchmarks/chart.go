package main

import (
	"cmp"
	"fmt"
	"html"
	"slices"
	"strings"
)

// Dimensions of the chart, in pixels.
const (
	chartWidth  = 860
	panelWidth  = chartWidth / 2
	chartHead   = 62
	panelHead   = 34
	panelGap    = 22
	barHeight   = 15
	barPitch    = 21
	nameWidth   = 124
	figureWidth = 66
)

// chartStyle suits light and dark pages: the chart has no background.
const chartStyle = `
text { font: 12px system-ui, sans-serif; fill: #57606a }
.title { font-size: 17px; font-weight: 600; fill: #1f2328 }
.panel { font-size: 13px; font-weight: 600; fill: #1f2328 }
.name, .figure { font-variant-numeric: tabular-nums }
.own { font-weight: 600; fill: #1f2328 }
rect { fill: #afb8c1 }
rect.own { fill: #0b7285 }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 }
  .title, .panel, .own { fill: #f0f6fc }
  rect { fill: #4d5661 }
  rect.own { fill: #3bc9db }
}
`

// bar is one peer in a panel.
type bar struct {
	name  string
	nanos float64
}

// panel shows one column of a group, with the fastest peer first.
type panel struct {
	title string
	bars  []bar
}

// chart draws the time per message of all peers as an SVG, with a panel for each size
// of received messages, one for sending, and one for each compressed feed.
func chart(r results) string {
	inbound, outbound, compressed := inboundPlan(), outboundPlan(), compressedPlan()
	var panels []panel
	for _, c := range inbound.columns {
		panels = append(panels, newPanel("receive "+c.label, inbound, c.label, r))
	}
	panels = append(panels, newPanel("send 128 B, "+outbound.columns[0].label, outbound, outbound.columns[0].label, r))
	for _, label := range []string{labelAlone, labelTakeover} {
		panels = append(panels, newPanel("receive compressed "+label, compressed, label, r))
	}

	var out strings.Builder
	height := chartHead
	for i := 0; i < len(panels); i += 2 {
		y := height
		for column, p := range panels[i:min(i+2, len(panels))] {
			height = max(height, y+p.draw(&out, column*panelWidth, y))
		}
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%[1]d\" height=\"%[2]d\" role=\"img\">\n"+
		"<title>Time per message of WebSocket clients for Go</title>\n<style>%s</style>\n"+
		"<text class=\"title\" x=\"8\" y=\"24\">Time per message</text>\n"+
		"<text x=\"8\" y=\"44\">lower is better; wall time, medians of one run on one machine, server in its own process</text>\n%s</svg>\n",
		chartWidth, height, chartStyle, out.String())
}

func newPanel(title string, g group, label string, r results) panel {
	p := panel{title: title}
	for _, peer := range g.peers {
		if values := r.values(g.title, label, peer, metricWall); len(values) > 0 {
			p.bars = append(p.bars, bar{peer, median(values)})
		}
	}
	slices.SortStableFunc(p.bars, func(a, b bar) int { return cmp.Compare(a.nanos, b.nanos) })
	return p
}

// draw draws the panel with its top left corner at x, y and returns its height.
func (p panel) draw(out *strings.Builder, x, y int) int {
	fmt.Fprintf(out, "<text class=\"panel\" x=\"%d\" y=\"%d\">%s</text>\n", x+8, y+18, html.EscapeString(p.title))
	slowest := 1.0
	for _, b := range p.bars {
		slowest = max(slowest, b.nanos)
	}
	const room = panelWidth - nameWidth - figureWidth - 24
	for i, b := range p.bars {
		own := ""
		if strings.HasPrefix(b.name, "resock") {
			own = " own"
		}
		top := y + panelHead + i*barPitch
		base := top + barHeight - 3
		width := max(1, room*b.nanos/slowest)
		left := x + nameWidth + 16
		fmt.Fprintf(out, "<text class=\"name%s\" x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>", own, left-8, base, html.EscapeString(b.name))
		fmt.Fprintf(out, "<rect class=\"bar%s\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>", own, left, top, width, barHeight)
		fmt.Fprintf(out, "<text class=\"figure%s\" x=\"%.1f\" y=\"%d\">%s</text>\n", own, float64(left)+width+6, base, duration(b.nanos))
	}
	return panelHead + len(p.bars)*barPitch + panelGap
}

// duration formats nanoseconds.
func duration(nanos float64) string {
	if nanos < 10_000 {
		return metric{unit: 1, decimals: -1}.format(nanos) + " ns"
	}
	return fmt.Sprintf("%.1f µs", nanos/1e3)
}
