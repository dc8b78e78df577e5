package netwatch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/netwatch"
	"golang.org/x/sys/unix"
)

// The test connects two network namespaces by a veth pair and runs itself again inside
// the first, which clientEnv names. It changes nothing outside of them, and uses the
// addresses for documentation (RFC 5737).
const (
	clientEnv     = "NETWATCH_TEST_CLIENT"
	serverEnv     = "NETWATCH_TEST_SERVER"
	cable         = "cable"
	clientAddress = "192.0.2.1/24"
	serverAddress = "192.0.2.2"
)

func TestNetworkNamespace(t *testing.T) {
	client, server := namespace(t, "client"), namespace(t, "server")
	for _, command := range []string{
		"link add " + cable + " netns " + client + " type veth peer name " + cable + " netns " + server,
		"-n " + client + " address add " + clientAddress + " dev " + cable,
		"-n " + client + " link set " + cable + " up",
		"-n " + server + " address add " + serverAddress + "/24 dev " + cable,
		"-n " + server + " link set " + cable + " up",
	} {
		if err := ip(command); err != nil {
			t.Skipf("cannot make a veth pair: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	command := exec.CommandContext(ctx, "ip", "netns", "exec", client, os.Args[0], "-test.run=^TestInside$", "-test.v")
	command.Env = append(os.Environ(), clientEnv+"="+client, serverEnv+"="+server)
	output, err := command.CombinedOutput()
	t.Logf("inside the namespace:\n%s", output)
	if err != nil || !strings.Contains(string(output), "--- PASS: TestInside") {
		t.Errorf("inside the namespace: %v", err)
	}
}

// namespace makes a network namespace for the duration of the test.
func namespace(t *testing.T, role string) string {
	name := fmt.Sprintf("netwatch-%d-%s", os.Getpid(), role)
	if err := ip("netns add " + name); err != nil {
		t.Skipf("needs root and ip(8) to make network namespaces: %v", err)
	}
	t.Cleanup(func() {
		if err := ip("netns del " + name); err != nil {
			t.Error(err)
		}
	})
	return name
}

func ip(command string) error {
	output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", command, err, output)
	}
	return nil
}

func mustIP(t *testing.T, format string, args ...any) {
	t.Helper()
	if err := ip(fmt.Sprintf(format, args...)); err != nil {
		t.Fatal(err)
	}
}

// TestInside is what TestNetworkNamespace runs inside.
func TestInside(t *testing.T) {
	client, server := os.Getenv(clientEnv), os.Getenv(serverEnv)
	if client == "" {
		t.Skip("run by TestNetworkNamespace")
	}
	// The far end goes down, and with it the carrier here.
	t.Run("unplugged", func(t *testing.T) { unplugged(t, server, server) })
	t.Run("interface down", func(t *testing.T) { unplugged(t, server, client) })
	t.Run("probe", func(t *testing.T) { probed(t, server, client) })
	t.Run("default route", func(t *testing.T) { defaultRoute(t, client) })
	t.Run("no leak", noLeak)
}

// serve listens in the server's namespace and keeps every connection open.
func serve(t *testing.T, namespace string) (url string) {
	type result struct {
		listener net.Listener
		err      error
	}
	done := make(chan result)
	go func() {
		// A locked thread ends with its goroutine, and so nothing else runs in the
		// namespace. The socket stays in it.
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + namespace)
		if err != nil {
			done <- result{err: err}
			return
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{err: err}
			return
		}
		listener, err := net.Listen("tcp4", serverAddress+":0")
		done <- result{listener, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("cannot listen in the namespace %s: %v", namespace, r.err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		<-conn.CloseRead(context.Background()).Done()
	})}
	go server.Serve(r.listener)
	t.Cleanup(func() { server.Close() })
	return "ws://" + r.listener.Addr().String()
}

// start runs a client until the end of the test.
func start(t *testing.T, url string, opts ...resock.Option) (*resock.Client, <-chan resock.Event) {
	client, err := resock.New(url, append(opts, resock.WithNetwork(netwatch.Default()))...)
	if err != nil {
		t.Fatal(err)
	}
	events := grammar.Tee(t, client)
	go client.Run(context.Background())
	t.Cleanup(func() {
		client.Close(resock.StatusNormalClosure, "")
		for range events {
		}
	})
	return client, events
}

func next[E resock.Event](t *testing.T, events <-chan resock.Event) E {
	t.Helper()
	select {
	case event := <-events:
		if e, ok := event.(E); ok {
			return e
		}
		t.Fatalf("got %#v, want %T", event, *new(E))
	case <-time.After(20 * time.Second):
		t.Fatalf("no event, want %T", *new(E))
	}
	panic("unreachable")
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// unplugged sets the cable down on one side while a session is open, and up
// again.
func unplugged(t *testing.T, server, side string) {
	url := serve(t, server)
	// With so long an interval, only a probe can detect the dead connection.
	client, events := start(t, url,
		resock.WithHeartbeat(time.Hour, 500*time.Millisecond),
		resock.WithBackoff(10*time.Millisecond, time.Hour),
	)
	next[resock.OpenEvent](t, events)

	began := time.Now()
	mustIP(t, "-n %s link set %s down", side, cable)
	defer ip("-n " + side + " link set " + cable + " up")
	fail := next[resock.FailEvent](t, events)
	t.Logf("dead connection detected after %v", time.Since(began))
	if fail.Phase != resock.PhaseHeartbeat || !errors.Is(fail.Err, resock.ErrHeartbeat) {
		t.Errorf("lost in phase %v: %v; want a heartbeat", fail.Phase, fail.Err)
	}
	if fail.Next != resock.StateOffline || client.State() != resock.StateOffline {
		t.Errorf("next %v, state %v; want offline", fail.Next, client.State())
	}
	if took := time.Since(began); took > 6*time.Second {
		t.Errorf("detected after %v", took)
	}
	attempts := client.Stats().Attempts

	// It does not dial because of another change.
	changed := make(chan struct{}, 1)
	stop := netwatch.Default().OnChange(func() { changed <- struct{}{} })
	mustIP(t, "-n %s address add 198.51.100.1/24 dev %s", os.Getenv(clientEnv), cable)
	<-changed
	mustIP(t, "-n %s address del 198.51.100.1/24 dev %s", os.Getenv(clientEnv), cable)
	<-changed
	stop()
	if stats := client.Stats(); stats.Attempts != attempts || stats.State != resock.StateOffline {
		t.Errorf("%d dials and state %v while offline", stats.Attempts-attempts, stats.State)
	}

	began = time.Now()
	mustIP(t, "-n %s link set %s up", side, cable)
	open := next[resock.OpenEvent](t, events)
	t.Logf("open %v after the cable was back", time.Since(began))
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("open %v after the network was back", took)
	}
	if stats := client.Stats(); stats.Attempts != attempts+1 {
		t.Errorf("%d dials, want one", stats.Attempts-attempts)
	}
	// The lost session was shorter than WithStableAfter and counts; being
	// offline does not.
	if open.Attempt != 2 {
		t.Errorf("attempt %d, want 2", open.Attempt)
	}
}

// probed: after a change that leaves the machine online the client probes, and a
// healthy connection survives.
func probed(t *testing.T, server, here string) {
	client, events := start(t, serve(t, server), resock.WithHeartbeat(time.Hour, time.Second))
	next[resock.OpenEvent](t, events)
	if client.Stats().RoundTrip != 0 {
		t.Fatal("a heartbeat before the probe")
	}
	mustIP(t, "-n %s address add 198.51.100.1/24 dev %s", here, cable)
	waitFor(t, "a ping", func() bool { return client.Stats().RoundTrip > 0 })
	mustIP(t, "-n %s address del 198.51.100.1/24 dev %s", here, cable)
	if client.State() != resock.StateOpen {
		t.Errorf("state %v", client.State())
	}
}

// defaultRoute: a new default route is a change, although no interface and no address
// changes.
func defaultRoute(t *testing.T, here string) {
	changed := make(chan struct{}, 8)
	defer netwatch.Default().OnChange(func() { changed <- struct{}{} })()
	for _, command := range []string{"add", "del"} {
		mustIP(t, "-n %s route %s default via %s", here, command, serverAddress)
		select {
		case <-changed:
		case <-time.After(4 * time.Second):
			t.Errorf("route %s: no change reported", command)
		}
	}
	// Any other route is no change.
	mustIP(t, "-n %s route add 203.0.113.0/24 via %s", here, serverAddress)
	mustIP(t, "-n %s route del 203.0.113.0/24 via %s", here, serverAddress)
	select {
	case <-changed:
		t.Error("a change was reported for a route other than the default")
	case <-time.After(300 * time.Millisecond):
	}
}

// noLeak: the socket and both goroutines end with the last subscription.
func noLeak(t *testing.T) {
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	for range 20 {
		stop := netwatch.Default().OnChange(func() {})
		if now := openFiles(t); now != files+1 {
			t.Errorf("%d files while watching, want one more than %d", now, files)
		}
		stop()
	}
	if now := openFiles(t); now != files {
		t.Errorf("%d files open, want %d", now, files)
	}
	waitFor(t, "no goroutine left", func() bool { return runtime.NumGoroutine() <= goroutines })
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
