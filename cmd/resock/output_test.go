package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// TestText checks what messages look like as text.
func TestText(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-n", "3", server.URL)
	conn := server.Accept()
	push(t, conn, "text, with \x1b[31m as it comes")
	push(t, conn, "")
	if err := conn.PushBinary([]byte{0, 1, 0xff}); err != nil {
		t.Fatal(err)
	}
	p.exits(0)
	p.stdout.is(t, "text, with \x1b[31m as it comes\n\nAAH/\n")
}

func TestHex(t *testing.T) {
	server := resocktest.NewServer(t)
	p := start(t, "-hex", "-n", "2", server.URL)
	conn := server.Accept()
	push(t, conn, "hello")
	if err := conn.PushBinary([]byte{0, 1, 0xff}); err != nil {
		t.Fatal(err)
	}
	p.exits(0)
	p.stdout.is(t, `text, 5 bytes
00000000  68 65 6c 6c 6f                                    |hello|
binary, 3 bytes
00000000  00 01 ff                                          |...|
`)
}

func TestTimestamps(t *testing.T) {
	const stamp = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)`
	for format, want := range map[string]string{
		"-t=true": `\A` + stamp + ` message\n\z`,
		"-hex":    `\A` + stamp + ` text, 7 bytes\n`,
		"-json":   `"time":"` + stamp + `","event":"message"`,
	} {
		server := resocktest.NewServer(t)
		p := start(t, "-t", format, "-n", "1", server.URL)
		push(t, server.Accept(), "message")
		p.exits(0)
		if text := p.stdout.String(); !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("%s: got %q", format, text)
		}
		if text := p.stderr.String(); format != "-json" && !regexp.MustCompile(`\A`+stamp+` resock: connected`).MatchString(text) {
			t.Errorf("%s: got %q", format, text)
		}
	}
}

// TestJSON checks all events and their fields.
func TestJSON(t *testing.T) {
	server := resocktest.NewServer(t)
	server.Script(resocktest.Status(http.StatusServiceUnavailable, nil, ""), resocktest.Hold())
	p := start(t, "-json", soon, server.URL+"/path?token=secret")
	conn := server.Accept()
	push(t, conn, "<text> \"\\\x00\u2028")
	if err := conn.PushBinary([]byte{0, 0xff}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(4001, "a reason"); err != nil {
		t.Fatal(err)
	}
	conn = server.Accept()
	p.stdout.await(t, `"session":2`)
	conn.Drop()
	server.Accept()
	p.stdout.await(t, `"session":3`)
	if err := p.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.exits(130)
	p.stderr.is(t, "")
	all := entries(t, p.stdout.String())
	var events []string
	at := 0.0
	for _, e := range all {
		events = append(events, e.Event)
		if e.At < at-0.001 {
			t.Errorf("%v comes after %v", e.At, at)
		}
		at = e.At
	}
	if got, want := strings.Join(events, " "), "fail open message message close open fail open close"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if e := all[0]; e.Session != 0 || e.Attempt != 1 || e.Phase != "upgrade" || e.Error == "" || e.Next != "waiting" || e.Rule == "" || e.Took == 0 {
		t.Errorf("fail: %+v", e)
	}
	if e := all[1]; e.Session != 1 || e.Attempt != 2 || e.Took == 0 || strings.Contains(e.URL, "secret") || !strings.Contains(e.URL, "/path") {
		t.Errorf("open: %+v", e)
	}
	if e := all[2]; e.Session != 1 || e.Text == nil || *e.Text != "<text> \"\\\x00\u2028" || e.Binary != nil {
		t.Errorf("text: %+v", e)
	}
	if e := all[3]; e.Text != nil || !bytes.Equal(e.Binary, []byte{0, 0xff}) {
		t.Errorf("binary: %+v", e)
	}
	if e := all[4]; e.Session != 1 || e.Code != 4001 || e.Reason != "a reason" || e.Clean == nil || !*e.Clean || e.Next != "waiting" || e.Rule == "" {
		t.Errorf("close: %+v", e)
	}
	if e := all[5]; e.Downtime == 0 {
		t.Errorf("open: %+v", e)
	}
	if e := all[8]; e.Code != 1000 || e.Next != "closed" {
		t.Errorf("close: %+v", e)
	}
}

// TestAppendMessage checks that a message is encoded as encoding/json would.
func TestAppendMessage(t *testing.T) {
	start := time.Now()
	for _, text := range []string{"", "plain", `quoted "and" \ escaped`, "control \x00 \x1f \n \r \t \b \f \x7f", "wide ☃ \U0001F600", "<&>"} {
		for _, typ := range []resock.MessageType{resock.MessageText, resock.MessageBinary} {
			for _, after := range []time.Duration{0, time.Microsecond, 1234567 * time.Microsecond, 90 * time.Hour} {
				at := start.Add(after)
				e := entry{At: seconds(after), Time: at.Format(timeLayout), Event: "message", Session: 12}
				if typ == resock.MessageText {
					e.Text = &text
				} else {
					e.Binary = []byte(text)
				}
				got := appendMessage(nil, start, at, true, resock.MessageEvent{Session: 12, Type: typ, Data: []byte(text)})
				var decoded entry
				if err := json.Unmarshal(got, &decoded); err != nil {
					t.Fatalf("%v in %s", err, got)
				}
				if text == "" && typ == resock.MessageBinary {
					e.Binary = decoded.Binary // empty, or none
				}
				if want, have := fmt.Sprintf("%+v", flat(e)), fmt.Sprintf("%+v", flat(decoded)); want != have {
					t.Errorf("got %s, want %s", have, want)
				}
			}
		}
	}
}

// flat is an entry that shows its text.
func flat(e entry) []any {
	text := "none"
	if e.Text != nil {
		text = *e.Text
	}
	e.Text = nil
	return []any{e, text}
}

// TestMessagesDoNotAllocate checks the formats of the fast path.
func TestMessagesDoNotAllocate(t *testing.T) {
	for name, o := range map[string]*output{
		"text": {}, "timestamps": {stamped: true}, "JSON": {json: true, stamped: true}, "terminal": {escaped: true},
	} {
		o.w, o.start = newLineWriter(io.Discard), time.Now()
		m := resock.MessageEvent{Session: 1, Type: resock.MessageText, Data: []byte("a message of some length, with ☃")}
		at := time.Now()
		if n := testing.AllocsPerRun(100, func() {
			if err := o.message(at, m); err != nil {
				t.Fatal(err)
			}
		}); n > 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// TestLineWriter checks that lines are written whole, whether they fit in the buffer or not.
func TestLineWriter(t *testing.T) {
	var got, want bytes.Buffer
	w := newLineWriter(writerFunc(func(p []byte) (int, error) {
		if !bytes.HasSuffix(p, []byte("\n")) {
			t.Errorf("%d bytes end in the middle of a line", len(p))
		}
		return got.Write(p)
	}))
	size := w.buffer.Size()
	for n, length := range []int{1, size - 2, 2, size - 2, 1, size, size + 1, 3, 2 * size, 1, 1} {
		line := append(bytes.Repeat([]byte{byte('a' + n)}, length-1), '\n')
		want.Write(line)
		if n, err := w.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("lines are lost")
	}
}

// TestLineWriterFails checks that an error is told by every later call, also for a line that
// would fit.
func TestLineWriterFails(t *testing.T) {
	full := errors.New("full")
	w := newLineWriter(writerFunc(func([]byte) (int, error) { return 0, full }))
	long := append(bytes.Repeat([]byte("a"), w.buffer.Size()), '\n')
	if _, err := w.Write(long); err != full {
		t.Errorf("a long line: %v", err)
	}
	if _, err := w.Write([]byte("short\n")); err != full {
		t.Errorf("a short line: %v", err)
	}
	if err := w.Flush(); err != full {
		t.Errorf("Flush: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// TestRecord checks that a recording has all that happened, in both directions.
func TestRecord(t *testing.T) {
	name := filepath.Join(t.TempDir(), "recording")
	server := resocktest.NewServer(t)
	p := start(t, "-record", name, "-preamble", "login", "-heartbeat", "20ms", soon, server.URL)
	conn := server.Accept()
	p.stderr.await(t, "connected")
	p.enter("question")
	_, _ = read(t, conn), read(t, conn)
	push(t, conn, "answer")
	if err := conn.PushBinary([]byte{1}); err != nil {
		t.Fatal(err)
	}
	p.stdout.await(t, "answer\nAQ==\n")
	awaitFile(t, name, `"event":"pong"`) // while the program runs
	conn.Drop()
	server.Accept()
	p.stderr.await(t, "connected again")
	if err := p.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	p.exits(130)
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	first, rest, _ := strings.Cut(string(data), "\n")
	var head header
	if err := json.Unmarshal([]byte(first), &head); err != nil || head.Version != recordVersion || time.Since(head.Start) > time.Minute {
		t.Errorf("%+v, %v", head, err)
	}
	var events []string
	for _, e := range entries(t, rest) {
		if e.Event == "pong" {
			continue
		}
		text := e.Event
		if e.Text != nil {
			text += " " + *e.Text
		}
		events = append(events, fmt.Sprint(text, e.Session))
	}
	want := "open1, sent login1, sent question1, message answer1, message1, fail1, open2, sent login2, close2"
	if got := strings.Join(events, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	runs(t, exitOutputFull, "-record", filepath.Join(name, "x"), server.URL).stderr.has(t, "-record")
}

// TestRecordingIsWhole checks that a recording has no half of a line while the program runs.
func TestRecordingIsWhole(t *testing.T) {
	name := filepath.Join(t.TempDir(), "recording")
	r, err := newRecorder(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	for n := range 5000 {
		r.message(time.Now(), resock.MessageEvent{Session: 1, Type: resock.MessageText, Data: fmt.Append(nil, "message ", n)})
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n < 2 {
		t.Errorf("%d lines are written", n)
	}
	if !bytes.HasSuffix(data, []byte("\n")) {
		t.Errorf("it ends with %q", data[len(data)-20:])
	}
}

// awaitFile waits until a file has a text, while a program writes it.
func awaitFile(t *testing.T, name, text string) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-ticker.C {
		if data, _ := os.ReadFile(name); strings.Contains(string(data), text) {
			return
		}
	}
	t.Fatalf("%q is missing in %s", text, name)
}

// TestSecrets checks that neither the header nor the query of the URL is told.
func TestSecrets(t *testing.T) {
	const secret = "sesame-open-up"
	server := resocktest.NewServer(t)
	server.Script(resocktest.Status(http.StatusForbidden, nil, secret), resocktest.Serve(func(c *resocktest.Conn) { c.Drop() }), resocktest.Refuse())
	url := strings.Replace(server.URL, "ws://", "ws://user:"+secret+"@", 1) + "/?token=" + secret
	record := filepath.Join(t.TempDir(), "recording")
	for _, format := range []string{"-json", "-t"} {
		p := runs(t, exitFailed, "-H", "Authorization: Bearer "+secret, "-attempts", "4", "-backoff-max", "20ms", format, "-record", record, url)
		data, _ := os.ReadFile(record)
		if all := p.stdout.String() + p.stderr.String() + string(data); strings.Contains(all, secret) {
			t.Errorf("the secret is in:\n%s", all)
		}
	}
}

// TestManyMessages checks that nothing is lost when much comes.
func TestManyMessages(t *testing.T) {
	const messages = 100000
	server := pusher(t, messages)
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	p := prepare(t, "-q", "-n", fmt.Sprint(messages), server)
	p.command.Stdout = out
	began := time.Now()
	p.run()
	p.exits(0)
	t.Logf("%.0f messages per second", messages/time.Since(began).Seconds())
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		if n++; line != fmt.Sprintf("message %d\n", n) {
			t.Fatalf("line %d is %q", n, line)
		}
	}
	if n != messages {
		t.Errorf("%d messages of %d", n, messages)
	}
}

// pusher is the URL of a server that sends messages as fast as it can, and then waits.
func pusher(t *testing.T, messages int) string {
	server := resocktest.NewServer(t)
	var frames []byte
	for n := range messages {
		frames = append(frames, resocktest.Frame(0x80|byte(websocket.MessageText), fmt.Appendf(nil, "message %d", n+1))...)
	}
	server.Handle(func(c *resocktest.Conn) { _ = c.Raw(frames) })
	return server.URL
}
