package resume_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// centrifugo reads its JSON protocol: replies and pushes, one a line. A reply to a
// subscription does not name its channel, but the command that it answers.
func centrifugo(channels map[uint32]string) func(resock.MessageEvent, *resume.Found) {
	type publication struct {
		Offset uint64
		Data   json.RawMessage
	}
	epochs := map[string]string{} // a push has none
	return func(m resock.MessageEvent, found *resume.Found) {
		for line := range bytes.SplitSeq(m.Data, []byte("\n")) {
			var reply struct {
				ID    uint32
				Reply *struct {
					Epoch        string
					Offset       uint64
					Publications []publication
				} `json:"subscribe"`
				Push *struct {
					Channel string
					Pub     *publication
				}
			}
			if json.Unmarshal(line, &reply) != nil {
				continue
			}
			if s := reply.Reply; s != nil {
				channel := channels[reply.ID]
				epochs[channel] = s.Epoch
				for _, p := range s.Publications {
					found.Message(resume.Position{Stream: channel, Epoch: s.Epoch, Seq: p.Offset}, p.Data)
				}
				found.At(resume.Position{Stream: channel, Epoch: s.Epoch, Seq: s.Offset})
			}
			if p := reply.Push; p != nil && p.Pub != nil {
				found.Message(resume.Position{Stream: p.Channel, Epoch: epochs[p.Channel], Seq: p.Pub.Offset}, p.Pub.Data)
			}
		}
	}
}

// signalR reads its JSON protocol with stateful reconnect. Messages have no numbers: both
// sides count those of type 1 to 5, and the server says with type 9 which one comes next.
// Its numbers are those of one logical connection.
func signalR(connection string) func(resock.MessageEvent, *resume.Found) {
	next := uint64(1)
	return func(m resock.MessageEvent, found *resume.Found) {
		for record := range bytes.SplitSeq(m.Data, []byte{0x1e}) {
			var message struct {
				Type       int
				SequenceID uint64
			}
			if json.Unmarshal(record, &message) != nil {
				continue
			}
			switch {
			case message.Type == 9:
				next = message.SequenceID
			case message.Type >= 1 && message.Type <= 5:
				found.Message(resume.Position{Epoch: connection, Seq: next}, record)
				next++
			}
		}
	}
}

// binance reads changes of an order book: futures name the change before (pu), and spot
// the first number of a change (U), which follows on the last one of the change before.
func binance(m resock.MessageEvent, found *resume.Found) {
	var change struct {
		Symbol string  `json:"s"`
		First  uint64  `json:"U"`
		Last   uint64  `json:"u"`
		Prev   *uint64 `json:"pu"`
	}
	if json.Unmarshal(m.Data, &change) != nil || change.Last == 0 {
		return
	}
	p := resume.Position{Stream: change.Symbol, Seq: change.Last, Link: resume.Linked, Prev: change.First - 1}
	if change.Prev != nil {
		p.Prev = *change.Prev
	}
	found.Message(p, m.Data)
}

// okx reads an order book: a snapshot, which follows on -1, and changes. The numbers may
// begin anew in the middle.
func okx(m resock.MessageEvent, found *resume.Found) {
	var book struct {
		Arg  struct{ InstID string }
		Data []struct {
			SeqID     uint64
			PrevSeqID int64
		}
	}
	if json.Unmarshal(m.Data, &book) != nil {
		return
	}
	for _, change := range book.Data {
		p := resume.Position{Stream: book.Arg.InstID, Seq: change.SeqID, Link: resume.Linked, Prev: uint64(change.PrevSeqID)}
		if change.PrevSeqID < 0 {
			p.Prev = 0
			found.Snapshot(p, m.Data)
			continue
		}
		found.Message(p, m.Data)
	}
}

// slack reads envelopes of its socket mode. An event that was not acknowledged comes again
// in another envelope.
func slack(m resock.MessageEvent, found *resume.Found) {
	var envelope struct {
		EnvelopeID string `json:"envelope_id"`
		Payload    struct {
			EventID string `json:"event_id"`
		}
	}
	if json.Unmarshal(m.Data, &envelope) == nil && envelope.Payload.EventID != "" {
		found.Message(resume.Position{Token: envelope.Payload.EventID}, m.Data)
	}
}

// TestProtocols follows a feed in each protocol, over the end of a session.
func TestProtocols(t *testing.T) {
	for _, test := range []struct {
		name       string
		read       func(resock.MessageEvent, *resume.Found)
		before     []string
		wantBefore string // positions and gaps
		asks       string // the second session
		after      []string
		wantAfter  string
	}{
		{
			"Centrifugo", centrifugo(map[uint32]string{2: "news", 3: "sport", 5: "news", 6: "sport"}),
			[]string{
				`{"id":2,"subscribe":{"epoch":"x","offset":7}}` + "\n" + `{"id":3,"subscribe":{"epoch":"y","offset":0}}`,
				`{"push":{"channel":"news","pub":{"data":{},"offset":8}}}` + "\n" + `{"push":{"channel":"sport","pub":{"data":{},"offset":1}}}`,
			},
			"news x:8; sport y:1",
			"news x:8, sport y:1",
			[]string{
				`{"id":5,"subscribe":{"recovered":true,"epoch":"x","offset":10,"publications":[{"offset":9,"data":{}},{"offset":10,"data":{}}]}}`,
				`{"id":6,"subscribe":{"epoch":"y","offset":5}}`,
				`{"push":{"channel":"news","pub":{"data":{},"offset":11}}}` + "\n" + `{"push":{"channel":"sport","pub":{"data":{},"offset":6}}}`,
			},
			"news x:9; news x:10; [sport 2-5: cursor lost]; news x:11; sport y:6",
		},
		{
			"SignalR", signalR("c"),
			[]string{`{"type":1,"target":"a"}` + "\x1e" + `{"type":6}` + "\x1e" + `{"type":3,"invocationId":"1"}` + "\x1e"},
			"c:1; c:2",
			"c:2",
			[]string{
				`{"type":9,"sequenceId":2}` + "\x1e" + `{"type":3,"invocationId":"1"}` + "\x1e" + `{"type":1,"target":"b"}` + "\x1e",
				`{"type":9,"sequenceId":5}` + "\x1e" + `{"type":1,"target":"c"}` + "\x1e",
			},
			"c:3; [ 4-4: hole]; c:5",
		},
		{
			"futures", binance,
			[]string{`{"result":null,"id":1}`, `{"s":"BTC","U":100,"u":105,"pu":90}`, `{"s":"BTC","U":107,"u":110,"pu":105}`},
			"-; BTC 105; BTC 110",
			"BTC 110",
			[]string{`{"s":"BTC","U":107,"u":110,"pu":105}`, `{"s":"BTC","U":121,"u":125,"pu":120}`, `{"s":"BTC","U":126,"u":130,"pu":125}`},
			"[BTC 111-120: hole]; BTC 125; BTC 130",
		},
		{
			"spot", binance,
			[]string{`{"s":"BTC","U":100,"u":105}`, `{"s":"BTC","U":106,"u":110}`},
			"BTC 105; BTC 110",
			"BTC 110",
			[]string{`{"s":"BTC","U":104,"u":112}`, `{"s":"BTC","U":121,"u":125}`},
			"BTC 112; [BTC 113-120: hole]; BTC 125",
		},
		{
			"OKX", okx,
			[]string{
				`{"arg":{"instId":"BTC"},"data":[{"seqId":10,"prevSeqId":-1}]}`,
				`{"arg":{"instId":"BTC"},"data":[{"seqId":15,"prevSeqId":10}]}`,
				`{"arg":{"instId":"BTC"},"data":[{"seqId":15,"prevSeqId":15}]}`,
				`{"arg":{"instId":"BTC"},"data":[{"seqId":3,"prevSeqId":15}]}`,
			},
			"BTC 10; BTC 15; BTC 3",
			"BTC 3",
			[]string{
				`{"arg":{"instId":"BTC"},"data":[{"seqId":2,"prevSeqId":-1}]}`,
				`{"arg":{"instId":"BTC"},"data":[{"seqId":8,"prevSeqId":5}]}`,
			},
			"BTC 2; [BTC 3-5: hole]; BTC 8",
		},
		{
			"Slack", slack,
			[]string{`{"type":"hello"}`, `{"envelope_id":"e1","payload":{"event_id":"Ev1"}}`},
			`-; token "Ev1"`,
			`token "Ev1"`,
			[]string{`{"envelope_id":"e2","payload":{"event_id":"Ev1"}}`, `{"envelope_id":"e3","payload":{"event_id":"Ev2"}}`},
			`again token "Ev1"; token "Ev2"`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(w *world) {
				w.feed = w.make(resume.Config{Read: test.read, AutoCommit: true, Repeated: test.name == "Slack"})
				conn := w.start()
				w.shows(conn, test.before, test.wantBefore)
				conn = w.again(conn)
				w.asks(test.asks)
				w.shows(conn, test.after, test.wantAfter)
			})
		})
	}
}

// shows lets the server push messages, and expects where they stand.
func (w *world) shows(conn *resocktest.Conn, texts []string, want string) {
	w.Helper()
	for _, text := range texts {
		if err := conn.Push(text); err != nil {
			w.Fatal(err)
		}
	}
	for want := range strings.SplitSeq(want, "; ") {
		event, _ := w.next()
		if got := shown(event); got != want {
			w.Fatalf("got %s, want %s", got, want)
		}
	}
}

// shown writes where an event stands.
func shown(event resume.Event) string {
	switch e := event.(type) {
	case resume.Message:
		if e.Position == (resume.Position{}) {
			return "-"
		}
		return e.Position.String()
	case resume.Repeated:
		return "again " + e.Position.String()
	}
	return show(event)
}
