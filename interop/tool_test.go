package interop

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// toolFolder has the command, once a test needed it.
var toolFolder string

// tool builds the command once and returns its path.
var tool = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "resock")
	if err != nil {
		return "", err
	}
	toolFolder = folder
	path := filepath.Join(folder, "resock")
	output, err := exec.Command("go", "-C", "../cmd/resock", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, output)
	}
	return path, err
})

// resockCommand is the command with arguments.
func resockCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := tool()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, args...)
	command.Env = append(os.Environ(), "NO_PROXY=", "HTTP_PROXY=", "HTTPS_PROXY=")
	return command
}

// resockPrints runs the command, with input, and returns what it prints.
func resockPrints(t *testing.T, input string, args ...string) string {
	t.Helper()
	command := resockCommand(t, args...)
	command.Stdin = strings.NewReader(input)
	var errors bytes.Buffer
	command.Stderr = &errors
	timer := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	output, err := command.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command.Args[1:], err, errors.String())
	}
	return string(output)
}

// resockServe starts "resock serve" and returns its URL.
func resockServe(t *testing.T, args ...string) string {
	t.Helper()
	listen := address(t)
	start(t, listen, resockCommand(t, append([]string{"serve", "-listen", listen}, args...)...))
	return "ws://" + listen + "/"
}

func TestToolAgainstPeers(t *testing.T) {
	for _, p := range peers {
		for _, mode := range []string{"none", "takeover", "no-takeover"} {
			t.Run(p.name+"/"+mode, func(t *testing.T) {
				s := p.start(t, mode)
				lines := "short\nä ö ü\n" + strings.Repeat("compressible ", 1000) + "\n"
				if got := resockPrints(t, lines, "-compression", "context", "-n", "3", s.url("/fragments", "text")); got != lines {
					t.Errorf("got %.200q", got)
				}
				s.ended("text")
				big := strings.Repeat("ten megabytes. ", 700_000) + "\n"
				if got := resockPrints(t, big, "-compression", "message", "-read-limit", "16M", "-n", "1", s.url("/echo", "big")); got != big {
					t.Errorf("got %d bytes of %d", len(got), len(big))
				}
				s.ended("big")
				want := base64.StdEncoding.EncodeToString([]byte("a\x00b\xff")) + "\n"
				if got := resockPrints(t, "a\x00b\xff\n", "-binary", "-n", "1", s.url("/echo", "binary")); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
				if end := s.ended("binary"); end.Code != 1000 {
					t.Errorf("the server saw %+v", end)
				}
			})
		}
	}
}

// TestToolThroughProxies lets the upstream of a proxy be killed and start again.
func TestToolThroughProxies(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, upstream *process) {
		command := resockCommand(t, "-backoff", "50ms", "-backoff-max", "200ms", "-n", "2", p.url("/"))
		stdin, err := command.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdout, err := command.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stderr, err := command.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
		defer timer.Stop()
		lines, notes := bufio.NewScanner(stdout), bufio.NewScanner(stderr)
		fmt.Fprintln(stdin, "before")
		if !lines.Scan() || lines.Text() != "before" {
			t.Errorf("got %q", lines.Text())
		}
		upstream.kill()
		for notes.Scan() && !strings.Contains(notes.Text(), " failed: ") { // the proxy is alone
		}
		fmt.Fprintln(stdin, "after") // waits for the connection
		startServer(t, "echo", p.settings.Upstream)
		go func() {
			for notes.Scan() {
			}
		}()
		if !lines.Scan() || lines.Text() != "after" {
			t.Errorf("got %q", lines.Text())
		}
		if err := command.Wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestToolThroughTunnels(t *testing.T) {
	for _, k := range forwardKinds {
		t.Run(k.name, func(t *testing.T) {
			upstream := address(t)
			startServer(t, "echo", upstream)
			p := k.start(t, settings{})
			got := resockPrints(t, "hello\n", "-proxy", "http://"+p.settings.Address, "-n", "1", "ws://"+upstream+"/")
			if got != "hello\n" {
				t.Errorf("got %q", got)
			}
		})
	}
}

// TestToolLosesNothing sends as fast as it goes, into a file.
func TestToolLosesNothing(t *testing.T) {
	const messages = 300_000
	url := resockServe(t, "-push", "200000/s", "-push-count", fmt.Sprint(messages))
	file, err := os.Create(filepath.Join(t.TempDir(), "messages"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	command := resockCommand(t, "-n", fmt.Sprint(messages), url)
	command.Stdout = file
	began := time.Now()
	if err := command.Run(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.0f messages per second", messages/time.Since(began).Seconds())
	if _, err := file.Seek(0, 0); err != nil {
		t.Fatal(err)
	}
	n := 0
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if n++; lines.Text() != fmt.Sprintf("push %d", n) {
			t.Fatalf("line %d is %q", n, lines.Text())
		}
	}
	if n != messages {
		t.Errorf("%d of %d messages", n, messages)
	}
}

// heard is a line of peers/node/client.js.
type heard struct {
	Event      string `json:"event"`
	Extensions string `json:"extensions,omitempty"`
	Binary     bool   `json:"binary,omitempty"`
	Text       string `json:"text,omitempty"`
	Code       int    `json:"code,omitempty"`
}

// nodeHears runs Node's ws as a client, and returns what it tells until it has ended.
func nodeHears(t *testing.T, url string, messages ...string) (all []heard) {
	t.Helper()
	node := program(t, "node")
	if _, err := os.Stat("peers/node/node_modules/ws/package.json"); err != nil {
		missing(t, "Node's ws is missing (%v)", err)
	}
	command := exec.Command(node, append([]string{"peers/node/client.js", url}, messages...)...)
	timer := time.AfterFunc(patience, func() { _ = command.Process.Kill() })
	defer timer.Stop()
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	for line := range strings.Lines(string(output)) {
		var h heard
		if err := json.Unmarshal([]byte(line), &h); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, h)
	}
	return all
}

// TestServeAgainstNode lets another client see each kind of end.
func TestServeAgainstNode(t *testing.T) {
	url := resockServe(t, "-compression", "context")
	const deflate = "permessage-deflate"
	for _, test := range []struct {
		messages []string
		want     []heard
	}{
		{[]string{"hello", "/close 4001 enough"}, []heard{{Event: "open", Extensions: deflate}, {Event: "message", Text: "hello"}, {Event: "close", Code: 4001, Text: "enough"}}},
		{[]string{"/close"}, []heard{{Event: "open", Extensions: deflate}, {Event: "close", Code: 1005}}},
		{[]string{"/end"}, []heard{{Event: "open", Extensions: deflate}, {Event: "close", Code: 1006}}},
		{[]string{"/drop"}, []heard{{Event: "open", Extensions: deflate}, {Event: "close", Code: 1006}}},
		{[]string{"/half"}, []heard{{Event: "open", Extensions: deflate}, {Event: "close", Code: 1006}}},
		{[]string{"/close 1005"}, []heard{{Event: "open", Extensions: deflate}, {Event: "error", Text: "Invalid WebSocket frame: invalid status code 1005"}, {Event: "close", Code: 1006}}},
		{[]string{"/garbage"}, []heard{{Event: "open", Extensions: deflate}, {Event: "error", Text: "Invalid WebSocket frame: RSV2 and RSV3 must be clear"}, {Event: "close", Code: 1006}}},
		{[]string{"/burst 2 9", "/after 1 message close 1000", "/silence", "the first"}, []heard{{Event: "open", Extensions: deflate}, {Event: "message", Text: "burst 1 o"}, {Event: "message", Text: "burst 2 o"}, {Event: "close", Code: 1000}}},
		{[]string{"/status 503 1 times", "/close 1000"}, []heard{{Event: "open", Extensions: deflate}, {Event: "close", Code: 1000}}},
		{nil, []heard{{Event: "refused", Code: 503}}},
	} {
		got := nodeHears(t, url, test.messages...)
		if fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%q: got %+v, want %+v", test.messages, got, test.want)
		}
	}
}

// TestServePushesToNode records a feed, and lets Node's ws live through it.
func TestServePushesToNode(t *testing.T) {
	url := resockServe(t, "-push", "5ms", "-push-count", "10", "-ping", "12ms", "-fault", "after 10 messages close 1012 restart")
	recording := filepath.Join(t.TempDir(), "feed.jsonl")
	resockPrints(t, "", "-record", recording, "-backoff", "1ms", "-backoff-max", "2ms", "-n", "12", url)
	replay := resockServe(t, "-replay", recording, "-speed", "0")
	var want []heard
	for n := range 10 {
		want = append(want, heard{Event: "message", Text: fmt.Sprintf("push %d", n+1)})
	}
	want = append(want, heard{Event: "close", Code: 1012, Text: "restart"})
	live := nodeHears(t, url)
	replayed := nodeHears(t, replay)
	for name, got := range map[string][]heard{"live": live, "replayed": replayed} {
		var rest []heard
		pings := 0
		for _, h := range got[1:] {
			if h.Event == "ping" {
				pings++
				continue
			}
			rest = append(rest, h)
		}
		if fmt.Sprint(rest) != fmt.Sprint(want) {
			t.Errorf("%s: got %+v, want %+v", name, rest, want)
		}
		if name == "live" && pings == 0 {
			t.Error("no ping")
		}
	}
}
