package relay

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// appender makes records of what a feed delivers, and writes them.
type appender struct {
	relay   *Relay
	writer  *writer
	at      positions // of all that was written
	floor   positions // where the log began for this leader; a stream that is past it is removed
	count   uint64    // of the records of this term
	dropped drops     // what had no room; nil while there is
	quiet   bool      // the first session follows nothing
}

// take writes an event of the feed.
func (a *appender) take(ctx context.Context, event resume.Event) error {
	switch e := event.(type) {
	case resume.Message:
		return a.message(ctx, e)
	case resume.Gap:
		return a.hole(ctx, e)
	case resume.Lifecycle:
		a.relay.tellEvent(e.Event)
		if _, opened := e.Event.(resock.OpenEvent); opened && a.relay.config.Read == nil {
			return a.session(ctx)
		}
	}
	return nil
}

// tellEvent logs an event of the client.
func (r *Relay) tellEvent(event resock.Event) {
	logger := r.config.Log
	switch e := event.(type) {
	case resock.OpenEvent:
		logger.Info("feed opened", "session", e.Session, "url", e.URL, "attempt", e.Attempt, "took", e.Took)
	case resock.FailEvent:
		logger.Warn("feed failed", "session", e.Session, "attempt", e.Attempt, "phase", e.Phase.String(), "err", e.Err,
			"next", e.Next.String(), "retry_in", e.RetryIn)
	case resock.CloseEvent:
		logger.Info("feed closed", "session", e.Session, "code", int(e.Code), "reason", e.Reason, "clean", e.Clean,
			"next", e.Next.String(), "retry_in", e.RetryIn)
	}
}

// begin notes that nobody knows what is missing, if nothing of the log is left.
func (a *appender) begin(ctx context.Context) error {
	if a.writer.known || a.relay.config.Read == nil {
		return nil
	}
	return a.missed(ctx, Gap{Reason: ReasonSession})
}

// session notes that nobody knows what came before a session.
func (a *appender) session(ctx context.Context) error {
	if a.quiet {
		a.quiet = false
		return nil
	}
	return a.missed(ctx, Gap{Reason: ReasonSession})
}

const (
	// room is what the headers of a message may need beside its subject and position.
	room = 1024

	// escaped is how many bytes of the headers a byte of a name may need: the name stands
	// there twice, as a header and in the id, and each byte may be escaped.
	escaped = 2 * len("%00")
)

func (a *appender) message(ctx context.Context, m resume.Message) error {
	p := m.Position
	if a.has(p) {
		a.relay.count(func(s *Stats) { s.Repeated++ })
		return nil
	}
	if drop, err := a.overflows(ctx, m); drop || err != nil {
		return err
	}
	if located(p) {
		defer a.at.note(p)
	}
	c := &a.relay.config
	topic := c.Topic(m)
	if !validTopic(topic) {
		topic = "_"
	}
	size := len(m.Data) + len(topic) + escaped*len(p.Stream+p.Epoch+p.Token) + room
	if int64(size) > c.Conn.MaxPayload() {
		c.Log.Error("a message is too large for NATS", "bytes", len(m.Data), "limit", c.Conn.MaxPayload())
		return a.gap(ctx, Gap{Stream: p.Stream, Reason: ReasonTooLarge, From: p.Seq, To: p.Seq, Messages: 1}, p)
	}
	id := idOf(a.writer.term, m, a.count, a.at.falls(p))
	return a.append(ctx, &nats.Msg{
		Subject: a.relay.log.names.message(topic), Header: header(a.writer.term, m, time.Now(), id), Data: m.Data,
	})
}

// hole writes what a feed tells to be missing, without what was in the log when this leader
// took it.
func (a *appender) hole(ctx context.Context, e resume.Gap) error {
	g := Gap{Stream: e.Stream, Reason: e.Reason.String(), From: e.From, To: e.To, After: e.Last.String()}
	if last, waits := a.floor[e.Stream]; waits && numbered(last.Position) && e.Last.Epoch == last.Epoch && e.To > 0 {
		if e.To <= last.Seq {
			return nil
		}
		g.From = max(e.From, last.Seq+1)
	}
	return a.missed(ctx, g)
}

// has reports whether a message was in the log when this leader took it, which a standby
// that lags may bring.
func (a *appender) has(p resume.Position) bool {
	last, waits := a.floor[p.Stream]
	if !waits || !located(p) {
		return false
	}
	in := p.Epoch == last.Epoch && numbered(p) && numbered(last.Position) && p.Seq <= last.Seq
	if !in || p.Seq == last.Seq {
		delete(a.floor, p.Stream)
	}
	return in
}

// passed notes an event that a standby kept and the log has: once that is the end of a
// stream, all that follows is new.
func (a *appender) passed(event resume.Event) {
	m, is := event.(resume.Message)
	if last := a.floor[streamOf(event)]; is && m.Position.Epoch == last.Epoch && m.Position.Seq == last.Seq {
		delete(a.floor, m.Position.Stream)
	}
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

// gap writes a gap, with where it ends if messages that the relay had are missing.
func (a *appender) gap(ctx context.Context, g Gap, end resume.Position) error {
	a.relay.count(func(s *Stats) { s.Gaps++ })
	return a.append(ctx, a.relay.log.gap(g, end, fmt.Sprintf("record/gap/%d/%d", a.writer.term, a.count)))
}

// append writes a record, and a checkpoint after some of them.
func (a *appender) append(ctx context.Context, m *nats.Msg) error {
	if a.count++; a.count%checkpointEvery == 0 {
		id := fmt.Sprintf("record/at/%d/%d", a.writer.term, a.count)
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
