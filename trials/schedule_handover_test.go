package trials

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/resock/resock"
)

// rivalry is what the server does to a connection when the next one registers.
type rivalry int

const (
	rivalsNone  rivalry = iota
	rivalsClose         // it closes it
	rivalsDrop          // it cuts it
	rivalsPush          // it pushes on both
)

// drawHandover adds handovers to a third of the plans: by age and on request, with a
// server and an application that get in their way.
func (g generator) drawHandover() {
	if !g.one(3) {
		return
	}
	g.overlap = oneOf(g, 100*time.Millisecond, 500*time.Millisecond, time.Second, 5*time.Second)
	g.options = append(g.options, choice[resock.Option]{fmt.Sprintf("handover(%v)", g.overlap), resock.WithHandover(g.overlap)})
	if g.one(3) {
		age := oneOf(g, 10*time.Millisecond, 200*time.Millisecond, 3*time.Second)
		g.options = append(g.options, choice[resock.Option]{fmt.Sprintf("age(%v)", age), resock.WithMaxSessionAge(age)})
	}
	if g.one(3) {
		g.rivals = 1 + rivalry(g.IntN(3))
	}
	g.hookReceives, g.hookSends = g.hookReceives || g.one(3), g.hookSends || g.one(3)
	g.hookBinds = g.one(3)
	if g.one(2) {
		g.hookTakes = min(g.pause(), g.dialIn/2)
	}
	for range 1 + g.IntN(6) {
		g.insert(g.handover())
	}
	for range g.IntN(4) {
		g.insert(g.toBoth())
	}
}

// handover asks for a handover, and perhaps for something else in the middle of it.
func (g generator) handover() choice[func(*trial)] {
	then := oneOf(g,
		choice[func(*trial)]{"no more", func(*trial) {}},
		choice[func(*trial)]{"no more", func(*trial) {}},
		choice[func(*trial)]{"no more", func(*trial) {}},
		choice[func(*trial)]{"another", func(tr *trial) { tr.client.Handover() }},
		choice[func(*trial)]{"reconnect", func(tr *trial) { tr.client.Reconnect() }},
		choice[func(*trial)]{"suspend", (*trial).suspend},
		choice[func(*trial)]{"suspend, resume", func(tr *trial) { tr.suspend(); tr.resume() }},
		choice[func(*trial)]{"offline", func(tr *trial) { tr.setOnline(false) }},
		choice[func(*trial)]{"server restarts", func(tr *trial) { tr.server.Restart() }},
		choice[func(*trial)]{"server stops", func(tr *trial) { tr.server.Stop() }},
	)
	if g.one(20) {
		then = oneOf(g, choice[func(*trial)]{"close", (*trial).close}, choice[func(*trial)]{"cancel", (*trial).cancel})
	}
	pause, sizes := oneOf(g, 0, g.pause(), g.overlap/4, g.overlap/2, g.overlap), make([]int, g.IntN(4))
	for i := range sizes {
		sizes[i] = g.size()
	}
	return choice[func(*trial)]{fmt.Sprintf("handover, enqueue(sizes %v), +%v %s", sizes, pause, then.text), func(tr *trial) {
		tr.client.Handover()
		for _, size := range sizes {
			tr.enqueue(size, 0, false)
		}
		time.Sleep(pause)
		then.pick(tr)
	}}
}

// toBoth is something that happens to the last two connections.
func (g generator) toBoth() choice[func(*trial)] {
	job := g.peerAction()
	c := oneOf(g,
		choice[func(*serverSide)]{"drop", func(p *serverSide) { p.conn.Drop() }},
		choice[func(*serverSide)]{"ignore close", func(p *serverSide) { p.conn.IgnoreClose() }},
		choice[func(*serverSide)]{"ignore pings", func(p *serverSide) { p.conn.IgnorePings() }},
		choice[func(*serverSide)]{"stop reading", func(p *serverSide) { p.conn.StopReading() }},
		choice[func(*serverSide)]{job.text, func(p *serverSide) { p.post(job.pick) }},
	)
	return choice[func(*trial)]{"both: " + c.text, func(tr *trial) {
		tr.mu.Lock()
		peers := slices.Clone(tr.peers)
		tr.mu.Unlock()
		for _, p := range peers[max(0, len(peers)-2):] {
			c.pick(p)
		}
	}}
}

// post queues a job, to be done after the others.
func (p *serverSide) post(job func(*serverSide)) {
	select {
	case p.jobs <- job:
	default:
	}
}

// registered does to the connection before p what the server does when p registers.
func (tr *trial) registered(p *serverSide) {
	tr.mu.Lock()
	peers := slices.Clone(tr.peers)
	tr.mu.Unlock()
	at := slices.Index(peers, p)
	if at <= 0 {
		return
	}
	old := peers[at-1]
	switch tr.rivals {
	case rivalsClose:
		old.post(func(p *serverSide) {
			p.over, p.code = true, 4001
			_ = p.conn.Close(p.code, "another session")
		})
	case rivalsDrop:
		old.conn.Drop()
	case rivalsPush:
		for _, p := range []*serverSide{old, p} {
			p.post(func(p *serverSide) { p.push(push{size: 10}) })
		}
	}
}

// bind enqueues messages that are bound to the session in OnOpen, and to that which it
// will replace.
func (tr *trial) bind(s *resock.Session, dial int) {
	bound := func(session uint64, dial int) {
		p := tr.newParcel(0)
		p.session, p.dial = session, dial
		err := tr.client.Enqueue(resock.MessageText, packet('o', p.id, 0, 10), resock.WithSession(session),
			resock.WithResult(func(err error) { tr.settled(p, err) }))
		if err != nil {
			tr.settled(p, err)
		}
	}
	bound(s.ID(), dial)
	if old := s.Predecessor(); old != 0 {
		bound(old, 0)
	}
}

// linger makes OnOpen take its time.
func (tr *trial) linger(ctx context.Context) {
	if tr.hookTakes > 0 {
		select {
		case <-time.After(tr.hookTakes):
		case <-ctx.Done():
		}
	}
}

// handed reports whether session i replaced the one before it while that was open, as far
// as the events tell.
func (m *model) handed(i int) bool {
	if m.overlap == 0 || i == 0 {
		return false
	}
	end, ok := m.sessions[i-1].end.(resock.CloseEvent)
	return ok && end.Next == resock.StateConnecting && m.sessions[i].open.Downtime == 0 && m.sessions[i].open.Time.Equal(end.Time)
}

// checkHandovers checks what a handover promises beyond what holds for a reconnect.
func (m *model) checkHandovers() {
	stats := m.client.Stats()
	handed := uint64(0)
	for i, o := range m.sessions {
		if !m.handed(i) {
			continue
		}
		handed++
		m.checkReplaced(m.sessions[i-1], o)
	}
	switch {
	case m.overlap == 0 && (stats.Handovers > 0 || stats.HandoverOff):
		m.t.Errorf("%d handovers, off %t, without WithHandover", stats.Handovers, stats.HandoverOff)
	case stats.Handovers > handed && !m.aborted:
		m.t.Errorf("Stats counts %d handovers, but at most %d sessions replaced one that was open", stats.Handovers, handed)
	}
	if m.most > 1 {
		m.t.Errorf("%d attempts were in OnOpen at once", m.most)
	}
}

// checkReplaced checks that no message before the server's answer to the close frame was
// lost.
func (m *model) checkReplaced(old, next *opening) {
	end := old.end.(resock.CloseEvent)
	r := old.peer.conn.Received()
	if !end.Clean || m.aborted || r.Close == nil || m.handler && len(m.handled) == 0 {
		return
	}
	pushed := 0
	for _, at := range old.peer.times {
		if at.Before(r.Close.Time) {
			pushed++
		}
	}
	if old.messages < pushed {
		m.t.Errorf("session %d was replaced by %d: %d messages delivered, want %d", old.open.Session, next.open.Session, old.messages, pushed)
	}
}

// orderOf is the order that a message belongs to: what is bound to a session that is
// coming goes ahead of what is not.
func (m *model) orderOf(p *parcel) (order [2]int) {
	if m.overlap > 0 {
		return [2]int{p.order, int(p.session)}
	}
	return [2]int{p.order}
}

// failsAllowed reports whether Stats may count so many failures: an attempt that fails
// while the session that it is to replace is open has no event.
func (m *model) failsAllowed(stats resock.Stats, events uint64) bool {
	if m.overlap == 0 {
		return stats.Fails == events
	}
	return stats.Fails >= events && stats.Fails-events <= stats.Attempts+uint64(len(m.sessions))
}
