package outbox_test

import (
	"time"

	"github.com/resock/resock/outbox"
)

// check holds all that was sent and told against what the peer saw and said.
func (s *schedule) check() {
	numbers := map[string]uint64{}
	for _, r := range s.disk.records {
		numbers[r.ID] = r.Number
		if s.told[r.ID].at.IsZero() {
			s.t.Errorf("%s was stored, and its end not told", r.ID)
		}
	}
	for _, id := range s.accepted {
		if numbers[id] == 0 {
			s.t.Errorf("%s was accepted, and is not on the disk", id)
		}
	}
	for _, p := range s.lives {
		if p.store.tooMany {
			s.t.Errorf("process %d had more than %d messages", p.number, s.most)
		}
		if p.store.early {
			s.t.Errorf("the store of process %d was closed during a Put", p.number)
		}
		p.checkAside()
		for _, u := range p.clients {
			for _, e := range u.ends {
				p.checkEnd(u, e)
			}
		}
	}
	for _, v := range s.peer.conns {
		s.checkOrder(v, numbers)
	}
}

// checkOrder looks at the order in a connection, and at what came first.
func (s *schedule) checkOrder(v *visit, numbers map[string]uint64) {
	p, before := s.lives[v.life], uint64(0)
	for i, r := range v.got {
		n := numbers[r.id]
		if n <= before {
			s.t.Errorf("%s came out of order in session %d of process %d", r.id, v.session, v.life)
		}
		before = n
		if told := s.told[r.id]; !told.at.IsZero() && told.at.Before(v.begun) && told.life == v.life {
			s.t.Errorf("%s came in session %d of process %d, %v after its end was told", r.id, v.session, v.life, r.at.Sub(told.at))
		}
		if i > 0 {
			continue
		}
		for _, lower := range s.disk.records[:max(n, 1)-1] {
			if s.disk.at[lower.Number].Before(v.begun) && !p.over(lower, r.at) {
				s.t.Errorf("%s came first in session %d of process %d, and not %s", r.id, v.session, v.life, lower.ID)
			}
		}
	}
}

// over reports whether a message was over for a process at a time.
func (p *life) over(r outbox.Record, at time.Time) bool {
	if p.gone[r.Number] {
		return true
	}
	for _, a := range p.aside {
		if a.id == r.ID {
			return true
		}
	}
	for _, v := range p.peer.conns {
		if said, ok := v.said[r.ID]; ok && v.life == p.number && !said.After(at) {
			return true
		}
	}
	return false
}

// checkAside looks for the sessions for which messages were set aside.
func (p *life) checkAside() {
	for _, a := range p.aside {
		lost := 0
		for _, u := range p.clients {
			for _, e := range u.ends {
				if !e.at.After(a.at) && (!e.planned(u) || e.at.Sub(e.begun) >= p.timeout) && p.came(u, e, a.id) {
					lost++
				}
			}
		}
		if p.losses < 0 || lost < p.losses {
			p.t.Errorf("%s was set aside after %d sessions of %d", a.id, lost, p.losses)
		}
	}
}

// came reports whether a message may have been the first one under way at the end of a
// session: the peer got none before it that it said nothing about.
func (p *life) came(u *user, e end, id string) bool {
	for _, v := range p.peer.conns {
		if v.life != p.number || v.client != u.number || v.session != e.session {
			continue
		}
		for _, r := range v.got {
			if r.id == id {
				return true
			}
			if said, ok := v.said[r.id]; (!ok || said.After(e.at)) && !p.peer.elsewhere(v, r.id) {
				return false
			}
		}
	}
	return true // it may have been lost on the way
}

// planned reports whether the application may have ended a session.
func (e end) planned(u *user) bool {
	if e.rule != "" {
		return false
	}
	for _, at := range u.acts {
		if d := e.at.Sub(at); d >= 0 && d < 5*time.Second {
			return true
		}
	}
	return false
}

// checkEnd looks whether a session ended for want of acknowledgements, and should have.
func (p *life) checkEnd(u *user, e end) {
	blocked := u.client.Stats().Blocked
	for _, v := range p.peer.conns {
		if v.life != p.number || v.client != u.number || v.session != e.session || !e.at.Before(p.closing) || p.late(v) {
			continue
		}
		since, owing := v.owed(e.at)
		waited := e.at.Sub(since)
		if owing && waited > p.timeout*9/8+blocked+2*time.Second {
			p.t.Errorf("process %d, client %d: session %d ended after %v without progress, %v of it blocked at most; want %v", p.number, u.number, e.session, waited, blocked, p.timeout)
		}
		if e.rule == "" && !e.planned(u) && blocked == 0 && (!owing || waited < p.timeout-time.Millisecond) {
			p.t.Errorf("process %d, client %d: session %d was ended %v after progress, with something owed: %v; want %v", p.number, u.number, e.session, waited, owing, p.timeout)
		}
	}
}

// late reports whether the process may have read late what was said about the messages of
// a connection.
func (p *life) late(v *visit) bool {
	for _, r := range v.got {
		if p.peer.elsewhere(v, r.id) {
			return true
		}
	}
	return false
}
