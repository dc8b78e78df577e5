package debug

import "time"

// pause is the time between two updates of a stream.
type pause struct {
	woken  <-chan struct{}
	looked time.Time // when the stream last looked
	spoken time.Time // and last said something
}

func newPause(woken <-chan struct{}) *pause {
	now := time.Now()
	return &pause{woken, now, now}
}

func (p *pause) spoke() { p.spoken = time.Now() }

// silence is how long nothing was said.
func (p *pause) silence() time.Duration { return time.Since(p.spoken) }

// wait waits until it is time to look again, or reports false if one of the channels was
// closed.
func (p *pause) wait(gone, shutdown <-chan struct{}) bool {
	defer func() { p.looked = time.Now() }()
	tick := time.NewTimer(updateEvery)
	defer tick.Stop()
	woken := p.woken
	for {
		select {
		case <-tick.C:
			return true
		case <-woken: // more may happen at once
			woken = nil
			tick.Reset(max(0, updateGap-time.Since(p.looked)))
		case <-gone:
			return false
		case <-shutdown:
			return false
		}
	}
}
