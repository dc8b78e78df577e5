package resock

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock/internal/wire"
)

// pulseSim runs a pulse against a simulated server, in simulated time.
type pulseSim struct {
	*pulse
	signs
	stuck  bool // the network takes no beat
	random *rand.Rand
	beats  []time.Duration
}

func newPulseSim(p pulse) *pulseSim {
	return &pulseSim{pulse: &p, signs: signs{waiting: true}, random: rand.New(rand.NewPCG(1, 2))}
}

// received records that bytes arrived from the server.
func (s *pulseSim) received() {
	s.signs.life++
	s.since = s.now
}

// message notes a message from the server.
func (s *pulseSim) message() {
	s.received()
	s.hungry = s.now
}

// took notes that the network takes a beat that waited for it.
func (s *pulseSim) took() {
	s.stuck, s.pending, s.beaten = false, false, s.now
}

// glance looks at the pulse, as the heartbeat does.
func (s *pulseSim) glance() verdict {
	v, _ := s.look(s.signs)
	if v == verdictBeat {
		s.beats = append(s.beats, s.now)
		if s.pending = s.stuck; !s.pending {
			s.beaten = s.now
		}
	}
	return v
}

// until looks at the pulse whenever it wants to, and calls answered after each
// beat, until the time end or a death.
func (s *pulseSim) until(end time.Duration, answered func()) (v verdict) {
	if s.due == 0 {
		s.start(0, 0, s.random.Float64())
	}
	for s.due <= end {
		s.now = max(s.now, s.due)
		switch v = s.glance(); v {
		case verdictDead, verdictIdle:
			return v
		case verdictBeat:
			answered()
		}
	}
	s.now = end
	return verdictAlive
}

const day = 24 * time.Hour

func TestPulseStaysUpWhilePongsCome(t *testing.T) {
	s := newPulseSim(pulse{interval: 30 * time.Second, timeout: 10 * time.Second})
	if v := s.until(day, s.received); v != verdictAlive {
		t.Fatalf("dead at %v, want alive for a day", s.now)
	}
	if n := len(s.beats); n != 2880 {
		t.Errorf("%d pings in a day of 30 s intervals", n)
	}
}

func TestPulseDetectsSilence(t *testing.T) {
	for _, p := range []pulse{
		{interval: 30 * time.Second, timeout: 10 * time.Second},
		{interval: 10 * time.Second, timeout: 60 * time.Second},
		{interval: time.Second, timeout: time.Second},
	} {
		for seed := range uint64(200) {
			s := newPulseSim(p)
			s.random = rand.New(rand.NewPCG(seed, seed))
			s.until(time.Hour, s.received)
			s.received() // the last byte to arrive
			last := s.now
			if v := s.until(day, func() {}); v != verdictDead {
				t.Fatalf("%+v: a silent server is never found dead", p)
			}
			if found := s.now - last; found < p.timeout || found > p.interval+p.timeout+time.Millisecond {
				t.Errorf("%+v: found dead after %v, want between timeout and interval + timeout", p, found)
			}
		}
	}
}

func TestPulseBeatsWhateverComes(t *testing.T) {
	for _, timeout := range []time.Duration{0, 5 * time.Second} {
		s := newPulseSim(pulse{interval: 10 * time.Second, timeout: timeout})
		s.start(0, 0, 0.5)
		for s.now < time.Hour {
			s.until(s.now+time.Second, s.received)
			s.received()
		}
		if len(s.beats) != 360 || s.beats[0] != 5*time.Second {
			t.Errorf("%d beats in an hour, the first at %v; want one every 10 s", len(s.beats), s.beats[0])
		}
	}
	s := newPulseSim(pulse{interval: 10 * time.Second})
	if v := s.until(day, func() {}); v != verdictAlive {
		t.Errorf("verdict %d without a timeout: no answer is expected", v)
	}
}

// TestPulseOfASmallPhase: after the first beat comes a full interval, however soon the
// first one was and however late the answers are.
func TestPulseOfASmallPhase(t *testing.T) {
	s := newPulseSim(pulse{interval: 30 * time.Second, timeout: 10 * time.Second})
	s.start(0, 0, 1e-12)
	for s.now < 10*time.Minute {
		asked := len(s.beats)
		s.until(s.now+300*time.Millisecond, func() {})
		if len(s.beats) > asked {
			s.now += 300 * time.Millisecond
			s.received()
		}
	}
	if n := len(s.beats); n < 20 || n > 21 {
		t.Errorf("%d beats in 10 minutes of 30 s intervals", n)
	}
}

// TestPulseOfADictatedInterval: the server that dictates an interval waits since then.
func TestPulseOfADictatedInterval(t *testing.T) {
	for random := 0.0; random < 1; random += 0.1 {
		p := pulse{interval: 10 * time.Second, timeout: time.Second, dictated: time.Second}
		if first := p.start(7*time.Second, 0, random); first > 11*time.Second {
			t.Errorf("the first beat is at %v, want it within 10 s of 1 s", first)
		}
		p = pulse{interval: 10 * time.Second, timeout: time.Second, dictated: time.Second}
		if first := p.start(time.Minute, 0, random); first > time.Minute+time.Millisecond {
			t.Errorf("a beat that is overdue is at %v", first)
		}
	}
}

// TestPulseWaitsForTheNetwork: the time for an answer begins when the network has taken
// the beat, and until then there is one beat and no other.
func TestPulseWaitsForTheNetwork(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
	s.stuck = true
	if v := s.until(time.Hour, func() {}); v != verdictAlive {
		t.Fatalf("verdict %d at %v although the network has not taken a beat", v, s.now)
	}
	if len(s.beats) != 1 {
		t.Errorf("%d beats although the network has not taken the first one", len(s.beats))
	}
	s.now += time.Second
	s.took()
	if v := s.until(day, func() {}); v != verdictDead || s.now-s.beaten > 15*time.Second {
		t.Errorf("verdict %d, %v after the network took a beat", v, s.now-s.beaten)
	}
	if s.now-s.beaten < 5*time.Second {
		t.Errorf("dead %v after the network took a beat", s.now-s.beaten)
	}
}

// TestPulseOfAFullBuffer: bytes that the network takes only when the server makes room
// are signs of life, also while beats wait behind them.
func TestPulseOfAFullBuffer(t *testing.T) {
	s := newPulseSim(pulse{interval: time.Second, timeout: time.Second})
	s.start(0, 0, 0.5)
	for s.now < time.Minute {
		if v := s.until(s.now+700*time.Millisecond, func() {}); v != verdictAlive {
			t.Fatalf("verdict %d at %v although the line moves", v, s.now)
		}
		s.signs.life++
	}
	last := s.now
	if v := s.until(day, func() {}); v != verdictDead || s.now-last > 2*time.Second {
		t.Errorf("verdict %d, %v after the line moved", v, s.now-last)
	}
}

// TestPulseLooksTwiceDuringAWrite: a write in progress may have moved since it began.
func TestPulseLooksTwiceDuringAWrite(t *testing.T) {
	for _, moves := range []bool{false, true} {
		s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
		s.start(0, 0, 0.5)
		s.writing = true
		s.until(5*time.Second, func() {})
		if v := s.until(10*time.Second, func() {}); v != verdictAlive || !s.doubt {
			t.Fatalf("verdict %d, doubt: %t", v, s.doubt)
		}
		if moves {
			s.signs.life++
		}
		if v := s.until(10*time.Second+wire.SecondLook, func() {}); (v == verdictDead) == moves {
			t.Errorf("verdict %d, the write moved: %t", v, moves)
		}
	}
}

// TestPulseOfAProcessThatIsAlwaysLate: a process that gets little of the processor is late
// at every look, and finds a dead server nevertheless.
func TestPulseOfAProcessThatIsAlwaysLate(t *testing.T) {
	for name, p := range map[string]pulse{
		"no byte":    {interval: 10 * time.Second, timeout: 5 * time.Second},
		"no message": {idle: 15 * time.Second},
	} {
		s := newPulseSim(p)
		s.start(0, 0, 1)
		v := verdictAlive
		for v != verdictDead && v != verdictIdle && s.now < day {
			s.now = s.due + 50*time.Millisecond
			v = s.glance()
		}
		if s.now < 15*time.Second || s.now > 19*time.Second {
			t.Errorf("%s: verdict %d at %v, want a death after 15 s, and at most 4 s more", name, v, s.now)
		}
	}
}

func TestPulseIgnoresABusyReader(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second, idle: 20 * time.Second})
	s.waiting = false // as when a consumer blocks delivery
	beats := 0
	if v := s.until(day, func() { beats++ }); v != verdictAlive {
		t.Fatalf("a slow consumer was taken for a dead server at %v", s.now)
	}
	if want := int(day / (10 * time.Second)); beats < want-1 || beats > want+1 {
		t.Errorf("%d beats in a day, want %d", beats, want)
	}
	s.waiting, s.since, s.hungry = true, s.now, s.now
	if v := s.until(2*day, func() {}); v != verdictDead {
		t.Errorf("verdict %d after the consumer went on, want dead", v)
	}
}

func TestPulseIdleTimeout(t *testing.T) {
	s := newPulseSim(pulse{idle: time.Minute})
	if v := s.until(time.Hour, nil); v != verdictIdle || s.now != time.Minute {
		t.Errorf("verdict %d at %v, want the idle timeout after a minute", v, s.now)
	}
	// Pongs are no messages: a server that only answers them is a zombie.
	s = newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second, idle: time.Minute})
	if v := s.until(time.Hour, s.message); v != verdictAlive {
		t.Errorf("verdict %d while messages come", v)
	}
	if v := s.until(2*time.Hour, s.received); v != verdictIdle || s.now-s.hungry != time.Minute {
		t.Errorf("verdict %d, %v after the last message, while pongs come", v, s.now-s.hungry)
	}
}

// TestPulseForgivesAStoppedProcess: what came while the process stood still, or was taken
// by the network, shows at the second look.
func TestPulseForgivesAStoppedProcess(t *testing.T) {
	for _, answered := range []bool{false, true} {
		s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
		s.until(time.Minute, s.received)
		s.until(s.next, func() {}) // a beat without an answer yet
		s.now = s.due + time.Hour  // SIGSTOP, SIGCONT
		if v := s.glance(); v != verdictBeat || s.due-s.now != wire.SecondLook {
			t.Fatalf("verdict %d after the process was stopped, next look in %v; want another beat and a second look", v, s.due-s.now)
		}
		if answered {
			s.received()
		}
		if v := s.until(s.due, func() {}); (v == verdictDead) == answered {
			t.Errorf("verdict %d at the second look; answered: %t", v, answered)
		}
	}
}

// TestPulseForgivesAProcessThatStopsAgain: it has to run between two looks.
func TestPulseForgivesAProcessThatStopsAgain(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
	s.until(s.due, func() {})
	for range 10 {
		s.until(s.due-1, func() {})
		s.now = s.due + 2*time.Millisecond
		if v := s.glance(); v == verdictDead {
			t.Fatalf("dead at %v although the process has not run for %v", s.now, wire.SecondLook)
		}
	}
}

func TestPulsesSpread(t *testing.T) {
	// A thousand clients open at the same time; later a broadcast reaches all of them.
	const clients, interval = 1000, 10 * time.Second
	spread := func(phase string, at time.Duration, sims []*pulseSim) {
		t.Helper()
		slots := make(map[time.Duration]int)
		for _, s := range sims {
			s.beats = nil
			s.until(at+2*interval, s.received)
			slots[s.beats[0]/(interval/100)]++
		}
		for slot, n := range slots {
			if n > clients/5 {
				t.Errorf("%s: %d of %d beats fall into the same 100 ms, at %v, want at most a fifth", phase, n, clients, slot*interval/100)
			}
		}
	}
	sims := make([]*pulseSim, clients)
	for i := range sims {
		sims[i] = newPulseSim(pulse{interval: interval, timeout: 5 * time.Second})
		sims[i].random = rand.New(rand.NewPCG(uint64(i), 7))
	}
	spread("after opening", 0, sims)
	for _, s := range sims {
		s.received()
	}
	spread("after a broadcast", sims[0].now, sims)
}

func TestPulseProbe(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
	s.until(time.Minute, s.received)
	beatDue := s.next
	probe := func() {
		s.probe(s.signs, 5*time.Second)
		s.beaten = s.now
	}
	probe()
	if s.next != beatDue {
		t.Errorf("a probe moved the beat from %v to %v", beatDue, s.next)
	}
	// The network changes again and again while the server is gone: that must not put
	// off the verdict.
	asked, v := s.now, verdictAlive
	for v != verdictDead && s.now < asked+day {
		if v = s.until(s.now+time.Second, func() {}); v != verdictDead {
			probe()
		}
	}
	if s.now != asked+5*time.Second {
		t.Errorf("dead %v after the first probe, want 5s", s.now-asked)
	}
}

// TestPulseForgivesAStoppedProcessItsIdleTime: a message that came while the process
// stood still shows at the second look.
func TestPulseForgivesAStoppedProcessItsIdleTime(t *testing.T) {
	for _, came := range []bool{false, true} {
		s := newPulseSim(pulse{interval: 20 * time.Second, timeout: 15 * time.Second, idle: 10 * time.Second})
		s.until(5*time.Second, s.message)
		s.now = s.due + time.Hour // SIGSTOP, SIGCONT
		if v := s.glance(); v == verdictIdle || s.due-s.now != wire.SecondLook {
			t.Fatalf("verdict %d after the process was stopped, next look in %v", v, s.due-s.now)
		}
		if came {
			s.message()
		}
		if v := s.until(s.due, s.received); (v == verdictIdle) == came {
			t.Errorf("verdict %d at the second look; a message came: %t", v, came)
		}
	}
}

// TestPulseMakesNothingUp: beats that were due while the process stood still are not made up
// for.
func TestPulseMakesNothingUp(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
	s.until(time.Minute, s.received)
	s.beats, s.now = nil, s.now+time.Hour
	s.glance()
	s.received()
	s.until(s.now+5*time.Second, s.received)
	if len(s.beats) != 1 {
		t.Errorf("%d beats right after an hour, want one", len(s.beats))
	}
}

// TestPulseBetweenTwoReads: a look that falls between two reads of pings, or into
// delivery, does not give a zombie much more time.
func TestPulseBetweenTwoReads(t *testing.T) {
	s := newPulseSim(pulse{idle: time.Minute})
	s.start(0, 0, 0)
	s.now, s.waiting = s.due, false
	s.glance()
	s.waiting = true
	if v := s.until(time.Hour, nil); v != verdictIdle || s.now > time.Minute+time.Minute/16 {
		t.Errorf("verdict %d at %v, want the idle timeout soon after a minute", v, s.now)
	}
}

// beating returns a session whose reader waits for the server, and the server's end.
func beating(t *testing.T, wrap func(net.Conn) net.Conn) (*session, net.Conn) {
	t.Helper()
	client, server := net.Pipe()
	network := wire.NewNetwork(wrap(client))
	s := &session{client: wiredSession(t, silentScript()).client, id: 1}
	s.start(network, network, wire.Deflate{}, nil)
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = s.wire.Next(false)
	}()
	t.Cleanup(func() {
		server.Close()
		<-over
		s.discard(nil)
	})
	return s, server
}

// TestProbeBesideABeat checks that a probe which looks just before a beat is written does
// not take the beat before it for this one.
func TestProbeBesideABeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := beating(t, func(conn net.Conn) net.Conn { return conn })
		go func() {
			_, _ = io.Copy(io.Discard, server)
		}()
		h := &s.heart
		h.pulse.next = h.pulse.interval
		time.Sleep(h.pulse.interval)
		synctest.Wait()
		if v, _ := h.look(); v != verdictBeat {
			t.Fatalf("verdict %v, want a beat", v)
		}
		h.probe()
		if left := h.pulse.due - s.wire.Now(); left != h.pulse.timeout {
			t.Errorf("the answer may take %v, want %v", left, h.pulse.timeout)
		}
	})
}

// nudged is a network connection that passes for a socket and counts how often a write was
// interrupted.
type nudged struct {
	net.Conn
	times *atomic.Int64
}

func (nudged) SyscallConn() (syscall.RawConn, error) { return nil, errors.ErrUnsupported }

func (n nudged) SetWriteDeadline(at time.Time) error {
	if !at.IsZero() {
		n.times.Add(1)
	}
	return n.Conn.SetWriteDeadline(at)
}

// TestDoubtBesideABeat checks that a write is asked whether it moves also if a heartbeat
// message is due at the same time.
func TestDoubtBesideABeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var times atomic.Int64
		s, _ := beating(t, func(conn net.Conn) net.Conn { return nudged{conn, &times} })
		s.client.config.beatMessage = func() (MessageType, []byte) { return MessageText, nil }
		h, m := &s.heart, text("a write that takes long")
		h.pulse = pulse{interval: 10 * time.Second, timeout: 5 * time.Second, next: 5 * time.Second}
		h.pulse.unheard, h.pulse.taken, h.pulse.patience = true, true, 5*time.Second
		_ = s.write(&m)
		s.spawn(func() { _ = s.wire.Flush() })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if v, pulse := h.look(); v != verdictBeat || !pulse.doubt {
			t.Fatalf("verdict %v, doubt %t, want a beat and doubt", v, pulse.doubt)
		}
		if n := times.Load(); n != 1 {
			t.Errorf("the write was asked %d times", n)
		}
	})
}

// TestDeathIsTheLastLook checks that the heartbeat does not look again, at once and for as
// long as the reader takes, when it has found the server dead.
func TestDeathIsTheLastLook(t *testing.T) {
	for want, p := range map[verdict]pulse{
		verdictDead: {interval: time.Minute, next: time.Minute, unheard: true, taken: true, patience: time.Second},
		verdictIdle: {idle: time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := beating(t, func(conn net.Conn) net.Conn { return conn })
			time.Sleep(2 * time.Second)
			synctest.Wait()
			s.heart.pulse = p
			if v, _ := s.heart.look(); v != want || s.heart.timer != nil {
				t.Errorf("verdict %v, want %v; looks again: %t", v, want, s.heart.timer != nil)
			}
		})
	}
}
