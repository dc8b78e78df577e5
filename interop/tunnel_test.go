package interop

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
	"time"

	"github.com/resock/resock"
)

// The credentials that a forward proxy wants if its Auth is set.
const proxyUser, proxyPassword = "user", "pr0xy-secret"

// forwardKinds are proxies on the side of the client: it asks them for a tunnel.
var forwardKinds = []kind{
	{
		name: "squid",
		config: template.Must(template.New("squid").Parse(`
http_port {{.Address}}
pid_filename none
cache deny all
access_log none
cache_log /dev/stderr
cache_store_log none
pinger_enable off
shutdown_lifetime 0 seconds
coredump_dir {{.Dir}}
{{if .Deny}}http_access deny all{{end}}
{{if .Auth}}
auth_param basic program /bin/sh {{.Dir}}/credentials.sh
auth_param basic children 1
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
{{end}}
http_access allow all
`)),
		command: func(program string, p *proxy) *exec.Cmd {
			// As root squid becomes another user, who must reach the helper.
			_ = os.Chmod(filepath.Dir(p.settings.Dir), 0o755)
			const helper = "while read -r line; do [ \"$line\" = '" + proxyUser + " " + proxyPassword + "' ] && echo OK || echo ERR; done\n"
			_ = os.WriteFile(filepath.Join(p.settings.Dir, "credentials.sh"), []byte(helper), 0o644)
			return exec.Command(program, "-N", "-f", p.config)
		},
	},
	{
		name: "tinyproxy",
		config: template.Must(template.New("tinyproxy").Parse(`
Listen 127.0.0.1
Port {{.Port}}
Timeout 60
MaxClients 100
{{if .Deny}}ConnectPort 1{{end}}
{{if .Auth}}BasicAuth ` + proxyUser + ` ` + proxyPassword + `{{end}}
`)),
		command: func(program string, p *proxy) *exec.Cmd {
			return exec.Command(program, "-d", "-c", p.config)
		},
	},
}

// Port returns the port of the address, for configurations that want it alone.
func (s settings) Port() string { return port(s.Address) }

// eachForward runs a test with a forward proxy of each kind, to a server without and
// with TLS.
func eachForward(t *testing.T, s settings, test func(t *testing.T, p *proxy, target string, transport *http.Transport)) {
	t.Helper()
	id := newIdentity(t)
	for _, k := range forwardKinds {
		for _, scheme := range []string{"ws", "wss"} {
			t.Run(k.name+"/"+scheme, func(t *testing.T) {
				target := address(t)
				if scheme == "wss" {
					target = serveTLS(t, id)
				} else {
					startServer(t, "echo", target)
				}
				transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: id.roots}}
				test(t, k.start(t, s), scheme+"://"+target+"/", transport)
			})
		}
	}
}

// by returns the option to dial by way of the proxy, with the user's credentials if any.
func (p *proxy) by(transport *http.Transport, user *url.Userinfo) resock.Option {
	transport.Proxy = http.ProxyURL(&url.URL{Scheme: "http", User: user, Host: p.settings.Address})
	return resock.WithHTTPClient(&http.Client{Transport: transport})
}

// TestForwardProxy: messages pass, and the session goes on after the proxy was killed.
func TestForwardProxy(t *testing.T) {
	eachForward(t, settings{}, func(t *testing.T, p *proxy, target string, transport *http.Transport) {
		c := run(t, target, p.by(transport, nil))
		next[resock.OpenEvent](c)
		c.echoes()
		p.kill()
		if got := next[resock.FailEvent](c); got.Session != 1 || got.Phase != resock.PhaseRead {
			t.Errorf("got %+v, want a lost session", got)
		}
		refused := dialError(t, next[resock.FailEvent](c))
		if refused.Phase != resock.PhaseTCP || !strings.Contains(refused.Error(), p.settings.Address) {
			t.Errorf("got %v, want it to name the proxy", refused)
		}
		start(t, p.settings.Address, p.kind.command(program(t, p.kind.name), p))
		until[resock.OpenEvent](c)
		c.echoText("after")
	})
}

// TestForwardProxyCredentials: those in the proxy's URL are given, and without them, or
// with others, the error tells the proxy's status.
func TestForwardProxyCredentials(t *testing.T) {
	eachForward(t, settings{Auth: true}, func(t *testing.T, p *proxy, target string, transport *http.Transport) {
		c := run(t, target, p.by(transport.Clone(), url.UserPassword(proxyUser, proxyPassword)))
		next[resock.OpenEvent](c)
		c.echoText("with credentials")
		for _, user := range []*url.Userinfo{nil, url.UserPassword(proxyUser, "wr0ng-secret")} {
			c := run(t, target, p.by(transport.Clone(), user))
			refusedBy(t, c, p, http.StatusProxyAuthRequired, http.StatusUnauthorized) // tinyproxy before 1.11 says 401
		}
	})
}

// TestForwardProxyRefuses: the error tells the proxy and its status.
func TestForwardProxyRefuses(t *testing.T) {
	eachForward(t, settings{Deny: true}, func(t *testing.T, p *proxy, target string, transport *http.Transport) {
		refusedBy(t, run(t, target, p.by(transport, nil)), p, http.StatusForbidden)
	})
}

// refusedBy takes the next event, which must be a refusal of the proxy with one of the
// statuses.
func refusedBy(t *testing.T, c *client, p *proxy, statuses ...int) {
	t.Helper()
	fail := next[resock.FailEvent](c)
	dial := dialError(t, fail)
	known := false
	for _, status := range statuses {
		known = known || dial.Status == status
	}
	if !known || dial.Phase != resock.PhaseTCP || !strings.Contains(dial.Error(), p.settings.Address) || strings.Contains(dial.Error(), "secret") {
		t.Errorf("got %v with status %d, want one of %d and the proxy's address", dial, dial.Status, statuses)
	}
	if fail.Next != resock.StateWaiting || fail.RetryIn < 50*time.Millisecond {
		t.Errorf("next is %v in %v, want a slow retry", fail.Next, fail.RetryIn)
	}
}
