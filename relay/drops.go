package relay

import (
	"context"
	"maps"
	"slices"

	"github.com/resock/resock/resume"
)

// drops are what had no room since the last message that was written, by stream.
type drops map[string]*drop

// drop is what had no room of a stream: messages that were dropped, and holes among them.
type drop struct {
	from     uint64 // the number of the first message
	last     resume.Position
	mixed    bool // the numbers do not rise in one epoch, and name nothing
	messages uint64
	hole     *Gap // all that the feed missed meanwhile, or nil
}

func (d drops) of(stream string) *drop {
	if d[stream] == nil {
		d[stream] = new(drop)
	}
	return d[stream]
}

func (d drops) add(p resume.Position) {
	dropped := d.of(p.Stream)
	if dropped.messages == 0 {
		dropped.from = p.Seq
	} else if p.Epoch != dropped.last.Epoch || p.Seq < dropped.last.Seq {
		dropped.mixed = true
	}
	dropped.last = p
	dropped.messages++
}

// miss notes a hole. Several become one, since nothing is written between them.
func (d drops) miss(g Gap) {
	dropped := d.of(g.Stream)
	if dropped.hole != nil {
		g.From, g.After = dropped.hole.From, dropped.hole.After
	}
	dropped.hole = &g
}

// gaps returns the records that stand for what had no room of a stream.
func (d *drop) gaps(stream string) (gaps []Gap) {
	if d.messages > 0 {
		g := Gap{Stream: stream, Reason: ReasonOverflow, From: d.from, To: d.last.Seq, Messages: d.messages}
		if d.mixed {
			g.From, g.To = 0, 0
		}
		gaps = append(gaps, g)
	}
	if d.hole != nil {
		gaps = append(gaps, *d.hole)
	}
	return gaps
}

// overflows reports whether a message is to be dropped. Messages are dropped until half of
// the backlog is free again; then gaps say what is missing.
func (a *appender) overflows(ctx context.Context, m resume.Message) (drop bool, err error) {
	if a.relay.config.Overflow != Drop {
		return false, nil
	}
	switch dropping := len(a.dropped) > 0; {
	case dropping && !a.writer.waiting.half(), !dropping && !a.hasRoom(len(m.Data)):
		a.drop(m.Position)
		return true, nil
	case dropping:
		return false, a.told(ctx)
	}
	return false, nil
}

// hasRoom reports whether a record has room, with the checkpoint that may come before it.
func (a *appender) hasRoom(size int) bool {
	records := 1
	if (a.count+1)%checkpointEvery == 0 {
		records = 2
	}
	return a.writer.waiting.hasRoom(records, size+overhead+room)
}

// missed writes a gap in what the feed brings, or notes it for later if there is no room:
// that keeps the feed waiting no more than a message.
func (a *appender) missed(ctx context.Context, g Gap) error {
	switch {
	case a.relay.config.Overflow != Drop, len(a.dropped) == 0 && a.hasRoom(0):
		return a.gap(ctx, g, resume.Position{})
	case len(a.dropped) == 0:
		a.dropped = make(drops)
	}
	a.dropped.miss(g)
	return nil
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
		for _, g := range d.gaps(stream) {
			if err := a.gap(ctx, g, d.last); err != nil {
				return err
			}
		}
		if located(d.last) {
			a.at.note(d.last)
		}
	}
	a.relay.config.Log.Warn("messages were dropped", "gaps", len(a.dropped))
	a.dropped = nil
	return nil
}
