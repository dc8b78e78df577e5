package resock

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// pulse decides when to beat and when the server is dead. It is plain state and
// arithmetic; heartbeat runs it. Its times are of the wire's clock.
type pulse struct {
	interval time.Duration // 0: no beats
	timeout  time.Duration // 0: no answer is expected
	idle     time.Duration // 0: silence alone is no death
	message  bool          // beats are messages, sent every interval

	began    time.Duration // when the session opened
	next     time.Duration // when to beat, if beats are messages
	quiet    time.Duration // length of a silence that calls for a ping
	beats    uint64        // number of beats so far
	beatAt   time.Duration // when the last beat was
	unheard  bool          // no byte has come since the beat at asked
	asked    time.Duration // when the oldest unanswered beat was
	patience time.Duration // how long the answer to that beat may take
	reads    uint64        // number of reads at the last look
	resumed  time.Duration // when the process last went on after standing still
	due      time.Duration // when to look next
}

// forever is longer than any process lives, and sums of it do not overflow.
const forever time.Duration = math.MaxInt64 / 4

// verdict is what a look at the pulse calls for.
type verdict int

const (
	verdictAlive verdict = iota
	verdictBeat
	verdictDead // no byte came after a beat
	verdictIdle // no byte came for the idle timeout
)

// start returns the time of the first look. The phase of the first beat is random, and
// each later silence is cut short by up to a tenth of the interval, so that clients that
// opened together, or got the same broadcast, do not beat together.
func (p *pulse) start(now time.Duration, reads uint64, random float64) time.Duration {
	p.quiet = max(1, time.Duration(random*float64(p.interval)))
	p.began, p.next = now, now+p.quiet
	p.reads = reads
	p.due = p.wake(now, now, true)
	return p.due
}

// look decides what to do at the time now, and when to look again. since is when the
// reader began to wait for bytes, if it is waiting; reads is how many reads brought any.
func (p *pulse) look(now, since time.Duration, waiting bool, reads uint64, random float64) (v verdict, next time.Duration) {
	// A timer that fires this late means that the whole process stood still
	// (SIGSTOP, a suspended machine): what the server sent meanwhile is unread, so the
	// server gets another chance.
	late := p.due > 0 && now-p.due > max(p.timeout/2, time.Second)

	if reads != p.reads {
		p.unheard = false
		p.reads = reads
		p.quiet = p.interval - time.Duration(random*float64(p.interval)/10)
	}
	if late {
		p.unheard = false
		p.resumed = now
	}
	switch {
	case p.unheard && waiting && now-max(p.asked, since) >= p.patience:
		v = verdictDead
	case p.idle > 0 && waiting && now-max(since, p.resumed) >= p.idle:
		v = verdictIdle
	case p.interval > 0 && p.beatDue(now, since, waiting):
		v = verdictBeat
		if p.next += p.interval; p.next <= now {
			p.next = now + p.interval
		}
		p.beat(now, p.timeout)
	}
	p.due = max(p.wake(now, since, waiting), now+time.Millisecond)
	return v, p.due
}

func (p *pulse) beatDue(now, since time.Duration, waiting bool) bool {
	if p.message {
		return now >= p.next
	}
	if !waiting {
		return now >= p.busyAt()
	}
	return now >= p.pingAt(since)
}

// busyAt is when to ping while delivery is blocked, though nobody reads the pong, nor
// answers the server's own pings: a server that counts any frame as life keeps the
// client, and the write shows whether the line is dead.
func (p *pulse) busyAt() time.Duration { return max(p.began, p.beatAt) + p.interval }

// pingAt is when a silence that began at since calls for a ping: when it has lasted for
// quiet, and as much has passed since the last ping.
func (p *pulse) pingAt(since time.Duration) time.Duration {
	at := since + p.quiet
	if p.beats > 0 {
		at = max(at, p.beatAt+p.quiet)
	}
	return at
}

// beat notes a beat. The server must answer within patience, unless that is 0.
func (p *pulse) beat(now, patience time.Duration) {
	p.beats++
	p.beatAt = now
	if !p.unheard && patience > 0 {
		p.unheard, p.asked, p.patience = true, now, patience
	}
}

// probe notes a ping outside the regular beats. A beat that is still unanswered keeps its
// deadline.
func (p *pulse) probe(now time.Duration, reads uint64, patience time.Duration) {
	p.unheard = p.unheard && reads == p.reads
	p.reads = reads
	p.beat(now, patience)
}

// wake is the next time at which something can be due.
func (p *pulse) wake(now, since time.Duration, waiting bool) time.Duration {
	if !waiting {
		since = now // a silence begins now at the earliest
	}
	next := time.Duration(1<<63 - 1)
	if p.interval > 0 && p.message {
		next = min(next, p.next)
	} else if p.interval > 0 {
		next = min(next, p.pingAt(since))
		if !waiting {
			next = min(next, p.busyAt())
		}
	}
	if p.unheard {
		next = min(next, max(p.asked, since)+p.patience)
	}
	if p.idle > 0 {
		next = min(next, max(since, p.resumed)+p.idle)
	}
	return next
}

// heartbeat runs the pulse of one session. It owns a timer and, while the timer's
// function runs, a goroutine that the session joins.
type heartbeat struct {
	session *session

	mu      sync.Mutex // guards what follows: the timer, a probe and the end may meet
	pulse   pulse
	timer   *time.Timer
	stopped bool
}

// defaultProbe stands in for a heartbeat timeout that is not set.
const defaultProbe = 10 * time.Second

// start starts the heartbeat of an open session, unless it is disabled.
func (h *heartbeat) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped || h.pulse.interval == 0 && h.pulse.idle == 0 {
		return
	}
	w := &h.session.wire
	now := w.Now()
	h.arm(h.pulse.start(now, w.Reads(), rand.Float64()) - now)
}

// arm sets the time of the next look; mu is held.
func (h *heartbeat) arm(d time.Duration) {
	if h.timer != nil {
		h.timer.Reset(d)
		return
	}
	h.timer = time.AfterFunc(d, func() { h.session.spawned(h.check) })
}

// check looks at the pulse, and does what it calls for.
func (h *heartbeat) check() {
	h.mu.Lock()
	if h.stopped {
		h.mu.Unlock()
		return
	}
	w := &h.session.wire
	now := w.Now()
	since, waiting := w.Silence()
	v, next := h.pulse.look(now, since, waiting, w.Reads(), rand.Float64())
	h.arm(next - now)
	idle, patience := h.pulse.idle, h.pulse.patience
	h.mu.Unlock()

	s := h.session
	switch beat := s.client.config.beatMessage; {
	case v == verdictDead:
		s.silent(patience, PhaseHeartbeat, fmt.Errorf("%w: no byte for %v after a beat", ErrHeartbeat, patience))
	case v == verdictIdle:
		s.silent(idle, PhaseHeartbeat, fmt.Errorf("%w: no byte for %v", ErrHeartbeat, idle))
	case v == verdictBeat && beat != nil:
		h.beat(beat)
	case v == verdictBeat:
		s.wire.PingWait() // may wait: the next look is scheduled
	}
}

// beat sends the heartbeat message of the application.
func (h *heartbeat) beat(message func() (MessageType, []byte)) {
	type beat struct {
		typ  MessageType
		data []byte
	}
	s := h.session
	b := ask(s.client, hookHeartbeatMessage, nil, func() *beat {
		typ, data := message()
		return &beat{typ, data}
	})
	if b == nil {
		return
	}
	if err := checkMessage("WithHeartbeatMessage", b.typ, b.data); err != nil {
		s.fail(PhaseHeartbeat, err)
		return
	}
	s.client.outbox.beat(s, b.typ, b.data)
}

// probe pings at once, even if bytes came just now, and even without a heartbeat.
func (h *heartbeat) probe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	w := &h.session.wire
	now := w.Now()
	patience := h.pulse.timeout
	if patience == 0 {
		patience = defaultProbe
	}
	h.pulse.probe(now, w.Reads(), patience)
	since, waiting := w.Silence()
	h.pulse.due = h.pulse.wake(now, since, waiting)
	h.arm(h.pulse.due - now)
	w.Ping()
}

// stop ends the heartbeat. A beat under way may still finish.
func (h *heartbeat) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	if h.timer != nil {
		h.timer.Stop()
	}
}
