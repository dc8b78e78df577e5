// Package outbox sends messages until the server acknowledges them, over reconnects and,
// with a store in files, over restarts of the process: at least once, and in order. How
// the server acknowledges is the protocol's business, and one function of the application:
//
//	box, err := outbox.Open(outbox.Config{
//		Store: store, // of outbox/journal, or nil for memory
//		Read:  func(m resock.MessageEvent, found *outbox.Found) (pass bool) { … },
//	})
//	client, err := resock.New(url, resock.WithFilter(box.Filter))
//	…
//	box.Bind(client)
//	go client.Run(ctx)
//	…
//	err = box.Put(ctx, "order-17", resock.MessageText, data) // nil once it is stored
//
// # What is sent when
//
// In each session all that is not acknowledged goes first, in the order of Put and with
// identical bytes, within [Config.Window]. Within a session nothing is sent twice: if the
// server does not acknowledge the first message under way within [Config.AckTimeout], the
// session is replaced ([resock.Client.Reconnect]) and all goes again. The time in which
// delivery is blocked does not count, since acknowledgements stand behind what is not
// taken.
//
// The server may see a message more than once. If it drops those whose id it has seen, it
// takes each exactly once.
//
// # What ends a message
//
// An acknowledgement, a refusal, or, with [Config.Done], that it was the first under way
// when [Config.MaxLosses] sessions in a row were lost without any acknowledgement: a
// server that a message kills would otherwise never get the next one. Sessions that the
// application ended do not count, and nor does what was before a restart of the process.
package outbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/resock/resock"
)

// Errors of a message, in [Result] and of [Box.Put].
var (
	// ErrRefused says that the server refused a message. The error wraps why.
	ErrRefused = errors.New("outbox: refused by the server")

	// ErrSetAside says that a message was set aside: too many sessions were lost while it
	// was the first one under way.
	ErrSetAside = errors.New("outbox: set aside")

	// ErrUnreadable says that the store cannot read a message any more. It has no Data.
	ErrUnreadable = errors.New("outbox: the store cannot read it any more")

	// ErrFull says that a bound of [Config] was reached, and that nothing was stored. It is a
	// [resock.ErrQueueFull].
	ErrFull = fmt.Errorf("outbox: full (Config.MaxMessages, Config.MaxBytes): %w", resock.ErrQueueFull)

	// ErrClosed says that the box is closed. Nothing was stored.
	ErrClosed = errors.New("outbox: closed")

	errNoReason = errors.New("no reason given")
)

// Config configures [Open]. Read is required.
type Config struct {
	// Read finds what a message of the server acknowledges or refuses, and reports whether
	// the subscribers are to get the message, too. It is called on the reading goroutine,
	// for each message, so it should be quick; m.Data is valid during the call.
	Read func(m resock.MessageEvent, found *Found) (pass bool)

	// Store keeps the messages, and is closed with the box. Without one they are kept in
	// memory.
	Store Store

	// Done is told how each message ended, one after the other: also those of an earlier
	// process, and some of them again after a crash. Until it returns, they still count as
	// stored.
	Done func(Result)

	// MaxMessages and MaxBytes bound what is stored, as the store counts: a journal counts
	// its files. Default to 10,000 messages and 64 MiB.
	MaxMessages int
	MaxBytes    int64

	// Window is how many messages may be under way: sent and not acknowledged. Defaults to
	// 64.
	Window int

	// AckTimeout is how long the first message under way may be without an acknowledgement
	// before the session is replaced. Defaults to 30 s; negative means for ever.
	AckTimeout time.Duration

	// MaxLosses is how many sessions in a row may be lost while a message is the first one
	// under way, before it is set aside. Defaults to 10; negative means any number. Without
	// Done nothing is set aside.
	MaxLosses int
}

// Result is how a message ended.
type Result struct {
	ID   string
	Type resock.MessageType
	Data []byte
	Err  error // nil if it was acknowledged; else [ErrRefused], [ErrSetAside] or [ErrUnreadable]
}

// Stats is a snapshot of a box.
type Stats struct {
	Messages int   // stored, and not done
	Bytes    int64 // that the store takes
	UnderWay int   // sent in the present session, and not acknowledged
	Acked    uint64
	Refused  uint64
	SetAside uint64
	Resent   uint64 // messages sent that this process had sent in an earlier session
	StoreErr error  // the last failure to read or write the store, after Put; it is tried again each second
}

// Box is an outbox. Its methods may be called concurrently.
type Box struct {
	config Config
	store  Store
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	wake   chan struct{} // rings for the sender
	tell   chan struct{} // rings for the teller
	done   []uint64      // what the store is to forget; the teller's

	quiet    chan struct{} // closed when only the teller runs
	finished chan struct{} // closed when the store is closed
	closeErr error         // of the store, once finished is closed

	mu        sync.Mutex
	closed    bool
	putting   sync.WaitGroup // calls of Put
	messages  int            // that they store
	bytes     int64
	inherited bool           // the store had messages when the box was opened
	first     uint64         // the first number of a Put, or 0
	stored    uint64         // the last one, or 0
	client    *resock.Client // nil if none is bound
	flight    flight
	ended     []ended       // to be told
	telling   []ended       // being told
	moved     chan struct{} // closed when there is news for Flush; nil while nobody waits
	stats     Stats
}

// Open returns a box with the messages that the store has. An error names the field that
// cannot be, or is that of the store.
func Open(config Config) (*Box, error) {
	if config.Read == nil {
		return nil, errors.New("outbox: Config.Read is nil")
	}
	for name, n := range map[string]int64{"MaxMessages": int64(config.MaxMessages), "MaxBytes": config.MaxBytes, "Window": int64(config.Window)} {
		if n < 0 {
			return nil, fmt.Errorf("outbox: Config.%s is %d, want a positive number, or 0 for the default", name, n)
		}
	}
	byDefault(&config.MaxMessages, 10_000)
	byDefault(&config.MaxBytes, 64<<20)
	byDefault(&config.Window, 64)
	byDefault(&config.AckTimeout, 30*time.Second)
	byDefault(&config.MaxLosses, 10)
	if config.Store == nil {
		config.Store = new(memory)
	}
	b := &Box{config: config, store: config.Store, wake: make(chan struct{}, 1), tell: make(chan struct{}, 1), quiet: make(chan struct{}), finished: make(chan struct{})}
	messages, _ := b.store.Len()
	b.inherited = messages > 0
	b.ctx, b.cancel = context.WithCancel(context.Background())
	go b.run()
	return b, nil
}

func byDefault[T comparable](field *T, value T) {
	if *field == *new(T) {
		*field = value
	}
}

// Put stores a message, which is then sent until it is done. It returns nil once the
// message is stored as the store promises; ctx bounds that. id is what [Config.Read] finds
// in the acknowledgement. Two messages may have the same id, say after an error that leaves
// open whether the first is stored: each acknowledgement ends one.
//
// ErrFull and ErrClosed mean that nothing was stored, and so do the errors for an empty id,
// for text that is not UTF-8, and for a message larger than [Config.MaxBytes]. Other errors
// are those of the store. Put does not keep data.
func (b *Box) Put(ctx context.Context, id string, typ resock.MessageType, data []byte) error {
	switch {
	case id == "":
		return errors.New("outbox: Put: the id is empty: no acknowledgement could name it")
	case typ != resock.MessageText && typ != resock.MessageBinary:
		return fmt.Errorf("outbox: Put %q: the type is %v, want MessageText or MessageBinary", id, typ)
	case typ == resock.MessageText && !utf8.Valid(data):
		return fmt.Errorf("outbox: Put %q: the text is not valid UTF-8 (RFC 6455, section 5.6)", id)
	case int64(len(data)) > b.config.MaxBytes:
		return fmt.Errorf("outbox: Put %q: the message has %d bytes, more than Config.MaxBytes (%d)", id, len(data), b.config.MaxBytes)
	}
	if err := b.reserve(int64(len(data))); err != nil {
		return fmt.Errorf("outbox: Put %q: %w", id, err)
	}
	number, err := b.store.Put(ctx, id, typ, data)
	b.release(int64(len(data)), number)
	ring(b.wake) // it may be stored, whatever the error
	if err != nil {
		return fmt.Errorf("outbox: Put %q: %w", id, err)
	}
	return nil
}

// reserve makes room for a message. It looks at the store after that: a message that is
// stored meanwhile may count twice, but never not at all.
func (b *Box) reserve(size int64) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.messages++
	b.bytes += size
	b.putting.Add(1)
	messages, bytes := b.messages, b.bytes
	b.mu.Unlock()
	stored, storedBytes := b.store.Len()
	if messages+stored > b.config.MaxMessages || bytes+storedBytes > b.config.MaxBytes {
		b.release(size, 0)
		return ErrFull
	}
	return nil
}

// release gives the room back, which the store now counts if the message has a number.
func (b *Box) release(size int64, number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages--
	b.bytes -= size
	b.stored = max(b.stored, number)
	if number > 0 && (b.first == 0 || number < b.first) {
		b.first = number
		b.stir()
	}
	b.putting.Done()
}

// ring wakes a goroutine up.
func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// Stats returns a snapshot of the box.
func (b *Box) Stats() Stats {
	messages, bytes := b.store.Len()
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Messages, s.Bytes, s.UnderWay = messages, bytes, b.flight.underWay()
	return s
}

// Flush waits until all that was stored before is done, and [Config.Done] was told. Done and
// [Config.Read] must not call it with a context that never ends: it would wait for them.
func (b *Box) Flush(ctx context.Context) error {
	b.mu.Lock()
	upTo := b.stored
	b.mu.Unlock()
	for {
		news := b.news() // before it looks
		left, _ := b.store.Len()
		if b.settled(upTo, left) {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("outbox: Flush: %w: %d messages are stored", context.Cause(ctx), left)
		case <-b.ctx.Done():
			return fmt.Errorf("outbox: Flush: %w: %d messages are stored", ErrClosed, left)
		}
	}
}

// news returns a channel that is closed when there is news.
func (b *Box) news() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.moved == nil {
		b.moved = make(chan struct{})
	}
	return b.moved
}

// settled reports whether all up to a number is done and told. An upTo of 0 means what an
// earlier process left, and left is what the store has.
func (b *Box) settled(upTo uint64, left int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case upTo > 0 || !b.inherited:
	case b.first > 0:
		upTo = b.first - 1
	default:
		return left == 0
	}
	for _, list := range [][]ended{b.ended, b.telling} {
		for _, e := range list {
			if e.Number <= upTo {
				return false
			}
		}
	}
	return b.flight.low() > upTo || b.flight.low() == 0 && b.flight.after >= upTo
}

// stir tells Flush that there is news; mu is held.
func (b *Box) stir() {
	if b.moved != nil {
		close(b.moved)
		b.moved = nil
	}
}

// run tells what is done until the box is closed, and then ends it.
func (b *Box) run() {
	told := make(chan struct{})
	go func() {
		defer close(told)
		b.teller()
	}()
	<-b.ctx.Done()
	b.putting.Wait()
	b.tasks.Wait()
	close(b.quiet)
	<-told
	if err := b.store.Close(); err != nil {
		b.closeErr = fmt.Errorf("outbox: close the store: %w", err)
	}
	close(b.finished)
}

// patience is how long Close waits for Config.Done.
const patience = time.Second

// Close ends the box and closes the store, with all that is not done: the next box has it.
// It waits for calls of Put, and for a message that is being written, and for
// [Config.Done] for 1 s. If that has not returned by then, as when it calls Close, the
// error says so, and the store is closed when it has. The client may go on.
func (b *Box) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	<-b.quiet
	select {
	case <-b.finished:
		return b.closeErr
	case <-time.After(patience):
		return errors.New("outbox: Close: Config.Done has not returned: the store is closed when it has")
	}
}
