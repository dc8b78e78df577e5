package resume

import (
	"fmt"

	"github.com/resock/resock"
)

// Event is a [Message], a [Gap], a [Lifecycle] or a [StoreError].
type Event interface{ event() }

// Message is a message that was not delivered before. Its Data is that of the record that
// [Config.Read] found. If Read found none, it is the whole message, and Position is zero.
type Message struct {
	resock.MessageEvent
	Position Position
}

// Gap says that messages of a stream are missing, just before the event that follows, and
// that the feed will not deliver them. It is told once.
type Gap struct {
	Stream string
	Reason Reason

	// From and To are the first and the last number that is missing, in the epoch of Last.
	// Numbers that a stream does not use are among them, if it is not [Dense]. To is 0 if
	// nobody can tell, and both are if Last is a token.
	From, To uint64

	Last Position // that was delivered, or the cursor of a feed that began with it
	Next Position // where the stream goes on; only its Stream is set if that is not known
}

// Reason says what showed a gap.
type Reason int

const (
	Hole       Reason = iota // the numbers of a message
	NewEpoch                 // another epoch: nobody can tell what the last one still had
	CursorLost               // the server: it cannot go on after the cursor
)

// String returns the name of the reason.
func (r Reason) String() string {
	switch r {
	case Hole:
		return "hole"
	case NewEpoch:
		return "new epoch"
	case CursorLost:
		return "cursor lost"
	}
	return fmt.Sprintf("Reason(%d)", int(r))
}

// Lifecycle is an open, fail or close event of the client, in its place among the messages.
type Lifecycle struct{ resock.Event }

// StoreError says that cursors could not be saved. It is tried again after
// [Config.SaveEvery].
type StoreError struct{ Err error }

func (Message) event()    {}
func (Gap) event()        {}
func (Lifecycle) event()  {}
func (StoreError) event() {}
