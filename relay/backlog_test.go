package relay

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

func ofSize(n int) *nats.Msg { return &nats.Msg{Data: make([]byte, n-overhead)} }

func TestBacklogIsBounded(t *testing.T) {
	b := newBacklog(limit{3, 5000})
	add := func(size int, want bool) {
		t.Helper()
		if took := b.add(ofSize(size)) == nil; took != want {
			t.Errorf("%d bytes taken: %t, want %t", size, took, want)
		}
	}
	add(8000, true) // alone
	add(1000, false)
	full := b.add(ofSize(1000))
	b.remove(1)
	<-full
	add(2000, true)
	add(2000, true)
	add(2000, false) // too many bytes
	add(1000, true)
	b.remove(1)
	add(1000, true)
	add(1000, false) // too many messages
	if unit := b.head(2); len(unit) != 2 || len(unit[0].Data) != 2000-overhead {
		t.Errorf("head is %v", unit)
	}
	if messages, bytes := b.counted(); messages != 3 || bytes != 4000 {
		t.Errorf("%d messages, %d bytes", messages, bytes)
	}
}

// TestStandbyIsBounded checks that a standby forgets its oldest events, by number and by
// size.
func TestStandbyIsBounded(t *testing.T) {
	for _, limits := range []limit{{100, 1 << 30}, {1 << 30, 100 * (1000 + overhead)}} {
		f := &reader{limit: limits}
		for seq := range uint64(1000) {
			m := resume.Message{Position: resume.Position{Seq: seq + 1}}
			m.MessageEvent = resock.MessageEvent{Data: make([]byte, 1000)}
			if err := f.take(m); err != nil {
				t.Fatal(err)
			}
		}
		last := f.kept[len(f.kept)-1].(resume.Message).Position.Seq
		if len(f.kept) > 100 || len(f.kept) < 50 || last != 1000 || f.size != len(f.kept)*(1000+overhead) {
			t.Errorf("%+v: %d kept, the last is %d, size %d", limits, len(f.kept), last, f.size)
		}
	}
}

// TestLaggingStandby checks that what the log had when it was taken is not written again,
// and that a stream which is past that is free to fall.
func TestLaggingStandby(t *testing.T) {
	at := func(stream, epoch string, seq uint64) resume.Position {
		return resume.Position{Stream: stream, Epoch: epoch, Seq: seq}
	}
	floor := make(positions)
	floor.note(at("a", "e", 10))
	floor.note(at("b", "e", 10))
	a := &appender{floor: floor}
	for i, step := range []struct {
		at   resume.Position
		want bool
	}{
		{at("a", "e", 9), true},
		{at("a", "e", 10), true},
		{at("c", "e", 1), false},
		{resume.Position{}, false},
		{at("a", "e", 11), false},
		{at("a", "e", 5), false}, // a snapshot
		{at("b", "f", 1), false}, // another epoch
		{at("b", "e", 1), false},
	} {
		if got := a.has(step.at); got != step.want {
			t.Errorf("%d: %v is in the log: %t, want %t", i, step.at, got, step.want)
		}
	}
}

func TestPositionsFall(t *testing.T) {
	p := make(positions)
	for i, step := range []struct {
		epoch string
		seq   uint64
		falls bool
	}{{"e", 5, false}, {"e", 6, false}, {"e", 6, true}, {"e", 7, true}, {"f", 1, false}, {"f", 2, false}, {"f", 1, true}} {
		at := resume.Position{Epoch: step.epoch, Seq: step.seq}
		if got := p.falls(at); got != step.falls {
			t.Errorf("%d: %v falls: %t", i, at, got)
		}
		p.note(at)
	}
	if fallen := p.fallen(); len(fallen) != 1 {
		t.Errorf("fallen: %q", fallen)
	}
}
