package main

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestMeterLeavesOutTheWarmUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const length = 20 * time.Millisecond
		m := newMeter(length, 3)
		began := time.Now()
		for m.event() {
			time.Sleep(100 * time.Microsecond)
		}
		if took := time.Since(began); took < length*11/10 {
			t.Errorf("took %v, want at least %v", took, length*11/10)
		}
		counted := m.seen - m.warm
		if m.warm == 0 || counted%3 != 0 {
			t.Errorf("%d events of warm-up, %d counted", m.warm, counted)
		}
		if wall := m.sample()[metricWall] * float64(counted); wall < float64(length) {
			t.Errorf("measured %v, want at least %v", time.Duration(wall), length)
		}
	})
}
