package relay

import (
	"slices"

	"github.com/resock/resock/resume"
)

// positions are where the streams of the feed are.
type positions map[string]place

// place is where a stream is.
type place struct {
	resume.Position
	fell bool // its numbers fell in this epoch, so they name no message
}

// falls reports whether the numbers of a stream have fallen in its epoch when a message is
// at a position: then it is a snapshot, since what comes again is not delivered.
func (p positions) falls(at resume.Position) bool {
	last, known := p[at.Stream]
	switch {
	case !known || last.Epoch != at.Epoch:
		return false
	case numbered(at) && numbered(last.Position):
		return last.fell || at.Seq <= last.Seq
	}
	return last.fell || at.Seq == last.Seq && at.Token == last.Token
}

// numbered reports whether a position is a number, not a token.
func numbered(p resume.Position) bool { return p.Token == "" || p.Seq > 0 }

// note notes the position of the last message of a stream.
func (p positions) note(at resume.Position) {
	p[at.Stream] = place{resume.Position{Stream: at.Stream, Epoch: at.Epoch, Seq: at.Seq, Token: at.Token}, p.falls(at)}
}

// fall notes that the numbers of a stream fell.
func (p positions) fall(stream string) {
	if at, known := p[stream]; known {
		at.fell = true
		p[stream] = at
	}
}

func (p positions) list() []resume.Position {
	list := make([]resume.Position, 0, len(p))
	for _, at := range p {
		list = append(list, at.Position)
	}
	return list
}

// fallen returns the streams whose numbers fell.
func (p positions) fallen() (streams []string) {
	for stream, at := range p {
		if at.fell {
			streams = append(streams, stream)
		}
	}
	slices.Sort(streams)
	return streams
}
