package relay

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// TestMessageInTheStream has the subject and the headers that the documentation tells.
func TestMessageInTheStream(t *testing.T) {
	s, upstream := startServer(t), resocktest.NewServer(t)
	config := upstream1(upstream.URL, connect(t, s))
	config.Topic = func(m resume.Message) string {
		topic, _, _ := bytes.Cut(m.Data, []byte("!"))
		return string(topic)
	}
	began := time.Now().Add(-time.Second)
	r := startRelay(t, config)
	conn := upstream.Accept()
	_ = conn.Push("7")
	_ = conn.PushBinary([]byte("EUR.USD!"))
	_ = conn.Push("no topic!")
	eventually(t, "three in the log", func() bool { return r.Stats().Written == 3 })
	stream, err := jetStream(t, config.Conn).Stream(t.Context(), "ticks")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range []struct{ subject, typ, seq string }{
		{"ticks.msg.7", "text", "7"}, {"ticks.msg.EUR.USD", "binary", ""}, {"ticks.msg._", "text", ""},
	} {
		m, err := stream.GetMsg(t.Context(), uint64(n+2))
		if err != nil {
			t.Fatal(err)
		}
		h := m.Header
		if m.Subject != want.subject || h.Get(HeaderType) != want.typ || h.Get(HeaderSeq) != want.seq {
			t.Errorf("%s: %v, want %+v", m.Subject, h, want)
		}
		if h.Get(HeaderTerm) != strconv.FormatUint(r.Stats().Term, 10) || h.Get(HeaderSession) != "1" {
			t.Errorf("%s: term %s, session %s", m.Subject, h.Get(HeaderTerm), h.Get(HeaderSession))
		}
		if at, err := time.Parse(time.RFC3339Nano, h.Get(HeaderTime)); err != nil || at.Before(began) || at.After(time.Now()) {
			t.Errorf("%s: it came at %q", m.Subject, h.Get(HeaderTime))
		}
	}
}

// TestPositionOf reads what locate writes, whatever the names.
func TestPositionOf(t *testing.T) {
	for _, want := range []resume.Position{
		{Seq: 7},
		{Stream: "EUR/USD", Epoch: "a b%\r\n", Seq: 1 << 63},
		{Stream: "s", Token: "token, with / and é"},
		{Epoch: "e"}, // number 0
	} {
		h := make(nats.Header)
		locate(h, want)
		if got, ok := PositionOf(h); !ok || got != want {
			t.Errorf("%+v, %t; want %+v", got, ok, want)
		}
		for name, values := range h {
			if strings.ContainsAny(values[0], "\r\n") {
				t.Errorf("%s is %q", name, values[0])
			}
		}
	}
	for _, h := range []nats.Header{{}, {HeaderSeq: {"x"}}, {HeaderSeq: {"1"}, HeaderStream: {"%"}}} {
		if got, ok := PositionOf(h); ok || got != (resume.Position{}) {
			t.Errorf("%v is %+v", h, got)
		}
	}
}

// TestOutSendsBinary has the type that a worker chose.
func TestOutSendsBinary(t *testing.T) {
	s, upstream := startServer(t), resocktest.NewServer(t)
	config := upstream1(upstream.URL, connect(t, s))
	config.Out = &Out{Read: func(resock.MessageEvent, *outbox.Found) bool { return true }}
	startRelay(t, config)
	conn := upstream.Accept()
	js := jetStream(t, config.Conn)
	for _, m := range []*nats.Msg{
		{Subject: "ticks.out.a", Data: []byte("text")},
		{Subject: "ticks.out.a", Data: []byte{0xff}, Header: nats.Header{HeaderType: {"binary"}}},
	} {
		if _, err := js.PublishMsg(t.Context(), m, jetstream.WithExpectStream("ticks-out")); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []websocket.MessageType{websocket.MessageText, websocket.MessageBinary} {
		if m, err := conn.Read(); err != nil || m.Type != want {
			t.Errorf("got %v, %v; want type %v", m, err, want)
		}
	}
}
