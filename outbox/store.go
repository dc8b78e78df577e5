package outbox

import (
	"context"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox/journal"
)

// Record is a message in a [Store].
type Record = journal.Record

// Store keeps messages until they are done. Its methods may be called concurrently.
type Store interface {
	// Put stores a message and returns its number, which is higher than all before. When
	// the error is nil, the message outlasts what the store promises. Put does not keep
	// data.
	Put(ctx context.Context, id string, typ resock.MessageType, data []byte) (number uint64, err error)

	// Next returns the first message with a higher number than after that is not done. No
	// lower number may come to be stored later: one that is being put hides the higher ones.
	// Data belongs to the caller. An error with a Number is about that message: it can
	// never be read.
	Next(after uint64) (r Record, ok bool, err error)

	// Done says that messages need not be stored any longer. If a crash loses that, they
	// are sent again.
	Done(numbers ...uint64) error

	// Len returns the messages that are not done, and their size in bytes.
	Len() (messages int, bytes int64)

	Close() error
}
