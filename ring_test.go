package resock

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRing(t *testing.T) {
	var r ring[int]
	var model []int
	check := func(step string) {
		t.Helper()
		got := make([]int, r.len)
		for i := range got {
			got[i] = *r.at(i)
		}
		if !slices.Equal(got, model) {
			t.Fatalf("%s: got %v, want %v", step, got, model)
		}
	}
	for i := 1; i <= 20000; i++ {
		grow := i%2000 < 1000 // long and empty in turn
		switch n := rand.IntN(10); {
		case n < 2 || n < 6 && grow:
			r.pushBack(i)
			model = append(model, i)
			check("pushBack")
		case n == 6:
			r.pushFront(i)
			model = append([]int{i}, model...)
			check("pushFront")
		case n == 7 && i%40 == 0:
			keep := func(v *int) bool { return *v%3 > 0 }
			r.filter(keep)
			model = slices.DeleteFunc(model, func(v int) bool { return !keep(&v) })
			check("filter")
		case n == 8 && i%100 == 0:
			r.clear()
			model = nil
			check("clear")
		case len(model) > 0:
			if got := r.popFront(); got != model[0] {
				t.Fatalf("popFront: got %d, want %d", got, model[0])
			}
			model = model[1:]
			check("popFront")
		}
		held := 0
		for _, v := range r.items {
			if v != 0 {
				held++
			}
		}
		if held != r.len {
			t.Fatalf("%d items are kept alive, %d are in the ring", held, r.len)
		}
	}
	for r.len > 0 {
		r.popFront()
	}
	if len(r.items) > 64 {
		t.Errorf("the empty ring keeps room for %d", len(r.items))
	}
}
