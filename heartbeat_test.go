package resock

import (
	"math/rand/v2"
	"testing"
	"time"
)

// pulseSim runs a pulse against a simulated server, in simulated time.
type pulseSim struct {
	*pulse
	now, since time.Duration
	waiting    bool
	reads      uint64
	random     *rand.Rand
	beats      []time.Duration
}

func newPulseSim(p pulse) *pulseSim {
	return &pulseSim{pulse: &p, waiting: true, random: rand.New(rand.NewPCG(1, 2))}
}

// received records that bytes arrived from the server.
func (s *pulseSim) received() {
	s.reads++
	s.since = s.now
}

// until looks at the pulse whenever it asks for it, and calls answered after each beat.
// It returns at the time end, or when the pulse gives another verdict than alive.
func (s *pulseSim) until(end time.Duration, answered func()) (v verdict) {
	next := s.due
	if next == 0 {
		next = s.start(0, 0, s.random.Float64())
	}
	for next <= end {
		s.now = next
		v, next = s.look(s.now, s.since, s.waiting, s.reads, s.random.Float64())
		switch v {
		case verdictDead, verdictIdle:
			return v
		case verdictBeat:
			s.beats = append(s.beats, s.now)
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
	// Jitter shortens each interval by up to a tenth.
	if n := len(s.beats); n < 2880 || n > 2880*10/9+1 {
		t.Errorf("%d pings in a day of 30 s intervals, want 2880 to 3201", n)
	}
}

func TestPulseDetectsSilence(t *testing.T) {
	for _, p := range []pulse{
		{interval: 30 * time.Second, timeout: 10 * time.Second},
		{interval: 10 * time.Second, timeout: 60 * time.Second},
		{interval: 30 * time.Second, timeout: 10 * time.Second, message: true},
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

func TestPulseSkipsPingsWhileBytesCome(t *testing.T) {
	p := pulse{interval: 10 * time.Second, timeout: 5 * time.Second}
	s := newPulseSim(p)
	next := s.start(0, 0, 1)
	for s.now < time.Hour {
		s.now += time.Second
		s.received()
		for next <= s.now {
			var v verdict
			if v, next = s.look(s.now, s.since, true, s.reads, s.random.Float64()); v != verdictAlive {
				t.Fatalf("verdict %d at %v, want alive while bytes arrive every second", v, s.now)
			}
		}
	}
}

func TestPulseSendsHeartbeatMessagesInAnyCase(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, message: true})
	next := s.start(0, 0, 0.5)
	var beats []time.Duration
	for s.now < time.Hour {
		s.now += time.Second
		s.received()
		for next <= s.now {
			var v verdict
			if v, next = s.look(s.now, s.since, true, s.reads, 0); v == verdictBeat {
				beats = append(beats, s.now)
			}
		}
	}
	if len(beats) != 360 {
		t.Errorf("%d messages in an hour, want one every 10 s", len(beats))
	}
	s = newPulseSim(pulse{interval: 10 * time.Second, message: true})
	if v := s.until(day, func() {}); v != verdictAlive {
		t.Errorf("verdict %d without a timeout, want alive", v)
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
	s.waiting, s.since = true, s.now
	if v := s.until(2*day, func() {}); v != verdictDead {
		t.Errorf("verdict %d after the consumer went on, want dead", v)
	}
}

func TestPulseIdleTimeout(t *testing.T) {
	s := newPulseSim(pulse{idle: time.Minute})
	if v := s.until(time.Hour, nil); v != verdictIdle || s.now != time.Minute {
		t.Errorf("verdict %d at %v, want the idle timeout after a minute", v, s.now)
	}
	// A promise of traffic hardly means pongs, but any byte counts.
	s = newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second, idle: time.Minute})
	if v := s.until(time.Hour, s.received); v != verdictAlive {
		t.Errorf("verdict %d while pongs arrive, want alive", v)
	}
}

func TestPulseForgivesAStoppedProcess(t *testing.T) {
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second})
	s.until(time.Minute, s.received)
	s.until(s.due, func() {}) // a beat without an answer yet
	s.now = s.due + time.Hour // SIGSTOP, SIGCONT
	v, next := s.look(s.now, s.since, true, s.reads, 0)
	if v != verdictBeat {
		t.Fatalf("verdict %d after the process was stopped, want another beat", v)
	}
	if v, _ = s.look(next, s.since, true, s.reads, 0); v != verdictDead {
		t.Errorf("verdict %d when the second beat is not answered either, want dead", v)
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
	s := newPulseSim(pulse{interval: 10 * time.Second, timeout: 5 * time.Second, message: true})
	s.until(time.Minute, s.received)
	beatDue := s.next
	s.probe(s.now, s.reads, 5*time.Second)
	if s.next != beatDue {
		t.Errorf("a probe moved the application's beat from %v to %v", beatDue, s.next)
	}
	// The network changes again and again while the server is gone: that must not put
	// off the verdict.
	asked, v := s.now, verdictAlive
	for v != verdictDead && s.now < asked+day {
		s.now += time.Second
		if v, _ = s.look(s.now, s.since, true, s.reads, 0); v != verdictDead {
			s.probe(s.now, s.reads, 5*time.Second)
		}
	}
	if s.now != asked+5*time.Second {
		t.Errorf("dead %v after the first probe, want 5s", s.now-asked)
	}
}

func TestPulseForgivesAStoppedProcessItsIdleTime(t *testing.T) {
	s := newPulseSim(pulse{interval: 20 * time.Second, timeout: 15 * time.Second, idle: 10 * time.Second})
	s.until(5*time.Second, s.received)
	s.now = s.due + time.Hour // SIGSTOP, SIGCONT
	v, next := s.look(s.now, s.since, true, s.reads, 0)
	if v == verdictIdle || next-s.now < 5*time.Second {
		t.Fatalf("verdict %d after the process was stopped, next look in %v, want another chance of 5s", v, next-s.now)
	}
	if v, _ = s.look(s.now+10*time.Second, s.since, true, s.reads, 0); v != verdictIdle {
		t.Errorf("verdict %d 10 s later, want idle", v)
	}
}
