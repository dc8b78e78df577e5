package resume_test

import (
	"math"
	"slices"

	"github.com/resock/resock/resume"
)

// The model of TestSchedules knows the log of the server: what is missing between two
// messages is seen there, and not from their numbers.

// view is what a process was told of a stream. Places are indexes in the server's log.
type view struct {
	stream *source
	known  bool
	last   int    // where the stream is
	open   bool   // a gap up to the next message was told
	told   int    // the place that it reaches to; what is behind it is missing, too
	losing uint64 // the session that told a loss without an end, or 0
	blind  uint64 // up to this session nobody can see what is missing, unless numbers show it
	recent []string
	got    map[int]bool // where it was

	given   []*delivery
	low     int          // so many of them are committed without a hole
	cursor  int          // the place of the last of these, or -1
	went    int          // where the stream went on after a loss or a new epoch, or 0
	lost    bool         // it did not go on yet
	hooked  bool         // a hook knows of a loss, to be told when a session opens
	asked   uint64       // that session, or a later one
	owed    []uint64     // sessions that are to tell a loss, or that asked without a place
	base    int          // what is before is not the process's concern
	handled map[int]bool // committed, or told in a gap
}

// delivery is a message, or a place that was told in a gap.
type delivery struct {
	view *view
	n    int // from 1
	at   int
	done bool
	p    resume.Position
}

// record is something that the server told.
type record struct {
	what string // "" is a message, "=" a snapshot, "@" a mark, "lost" and "none" are these
	name string
	at   int
}

// want is the event that a record must bring: none, a gap, a message, or a repeated one.
type want struct {
	what     string
	gap      resume.Gap
	at       int
	delivery *delivery
}

func (v *view) position(at int) resume.Position { return v.stream.log[at] }

// bond reports whether the message at a place is of the same epoch.
func (v *view) bond(at int) bool {
	return v.known && v.position(at).Epoch == v.position(v.last).Epoch
}

func (v *view) repeats(at int) bool {
	if v.stream.kind == tokens {
		return slices.Contains(v.recent, v.position(at).Token)
	}
	return v.known && v.bond(at) && at <= v.last
}

// misses reports whether a message before the place was not delivered.
func (v *view) misses(at int) bool {
	from := v.last + 1
	if v.stream.kind == tokens {
		from = max(from, v.base+1) // started there, and then one from before came late
	}
	for i := from; i < at; i++ {
		if v.stream.kind != tokens || !v.got[i] && !v.handled[i] {
			return true
		}
	}
	return false
}

func (v *view) gap(reason resume.Reason, upTo resume.Position) want {
	gap := resume.Gap{Stream: v.stream.name, Reason: reason, Last: v.position(v.last), UpTo: stored(upTo)}
	if v.stream.kind != tokens {
		gap.From = v.position(v.end()).Seq + 1
	}
	return want{what: "gap", gap: gap}
}

// end is the place up to which all was delivered, or told in a gap that has an end.
func (v *view) end() int {
	if v.open && v.told < math.MaxInt {
		return max(v.last, v.told)
	}
	return v.last
}

// before is the position before that at a place, as far as that tells it.
func (v *view) before(at int) resume.Position {
	p := v.position(at)
	switch before := (resume.Position{Stream: p.Stream, Epoch: p.Epoch, Seq: p.Prev}); {
	case p.Token == "" && p.Link == resume.Linked:
		return before
	case p.Token == "" && p.Link == resume.Dense && p.Seq > 0:
		before.Seq = p.Seq - 1
		return before
	}
	return resume.Position{Stream: p.Stream}
}

func (v *view) reach(at, recent int) {
	v.known, v.open, v.losing, v.last, v.got[at] = true, false, 0, at, true
	token := v.position(at).Token
	if token == "" || slices.Contains(v.recent, token) {
		return
	}
	if v.recent = append(v.recent, token); len(v.recent) > recent {
		v.recent = v.recent[1:]
	}
}

// deliver goes on to a place. What was passed has been told.
func (v *view) deliver(at int, bond bool, recent int) *delivery {
	if !v.known {
		v.base = at - 1
	}
	for i := v.last + 1; v.known && i < at; i++ {
		v.handled[i] = true
	}
	d := &delivery{view: v, n: len(v.given) + 1, at: at, p: v.position(at)}
	v.given = append(v.given, d)
	if !bond || v.lost {
		v.went, v.lost = d.n, false
	}
	v.reach(at, recent)
	return d
}

// commit notes that a delivery was handled.
func (v *view) commit(d *delivery) {
	if d.n <= v.low {
		return
	}
	d.done, v.handled[d.at] = true, true
	for v.low < len(v.given) && v.given[v.low].done {
		v.cursor = v.given[v.low].at
		v.low++
	}
}

// start goes on after a place, as if all up to it were handled.
func (v *view) start(at, recent int) {
	v.recent = nil
	v.reach(at, recent)
	v.low, v.cursor, v.base, v.handled = len(v.given), at, at, map[int]bool{}
	v.went, v.lost, v.hooked = 0, false, false
}

// ask returns the place that the next session asks for, or -1.
func (v *view) ask(recent int) int {
	switch {
	case v.hooked:
		return -1
	case v.stream.kind == tokens && v.known && v.losing == 0 && len(v.given)-v.low > recent:
		return v.last
	case v.lost:
		return -1
	case v.went > v.low:
		return v.given[v.went-1].at
	}
	return v.cursor
}

func (p *process) view(name string) *view {
	v := p.views[name]
	if v == nil {
		v = &view{stream: p.streams[name], cursor: -1, handled: map[int]bool{}, got: map[int]bool{}}
		if p.drops {
			v.blind = math.MaxUint64
		}
		p.views[name] = v
		delete(p.removed, name)
	}
	return v
}

// step looks at the first record, and takes it off the queue unless a gap comes before.
func (p *process) step() want {
	r := p.queue[0]
	p.queue = p.queue[1:]
	v := p.views[r.name]
	if last, removed := p.removed[r.name]; v == nil && r.what != "none" {
		if r.what == "lost" || r.what == "missed" {
			return want{}
		}
		if removed && p.session <= last {
			if r.what != "@" {
				p.stats.Unwanted++
			}
			return want{}
		}
		v = p.view(r.name)
	}
	switch r.what {
	case "none":
		return want{what: "none"}
	case "missed":
		if !v.missed(p.session) {
			return want{}
		}
		return p.lose(v)
	case "lost":
		return p.lose(v)
	case "@":
		return p.mark(v, r.at)
	case "=":
		return p.deliver(v, r.at, false)
	}
	w := p.message(v, r.at)
	if w.what == "gap" {
		p.queue = slices.Insert(p.queue, 0, r)
	}
	return w
}

func (p *process) message(v *view, at int) want {
	if v.repeats(at) {
		p.stats.Duplicates++
		if p.config.Repeated {
			return want{what: "repeated", at: at}
		}
		return want{}
	}
	if v.known && (!v.open || v.told < at-1) {
		switch {
		case !v.bond(at):
			w := v.gap(resume.NewEpoch, v.before(at))
			v.open, v.told = true, math.MaxInt
			return w
		case !v.misses(at):
		case v.stream.kind == dense || v.stream.kind == linked:
			w := v.gap(resume.Hole, v.before(at))
			w.gap.To = v.position(at - 1).Seq
			v.open, v.told = true, at-1
			return w
		case p.session > v.blind:
			p.errorf("%v comes after %v, and what is between was never told", v.position(at), v.position(v.last))
		}
	}
	if v.known && v.open && v.told < at-1 {
		p.errorf("%v comes after a gap up to %v", v.position(at), v.position(v.told))
	}
	return p.deliver(v, at, v.bond(at))
}

func (p *process) deliver(v *view, at int, bond bool) want {
	p.stats.Messages++
	return want{what: "message", at: at, delivery: v.deliver(at, bond, p.recent)}
}

func (p *process) mark(v *view, at int) (w want) {
	if v.repeats(at) {
		return w
	}
	missing := v.known && (!v.open || v.told < at)
	if missing {
		w = v.gap(resume.CursorLost, v.position(at))
		if !v.bond(at) {
			w.gap.Reason = resume.NewEpoch
		} else if v.stream.kind != tokens {
			w.gap.To = v.position(at).Seq
		}
	}
	w.delivery = v.deliver(at, !missing && v.bond(at), p.recent)
	if !missing {
		v.commit(w.delivery)
	}
	return w
}

func (p *process) lose(v *view) want {
	v.hooked = v.hooked && p.session < v.asked
	v.owed = slices.DeleteFunc(v.owed, func(n uint64) bool { return n <= p.session })
	v.lost, v.went = true, 0
	if !v.known || v.losing == p.session {
		return want{}
	}
	w := v.gap(resume.CursorLost, resume.Position{Stream: v.stream.name})
	v.open, v.told, v.losing = true, math.MaxInt, p.session
	return w
}

// missed reports whether a session that opens is to tell a loss.
func (v *view) missed(session uint64) bool {
	return v.losing > 0 || len(v.owed) > 0 && slices.Min(v.owed) <= session
}

// next returns the event that the queue must bring.
func (p *process) next() want {
	for len(p.queue) > 0 {
		if w := p.step(); w.what != "" {
			return w
		}
	}
	return want{}
}

// settle catches up with a loop that waits for the client.
func (p *process) settle() {
	if p.busy {
		return
	}
	if w := p.next(); w.what != "" {
		p.errorf("no event, want %+v", w)
	}
}
