package interop

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
)

// settings are the variables of a proxy's configuration.
type settings struct {
	Dir        string
	Address    string
	Upstream   string
	Root       bool   // whether the tests run as root
	Generation int    // of the configuration, in a header of every response
	Idle       string // idle timeout of a connection
	Linger     string // how long an old worker may live after a reload; empty: as long as its connections
	PEM        string // certificate and key, for TLS
	Auth       bool   // a forward proxy wants credentials
	Deny       bool   // a forward proxy refuses every tunnel
}

// kind is a kind of proxy.
type kind struct {
	name    string
	config  *template.Template
	command func(program string, p *proxy) *exec.Cmd
	reload  func(t *testing.T, p *proxy)
	down    int // status while the upstream is down
}

var kinds = []kind{
	{
		name: "nginx",
		config: template.Must(template.New("nginx").Parse(`
daemon off;
{{if .Root}}user root;{{end}}
worker_processes 1;
pid {{.Dir}}/nginx.pid;
error_log stderr warn;
{{if .Linger}}worker_shutdown_timeout {{.Linger}};{{end}}
events {}
http {
	access_log off;
	client_body_temp_path {{.Dir}}/body;
	proxy_temp_path {{.Dir}}/proxy;
	fastcgi_temp_path {{.Dir}}/fastcgi;
	uwsgi_temp_path {{.Dir}}/uwsgi;
	scgi_temp_path {{.Dir}}/scgi;
	add_header X-Generation {{.Generation}} always;
	server {
		{{if .PEM}}
		listen {{.Address}} ssl;
		ssl_certificate {{.PEM}};
		ssl_certificate_key {{.PEM}};
		{{else}}
		listen {{.Address}};
		{{end}}
		location / {
			proxy_pass http://{{.Upstream}};
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection upgrade;
			proxy_read_timeout {{.Idle}};
		}
		location /busy {
			add_header Retry-After 7 always;
			return 503 "come back later";
		}
		location /generation {
			return 204;
		}
	}
}
`)),
		command: func(program string, p *proxy) *exec.Cmd {
			return exec.Command(program, "-e", "stderr", "-p", p.settings.Dir, "-c", p.config)
		},
		reload: func(_ *testing.T, p *proxy) { p.signal(syscall.SIGHUP) },
		down:   http.StatusBadGateway,
	},
	{
		name: "haproxy",
		config: template.Must(template.New("haproxy").Parse(`
global
	maxconn 256
	{{if .Linger}}hard-stop-after {{.Linger}}{{end}}
defaults
	mode http
	retries 0
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	timeout tunnel {{.Idle}}
frontend front
	bind {{.Address}} {{if .PEM}}ssl crt {{.PEM}}{{end}}
	http-request return status 503 content-type text/plain string "come back later" hdr Retry-After 7 if { path /busy }
	http-request return status 204 hdr X-Generation {{.Generation}} if { path /generation }
	http-response set-header X-Generation {{.Generation}}
	default_backend back
backend back
	server upstream {{.Upstream}}
`)),
		command: func(program string, p *proxy) *exec.Cmd {
			return exec.Command(program, "-db", "-f", p.config)
		},
		reload: func(t *testing.T, p *proxy) { // a new process replaces the old one
			command := p.kind.command(program(t, "haproxy"), p)
			command.Args = append(command.Args, "-sf", strconv.Itoa(p.process.command.Process.Pid))
			p.process = start(t, p.settings.Address, command)
		},
		down: http.StatusServiceUnavailable,
	},
}

// proxy is a running proxy.
type proxy struct {
	*process
	kind     kind
	settings settings
	config   string // path
}

// start starts a proxy with the given settings, and defaults for the others.
func (k kind) start(t *testing.T, s settings) *proxy {
	t.Helper()
	path := program(t, k.name)
	s.Dir, s.Address, s.Root, s.Generation = t.TempDir(), address(t), os.Getuid() == 0, 1
	if s.Idle == "" {
		s.Idle = "60s"
	}
	p := &proxy{kind: k, settings: s, config: filepath.Join(s.Dir, k.name+".conf")}
	p.configure(t)
	p.process = start(t, s.Address, k.command(path, p))
	return p
}

func (p *proxy) configure(t *testing.T) {
	t.Helper()
	var text strings.Builder
	if err := p.kind.config.Execute(&text, p.settings); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.config, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *proxy) url(path string) string { return "ws://" + p.settings.Address + path }

// reload activates the next generation of the configuration. For a moment, workers of
// the old one may still accept connections.
func (p *proxy) reload(t *testing.T) {
	t.Helper()
	p.settings.Generation++
	p.configure(t)
	p.kind.reload(t, p)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-time.After(pollEvery) {
		response, err := client.Get("http://" + p.settings.Address + "/generation")
		if err != nil {
			continue // the socket of an old worker was closed
		}
		_ = response.Body.Close()
		if response.Header.Get("X-Generation") == strconv.Itoa(p.settings.Generation) {
			return
		}
	}
	t.Fatalf("%s does not reload", p.kind.name)
}

// generations returns an option that reports, for every session, the generation of the
// configuration that accepted it.
func generations() (<-chan string, resock.Option) {
	seen := make(chan string, 100)
	return seen, resock.WithOnOpen(func(_ context.Context, s *resock.Session) error {
		seen <- s.Header().Get("X-Generation")
		return nil
	})
}

// eachProxy runs a test against a proxy of each kind, with an upstream behind it.
func eachProxy(t *testing.T, s settings, test func(t *testing.T, p *proxy, upstream *process)) {
	t.Helper()
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			s := s
			s.Upstream = address(t)
			upstream := startServer(t, "echo", s.Upstream)
			test(t, k.start(t, s), upstream)
		})
	}
}

func TestProxyEcho(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, _ *process) {
		c := run(t, p.url("/"))
		next[resock.OpenEvent](c)
		c.echoes()
		if err := c.Close(3001, "through the proxy"); err != nil {
			t.Fatal(err)
		}
		if got := next[resock.CloseEvent](c); got.Code != 3001 || !got.Clean {
			t.Errorf("got %+v, want a clean 3001", got)
		}
	})
}

// TestProxyReload reloads a proxy that keeps old connections: the session goes on, and
// no message is lost.
func TestProxyReload(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, _ *process) {
		seen, note := generations()
		c := run(t, p.url("/"), note)
		next[resock.OpenEvent](c)
		if got := <-seen; got != "1" {
			t.Fatalf("generation %q, want 1", got)
		}
		for range 3 {
			c.echoText("before")
			p.reload(t)
			c.echoText("after")
		}
		for generation := "1"; generation != "4"; generation = <-seen {
			c.Reconnect()
			if got := next[resock.CloseEvent](c); got.Next != resock.StateConnecting {
				t.Errorf("got %+v, want another attempt at once", got)
			}
			next[resock.OpenEvent](c)
			c.echoText("new")
		}
	})
}

// TestProxyReloadCuts reloads a proxy that cuts its old connections.
func TestProxyReloadCuts(t *testing.T) {
	eachProxy(t, settings{Linger: "50ms"}, func(t *testing.T, p *proxy, _ *process) {
		seen, note := generations()
		c := run(t, p.url("/"), note)
		next[resock.OpenEvent](c)
		<-seen
		c.echoText("before")
		p.reload(t)
		if got := next[resock.FailEvent](c); got.Session != 1 || got.Phase != resock.PhaseRead {
			t.Errorf("got %+v, want a lost session", got)
		}
		// The old worker may still accept an attempt, and close it.
		if got := until[resock.OpenEvent](c); got.Session != 2 {
			t.Errorf("session %d, want 2", got.Session)
		}
		if got := <-seen; got != "2" {
			t.Errorf("generation %q, want 2", got)
		}
		c.echoText("after")
	})
}

// TestProxyUpstreamRestart kills the upstream and starts it again. In between, the
// proxy responds with an error.
func TestProxyUpstreamRestart(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, upstream *process) {
		c := run(t, p.url("/"))
		next[resock.OpenEvent](c)
		c.echoText("before")
		upstream.kill()
		if got := next[resock.FailEvent](c); got.Session != 1 || got.Phase != resock.PhaseRead {
			t.Errorf("got %+v, want a lost session", got)
		}
		// The dying process may still accept the first attempt: then the status differs.
		for refused := 0; refused < 3; {
			got := next[resock.FailEvent](c)
			dial := dialError(t, got)
			if dial.Phase != resock.PhaseUpgrade || dial.Status < 500 || len(dial.Body) == 0 {
				t.Fatalf("got %+v, want status %d", dial, p.kind.down)
			}
			if dial.Status == p.kind.down {
				refused++
			}
			if got.Next != resock.StateWaiting || got.RetryIn > 100*time.Millisecond {
				t.Errorf("next is %v in %v", got.Next, got.RetryIn)
			}
		}
		startServer(t, "echo", p.settings.Upstream)
		if got := until[resock.OpenEvent](c); got.Session != 2 {
			t.Errorf("session %d, want 2", got.Session)
		}
		c.echoText("after")
	})
}

// TestProxyRestart kills the proxy itself.
func TestProxyRestart(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, _ *process) {
		c := run(t, p.url("/"))
		next[resock.OpenEvent](c)
		c.echoText("before")
		p.stop()
		if got := next[resock.FailEvent](c); got.Session != 1 {
			t.Errorf("got %+v, want a lost session", got)
		}
		start(t, p.settings.Address, p.kind.command(program(t, p.kind.name), p))
		until[resock.OpenEvent](c)
		c.echoText("after")
	})
}

// TestProxyIdleTimeout: a heartbeat interval below the proxy's idle timeout keeps the
// session, and one above it loses the session.
func TestProxyIdleTimeout(t *testing.T) {
	eachProxy(t, settings{Idle: "1200ms"}, func(t *testing.T, p *proxy, _ *process) {
		kept := run(t, p.url("/"), resock.WithHeartbeat(100*time.Millisecond, 10*time.Second))
		cut := run(t, p.url("/"), resock.WithHeartbeat(time.Minute, 10*time.Second))
		next[resock.OpenEvent](kept)
		next[resock.OpenEvent](cut)

		got := next[resock.FailEvent](cut)
		if got.Session != 1 || got.Phase != resock.PhaseRead {
			t.Errorf("got %+v, want a lost session", got)
		}
		next[resock.OpenEvent](cut)
		cut.echoText("back")
		next[resock.FailEvent](cut) // the second time: kept was silent for as long

		kept.echoText("still the same")
		if got := kept.Stats(); got.Session != 1 || got.Fails != 0 {
			t.Errorf("session %d after %d failures", got.Session, got.Fails)
		}
	})
}

// TestProxyBusy: a Retry-After is a floor for the delay.
func TestProxyBusy(t *testing.T) {
	eachProxy(t, settings{}, func(t *testing.T, p *proxy, _ *process) {
		c := run(t, p.url("/busy?token=secret"))
		got := next[resock.FailEvent](c)
		dial := dialError(t, got)
		if dial.Status != http.StatusServiceUnavailable || dial.RetryAfter != 7*time.Second ||
			string(dial.Body) != "come back later" {
			t.Errorf("got %+v, want 503 with a Retry-After of 7 s", dial)
		}
		if got.Next != resock.StateWaiting || got.RetryIn < 7*time.Second {
			t.Errorf("next is %v in %v, want at least 7 s of waiting", got.Next, got.RetryIn)
		}
		if strings.Contains(got.Err.Error(), "secret") {
			t.Errorf("the error contains the query: %v", got.Err)
		}
	})
}

// TestProxyPeers: fragments, compression and pings work through a proxy, too.
func TestProxyPeers(t *testing.T) {
	for _, k := range kinds {
		for _, p := range peers {
			t.Run(k.name+"/"+p.name, func(t *testing.T) {
				s := p.start(t, "takeover")
				proxy := k.start(t, settings{Upstream: s.address})
				s.address = proxy.settings.Address
				testCompression(t, s.url("/fragments", "proxy"), websocket.CompressionContextTakeover, "permessage-deflate")
			})
		}
	}
}
