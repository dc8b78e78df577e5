package resume

import (
	"slices"
	"sort"
)

// stream is one stream of a feed. Its fields are guarded by the mutex of the feed.
type stream struct {
	feed *Feed
	name string

	// What was delivered.
	known  bool     // there is a floor
	floor  Position // of the last one
	unsure bool     // a gap before the next message has been told
	told   uint64   // the last number in it, or 0
	losing uint64   // the session in which a loss was told that has no end yet, or 0
	tokens recent   // of the last ones

	// What was committed. Deliveries are numbered from 1.
	given  uint64 // the last one
	low    uint64 // all up to it are committed
	cursor Cursor // the position of low
	ahead  []span // committed beyond low: in order, and apart

	// Where the server lost the cursor, it is not used before low reaches a delivery.
	expired uint64
	instead Cursor
	lost    bool     // a hook has said so, and the loop has not come to its session
	lostIn  uint64   // that session
	owed    []uint64 // sessions that have to tell a loss: for a hook, or since they asked without a position
}

// span is a range of deliveries that are committed.
type span struct {
	first, last uint64
	at          Position // of the last
}

// start lets the stream go on after p, as if all up to it had been committed.
func (s *stream) start(p Position) {
	s.lost, s.tokens = false, recent{}
	s.reach(p)
	s.low, s.ahead = s.given, nil
	s.cursor, s.expired = Cursor{plain(p), true}, 0
}

// reach notes that p is the last position that was delivered.
func (s *stream) reach(p Position) {
	s.known, s.unsure, s.told, s.losing, s.floor = true, false, 0, 0, p
	if p.opaque() {
		s.tokens.add(p.Token, s.feed.recent)
	}
}

// plain returns p without what only a delivery has.
func plain(p Position) Position {
	p.of, p.n = nil, 0
	return p
}

// deliver numbers a delivery. Without a bond the cursors of before are worth nothing, and
// the next session asks for what comes after this one.
func (s *stream) deliver(p Position, bond bool) Position {
	s.given++
	if !bond || s.expired > s.low && !s.instead.Known {
		s.expired, s.instead = s.given, Cursor{plain(p), true}
	}
	s.reach(p)
	p.of, p.n = s, s.given
	return p
}

// bond reports whether p can follow what was delivered.
func (s *stream) bond(p Position) bool { return s.known && (p.opaque() || p.same(s.floor)) }

// verdict is what becomes of a message.
type verdict int

const (
	repeated verdict = iota // it was delivered before
	next                    // it is to be delivered
	early                   // a gap is to be told, and then it is looked at again
	unwanted                // its stream was removed
)

// admit decides about a message. A gap is told once: what follows then is next, unless the
// consumer left the loop, and more is missing now.
func (s *stream) admit(p Position) (verdict, Gap) {
	v, gap := s.compare(p)
	if v == early && s.covered(gap) {
		v = next
	}
	if v == early {
		s.unsure, s.told = true, gap.To
	}
	return v, gap
}

// covered reports whether a gap was told already. One without an end covers all.
func (s *stream) covered(gap Gap) bool {
	return s.unsure && (s.told == 0 || gap.Reason != NewEpoch && gap.To <= s.told)
}

// compare compares a message with the last one.
func (s *stream) compare(p Position) (verdict, Gap) {
	switch {
	case p.opaque() && s.tokens.has(p.Token):
		return repeated, Gap{}
	case p.opaque(), !s.known:
		return next, Gap{}
	case !p.same(s.floor):
		return early, s.gap(NewEpoch, p.before())
	case p.Link == Linked && p.Prev == s.floor.Seq && p.Seq != p.Prev:
		return next, Gap{} // even if the numbers begin anew
	case p.Seq <= s.floor.Seq:
		return repeated, Gap{}
	}
	to := uint64(0)
	switch p.Link {
	case Dense:
		to = p.Seq - 1
	case Linked:
		to = p.Prev
	}
	if to <= s.floor.Seq {
		return next, Gap{}
	}
	gap := s.gap(Hole, p.before())
	gap.To = to
	return early, gap
}

// mark notes that the stream goes on after p. If that tells a gap, at is to be committed
// once that is handled.
func (s *stream) mark(p Position) (at Position, gap Gap, missing bool) {
	switch {
	case !s.known:
	case p.opaque():
		if s.tokens.has(p.Token) {
			return at, gap, false
		}
		gap = s.gap(CursorLost, p)
	case !p.same(s.floor):
		gap = s.gap(NewEpoch, p)
	case p.Seq <= s.floor.Seq:
		return at, gap, false
	default:
		gap = s.gap(CursorLost, p)
		gap.To = p.Seq
	}
	missing = s.known && !s.covered(gap)
	return s.deliver(p, !missing && s.bond(p)), gap, missing
}

// lose notes that the server has lost the cursor, as a session knows. A loss has no end
// before the next message, and each session until then tells it, since each may have
// missed something.
func (s *stream) lose(session uint64) (gap Gap, missing bool) {
	s.lost = s.lost && session < s.lostIn
	s.owed = slices.DeleteFunc(s.owed, func(n uint64) bool { return n <= session })
	s.expired, s.instead = s.given+1, Cursor{Position: Position{Stream: s.name}}
	if !s.known || s.losing == session {
		return gap, false
	}
	gap = s.gap(CursorLost, Position{Stream: s.name})
	s.unsure, s.told, s.losing = true, 0, session
	return gap, true
}

// owe notes that a session may miss what came before it.
func (s *stream) owe(session uint64) {
	if !slices.Contains(s.owed, session) {
		s.owed = append(s.owed, session)
	}
}

// missed reports whether a session that opens has to tell a loss. That of an earlier one
// may have been left out.
func (s *stream) missed(session uint64) bool {
	return s.losing > 0 || slices.ContainsFunc(s.owed, func(n uint64) bool { return n <= session })
}

// gap returns a gap after what was delivered.
func (s *stream) gap(reason Reason, upTo Position) Gap {
	gap := Gap{Stream: s.name, Reason: reason, Last: plain(s.floor), UpTo: plain(upTo)}
	if !s.floor.opaque() {
		gap.From = max(s.floor.Seq, s.told) + 1
	}
	return gap
}

// commit notes that a delivery was handled, and reports whether that moved the cursor.
func (s *stream) commit(p Position) bool {
	switch {
	case p.n <= s.low:
		return false
	case p.n == s.low+1 && len(s.ahead) == 0:
		s.low, s.cursor = p.n, Cursor{plain(p), true}
		return true
	}
	i := sort.Search(len(s.ahead), func(i int) bool { return s.ahead[i].last >= p.n })
	if i < len(s.ahead) && s.ahead[i].first <= p.n {
		return false
	}
	before := i > 0 && s.ahead[i-1].last+1 == p.n
	after := i < len(s.ahead) && s.ahead[i].first == p.n+1
	switch {
	case before && after:
		s.ahead[i].first = s.ahead[i-1].first
		s.ahead = slices.Delete(s.ahead, i-1, i)
	case before:
		s.ahead[i-1].last, s.ahead[i-1].at = p.n, plain(p)
	case after:
		s.ahead[i].first = p.n
	default:
		s.ahead = slices.Insert(s.ahead, i, span{p.n, p.n, plain(p)})
	}
	if s.ahead[0].first > s.low+1 {
		return false
	}
	s.low, s.cursor = s.ahead[0].last, Cursor{s.ahead[0].at, true}
	s.ahead = slices.Delete(s.ahead, 0, 1)
	return true
}

// ask returns what a session asks for.
func (s *stream) ask(session uint64) Cursor {
	c := s.after()
	if s.known && !c.Known {
		s.owe(session)
	}
	return c
}

// after returns where the next session is to go on.
func (s *stream) after() Cursor {
	switch {
	case s.lost:
		return Cursor{Position: Position{Stream: s.name}}
	case s.floor.opaque() && s.given-s.low > uint64(s.feed.recent) && s.losing == 0:
		return Cursor{s.floor, true} // what comes after the cursor would not be recognised
	case s.expired > s.low:
		return s.instead
	case !s.cursor.Known:
		return Cursor{Position: Position{Stream: s.name}}
	}
	return s.cursor
}

// recent is a set of the last tokens.
type recent struct {
	set   map[string]struct{}
	order []string // a ring, once it has its full size
	first int      // the oldest
}

func (r *recent) has(token string) bool {
	_, ok := r.set[token]
	return ok
}

func (r *recent) add(token string, most int) {
	if r.has(token) {
		return
	}
	if r.set == nil {
		r.set = make(map[string]struct{})
	}
	r.set[token] = struct{}{}
	if len(r.order) < most {
		r.order = append(r.order, token)
		return
	}
	delete(r.set, r.order[r.first])
	r.order[r.first] = token
	r.first = (r.first + 1) % most
}
