package ring

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRing(t *testing.T) {
	var r Ring[int]
	var model []int
	check := func(step string) {
		t.Helper()
		got := make([]int, r.n)
		for i := range got {
			got[i] = *r.At(i)
		}
		if !slices.Equal(got, model) {
			t.Fatalf("%s: got %v, want %v", step, got, model)
		}
	}
	for i := 1; i <= 20000; i++ {
		grow := i%2000 < 1000 // alternate between a long ring and an empty one
		switch n := rand.IntN(10); {
		case n < 2 || n < 6 && grow:
			r.PushBack(i)
			model = append(model, i)
			check("PushBack")
		case n == 6:
			r.PushFront(i)
			model = append([]int{i}, model...)
			check("PushFront")
		case n == 7 && i%40 == 0:
			keep := func(v *int) bool { return *v%3 > 0 }
			r.Filter(keep)
			model = slices.DeleteFunc(model, func(v int) bool { return !keep(&v) })
			check("Filter")
		case n == 8 && i%100 == 0:
			r.Clear()
			model = nil
			check("Clear")
		case len(model) > 0:
			if got := r.PopFront(); got != model[0] {
				t.Fatalf("PopFront: got %d, want %d", got, model[0])
			}
			model = model[1:]
			check("PopFront")
		}
		held := 0
		for _, v := range r.items {
			if v != 0 {
				held++
			}
		}
		if held != r.n {
			t.Fatalf("the memory holds %d items, the ring has %d", held, r.n)
		}
	}
	for r.n > 0 {
		r.PopFront()
	}
	if len(r.items) > 64 {
		t.Errorf("an empty ring keeps room for %d items, want at most 64", len(r.items))
	}
}
