package relay

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/resume"
)

// appender makes records of what a feed delivers, and writes them.
type appender struct {
	relay  *Relay
	writer *writer
	at     positions // of all that was written
	count  uint64    // of the records of this term
}

// take writes an event of the feed.
func (a *appender) take(ctx context.Context, event resume.Event) error {
	switch e := event.(type) {
	case resume.Message:
		return a.message(ctx, e)
	case resume.Gap:
		return a.gap(ctx, Gap{e.Stream, e.Reason.String(), e.From, e.To, e.Last.String()})
	case resume.Lifecycle:
		a.relay.config.Log.Info("feed", "event", fmt.Sprintf("%+v", e.Event))
	}
	return nil
}

// room is what the headers of a message may need beside its subject and position.
const room = 1024

func (a *appender) message(ctx context.Context, m resume.Message) error {
	p, c := m.Position, &a.relay.config
	if located(p) {
		defer a.at.note(p)
	}
	topic := c.Topic(m)
	if !validTopic(topic) {
		topic = "_"
	}
	size := len(m.Data) + len(topic) + 3*len(p.Stream+p.Epoch+p.Token)*2 + room
	if int64(size) > c.Conn.MaxPayload() {
		c.Log.Error("a message is too large for NATS", "bytes", len(m.Data), "limit", c.Conn.MaxPayload())
		return a.gap(ctx, Gap{Stream: p.Stream, Reason: "too large", From: p.Seq, To: p.Seq})
	}
	id := idOf(a.writer.term, m, a.count)
	return a.append(ctx, &nats.Msg{
		Subject: a.relay.log.names.message(topic), Header: header(a.writer.term, m, time.Now(), id), Data: m.Data,
	})
}

// validTopic reports whether a topic may stand in a subject.
func validTopic(topic string) bool {
	for token := range strings.SplitSeq(topic, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n\x00") {
			return false
		}
	}
	return true
}

func (a *appender) gap(ctx context.Context, g Gap) error {
	a.relay.count(func(s *Stats) { s.Gaps++ })
	return a.append(ctx, &nats.Msg{
		Subject: a.relay.log.names.gap(), Data: encode(g),
		Header: nats.Header{jetstream.MsgIDHeader: {fmt.Sprintf("gap/%d/%d", a.writer.term, a.count)}},
	})
}

// append writes a record, and a checkpoint after some of them.
func (a *appender) append(ctx context.Context, m *nats.Msg) error {
	if a.count++; a.count%checkpointEvery == 0 {
		id := fmt.Sprintf("at/%d/%d", a.writer.term, a.count)
		if err := a.writer.append(ctx, a.relay.log.record(a.writer.term, a.at, id, false)); err != nil {
			return err
		}
	}
	return a.writer.append(ctx, m)
}

func (r *Relay) count(add func(*Stats)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	add(&r.stats)
}
