package main

import "fmt"

// goal is a performance target of resock, either a ratio to a peer or an absolute figure.
type goal struct {
	text   string
	title  string // of the group
	label  string // of the column
	metric string
	peer   string // a way to use resock
	rival  string // a peer, or empty for an absolute figure
	want   float64
	most   bool    // want is an upper bound, not a lower one
	unit   float64 // of an absolute figure
}

// faster wants peer to take at most 1/want of the rival's time.
func faster(title, peer, rival string, wants map[string]float64, labels ...string) []goal {
	var goals []goal
	for _, label := range labels {
		goals = append(goals, goal{
			text:  fmt.Sprintf("%s, %s: %s against %s", title, label, peer, rival),
			title: title, label: label, metric: metricWall, peer: peer, rival: rival, want: wants[label],
		})
	}
	return goals
}

// atMost wants an absolute figure to be at most want.
func atMost(text, title, label, metric, peer string, want, unit float64) goal {
	return goal{text: text, title: title, label: label, metric: metric, peer: peer, want: want, most: true, unit: unit}
}

func goals() []goal {
	sizes := []string{"16 B", "128 B", "1 KiB", "16 KiB", "64 KiB"}
	wants := func(values ...float64) map[string]float64 {
		bySize := make(map[string]float64)
		for i, value := range values {
			bySize[sizes[i]] = value
		}
		return bySize
	}
	var all []goal
	all = append(all, faster(titleInbound, nameChannel, nameGorilla, wants(1.7, 1.7, 1.7, 1.8, 1.3), sizes...)...)
	all = append(all, faster(titleInbound, nameChannel, nameRecws, wants(1.7, 1.7, 1.7, 1.8, 1.3), sizes...)...)
	all = append(all, faster(titleInbound, nameChannel, nameCoder, wants(4, 3, 2.5, 1.8, 1.3), sizes...)...)
	all = append(all, faster(titleInbound, nameChannel, nameGws, wants(0.85, 1.0, 0.8, 0.4, 0.35), sizes...)...)
	all = append(all, faster(titleInbound, nameHandler, nameGws, wants(5, 3.5, 2, 1.0, 0.9), sizes...)...)
	all = append(all, faster(titleCompressed, nameChannel, nameGorilla, map[string]float64{labelAlone: 1.1}, labelAlone)...)
	all = append(all, faster(titleCompressed, nameHandler, nameGws, map[string]float64{labelAlone: 0.95, labelTakeover: 1.7}, labelAlone, labelTakeover)...)
	all = append(all, faster(titleCompressed, nameChannel, nameCoder, map[string]float64{labelTakeover: 2.3}, labelTakeover)...)
	all = append(all, faster(titleSecure, nameChannel, nameGorilla, map[string]float64{"128 B": 1.6, "16 KiB": 1.5}, "128 B", "16 KiB")...)
	all = append(all, faster(titleSecure, nameHandler, nameGws, map[string]float64{"128 B": 1.7, "16 KiB": 1.0}, "128 B", "16 KiB")...)
	all = append(all, faster(titleInbound, nameOwned, nameGws, wants(1.5, 1.2, 0.9, 0.4), sizes[:4]...)...)
	all = append(all, faster(titleInbound, nameBorrow, nameGws, wants(2.5, 2, 1.5, 0.6), sizes[:4]...)...)
	all = append(all, faster(titleInbound, nameBorrow, nameGorilla, wants(8, 4.5, 4, 2.8), sizes[:4]...)...)
	for _, size := range sizes[:3] {
		all = append(all, atMost(size+" received by Messages: allocations", titleInbound, size, metricAllocs, nameOwned, 0.1, 1))
	}
	for _, size := range sizes {
		want := 1.1
		if size == "16 KiB" || size == "64 KiB" {
			want = 2
		}
		all = append(all, atMost(size+" received by the channel: allocations", titleInbound, size, metricAllocs, nameChannel, want, 1))
	}
	for _, size := range sizes {
		all = append(all, atMost(size+" received by the handler: allocations", titleInbound, size, metricAllocs, nameHandler, 0, 1))
	}
	all = append(all, faster(titleOutbound, nameEnqueue, nameGorilla, map[string]float64{"1 goroutine": 9, "8 goroutines": 9}, "1 goroutine", "8 goroutines")...)
	for _, label := range []string{"1 goroutine", "8 goroutines"} {
		all = append(all, atMost("Enqueue, "+label+": writes per message", titleWrites, label, metricWrites, nameEnqueue, 0.05, 1))
	}
	all = append(all, faster(titleOutbound, nameSend, nameGorilla, map[string]float64{"1 goroutine": 0.95, "8 goroutines": 1.25}, "1 goroutine", "8 goroutines")...)
	return append(all,
		goal{text: "Median round trip, channel: resock's divided by gorilla's", title: titleEcho, label: "128 B", metric: metricP50, peer: nameChannel, rival: nameGorilla, want: 1.15, most: true},
		atMost("Idle with heartbeat: goroutines", titleIdle, labelBeat, metricGoroutines, nameResock, 1, 1),
		atMost("Idle with heartbeat, a subscriber: resident KiB", titleIdle, labelBeat, metricResident, nameResock, 11, 1<<10),
		atMost("Idle with heartbeat, no subscriber: resident KiB", titleIdle, labelBeat, metricResident, nameHandler, 9.5, 1<<10),
		atMost("Idle after traffic: resident KiB", titleIdleStates, labelAfter, metricResident, nameResock, 13, 1<<10),
		atMost("Idle after compressed traffic: resident KiB", titleIdleStates, labelAfterCompressed, metricResident, nameResock, 52, 1<<10),
		atMost("Idle over TLS: resident KiB", titleIdleStates, labelSecure, metricResident, nameResock, 22, 1<<10),
		goal{text: "Reconnect cycle: resock's divided by bare coder/websocket's", title: titleDial, label: labelReconnect, metric: metricWall, peer: nameResock, rival: nameCoder, want: 1.10, most: true},
		goal{text: "Reconnect cycle, TLS, ECDSA: the same by CPU of both ends", title: titleDial, label: labelReconnectECDSA, metric: metricBoth, peer: nameResock, rival: nameCoder, want: 0.65, most: true},
		goal{text: "Reconnect cycle, TLS, RSA: the same by CPU of both ends", title: titleDial, label: labelReconnectRSA, metric: metricBoth, peer: nameResock, rival: nameCoder, want: 0.65, most: true},
	)
}

// cpu returns the same comparison by the CPU time of the client, which depends less on
// other load on the machine. It is empty if that was not measured.
func (g goal) cpu(r results) string {
	if g.metric != metricWall {
		return ""
	}
	g.metric = metricCPU
	value, ok := g.reached(r)
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.2f", value)
}

// reached returns the measured value of g. It reports false if there is none.
func (g goal) reached(r results) (value float64, ok bool) {
	own := r.values(g.title, g.label, g.peer, g.metric)
	if len(own) == 0 {
		return 0, false
	}
	value = median(own)
	if g.rival == "" {
		return value / g.unit, true
	}
	rival := r.values(g.title, g.label, g.rival, g.metric)
	if len(rival) == 0 {
		return 0, false
	}
	if g.most {
		return value / median(rival), true
	}
	return median(rival) / value, true
}

// met reports whether value reaches the target, within the precision that is shown.
func (g goal) met(value float64) bool {
	const precision = 0.005
	if g.most {
		return value < g.want+precision
	}
	return value > g.want-precision
}

// targetTable lists all targets with the measured values.
func targetTable(r results) string {
	var t table
	t.add("target", "wanted", "measured", "", "by CPU time")
	for _, g := range goals() {
		value, ok := g.reached(r)
		if !ok {
			continue
		}
		bound, mark := "≥", "✗"
		if g.most {
			bound = "≤"
		}
		if g.met(value) {
			mark = "✓"
		}
		t.add(g.text, fmt.Sprintf("%s %.2f", bound, g.want), fmt.Sprintf("%.2f", value), mark, g.cpu(r))
	}
	return t.String()
}
