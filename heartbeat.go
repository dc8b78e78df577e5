package resock

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/resock/resock/internal/wire"
)

// pulse decides when to beat and when the server is dead. It is plain state and
// arithmetic; heartbeat runs it. Its times are of the wire's clock.
type pulse struct {
	interval time.Duration // 0: no beats
	timeout  time.Duration // 0: no answer is expected
	idle     time.Duration // 0: without messages is no death

	dictated time.Duration // when the server told the interval; 0 if it did not
	began    time.Duration // when the session opened
	next     time.Duration // when the next beat is due
	life     uint64        // signs of life at the last look
	looked   time.Duration // when that look was
	heard    time.Duration // when silence can have begun: the last sign of life came later
	asked    time.Duration // when the network had taken the oldest open beat
	patience time.Duration // how long the answer to that beat may take
	due      time.Duration // when to look next
	silence  time.Duration // that a verdict of death is about

	messages bool  // beats are messages of the application; only probes are pings
	unheard  bool  // no sign of life since the look that called for the oldest open beat
	probed   bool  // no sign of life since the last probe that pinged
	taken    bool  // the network has taken that beat
	pinged   bool  // that beat is the ping of a probe, where others are messages
	doubt    bool  // the next look is a second one
	doubts   uint8 // looks in a row that doubted
}

// signs is what a look sees.
type signs struct {
	now     time.Duration
	life    uint64        // changes with each sign of life
	waiting bool          // the reader waits for bytes; if not, delivery is blocked
	since   time.Duration // when it began to wait for them
	hungry  time.Duration // when it began to wait for a message, apart from delivery
	writing bool          // a write is in progress, which may have moved unseen
	beaten  time.Duration // when the network had taken the last beat
	pending bool          // it has not yet
}

// forever is longer than any process lives, and sums of it do not overflow.
const forever time.Duration = math.MaxInt64 / 4

// verdict is what a look at the pulse calls for.
type verdict int

const (
	verdictAlive verdict = iota
	verdictBeat
	verdictDead // no sign of life came after a beat
	verdictIdle // no message came for the idle timeout
)

// start returns the time of the first look. The phase of the first beat is random, so that
// clients that opened together do not beat together. A server that dictated the interval
// while the session was set up has waited since.
func (p *pulse) start(now time.Duration, life uint64, random float64) time.Duration {
	phase := p.interval
	if p.dictated > 0 {
		phase = max(0, phase-(now-p.dictated))
	}
	p.began, p.life = now, life
	p.looked, p.heard = now, now
	p.next = now + max(1, time.Duration(random*float64(phase)))
	p.due = p.wake(signs{now: now, waiting: true, since: now, hungry: now})
	return p.due
}

// look decides what to do, and when to look again. No verdict of death is by a timer
// alone: if the timer was late, since the whole process stood still (SIGSTOP, a suspended
// machine), what came meanwhile may be unread, and if a write is in progress, it may have
// moved. Then a second look decides, or, in a process that is late at every look, since it
// gets little of the processor, the last of a few.
func (p *pulse) look(s signs) (v verdict, next time.Duration) {
	late := p.due > 0 && s.now-p.due > wire.Lateness
	second := p.doubt && !late || p.doubts == wire.MaxDoubts
	p.note(s)
	death := p.judge(s)
	if death == verdictDead && p.pinged {
		death, p.next = verdictAlive, s.now // the server may answer nothing but the messages
	}
	p.doubt = death != verdictAlive && !second && (late || s.writing)
	if death != verdictAlive && !p.doubt {
		p.silence = p.silent(death, s)
		return death, s.now
	}
	if p.doubts++; !p.doubt {
		p.doubts = 0
	}
	if p.interval > 0 && s.now >= p.next {
		if p.next += p.interval; p.next <= s.now {
			p.next = s.now + p.interval
		}
		if !s.pending { // or else it stands for this one
			v = verdictBeat
		}
		if v == verdictBeat || p.pinged {
			p.beat(p.timeout)
		}
	}
	p.due = p.wake(s)
	return v, p.due
}

// note notes what became of the beats so far.
func (p *pulse) note(s signs) {
	if s.life != p.life {
		p.life, p.heard = s.life, p.looked
		p.unheard, p.probed = false, false
	}
	p.looked = s.now
	if p.unheard && !p.taken && !s.pending {
		p.taken, p.asked = true, s.beaten
	}
}

// judge returns the verdict of death, or verdictAlive.
func (p *pulse) judge(s signs) verdict {
	switch {
	case !s.waiting:
	case p.unheard && p.taken && s.now-max(p.asked, s.since) >= p.patience:
		return verdictDead
	case p.idle > 0 && s.now-max(s.hungry, p.began) >= p.idle:
		return verdictIdle
	}
	return verdictAlive
}

// silent is how long the server has been silent: without any byte since the last one, not
// since the beat, or without a message. The time of delivery is no part of it.
func (p *pulse) silent(death verdict, s signs) time.Duration {
	if death == verdictIdle {
		return p.idle
	}
	return s.now - max(p.heard, s.since)
}

// beat notes a beat. The server must show a sign of life within patience, unless that is
// 0, from when the network has taken the beat.
func (p *pulse) beat(patience time.Duration) {
	if (!p.unheard || p.pinged) && patience > 0 {
		p.unheard, p.taken, p.pinged, p.patience = true, false, false, patience
	}
}

// probe notes a probe, and reports whether it needs a ping: while nothing is heard, a second
// one would only wait behind the first. A beat that is still open keeps its deadline. Where
// the server is known to answer messages, silence after the ping is no death yet, but calls
// for the next message.
func (p *pulse) probe(s signs, patience time.Duration) (ping bool) {
	p.note(s)
	ping, p.probed = !p.probed, true
	if !p.unheard {
		p.heard = s.now // a network that is lost says nothing about the server
		p.beat(patience)
		p.pinged = p.messages && p.interval > 0 && p.timeout > 0
	}
	p.due = p.wake(s)
	return ping
}

// wake is the next time at which something can be due.
func (p *pulse) wake(s signs) time.Duration {
	if p.doubt {
		return s.now + wire.SecondLook
	}
	hungry := max(s.hungry, p.began) + p.idle
	if !s.waiting {
		s.since = s.now            // a silence begins now at the earliest
		hungry = s.now + p.idle/16 // delivery may be over soon
	}
	next := forever
	if p.interval > 0 {
		next = min(next, p.next)
	}
	if p.unheard {
		asked := s.now // the network takes it now at the earliest
		if p.taken {
			asked = max(p.asked, s.since)
		}
		next = min(next, asked+p.patience)
	}
	if p.idle > 0 {
		next = min(next, hungry)
	}
	return max(next, s.now+time.Millisecond)
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
	h.arm(h.pulse.start(now, w.Signs(), rand.Float64()) - now)
}

// arm sets the time of the next look; mu is held.
func (h *heartbeat) arm(d time.Duration) {
	if h.timer != nil {
		h.timer.Reset(d)
		return
	}
	h.timer = time.AfterFunc(d, func() { h.session.spawned(h.check) })
}

// signs looks at the wire. What it looks at first may change only for the better: a beat
// that is taken, a sign of life.
func (h *heartbeat) signs() (s signs) {
	w := &h.session.wire
	taken := false
	s.beaten, taken = w.Beaten()
	s.pending = !taken
	s.since, s.waiting = w.Silence()
	s.hungry = w.Hunger()
	s.writing = w.Writing()
	s.life = w.Signs()
	s.now = w.Now()
	return s
}

// check looks at the pulse, and does what it calls for.
func (h *heartbeat) check() {
	v, pulse := h.look()
	s, message := h.session, h.session.client.config.beatMessage
	switch {
	case v == verdictDead:
		s.silent(pulse.silence, PhaseHeartbeat, fmt.Errorf("%w: no byte for %v after a beat", ErrHeartbeat, pulse.patience))
	case v == verdictIdle:
		s.silent(pulse.silence, PhaseHeartbeat, fmt.Errorf("%w: no message for %v", ErrHeartbeat, pulse.idle))
	case v == verdictBeat && message != nil:
		h.beat(message)
	case v == verdictBeat:
		s.wire.Beat() // may wait: the next look is scheduled
	}
}

// look looks at the pulse, and schedules the next look. Before it lets a probe look, it
// announces the beat: that of an earlier one is no measure.
func (h *heartbeat) look() (verdict, pulse) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return verdictAlive, h.pulse
	}
	w := &h.session.wire
	seen := h.signs()
	v, next := h.pulse.look(seen)
	if v == verdictBeat {
		w.Expect()
	}
	if h.pulse.doubt {
		w.Nudge()
	}
	if v != verdictDead && v != verdictIdle { // the session is over
		h.arm(next - seen.now)
	}
	return v, h.pulse
}

// beat sends the heartbeat message of the application, or a ping if there is none in time.
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
		s.wire.Beat() // or else the silence of a server that nobody asked would be taken for death
		return
	}
	if err := checkMessage("WithHeartbeatMessage", b.typ, b.data); err != nil {
		s.fail(PhaseHeartbeat, err)
		return
	}
	s.client.outbox.beat(s, b.typ, b.data)
}

// probe pings at once, even if bytes came just now, and even without a heartbeat. Nothing
// needs to be done while the ping of an earlier probe waits for a sign of life.
func (h *heartbeat) probe() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	patience := h.pulse.timeout
	if patience == 0 {
		patience = defaultProbe
	}
	seen := h.signs()
	ping := h.pulse.probe(seen, patience)
	h.arm(h.pulse.due - seen.now)
	if ping {
		h.session.wire.Ping()
		h.session.wire.Mark()
	}
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
