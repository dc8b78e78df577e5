package relay

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/relay/server"
)

// checks waits until Check says something that begins so, or nil if that is empty.
func checks(t *testing.T, r *Relay, want string) {
	t.Helper()
	var err error
	defer func() {
		if t.Failed() {
			t.Logf("Check: %v, want %q", err, want)
		}
	}()
	eventually(t, "what Check should say", func() bool {
		err = r.Check()
		return err == nil && want == "" || err != nil && want != "" && strings.HasPrefix(err.Error(), want)
	})
}

// TestCheck asks a leader and one that stands by, from New to the end.
func TestCheck(t *testing.T) {
	s, u := startServer(t), startFeed(t)
	clients := make(chan *resock.Client, 1)
	config := u.config(connect(t, s))
	config.Client = func(client *resock.Client) func() {
		clients <- client
		return func() {}
	}
	leader := startRelay(t, config)
	checks(t, leader.Relay, "")
	eventually(t, "a leader", func() bool { return leader.Stats().Leading })
	client := <-clients
	client.Suspend()
	checks(t, leader.Relay, "relay: leads (term 1), and its client is suspended, want open")

	config.Conn = connect(t, s)
	second := startRelay(t, config)
	checks(t, second.Relay, "") // whatever becomes of the feed
	client.Resume()
	checks(t, leader.Relay, "")

	leader.stop()
	checks(t, leader.Relay, "relay: not running: Run has returned: context canceled")
	if err := leader.Check(); !errors.Is(err, context.Canceled) {
		t.Errorf("%v does not wrap what Run returned", err)
	}
	eventually(t, "another leader", func() bool { return second.Stats().Leading })
	checks(t, second.Relay, "")
	second.conn.Close()
	checks(t, second.Relay, "relay: NATS is CLOSED, want CONNECTED")
}

// TestCheckWithoutNATS takes the server away.
func TestCheckWithoutNATS(t *testing.T) {
	s, err := server.Start(server.Config{Dir: t.TempDir(), NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	r := startRelay(t, startFeed(t).config(connect(t, s)))
	checks(t, r.Relay, "")
	s.Close()
	checks(t, r.Relay, "relay: NATS is RECONNECTING, want CONNECTED")
}

// TestCheckStages asks at the stages that are over soon.
func TestCheckStages(t *testing.T) {
	r, err := New(startFeed(t).config(connect(t, startServer(t))))
	if err != nil {
		t.Fatal(err)
	}
	checks(t, r, "relay: not running: Run was not called")
	for _, tt := range []struct {
		stage stage
		want  string
	}{
		{preparing, "relay: JetStream has not made the stream and the bucket yet"},
		{standingBy, ""},
		{changing, "relay: neither leads nor stands by"},
		{leading, "relay: leads (term 0), and does not read the feed yet"},
	} {
		r.enter(part{stage: tt.stage})
		checks(t, r, tt.want)
	}
}
