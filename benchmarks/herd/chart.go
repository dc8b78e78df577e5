package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// line is one line of a chart: a value per second.
type line struct {
	name   string
	colour string
	values []float64
}

const (
	chartWidth, chartHeight = 760, 340
	left, right, top, foot  = 70, 20, 50, 50
)

// chart draws lines over seconds as an SVG. With a logarithmic axis, the peak without
// jitter leaves the other lines readable.
func chart(title, unit string, seconds int, most float64, logarithmic bool, lines []line) string {
	x := func(second float64) float64 {
		return left + second/float64(seconds)*(chartWidth-left-right)
	}
	y := func(value float64) float64 {
		share := value / most
		if logarithmic {
			share = math.Log10(max(1, value)) / math.Log10(most)
		}
		return chartHeight - foot - share*(chartHeight-top-foot)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">`, chartWidth, chartHeight)
	b.WriteString(`<style>text{fill:#333}.grid{stroke:#8884}.line{fill:none;stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#ddd}}</style>`)
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="15" font-weight="600">%s</text>`, left, title)
	for _, tick := range ticks(most, logarithmic) {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%.0f</text>`,
			left, chartWidth-right, y(tick), y(tick), left-8, y(tick)+4, tick)
	}
	for second := 0; second <= seconds; second += seconds / 6 {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%d s</text>`, x(float64(second)), chartHeight-foot+20, second)
	}
	fmt.Fprintf(&b, `<text x="%d" y="%d">%s</text>`, left, chartHeight-8, unit)
	for i, l := range lines {
		fmt.Fprintf(&b, `<polyline class="line" stroke="%s" points="`, l.colour)
		for second, value := range l.values[:min(len(l.values), seconds)] {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(float64(second)), y(value))
		}
		at := left + 230*i
		fmt.Fprintf(&b, `"/><line stroke="%s" stroke-width="3" x1="%d" x2="%d" y1="36" y2="36"/><text x="%d" y="40">%s</text>`,
			l.colour, at, at+18, at+24, l.name)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func ticks(most float64, logarithmic bool) []float64 {
	if !logarithmic {
		return []float64{0, most / 4, most / 2, most * 3 / 4, most}
	}
	var list []float64
	for tick := 1.0; tick <= most; tick *= 10 {
		list = append(list, tick)
	}
	return list
}

var colours = []string{"#2a78c8", "#c8782a", "#b03a5b"}

// attemptsChart shows the attempts per second after an outage of 10 s.
func attemptsChart(clients int) string {
	outage := 10 * time.Second
	var lines []line
	for _, j := range []jitter{full, equal, none} {
		o := simulate(with(fleet(clients, outage), func(s *scenario) { s.jitter = j }))
		l := line{name: j.String(), colour: colours[j]}
		for _, n := range o.attempts {
			l.values = append(l.values, float64(n))
		}
		lines = append(lines, l)
	}
	return chart(fmt.Sprintf("%d clients lose their server, which is back after 10 s", clients),
		"attempts per second, logarithmic", 42, 2*float64(clients), true, lines)
}

// admissionChart shows how a fleet returns to an overloaded server.
func admissionChart(clients int) string {
	const seconds = 180
	var lines []line
	for i, literal := range []bool{false, true} {
		o := simulate(admission(clients, 30*time.Second, literal))
		l := line{name: "Retry-After + jitter (resock)", colour: colours[i]}
		if literal {
			l.name = "Retry-After alone"
		}
		for second := range seconds {
			back := 0
			for back < len(o.back) && o.back[back] < time.Duration(second)*time.Second {
				back++
			}
			l.values = append(l.values, float64(back))
		}
		lines = append(lines, l)
	}
	return chart(fmt.Sprintf("%d clients; the server admits %d per second, others get 503 with Retry-After: 30", clients, clients/admittedPart),
		"clients back", seconds, float64(clients), false, lines)
}
