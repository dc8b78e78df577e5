package main

import (
	"fmt"
	"time"
)

// group is a set of measurements that are shown together: one table for each
// metric, with a row for each peer.
type group struct {
	title   string
	note    string
	metrics []metric
	peers   []string
	columns []column
	rounds  int // at most; 0 means no limit
	more    int // times as many rounds, since samples differ much; 0 means 1
}

// column is one measurement of every peer.
type column struct {
	label string
	spec  spec
	skip  []string       // peers that cannot do it
	count map[string]int // of peers that need another count than the spec's
}

// metric is how a figure is shown.
type metric struct {
	key      string
	label    string
	unit     float64 // of what is shown, in what is measured
	decimals int     // -1 means three significant digits
}

var (
	wall   = metric{metricWall, "wall time, ns per message", 1, -1}
	cpu    = metric{metricCPU, "CPU of the client, ns per message", 1, -1}
	allocs = metric{metricAllocs, "allocations per message", 1, 2}
)

// sampleLength is how long a sample takes that ends by the clock. What it found when it
// began, a fresh connection and heap, is nothing beside it.
const sampleLength = 500 * time.Millisecond

// plan lists all measurements. In short mode there is little of each, to see
// that everything works.
func plan(short bool) []group {
	scale, length := func(count int) int { return count }, sampleLength
	if short {
		scale, length = func(count int) int { return max(count/50, 10) }, sampleLength/50
	}
	groups := []group{inboundPlan(), oneProcessorPlan(), compressedPlan(), securePlan(), variantsPlan(), outboundPlan(), writesPlan(), echoPlan(), idlePlan(), idleStatesPlan(), dialPlan(), heartbeatPlan()}
	for _, g := range groups {
		for i := range g.columns {
			c := &g.columns[i]
			c.spec.Count, c.spec.Length = scale(c.spec.Count), length
			for name, count := range c.count {
				c.count[name] = scale(count)
			}
		}
	}
	return groups
}

var receivers = []string{nameHandler, nameBorrow, nameOwned, nameChannel, nameGobwas, nameGws, nameGorilla, nameRecws, nameCoder}

func received(label, variant string, size int) column {
	return column{label: label, spec: spec{Measure: "inbound", Variant: variant, Size: size}}
}

func inboundPlan() group {
	return group{
		title:   titleInbound,
		note:    "Binary messages of one frame. The channel is a subscriber's, with a buffer of 256. \"" + nameMark + "\" reads frames with gobwas/ws and hands each one, in memory of its own, to another goroutine by such a channel, without any check, heartbeat or event: the mark for a channel of events.",
		metrics: []metric{wall, cpu, allocs},
		peers:   append([]string{nameMark}, receivers...),
		columns: []column{
			received("16 B", variantBinary, 16),
			received("128 B", variantBinary, 128),
			received("1 KiB", variantBinary, 1<<10),
			received("16 KiB", variantBinary, 16<<10),
			received("64 KiB", variantBinary, 64<<10),
		},
	}
}

// oneProcessorPlan tells what receiving costs by itself. With two processors, one of
// which the server needs, the collector and the scheduler of a client with garbage
// and a second goroutine spin for the other one.
func oneProcessorPlan() group {
	g := inboundPlan()
	g.title = titleOneProcessor
	g.note = "The same with GOMAXPROCS=1 in the client: without what the collector and the scheduler spend on spinning for a processor that the server uses."
	g.metrics = []metric{wall}
	g.peers = []string{nameHandler, nameChannel, nameMark, nameGws, nameGorilla}
	for i := range g.columns {
		g.columns[i].spec.Processors = 1
	}
	return g
}

// Labels of the compressed feeds.
const (
	labelAlone    = "tick, no takeover"
	labelTakeover = "tick, takeover"
)

func compressedPlan() group {
	takeover := received(labelTakeover, variantTakeover, tickSize)
	takeover.skip = []string{nameGorilla}
	return group{
		title:   titleCompressed,
		note:    fmt.Sprintf("permessage-deflate. A tick is %d B of JSON, and all of them differ. Without takeover each message is compressed by itself; with takeover the server refers to those before it, which gorilla/websocket cannot receive. The message of 1 KiB is always the same. What the server sends is compressed beforehand.", tickSize),
		metrics: []metric{wall, cpu, allocs},
		peers:   []string{nameHandler, nameChannel, nameGws, nameGorilla, nameCoder},
		columns: []column{
			received(labelAlone, variantTicks, tickSize),
			takeover,
			received("1 KiB, no takeover", variantDeflate, 1<<10),
		},
	}
}

func securePlan() group {
	return group{
		title:   titleSecure,
		note:    "TLS 1.3. Encrypting costs the server as much as decrypting costs the client, so that the fastest ones wait for it: compare them by CPU time.",
		metrics: []metric{wall, cpu, allocs},
		peers:   receivers,
		columns: []column{
			received("128 B", variantTLS, 128),
			received("16 KiB", variantTLS, 16<<10),
		},
	}
}

func variantsPlan() group {
	return group{
		title:   titleVariants,
		note:    "Text is checked to be UTF-8 by resock alone, as RFC 6455 demands. A fragmented message comes in four frames.",
		metrics: []metric{wall, cpu, allocs},
		peers:   receivers,
		columns: []column{
			received("128 B text", variantText, 128),
			received("16 KiB text", variantText, 16<<10),
			received("1 KiB fragmented", variantFragments, 1<<10),
		},
	}
}

var senders = []string{nameEnqueue, nameSend, nameGobwas, nameGws, nameGorilla, nameRecws, nameCoder}

func sent(measure string, goroutines, count, enqueued int) column {
	label := fmt.Sprintf("%d goroutines", goroutines)
	if goroutines == 1 {
		label = "1 goroutine"
	}
	return column{
		label: label,
		spec:  spec{Measure: measure, Variant: variantBinary, Size: 128, Count: count, Goroutines: goroutines},
		count: map[string]int{nameEnqueue: enqueued},
	}
}

func outboundPlan() group {
	return group{
		title:   titleOutbound,
		note:    "Messages of 128 B, until the last one was handed to the kernel. Senders that may not write at the same time take turns by a mutex. Three times as many rounds, since the price of a write depends on whether the server sleeps.",
		metrics: []metric{wall, cpu, allocs},
		peers:   senders,
		columns: []column{sent("outbound", 1, 100_000, 3_000_000), sent("outbound", 8, 100_000, 3_000_000)},
		more:    3,
	}
}

func writesPlan() group {
	return group{
		title:   titleWrites,
		note:    "Calls of Write on the connection while sending, in runs of their own.",
		metrics: []metric{{metricWrites, "writes per message", 1, 3}},
		peers:   []string{nameEnqueue, nameSend, nameGobwas, nameGws, nameGorilla, nameCoder},
		columns: []column{sent("writes", 1, 20_000, 100_000), sent("writes", 8, 20_000, 100_000)},
		rounds:  3,
	}
}

func echoPlan() group {
	return group{
		title: titleEcho,
		note:  "128 B there and back, one at a time. With a handler, and with gws, the next message is sent from the callback.",
		metrics: []metric{
			{metricP50, "median round trip, µs", 1e3, 1},
			{metricP99, "99th percentile, µs", 1e3, 1},
			{metricCPU, "CPU of the client, µs", 1e3, 1},
		},
		peers:   []string{nameHandler, nameChannel, nameGobwas, nameGws, nameGorilla, nameRecws, nameCoder},
		columns: []column{{label: "128 B", spec: spec{Measure: "echo", Variant: variantBinary, Size: 128}}},
	}
}

func idlePlan() group {
	clients := func(label string, interval time.Duration) column {
		return column{label: label, spec: spec{Measure: "idle", Variant: variantBinary, Count: 5_000, Interval: interval}}
	}
	return group{
		title: titleIdle,
		note:  "Growth for each of 5,000 open connections that are read, after the garbage was collected. resock has one subscriber each, or a handler and none. Libraries without a heartbeat get a goroutine that pings.",
		metrics: []metric{
			{metricResident, "resident memory, KiB", 1 << 10, 1},
			{metricGoroutines, "goroutines", 1, 2},
		},
		peers:   []string{nameResock, nameHandler, nameGws, nameGorilla, nameRecws, nameCoder},
		columns: []column{clients("no heartbeat", 0), clients(labelBeat, 15*time.Second)},
		rounds:  3,
	}
}

// Labels of idle connections.
const (
	labelBeat            = "heartbeat of 15 s"
	labelAfter           = "after traffic"
	labelAfterCompressed = "after compressed traffic"
	labelSecure          = "TLS"
)

// idleStatesPlan tells what a connection keeps of what it has done.
func idleStatesPlan() group {
	g := idlePlan()
	clients := func(label, variant string, traffic int) column {
		return column{label: label, spec: spec{Measure: "idle", Variant: variant, Size: tickSize, Count: 2_000, Traffic: traffic}}
	}
	after := clients(labelAfter, variantBinary, 400)
	compressed := clients(labelAfterCompressed, variantTakeover, 400)
	compressed.skip = []string{nameGorilla, nameRecws}
	compressed.count = map[string]int{nameGws: 200} // it holds a compressor each
	g.title = titleIdleStates
	g.note = "The same for 2,000 connections in other states (for 200 of gws after compressed traffic), without heartbeats. The traffic is a burst of 400 messages of 230 B, compressed with takeover or not, and then a few pings."
	g.columns = []column{after, compressed, clients(labelSecure, variantTLS, 0)}
	return g
}

// Labels of reconnects.
const (
	labelReconnect      = "reconnect"
	labelReconnectECDSA = "reconnect, TLS, ECDSA"
	labelReconnectRSA   = "reconnect, TLS, RSA"
)

func dialPlan() group {
	return group{
		title: titleDial,
		note:  "Dial: the time of the dial; CPU and allocations from the dial to the end of the client. Reconnect: the whole cycle with a server that drops every connection at once, and no delay. The peers reconnect by dialing again, over TLS 1.3 with a full handshake. The certificate is of ECDSA P-256 or RSA 2048, and is not verified, which would cost the client more.",
		metrics: []metric{
			{metricWall, "wall time, µs", 1e3, 0},
			{metricCPU, "CPU of the client, µs", 1e3, 0},
			{metricBoth, "CPU of client and server, µs", 1e3, 0},
			{metricAllocs, "allocations", 1, 0},
		},
		peers: []string{nameResock, nameGws, nameGorilla, nameCoder},
		columns: []column{
			{label: "dial", spec: spec{Measure: "dial", Variant: variantBinary, Count: 3_000}},
			{label: labelReconnect, spec: spec{Measure: "reconnect", Variant: variantBinary}, skip: []string{nameGws}},
			{label: labelReconnectECDSA, spec: spec{Measure: "reconnect", Variant: variantTLS}, skip: []string{nameGws}},
			{label: labelReconnectRSA, spec: spec{Measure: "reconnect", Variant: variantRSA}, skip: []string{nameGws}},
		},
	}
}

func heartbeatPlan() group {
	return group{
		title: titleHeartbeat,
		note:  "500 connections that beat every 50 ms: ping sent, pong received.",
		metrics: []metric{
			{metricCPU, "CPU of the client, µs per ping", 1e3, 1},
			{metricAllocs, "allocations per ping", 1, 1},
			{metricWall, "time between pings of a connection, ms", 1e6, 1},
		},
		peers: []string{nameResock, nameGws, nameGorilla, nameRecws, nameCoder},
		columns: []column{{
			label: "beat",
			spec:  spec{Measure: "heartbeat", Variant: variantBinary, Count: 500, Interval: 50 * time.Millisecond},
		}},
	}
}
