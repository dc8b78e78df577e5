package main

import (
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resume"
)

func TestTopicOf(t *testing.T) {
	f := fields{topic: "symbol"}
	for data, want := range map[string]string{
		`{"symbol":"EUR.USD","seq":1}`: "EUR.USD",
		`{"symbol":7}`:                 "7",
		`{"seq":1}`:                    "all",
		`{"symbol":""}`:                "all",
		`[1]`:                          "all",
		`no JSON`:                      "all",
	} {
		m := resume.Message{MessageEvent: resock.MessageEvent{Data: []byte(data)}}
		if got := f.topicOf(m); got != want {
			t.Errorf("%s: %q, want %q", data, got, want)
		}
	}
}

func TestAcked(t *testing.T) {
	f := fields{ack: "ack"}
	for data, pass := range map[string]bool{`{"ack":"order-1"}`: false, `{"ack":7}`: false, `{"seq":1}`: true, `no JSON`: true} {
		if got := f.acked(resock.MessageEvent{Data: []byte(data)}, new(outbox.Found)); got != pass {
			t.Errorf("%s passes: %t", data, got)
		}
	}
}
