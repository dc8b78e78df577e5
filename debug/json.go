package debug

import (
	"encoding/json"
	"math"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/resock/resock"
)

// maxText bounds what is kept of a text that others wrote, in bytes.
const maxText = 512

// report is what ?json answers. The package documentation describes it.
type report struct {
	Time    stamp  `json:"time"`
	Clients []view `json:"clients"`
}

// view is one client of a report.
type view struct {
	head
	Timeline []span `json:"timeline"`
	Ends     []end  `json:"ends"` // the newest first
}

// head is a view without its history. It is comparable.
type head struct {
	Name         string  `json:"name"`
	State        string  `json:"state"`
	Since        stamp   `json:"since"`
	URL          string  `json:"url,omitempty"`
	Subprotocol  string  `json:"subprotocol,omitempty"`
	Session      uint64  `json:"session"`
	Attempts     uint64  `json:"attempts"`
	Fails        uint64  `json:"fails"`
	NextAttempt  stamp   `json:"nextAttempt,omitzero"`
	Downtime     seconds `json:"downtime"`
	MessagesIn   uint64  `json:"messagesIn"`
	MessagesOut  uint64  `json:"messagesOut"`
	BytesIn      uint64  `json:"bytesIn"`
	BytesOut     uint64  `json:"bytesOut"`
	Rates        rates   `json:"rates"`
	Queued       int     `json:"queued"`
	QueuedBytes  int     `json:"queuedBytes"`
	Dropped      uint64  `json:"dropped"`
	RoundTrip    seconds `json:"roundTrip,omitempty"`
	LastMessage  stamp   `json:"lastMessage,omitzero"`
	Blocked      seconds `json:"blocked"`
	BlockedSince stamp   `json:"blockedSince,omitzero"`
	BlockedBy    string  `json:"blockedBy,omitempty"`
	LastError    string  `json:"lastError,omitempty"`
	Err          string  `json:"err,omitempty"`
}

// rates are per second, over so many seconds.
type rates struct {
	Over        float64 `json:"over"`
	MessagesIn  float64 `json:"messagesIn"`
	MessagesOut float64 `json:"messagesOut"`
	BytesIn     float64 `json:"bytesIn"`
	BytesOut    float64 `json:"bytesOut"`
}

func headOf(stats resock.Stats) head {
	return head{
		State: stats.State.String(), Since: stampOf(stats.Since), Session: stats.Session,
		Attempts: stats.Attempts, Fails: stats.Fails, Downtime: secondsOf(stats.Downtime),
		MessagesIn: stats.MessagesIn, MessagesOut: stats.MessagesOut, BytesIn: stats.BytesIn, BytesOut: stats.BytesOut,
		Queued: stats.Queued, QueuedBytes: stats.QueuedBytes, Dropped: stats.Dropped,
		RoundTrip: secondsOf(stats.RoundTrip), LastMessage: stampOf(stats.LastMessage),
		Blocked: secondsOf(stats.Blocked), BlockedSince: stampOf(stats.BlockedSince), BlockedBy: cut(stats.BlockedBy, maxText),
		LastError: textOf(stats.LastErr),
	}
}

// steady is the head without what a reader can count on by itself: two that are equal
// look alike.
func (h head) steady() head {
	h.Rates.Over = 0
	if h.State != "open" {
		h.Downtime = 0
	}
	if h.BlockedSince != 0 {
		h.Blocked = 0
	}
	return h
}

func (h *Handler) report() report {
	r := report{Time: stampOf(time.Now()), Clients: []view{}}
	for _, e := range h.registered() {
		head, record := e.look()
		r.Clients = append(r.Clients, view{head, append(record.spans, record.live...), newestFirst(record.ends)})
	}
	return r
}

func newestFirst(ends []end) []end {
	all := make([]end, 0, len(ends))
	for i := range ends {
		all = append(all, ends[len(ends)-1-i])
	}
	return all
}

func (h *Handler) serveJSON(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "\t")
	_ = encoder.Encode(h.report()) // fails only if the reader is gone
}

// stamp is a time in milliseconds since 1970, or 0 for none. In JSON it is a time of RFC
// 3339, in UTC.
type stamp int64

func stampOf(t time.Time) stamp {
	if t.IsZero() {
		return 0
	}
	return stamp(t.UnixMilli())
}

func (s stamp) time() time.Time { return time.UnixMilli(int64(s)).UTC() }

func (s stamp) MarshalText() ([]byte, error) {
	return s.time().AppendFormat(nil, "2006-01-02T15:04:05.000Z07:00"), nil
}

// seconds is a duration.
type seconds float64

// secondsOf rounds to microseconds.
func secondsOf(d time.Duration) seconds { return seconds(d.Round(time.Microsecond).Seconds()) }

// round rounds to thousandths.
func round(x float64) float64 { return math.Round(x*1000) / 1000 }

func textOf(err error) string {
	if err == nil {
		return ""
	}
	return cut(err.Error(), maxText)
}

// cut returns at most max bytes of text, without a part of a character and without keeping
// the rest in memory.
func cut(text string, max int) string {
	if len(text) <= max {
		return text
	}
	for max > 0 && !utf8.RuneStart(text[max]) {
		max--
	}
	return strings.Clone(text[:max]) + "…"
}
