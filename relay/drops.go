package relay

import (
	"context"
	"maps"
	"slices"

	"github.com/resock/resock/resume"
)

// drops are the messages that were dropped since the last one that was written, by stream.
type drops map[string]*drop

type drop struct {
	from     uint64
	last     resume.Position
	messages uint64
}

func (d drops) add(p resume.Position) {
	dropped := d[p.Stream]
	if dropped == nil {
		dropped = &drop{from: p.Seq}
		d[p.Stream] = dropped
	}
	dropped.last = p
	dropped.messages++
}

// overflows reports whether a message is to be dropped. Messages are dropped until half of
// the backlog is free again; then a gap says what is missing.
func (a *appender) overflows(ctx context.Context, m resume.Message) (drop bool, err error) {
	if a.relay.config.Overflow != Drop {
		return false, nil
	}
	waiting := a.writer.waiting
	size := len(m.Data) + overhead
	switch dropping := len(a.dropped) > 0; {
	case dropping && !waiting.half(), !dropping && !waiting.hasRoom(size):
		a.drop(m.Position)
		return true, nil
	case dropping:
		return false, a.told(ctx)
	}
	return false, nil
}

func (a *appender) drop(p resume.Position) {
	if len(a.dropped) == 0 {
		a.dropped = make(drops)
		a.relay.config.Log.Warn("JetStream is too slow: messages are dropped")
	}
	a.dropped.add(p)
	a.relay.count(func(s *Stats) { s.Dropped++ })
}

// told writes the gaps of what was dropped.
func (a *appender) told(ctx context.Context) error {
	for _, stream := range slices.Sorted(maps.Keys(a.dropped)) {
		d := a.dropped[stream]
		g := Gap{Stream: stream, Reason: ReasonOverflow, From: d.from, To: d.last.Seq, Messages: d.messages}
		if err := a.gap(ctx, g, d.last); err != nil {
			return err
		}
		if located(d.last) {
			a.at.note(d.last)
		}
	}
	a.relay.config.Log.Warn("messages were dropped", "gaps", len(a.dropped))
	a.dropped = nil
	return nil
}
