package trials

import (
	"bytes"
	"compress/flate"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// idleCase is a kind of idle client, with an open session and a heartbeat, and how much
// each may add to the resident memory of the process.
type idleCase struct {
	Name       string
	Clients    int
	Most       float64 // KiB
	Subscriber bool    // it has a subscriber, with default options
	Traffic    bool    // it has received a burst of messages before
	Reconnects bool    // it has lost its first session
	TLS        bool
	Compressed bool // the server compresses with context takeover

	URL  string
	Root []byte // the server's certificate
}

var idleCases = []idleCase{
	{Name: "no subscriber", Clients: 2000, Most: 9.5},
	{Name: "a subscriber", Clients: 2000, Most: 11, Subscriber: true},
	{Name: "after a burst", Clients: 600, Most: 14.5, Subscriber: true, Traffic: true},
	{Name: "after a reconnect", Clients: 600, Most: 13.5, Subscriber: true, Reconnects: true},
	{Name: "compressed, after a burst", Clients: 600, Most: 52, Subscriber: true, Traffic: true, Compressed: true},
	{Name: "TLS", Clients: 600, Most: 22.5, Subscriber: true, TLS: true},
}

// TestIdleMemory measures each kind of idle client in a process of its own.
func TestIdleMemory(t *testing.T) {
	if rig.Race || testing.CoverMode() != "" {
		t.Skip("what the race detector or coverage adds would be measured")
	}
	if task := os.Getenv(idleTask); task != "" {
		idle(t, task)
		return
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	most := int(limit.Max)/2 - 100 // go test raises the soft limit to the hard one
	for _, c := range idleCases {
		t.Run(c.Name, func(t *testing.T) {
			s := c.server(t)
			c.Clients, c.URL = min(c.Clients, most), s.URL
			// How fragmented the heap is depends on when garbage is collected, so the
			// best of several measurements counts.
			goroutines, memory := 0.0, c.Most+1
			for try := 0; try < 12 && memory > c.Most; try++ {
				goroutines, memory = c.measure(t)
				t.Logf("%d clients, each %.2f goroutines and %.2f KiB resident", c.Clients, goroutines, memory)
			}
			if goroutines > 1.01 || memory > c.Most {
				t.Errorf("an idle client has %.2f goroutines and %.2f KiB, want 1 and at most %.2f", goroutines, memory, c.Most)
			}
		})
	}
}

// server starts a server for the clients of c.
func (c *idleCase) server(t *testing.T) *resocktest.Server {
	s := resocktest.NewServer
	if c.TLS {
		s = resocktest.NewTLSServer
	}
	server := s(t)
	if c.TLS {
		c.Root = server.TLS.Certificates[0].Certificate[0]
	}
	header := http.Header{}
	first := byte(rig.Fin | rig.Text)
	if c.Compressed {
		header.Set("Sec-WebSocket-Extensions", "permessage-deflate")
		first |= rig.RSV1
	}
	var burst []byte
	for _, payload := range ticks(400, c.Compressed) {
		burst = append(burst, resocktest.Frame(first, payload)...)
	}
	server.Script(resocktest.Upgrade(header, func(conn *resocktest.Conn) {
		if c.Reconnects && !strings.Contains(conn.Request().URL.Path, "again") {
			conn.Drop()
			return
		}
		if !c.Traffic {
			return
		}
		_ = conn.Raw(burst)
		for n := 1; n <= 3; n++ { // each makes the client read a ping alone
			_ = conn.Ping("")
			for len(conn.Received().Pongs) < n && conn.Received().Ended.IsZero() {
				<-time.After(time.Millisecond)
			}
		}
		_ = conn.Push("done")
	}))
	return server
}

// ticks returns the payloads of n similar messages. If compressed, they together fill
// the window of an inflater.
func ticks(n int, compressed bool) (payloads [][]byte) {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	for i := range n {
		tick := fmt.Appendf(nil, `{"symbol":"RSK","sequence":%d,"bid":%d.25,"ask":%d.75,"time":"2026-11-25T10:%02d:00Z"}`, i, 100+i%7, 101+i%5, i%60)
		if compressed {
			_, _ = w.Write(tick)
			_ = w.Flush()
			tick = bytes.Clone(bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff")))
			b.Reset()
		}
		payloads = append(payloads, tick)
	}
	return payloads
}

const idleTask = "RESOCK_TEST_IDLE"

// measure runs idle in a process of its own.
func (c *idleCase) measure(t *testing.T) (goroutines, memory float64) {
	t.Helper()
	task, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(os.Args[0], "-test.run=^TestIdleMemory$", "-test.v")
	command.Env = append(os.Environ(), idleTask+"="+string(task))
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	_, result, _ := strings.Cut(string(output), "per client: ")
	if _, err := fmt.Sscanf(result, "%f goroutines, %f KiB", &goroutines, &memory); err != nil {
		t.Fatalf("%v:\n%s", err, output)
	}
	return goroutines, memory
}

// idle is the main function of the process that is measured.
func idle(t *testing.T, task string) {
	var c idleCase
	if err := json.Unmarshal([]byte(task), &c); err != nil {
		t.Fatal(err)
	}
	resident := func() float64 {
		for range 4 { // each collection halves stacks, and pools lose their items
			runtime.GC()
		}
		debug.FreeOSMemory()
		fields, _ := os.ReadFile("/proc/self/statm")
		pages, _ := strconv.Atoi(strings.Fields(string(fields))[1])
		return float64(pages*os.Getpagesize()) / 1024
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range 16 { // so that one-time costs do not count
		c.open(t, ctx)
	}
	goroutines, memory := runtime.NumGoroutine(), resident()
	for range c.Clients {
		c.open(t, ctx)
	}
	n := float64(c.Clients)
	fmt.Printf("per client: %.2f goroutines, %.2f KiB\n", float64(runtime.NumGoroutine()-goroutines)/n, (resident()-memory)/n)
	runtime.KeepAlive(idleClients)
}

// idleClients keeps the clients and their event channels reachable.
var idleClients []any

// open starts a client, and returns once it is idle.
func (c *idleCase) open(t *testing.T, ctx context.Context) {
	opts := []resock.Option{resock.WithHTTPClient(c.client()), resock.WithBackoff(time.Millisecond, time.Millisecond)}
	if c.Compressed {
		opts = append(opts, resock.WithCompression(websocket.CompressionContextTakeover))
	}
	if c.Reconnects {
		opts = append(opts, resock.WithEndpoint(func(_ context.Context, a resock.Attempt) (resock.Endpoint, error) {
			if a.Session == 0 {
				return resock.Endpoint{URL: c.URL}, nil
			}
			return resock.Endpoint{URL: c.URL + "/again"}, nil
		}))
	}
	client, err := resock.New(c.URL, opts...)
	if err != nil {
		t.Fatal(err)
	}
	idleClients = append(idleClients, client)
	if c.Subscriber {
		events := client.Subscribe(ctx)
		defer func() { idleClients = append(idleClients, events) }()
		if c.Traffic {
			defer func() {
				for event := range new(grammar.Checker).All(t, events) {
					if m, ok := event.(resock.MessageEvent); ok && string(m.Data) == "done" {
						return
					}
				}
			}()
		}
	}
	go client.Run(context.Background())
	for c.Reconnects && client.Stats().Session < 2 && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	if err := client.WaitOpen(ctx); err != nil {
		t.Fatal(err)
	}
}

var sharedClient *http.Client

// client returns the HTTP client that all clients share, or nil without TLS.
func (c *idleCase) client() *http.Client {
	if c.Root == nil || sharedClient != nil {
		return sharedClient
	}
	roots := x509.NewCertPool()
	if certificate, err := x509.ParseCertificate(c.Root); err == nil {
		roots.AddCert(certificate)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	sharedClient = &http.Client{Transport: transport}
	return sharedClient
}
