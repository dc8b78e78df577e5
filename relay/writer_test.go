package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/resume"
)

// openLog returns a log of the stream "feed".
func openLog(t *testing.T, conn *nats.Conn) *log {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	names := subjects{"feed"}
	stream, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{
		Name: "feed", Subjects: []string{names.message(">"), names.gap(), names.term()}, AllowAtomicPublish: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	return &log{js: js, stream: stream, names: names, limit: limit{64, 1 << 20}, told: func(error) {}}
}

// newTerm returns a term that lasts as long as the test, whatever the lease.
func newTerm(t *testing.T, epoch uint64) *term {
	t.Helper()
	ctx, end := context.WithCancelCause(t.Context())
	return &term{
		lease: &lease{ttl: time.Hour}, epoch: epoch, ctx: ctx, end: end, until: time.Now().Add(time.Hour),
	}
}

func take(t *testing.T, l *log, epoch uint64) (*writer, positions) {
	t.Helper()
	w, at, err := l.take(t.Context(), newTerm(t, epoch))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.close)
	return w, at
}

func number(term, n uint64) *nats.Msg {
	m := resume.Message{Position: resume.Position{Stream: "s", Epoch: "e", Seq: n}}
	return &nats.Msg{
		Subject: "feed.msg.s", Data: fmt.Append(nil, n),
		Header: header(term, m, time.Now(), idOf(term, m, n, false)),
	}
}

// write writes numbers, and waits until they are acknowledged.
func write(t *testing.T, w *writer, from, to uint64) {
	t.Helper()
	for n := from; n <= to; n++ {
		if err := w.append(t.Context(), number(w.term, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.waiting.empty(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// numbers fails the test unless the log has each number up to last once, in order.
func numbers(t *testing.T, l *log, last uint64) {
	t.Helper()
	consumer, err := l.js.OrderedConsumer(t.Context(), "feed", jetstream.OrderedConsumerConfig{FilterSubjects: []string{"feed.msg.>"}})
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= last; n++ {
		m, err := consumer.Next(jetstream.FetchMaxWait(5 * time.Second))
		if err != nil {
			t.Fatalf("number %d: %v", n, err)
		}
		if string(m.Data()) != fmt.Sprint(n) {
			t.Fatalf("got %s, want %d", m.Data(), n)
		}
		if meta, _ := m.Metadata(); n == last && meta.NumPending > 0 {
			t.Fatalf("%d messages too many", meta.NumPending)
		}
	}
}

func TestWriterGoesOnWhereTheLogEnds(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	first, at := take(t, l, 1)
	if len(at) != 0 {
		t.Errorf("an empty log is at %v", at)
	}
	write(t, first, 1, 100)
	second, at := take(t, l, 2)
	if at["s"].Seq != 100 || at["s"].Epoch != "e" {
		t.Errorf("the log is at %v", at)
	}
	write(t, second, 101, 150)
	if _, at = take(t, l, 3); at["s"].Seq != 150 {
		t.Errorf("the log is at %v", at)
	}
	numbers(t, l, 150)
}

// TestWriterIsFenced has an old leader that goes on after another took over.
func TestWriterIsFenced(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	old, _ := take(t, l, 1)
	write(t, old, 1, 10)
	next, _ := take(t, l, 2)
	for n := uint64(11); n <= 30; n++ {
		if old.append(t.Context(), number(1, n)) != nil {
			break
		}
	}
	<-old.ctx.Done()
	if err := context.Cause(old.ctx); err != errFenced {
		t.Errorf("the old one ended by %v", err)
	}
	write(t, next, 11, 20)
	numbers(t, l, 20)
}

// TestTakeAfterALaterTerm has a leader that was stopped between the lease and the log.
func TestTakeAfterALaterTerm(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	take(t, l, 2)
	if _, _, err := l.take(t.Context(), newTerm(t, 1)); !errors.Is(err, errLost) {
		t.Errorf("an earlier term took the log: %v", err)
	}
}

func TestWriterDropsWhatTheLogHas(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	first, _ := take(t, l, 1)
	write(t, first, 1, 10)
	second, _ := take(t, l, 2)
	write(t, second, 5, 20)
	if s := second.counted(); s.Repeated != 6 || s.Written != 10 {
		t.Errorf("%+v", s)
	}
	numbers(t, l, 20)
}

// TestWriterWaits checks that no more than the limit is under way while nothing is
// acknowledged, and that all is written when JetStream is back.
func TestWriterWaits(t *testing.T) {
	s := startTCP(t)
	l := openLog(t, s.connect())
	w, _ := take(t, l, 1)
	write(t, w, 1, 10)
	s.stop()
	for n := uint64(11); n <= 74; n++ {
		if err := w.append(t.Context(), number(1, n)); err != nil {
			t.Fatal(err)
		}
	}
	full, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.append(full, number(1, 75)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with 64 under way: %v", err)
	}
	s.start()
	write(t, w, 75, 100)
	numbers(t, l, 100)
}

// TestWriterLearnsTheLimitOfBatches has a server that takes only small batches.
func TestWriterLearnsTheLimitOfBatches(t *testing.T) {
	o := &natsserver.Options{
		JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true, DontListen: true,
		JetStreamLimits: natsserver.JSLimitOpts{MaxBatchSize: 50},
	}
	s, err := natsserver.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.WaitForShutdown)
	t.Cleanup(s.Shutdown)
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	l := openLog(t, conn)
	l.limit.messages = 1000
	w, _ := take(t, l, 1)
	write(t, w, 1, 1000)
	write(t, w, 1001, 2000)
	numbers(t, l, 2000)
	w.close()
	if s := w.counted(); s.Requests > 1000 || s.Repeated > 0 || w.most > 50 || w.most < 20 {
		t.Errorf("at most %d in a batch: %+v", w.most, s)
	}
}

// gathered returns a writer that finds messages waiting when it starts, so that it writes
// them in one batch.
func gathered(t *testing.T, l *log, epoch uint64, messages ...*nats.Msg) *writer {
	t.Helper()
	idle, _ := take(t, l, epoch)
	return goOn(t, idle, mostBatch, messages...)
}

// goOn returns a writer that goes on where another one of its term is, and finds messages
// waiting.
func goOn(t *testing.T, idle *writer, most int, messages ...*nats.Msg) *writer {
	t.Helper()
	idle.close()
	w := &writer{
		log: idle.log, term: idle.term, began: idle.began, base: idle.base, waiting: newBacklog(idle.log.limit),
		most: most, done: make(chan struct{}), retry: func() {},
	}
	for _, m := range messages {
		if w.waiting.add(m) != nil {
			t.Fatal("no room")
		}
	}
	w.ctx, w.fail = context.WithCancelCause(t.Context())
	go w.run()
	t.Cleanup(w.close)
	return w
}

// written waits until a writer has nothing left, and returns the subjects in the log after
// the record that began the term.
func written(t *testing.T, w *writer) (subjects []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := w.waiting.empty(ctx); err != nil {
		t.Fatal(err)
	}
	for n := w.began + 1; n <= w.base; n++ {
		raw, err := w.log.stream.GetMsg(ctx, n)
		if err != nil {
			t.Fatal(err)
		}
		subjects = append(subjects, raw.Subject)
	}
	return subjects
}

// limitSize lets the stream refuse what has more bytes, headers included.
func limitSize(t *testing.T, l *log, size int32) {
	t.Helper()
	config := l.stream.CachedInfo().Config
	config.MaxMsgSize = size
	if _, err := l.js.UpdateStream(t.Context(), config); err != nil {
		t.Fatal(err)
	}
}

// TestWriterRefusedInABatch has a message that is too large for the stream, or for the
// connection, at each place of a batch: only a gap stands for it, and the others are
// written.
func TestWriterRefusedInABatch(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	l.limit.bytes = 16 << 20
	limitSize(t, l, 1000)
	term := uint64(0)
	for _, size := range []int{2000, 3 << 20} {
		for bad := range 3 {
			messages := []*nats.Msg{number(1, 3*term+1), number(1, 3*term+2), number(1, 3*term+3)}
			messages[bad].Data = make([]byte, size)
			term++
			w := gathered(t, l, term, messages...)
			want := []string{"feed.msg.s", "feed.msg.s", "feed.msg.s"}
			want[bad] = "feed.gap"
			if got := written(t, w); !slices.Equal(got, want) {
				t.Errorf("%d bytes: the log has %q, want %q", size, got, want)
			}
			w.close()
			if w.counted().Refused != 1 || w.solo != 0 {
				t.Errorf("%d bytes: %+v, %d are to be written one by one", size, w.counted(), w.solo)
			}
		}
	}
}

// TestWriterRefusedGap has a stream that does not take even the gap: it is left out, and
// what follows is written.
func TestWriterRefusedGap(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	w, _ := take(t, l, 1)
	limitSize(t, l, 100)
	for _, m := range []*nats.Msg{l.gap(Gap{Reason: strings.Repeat("x", 200)}, resume.Position{}, "gap/1/1"), l.record(1, positions{"s": {Position: resume.Position{Stream: strings.Repeat("x", 200)}}}, "at/1/2", false)} {
		if err := w.append(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	small := &nats.Msg{Subject: "feed.msg.s", Header: nats.Header{jetstream.MsgIDHeader: {"a"}}}
	if err := w.append(t.Context(), small); err != nil {
		t.Fatal(err)
	}
	if got := written(t, w); !slices.Equal(got, []string{"feed.msg.s"}) {
		t.Errorf("the log has %q", got)
	}
}

// TestWriterLooks asks what became of a batch whose answer was lost.
func TestWriterLooks(t *testing.T) {
	l := openLog(t, connect(t, startServer(t)))
	w, _ := take(t, l, 1)
	base := w.base
	write(t, w, 1, 3)
	asks := &writer{log: l, term: 1, base: base, ctx: t.Context()}
	for _, test := range []struct {
		name string
		last uint64
		want error
	}{{"one", 1, nil}, {"whole", 3, nil}, {"a part", 4, errPartial}} {
		var unit []*nats.Msg
		for n := uint64(1); n <= test.last; n++ {
			unit = append(unit, number(1, n))
		}
		if err := asks.look(unit); err != test.want {
			t.Errorf("%s: %v, want %v", test.name, err, test.want)
		}
	}
	take(t, l, 2)
	if err := asks.look([]*nats.Msg{number(1, 1), number(1, 2), number(1, 3), number(1, 4)}); err != errPartial {
		t.Errorf("a part before the record of another term: %v", err)
	}
	remove(t, l, base+1)
	if err := asks.look([]*nats.Msg{number(1, 1)}); err != errFenced {
		t.Errorf("where a record was removed: %v", err)
	}
	asks.base += 3
	if err := asks.look([]*nats.Msg{number(1, 4)}); err != errFenced {
		t.Errorf("behind the record of another term: %v", err)
	}
	asks.base++
	if err := asks.look([]*nats.Msg{number(1, 4)}); err == nil || err == errFenced || err == errPartial {
		t.Errorf("at the end of the log: %v", err)
	}
}

// TestWriterGoesOnTooLate has an old leader that goes on with one message or several: some
// that the next one has not written, or that it has.
func TestWriterGoesOnTooLate(t *testing.T) {
	for _, late := range [][]uint64{{5}, {5, 6, 7}, {1}, {1, 2, 3}} {
		l := openLog(t, connect(t, startServer(t)))
		idle, _ := take(t, l, 1)
		next, _ := take(t, l, 2)
		write(t, next, 1, 3)
		var messages []*nats.Msg
		for _, n := range late {
			messages = append(messages, number(1, n))
		}
		old := goOn(t, idle, mostBatch, messages...)
		select {
		case <-old.ctx.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the old one goes on")
		}
		if err := context.Cause(old.ctx); late[0] == 5 && err != errFenced {
			t.Errorf("%v: ended by %v", late, err)
		}
		numbers(t, l, 3)
	}
}
