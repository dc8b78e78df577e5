package main

import "time"

// warmUp is how many of count events pass before the clock starts.
func warmUp(count int) int { return count/10 + 1 }

// meter measures a run of equal events for a given time, so that no sample is short,
// however fast the peer. The events of the first tenth of that time warm up.
type meter struct {
	length     time.Duration
	every      int // events between two looks at the clock
	seen, next int
	until      time.Time
	warm       int // events that have passed when the measure starts
	start, end usage
}

// newMeter returns a meter that looks at the clock after each so many events: fast
// ones would notice.
func newMeter(length time.Duration, every int) *meter {
	return &meter{length: length, every: every, next: 1}
}

// event notes one event, and reports whether more are wanted.
func (m *meter) event() bool {
	m.seen++
	return m.seen < m.next || m.look()
}

func (m *meter) look() bool {
	m.next = m.seen + m.every
	switch at := time.Now(); {
	case m.until.IsZero(): // the first event
		m.until = at.Add(m.length / 10)
	case at.Before(m.until):
	case m.warm == 0:
		m.warm = m.seen
		m.start = now()
		m.until = m.start.at.Add(m.length)
	default:
		m.end = now()
		return false
	}
	return true
}

func (m *meter) sample() sample { return m.start.per(m.seen-m.warm, m.end) }
