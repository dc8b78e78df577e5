package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/resock/resock"
)

// happened tells one event. It reports true: the loop goes on.
func (p *program) happened(e resock.Event) bool {
	p.takeControls()
	switch e := e.(type) {
	case resock.MessageEvent:
		p.message(e)
		p.received++
	case resock.OpenEvent:
		p.session = e.Session
		p.status.opened()
		p.tell(e.Time, openEntry(e), openText(e))
	case resock.FailEvent:
		p.tellControls(false)
		p.status.waits(e.Time.Add(e.RetryIn), e.Attempt)
		p.tell(e.Time, failEntry(e), failText(e))
	case resock.CloseEvent:
		p.tellControls(false)
		p.status.waits(e.Time.Add(e.RetryIn), 0)
		p.tell(e.Time, closeEntry(e), closeText(e))
	}
	p.tellControls(true)
	return true
}

// message prints a message.
func (p *program) message(m resock.MessageEvent) {
	if p.ended() {
		return
	}
	now := time.Now()
	p.heard = now
	p.recorder.message(now, m)
	p.outcome(p.out.message(now, m))
	p.messages++
	if p.count > 0 && p.messages >= p.count {
		p.outcome(p.out.flush())
		p.end(exitDone, nil)
	}
}

// tell tells an event that is no message: on standard output in JSON, else in words on
// standard error.
func (p *program) tell(at time.Time, e entry, text string) {
	p.recorder.event(at, e)
	if p.json {
		p.outcome(p.out.entry(at, e))
		return
	}
	p.outcome(p.out.flush()) // what came before it
	p.note(at, text)
}

// note tells something on standard error.
func (p *program) note(at time.Time, text string) {
	if !p.quiet {
		p.complain(at, text)
	}
}

// complain tells something that must be told, even if the program is to be quiet.
func (p *program) complain(at time.Time, text string) {
	stamp := ""
	if p.timestamps {
		stamp = at.Format(timeLayout) + " "
	}
	p.screen.tell(stamp + "resock: " + text + "\n")
}

func openEntry(e resock.OpenEvent) entry {
	return entry{
		Event: "open", Session: e.Session, URL: e.URL, Subprotocol: e.Subprotocol,
		Attempt: e.Attempt, Took: seconds(e.Took), Downtime: seconds(e.Downtime),
	}
}

func openText(e resock.OpenEvent) string {
	text := "connected to " + e.URL
	if e.Session > 1 {
		text = fmt.Sprintf("connected again after %v, session %d", brief(e.Downtime), e.Session)
	}
	if e.Subprotocol != "" {
		text += ", subprotocol " + e.Subprotocol
	}
	return text
}

func failEntry(e resock.FailEvent) entry {
	return entry{
		Event: "fail", Session: e.Session, Attempt: e.Attempt, Took: seconds(e.Took),
		Phase: e.Phase.String(), Error: explain(e.Err),
		Next: e.Next.String(), RetryIn: seconds(e.RetryIn), Rule: e.Rule,
	}
}

func failText(e resock.FailEvent) string {
	if e.Session == 0 {
		return fmt.Sprintf("attempt %d failed: %s%s", e.Attempt, explain(e.Err), nextText(e.Next, e.RetryIn))
	}
	return fmt.Sprintf("lost after %v: %s%s", brief(e.Took), explain(e.Err), nextText(e.Next, e.RetryIn))
}

func closeEntry(e resock.CloseEvent) entry {
	clean := e.Clean
	return entry{
		Event: "close", Session: e.Session, Took: seconds(e.Took),
		Code: int(e.Code), Reason: e.Reason, Clean: &clean,
		Next: e.Next.String(), RetryIn: seconds(e.RetryIn), Rule: e.Rule,
	}
}

func closeText(e resock.CloseEvent) string {
	text := fmt.Sprintf("closed after %v: code %d", brief(e.Took), int(e.Code))
	if e.Reason != "" {
		text += fmt.Sprintf(", reason %q", e.Reason)
	}
	if !e.Clean {
		text += ", without an answer"
	}
	return text + nextText(e.Next, e.RetryIn)
}

// nextText tells what follows, if it is another attempt.
func nextText(next resock.State, in time.Duration) string {
	switch next {
	case resock.StateWaiting:
		return fmt.Sprintf("; next attempt in %v", brief(in))
	case resock.StateConnecting:
		return "; next attempt now"
	}
	return ""
}

// control is a ping or a pong that came.
type control struct {
	at      time.Time
	event   string // ping or pong
	session uint64
	after   uint64 // how many messages had come before it
	payload []byte
	rtt     time.Duration // of a pong that answers a ping of ours, or 0
}

func (p *program) pinged(ctx context.Context, payload []byte) bool {
	p.came(ctx, control{event: "ping", payload: payload})
	return true
}

func (p *program) ponged(ctx context.Context, payload []byte) {
	c := control{event: "pong", payload: payload}
	if rtt := p.client.Stats().RoundTrip; p.roundTrip.Swap(int64(rtt)) != int64(rtt) {
		c.rtt = rtt
	}
	p.came(ctx, c)
}

// came hands c to the loop. While that is behind, nothing more is read.
func (p *program) came(ctx context.Context, c control) {
	stats := p.client.Stats()
	c.at, c.session, c.after = time.Now(), stats.Session, stats.MessagesIn
	select {
	case p.controls <- c:
	case <-ctx.Done():
	}
}

// takeControls takes the control frames that have come, and tells those whose time it is.
func (p *program) takeControls() {
	for len(p.controls) > 0 {
		p.early = append(p.early, <-p.controls)
	}
	p.tellControls(true)
}

// tellControls tells the control frames that were taken, if they are due: after the open
// event of their session and the messages before them.
func (p *program) tellControls(due bool) {
	for len(p.early) > 0 {
		c := p.early[0]
		if due && (c.session > p.session || c.after > p.received) {
			return
		}
		p.early = p.early[1:]
		p.tellControl(c)
	}
}

func (p *program) tellControl(c control) {
	e := entry{Event: c.event, Session: c.session, Binary: c.payload, RTT: seconds(c.rtt)}
	p.recorder.event(c.at, e)
	wanted := p.control || p.roundTrips && c.rtt > 0
	switch {
	case !wanted:
	case p.json:
		p.outcome(p.out.entry(c.at, e))
	default:
		p.outcome(p.out.flush())
		p.complain(c.at, c.text(p.control)) // it was asked for, even if the rest is to be quiet
	}
}

func (c control) text(frames bool) string {
	var parts []string
	if frames {
		parts = append(parts, c.event)
		if len(c.payload) > 0 {
			parts[0] += fmt.Sprintf(" %q", c.payload)
		}
	}
	if c.rtt > 0 {
		parts = append(parts, "round trip "+brief(c.rtt).String())
	}
	return strings.Join(parts, ", ")
}

// brief rounds a duration to what a reader wants to know.
func brief(d time.Duration) time.Duration {
	switch {
	case d > 10*time.Second:
		return d.Round(time.Second)
	case d > time.Second:
		return d.Round(100 * time.Millisecond)
	case d > 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}
