package resock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// Messages of all sizes go to coder/websocket and back, in each mode of both sides.
func TestCompressionWithCoder(t *testing.T) {
	modes := []websocket.CompressionMode{websocket.CompressionDisabled, websocket.CompressionContextTakeover, websocket.CompressionNoContextTakeover}
	for _, ours := range modes {
		for _, theirs := range modes {
			t.Run(fmt.Sprint(ours, " and ", theirs), func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: theirs, CompressionThreshold: 1})
					if err != nil {
						return
					}
					defer conn.CloseNow()
					conn.SetReadLimit(-1)
					for err == nil {
						var typ websocket.MessageType
						var data []byte
						if typ, data, err = conn.Read(r.Context()); err == nil {
							err = conn.Write(r.Context(), typ, data)
						}
					}
				}))
				defer server.Close()
				client := rig.Bare(t, webSocketURL(server), resock.WithCompression(ours))
				events := grammar.Tee(t, client)
				go client.Run(t.Context())
				rig.Await[resock.OpenEvent](t, events)
				random := rand.New(rand.NewPCG(1, 2))
				for _, size := range []int{0, 1, 100, 511, 512, 513, 5000, 32768, 40_000, 70_000, 500_000} {
					text := strings.Repeat("word ", size/5+1)[:size]
					noise := make([]byte, size)
					for i := range noise {
						noise[i] = byte(random.Uint32())
					}
					for typ, data := range map[resock.MessageType][]byte{resock.MessageText: []byte(text), resock.MessageBinary: noise} {
						if err := client.Send(t.Context(), typ, data); err != nil {
							t.Fatal(err)
						}
						if m := rig.Await[resock.MessageEvent](t, events); m.Type != typ || !slices.Equal(m.Data, data) {
							t.Errorf("%d bytes: got %d bytes of type %v", size, len(m.Data), m.Type)
						}
					}
				}
			})
		}
	}
}

// The offer is what the wire can do, an answer is checked by RFC 7692, section 7.1,
// and the application sees the answer as it came.
func TestNegotiation(t *testing.T) {
	for _, tt := range []struct {
		mode   websocket.CompressionMode
		answer []string
		good   bool
	}{
		{websocket.CompressionContextTakeover, nil, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate"}, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; client_max_window_bits=10; server_max_window_bits=9"}, true},
		{websocket.CompressionNoContextTakeover, []string{"permessage-deflate; server_no_context_takeover"}, true},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; server_max_window_bits=99"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate; client_max_window_bits"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-deflate", "permessage-deflate"}, false},
		{websocket.CompressionContextTakeover, []string{"permessage-bzip2"}, false},
		{websocket.CompressionDisabled, []string{"permessage-deflate"}, false},
		{websocket.CompressionDisabled, nil, true},
	} {
		t.Run(fmt.Sprint(tt.mode, " ", tt.answer), func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				header := http.Header{}
				if tt.answer != nil {
					header["Sec-Websocket-Extensions"] = tt.answer
				}
				s.Script(resocktest.Upgrade(header, nil))
				var seen []string
				r := rig.Reaching(t, s, resock.WithCompression(tt.mode), resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
					seen = s.Header()["Sec-Websocket-Extensions"]
					return nil
				}))
				if tt.good {
					r.Open()
					if !slices.Equal(seen, tt.answer) {
						t.Errorf("the application sees %q", seen)
					}
				} else if e := r.DialError(resock.PhaseProtocol); e.Status != http.StatusSwitchingProtocols || !strings.Contains(e.Error(), "Sec-WebSocket-Extensions") {
					t.Errorf("got %v", e)
				}
				offer := s.Attempts()[0].Request.Header.Get("Sec-WebSocket-Extensions")
				for parameter, want := range map[string]bool{
					"permessage-deflate":         tt.mode != websocket.CompressionDisabled,
					"client_no_context_takeover": tt.mode != websocket.CompressionDisabled,
					"client_max_window_bits":     tt.mode != websocket.CompressionDisabled,
					"server_no_context_takeover": tt.mode == websocket.CompressionNoContextTakeover,
				} {
					if got := strings.Contains(offer, parameter); got != want {
						t.Errorf("%s is in the offer %q: %t", parameter, offer, got)
					}
				}
			})
		})
	}
}

// The options for a single part win over WithDialOptions, whatever the order, and
// keep nothing that the caller may change.
func TestDialingOptions(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		header, names := http.Header{"X-Which": {"ours"}}, []string{"one", "two"}
		r := rig.Quick(t, s.URL,
			resock.WithHeader(header), resock.WithSubprotocols(names...),
			resock.WithHTTPClient(s.Client()), resock.WithCompression(websocket.CompressionDisabled),
			resock.WithDialOptions(&websocket.DialOptions{
				HTTPHeader:      http.Header{"X-Which": {"theirs"}, "X-Other": {"theirs"}},
				Subprotocols:    []string{"three"},
				HTTPClient:      &http.Client{Transport: http.NewFileTransport(http.Dir("."))},
				CompressionMode: websocket.CompressionContextTakeover,
			}))
		header["X-Which"][0], names[0] = "changed", "changed"
		r.Open()
		got := s.Attempts()[0].Request.Header
		if got.Get("X-Which") != "ours" || got.Get("X-Other") != "" || got.Get("Sec-WebSocket-Protocol") != "one,two" || got.Get("Sec-WebSocket-Extensions") != "" {
			t.Errorf("the request has %v", got)
		}
	})
}

func TestSubprotocolsAreChecked(t *testing.T) {
	for _, names := range [][]string{{""}, {"a", "a"}, {"a,b"}, {"a b"}, {"é"}, {"a\r\nX-Evil: 1"}, {"a/b"}} {
		var bad *resock.OptionError
		if _, err := resock.New("ws://server.test", resock.WithSubprotocols(names...)); !errors.As(err, &bad) || bad.Option != "WithSubprotocols" {
			t.Errorf("%q: got %v", names, err)
		}
	}
	if _, err := resock.New("ws://server.test", resock.WithSubprotocols("v1.example.com", "mqtt", "a!#$%&'*+-.^_`|~9")); err != nil {
		t.Error(err)
	}
}
