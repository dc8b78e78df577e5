package relay

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

// Headers of the messages at NAME.msg. Stream, Epoch and Token are escaped as a part of the
// path of a URL is. A gap in place of messages that the relay had has the position of the
// last of them.
const (
	HeaderTerm    = "Resock-Term"    // which leader wrote it; a later one has a higher number
	HeaderSession = "Resock-Session" // of the client, counted from 1 in each term
	HeaderTime    = "Resock-Time"    // when it came, by the clock of the leader (RFC 3339)
	HeaderType    = "Resock-Type"    // text or binary
	HeaderStream  = "Resock-Stream"  // these four are its position, if it has one
	HeaderEpoch   = "Resock-Epoch"
	HeaderSeq     = "Resock-Seq"
	HeaderToken   = "Resock-Token"
)

// Gap is the record at NAME.gap, as JSON: messages of a stream of the feed are missing here.
type Gap struct {
	Stream string `json:"stream"`
	Reason string `json:"reason"`         // as of [resume.Reason], or one of the Reason constants
	From   uint64 `json:"from,omitempty"` // the first and the last number that is missing, if known
	To     uint64 `json:"to,omitempty"`
	After  string `json:"after,omitempty"` // the last position before the gap, for logs

	Messages uint64 `json:"messages,omitempty"` // how many are missing, if the relay dropped them
}

// Reasons of gaps that the relay makes.
const (
	ReasonSession  = "session"   // another session or term began, and without positions nobody knows what came between
	ReasonOverflow = "overflow"  // JetStream was too slow; see [Drop]
	ReasonTooLarge = "too large" // larger than NATS takes; other refusals are "refused: " and why
)

// checkpoint is the record at NAME.term: where each stream of the feed is, when a term began
// and from time to time after that.
type checkpoint struct {
	Term      uint64            `json:"term"`
	Began     bool              `json:"began,omitempty"`
	Positions []resume.Position `json:"positions"`
	Fell      []string          `json:"fell,omitempty"` // streams whose numbers fell in their epoch
}

// subjects are where the records of a relay are.
type subjects struct{ name string }

func (s subjects) message(topic string) string { return s.name + ".msg." + topic }
func (s subjects) gap() string                 { return s.name + ".gap" }
func (s subjects) term() string                { return s.name + ".term" }
func (s subjects) out() string                 { return s.name + ".out.>" }

// idOf returns the identity of a message: its position, or if that names none, what it is and
// where it came. Names are escaped, so the number of slashes tells the kinds of ids apart.
func idOf(term uint64, m resume.Message, count uint64, fell bool) string {
	p := m.Position
	switch {
	case fell:
	case p.Token != "" && p.Seq == 0:
		return url.PathEscape(p.Stream) + "//t/" + url.PathEscape(p.Token)
	case located(p):
		return url.PathEscape(p.Stream) + "/" + url.PathEscape(p.Epoch) + "/" + strconv.FormatUint(p.Seq, 10)
	}
	hash := fnv.New64a()
	_, _ = hash.Write(m.Data)
	return fmt.Sprintf("h/%d/%d/%d/%016x", term, m.Session, count, hash.Sum64())
}

// located reports whether a message that a feed delivered has a position.
func located(p resume.Position) bool { return p != (resume.Position{}) }

// header returns the headers of a message.
func header(term uint64, m resume.Message, at time.Time, id string) nats.Header {
	h := nats.Header{
		jetstream.MsgIDHeader: {id},
		HeaderTerm:            {strconv.FormatUint(term, 10)},
		HeaderSession:         {strconv.FormatUint(m.Session, 10)},
		HeaderTime:            {at.UTC().Format(time.RFC3339Nano)},
		HeaderType:            {typeName(m.Type)},
	}
	locate(h, m.Position)
	return h
}

// locate adds a position to headers, if it is one.
func locate(h nats.Header, p resume.Position) {
	if !located(p) {
		return
	}
	h[HeaderSeq] = []string{strconv.FormatUint(p.Seq, 10)}
	for name, value := range map[string]string{HeaderStream: p.Stream, HeaderEpoch: p.Epoch, HeaderToken: p.Token} {
		if value != "" {
			h[name] = []string{url.PathEscape(value)}
		}
	}
}

func typeName(t resock.MessageType) string {
	if t == resock.MessageBinary {
		return "binary"
	}
	return "text"
}

// PositionOf returns the position that the headers of a message tell, if they tell one.
func PositionOf(h nats.Header) (p resume.Position, ok bool) {
	seq, err := strconv.ParseUint(h.Get(HeaderSeq), 10, 64)
	if err != nil {
		return p, false
	}
	p.Seq = seq
	for name, field := range map[string]*string{HeaderStream: &p.Stream, HeaderEpoch: &p.Epoch, HeaderToken: &p.Token} {
		if *field, err = url.PathUnescape(h.Get(name)); err != nil {
			return resume.Position{}, false
		}
	}
	return p, true
}

// encode returns a record as JSON; what the package encodes has no other form.
func encode(record any) []byte {
	data, err := json.Marshal(record)
	if err != nil {
		panic(err)
	}
	return data
}
