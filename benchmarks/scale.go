package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"
)

// What docs/scale.md is calculated from: many clients of resock in one process.

// heartbeat is the default interval of resock.
const heartbeat = 15 * time.Second

// scalePlan returns the measurements. In short mode they only show that everything works.
func scalePlan(short bool) []group {
	groups := []group{restPlan(), loadPlan(), pacePlan(), comebackPlan()}
	if !short {
		return groups
	}
	for _, g := range groups {
		for i := range g.columns {
			s := &g.columns[i].spec
			s.Count, s.Length, s.Interval, s.Every = s.Count/200+1, s.Length/60, s.Interval/60, s.Every/60
		}
	}
	return groups
}

func restPlan() group {
	clients := func(count int, variant, more string) column {
		return column{
			label: thousands(count) + " connections" + more,
			spec:  spec{Measure: "rest", Variant: variant, Count: count, Interval: heartbeat},
		}
	}
	return group{
		title: "Idle connections",
		note: "With one subscriber each and the default heartbeat of 15 s. Memory is the growth of the client's process, after a garbage collection. " +
			"The CPU time is measured over one interval, in which each connection beats once.",
		metrics: []metric{
			{metricResident, "resident memory, KiB per connection", 1 << 10, 1},
			{metricGoroutines, "goroutines per connection", 1, 2},
			{metricShare, "CPU, % of a core", 0.01, 1},
			{metricBeat, "CPU, µs per heartbeat", 1e3, 0},
			{metricTotal, "s to open all", 1e9, 1},
			{metricCPU, "CPU, µs per opening", 1e3, 0},
		},
		peers: []string{nameResock},
		columns: []column{
			clients(1_000, variantBinary, ""),
			clients(10_000, variantBinary, ""),
			clients(mostConnections(), variantBinary, ""),
			clients(10_000, variantTLS, ", TLS"),
		},
	}
}

// mostConnections is 20,000, or what the limit of open files leaves.
func mostConnections() int {
	const reserve = 500 // for all else, and rounds the number down
	return max(reserve, min(20_000, (fileLimit()/reserve-1)*reserve))
}

func fleetColumn(count int, every, length time.Duration) column {
	label := thousands(count) + " connections"
	if count == 1 {
		label = "1 connection"
	}
	return column{label: label, spec: spec{Measure: "fleet", Variant: variantText, Count: count, Every: every, Length: length}}
}

func loadPlan() group {
	return group{
		title: "At full load",
		note: fmt.Sprintf("Text messages of %d B, which the server sends as fast as the client takes them, with socket buffers of %d KiB. "+
			"Client and server share the processors, so the CPU time per message is the figure to calculate with.", fleetSize, fleetBuffer>>10),
		metrics: []metric{
			{metricRate, "million messages per second", 1e6, 2},
			{metricShare, "CPU, % of a core", 0.01, 0},
			{metricCPU, "CPU, ns per message", 1, 0},
		},
		peers: []string{nameHandler, nameChannel},
		columns: []column{
			fleetColumn(1, 0, 2*time.Second), fleetColumn(100, 0, 2*time.Second), fleetColumn(10_000, 0, 3*time.Second),
		},
	}
}

func pacePlan() group {
	return group{
		title: "One message per second and connection",
		note:  "The same messages, spread over the second: each one is read, and wakes the process, by itself.",
		metrics: []metric{
			{metricRate, "messages per second", 1, 0},
			{metricShare, "CPU, % of a core", 0.01, 0},
			{metricCPU, "CPU, µs per message", 1e3, 1},
			{metricResident, "resident memory, KiB per connection", 1 << 10, 1},
		},
		peers:   []string{nameHandler, nameChannel},
		columns: []column{fleetColumn(10_000, time.Second, 10*time.Second)},
	}
}

func comebackPlan() group {
	cycle := func(label, variant string) column {
		return column{label: label, spec: spec{Measure: "reconnect", Variant: variant, Length: 2 * time.Second}}
	}
	return group{
		title: "Reconnecting",
		note:  "One client whose server drops each connection at once: dial, detect the loss, clean up. TLS 1.3, resumed; the client does not verify the certificate, which costs more in a full handshake.",
		metrics: []metric{
			{metricCPU, "CPU of the client, µs", 1e3, 0},
			{metricBoth, "CPU of client and server, µs", 1e3, 0},
		},
		peers:   []string{nameResock},
		columns: []column{cycle("plain", variantBinary), cycle("TLS", variantTLS)},
	}
}

// rest measures connections that only beat: what opening them costs, what they hold, and
// what their heartbeats cost.
func rest(s spec, p peer) (sample, error) {
	spreadOut(0)
	result, err := idle(s, p)
	if err != nil {
		return nil, err
	}
	result[metricTotal] = result[metricWall] * float64(s.Count)
	start := now()
	time.Sleep(s.Interval)
	end := now()
	result[metricShare] = share(start, end)
	result[metricBeat] = start.per(s.Count, end)[metricCPU]
	return result, nil
}

// follower is one client of a fleet. Each counts on a cache line of its own.
type follower struct {
	received atomic.Int64
	start    func() error
	_        [48]byte
}

// fleet measures many clients that receive.
func fleet(s spec, p peer) (sample, error) {
	spreadOut(fleetBuffer)
	before, err := resident()
	if err != nil {
		return nil, err
	}
	clients, err := gather(s, p)
	if err != nil {
		return nil, err
	}
	time.Sleep(s.Length/2 + s.Every)
	received, start := total(clients), now()
	time.Sleep(s.Length)
	for total(clients) == received { // a short sample on a busy machine
		if time.Since(start.at) > time.Minute {
			return nil, fmt.Errorf("%d clients received nothing in a minute", s.Count)
		}
		time.Sleep(time.Millisecond)
	}
	count, end := int(total(clients)-received), now()
	result := start.per(count, end)
	result[metricRate] = 1e9 / result[metricWall]
	result[metricShare] = share(start, end)
	after, err := resident()
	result[metricResident] = (after - before) / float64(s.Count)
	return result, err
}

// gather opens the clients of a fleet, and then has all of them receive.
func gather(s spec, p peer) ([]follower, error) {
	clients := make([]follower, s.Count)
	var next atomic.Int64
	p.open = func(t target, _ time.Duration) (func(), error) {
		c := &clients[next.Add(1)-1]
		var err error
		c.start, err = p.follow(t, &c.received)
		return nil, err
	}
	if err := openMany(s.target("/fleet"), p, s.Count, 0); err != nil {
		return nil, err
	}
	for i := range clients {
		if err := clients[i].start(); err != nil {
			return nil, err
		}
	}
	return clients, nil
}

func total(clients []follower) (sum int64) {
	for i := range clients {
		sum += clients[i].received.Load()
	}
	return sum
}

// share returns the CPU time in proportion to the wall time.
func share(start, end usage) float64 {
	return float64(end.cpu-start.cpu) / float64(end.at.Sub(start.at))
}

// spreadOut has the clients of this process dial from several local addresses in turn: each has
// about 28,000 ports. A buffer above 0 is the size of the receive buffers of their sockets.
func spreadOut(buffer int) {
	const addresses = 8
	var dials atomic.Uint32
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(1+dials.Add(1)%addresses))}}
		conn, err := d.DialContext(ctx, network, address)
		if err == nil && buffer > 0 {
			err = conn.(*net.TCPConn).SetReadBuffer(buffer)
		}
		return conn, err
	}
	http.DefaultTransport = transport
}

// scaleReport returns the results in Markdown: one table for each group, with a row for each
// measurement of each peer.
func scaleReport(groups []group, r results) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s %s/%s, %d CPUs. The server is another process on this machine.\n", runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	for _, g := range groups {
		fmt.Fprintf(&out, "\n## %s\n\n%s\n\n%s", g.title, g.note, scaleTable(g, r))
	}
	return out.String()
}

func scaleTable(g group, r results) string {
	var t table
	head := []string{""}
	for _, m := range g.metrics {
		head = append(head, m.label)
	}
	t.add(head...)
	for _, c := range g.columns {
		for _, peer := range g.peers {
			row := []string{c.label}
			if len(g.peers) > 1 {
				row[0] += strings.TrimPrefix(peer, nameResock)
			}
			for _, m := range g.metrics {
				row = append(row, cell(m, r.values(g.title, c.label, peer, m.key)))
			}
			t.add(row...)
		}
	}
	return t.String()
}

// thousands returns a number with a comma before its thousands.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
