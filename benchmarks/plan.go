package main

import (
	"fmt"
	"time"
)

// group is a set of measurements that are reported together: one table for each metric,
// with a row for each peer.
type group struct {
	title   string
	note    string
	metrics []metric
	peers   []string
	columns []column
	rounds  int // limits the number of rounds; 0 means no limit
	more    int // multiplies the number of rounds, for samples that vary a lot; 0 means 1
}

// column is one measurement of every peer.
type column struct {
	label string
	spec  spec
	skip  []string       // peers that do not support it
	count map[string]int // for peers whose Count differs from the spec's
}

// metric is how a figure is shown.
type metric struct {
	key      string
	label    string
	unit     float64 // divides the measured value
	decimals int     // -1 means three significant digits
}

var (
	wall   = metric{metricWall, "wall time, ns per message", 1, -1}
	cpu    = metric{metricCPU, "CPU of the client, ns per message", 1, -1}
	allocs = metric{metricAllocs, "allocations per message", 1, 2}
)

// sampleLength is the length of a sample that is limited by time. It is long enough for
// the new connection and heap at the start not to matter.
const sampleLength = 500 * time.Millisecond

// plan returns all measurements. In short mode the samples are small, just to check that
// everything works.
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
		note:    "Unfragmented binary messages. The channel is a subscriber's, with a buffer of 256. \"" + nameMark + "\" reads frames with gobwas/ws, copies each one and sends it to another goroutine over such a channel, without checks, heartbeat or other events: the baseline for events over a channel.",
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

// oneProcessorPlan measures the cost of receiving itself. On two processors, one of which
// the server uses, the garbage collector and the scheduler of a client spin while they
// wait for the other.
func oneProcessorPlan() group {
	g := inboundPlan()
	g.title = titleOneProcessor
	g.note = "The same with GOMAXPROCS=1 in the client. That excludes the time that garbage collector and scheduler spend spinning while the server uses the other processor."
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
		note:    fmt.Sprintf("permessage-deflate. A tick is %d B of JSON, and no two are equal. Without takeover each message is compressed by itself; with takeover the server keeps its context from message to message, which gorilla/websocket does not support. The message of 1 KiB is always the same. The server compresses beforehand.", tickSize),
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
		note:    "TLS 1.3. Encrypting costs the server as much as decrypting costs the client, so the fastest clients wait for the server: compare them by CPU time.",
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
		note:    "Only resock checks that text is valid UTF-8, as RFC 6455 requires. A fragmented message has four frames.",
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
		note:    "Messages of 128 B, until the last one is handed to the kernel. Where a library does not support concurrent writes, the senders share a mutex. There are three times as many rounds, since the cost of a write depends on whether the server is asleep.",
		metrics: []metric{wall, cpu, allocs},
		peers:   senders,
		columns: []column{sent("outbound", 1, 100_000, 3_000_000), sent("outbound", 8, 100_000, 3_000_000)},
		more:    3,
	}
}

func writesPlan() group {
	return group{
		title:   titleWrites,
		note:    "Calls of Write on the connection, counted in separate samples.",
		metrics: []metric{{metricWrites, "writes per message", 1, 3}},
		peers:   []string{nameEnqueue, nameSend, nameGobwas, nameGws, nameGorilla, nameCoder},
		columns: []column{sent("writes", 1, 20_000, 100_000), sent("writes", 8, 20_000, 100_000)},
		rounds:  3,
	}
}

func echoPlan() group {
	return group{
		title: titleEcho,
		note:  "Messages of 128 B, one at a time. The handler and gws send the next message from the callback.",
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
		note:  "Growth per connection, with 5,000 open connections that are being read, after a garbage collection. resock has one subscriber per client, or a handler and no subscriber. Libraries without a heartbeat get a goroutine that sends pings.",
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

// idleStatesPlan measures what an idle connection keeps from its previous traffic.
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
	g.note = "The same for 2,000 connections in other states (200 for gws after compressed traffic), without heartbeats. The traffic is a burst of 400 messages of 230 B, uncompressed or compressed with takeover, and then a few pings."
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
		note:  "Dial: wall time of dialing; CPU and allocations from dialing to closing. Reconnect: the whole cycle with a server that drops every connection at once, without a delay. The peers reconnect by dialing again. With TLS 1.3, each handshake is a full one, except that resock resumes its session when it reconnects. The certificate is ECDSA P-256 or RSA 2048; the client does not verify it, which would cost it more.",
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
		note:  "500 connections with a heartbeat every 50 ms: ping sent, pong received.",
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
