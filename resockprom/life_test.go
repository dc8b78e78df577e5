package resockprom

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// TestLife compares what is exported with what was done to a client, in virtual time.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		registry := registered(t, c)
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Refuse(), resocktest.Status(503, nil, ""), resocktest.Upgrade(nil, nil))
		client := connect(t, server, resock.WithBackoffPolicy(fixedDelay), resock.WithHeartbeat(5*time.Second, 2*time.Second))
		add(t, c, "feed", client)
		expect(t, gathered(t, registry), map[string]float64{`resock_state{state="idle"}`: 1}, "resock_state{", "resock_attempt", "resock_session", "resock_downtime")

		began := time.Now()
		go client.Run(t.Context())
		conn := server.Accept() // after a refused attempt, and one that got 503
		for range 3 {
			if err := conn.Push("12345"); err != nil {
				t.Fatal(err)
			}
		}
		pushed := time.Now()
		if err := client.Send(t.Context(), resock.MessageText, []byte("123")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // at once, before the first ping
		opened := began.Add(20 * time.Second)
		live := gathered(t, registry)
		expect(t, live, map[string]float64{
			`resock_state{state="open"}`:                     1,
			`resock_state_change_timestamp_seconds`:          unix(opened),
			`resock_attempts_total`:                          3,
			`resock_attempt_failures_total{phase="tcp"}`:     1,
			`resock_attempt_failures_total{phase="upgrade"}`: 1,
			`resock_sessions_opened_total`:                   1,
			`resock_received_messages_total`:                 3,
			`resock_received_bytes_total`:                    3 * (2 + 5),
			`resock_sent_messages_total`:                     1,
			`resock_sent_bytes_total`:                        2 + 4 + 3, // header, mask, payload
			`resock_last_message_timestamp_seconds`:          unix(pushed),
		}, "resock_state{", "resock_attempt", "resock_session", "resock_downtime", "resock_queue", "resock_dropped", "resock_blocked")

		conn.Drop()
		time.Sleep(4 * time.Second) // of 10 s without a session
		enqueue(t, client, "1234", "56")
		expect(t, gathered(t, registry), map[string]float64{
			`resock_state{state="waiting"}`:               1,
			`resock_session_failures_total{phase="read"}`: 1,
			`resock_downtime_seconds_total`:               4,
			`resock_queue_messages`:                       2,
			`resock_queue_bytes`:                          6,
		}, "resock_state{", "resock_session_", "resock_blocked")

		conn = server.Accept()
		conn.IgnorePings()
		time.Sleep(8 * time.Second) // silence is found, and 10 s without a session begin
		if err := server.Accept().Close(1012, "restart"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := server.Accept().Close(4321, "odd"); err != nil {
			t.Fatal(err)
		}
		server.Accept()
		time.Sleep(6 * time.Second)
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		synctest.Wait()
		dead := gathered(t, registry)
		expect(t, dead, map[string]float64{
			`resock_state{state="closed"}`:                     1,
			`resock_attempts_total`:                            7,
			`resock_sessions_opened_total`:                     5,
			`resock_session_failures_total{phase="read"}`:      1,
			`resock_session_failures_total{phase="heartbeat"}`: 1,
			`resock_session_closes_total{code="1000"}`:         1,
			`resock_session_closes_total{code="1012"}`:         1,
			`resock_session_closes_total{code="4xxx"}`:         1,
			`resock_sent_messages_total`:                       3,
			`resock_downtime_seconds_total`:                    client.Stats().Downtime.Seconds(),
		}, "resock_state{", "resock_session_", "resock_queue")
		if down := dead[`resock_downtime_seconds_total`]; down < 40 {
			t.Errorf("down for %v s, want four delays of 10 s", down)
		}
	})
}

func enqueue(t *testing.T, client *resock.Client, messages ...string) {
	t.Helper()
	for _, message := range messages {
		if err := client.Enqueue(resock.MessageText, []byte(message)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBlocked has a subscriber that does not read, and one that may lose messages.
func TestBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New(Options{})
		registry := registered(t, c)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, c, "feed", client)
		client.Subscribe(t.Context(), resock.WithBuffer(2), resock.WithOverflow(resock.OverflowDropOldest))
		slow := client.Subscribe(t.Context(), resock.WithBuffer(1))
		go client.Run(t.Context())
		conn := server.Accept()
		for range 7 {
			if err := conn.Push("push"); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		time.Sleep(3 * time.Second)
		expect(t, gathered(t, registry), map[string]float64{"resock_blocked": 1, "resock_blocked_seconds_total": 3})
		for range 8 { // OpenEvent and messages
			<-slow
		}
		time.Sleep(time.Second)
		got := gathered(t, registry)
		expect(t, got, map[string]float64{"resock_blocked": 0, "resock_blocked_seconds_total": 3})
		if got["resock_dropped_messages_total"] != float64(client.Stats().Dropped) || got["resock_dropped_messages_total"] < 4 {
			t.Errorf("%v dropped, Stats says %d", got["resock_dropped_messages_total"], client.Stats().Dropped)
		}
	})
}

func TestCodes(t *testing.T) {
	for code, want := range map[websocket.StatusCode]string{
		1000: "1000", 1001: "1001", 1002: "1xxx", 1005: "1005", 1007: "1xxx", 1008: "1008", 1011: "1011", 1012: "1012",
		1013: "1013", 1014: "1xxx", 3000: "3xxx", 3999: "3xxx", 4000: "4xxx", 4999: "4xxx", 2000: "other", 0: "other", -1: "other", 5000: "other",
	} {
		if got := codes[codeIndex(code)]; got != want {
			t.Errorf("%d: %s, want %s", code, got, want)
		}
	}
}

// Every phase and state that there is has a value of its label.
func TestListsAreComplete(t *testing.T) {
	if next := phases[len(phases)-1] + 1; next.String() != "unknown" {
		t.Errorf("the phase %v is missing", next)
	}
	if next := states[len(states)-1] + 1; next.String() != "unknown" {
		t.Errorf("the state %v is missing", next)
	}
	for i, phase := range phases {
		if int(phase) != i+1 || strings.ToLower(phase.String()) != phaseNames[i] {
			t.Errorf("phase %d: %v, %s", i, phase, phaseNames[i])
		}
	}
}
