package outbox_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
)

// mqtt reads what acknowledges a PUBLISH with QoS 1 of MQTT 3.1.1: a PUBACK with its packet
// identifier.
func mqtt(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	if m.Type != resock.MessageBinary || len(m.Data) != 4 || m.Data[0] != 0x40 || m.Data[1] != 2 {
		return true
	}
	found.Acked(fmt.Sprint(binary.BigEndian.Uint16(m.Data[2:])))
	return false
}

// publish is a PUBLISH of MQTT 3.1.1 with QoS 1. The identifier must not be that of
// another message under way.
func publish(id uint16, topic, text string) []byte {
	b := []byte{0x32, byte(4 + len(topic) + len(text)), 0, byte(len(topic))}
	b = append(b, topic...)
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, text...)
}

// sequenced reads acknowledgements as SignalR's stateful reconnect has them, type 8: all up
// to a number.
func sequenced(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	var message struct {
		Type       int
		SequenceID uint64
	}
	text := strings.TrimSuffix(string(m.Data), "\x1e")
	if json.Unmarshal([]byte(text), &message) != nil || message.Type != 8 {
		return true
	}
	found.AckedUpTo(fmt.Sprint(message.SequenceID))
	return false
}

// exchange reads the answers to orders, which may be refused.
func exchange(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	var answer struct {
		ID    string
		Error *struct{ Msg string }
	}
	switch {
	case json.Unmarshal(m.Data, &answer) != nil || answer.ID == "":
		return true
	case answer.Error != nil:
		found.Refused(answer.ID, errors.New(answer.Error.Msg))
	default:
		found.Acked(answer.ID)
	}
	return false
}

// TestProtocols sends in each protocol, over the end of a session.
func TestProtocols(t *testing.T) {
	for _, test := range []struct {
		name    string
		read    func(resock.MessageEvent, *outbox.Found) bool
		typ     resock.MessageType
		put     func(n int) []byte
		answers []string // to the first two messages
		told    string
		again   []int // that the next session brings
	}{
		{
			"MQTT", mqtt, resock.MessageBinary,
			func(n int) []byte { return publish(uint16(n), "news", fmt.Sprint("text ", n)) },
			[]string{"\x40\x02\x00\x02", "\x90\x03\x00\x01\x01"}, "2", []int{1, 3},
		},
		{
			"SignalR", sequenced, resock.MessageText,
			func(n int) []byte { return fmt.Appendf(nil, "{\"type\":1,\"arguments\":[%d]}\x1e", n) },
			[]string{"{\"type\":6}\x1e", "{\"type\":8,\"sequenceId\":2}\x1e"}, "1, 2", []int{3},
		},
		{
			"exchange", exchange, resock.MessageText,
			func(n int) []byte { return fmt.Appendf(nil, `{"id":"%d","method":"order.place"}`, n) },
			[]string{`{"id":"1","result":{}}`, `{"id":"2","error":{"code":-1013,"msg":"filter failure"}}`}, "1, 2 refused", []int{3},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, outbox.Config{Read: test.read}, func(w *world) {
				for n := 1; n <= 3; n++ {
					if err := w.box.Put(t.Context(), fmt.Sprint(n), test.typ, test.put(n)); err != nil {
						t.Fatal(err)
					}
					w.gets(string(test.put(n)))
				}
				for _, answer := range test.answers {
					push := w.conn.Push
					if test.typ == resock.MessageBinary {
						push = func(text string) error { return w.conn.PushBinary([]byte(text)) }
					}
					if err := push(answer); err != nil {
						t.Fatal(err)
					}
				}
				synctest.Wait()
				w.ends(test.told)
				w.again()
				for _, n := range test.again {
					m, err := w.conn.Read()
					if err != nil || string(m.Data) != string(test.put(n)) {
						t.Fatalf("the server read %q, %v; want %q", m.Data, err, test.put(n))
					}
				}
			})
		})
	}
}
