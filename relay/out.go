package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
)

// Out configures the way back: what any process publishes to NAME.out.ANYTHING goes to the
// server of the feed by an outbox, at least once and in order. JetStream keeps it until that
// server has acknowledged or refused it. It is sent as text, or with the header [HeaderType]
// "binary" as binary.
type Out struct {
	// Read finds what a message of the server acknowledges, as the Read of [outbox.Config]
	// does. Required.
	Read func(m resock.MessageEvent, found *outbox.Found) (pass bool)

	// ID returns what the acknowledgement of the server names. Defaults to the header
	// Nats-Msg-Id of the message, or if it has none, its sequence in the stream NAME-out.
	ID func(m jetstream.Msg) string

	// Window is how many messages may be under way. Defaults to 64.
	Window int
}

// outDelay is after how long JetStream brings a message again that is not acknowledged.
const outDelay = 30 * time.Second

// recentOut is how many messages are remembered as done, in case they come again.
const recentOut = 8192

// prepareOut makes the stream of the way back.
func (r *Relay) prepareOut(ctx context.Context, js jetstream.JetStream) error {
	if r.config.Out == nil {
		return nil
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: r.config.Name + "-out", Subjects: []string{r.log.names.out()}, Retention: jetstream.WorkQueuePolicy,
		Storage: r.config.Stream.Storage, Replicas: r.config.Stream.Replicas,
	})
	r.out = stream
	return err
}

// sender sends the messages of the way back in one term.
type sender struct {
	relay  *Relay
	box    *outbox.Box
	window int

	consumers int // that this term has had

	mu    sync.Mutex
	byID  map[string][]jetstream.Msg // under way, in order
	known map[uint64]bool            // sequences that the outbox was given; true if done
}

// startOut starts the way back for a term, which ends with the client of the reader or by
// stop.
func (r *Relay) startOut(t *term, f *reader) (stop func(), err error) {
	if r.out == nil {
		return func() {}, nil
	}
	s := &sender{
		relay: r, window: r.config.Out.Window,
		byID: make(map[string][]jetstream.Msg), known: make(map[uint64]bool),
	}
	if s.window == 0 {
		s.window = 64
	}
	s.box, err = outbox.Open(outbox.Config{
		Read: r.config.Out.Read, Window: s.window, Done: s.done,
		MaxLosses: -1, // nothing but the server ends a message
	})
	if err != nil {
		return nil, err
	}
	f.box.Store(s.box)
	if err := s.box.Bind(f.client); err != nil {
		return nil, errors.Join(err, s.box.Close())
	}
	ctx, cancel := context.WithCancel(t.ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.run(ctx, t.epoch)
	}()
	return func() {
		cancel()
		<-stopped
		_ = s.box.Close()
	}, nil
}

// run consumes the stream until ctx ends.
func (s *sender) run(ctx context.Context, term uint64) {
	var again backoff
	for ctx.Err() == nil {
		consumer, err := s.consumer(ctx, term)
		if err == nil {
			err = s.consume(ctx, consumer)
		}
		if ctx.Err() == nil {
			s.relay.config.Log.Warn("the way back is interrupted", "err", err)
			_ = again.wait(ctx)
		}
	}
}

// consumer returns the consumer of the term, and removes all there were, also one of this
// term that was interrupted: what is not acknowledged then comes again, in order. If a later
// term has one, this one is over.
func (s *sender) consumer(ctx context.Context, term uint64) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	names := s.relay.out.ConsumerNames(ctx)
	for name := range names.Name() {
		var other uint64
		if _, err := fmt.Sscanf(name, "term-%d", &other); err == nil && other > term {
			return nil, errLost
		}
		if err := s.relay.out.DeleteConsumer(ctx, name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
			return nil, err
		}
	}
	if err := names.Err(); err != nil {
		return nil, err
	}
	s.consumers++ // a server may still be at removing the files of the last one
	return s.relay.out.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: fmt.Sprintf("term-%d-%d", term, s.consumers), AckPolicy: jetstream.AckExplicitPolicy, AckWait: outDelay, MaxAckPending: s.window,
	})
}

func (s *sender) consume(ctx context.Context, consumer jetstream.Consumer) error {
	messages, err := consumer.Messages(jetstream.PullMaxMessages(s.window))
	if err != nil {
		return err
	}
	defer messages.Stop()
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		if err := s.put(ctx, m); err != nil {
			return err
		}
	}
}

// put gives a message to the outbox. One that comes again since it was not acknowledged in
// time is there already.
func (s *sender) put(ctx context.Context, m jetstream.Msg) error {
	meta, err := m.Metadata()
	if err != nil {
		return err
	}
	sequence, id := meta.Sequence.Stream, s.id(m, meta.Sequence.Stream)
	s.mu.Lock()
	if s.known[sequence-recentOut] {
		delete(s.known, sequence-recentOut)
	}
	done, known := s.known[sequence]
	switch {
	case !known:
		s.known[sequence] = false
		s.byID[id] = append(s.byID[id], m)
	case !done:
		s.renew(id, sequence, m)
	}
	s.mu.Unlock()
	switch {
	case done:
		return m.Ack()
	case known:
		return m.InProgress()
	}
	return s.store(ctx, id, m)
}

// renew notes the delivery that is to be acknowledged: the consumer of an earlier one may be
// gone. mu is held.
func (s *sender) renew(id string, sequence uint64, m jetstream.Msg) {
	for i, other := range s.byID[id] {
		if meta, err := other.Metadata(); err == nil && meta.Sequence.Stream == sequence {
			s.byID[id][i] = m
		}
	}
}

func (s *sender) id(m jetstream.Msg, sequence uint64) string {
	if s.relay.config.Out.ID != nil {
		return s.relay.config.Out.ID(m)
	}
	if id := m.Headers().Get(jetstream.MsgIDHeader); id != "" {
		return id
	}
	return strconv.FormatUint(sequence, 10)
}

// store stores a message in the outbox, as soon as there is room. One that cannot be sent at
// all is ended.
func (s *sender) store(ctx context.Context, id string, m jetstream.Msg) error {
	typ := resock.MessageText
	if m.Headers().Get(HeaderType) == "binary" {
		typ = resock.MessageBinary
	}
	var again backoff
	for {
		err := s.box.Put(ctx, id, typ, m.Data())
		switch {
		case err == nil:
			return nil
		case errors.Is(err, outbox.ErrFull):
			if err := again.wait(ctx); err != nil {
				return err
			}
		case ctx.Err() != nil, errors.Is(err, outbox.ErrClosed):
			return err
		default:
			s.relay.config.Log.Error("a message cannot be sent", "id", id, "err", err)
			s.drop(id, m)
			return m.TermWithReason(err.Error())
		}
	}
}

// drop forgets a message that the outbox did not take.
func (s *sender) drop(id string, m jetstream.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(m)
	if s.byID[id] = slices.DeleteFunc(s.byID[id], func(other jetstream.Msg) bool { return other == m }); len(s.byID[id]) == 0 {
		delete(s.byID, id)
	}
}

// take returns the first message under way with an id, and forgets it.
func (s *sender) take(id string) jetstream.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.byID[id]
	if len(list) == 0 {
		return nil
	}
	if s.byID[id] = list[1:]; len(list) == 1 {
		delete(s.byID, id)
	}
	s.end(list[0])
	return list[0]
}

// end notes that a message is done; mu is held.
func (s *sender) end(m jetstream.Msg) {
	if meta, err := m.Metadata(); err == nil {
		s.known[meta.Sequence.Stream] = true
	}
}

// done ends a message for JetStream when it has ended for the outbox. If that is lost it
// comes again, and is ended then.
func (s *sender) done(result outbox.Result) {
	m := s.take(result.ID)
	if m == nil {
		return
	}
	if result.Err != nil {
		s.relay.config.Log.Error("a message was not taken", "id", result.ID, "err", result.Err)
		_ = m.TermWithReason(result.Err.Error())
		return
	}
	s.relay.count(func(s *Stats) { s.Outgoing++ })
	_ = m.Ack()
}
