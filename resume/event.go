package resume

import (
	"fmt"

	"github.com/resock/resock"
)

// Event is a [Message], a [Gap], a [Lifecycle], a [StoreError], or a [Repeated].
type Event interface{ event() }

// Message is a message that was not delivered before. Its Data is that of the record that
// [Config.Read] found. If Read found nothing, it is the whole message, and Position is zero.
type Message struct {
	resock.MessageEvent
	Position Position
}

// Repeated is a message that was delivered before. It is an event only with
// [Config.Repeated].
type Repeated struct {
	resock.MessageEvent
	Position Position
}

// Gap says that messages of a stream are missing, just before the event that follows. They
// are not delivered later, even if they come. A gap is told once; one whose end is not
// known is told again by each session that opens before the next message.
//
// Be done with a gap before the loop goes on, or note it: then it counts as handled, and
// the cursor may pass it.
type Gap struct {
	Stream string
	Reason Reason

	// From and To are the first and the last number that is missing, in the epoch of Last.
	// Numbers that a stream does not use are among them, if it is not [Dense]. To is 0 if
	// nobody can tell, and both are if Last is a token.
	From, To uint64

	Last Position // that was delivered, or the cursor of a feed that began with it
	UpTo Position // the last that is missing, maybe in another epoch; only Stream is set if that is not known
}

// Missing returns how many numbers are missing, if that is known.
func (g Gap) Missing() (n uint64, known bool) {
	if g.To == 0 {
		return 0, false
	}
	return g.To - g.From + 1, true
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
// [Config.SaveEvery], unless that is negative; it may have worked since.
type StoreError struct{ Err error }

func (Message) event()    {}
func (Repeated) event()   {}
func (Gap) event()        {}
func (Lifecycle) event()  {}
func (StoreError) event() {}
