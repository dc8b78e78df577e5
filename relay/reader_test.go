package relay

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/resume"
)

func kept(seqs ...uint64) (events []resume.Event) {
	for _, seq := range seqs {
		events = append(events, resume.Message{Position: resume.Position{Epoch: "e", Seq: seq}})
	}
	return events
}

func TestAfter(t *testing.T) {
	log := positions{"": {Position: resume.Position{Epoch: "e", Seq: 10}}}
	for _, test := range []struct {
		name   string
		events []resume.Event
		at     positions
		first  uint64 // of what is missing in the log, or 0 if nothing is
		ok     bool
	}{
		{"an empty log", kept(11, 12), nil, 11, true},
		{"overlapping", kept(8, 9, 10, 11, 12), log, 11, true},
		{"just behind", kept(11, 12), log, 11, true},
		{"all in the log", kept(8, 9), log, 0, true},
		{"too late", kept(12, 13), log, 0, false},
		{"nothing kept", nil, log, 0, false},
		{"a stream that begins at 0", kept(0, 1, 2), positions{"": {Position: resume.Position{Epoch: "e"}}}, 1, true},
		{"numbers that fall after the end of the log", kept(10, 11, 12, 10, 11, 12), positions{"": {Position: resume.Position{Epoch: "e", Seq: 12}}}, 10, true},
		{"numbers that fall past the end of the log", kept(11, 8, 9, 10, 11), log, 11, true},
		{"numbers that fell before", kept(10, 11, 12), positions{"": {Position: resume.Position{Epoch: "e", Seq: 10}, fell: true}}, 0, false},
		{"another epoch", kept(8, 9, 10), positions{"": {Position: resume.Position{Epoch: "d", Seq: 7}}}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, missing, ok := after(test.events, test.at)
			var first uint64
			if len(missing) > 0 {
				first = missing[0].(resume.Message).Position.Seq
			}
			if ok != test.ok || first != test.first {
				t.Errorf("got %d, %t; want %d, %t", first, ok, test.first, test.ok)
			}
		})
	}
}

// TestStandbyGoesOn takes over without another session.
func TestStandbyGoesOn(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	start := func() *replica {
		config := u.config(connect(t, s))
		config.Standby = 1000
		return startRelay(t, config)
	}
	first := start()
	eventually(t, "a leader", func() bool { return first.Stats().Leading })
	second := start()
	eventually(t, "two sessions", func() bool { return u.Sessions() == 2 })
	u.Push(100)
	eventually(t, "100 in the log", func() bool { return first.Stats().Written == 100 })
	first.kill()
	u.Push(100)
	eventually(t, "another leader", func() bool { return second.Stats().Leading })
	unbroken(t, connect(t, s), 200)
	if u.Sessions() != 2 {
		t.Errorf("%d sessions", u.Sessions())
	}
}

func TestConfigIsChecked(t *testing.T) {
	conn := connect(t, startServer(t))
	for name, config := range map[string]Config{
		"Conn":     {Name: "a", URL: "ws://a"},
		"Name":     {Conn: conn, Name: "a.b", URL: "ws://a"},
		"URL":      {Conn: conn, Name: "a"},
		"scheme":   {Conn: conn, Name: "a", URL: "http://a"},
		"Window":   {Conn: conn, Name: "a", URL: "ws://a", Out: &Out{Read: feed.ReadAck, Window: -1}},
		"TTL":      {Conn: conn, Name: "a", URL: "ws://a", TTL: 1},
		"Standby":  {Conn: conn, Name: "a", URL: "ws://a", Standby: 1},
		"Out.Read": {Conn: conn, Name: "a", URL: "ws://a", Out: &Out{}},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("a bad %s is taken", name)
		}
	}
}

// follows returns what is written for the events of a standby that takes over a log which is
// at 10: numbers, and gaps as "from-to".
func follows(t *testing.T, kept, later []resume.Event) (records []string) {
	t.Helper()
	l := openLog(t, connect(t, startServer(t)))
	w, _ := take(t, l, 1)
	config := Config{Name: "feed", Conn: l.js.Conn()}
	config.byDefault()
	f := &reader{ctx: t.Context(), limit: limit{100, 1 << 20}, kept: kept}
	to := &appender{
		relay: &Relay{config: config, log: *l}, writer: w, at: positions{"": {Position: resume.Position{Epoch: "e", Seq: 10}}},
	}
	if ok, err := f.lead(to); !ok || err != nil {
		t.Fatal(ok, err)
	}
	for _, event := range later {
		if err := f.take(event); err != nil {
			t.Fatal(err)
		}
	}
	written(t, w)
	for n := w.began + 1; n <= w.base; n++ {
		raw, err := l.stream.GetMsg(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		var gap Gap
		if raw.Subject == "feed.gap" && json.Unmarshal(raw.Data, &gap) == nil {
			records = append(records, fmt.Sprintf("%d-%d", gap.From, gap.To))
		} else if p, ok := PositionOf(raw.Header); ok {
			records = append(records, fmt.Sprint(p.Seq))
		}
	}
	return records
}

// TestStandbyFalls takes over with a standby that kept all that the log has: what falls then
// is new.
func TestStandbyFalls(t *testing.T) {
	for _, test := range []struct{ kept, later, want []uint64 }{
		{[]uint64{9, 10}, []uint64{5, 6}, []uint64{5, 6}},
		{[]uint64{8, 9}, []uint64{10, 5, 6}, []uint64{5, 6}},
		{[]uint64{10, 5, 6}, []uint64{7}, []uint64{5, 6, 7}},
		{[]uint64{11}, []uint64{12, 5}, []uint64{11, 12, 5}},
		{[]uint64{10, 11}, []uint64{5}, []uint64{11, 5}},
	} {
		var want []string
		for _, n := range test.want {
			want = append(want, fmt.Sprint(n))
		}
		if got := follows(t, kept(test.kept...), kept(test.later...)); !slices.Equal(got, want) {
			t.Errorf("kept %v, then %v: %v were written, want %v", test.kept, test.later, got, want)
		}
	}
}

// TestStandbyHoles takes over with a standby that missed messages which the log has: a gap
// names only what the log has not.
func TestStandbyHoles(t *testing.T) {
	hole := func(from, to uint64) resume.Event {
		return resume.Gap{From: from, To: to, Last: resume.Position{Epoch: "e", Seq: from - 1}}
	}
	for i, test := range []struct {
		kept, later []resume.Event
		want        string
	}{
		{append(kept(8), hole(9, 10)), kept(11), "11"},
		{append(kept(8), hole(9, 12)), kept(13), "11-12,13"},
		{kept(8), append([]resume.Event{hole(9, 12)}, kept(13)...), "11-12,13"},
		{append(kept(9, 10), hole(11, 12)), kept(13), "11-12,13"},
	} {
		if got := strings.Join(follows(t, test.kept, test.later), ","); got != test.want {
			t.Errorf("%d: %s was written, want %s", i, got, test.want)
		}
	}
}

// TestAfterWithoutPosition has messages without a position among those of two streams: those
// before the last that the log has are in the log.
func TestAfterWithoutPosition(t *testing.T) {
	at := func(stream string, seq uint64) resume.Event {
		return resume.Message{Position: resume.Position{Stream: stream, Epoch: "e", Seq: seq}}
	}
	none := resume.Message{}
	events := []resume.Event{none, at("a", 1), none, at("b", 5), none, at("a", 2)}
	log := make(positions)
	log.note(resume.Position{Stream: "a", Epoch: "e", Seq: 1})
	log.note(resume.Position{Stream: "b", Epoch: "e", Seq: 5})
	had, missing, ok := after(events, log)
	if len(had) != 4 || len(missing) != 2 || !ok {
		t.Errorf("%d are in the log, %d are missing, %t", len(had), len(missing), ok)
	}
}
