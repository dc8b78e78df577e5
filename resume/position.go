package resume

import (
	"fmt"
	"strings"

	"github.com/resock/resock"
)

// Position says where a message stands in its stream: by a sequence number, or by a
// token that only the server understands. A Position with a Token and no Seq is a token.
type Position struct {
	Stream string // "" if there is only one
	Epoch  string // of the sequence; in another epoch the numbers mean something else
	Seq    uint64
	Prev   uint64 // the number before this one, if Link is Linked
	Link   Link
	Token  string // what the server wants to have back

	of *stream // that it was delivered from, or nil
	n  uint64  // its number among the deliveries of that
}

// Link says how a sequence number shows that something is missing before it.
type Link int

const (
	Dense  Link = iota // each number is the one before plus one
	Linked             // the message names the number before, in Prev
	Sparse             // numbers only rise: what is missing cannot be seen
)

// String returns the position in short, for logs.
func (p Position) String() string {
	var b strings.Builder
	if p.Stream != "" {
		fmt.Fprintf(&b, "%s ", p.Stream)
	}
	switch {
	case p.opaque():
		fmt.Fprintf(&b, "token %q", p.Token)
	case p.Epoch != "":
		fmt.Fprintf(&b, "%s:%d", p.Epoch, p.Seq)
	default:
		fmt.Fprintf(&b, "%d", p.Seq)
	}
	return b.String()
}

// opaque reports whether the position is a token.
func (p Position) opaque() bool { return p.Token != "" && p.Seq == 0 }

// same reports whether two positions can be compared by their numbers.
func (p Position) same(q Position) bool {
	return p.Epoch == q.Epoch && !p.opaque() && !q.opaque()
}

// before returns the position before p, as far as p tells it.
func (p Position) before() Position {
	switch before := (Position{Stream: p.Stream, Epoch: p.Epoch}); {
	case p.opaque():
	case p.Link == Linked:
		before.Seq = p.Prev
		return before
	case p.Link == Dense && p.Seq > 0:
		before.Seq = p.Seq - 1
		return before
	}
	return Position{Stream: p.Stream}
}

// Cursor is where a stream goes on.
type Cursor struct {
	Position
	Known bool // if not, only Stream is set, and the stream begins as the protocol has it
}

// Found is what [Config.Read] finds in a message, in order. It is valid during the call.
type Found struct{ items []item }

// item is one thing that was found.
type item struct {
	kind     kind
	position Position
	data     []byte
}

type kind int

const (
	message kind = iota
	snapshot
	mark
	loss
)

// Message says that the message holds the record data at p: the whole message, or a part
// of it. data must not be changed later.
func (f *Found) Message(p Position, data []byte) {
	f.items = append(f.items, item{message, p, data})
}

// Snapshot says that the message holds the record data at p, and that it replaces all that
// came before in its stream: nothing is missing, and numbers may fall. data must not be
// changed later.
func (f *Found) Snapshot(p Position, data []byte) {
	f.items = append(f.items, item{snapshot, p, data})
}

// At says that the stream goes on after p, as the answer to a subscription does. A stream
// of which nothing is known begins there. If messages up to p were not delivered, they are
// missing, and a [Gap] says so: what the same answer brings comes before At.
func (f *Found) At(p Position) { f.items = append(f.items, item{mark, p, nil}) }

// Lost says that the server cannot go on after the cursor of a stream, and does not say
// where it goes on instead. If it does, At tells more.
func (f *Found) Lost(stream string) {
	f.items = append(f.items, item{loss, Position{Stream: stream}, nil})
}

// read lets the application read a message.
func (f *Found) read(read func(resock.MessageEvent, *Found), m resock.MessageEvent) []item {
	clear(f.items)
	f.items = f.items[:0]
	read(m, f)
	return f.items
}
