package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// full returns an appender that drops what has no room, over a writer that writes nothing.
func full(t *testing.T, limits limit) (*appender, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	t.Cleanup(cancel)
	config := Config{Name: "feed", Conn: connect(t, startServer(t)), Overflow: Drop}
	config.byDefault()
	r := &Relay{config: config, log: log{names: subjects{"feed"}}}
	w := &writer{log: &r.log, term: 1, waiting: newBacklog(limits)}
	w.ctx, w.fail = context.WithCancelCause(ctx)
	return &appender{relay: r, writer: w, at: make(positions)}, ctx
}

// bring hands events to the appender, none of which may block.
func bring(ctx context.Context, t *testing.T, a *appender, events ...resume.Event) {
	t.Helper()
	for _, event := range events {
		if err := a.take(ctx, event); err != nil {
			t.Fatalf("%+v: %v", event, err)
		}
	}
}

// waiting returns what waits: numbers, and gaps as "reason from-to (messages)".
func waiting(a *appender) string {
	var records []string
	for _, m := range a.writer.waiting.head(1000) {
		records = append(records, describe(m))
	}
	return strings.Join(records, ", ")
}

func describe(m *nats.Msg) string {
	var gap Gap
	switch p, _ := PositionOf(m.Header); {
	case m.Subject == "feed.gap" && json.Unmarshal(m.Data, &gap) == nil:
		return fmt.Sprintf("%s %d-%d (%d)", gap.Reason, gap.From, gap.To, gap.Messages)
	case m.Subject == "feed.term":
		return "checkpoint"
	default:
		return fmt.Sprint(p.Seq)
	}
}

// TestDropsAroundHoles has holes and sessions while there is no room: the feed is not kept
// waiting, and each is named in its place.
func TestDropsAroundHoles(t *testing.T) {
	hole := func(from, to uint64) resume.Event {
		return resume.Gap{From: from, To: to, Last: resume.Position{Epoch: "e", Seq: from - 1}}
	}
	opened := resume.Lifecycle{Event: resock.OpenEvent{}}
	other := resume.Message{Position: resume.Position{Epoch: "f", Seq: 1}}
	for _, test := range []struct {
		name   string
		events []resume.Event
		want   string
	}{
		{"a hole after a drop", append(kept(5, 6), hole(7, 8)), "4, overflow 5-6 (2), hole 7-8 (0), 20"},
		{"a hole between drops", append(append(kept(5), hole(6, 7)), kept(8)...), "4, overflow 5-8 (2), hole 6-7 (0), 20"},
		{"only a hole", []resume.Event{hole(5, 7)}, "4, hole 5-7 (0), 20"},
		{"two holes", []resume.Event{hole(5, 6), hole(8, 9)}, "4, hole 5-9 (0), 20"},
		{"sessions", append(append([]resume.Event{opened}, kept(5)...), opened), "4, overflow 5-5 (1), session 0-0 (0), 20"},
		{"another epoch", append(kept(5), other), "4, overflow 0-0 (2), 20"},
		{"numbers that fall", kept(5, 3, 4), "4, overflow 0-0 (3), 20"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, ctx := full(t, limit{4, 1 << 20})
			bring(ctx, t, a, kept(1, 2, 3, 4)...)
			bring(ctx, t, a, test.events...)
			if got := waiting(a); got != "1, 2, 3, 4" {
				t.Fatalf("without room: %s", got)
			}
			a.writer.waiting.remove(3)
			a.writer.waiting.limit.messages = 10
			bring(ctx, t, a, kept(20)...)
			if got := waiting(a); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

// TestDropsForACheckpoint has room for a message, and none for the checkpoint before it.
func TestDropsForACheckpoint(t *testing.T) {
	a, ctx := full(t, limit{4, 1 << 20})
	a.count = checkpointEvery - 4
	bring(ctx, t, a, kept(1, 2, 3, 4)...)
	if got := waiting(a); got != "1, 2, 3" || len(a.dropped) != 1 {
		t.Errorf("%s, dropped: %v", got, a.dropped)
	}
}

// TestDropsBySize has room for a message, and none for its subject.
func TestDropsBySize(t *testing.T) {
	a, ctx := full(t, limit{4, 2*overhead + len("feed.msg.all")})
	bring(ctx, t, a, kept(1, 2)...)
	if got := waiting(a); got != "1" || len(a.dropped) != 1 {
		t.Errorf("%s, dropped: %v", got, a.dropped)
	}
}

// TestIDsAreDistinct has streams, epochs and tokens that look like the ids of records.
func TestIDsAreDistinct(t *testing.T) {
	a, ctx := full(t, limit{2 * checkpointEvery, 1 << 30})
	bring(ctx, t, a,
		resume.Message{Position: resume.Position{Stream: "gap", Epoch: "1", Seq: 5}},
		resume.Message{Position: resume.Position{Stream: "at", Epoch: "1", Seq: checkpointEvery}},
		resume.Message{Position: resume.Position{Stream: "s", Epoch: "t", Seq: 5}},
		resume.Message{Position: resume.Position{Stream: "s", Token: "5"}},
		resume.Message{Position: resume.Position{Stream: "u", Token: "5"}},
		resume.Message{Position: resume.Position{Stream: "u", Token: "5"}}, // a snapshot
		resume.Message{Position: resume.Position{Stream: "v"}},
		resume.Message{Position: resume.Position{Stream: "v"}}, // a snapshot
	)
	a.count = 4
	for range checkpointEvery {
		bring(ctx, t, a, resume.Gap{})
	}
	ids := make(map[string]int)
	for i, m := range a.writer.waiting.head(2 * checkpointEvery) {
		id := m.Header.Get(jetstream.MsgIDHeader)
		if before, taken := ids[id]; taken {
			t.Errorf("records %d and %d have the id %q", before, i, id)
		}
		ids[id] = i
	}
}

// TestCheckpointsFollowTheLog has checkpoints among messages and after what was dropped: each
// says where the log is, not where it will be.
func TestCheckpointsFollowTheLog(t *testing.T) {
	a, ctx := full(t, limit{4, 1 << 20})
	a.count = checkpointEvery - 2
	bring(ctx, t, a, kept(1, 2)...)
	check := func(seq uint64) {
		t.Helper()
		var saved checkpoint
		for _, m := range a.writer.waiting.head(100) {
			if m.Subject == "feed.term" {
				if err := json.Unmarshal(m.Data, &saved); err != nil {
					t.Fatal(err)
				}
			}
		}
		if len(saved.Positions) != 1 || saved.Positions[0].Seq != seq {
			t.Errorf("the checkpoint is at %v, want %d", saved.Positions, seq)
		}
	}
	check(1)
	bring(ctx, t, a, kept(3, 4, 5)...)
	a.writer.waiting.remove(4)
	a.count = 2*checkpointEvery - 2
	bring(ctx, t, a, kept(6)...) // with a gap before it
	check(5)
}
