package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// spec describes one sample. It is passed to a new process as JSON.
type spec struct {
	Measure    string
	Peer       string
	Variant    string        // of the messages from the server
	Size       int           // of a message
	Length     time.Duration // of a sample that is limited by time
	Count      int           // messages, dials or clients of a sample that is not
	Traffic    int           // messages that each client receives before it is idle
	Goroutines int           // number of concurrent senders
	Interval   time.Duration // of the heartbeat, or 0 for none
	Every      time.Duration // between two messages to a client of a fleet, or 0 for as fast as possible
	Processors int           // GOMAXPROCS, or 0 for the default
	Server     addresses
	Profiles   string // directory for a CPU profile, or empty
}

// sample is the result of a measurement, by metric.
type sample map[string]float64

// Metrics, in nanoseconds, bytes or plain numbers.
const (
	metricWall       = "wall"
	metricCPU        = "cpu"
	metricAllocs     = "allocs"
	metricBoth       = "both" // CPU time of client and server
	metricWrites     = "writes"
	metricP50        = "p50"
	metricP99        = "p99"
	metricResident   = "resident"
	metricGoroutines = "goroutines"
	metricShare      = "share" // of one processor
	metricRate       = "rate"  // messages per second
	metricTotal      = "total" // wall time to open all
	metricBeat       = "beat"  // CPU time per heartbeat
)

// measures are the values of spec.Measure.
var measures = map[string]func(spec, peer) (sample, error){
	"inbound":   inbound,
	"outbound":  outbound,
	"writes":    countWrites,
	"echo":      echo,
	"idle":      idle,
	"dial":      dialing,
	"reconnect": reconnecting,
	"heartbeat": beating,
	"rest":      rest,
	"fleet":     fleet,
}

// takeSample takes the sample that a spec in JSON describes, and prints it as JSON.
func takeSample(text string) error {
	raiseFileLimit()
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	runtime.GOMAXPROCS(s.Processors) // 0 changes nothing
	measure, p := measures[s.Measure], peers[s.Peer]
	if measure == nil {
		return fmt.Errorf("unknown measure %q", s.Measure)
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
		_ = file.Close() // the reader of a truncated profile notices
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
	url      string
	variant  string
	traffic  int           // messages to receive before the connection is idle
	received *atomic.Int64 // such messages so far, of all clients
	writes   *writeCounter // counts writes, unless nil
	http     *http.Client  // for peers that dial with net/http; nil is the default
}

func (t target) tls() bool { return t.variant == variantTLS || t.variant == variantRSA }

// deflate reports whether the server compresses.
func (t target) deflate() bool {
	return t.variant == variantDeflate || t.variant == variantTicks || t.takeover()
}

// takeover reports whether the server uses context takeover.
func (t target) takeover() bool { return t.variant == variantTakeover }

// target returns the target for one of the server's paths.
func (s spec) target(path string) target {
	u := url.URL{Scheme: "ws", Host: s.Server.Plain, Path: path}
	switch s.Variant {
	case variantTLS:
		u.Scheme, u.Host = "wss", s.Server.TLS
	case variantRSA:
		u.Scheme, u.Host = "wss", s.Server.RSA
	}
	u.RawQuery = url.Values{
		"variant": {s.Variant},
		"size":    {strconv.Itoa(s.Size)},
		"traffic": {strconv.Itoa(s.Traffic)},
		"every":   {s.Every.String()},
	}.Encode()
	t := target{url: u.String(), variant: s.Variant, traffic: s.Traffic, received: new(atomic.Int64)}
	if t.tls() { // as an application that gives no client of its own
		http.DefaultTransport = httpClient(t).Transport
	}
	return t
}

// httpClient returns an HTTP client for t. All dials of a sample share it, as they do in
// an application.
func httpClient(t target) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if t.tls() {
		transport.TLSClientConfig = clientTLS()
	}
	if t.writes != nil {
		transport.DialContext = t.writes.DialContext
	}
	return &http.Client{Transport: transport}
}
