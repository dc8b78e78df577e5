package call_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"testing"

	"github.com/resock/resock"
	"github.com/resock/resock/call"
	"github.com/resock/resock/resocktest"
)

// separated splits messages at a separator.
func separated(by string) call.Option {
	return call.WithSplit(func(data []byte) iter.Seq[[]byte] { return bytes.SplitSeq(data, []byte(by)) })
}

// signalR reads completions of its JSON protocol, whose records end with a separator.
func signalR(m resock.MessageEvent) (string, bool) {
	var completion struct {
		Type         int    `json:"type"`
		InvocationID string `json:"invocationId"`
	}
	err := json.Unmarshal(m.Data, &completion)
	return completion.InvocationID, err == nil && completion.Type == 3
}

// centrifugo reads replies of its JSON protocol, whose ids are numbers; a push has none.
func centrifugo(m resock.MessageEvent) (string, bool) {
	var reply struct {
		ID uint32 `json:"id"`
	}
	err := json.Unmarshal(m.Data, &reply)
	return strconv.FormatUint(uint64(reply.ID), 10), err == nil && reply.ID > 0
}

// mqtt reads the acknowledgements of MQTT 3.1.1 that have a packet identifier: PUBACK,
// SUBACK and UNSUBACK.
func mqtt(m resock.MessageEvent) (string, bool) {
	if m.Type != resock.MessageBinary || len(m.Data) < 4 || m.Data[1] >= 0x80 {
		return "", false
	}
	switch m.Data[0] >> 4 {
	case 4, 9, 11:
		return fmt.Sprint(binary.BigEndian.Uint16(m.Data[2:])), true
	}
	return "", false
}

// exchange reads the answers of an exchange, whose ids are what the client chose, and
// whose feed has no field of that name.
func exchange(m resock.MessageEvent) (string, bool) {
	var answer struct {
		ID *json.RawMessage `json:"id"`
	}
	err := json.Unmarshal(m.Data, &answer)
	if err != nil || answer.ID == nil || string(*answer.ID) == "null" {
		return "", false
	}
	return string(*answer.ID), true
}

// TestProtocols makes one call in each protocol, between pushes.
func TestProtocols(t *testing.T) {
	for _, test := range []struct {
		name      string
		answers   func(resock.MessageEvent) (string, bool)
		separator string
		id        string
		binary    bool
		request   string
		push      string
		answer    string
	}{
		{
			"SignalR", signalR, "\x1e", "7", false,
			`{"type":1,"invocationId":"7","target":"Time","arguments":[]}` + "\x1e",
			`{"type":1,"target":"Tick","arguments":[7]}`,
			`{"type":3,"invocationId":"7","result":"noon"}`,
		},
		{
			"Centrifugo", centrifugo, "\n", "7", false,
			`{"id":7,"subscribe":{"channel":"news"}}`,
			`{"push":{"channel":"news","pub":{"data":{},"offset":7}}}`,
			`{"id":7,"subscribe":{"epoch":"abc","offset":7}}`,
		},
		{
			"MQTT", mqtt, "", "7", true,
			"\x82\x09\x00\x07\x00\x04news\x01",
			"\x30\x0a\x00\x04news7777",
			"\x90\x03\x00\x07\x01",
		},
		{
			"exchange", exchange, "", "7", false,
			`{"id":7,"method":"SUBSCRIBE","params":["btcusdt@depth"]}`,
			`{"e":"depthUpdate","E":7,"s":"BTCUSDT","U":7,"u":9,"pu":6}`,
			`{"result":null,"id":7}`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, server *resocktest.Server) {
				var split []call.Option
				if test.separator != "" {
					split = append(split, separated(test.separator))
				}
				calls := call.New(test.answers, split...)
				client, err := resock.New(server.URL, resock.WithFilter(calls.Filter), resock.WithHTTPClient(server.Client()))
				if err != nil {
					t.Fatal(err)
				}
				if err := calls.Bind(client); err != nil {
					t.Fatal(err)
				}
				messages := client.Messages(t.Context())
				go client.Run(t.Context())
				conn := server.Accept()
				send, typ := conn.Push, resock.MessageText
				if test.binary {
					send, typ = func(text string) error { return conn.PushBinary([]byte(text)) }, resock.MessageBinary
				}
				go func() {
					_, _ = conn.Read()
					_ = send(test.push + test.separator)
					_ = send(test.answer + test.separator)
				}()
				answer, err := calls.Do(t.Context(), test.id, typ, []byte(test.request))
				if err != nil || string(answer.Data) != test.answer {
					t.Errorf("got %q, %v", answer.Data, err)
				}
				for m := range messages {
					if string(m.Data) != test.push+test.separator {
						t.Errorf("the subscriber got %q", m.Data)
					}
					break
				}
			})
		})
	}
}
