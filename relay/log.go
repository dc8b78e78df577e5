package relay

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/resume"
)

// log is the stream that a relay writes.
type log struct {
	js     jetstream.JetStream
	stream jetstream.Stream
	names  subjects
	limit  limit           // of what is not acknowledged
	told   func(err error) // why it cannot be written
}

// take makes the log that of a term: when it returns, no earlier leader can write any more,
// and the positions are those of all that is in the log. It tries until ctx ends, or a
// later term has taken the log.
func (l *log) take(ctx context.Context, t *term) (*writer, positions, error) {
	var again backoff
	for {
		w, at, err := l.tryTake(ctx, t)
		if err == nil || errors.Is(err, errLost) {
			return w, at, err
		}
		if again == 0 && ctx.Err() == nil {
			l.told(err)
		}
		if again.wait(ctx) != nil {
			return nil, nil, fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	}
}

func (l *log) tryTake(ctx context.Context, t *term) (*writer, positions, error) {
	ctx, cancel := context.WithTimeout(ctx, max(t.lease.ttl, 5*time.Second))
	defer cancel()
	info, err := l.stream.Info(ctx)
	if err != nil {
		return nil, nil, err
	}
	last := info.State.LastSeq
	at, known, err := l.read(ctx, t, last)
	if err != nil {
		return nil, nil, err
	}
	if !t.held() {
		return nil, nil, errLost
	}
	began := l.record(t.epoch, at, termID(t.epoch), true)
	ack, err := l.js.PublishMsg(ctx, began, jetstream.WithExpectLastSequence(last))
	if err != nil {
		return nil, nil, err
	}
	if ack.Sequence != last+1 && ack.Sequence != last { // last, if the answer to an earlier one was lost
		return nil, nil, fmt.Errorf("relay: the log has term %d at %d already", t.epoch, ack.Sequence)
	}
	w := newWriter(t.ctx, l, t.epoch, ack.Sequence)
	w.known = known
	return w, at, nil
}

// termID is the id of the record that begins a term.
func termID(term uint64) string { return fmt.Sprintf("term/%d", term) }

// record returns a checkpoint.
func (l *log) record(term uint64, at positions, id string, began bool) *nats.Msg {
	return &nats.Msg{
		Subject: l.names.term(),
		Header:  nats.Header{jetstream.MsgIDHeader: {id}},
		Data:    encode(checkpoint{term, began, at.list(), at.fallen()}),
	}
}

// read returns the positions that the log has up to a sequence: those of the last
// checkpoint, and what came after it. If neither is left, nobody knows where the log was.
func (l *log) read(ctx context.Context, t *term, last uint64) (at positions, known bool, err error) {
	at = make(positions)
	raw, err := l.stream.GetLastMsgForSubject(ctx, l.names.term())
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err := l.replay(ctx, 1, last, at)
		return at, last == 0 || len(at) > 0, err
	}
	if err != nil {
		return nil, false, err
	}
	var saved checkpoint
	if err := json.Unmarshal(raw.Data, &saved); err != nil {
		return nil, false, fmt.Errorf("relay: the record at %s is not one of a relay: %w", l.names.term(), err)
	}
	if saved.Term > t.epoch {
		return nil, false, errLost
	}
	for _, p := range saved.Positions {
		at.note(p)
	}
	for _, stream := range saved.Fell {
		at.fall(stream)
	}
	return at, true, l.replay(ctx, raw.Sequence+1, last, at)
}

// refused returns the record that stands for a message which the server does not take.
func (l *log) refused(m *nats.Msg, reason string) *nats.Msg {
	p, _ := PositionOf(m.Header)
	g := Gap{Stream: p.Stream, Reason: "refused: " + reason, From: p.Seq, To: p.Seq, Messages: 1}
	return l.gap(g, p, m.Header.Get(jetstream.MsgIDHeader)+"/refused")
}

// gap returns the record of a gap. Where it ends, if the relay knows, the next leader goes on.
func (l *log) gap(g Gap, end resume.Position, id string) *nats.Msg {
	h := nats.Header{jetstream.MsgIDHeader: {id}}
	locate(h, end)
	return &nats.Msg{Subject: l.names.gap(), Data: encode(g), Header: h}
}

// replay notes the positions of the messages of the log between two sequences.
func (l *log) replay(ctx context.Context, from, last uint64, at positions) error {
	if from > last {
		return nil
	}
	messages, err := l.js.OrderedConsumer(ctx, l.stream.CachedInfo().Config.Name, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: from, HeadersOnly: true,
	})
	if err != nil {
		return err
	}
	defer l.forget(ctx, messages)
	if info := messages.CachedInfo(); info != nil && info.NumPending == 0 {
		return l.removed(ctx, last)
	}
	iterator, err := messages.Messages()
	if err != nil {
		return err
	}
	defer iterator.Stop()
	for {
		m, err := iterator.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		if p, ok := PositionOf(m.Headers()); ok {
			at.note(p)
		}
		meta, err := m.Metadata()
		if err != nil {
			return err
		}
		switch {
		case meta.Sequence.Stream >= last:
			return nil
		case meta.NumPending == 0:
			return l.removed(ctx, last)
		}
	}
}

// forget removes a consumer, which would stay for five minutes.
func (l *log) forget(ctx context.Context, consumer jetstream.Consumer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if info := consumer.CachedInfo(); info != nil {
		_ = l.js.DeleteConsumer(ctx, info.Stream, info.Name)
	}
}

// removed makes sure that a message which a consumer does not find was removed, by the limits
// of the stream or an administrator: the consumer may be at a server that is behind.
func (l *log) removed(ctx context.Context, sequence uint64) error {
	switch _, err := l.stream.GetMsg(ctx, sequence); {
	case err == nil:
		return fmt.Errorf("relay: a consumer of the log has not found %d yet", sequence)
	case errors.Is(err, jetstream.ErrMsgNotFound):
		return nil
	default:
		return err
	}
}
