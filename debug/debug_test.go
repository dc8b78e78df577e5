package debug

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// connect returns a client of server, which runs until the end of the test, or of ctx.
func connect(t *testing.T, server *resocktest.Server, opts ...resock.Option) *resock.Client {
	t.Helper()
	client, err := resock.New(server.URL+"/push?token=verysecret", append(opts, resock.WithHTTPClient(server.Client()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// add registers a client until the end of the test.
func add(t *testing.T, h *Handler, name string, client *resock.Client) (remove func()) {
	t.Helper()
	remove, err := h.Add(name, client)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return remove
}

func get(h http.Handler, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w
}

// decoded is a report as a machine reads it.
type decoded struct {
	Time    time.Time
	Clients []decodedClient
}

type decodedClient struct {
	Name, State, URL, BlockedBy, LastError, Err string
	Since, NextAttempt, LastMessage             time.Time
	BlockedSince                                time.Time
	Session, Attempts, Fails                    int
	Downtime, RoundTrip, Blocked                float64
	MessagesIn, MessagesOut, BytesIn, BytesOut  int
	Queued, QueuedBytes, Dropped                int
	Rates                                       struct{ Over, MessagesIn, MessagesOut, BytesIn, BytesOut float64 }
	Timeline                                    []decodedSpan
	Ends                                        []decodedEnd
}

type decodedSpan struct {
	State, Phase, Error, Reason, Rule string
	Start, End                        time.Time
	Session, Failures, Code           int
}

type decodedEnd struct {
	Time                             time.Time
	Phase, Error, Reason, Rule, Next string
	Session, Attempt, Code           int
	Took, RetryIn                    float64
	Clean                            bool
}

// reported returns what ?json answers.
func reported(t *testing.T, h http.Handler) decoded {
	t.Helper()
	var d decoded
	if err := json.Unmarshal(get(h, "/?json").Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func only(t *testing.T, h http.Handler) decodedClient {
	t.Helper()
	d := reported(t, h)
	if len(d.Clients) != 1 {
		t.Fatalf("%d clients, want 1", len(d.Clients))
	}
	return d.Clients[0]
}

func TestAddRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		client := connect(t, resocktest.NewMemory(t))
		add(t, &h, "taken", client)
		for _, tt := range []struct {
			name   string
			client *resock.Client
			want   string
		}{
			{"", client, "the name is empty"},
			{"taken", client, `Add("taken"): the name is taken`},
			{"new", nil, `Add("new"): the client is nil`},
		} {
			if remove, err := h.Add(tt.name, tt.client); err == nil || remove != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Add(%q): %v, want %q", tt.name, err, tt.want)
			}
		}
		if n := len(reported(t, &h).Clients); n != 1 {
			t.Errorf("%d clients, want 1", n)
		}
	})
}

func TestRemove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		var h Handler
		client := connect(t, resocktest.NewMemory(t)) // does not run
		remove := add(t, &h, "feed", client)
		remove()
		if n := len(reported(t, &h).Clients); n != 0 {
			t.Errorf("%d clients, want 0", n)
		}
		add(t, &h, "feed", client)
		remove() // does nothing
		if n := len(reported(t, &h).Clients); n != 1 {
			t.Errorf("%d clients, want 1", n)
		}
	})
}

func TestClosedClientStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var h Handler
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Refuse())
		client := connect(t, server, resock.WithMaxAttempts(2))
		add(t, &h, "feed", client)
		if err := client.Run(t.Context()); err == nil {
			t.Fatal("the client did not give up")
		}
		synctest.Wait()
		c := only(t, &h)
		if c.State != "closed" || !strings.Contains(c.Err, "gave up after 2") || c.Ends[0].Rule == "" {
			t.Errorf("got %+v", c)
		}
		if last := c.Timeline[len(c.Timeline)-1]; last.State != "closed" || !last.End.IsZero() {
			t.Errorf("the timeline ends with %+v", last)
		}
	})
}

func TestMethods(t *testing.T) {
	var h Handler
	for _, target := range []string{"/", "/deep/path?json", "?events"} {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, "http://host/"+strings.TrimPrefix(target, "/"), nil))
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow %q", method, target, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

func TestHead(t *testing.T) {
	var h Handler
	server := httptest.NewServer(&h)
	defer server.Close()
	for query, kind := range map[string]string{"": "text/html; charset=utf-8", "?json": "application/json", "?events": "text/event-stream"} {
		res, err := http.Head(server.URL + "/" + query) // returns, also for the stream
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != kind {
			t.Errorf("HEAD %s: %s, %s", query, res.Status, res.Header.Get("Content-Type"))
		}
	}
}

func TestHeaders(t *testing.T) {
	var h Handler
	for _, target := range []string{"/", "/?json"} {
		header := get(&h, target).Header()
		if header.Get("Cache-Control") != "no-store" || header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", target, header)
		}
		policy := header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: policy %s", target, policy)
		}
	}
}
