package outbox

import (
	"testing"
	"time"
)

// TestReceiptOfAnother passes over a receipt of what was not written yet: it is about a
// message of before, with the same id.
func TestReceiptOfAnother(t *testing.T) {
	f := flight{session: 2, entries: []*entry{{Record: Record{Number: 1, ID: "1"}}, {Record: Record{Number: 2, ID: "1"}, again: true}}}
	done := f.receive(receipt{id: "1"}, 2, time.Now())
	if len(done) != 1 || done[0].Number != 2 {
		t.Errorf("got %v, want the second", done)
	}
	if done := f.receive(receipt{id: "1"}, 2, time.Now()); done != nil {
		t.Errorf("got %v, want nothing", done)
	}
}

// TestLateReceipt counts for the session that it came in.
func TestLateReceipt(t *testing.T) {
	first := &entry{Record: Record{Number: 1, ID: "1"}, session: 2}
	f := flight{session: 2, entries: []*entry{first, {Record: Record{Number: 2, ID: "2"}, session: 2}}}
	f.receive(receipt{id: "2"}, 1, time.Now())
	f.over(2, false)
	if f.lost(first); first.losses != 1 {
		t.Errorf("%d losses, want 1: what came in session 1 says nothing of session 2", first.losses)
	}
	f.lost(first)
	f.over(3, false)
	if f.lost(first); first.losses != 1 {
		t.Errorf("%d losses, want 1: it was not written in session 3", first.losses)
	}
}
