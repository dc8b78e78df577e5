package centrifuge

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/resock/resock/resume"
)

// reader checks what a feed delivers, and commits some of it late.
type reader struct {
	*protocol
	source *source
	random *rand.Rand
	late   []resume.Position // not committed yet

	next      []publicationID // of the channels
	skipped   uint64          // published before the first subscription
	delivered uint64
	missing   uint64
	gaps      map[resume.Reason]int
}

// publicationID is the data of a publication, and names it in its channel.
type publicationID struct {
	Life   int    `json:"life"`
	Number uint64 `json:"number"`
}

// newReader expects all that is published from now on.
func newReader(p *protocol, s *source) *reader {
	r := &reader{protocol: p, source: s, random: rand.New(rand.NewPCG(3, 4)), skipped: s.total(), gaps: make(map[resume.Reason]int)}
	for _, published := range s.lives[0].published {
		r.next = append(r.next, publicationID{0, published + 1})
	}
	return r
}

// take checks an event.
func (r *reader) take(event resume.Event) error {
	switch e := event.(type) {
	case resume.Message:
		return r.message(e)
	case resume.Gap:
		return r.gap(e)
	case resume.StoreError:
		return e.Err
	}
	return nil
}

// message checks that a publication is the next one of its channel. Other messages are answers.
func (r *reader) message(m resume.Message) error {
	if m.Position == (resume.Position{}) {
		return nil
	}
	var id publicationID
	if err := json.Unmarshal(m.Data, &id); err != nil {
		return err
	}
	i := slices.Index(r.channels, m.Position.Stream)
	if id != r.next[i] || m.Position.Seq != id.Number || m.Position.Epoch != r.epoch(i, id.Life) {
		return fmt.Errorf("%v: delivered %+v, want %+v", m.Position, id, r.next[i])
	}
	r.next[i].Number++
	r.delivered++
	return r.commit(m.Position)
}

func (r *reader) epoch(i, life int) string {
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	return r.source.lives[life].epochs[i]
}

// commit commits a position, and those that it has put off, in any order, or puts it off.
func (r *reader) commit(p resume.Position) error {
	r.late = append(r.late, p)
	if r.random.IntN(20) > 0 {
		return nil
	}
	return r.commitAll()
}

func (r *reader) commitAll() (err error) {
	r.random.Shuffle(len(r.late), func(i, j int) { r.late[i], r.late[j] = r.late[j], r.late[i] })
	for _, p := range r.late {
		err = errors.Join(err, r.feed.Commit(p))
	}
	r.late = r.late[:0]
	return err
}

// gap checks that a gap begins with the next publication, and skips what is missing.
func (r *reader) gap(g resume.Gap) error {
	r.gaps[g.Reason]++
	i := slices.Index(r.channels, g.Stream)
	next := r.next[i]
	after, err := r.after(i, g)
	switch {
	case err != nil:
		return err
	case g.From != next.Number || g.Last.Seq != next.Number-1 || g.Last.Epoch != r.epoch(i, next.Life):
		return fmt.Errorf("the gap %+v does not begin with %+v", g, next)
	}
	r.next[i] = after
	r.missing += r.between(i, next, after)
	return nil
}

// after returns what follows a gap.
func (r *reader) after(i int, g resume.Gap) (publicationID, error) {
	life := r.life(i, g.UpTo.Epoch)
	after := publicationID{life, g.UpTo.Seq + 1}
	switch {
	case life < 0:
	case g.Reason == resume.CursorLost && life == r.next[i].Life && g.To == g.UpTo.Seq && g.To >= g.From:
		return after, nil
	case g.Reason == resume.NewEpoch && life > r.next[i].Life && g.To == 0:
		return after, nil
	}
	return after, fmt.Errorf("unexpected gap, before %+v: %+v", r.next[i], g)
}

// life returns the life that has an epoch, or -1.
func (r *reader) life(i int, epoch string) int {
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	return slices.IndexFunc(r.source.lives, func(l *life) bool { return l.epochs[i] == epoch })
}

// between counts the publications from first to before after.
func (r *reader) between(i int, first, after publicationID) (n uint64) {
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	for _, l := range r.source.lives[first.Life:after.Life] {
		n += l.published[i]
	}
	return n + after.Number - first.Number
}

// sawAll reports whether the end of each channel was reached.
func (r *reader) sawAll() bool {
	r.source.mu.Lock()
	defer r.source.mu.Unlock()
	if !r.source.over {
		return false
	}
	last := len(r.source.lives) - 1
	for i, published := range r.source.lives[last].published {
		if r.next[i] != (publicationID{last, published + 1}) {
			return false
		}
	}
	return true
}

// check checks what there was in all.
func (r *reader) check(t *testing.T, reasons []resume.Reason) {
	t.Helper()
	if err := errors.Join(r.faults...); err != nil {
		t.Error(err)
	}
	if err := r.commitAll(); err != nil {
		t.Error(err)
	}
	if got, want := r.skipped+r.delivered+r.missing, r.source.total(); got != want {
		t.Errorf("%d publications are accounted for, of %d", got, want)
	}
	if got := slices.Sorted(maps.Keys(r.gaps)); !slices.Equal(got, reasons) {
		t.Errorf("the reasons of the gaps are %v, want %v", got, reasons)
	}
	for i, c := range r.feed.Cursors() {
		if c.Stream != r.channels[i] || c.Seq != r.next[i].Number-1 || c.Epoch != r.epoch(i, r.next[i].Life) {
			t.Errorf("the cursor is %v, want one before %+v", c, r.next[i])
		}
	}
	stats := r.feed.Stats()
	if stats.Messages != r.delivered {
		t.Errorf("the feed counts %d messages, want %d", stats.Messages, r.delivered)
	}
	t.Logf("%d cuts, %d sessions, %d pings answered: %d messages, %d duplicates dropped, %d gaps with %d messages in them",
		r.source.cuts, r.client.Stats().Session, len(r.pings), r.delivered, stats.Duplicates, stats.Gaps, r.missing)
}
