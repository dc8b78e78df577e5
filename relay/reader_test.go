package relay

import (
	"testing"

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
		{"another epoch", kept(8, 9, 10), positions{"": {Position: resume.Position{Epoch: "d", Seq: 7}}}, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			missing, ok := after(test.events, test.at)
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
		"TTL":      {Conn: conn, Name: "a", URL: "ws://a", TTL: 1},
		"Standby":  {Conn: conn, Name: "a", URL: "ws://a", Standby: 1},
		"Out.Read": {Conn: conn, Name: "a", URL: "ws://a", Out: &Out{}},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("a bad %s is taken", name)
		}
	}
}
