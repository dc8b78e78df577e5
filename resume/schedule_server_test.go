package resume_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// kind is what the positions of a stream are.
type kind int

const (
	dense kind = iota
	linked
	sparse
	tokens
)

// source is a stream at the server. The log keeps all, for the model; the server remembers
// what comes after first.
type source struct {
	name    string
	kind    kind
	log     []resume.Position
	start   int // of the epoch
	first   int
	epochs  int
	history int
	unasked bool // it is sent to everybody
}

// grow adds a message to the log.
func (s *source) grow(leap int) {
	p := resume.Position{Stream: s.name}
	last := uint64(0)
	if n := len(s.log); n > s.start {
		last = s.log[n-1].Seq
	}
	switch s.kind {
	case tokens:
		p.Token = fmt.Sprintf("t%d", len(s.log))
	case linked:
		p.Link, p.Prev, p.Seq = resume.Linked, last, last+1+uint64(leap)
	case sparse:
		p.Link, p.Seq = resume.Sparse, last+1+uint64(leap)
	default:
		p.Seq = last + 1
	}
	if s.epochs > 0 && s.kind != tokens {
		p.Epoch = fmt.Sprintf("e%d", s.epochs)
	}
	s.log = append(s.log, p)
	s.first = max(s.first, len(s.log)-s.history)
}

// reset forgets all, and numbers begin anew.
func (s *source) reset() {
	s.first = len(s.log)
	if s.kind != tokens {
		s.start = len(s.log)
		s.epochs++
	}
}

// find returns the place of a position, or -1.
func (s *source) find(p resume.Position) int {
	return slices.IndexFunc(s.log, func(q resume.Position) bool {
		return q.Epoch == p.Epoch && q.Seq == p.Seq && q.Token == p.Token
	})
}

// text writes a record in the protocol of read, and remembers it.
func (s *schedule) text(what, name string, at int) string {
	var text string
	switch source := s.streams[name]; what {
	case "lost":
		text = name + " lost"
	default:
		p := source.log[at]
		number := strconv.FormatUint(p.Seq, 10)
		switch {
		case p.Token != "":
			number = "#" + p.Token
		case p.Link == resume.Linked && what == "":
			number = fmt.Sprintf("%d>%d", p.Prev, p.Seq)
		case p.Link == resume.Sparse:
			number = "~" + number
		}
		if p.Epoch != "" {
			name += "/" + p.Epoch
		}
		text = name + " " + what + number
		name = source.name
	}
	s.records[text] = record{what, name, at}
	return text
}

// link is the connection that the server pushes to, and what was sent in it.
type link struct {
	conn *resocktest.Conn
	next map[string]int // the place of the next message of each stream
}

// push sends records, some in one message.
func (s *schedule) push(conn *resocktest.Conn, records []string) {
	for len(records) > 0 {
		n := 1
		if s.one(3) {
			n = 1 + s.upTo(len(records)-1)
		}
		_ = conn.Push(strings.Join(records[:n], ","))
		records = records[n:]
	}
}

// forward sends what is new.
func (s *schedule) forward() {
	if s.link == nil {
		return
	}
	var records []string
	for _, name := range s.names {
		at, ok := s.link.next[name]
		for ; ok && at < len(s.streams[name].log); at++ {
			records = append(records, s.text("", name, at))
		}
		if ok {
			s.link.next[name] = at
		}
	}
	s.push(s.link.conn, records)
}

// produce lets the streams grow until the end.
func (s *schedule) produce() {
	for {
		s.pause(time.Second)
		s.mu.Lock()
		if s.settled {
			s.mu.Unlock()
			return
		}
		source := s.streams[s.names[s.upTo(len(s.names)-1)]]
		switch {
		case s.one(25):
			source.reset()
		default:
			for range 1 + s.upTo(3) {
				source.grow(s.upTo(3))
			}
		}
		if !s.one(4) {
			s.forward()
		}
		s.mu.Unlock()
	}
}

// serve answers a subscription, and ends the connection after a while.
func (s *schedule) serve(conn *resocktest.Conn) {
	m, err := conn.Read()
	if err != nil {
		return
	}
	s.mu.Lock()
	a := s.subscribe(string(m.Data))
	head := "subscribed:"
	if a.refused() {
		head = "refused:"
	}
	_ = conn.Push(strings.Join(append([]string{head}, a.lost...), " "))
	if a.refused() {
		_ = conn.Close(1008, "expired")
		s.mu.Unlock()
		return
	}
	s.push(conn, a.records)
	s.link = &link{conn, a.next}
	settled := s.settled
	s.mu.Unlock()
	if settled {
		return
	}
	s.pause(8 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.settled || s.link == nil || s.link.conn != conn {
		return
	}
	s.end(conn)
	s.link = nil
}

// end ends a connection in one of many ways.
func (s *schedule) end(conn *resocktest.Conn) {
	switch s.upTo(4) {
	case 0:
		conn.Drop()
	case 1:
		conn.Reset()
	case 2:
		_ = conn.Close(1012, "restart")
	case 3:
		_ = conn.HalfClose()
	default:
		conn.CutAfter(s.upTo(100))
		for _, name := range s.names {
			s.streams[name].grow(s.upTo(3))
		}
		s.forward()
		conn.Drop()
	}
}

// answer is what the server says to a subscription.
type answer struct {
	refuses bool     // if anything is lost
	lost    []string // the streams that a hook learns of
	records []string
	next    map[string]int
}

func (a answer) refused() bool { return a.refuses && len(a.lost) > 0 }

// subscribe answers a subscription: for each stream its name and the place, or -1.
func (s *schedule) subscribe(asks string) answer {
	a := answer{refuses: s.one(2), next: map[string]int{}}
	for ask := range strings.FieldsSeq(asks) {
		name, text, _ := strings.Cut(ask, "=")
		at, _ := strconv.Atoi(text)
		source := s.streams[name]
		known := at >= 0 && at >= source.start && at+1 >= source.first
		switch {
		case at < 0:
			s.begin(&a, source)
		case !known || s.one(20) && !s.settled:
			s.loses(&a, source)
		default:
			start := max(source.first, at+1-s.upTo(3))
			s.replay(&a, source, start)
			if s.one(3) && len(source.log) > source.start {
				a.records = append(a.records, s.text("@", name, len(source.log)-1))
			}
		}
	}
	for _, name := range s.names {
		if _, ok := a.next[name]; !ok && s.streams[name].unasked {
			a.next[name] = len(s.streams[name].log)
		}
	}
	return a
}

// replay sends what comes from a place on.
func (s *schedule) replay(a *answer, source *source, from int) {
	for at := from; at < len(source.log); at++ {
		a.records = append(a.records, s.text("", source.name, at))
	}
	a.next[source.name] = len(source.log)
}

// somewhere returns a place where the server can go on.
func (s *schedule) somewhere(source *source) int {
	return source.first + s.upTo(len(source.log)-source.first)
}

// begin answers a subscription without a cursor.
func (s *schedule) begin(a *answer, source *source) {
	from, n := s.somewhere(source), len(source.log)
	switch s.upTo(4) {
	case 0:
		if from > source.start {
			a.records = append(a.records, s.text("@", source.name, from-1))
		}
	case 1:
		if n > source.start {
			a.records = append(a.records, s.text("=", source.name, n-1))
			from = n
		}
	}
	s.replay(a, source, from)
}

// loses answers a subscription with a cursor that the server has lost.
func (s *schedule) loses(a *answer, source *source) {
	from, n := s.somewhere(source), len(source.log)
	switch how := s.upTo(5); {
	case how < 2:
		a.lost = append(a.lost, source.name)
	case how == 2 && from > source.start:
		a.records = append(a.records, s.text("@", source.name, from-1))
	case how == 3 && n > source.start:
		a.records = append(a.records, s.text("=", source.name, n-1))
		from = n
	case how == 4 && (source.kind == dense || source.kind == linked):
		// The numbers show it.
	default:
		a.records = append(a.records, s.text("lost", source.name, 0))
	}
	s.replay(a, source, from)
}
