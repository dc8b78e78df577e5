package trials

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// The test connects two network namespaces by a veth pair, and runs itself again in both:
// a server in one, a client in the other. It changes nothing outside of them, and uses
// addresses for documentation (RFC 5737).
const (
	deadLinkRole   = "RESOCK_TEST_DEAD_LINK"
	deadLinkServer = "192.0.2.2:7001"
	deadLinkPeer   = "RESOCK_TEST_DEAD_LINK_PEER" // the namespace of the server
)

// TestDeadLink sets a link down, which no packet tells, under a client.
func TestDeadLink(t *testing.T) {
	switch os.Getenv(deadLinkRole) {
	case "server":
		serveDeadLink(t)
		return
	case "client":
		t.Run("load", func(t *testing.T) { deadLink(t, true, false) })
		t.Run("load, delivery blocked", func(t *testing.T) { deadLink(t, true, true) })
		t.Run("delivery blocked", func(t *testing.T) { deadLink(t, false, true) })
		return
	}
	client, server := namespace(t, "client"), namespace(t, "server")
	for _, command := range []string{
		"link add cable netns " + client + " type veth peer name cable netns " + server,
		"-n " + client + " address add 192.0.2.1/24 dev cable",
		"-n " + client + " link set cable up",
		"-n " + server + " address add 192.0.2.2/24 dev cable",
		"-n " + server + " link set cable up",
	} {
		if err := ip(command); err != nil {
			t.Skipf("cannot make a veth pair: %v", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again := func(namespace, role string) *exec.Cmd {
		command := exec.CommandContext(ctx, "ip", "netns", "exec", namespace, os.Args[0], "-test.run=^TestDeadLink$", "-test.v")
		command.Env = append(os.Environ(), deadLinkRole+"="+role, deadLinkPeer+"="+server)
		return command
	}
	serving := again(server, "server")
	output, err := serving.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serving.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = serving.Process.Kill()
		_ = serving.Wait()
	}()
	for lines := bufio.NewScanner(output); lines.Scan() && lines.Text() != "ready"; {
	}
	result, err := again(client, "client").CombinedOutput()
	t.Logf("inside the namespace:\n%s", result)
	if err != nil || !strings.Contains(string(result), "--- PASS: TestDeadLink") {
		t.Errorf("inside the namespace: %v", err)
	}
}

// namespace makes a network namespace for the duration of the test.
func namespace(t *testing.T, role string) string {
	name := fmt.Sprintf("resock-%d-%s", os.Getpid(), role)
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
	if output, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", command, err, output)
	}
	return nil
}

// serveDeadLink reads, and pushes a message every 10 ms.
func serveDeadLink(t *testing.T) {
	listener, err := net.Listen("tcp", deadLinkServer)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready")
	_ = http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		go func() {
			for err := error(nil); err == nil; {
				_, _, err = conn.Read(context.Background())
			}
		}()
		for err == nil {
			<-time.After(10 * time.Millisecond)
			err = conn.Write(context.Background(), websocket.MessageBinary, make([]byte, 4<<10))
		}
	}))
}

// deadLink sets the link down, and measures when the client notices.
func deadLink(t *testing.T, load, blocked bool) {
	const interval, timeout = 2 * time.Second, time.Second
	most := interval + timeout + time.Second
	if blocked && !load { // TCP gives up a beat, which the next beat but one shows
		most += 2 * interval
	}
	link := func(state string) {
		if err := ip("-n " + os.Getenv(deadLinkPeer) + " link set cable " + state); err != nil {
			t.Fatal(err)
		}
	}
	r := rig.Quick(t, "ws://"+deadLinkServer, resock.WithHeartbeat(interval, timeout), resock.WithWriteTimeout(timeout),
		resock.WithDialTimeout(time.Second),
		resock.WithMessageHandler(func(ctx context.Context, _ resock.MessageEvent) {
			if blocked {
				<-ctx.Done()
			}
		}))
	for opened := false; !opened; { // it takes a moment until the link is up again
		_, opened = r.Next().(resock.OpenEvent)
	}
	if load {
		go func() {
			for r.Send(t.Context(), resock.MessageBinary, make([]byte, 4<<10)) == nil {
				<-time.After(5 * time.Millisecond)
			}
		}()
	}
	<-time.After(time.Second)
	link("down")
	defer link("up")
	down, taken, bytes := time.Now(), time.Now(), r.Stats().BytesOut
	for {
		select {
		case event := <-r.Events:
			if fail, ok := event.(resock.FailEvent); !ok || fail.Session != 1 {
				t.Errorf("%+v", event)
			}
			t.Logf("found %v after the link went down, %v after the last byte was taken: %v", time.Since(down), time.Since(taken), event)
			if time.Since(taken) > interval+timeout+time.Second || time.Since(down) > most {
				t.Error("too late")
			}
			return
		case <-time.After(5 * time.Millisecond):
			if now := r.Stats().BytesOut; now != bytes {
				taken, bytes = time.Now(), now
			}
		case <-t.Context().Done():
			return
		}
	}
}
