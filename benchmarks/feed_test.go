package main

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"
)

func TestTicksDifferButForTheirSize(t *testing.T) {
	m, seen := newMarket(), make(map[string]bool)
	for range 10_000 {
		tick := m.tick()
		if len(tick) != tickSize {
			t.Fatalf("got %d bytes, want %d: %s", len(tick), tickSize, tick)
		}
		if seen[string(tick)] {
			t.Fatalf("got twice: %s", tick)
		}
		seen[string(tick)] = true
	}
}

// A feed is sent repeatedly, so its beginning must be valid after its end.
func TestTicksMayBeRepeated(t *testing.T) {
	for name, f := range map[string]feed{variantTicks: ticksAlone(), variantTakeover: ticksTakeover()} {
		var stream bytes.Buffer
		for range 2 {
			start := 0
			for _, end := range f.ends {
				frame := f.frames[start:end]
				header := 2
				if frame[1] == 126 {
					header = 4
				}
				stream.Write(frame[header:])
				stream.WriteString("\x00\x00\xff\xff")
				start = end
			}
		}
		got, err := io.ReadAll(flate.NewReader(&stream))
		if err != io.ErrUnexpectedEOF { // there is no final block
			t.Errorf("%s: %v", name, err)
		}
		want := newMarket()
		for i := range f.ends {
			if tick := want.tick(); !bytes.HasPrefix(got[i*tickSize:], tick) || !bytes.HasPrefix(got[(len(f.ends)+i)*tickSize:], tick) {
				t.Fatalf("%s: tick %d is not %s", name, i, tick)
			}
		}
		t.Logf("%s: %d ticks of %.1f bytes", name, len(f.ends), float64(len(f.frames))/float64(len(f.ends)))
	}
}
