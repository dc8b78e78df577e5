package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resume"
)

// fields are the names of the fields of a message, which is a JSON object. Empty names are
// those of fields that it does not have.
type fields struct{ stream, epoch, seq, topic, ack string }

// object returns the fields of a message, or nil if it has none.
func object(data []byte) (fields map[string]json.RawMessage) {
	if json.Unmarshal(data, &fields) != nil {
		return nil
	}
	return fields
}

// read finds the position.
func (f fields) read(m resock.MessageEvent, found *resume.Found) {
	in := object(m.Data)
	seq, err := strconv.ParseUint(text(in[f.seq]), 10, 64)
	if err != nil {
		return
	}
	found.Message(resume.Position{Stream: text(in[f.stream]), Epoch: text(in[f.epoch]), Seq: seq}, m.Data)
}

// topicOf returns the last part of the subject.
func (f fields) topicOf(m resume.Message) string {
	if topic := text(object(m.Data)[f.topic]); topic != "" {
		return topic
	}
	return "all"
}

// acked finds which message the server acknowledges. An acknowledgement is no message of the
// feed, so it does not pass.
func (f fields) acked(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	id := text(object(m.Data)[f.ack])
	if id == "" {
		return true
	}
	found.Acked(id)
	return false
}

// text returns a value as it is, or without its quotes if it is a string.
func text(value json.RawMessage) string {
	var s string
	if json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

// since asks for what comes after the cursor of the only stream by a parameter of the URL.
func since(base, parameter string) func(*resume.Feed) []resock.Option {
	return func(feed *resume.Feed) []resock.Option {
		return []resock.Option{resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
			cursors := feed.Cursors()
			if len(cursors) == 0 || !cursors[0].Known {
				return resock.Endpoint{}, nil
			}
			if len(cursors) > 1 {
				return resock.Endpoint{}, fmt.Errorf("the feed has %d streams: -since can ask for one", len(cursors))
			}
			u, err := url.Parse(base)
			if err != nil {
				return resock.Endpoint{}, err
			}
			query := u.Query()
			query.Set(parameter, strconv.FormatUint(cursors[0].Seq, 10))
			u.RawQuery = query.Encode()
			return resock.Endpoint{URL: u.String()}, nil
		})}
	}
}
