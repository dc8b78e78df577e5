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
