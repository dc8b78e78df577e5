package main

import "time"

// recordVersion is the version of the format. A reader refuses a higher one, and ignores
// fields that it does not know.
const recordVersion = 1

// header is the first line of a recording. The other lines are entries.
type header struct {
	Version int       `json:"resock"` // recordVersion
	Start   time.Time `json:"start"`  // what the entries' At counts from
}

// entry is one line of a recording, and of the output of -json: something that happened
// on the line. Durations are in seconds. Fields that do not apply are left out.
type entry struct {
	At    float64 `json:"at"`             // seconds since the start
	Time  string  `json:"time,omitempty"` // RFC 3339, on request
	Event string  `json:"event"`          // open, message, sent, fail, close, ping, pong

	Session     uint64  `json:"session,omitempty"`
	URL         string  `json:"url,omitempty"`         // redacted
	Subprotocol string  `json:"subprotocol,omitempty"` // of an open
	Attempt     int     `json:"attempt,omitempty"`     // of an open or a fail
	Took        float64 `json:"took,omitempty"`        // of an open, a fail or a close
	Downtime    float64 `json:"downtime,omitempty"`    // of an open

	Text   *string `json:"text,omitempty"`  // of a message or sent, if it is text
	Binary []byte  `json:"binary,omitzero"` // base64; also the payload of a ping or pong

	Phase   string  `json:"phase,omitempty"` // of a fail
	Error   string  `json:"error,omitempty"`
	Code    int     `json:"code,omitempty"` // of a close
	Reason  string  `json:"reason,omitempty"`
	Clean   *bool   `json:"clean,omitempty"`
	Next    string  `json:"next,omitempty"` // the state that follows a fail or a close
	RetryIn float64 `json:"retryIn,omitempty"`
	Rule    string  `json:"rule,omitempty"`
	RTT     float64 `json:"rtt,omitempty"` // of a pong that answers our ping
}
