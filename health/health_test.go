package health

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// connect returns a client of server, which is closed at the end of the test.
func connect(t *testing.T, server *resocktest.Server, opts ...resock.Option) *resock.Client {
	t.Helper()
	opts = append(opts, resock.WithHTTPClient(server.Client()), resock.WithBackoff(time.Second, time.Second))
	client, err := resock.New(server.URL+"/push?token=verysecret", opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
	})
	return client
}

// add adds a client until the end of the test.
func add(t *testing.T, r *Readiness, name string, client *resock.Client, opts ...Option) (remove func()) {
	t.Helper()
	remove, err := r.Add(name, client, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(remove)
	return remove
}

// want compares what Check and the handler say with why, which is empty if all are ready.
func want(t *testing.T, r *Readiness, why string) {
	t.Helper()
	synctest.Wait()
	code, body, text := http.StatusOK, "ready\n", ""
	if why != "" {
		code, body, text = http.StatusServiceUnavailable, "not ready\n"+strings.ReplaceAll(why, "; ", "\n")+"\n", "health: not ready: "+why
	}
	got := ""
	if err := r.Check(); err != nil {
		got = err.Error()
	}
	if got != text {
		t.Errorf("Check: %q, want %q", got, text)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz?verbose", nil))
	if w.Code != code || w.Body.String() != body {
		t.Errorf("answer %d %q, want %d %q", w.Code, w.Body, code, body)
	}
}

func TestOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		want(t, &r, "no client was added")
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Refuse(), resocktest.Hold())
		client := connect(t, server)
		add(t, &r, "feed", client)
		want(t, &r, "feed: idle, not opened yet")
		go client.Run(t.Context())
		want(t, &r, "feed: waiting, not opened yet")
		conn := server.Accept()
		want(t, &r, "")
		server.Script(resocktest.StallDial())
		conn.Drop()
		want(t, &r, "feed: waiting, no connection")
		time.Sleep(2 * time.Second)
		want(t, &r, "feed: connecting, no connection")
	})
}

func TestGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &r, "feed", client, WithGrace(10*time.Second))
		want(t, &r, "feed: idle, not opened yet")
		go client.Run(t.Context())
		conn := server.Accept()
		want(t, &r, "")
		time.Sleep(time.Hour)
		server.Stop() // which drops conn
		lost := time.Now()
		<-conn.Done()
		want(t, &r, "")
		time.Sleep(10*time.Second - time.Since(lost)) // the period itself, whatever states came
		want(t, &r, "")
		time.Sleep(time.Millisecond)
		want(t, &r, "feed: waiting, no connection for 10s (grace period 10s)")
		server.Restart()
		conn = server.Accept()
		want(t, &r, "")
		server.Stop() // a loss of its own, with a period of its own
		<-conn.Done()
		time.Sleep(9 * time.Second)
		want(t, &r, "")
		time.Sleep(2 * time.Second)
		if r.Check() == nil {
			t.Error("ready 11 s after the second loss")
		}
	})
}

func TestAddedAfterTheLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		go client.Run(t.Context())
		conn := server.Accept()
		remove := add(t, &r, "feed", client, WithGrace(time.Hour)) // while it is open
		server.Script(resocktest.StallUpgrade())
		conn.Drop()
		want(t, &r, "")
		remove()
		add(t, &r, "feed", client, WithGrace(time.Hour))
		want(t, &r, "feed: waiting, no connection since before it was added")
	})
}

func TestFreshness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &r, "feed", client, WithFreshness(time.Minute), WithGrace(time.Hour))
		go client.Run(t.Context())
		conn := server.Accept()
		want(t, &r, "feed: open, no message yet")
		if err := conn.Push("tick"); err != nil {
			t.Fatal(err)
		}
		want(t, &r, "")
		time.Sleep(59 * time.Second)
		want(t, &r, "")
		time.Sleep(2 * time.Second) // pings were answered meanwhile
		want(t, &r, "feed: open, no message for 1m1s (limit 1m0s)")
		if err := conn.Push("tick"); err != nil {
			t.Fatal(err)
		}
		want(t, &r, "")
		server.Stop()
		time.Sleep(30 * time.Second)
		want(t, &r, "")
		time.Sleep(31 * time.Second) // within the grace period
		want(t, &r, "feed: waiting, no message for 1m1s (limit 1m0s)")
	})
}

func TestSuspended(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r, spared Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &r, "feed", client, WithGrace(time.Hour))
		add(t, &spared, "feed", client, WithSuspended(), WithFreshness(time.Second))
		go client.Run(t.Context())
		conn := server.Accept()
		_ = conn.Push("tick")
		want(t, &spared, "")
		client.Suspend()
		want(t, &r, "feed: suspended")
		time.Sleep(time.Hour)
		want(t, &spared, "")
		client.Resume()
		server.Accept()
		want(t, &r, "")
		want(t, &spared, "feed: open, no message for 1h0m0s (limit 1s)")
	})
}

// airplane is a network that is not there.
type airplane struct{}

func (airplane) Online() bool                  { return false }
func (airplane) OnChange(func()) (stop func()) { return func() {} }

func TestOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		client := connect(t, resocktest.NewMemory(t), resock.WithNetwork(airplane{}))
		add(t, &r, "feed", client, WithGrace(time.Hour))
		go client.Run(t.Context())
		want(t, &r, "feed: offline, not opened yet")
	})
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &r, "feed", client, WithGrace(time.Hour), WithSuspended())
		go client.Run(t.Context())
		server.Accept().IgnoreClose()
		want(t, &r, "")
		_ = client.Close(resock.StatusNormalClosure, "")
		want(t, &r, "feed: closing")
		<-client.Done()
		want(t, &r, "feed: closed")
	})
}

// TestShutdownWhileLost checks that a client which is to end is not ready, though it may
// wait for a connection to send what is queued.
func TestShutdownWhileLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		client := connect(t, server)
		add(t, &r, "feed", client, WithGrace(time.Hour))
		go client.Run(t.Context())
		server.Accept()
		want(t, &r, "")
		server.Stop()
		synctest.Wait()
		_ = client.Enqueue(resock.MessageText, []byte("queued"))
		want(t, &r, "")
		go client.Shutdown(t.Context())
		synctest.Wait()
		want(t, &r, "feed: closing")
	})
}

func TestSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		servers := map[string]*resocktest.Server{"a": resocktest.NewMemory(t), "b": resocktest.NewMemory(t)}
		var removeB func()
		for _, name := range []string{"b", "a"} {
			client := connect(t, servers[name])
			remove := add(t, &r, name, client)
			if name == "b" {
				removeB = remove
			}
			want(t, &r, map[string]string{"b": "b: idle, not opened yet", "a": "a: idle, not opened yet"}[name])
			go client.Run(t.Context())
			servers[name].Accept()
			want(t, &r, "")
		}
		servers["b"].Stop()
		want(t, &r, "b: waiting, no connection")
		servers["a"].Stop()
		want(t, &r, "a: waiting, no connection; b: waiting, no connection")
		removeB()
		want(t, &r, "a: waiting, no connection")
	})
}

func TestAdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // which fails if a goroutine is left
		var r Readiness
		client := connect(t, resocktest.NewMemory(t))
		remove := add(t, &r, "taken", client)
		for _, tt := range []struct {
			name   string
			client *resock.Client
			opt    Option
			want   string
		}{
			{"", client, WithSuspended(), `health: Add(""): the name is empty`},
			{"taken", client, WithSuspended(), `health: Add("taken"): the name is taken`},
			{"new", nil, WithSuspended(), `health: Add("new"): the client is nil`},
			{"new", client, nil, `health: Add("new"): an option is nil`},
			{"new", client, WithGrace(-1), `health: Add("new"): WithGrace(-1ns) must not be negative`},
			{"new", client, WithFreshness(-1), `health: Add("new"): WithFreshness(-1ns) must not be negative`},
		} {
			if remove, err := r.Add(tt.name, tt.client, tt.opt); remove != nil || err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		}
		remove()
		add(t, &r, "taken", client, WithGrace(time.Hour)) // free again
		remove()                                          // does nothing
		want(t, &r, "taken: idle, not opened yet")
	})
}

func TestMethods(t *testing.T) {
	var r Readiness
	server := httptest.NewServer(&r)
	defer server.Close()
	for method, code := range map[string]int{"GET": 503, "HEAD": 503, "POST": 405, "DELETE": 405, "OPTIONS": 405} {
		req, err := http.NewRequest(method, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != code || err != nil || (method == "HEAD") != (len(body) == 0) {
			t.Errorf("%s: %s, body %q, error %v", method, res.Status, body, err)
		}
		if code == 405 != (res.Header.Get("Allow") == "GET, HEAD") || res.Header.Get("Cache-Control") != "no-store" && code != 405 {
			t.Errorf("%s: header %v", method, res.Header)
		}
	}
}

// No answer tells a secret or an address.
func TestNoSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r Readiness
		server := resocktest.NewMemory(t)
		server.Script(resocktest.Status(http.StatusForbidden, nil, "verysecret is no token"))
		client := connect(t, server)
		add(t, &r, "feed", client)
		go client.Run(t.Context())
		synctest.Wait()
		err := r.Check()
		if err == nil || strings.Contains(err.Error(), "verysecret") || strings.Contains(err.Error(), "/push") || errors.Unwrap(err) != nil {
			t.Errorf("got %v", err)
		}
	})
}
