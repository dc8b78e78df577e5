package debug

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/resock/resock"
)

// Handler serves the page, its JSON and its stream. The zero value is ready to use, and
// shows no client. It must not be copied after first use. All methods may be called
// concurrently.
type Handler struct {
	mu      sync.Mutex // guards what follows; no lock of an entry is taken under it
	entries map[string]*entry
	streams map[*stream]struct{}
	servers map[*http.Server]chan struct{} // closed when the server begins to shut down
}

// Add registers a client under a name, before it runs, while it runs, or after it was
// closed. Until remove is called the page shows it, and how it ended if it is closed. An
// empty name, a name that is taken and a nil client are errors, and nothing happens. One
// client may have several names.
//
// A registered client has one goroutine here, which receives its events but no messages,
// until the client is closed or removed. remove waits for it, and forgets the client; the
// name is free then. Calls after the first do nothing.
func (h *Handler) Add(name string, client *resock.Client) (remove func(), err error) {
	switch {
	case name == "":
		return nil, errors.New("debug: Add: the name is empty")
	case client == nil:
		return nil, fmt.Errorf("debug: Add(%q): the client is nil", name)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.entries[name] != nil {
		return nil, fmt.Errorf("debug: Add(%q): the name is taken", name)
	}
	if h.entries == nil {
		h.entries = make(map[string]*entry)
	}
	ctx, cancel := context.WithCancel(context.Background())
	events := client.Subscribe(ctx, resock.WithoutMessages(), resock.WithLabel("debug"))
	e := newEntry(name, client)
	h.entries[name] = e
	go e.follow(events, h.wake)
	h.wakeLocked()
	return sync.OnceFunc(func() {
		cancel()
		<-e.followed
		h.remove(e)
	}), nil
}

func (h *Handler) remove(e *entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.entries, e.name)
	h.wakeLocked()
}

// wake tells every stream that something happened.
func (h *Handler) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wakeLocked()
}

// wakeLocked is wake; mu is held.
func (h *Handler) wakeLocked() {
	for s := range h.streams {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

// registered returns the entries of all clients, by name.
func (h *Handler) registered() []*entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*entry, 0, len(h.entries))
	for _, e := range h.entries {
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int { return strings.Compare(a.name, b.name) })
	return all
}

// ServeHTTP serves the page; with ?json, what it shows as one JSON object; with ?events,
// the stream of server-sent events that keeps the page up to date. Any path is served
// alike. Methods other than GET and HEAD get status 405.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Content-Security-Policy", policy)
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		header.Set("Allow", "GET, HEAD")
		http.Error(w, "only GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	query := r.URL.Query()
	switch {
	case query.Has("events"):
		h.serveEvents(w, r)
	case query.Has("json"):
		h.serveJSON(w)
	default:
		h.servePage(w)
	}
}
