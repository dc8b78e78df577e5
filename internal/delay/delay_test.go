package delay

import (
	"math"
	"testing"
	"time"
)

func TestDraw(t *testing.T) {
	const max = 30 * time.Second
	normal, custom := Schedule{Max: max}, Schedule{Max: max, Verbatim: true}
	slow := Wish{Slow: true}
	for _, tt := range []struct {
		name     string
		schedule Schedule
		wish     Wish
		bound    time.Duration
		random   float64
		want     time.Duration
	}{
		{"lowest", normal, Wish{}, 8 * time.Second, 0, 0},
		{"middle", normal, Wish{}, 8 * time.Second, 0.5, 4 * time.Second},
		{"the bound never exceeds the maximum", normal, Wish{}, time.Hour, 0.5, 15 * time.Second},
		{"twice the spread", normal, Wish{Spread: 2}, max, 0.75, 45 * time.Second},
		{"negative spread", normal, Wish{Spread: -1}, max, 0.5, 15 * time.Second},
		{"jitter on top of a floor", normal, Wish{Floor: time.Minute}, 8 * time.Second, 0.5, 64 * time.Second},
		{"floor without jitter", normal, Wish{Floor: time.Minute}, 8 * time.Second, 0, time.Minute},
		{"slow, lowest", normal, slow, time.Second, 0, 15 * time.Second},
		{"slow, highest", normal, slow, time.Second, 1, max},
		{"slow, spread", normal, Wish{Slow: true, Spread: 2}, time.Second, 0.5, 45 * time.Second},
		{"slow with a floor", normal, Wish{Slow: true, Floor: time.Hour}, 2 * time.Second, 0.5, time.Hour + time.Second},
		{"slow with a low floor", normal, Wish{Slow: true, Floor: time.Second}, 2 * time.Second, 0, 15 * time.Second},
		{"custom, verbatim", custom, Wish{}, time.Hour, 0.3, time.Hour},
		{"custom, no spread", custom, Wish{Spread: 2}, time.Second, 1, time.Second},
		{"custom, slow", custom, slow, time.Second, 0, 30 * time.Second},
		{"custom, slower", custom, slow, time.Hour, 0, time.Hour},
		{"custom, floor", custom, Wish{Floor: time.Minute}, time.Second, 0, time.Minute},
		{"no overflow", normal, Wish{Spread: math.MaxFloat64}, max, 1, 1 << 61},
	} {
		if got := tt.schedule.Draw(tt.wish, tt.bound, tt.random); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestBounds(t *testing.T) {
	b := Bounds(500*time.Millisecond, 3*time.Second)
	want := []time.Duration{500, 1000, 2000, 3000, 3000}
	for round := range 2 {
		for i, bound := range want {
			if got := b.NextBackOff(); got != bound*time.Millisecond {
				t.Errorf("round %d, failure %d: bound %v, want %v", round, i+1, got, bound*time.Millisecond)
			}
		}
		b.Reset()
	}
	if got := Bounds(20*time.Millisecond, time.Second).NextBackOff(); got != 20*time.Millisecond {
		t.Errorf("first bound %v, want 20ms", got)
	}
	huge := Bounds(time.Hour, math.MaxInt64)
	for range 200 {
		if bound := huge.NextBackOff(); bound <= 0 {
			t.Fatalf("bound %v, want a positive one", bound)
		}
	}
}

// TestDrawNeverOverflows checks that no wish of a retry policy, however odd, makes the
// delay shorter than its floor. A negative delay would cause a hot loop.
func TestDrawNeverOverflows(t *testing.T) {
	const most = time.Duration(math.MaxInt64)
	for _, s := range []Schedule{{Max: time.Second}, {Max: most}, {Max: most, Verbatim: true}} {
		for _, floor := range []time.Duration{0, time.Hour, most} {
			for _, spread := range []float64{-1, 0, 2, math.MaxFloat64, math.Inf(1), math.NaN()} {
				for _, random := range []float64{0, 0.5, 0.999} {
					for _, slow := range []bool{false, true} {
						w := Wish{Slow: slow, Floor: floor, Spread: spread}
						if d := s.Draw(w, s.Max, random); d < min(floor, 1<<61) {
							t.Errorf("%+v.Draw(%+v, random %v) = %v", s, w, random, d)
						}
					}
				}
			}
		}
	}
}
