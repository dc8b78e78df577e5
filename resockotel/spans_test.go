package resockotel_test

import (
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

func TestSpansOfASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		began := time.Now()
		go client.Run(t.Context())
		conn := server.Accept()
		_ = conn.Push("one")
		_ = conn.Push("three")
		time.Sleep(time.Minute)
		_ = conn.Close(resock.StatusServiceRestart, "deploy")
		synctest.Wait()

		spans := tel.ended()
		if len(spans) != 2 || spans[0].Name != "resock.attempt" || spans[1].Name != "resock.session" {
			t.Fatalf("got %+v", spans)
		}
		attempt, session := spans[0], spans[1]
		if !attempt.StartTime.Equal(began) || !session.StartTime.Equal(attempt.EndTime) || session.EndTime.Sub(session.StartTime) < time.Minute {
			t.Errorf("attempt %v to %v, session %v to %v", attempt.StartTime, attempt.EndTime, session.StartTime, session.EndTime)
		}
		if attempt.SpanKind != trace.SpanKindClient || attempt.Status.Code != codes.Unset || session.Status.Code != codes.Unset {
			t.Errorf("kind %v, status %v and %v", attempt.SpanKind, attempt.Status, session.Status)
		}
		if attempt.Links[0].SpanContext.SpanID() != session.SpanContext.SpanID() || session.Links[0].SpanContext.SpanID() != attempt.SpanContext.SpanID() {
			t.Errorf("links %+v and %+v", attempt.Links, session.Links)
		}
		retryIn, _ := session.attrs["resock.retry_in"].(float64)
		delete(session.attrs, "resock.retry_in")
		stats := client.Stats()
		want := map[string]any{
			"resock.client.name": "prices", "network.protocol.name": "websocket",
			"url.full": server.URL + "/push?redacted", "server.address": "server.test", "server.port": int64(80),
			"resock.attempt.number": int64(1), "resock.session.number": int64(1),
			"resock.close.code": int64(1012), "resock.close.reason": "deploy", "resock.close.clean": true,
			"resock.next": "waiting", "resock.rule": "server busy",
			"resock.session.messages_received": int64(2), "resock.session.messages_sent": int64(0),
			"resock.session.bytes_received": int64(stats.BytesIn), "resock.session.bytes_sent": int64(stats.BytesOut),
		}
		if !reflect.DeepEqual(session.attrs, want) || retryIn <= 0 || stats.BytesIn == 0 {
			t.Errorf("got  %v\nwant %v, retry in %v", session.attrs, want, retryIn)
		}
		for _, s := range spans {
			for name, value := range s.attrs {
				if text, _ := value.(string); strings.Contains(text, "verysecret") {
					t.Errorf("%s: %s", name, text)
				}
			}
		}
	})
}

func TestSpansOfFailedAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Refuse(), resocktest.Status(503, nil, "busy"), resocktest.StallUpgrade())
		client := connect(t, server, resock.WithMaxAttempts(3))
		tel.add("prices", client)
		_ = client.Run(t.Context())
		synctest.Wait()
		spans := tel.ended()
		if len(spans) != 3 {
			t.Fatalf("%d spans, want 3", len(spans))
		}
		for i, want := range []map[string]any{
			{"resock.phase": "tcp", "error.type": "tcp", "resock.next": "waiting", "resock.rule": "connection"},
			{"resock.phase": "upgrade", "error.type": "503", "http.response.status_code": int64(503), "resock.next": "waiting", "resock.rule": "status"},
			{"resock.phase": "upgrade", "error.type": "timeout", "resock.next": "closed", "resock.rule": "attempt limit"},
		} {
			s := spans[i]
			want["resock.attempt.number"], want["resock.client.name"], want["network.protocol.name"] = int64(i+1), "prices", "websocket"
			for _, name := range []string{"resock.retry_in", "network.peer.address", "network.peer.port"} {
				delete(s.attrs, name)
			}
			if s.Name != "resock.attempt" || s.Status.Code != codes.Error || s.Status.Description == "" || !reflect.DeepEqual(s.attrs, want) {
				t.Errorf("%s, %+v\ngot  %v\nwant %v", s.Name, s.Status, s.attrs, want)
			}
		}
		if s := spans[2]; s.EndTime.Sub(s.StartTime) != 10*time.Second { // the dial timeout
			t.Errorf("took %v", s.EndTime.Sub(s.StartTime))
		}
	})
}

func TestPeerOfAFailedAttempt(t *testing.T) {
	tel := newTelemetry(t)
	client, err := resock.New("ws://127.0.0.1:1/push", resock.WithMaxAttempts(1)) // a port that nothing listens on
	if err != nil {
		t.Fatal(err)
	}
	remove := tel.add("prices", client)
	_ = client.Run(t.Context())
	remove()
	if s := tel.last("resock.attempt"); s.attrs["network.peer.address"] != "127.0.0.1" || s.attrs["network.peer.port"] != int64(1) {
		t.Errorf("got %v", s.attrs)
	}
}

// TestCanceledAttempt is about an attempt that the application ended: it is no error.
func TestCanceledAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		server.Script(resocktest.StallUpgrade())
		client := connect(t, server)
		tel.add("prices", client)
		go client.Run(t.Context())
		time.Sleep(time.Second)
		client.Suspend()
		synctest.Wait()
		if s := tel.last("resock.attempt"); s.Status.Code != codes.Unset || s.attrs["error.type"] != nil || s.attrs["resock.next"] != "suspended" {
			t.Errorf("status %v: %v", s.Status, s.attrs)
		}
	})
}

func TestLostSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		go client.Run(t.Context())
		server.Accept().StopReading() // and so answers no beat
		time.Sleep(time.Minute)
		s := tel.last("resock.session")
		if s.Status.Code != codes.Error || s.attrs["resock.phase"] != "heartbeat" || s.attrs["error.type"] != "timeout" || !strings.Contains(s.Status.Description, "heartbeat timed out") {
			t.Errorf("status %v: %v", s.Status, s.attrs)
		}
		if len(s.Events) != 0 {
			t.Errorf("events %v", s.Events)
		}
	})
}

func TestStatusOfACloseByTheServer(t *testing.T) {
	for code, want := range map[resock.StatusCode]codes.Code{
		1000: codes.Unset, 1001: codes.Unset, 1012: codes.Unset, 1013: codes.Unset,
		1008: codes.Error, 1011: codes.Error, 3000: codes.Error, 4001: codes.Error,
	} {
		synctest.Test(t, func(t *testing.T) {
			tel := newTelemetry(t)
			server := resocktest.NewMemory(t)
			client := connect(t, server)
			tel.add("prices", client)
			go client.Run(t.Context())
			_ = server.Accept().Close(code, "")
			synctest.Wait()
			s := tel.last("resock.session")
			if s.Status.Code != want || s.attrs["resock.close.code"] != int64(code) || (s.attrs["error.type"] != nil) != (want == codes.Error) {
				t.Errorf("code %d: status %v, %v", code, s.Status, s.attrs)
			}
		})
	}
}

func TestCloseByTheApplication(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t)
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		tel.add("prices", client)
		go client.Run(t.Context())
		_ = client.WaitOpen(t.Context())
		_ = client.Close(4000, "bye")
		<-client.Done()
		synctest.Wait()
		s := tel.last("resock.session")
		if s.Status.Code != codes.Unset || s.attrs["resock.close.code"] != int64(4000) || s.attrs["resock.next"] != "closed" || s.attrs["resock.rule"] != nil {
			t.Errorf("status %v: %v", s.Status, s.attrs)
		}
	})
}
