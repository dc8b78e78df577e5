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

	"github.com/resock/resock"
)

// Errors of a message, in [Result] and of [Box.Put].
var (
	// ErrRefused says that the server refused a message. The error wraps why.
	ErrRefused = errors.New("outbox: refused by the server")

	// ErrSetAside says that a message was set aside: too many sessions were lost while it
	// was the first one under way.
	ErrSetAside = errors.New("outbox: set aside")

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
	// for each message while any is under way, so it should be quick; m.Data is valid
	// during the call.
	Read func(m resock.MessageEvent, found *Found) (pass bool)

	// Store keeps the messages, and is closed with the box. Without one they are kept in
	// memory.
	Store Store

	// Done is told how each message ended, one after the other: also those of an earlier
	// process, and some of them twice after a crash. While it does not return, the next
	// ones still count as stored.
	Done func(Result)

	// MaxMessages and MaxBytes bound what is stored. Default to 10,000 messages and 64 MiB.
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
	Err  error // nil if it was acknowledged; else [ErrRefused] or [ErrSetAside]
}

// Stats is a snapshot of a box.
type Stats struct {
	Messages int   // stored, and not done
	Bytes    int64 // of them
	UnderWay int   // sent in the present session, and not acknowledged
	Acked    uint64
	Refused  uint64
	SetAside uint64
	Resent   uint64 // messages sent that had been sent in an earlier session
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

	mu       sync.Mutex
	closed   bool
	putting  sync.WaitGroup // calls of Put
	messages int            // that they store
	bytes    int64
	stored   uint64         // the last number
	client   *resock.Client // nil if none is bound
	flight   flight
	ended    []ended       // to be told
	telling  []ended       // being told
	moved    chan struct{} // closed when any was told
	stats    Stats
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
	b := &Box{config: config, store: config.Store, wake: make(chan struct{}, 1), tell: make(chan struct{}, 1), moved: make(chan struct{})}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.tasks.Go(b.teller)
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
// ErrFull and ErrClosed mean that nothing was stored; other errors are those of the store.
// Put does not keep data.
func (b *Box) Put(ctx context.Context, id string, typ resock.MessageType, data []byte) error {
	switch {
	case id == "":
		return errors.New("outbox: Put: the id is empty: no acknowledgement could name it")
	case typ != resock.MessageText && typ != resock.MessageBinary:
		return fmt.Errorf("outbox: Put %q: the type is %v, want MessageText or MessageBinary", id, typ)
	}
	if err := b.reserve(int64(len(data))); err != nil {
		return fmt.Errorf("outbox: Put %q: %w", id, err)
	}
	number, err := b.store.Put(ctx, id, typ, data)
	b.release(int64(len(data)), number)
	if err != nil {
		return fmt.Errorf("outbox: Put %q: %w", id, err)
	}
	ring(b.wake)
	return nil
}

// reserve makes room for a message.
func (b *Box) reserve(size int64) error {
	messages, bytes := b.store.Len()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return ErrClosed
	case messages+b.messages >= b.config.MaxMessages, bytes+b.bytes+size > b.config.MaxBytes:
		return ErrFull
	}
	b.messages++
	b.bytes += size
	b.putting.Add(1)
	return nil
}

// release gives the room back, which the store now counts if the message has a number.
func (b *Box) release(size int64, number uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.messages--
	b.bytes -= size
	b.stored = max(b.stored, number)
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

// Flush waits until all that was put before is done, and [Config.Done] was told.
func (b *Box) Flush(ctx context.Context) error {
	b.mu.Lock()
	upTo := b.stored
	b.mu.Unlock()
	for {
		b.mu.Lock()
		settled, moved := b.settled(upTo), b.moved
		b.mu.Unlock()
		if settled {
			return nil
		}
		left, _ := b.store.Len()
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("outbox: Flush: %w: %d messages are stored", context.Cause(ctx), left)
		case <-b.ctx.Done():
			return fmt.Errorf("outbox: Flush: %w: %d messages are stored", ErrClosed, left)
		}
	}
}

// settled reports whether all up to a number is done and told; mu is held.
func (b *Box) settled(upTo uint64) bool {
	for _, list := range [][]ended{b.ended, b.telling} {
		for _, e := range list {
			if e.Number <= upTo {
				return false
			}
		}
	}
	return b.flight.low() > upTo || b.flight.low() == 0 && b.flight.after >= upTo
}

// Close ends the box and closes the store, with all that is not done: the next box has it.
// The client may go on.
func (b *Box) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	b.mu.Unlock()
	b.cancel()
	b.putting.Wait()
	b.tasks.Wait()
	if err := b.store.Close(); err != nil {
		return fmt.Errorf("outbox: close the store: %w", err)
	}
	return nil
}
