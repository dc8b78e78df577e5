package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// recording is a file with a recording of three sessions: the first was lost, the second
// closed by the server, and the third goes on.
func recording(t *testing.T, more ...string) string {
	t.Helper()
	lines := append([]string{
		`{"resock":1,"start":"2026-11-25T12:00:00Z","unknown":true}`,
		`{"at":0.5,"event":"fail","attempt":1,"phase":"tcp","error":"refused"}`,
		`{"at":1,"event":"open","session":1,"url":"wss://example.com/"}`,
		`{"at":1.01,"event":"sent","session":1,"text":"hello"}`,
		`{"at":1.02,"event":"message","session":1,"text":"one \u00e9\n"}`,
		`{"at":1.05,"event":"message","session":1,"binary":"AAH/"}`,
		`{"at":1.06,"event":"message","session":1,"binary":""}`,
		`{"at":1.07,"event":"ping","session":1}`,
		`{"at":1.08,"event":"fail","session":1,"phase":"read","error":"lost","next":"waiting"}`,
		`{"at":2,"event":"open","session":2}`,
		`{"at":2.01,"event":"message","session":2,"text":"two"}`,
		`{"at":2.02,"event":"close","session":2,"code":1012,"reason":"restart","clean":true}`,
		``,
		`{"at":3,"event":"open","session":3}`,
		`{"at":3.01,"event":"message","session":3,"text":"three","new":{"field":1}}`,
	}, more...)
	file := filepath.Join(t.TempDir(), "feed.jsonl")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func hearsBinary(t *testing.T, conn *websocket.Conn, want string) {
	t.Helper()
	typ, data, err := conn.Read(t.Context())
	if err != nil || typ != websocket.MessageBinary || string(data) != want {
		t.Fatalf("got %v, %q, %v", typ, data, err)
	}
}

func TestReplaySessionBySession(t *testing.T) {
	t.Parallel()
	p, url := serves(t, "-replay", recording(t), "-speed", "0")
	conn := dial(t, url)
	hears(t, conn, "one é\n")
	hearsBinary(t, conn, "\x00\x01\xff")
	hearsBinary(t, conn, "")
	if err := ends(t, conn); !isEOF(err) {
		t.Errorf("got %v, want the end", err)
	}
	conn = dial(t, url)
	hears(t, conn, "two")
	if err := ends(t, conn); !closesWith(1012, "restart")(err) {
		t.Errorf("got %v", err)
	}
	conn = dial(t, url)
	hears(t, conn, "three")
	says(t, conn, "/close") // it goes on until then
	if err := ends(t, conn); !closesWith(websocket.StatusNoStatusRcvd, "")(err) {
		t.Errorf("got %v", err)
	}
	conn = dial(t, url)
	if err := ends(t, conn); !closesWith(websocket.StatusNormalClosure, "the recording is over")(err) {
		t.Errorf("got %v", err)
	}
	p.stderr.await(t, "as recorded: lost")
}

// TestReplayWithoutServe checks that "resock -replay" is "resock serve -replay".
func TestReplayWithoutServe(t *testing.T) {
	t.Parallel()
	p := start(t, "-replay", recording(t), "127.0.0.1:0")
	p.stdout.await(t, "\n")
	hears(t, dial(t, strings.TrimSpace(p.stdout.String())), "one é\n")
	runs(t, exitUsage, "-replay", recording(t), "-n", "3").stderr.has(t, "means nothing with it")
	runs(t, exitFailed, "-replay", "/nowhere").stderr.has(t, "no such file")
}

func TestReplayInALoop(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-replay", recording(t, `{"at":3.1,"event":"fail","session":3,"error":"lost"}`), "-speed", "0", "-loop")
	client, events := lives(t, url, resock.WithBackoff(time.Millisecond, 2*time.Millisecond), resock.WithMaxAttempts(0))
	for _, want := range []string{"one é\n", "\x00\x01\xff", "", "two", "three", "one é\n"} {
		if m := await[resock.MessageEvent](t, events); string(m.Data) != want {
			t.Fatalf("got %q, want %q", m.Data, want)
		}
	}
	if opens := client.Stats().Opens; opens != 4 {
		t.Errorf("%d sessions, want 4", opens)
	}
}

func TestReplayWhole(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-replay", recording(t), "-speed", "0", "-whole")
	for range 2 {
		conn := dial(t, url)
		hears(t, conn, "one é\n")
		hearsBinary(t, conn, "\x00\x01\xff")
		hearsBinary(t, conn, "")
		hears(t, conn, "two")
		hears(t, conn, "three")
	}
}

func TestReplayAtItsOwnPace(t *testing.T) {
	t.Parallel()
	for speed, want := range map[string]time.Duration{"1": 60 * time.Millisecond, "0.25": 240 * time.Millisecond} {
		_, url := serves(t, "-replay", recording(t), "-speed", speed)
		began := time.Now()
		conn := dial(t, url)
		for range 3 {
			if _, _, err := conn.Read(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(began); took < want {
			t.Errorf("at speed %s the third message came after %v, want %v", speed, took, want)
		}
	}
}

// TestReplayOfAnEmptyLoop checks that a loop in which nothing is to be sent ends.
func TestReplayOfAnEmptyLoop(t *testing.T) {
	t.Parallel()
	file := file(t, "empty", `{"at":1,"event":"open","session":1}`+"\n"+`{"at":1,"event":"close","session":1,"code":4000}`)
	_, url := serves(t, "-replay", file, "-whole", "-loop")
	if err := ends(t, dial(t, url)); !closesWith(4000, "")(err) {
		t.Errorf("got %v", err)
	}
}

// TestReplayOfJoinedFiles checks that a session whose end is not recorded ends before the
// next one begins.
func TestReplayOfJoinedFiles(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-speed", "0", "-replay", recording(t,
		`{"resock":1,"start":"2026-11-25T12:00:00Z"}`,
		`{"at":1,"event":"open","session":1}`,
		`{"at":2,"event":"message","session":1,"text":"four"}`))
	conn := dial(t, url)
	for range 3 {
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_ = ends(t, conn)
	hears(t, dial(t, url), "two")
	conn = dial(t, url)
	hears(t, conn, "three")
	if err := ends(t, conn); !isEOF(err) {
		t.Errorf("got %v, want the end", err)
	}
	hears(t, dial(t, url), "four")
}

// TestReplayWithoutCode checks that a close frame without a code is replayed as one.
func TestReplayWithoutCode(t *testing.T) {
	t.Parallel()
	file := file(t, "nocode", `{"at":1,"event":"open","session":1}`+"\n"+`{"at":1,"event":"close","session":1,"code":1005}`)
	_, url := serves(t, "-replay", file)
	if err := ends(t, dial(t, url)); !closesWith(websocket.StatusNoStatusRcvd, "")(err) {
		t.Errorf("got %v", err)
	}
}

// TestReplayPace holds the pace against a clock that shows nothing else.
func TestReplayPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &player{serveSettings: &serveSettings{speed: 10}}
		p := &peer{gate: newGate(nil), ctx: t.Context(), resumed: make(chan struct{})}
		began := time.Now()
		for _, at := range []float64{1, 1, 5, 4.9, 20} {
			if !c.wait(p, began, at) {
				t.Fatal("ended")
			}
			want := time.Duration(at * float64(time.Second) / 10)
			if at == 4.9 { // later than the one before it, though it was earlier
				want = 500 * time.Millisecond
			}
			if took := time.Since(began); took != want {
				t.Errorf("%v after %v", at, took)
			}
		}
	})
}

func TestReplayOfADamagedFile(t *testing.T) {
	t.Parallel()
	p, url := serves(t, "-replay", recording(t, `{"at":3.2,"event":"message","session":3,"te`), "-speed", "0", "-whole")
	p.stderr.await(t, "the last line is cut off")
	conn := dial(t, url)
	for range 5 {
		if _, _, err := conn.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ line, says string }{
		{`{"at":3.2,"event":"message","session":3,"te` + "\n" + `{"at":4,"event":"close","session":3}`, "line 16 is no line of a recording"},
		{`{"at":3.2}`, "line 16 is no line of a recording: it has no event"},
		{`{"resock":2,"start":"2026-11-25T12:00:00Z"}`, "version 2"},
	} {
		p := runs(t, exitFailed, "serve", "-replay", recording(t, test.line))
		p.stderr.has(t, test.says)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	runs(t, exitFailed, "serve", "-replay", empty).stderr.has(t, "no session")
}

// TestRecordAndReplay records a feed with drops, replays it, records that, and compares.
func TestRecordAndReplay(t *testing.T) {
	t.Parallel()
	_, url := serves(t, "-push", "1ms", "-push-text", "push {n} <&\" \u2028", "-fault", "every 20 messages close 1012 restart", "-fault", "every 33 messages drop", "-fault", "after 3 messages burst 1 3M")
	first := filepath.Join(t.TempDir(), "first.jsonl")
	p := start(t, "-record", first, "-count", "100", "-backoff", "1ms", "-backoff-max", "5ms", "-read-limit", "10M", url)
	p.exits(exitDone)
	_, again := serves(t, "-replay", first, "-speed", "0")
	second := filepath.Join(t.TempDir(), "second.jsonl")
	q := start(t, "-record", second, "-count", "100", "-backoff", "1ms", "-backoff-max", "5ms", "-read-limit", "10M", again)
	q.exits(exitDone)
	if got, want := digest(t, second), digest(t, first); got != want {
		t.Errorf("the recordings differ at: %s", difference(got, want))
	}
	if p.stdout.String() != q.stdout.String() {
		t.Error("the outputs differ")
	}
	// What -json prints is a recording, too.
	r := start(t, "-json", "-count", "100", "-backoff", "1ms", "-backoff-max", "5ms", "-read-limit", "10M", url)
	r.exits(exitDone)
	third := filepath.Join(t.TempDir(), "third.jsonl")
	if err := os.WriteFile(third, []byte(r.stdout.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	_, url3 := serves(t, "-replay", third, "-speed", "0", "-whole")
	start(t, "-count", "100", "-read-limit", "10M", url3).exits(exitDone)
}

// digest is what a recording says of messages and the ends of sessions, up to the last
// message.
func digest(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, lines, _ := strings.Cut(string(data), "\n")
	var b strings.Builder
	for _, e := range entries(t, lines) {
		switch {
		case e.Event == "message" && e.Text != nil:
			fmt.Fprintf(&b, "%d text %q\n", e.Session, *e.Text)
		case e.Event == "message":
			fmt.Fprintf(&b, "%d binary %q\n", e.Session, e.Binary)
		case e.Event == "close":
			fmt.Fprintf(&b, "%d close %d %q\n", e.Session, e.Code, e.Reason)
		case e.Event == "fail" && e.Session > 0:
			fmt.Fprintf(&b, "%d fail\n", e.Session)
		}
	}
	text := b.String()
	return text[:strings.LastIndex(text, " text ")]
}

func FuzzReadSessions(f *testing.F) {
	f.Add([]byte(`{"resock":1}` + "\n" + `{"at":1,"event":"open","session":1}` + "\n" + `{"at":2,"event":"close","session":1}`))
	f.Add([]byte(`{"at":1,"event":"open"}`))
	f.Add([]byte("\n\n{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		sessions, _, err := readSessions(strings.NewReader(string(data)))
		if err != nil && sessions != nil {
			t.Error("sessions and an error")
		}
		for _, s := range sessions {
			if s.offset < 0 || s.offset >= int64(len(data)) {
				t.Errorf("offset %d of %d", s.offset, len(data))
			}
			e, err := newLineReader(strings.NewReader(string(data[s.offset:])), s.offset).next()
			if err != nil || e.Event != "open" {
				t.Errorf("at %d: %v, %v", s.offset, e, err)
			}
		}
	})
}

func FuzzParseFault(f *testing.F) {
	for _, test := range faultTests {
		f.Add(test.fault)
	}
	f.Add("every 100 messages status 503 retry-after 5s 3 times")
	f.Add("after 1h slow 10k for 3")
	f.Fuzz(func(t *testing.T, text string) {
		fault, err := parseFault(text)
		if err != nil {
			return
		}
		again, err := parseFault(fault.text)
		if err != nil || again.kind != fault.kind || again.delay != fault.delay || again.messages != fault.messages {
			t.Errorf("%q: %+v and %+v, %v", text, fault, again, err)
		}
	})
}

// TestEntriesSurvive writes and reads messages of all kinds.
func TestEntriesSurvive(t *testing.T) {
	start := time.Now()
	for range 1000 {
		data := make([]byte, rand.IntN(50))
		for i := range data {
			data[i] = byte(rand.IntN(256))
		}
		m := resock.MessageEvent{Session: rand.Uint64(), Type: resock.MessageBinary, Data: data}
		if text := []byte(strings.ToValidUTF8(string(data), "\u2028\"\\<")); rand.IntN(2) == 0 {
			m.Type, m.Data = resock.MessageText, text
		}
		e, err := newLineReader(strings.NewReader(string(appendMessage(nil, start, start.Add(time.Second), false, m))), 0).next()
		if err != nil {
			t.Fatal(err)
		}
		got := string(e.Binary)
		if m.Type == resock.MessageText {
			got = *e.Text
		}
		if got != string(m.Data) || e.Session != m.Session || e.At != 1 {
			t.Errorf("got %q of %d, want %q of %d", got, e.Session, m.Data, m.Session)
		}
	}
}

// difference is where two texts begin to differ.
func difference(a, b string) string {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return fmt.Sprintf("line %d: %.100q and %.100q", i+1, as[i], bs[i])
		}
	}
	return fmt.Sprintf("%d and %d lines", len(as), len(bs))
}
