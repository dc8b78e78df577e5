package relay

import (
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/resume"
)

// remove removes records of a log, as limits or an administrator do.
func remove(t *testing.T, l *log, sequences ...uint64) {
	t.Helper()
	for _, n := range sequences {
		if err := l.stream.DeleteMsg(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTakeWhatIsLeft takes logs of which records were removed: the first one is that of the
// term, and 1 to 3 follow.
func TestTakeWhatIsLeft(t *testing.T) {
	for _, test := range []struct {
		name    string
		removed []uint64
		at      uint64 // 0 if no position is known
	}{
		{"all", nil, 3},
		{"without the checkpoint", []uint64{1}, 3},
		{"without the last", []uint64{4}, 2},
		{"without what follows the checkpoint", []uint64{2, 3, 4}, 0},
		{"nothing", []uint64{1, 2, 3, 4}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := openLog(t, connect(t, startServer(t)))
			first, _ := take(t, l, 1)
			write(t, first, 1, 3)
			remove(t, l, test.removed...)
			w, at := take(t, l, 2)
			if p, known := at["s"]; p.Seq != test.at || known != (test.at > 0) {
				t.Errorf("the log is at %v", at)
			}
			if w.began != 5 {
				t.Errorf("the term began at %d", w.began)
			}
			write(t, w, 4, 5)
		})
	}
}

// TestTakeWaitsForAConsumer has a consumer at a server that does not have all of the log.
func TestTakeWaitsForAConsumer(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	w, _ := take(t, l, 1)
	write(t, w, 1, 3)
	if err := l.removed(t.Context(), 4); err == nil {
		t.Error("a message that is there is taken for removed")
	}
	remove(t, l, 4)
	if err := l.removed(t.Context(), 4); err != nil {
		t.Errorf("a message that was removed: %v", err)
	}
}

// TestTakeWhoseAnswerWasLost takes a log in which the record of the term is already.
func TestTakeWhoseAnswerWasLost(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	first, _ := take(t, l, 1)
	write(t, first, 1, 3)
	lost, _ := take(t, l, 2)
	lost.close()
	w, at := take(t, l, 2)
	if w.base != lost.base || at["s"].Seq != 3 {
		t.Errorf("the term began at %d and %d, the log is at %v", lost.base, w.base, at)
	}
	write(t, w, 4, 5)
	numbers(t, l, 5)
}

// TestTakeOutOfTime has a leader whose time ended before it took the log.
func TestTakeOutOfTime(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	late := newTerm(t, 1)
	late.until = late.until.Add(-2 * late.lease.ttl)
	if _, _, err := l.take(t.Context(), late); !errors.Is(err, errLost) {
		t.Errorf("took the log: %v", err)
	}
	if info, err := l.stream.Info(t.Context()); err != nil || info.State.LastSeq != 0 {
		t.Errorf("wrote %d records, %v", info.State.LastSeq, err)
	}
}

// TestTakeInBetween has an old leader that writes between the reading of the log and the
// record of the next term.
func TestTakeInBetween(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	old, _ := take(t, l, 1)
	write(t, old, 1, 3)
	created, err := l.js.Conn().SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.CREATED.feed.>")
	if err != nil {
		t.Fatal(err)
	}
	next := newTerm(t, 2)
	next.mu.Lock() // it is asked for before the record is written
	taken := make(chan positions, 1)
	go func() {
		w, at, err := l.take(t.Context(), next)
		if err == nil {
			w.close()
		}
		taken <- at
	}()
	if _, err := created.NextMsg(5 * time.Second); err != nil {
		t.Error(err)
	}
	write(t, old, 4, 4)
	next.mu.Unlock()
	if at := <-taken; at["s"].Seq != 4 {
		t.Errorf("the log is at %v", at)
	}
}

// TestTakeKeepsFalls has a stream whose numbers fell, and that is quiet for many terms.
func TestTakeKeepsFalls(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	w, _ := take(t, l, 1)
	for i, n := range []uint64{3, 2} {
		m := number(1, n)
		m.Header.Set(jetstream.MsgIDHeader, string(rune('a'+i)))
		if err := w.append(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.waiting.empty(t.Context()); err != nil {
		t.Fatal(err)
	}
	for term := uint64(2); term < 5; term++ {
		_, at := take(t, l, term)
		if !at.falls(resume.Position{Stream: "s", Epoch: "e", Seq: 9}) {
			t.Errorf("term %d: the log is at %v", term, at)
		}
	}
}
