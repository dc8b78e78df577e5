package resock

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"
)

// pulse decides when to beat and when a server is dead. It is plain state and
// arithmetic; heartbeat runs it.
type pulse struct {
	interval time.Duration // 0: no beats
	timeout  time.Duration // 0: no answer is expected
	idle     time.Duration // 0: silence is no death
	message  bool          // beats are messages, sent every interval

	began    time.Duration
	next     time.Duration // when to beat, if beats are messages
	quiet    time.Duration // how long a silence calls for a ping
	beats    uint64
	beatAt   time.Duration // of the last beat
	unheard  bool          // no byte came since the beat at asked
	asked    time.Duration
	patience time.Duration // for it
	reads    uint64        // at the last look
	resumed  time.Duration // when the process went on after it had stood still
	due      time.Duration // the next look
}

// forever is long enough, and sums of it do not overflow.
const forever time.Duration = math.MaxInt64 / 4

// verdict is what a look at the pulse calls for.
type verdict int

const (
	verdictAlive verdict = iota
	verdictBeat
	verdictDead // no byte came after a beat
	verdictIdle // no byte came for the idle timeout
)

// start returns the time of the first look. The phase of the first beat is
// random, and each later silence is cut short by up to a tenth of the interval:
// clients that opened together, or that a broadcast reached together, do not
// beat together.
func (p *pulse) start(now time.Duration, reads uint64, random float64) time.Duration {
	p.quiet = max(1, time.Duration(random*float64(p.interval)))
	p.began, p.next = now, now+p.quiet
	p.reads = reads
	p.due = p.wake(now, now, true)
	return p.due
}

// look decides at the time now, with the reader silent since then (if it waits
// at all) and reads counted so far, and tells when to look again.
func (p *pulse) look(now, since time.Duration, waiting bool, reads uint64, random float64) (v verdict, next time.Duration) {
	// A timer that fires this late means that the whole process stood still
	// (SIGSTOP, a suspended machine): what the server sent meanwhile is unread,
	// so it gets another chance.
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

// busyAt is when to ping a server whose pongs nobody reads, since delivery is blocked:
// it shall not miss the client, and a write shows whether the line is dead.
func (p *pulse) busyAt() time.Duration { return max(p.began, p.beatAt) + p.interval }

// pingAt is when a silence calls for a ping, at most one per interval.
func (p *pulse) pingAt(since time.Duration) time.Duration {
	at := since + p.quiet
	if p.beats > 0 {
		at = max(at, p.beatAt+p.quiet)
	}
	return at
}

// beat notes a beat that wants an answer within patience, if that is not 0.
func (p *pulse) beat(now, patience time.Duration) {
	p.beats++
	p.beatAt = now
	if !p.unheard && patience > 0 {
		p.unheard, p.asked, p.patience = true, now, patience
	}
}

// probe notes a ping besides the regular beats. What was asked before, and not
// answered since, is still waited for.
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

// heartbeat keeps the pulse of one session. It owns a timer and, while the
// timer's function runs, a goroutine that the session joins.
type heartbeat struct {
	session *session

	mu      sync.Mutex // of what follows: the timer, a probe and the end may meet
	pulse   pulse
	timer   *time.Timer
	stopped bool
}

// defaultProbe is how long a probe waits for a byte when no heartbeat timeout is set.
const defaultProbe = 10 * time.Second

// start begins the heartbeat of an open session.
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

func (h *heartbeat) arm(d time.Duration) {
	if h.timer != nil {
		h.timer.Reset(d)
		return
	}
	h.timer = time.AfterFunc(d, func() { h.session.spawned(h.check) })
}

// check looks at the pulse and acts.
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
		s.fail(PhaseHeartbeat, fmt.Errorf("%w: no byte for %v after a beat", ErrHeartbeat, patience))
	case v == verdictIdle:
		s.fail(PhaseHeartbeat, fmt.Errorf("%w: no byte for %v", ErrHeartbeat, idle))
	case v == verdictBeat && beat != nil:
		h.beat(beat)
	case v == verdictBeat:
		s.wire.PingWait() // the timer of the next look runs already
	}
}

// beat sends what the application wants as a heartbeat.
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

// probe pings at once, whatever was received and even without a heartbeat.
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
