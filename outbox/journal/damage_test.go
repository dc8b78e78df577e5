package journal

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// place is where a record is, and what it says.
type place struct {
	file     string
	from, to int64
	number   uint64 // of a put
	done     []span
}

// example returns a disk with some segments of 50 records, of which some are done.
func example(t testing.TB) (d *memory, config Config, places []place) {
	d, config = newMemory(), Config{Sync: SyncNever, SegmentBytes: 1200}
	j := openIn(t, d, config)
	for i := range 50 {
		put(t, j, fmt.Sprintf("id%d", i+1), strings.Repeat(string(rune('a'+i%26)), i%20))
		if i%10 == 9 {
			done(t, j, uint64(i-2), uint64(i-3))
		}
	}
	closeNow(t, j)
	for name, c := range d.names {
		chunks := chunks{file: bytes.NewReader(c.data), size: int64(len(c.data))}
		for offset := int64(headSize); offset < chunks.size; {
			h, ok, _, err := chunks.header(offset)
			if !ok || err != nil {
				t.Fatal(offset, err)
			}
			p := place{file: name, from: offset, to: offset + h.size(), number: h.number}
			if body, _, _ := chunks.body(offset, h); h.kind == kindDone {
				p.done = parseDone(body)
			}
			places, offset = append(places, p), p.to
		}
	}
	if len(d.names) < 2 {
		t.Fatalf("%d files", len(d.names))
	}
	return d, config, places
}

// survivors returns the ids that are not done if some records are lost.
func survivors(places []place, kept func(p place) bool) string {
	var live, done spans
	for _, p := range places {
		if !kept(p) {
			continue
		}
		if p.number > 0 {
			live.add(span{p.number, p.number})
		}
		for _, r := range p.done {
			done.add(r)
		}
	}
	var list []string
	for n := uint64(1); n <= 50; n++ {
		if live.has(n) && !done.has(n) {
			list = append(list, fmt.Sprintf("id%d", n))
		}
	}
	return strings.Join(list, " ")
}

// goesOn asks that the journal has what is wanted, takes more, and still has it all when it
// is opened again.
func goesOn(t *testing.T, d *memory, config Config, want string, used uint64) []Repair {
	t.Helper()
	j := openIn(t, d, config)
	wantIDs(t, j, want)
	repairs := j.Repairs()
	for i := range 20 { // into the next file
		id := fmt.Sprintf("new%d", i)
		want += " " + id
		if n := put(t, j, id, strings.Repeat("n", 50)); n <= used {
			t.Errorf("number %d came twice", n)
		}
	}
	wantIDs(t, j, want)
	closeNow(t, j)
	j = openIn(t, d, config)
	wantIDs(t, j, want)
	closeNow(t, j)
	return repairs
}

// lastFile returns the name of the last segment.
func lastFile(d *memory) (name string) {
	for other := range d.names {
		name = max(name, other)
	}
	return name
}

// TestPrefixes cuts the last file at each byte: all records before are there.
func TestPrefixes(t *testing.T) {
	original, config, places := example(t)
	name := lastFile(original)
	for size := range len(original.names[name].data) + 1 {
		d := original.crashed(false)
		d.names[name].data = d.names[name].data[:size]
		want := survivors(places, func(p place) bool { return p.file != name || p.to <= int64(size) })
		whole := size == 0 || size == headSize || slices.ContainsFunc(places, func(p place) bool { return p.file == name && p.to == int64(size) })
		got := goesOn(t, d, config, want, 0)
		if whole != (len(got) == 0) || len(got) > 1 || len(got) == 1 && (got[0].Saved != "" || got[0].Offset+got[0].Length != int64(size)) {
			t.Errorf("repairs: %+v", got)
		}
		if t.Failed() {
			t.Fatalf("%s cut at %d", name, size)
		}
	}
}

// TestFlips changes each byte of each file: no record is lost but the
// one that has it, and the bytes are set aside.
func TestFlips(t *testing.T) {
	original, config, places := example(t)
	for name, c := range original.names {
		for offset := range c.data {
			change := []byte{0x01, 0x80, 0xff}[offset%3]
			d := original.crashed(false)
			d.names[name].data[offset] ^= change
			hit := func(p place) bool { return p.file == name && p.from <= int64(offset) && int64(offset) < p.to }
			want := survivors(places, func(p place) bool { return !hit(p) })
			checkFlip(t, d, goesOn(t, d, config, want, 50), int64(offset))
			if t.Failed() {
				t.Fatalf("%s: byte %d of %d, changed by %x", name, offset, len(c.data), change)
			}
		}
	}
}

// checkFlip asks that one repair has a byte, and that the bytes are saved.
func checkFlip(t *testing.T, d *memory, got []Repair, offset int64) {
	t.Helper()
	if len(got) != 1 || offset < got[0].Offset || got[0].Offset+got[0].Length <= offset || got[0].Reason == "" {
		t.Errorf("repairs: %+v", got)
		return
	}
	saved := d.names[strings.TrimPrefix(got[0].Saved, "folder/")]
	if saved == nil || int64(len(saved.data)) != got[0].Length {
		t.Errorf("saved: %+v", got)
	}
}
