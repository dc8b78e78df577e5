package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// fields are where the position stands in a message that is a JSON object.
type fields struct{ stream, epoch, seq string }

// read finds the position.
func (f fields) read(m resock.MessageEvent, found *resume.Found) {
	var object map[string]json.RawMessage
	if json.Unmarshal(m.Data, &object) != nil {
		return
	}
	seq, err := strconv.ParseUint(text(object[f.seq]), 10, 64)
	if err != nil {
		return
	}
	found.Message(resume.Position{Stream: text(object[f.stream]), Epoch: text(object[f.epoch]), Seq: seq}, m.Data)
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
