package outbox_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/resock/resock/resocktest"
)

// peer is the server of a schedule, which notes what it saw and said.
type peer struct {
	*schedule
	server *resocktest.Server
	conns  []*visit // guarded by schedule.mu
}

// visit is a connection of the peer. Times are those at the peer; mu of the schedule
// guards what is not drawn.
type visit struct {
	life    int
	session uint64 // of its client
	client  int    // of its life
	plan    manner
	last    bool // nothing more goes wrong
	begun   time.Time
	ended   time.Time

	got      []receipt
	open     []string             // ids that were got, and neither acknowledged nor refused
	said     map[string]time.Time // when each was
	progress []progress           // each time that the first of open changed
}

type progress struct {
	at    time.Time
	owing bool // there is one
}

type receipt struct {
	id string
	at time.Time
}

// manner is how a connection is treated.
type manner struct {
	lasts  time.Duration
	ends   int
	acks   int           // how it acknowledges
	delay  time.Duration // at most
	refuse int           // one of so many; 0 is none
	twice  int           // one of so many; 0 is none
	noise  time.Duration // between pushes; 0 is none
	seed   uint64
}

const (
	ackEach = iota
	ackUpTo
	ackAnyOrder
	ackNot
	manners
)

func (s *schedule) draw() manner {
	m := manner{
		lasts: s.upTo(15 * time.Second), ends: s.rand.IntN(5), acks: s.rand.IntN(manners), delay: s.upTo(3 * time.Second),
		refuse: s.rand.IntN(3) * 4, twice: s.rand.IntN(3) * 2, seed: s.rand.Uint64(),
	}
	if s.rand.IntN(3) == 0 {
		m.noise = time.Second + s.upTo(5*time.Second)
	}
	return m
}

func (p *peer) serve(conn *resocktest.Conn) {
	header := conn.Request().Header
	life, _ := strconv.Atoi(header.Get("Life"))
	client, _ := strconv.Atoi(header.Get("Client"))
	p.mu.Lock()
	v := &visit{life: life, client: client, begun: time.Now(), said: map[string]time.Time{}, last: life == len(p.lives)-1 && p.final}
	v.plan = p.plans[len(p.conns)%len(p.plans)]
	v.session = p.count(life, client) + 1
	p.conns = append(p.conns, v)
	p.mu.Unlock()
	if v.last {
		v.plan = manner{seed: v.plan.seed, delay: v.plan.delay / 10}
	}
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { p.answer(conn, v) })
	if v.last {
		return
	}
	tasks.Go(func() { push(conn, v.plan.noise) })
	select {
	case <-time.After(v.plan.lasts):
	case <-conn.Done():
		return
	}
	switch v.plan.ends {
	case 0:
		conn.Drop()
	case 1:
		conn.Reset()
	case 2:
		_ = conn.Close(1012, "restart")
	case 3:
		_ = conn.HalfClose()
	default: // it stays until the client goes
	}
}

// count returns how many connections a client had. mu is held.
func (p *peer) count(life, client int) (n uint64) {
	for _, v := range p.conns {
		if v.life == life && v.client == client {
			n++
		}
	}
	return n
}

func push(conn *resocktest.Conn, every time.Duration) {
	for every > 0 && conn.Push("push") == nil {
		select {
		case <-conn.Done():
			return
		case <-time.After(every):
		}
	}
}

// answer acknowledges the messages of a connection, as it was drawn.
func (p *peer) answer(conn *resocktest.Conn, v *visit) {
	random := rand.New(rand.NewPCG(v.plan.seed, 1))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		v.ended = time.Now()
	}()
	until := time.Now()
	for n := 0; ; n++ {
		m, err := conn.Read()
		if err != nil {
			return
		}
		id, _, _ := strings.Cut(string(m.Data), "|")
		p.note(v, id, string(m.Data))
		if id == p.poison && (!v.last || p.poisonStays) {
			conn.Drop()
			return
		}
		text := v.text(random, n, id)
		if text == "" {
			continue
		}
		delay := time.Duration(random.Int64N(int64(v.plan.delay) + 1))
		if at := time.Now().Add(delay); v.plan.acks != ackAnyOrder {
			until = later(until, at) // one after the other
			delay = time.Until(until)
		}
		times := 1
		if v.plan.twice > 0 && random.IntN(v.plan.twice) == 0 {
			times = 2
		}
		tasks.Go(func() {
			time.Sleep(delay)
			for range times {
				p.say(conn, v, text)
			}
		})
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// text returns what the peer says to the n-th message, or nothing.
func (v *visit) text(random *rand.Rand, n int, id string) string {
	switch {
	case v.plan.refuse > 0 && random.IntN(v.plan.refuse) == 0:
		return "no " + id
	case v.plan.acks == ackNot, v.plan.acks == ackUpTo && n%3 != 2 && !v.last:
		return ""
	case v.plan.acks == ackUpTo:
		return "all " + id
	}
	return "ok " + id
}

// note notes a message, and looks at what one connection shows.
func (p *peer) note(v *visit, id, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if want := p.texts[id]; text != want {
		p.t.Errorf("the server got %.40q of %d bytes, want %.40q of %d", text, len(text), want, len(want))
	}
	for _, r := range v.got {
		if r.id == id {
			p.t.Errorf("%s came twice in session %d of process %d", id, v.session, v.life)
		}
	}
	v.got = append(v.got, receipt{id, time.Now()})
	v.open = append(v.open, id)
	if len(v.open) == 1 {
		v.progress = append(v.progress, progress{time.Now(), true})
	}
	underWay := 0
	for _, id := range v.open {
		if !p.elsewhere(v, id) {
			underWay++
		}
	}
	if underWay > p.window {
		p.t.Errorf("%d messages are under way in session %d of process %d, more than %d", underWay, v.session, v.life, p.window)
	}
}

// elsewhere reports whether the peer said something about a message in another connection
// of the process, which may be read late. mu is held.
func (p *peer) elsewhere(v *visit, id string) bool {
	for _, other := range p.conns {
		if _, said := other.said[id]; said && other != v && other.life == v.life {
			return true
		}
	}
	return false
}

// say says something about a message.
func (p *peer) say(conn *resocktest.Conn, v *visit, text string) {
	what, id, _ := strings.Cut(text, " ")
	p.mu.Lock()
	for _, r := range v.got { // which of two is read first is open
		if r.id == id {
			p.said[what == "no"][id] = true
			break
		}
		if what == "all" {
			p.said[false][r.id] = true
		}
	}
	upTo := slices.IndexFunc(v.open, func(open string) bool { return open == id })
	var ids []string
	switch {
	case upTo < 0: // once more
	case what == "all":
		ids = slices.Clone(v.open[:upTo+1])
		v.open = v.open[upTo+1:]
	default:
		ids = []string{id}
		v.open = slices.Delete(v.open, upTo, upTo+1)
	}
	for _, id := range ids {
		v.said[id] = time.Now()
	}
	if what == "all" && upTo >= 0 || upTo == 0 {
		v.progress = append(v.progress, progress{time.Now(), len(v.open) > 0})
	}
	p.mu.Unlock()
	_ = conn.Push(text)
}

// owed returns since when the peer owed something at a time, and whether it did.
func (v *visit) owed(at time.Time) (since time.Time, owing bool) {
	for _, p := range v.progress {
		if !p.at.After(at) {
			since, owing = p.at, p.owing
		}
	}
	return since, owing
}
