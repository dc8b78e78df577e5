package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// spec is one sample to take: which measure, of which peer, with what. It is
// handed to a fresh process as JSON.
type spec struct {
	Measure    string
	Peer       string
	Variant    string        // of the messages from the server
	Size       int           // of a message
	Count      int           // of messages, round trips, dials or clients
	Goroutines int           // that send
	Interval   time.Duration // of the heartbeat; 0 means none
	Processors int           // GOMAXPROCS, or 0 for the default
	Server     addresses
	Profiles   string // directory for a CPU profile, or empty
}

// sample is what was measured, by metric.
type sample map[string]float64

// Metrics, in nanoseconds, bytes or plain numbers.
const (
	metricWall       = "wall"
	metricCPU        = "cpu"
	metricAllocs     = "allocs"
	metricWrites     = "writes"
	metricP50        = "p50"
	metricP99        = "p99"
	metricResident   = "resident"
	metricGoroutines = "goroutines"
)

// measures are what a spec may ask for.
var measures = map[string]func(spec, peer) (sample, error){
	"inbound":   inbound,
	"outbound":  outbound,
	"writes":    countWrites,
	"echo":      echo,
	"idle":      idle,
	"dial":      dialing,
	"reconnect": reconnecting,
	"heartbeat": beating,
}

// takeSample is the whole life of a sampling process: it takes the sample that
// the JSON asks for and prints it as JSON.
func takeSample(asked string) error {
	raiseFileLimit()
	var s spec
	if err := json.Unmarshal([]byte(asked), &s); err != nil {
		return err
	}
	runtime.GOMAXPROCS(s.Processors) // 0 changes nothing
	measure, p := measures[s.Measure], peers[s.Peer]
	if measure == nil {
		return fmt.Errorf("no measure %q", s.Measure)
	}
	stop, err := s.profile()
	if err != nil {
		return err
	}
	result, err := measure(s, p)
	stop()
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// profile writes a CPU profile until stop is called.
func (s spec) profile() (stop func(), err error) {
	if s.Profiles == "" {
		return func() {}, nil
	}
	name := fmt.Sprintf("%s-%s-%s-%d-%d.pprof", s.Measure, s.Peer, s.Variant, s.Size, s.Goroutines)
	file, err := os.Create(filepath.Join(s.Profiles, strings.Map(inFileName, name)))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(file); err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = file.Close() // what is missing, its reader notices
	}, nil
}

func inFileName(r rune) rune {
	if r == '/' || r == ' ' || r == ',' {
		return '_'
	}
	return r
}

// target is where a peer dials.
type target struct {
	url     string
	variant string
	writes  *writeCounter // counts what goes to the network, if not nil
}

func (t target) tls() bool     { return t.variant == variantTLS }
func (t target) deflate() bool { return t.variant == variantDeflate }

// target returns the URL of one of the server's paths.
func (s spec) target(path string, count int) target {
	u := url.URL{Scheme: "ws", Host: s.Server.Plain, Path: path}
	if s.Variant == variantTLS {
		u.Scheme, u.Host = "wss", s.Server.TLS
	}
	u.RawQuery = url.Values{
		"variant": {s.Variant},
		"size":    {strconv.Itoa(s.Size)},
		"count":   {strconv.Itoa(count)},
	}.Encode()
	return target{url: u.String(), variant: s.Variant}
}

// warmUp is how many of count events pass before the clock starts.
func warmUp(count int) int { return count/10 + 1 }

// meter measures a run of equal events: the first ones warm up, the others
// count.
type meter struct {
	warm, count int
	seen, next  int
	start, end  usage
}

func newMeter(count int) *meter {
	return &meter{warm: warmUp(count), count: count, next: warmUp(count)}
}

// event notes one event, and reports whether more are wanted.
func (m *meter) event() bool {
	m.seen++
	return m.seen < m.next || m.mark()
}

func (m *meter) mark() bool {
	if m.next == m.warm {
		m.start = now()
		m.next += m.count
		return true
	}
	m.end = now()
	return false
}

func (m *meter) sample() sample { return m.start.per(m.count, m.end) }
