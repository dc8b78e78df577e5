package debug

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

const (
	maxStreams   = 32                     // of one Handler
	updateEvery  = time.Second            // a stream looks at all clients so often
	updateGap    = 250 * time.Millisecond // and when something happens, but not sooner than this after the last time
	beatEvery    = 15 * time.Second       // longest silence of a stream
	writeTimeout = 10 * time.Second       // for the reader to take an update
	retryAfter   = 2 * time.Second        // a browser that lost a stream opens the next one
)

// stream is one reader of ?events, and what it was told.
type stream struct {
	woken chan struct{} // holds a token when an event was noted
	sent  map[*entry]told
}

// told is what a stream has told of a client.
type told struct {
	head          head // steady
	live          span // the last one
	spanNo, endNo uint64
}

// update is one event of a stream. The first one has All, and replaces all there was.
// Removed counts before Clients.
type update struct {
	Time    stamp    `json:"time"`
	All     bool     `json:"all,omitempty"`
	Clients []change `json:"clients,omitempty"`
	Removed []string `json:"removed,omitempty"`
}

// change is what is new about a client.
type change struct {
	head
	Spans []span `json:"spans,omitempty"` // to be appended
	Live  []span `json:"live"`            // to be replaced
	Ends  []end  `json:"ends,omitempty"`  // to be appended
}

// serveEvents serves a stream until its reader, or the server, goes.
func (h *Handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	s, shutdown := h.newStream(r)
	if s == nil {
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("there are %d streams already", maxStreams), http.StatusServiceUnavailable)
		return
	}
	defer h.endStream(s)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // the server's ReadTimeout is not for streams
	fmt.Fprintf(w, "retry: %d\n\n", retryAfter.Milliseconds())
	for pause := newPause(s.woken); ; {
		if data := s.next(h, pause.silence()); data != nil {
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := w.Write(data); err != nil {
				return
			}
			if err := control.Flush(); err != nil { // or nothing can be streamed: the browser comes again
				return
			}
			pause.spoke()
		}
		if !pause.wait(r.Context().Done(), shutdown) {
			return
		}
	}
}

// newStream returns a stream, or nil if there are too many, and a channel that is closed
// when the server of the request shuts down: a Shutdown would wait for the stream.
func (h *Handler) newStream(r *http.Request) (s *stream, shutdown <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) == maxStreams {
		return nil, nil
	}
	if h.streams == nil {
		h.streams = make(map[*stream]struct{})
		h.servers = make(map[*http.Server]chan struct{})
	}
	s = &stream{woken: make(chan struct{}, 1)}
	h.streams[s] = struct{}{}
	server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	if server == nil {
		return s, nil
	}
	ends := h.servers[server]
	if ends == nil {
		ends = make(chan struct{})
		h.servers[server] = ends
		server.RegisterOnShutdown(func() { h.forget(server) })
	}
	return s, ends
}

// forget ends the streams of a server.
func (h *Handler) forget(server *http.Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if ends := h.servers[server]; ends != nil {
		close(ends)
		delete(h.servers, server)
	}
}

func (h *Handler) endStream(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// next returns the next update as an event of the stream, or nil if there is nothing to
// tell. After a long silence there always is.
func (s *stream) next(h *Handler, silence time.Duration) []byte {
	u := s.update(h.registered())
	switch {
	case u.All, u.Clients != nil, u.Removed != nil:
		return encode(u)
	case silence < beatEvery:
		return nil
	}
	return append([]byte(": still here\n"), encode(u)...)
}

func encode(u update) []byte {
	var b bytes.Buffer
	b.WriteString("data: ")
	_ = json.NewEncoder(&b).Encode(u) // cannot fail, and contains no line break but the last
	b.WriteByte('\n')
	return b.Bytes()
}

// update returns what is new since the last one.
func (s *stream) update(entries []*entry) update {
	u := update{Time: stampOf(time.Now()), All: s.sent == nil}
	sent := make(map[*entry]told, len(entries))
	for _, e := range entries {
		before, known := s.sent[e]
		c, now := e.changeSince(before, len(entries))
		if !known || now != before {
			u.Clients = append(u.Clients, c)
		}
		sent[e] = now
	}
	for e := range s.sent {
		if _, still := sent[e]; !still {
			u.Removed = append(u.Removed, e.name)
		}
	}
	s.sent = sent
	return u
}

// changeSince returns what is new since a stream was told of the client, which is one of
// so many. The more there are, the less a new stream is told of each one's past.
func (e *entry) changeSince(before told, clients int) (change, told) {
	head, record := e.look()
	spans := unknown(record.spans, record.spanNo-before.spanNo, max(20, 20_000/clients))
	ends := unknown(record.ends, record.endNo-before.endNo, max(5, 5_000/clients))
	return change{head, spans, record.live, ends},
		told{head.steady(), record.live[len(record.live)-1], record.spanNo, record.endNo}
}

// unknown returns the last n of all, and at most so many.
func unknown[T any](all []T, n uint64, most int) []T {
	return all[len(all)-int(min(n, uint64(len(all)), uint64(most))):]
}
