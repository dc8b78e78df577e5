package main

import "time"

// warmUp is the number of events, in addition to count, before the clock starts.
func warmUp(count int) int { return count/10 + 1 }

// meter measures equal events for a given time, so that samples of fast peers are not
// too short. Before that, events warm up for a tenth of that time.
type meter struct {
	length     time.Duration
	every      int // number of events between two looks at the clock
	seen, next int
	until      time.Time
	warm       int // number of events before start
	start, end usage
}

// newMeter returns a meter that looks at the clock only after every so many events,
// since that would slow fast ones down.
func newMeter(length time.Duration, every int) *meter {
	return &meter{length: length, every: every, next: 1}
}

// event counts an event and reports whether to go on.
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
