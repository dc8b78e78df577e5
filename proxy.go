package resock

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/resock/resock/internal/redact"
)

// proxyRefusal is what a proxy answered in place of a tunnel.
type proxyRefusal struct {
	status     int
	text       string // of the status
	retryAfter time.Duration
}

func (e *proxyRefusal) Error() string {
	text := e.text + " to CONNECT, want 200"
	if e.status == http.StatusProxyAuthRequired {
		text += ": give user and password in the URL that the transport's Proxy returns"
	}
	return text
}

// hiddenError is an error whose text may tell credentials. It is still found by
// [errors.Is].
type hiddenError struct {
	text string // in place of the error's own
	err  error
}

func (e *hiddenError) Error() string        { return e.text }
func (e *hiddenError) Is(target error) bool { return errors.Is(e.err, target) }

// tunnel makes transport, a copy of base, tunnel through HTTP proxies by CONNECT, as
// RFC 6455, section 4.1, wants. net/http does so for wss, but not for ws: proxies do
// not forward an upgrade.
func (t *tracer) tunnel(base, transport *http.Transport) {
	choose, direct := transport.Proxy, transport.DialContext
	if get := transport.GetProxyConnectHeader; get != nil {
		transport.GetProxyConnectHeader = func(ctx context.Context, proxy *url.URL, target string) (http.Header, error) {
			header, err := get(ctx, proxy, target)
			if err != nil {
				return nil, &ownError{err}
			}
			return header, nil
		}
	}
	transport.Proxy = func(request *http.Request) (*url.URL, error) {
		proxy, err := choose(request)
		if err != nil {
			return nil, &hiddenError{"the Proxy function of the HTTP client's transport failed (its text may tell credentials)", err}
		}
		if proxy == nil {
			return nil, nil
		}
		own := request.URL.Scheme == "http" && proxy.Scheme != "socks5" && proxy.Scheme != "socks5h"
		t.mu.Lock()
		defer t.mu.Unlock()
		t.proxy = redact.Proxy(proxy)
		if own {
			t.tunnels = &connector{t, proxyTLS(base, proxy), transport, direct, proxy}
			return nil, nil // net/http dials the target, by way of the tunnel
		}
		return proxy, nil
	}
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		t.mu.Lock()
		c := t.tunnels
		t.mu.Unlock()
		if c == nil {
			return direct(ctx, network, address)
		}
		return c.connect(address)
	}
}

// answered returns what a transport does with a proxy's answer to CONNECT: what hook, the
// application's, does, and then what net/http does, with an error that tells more.
func (t *tracer) answered(hook func(context.Context, *url.URL, *http.Request, *http.Response) error) func(context.Context, *url.URL, *http.Request, *http.Response) error {
	return func(ctx context.Context, proxy *url.URL, request *http.Request, answer *http.Response) error {
		if hook != nil {
			if err := hook(ctx, proxy, request, answer); err != nil {
				return &ownError{err}
			}
		}
		if answer.StatusCode/100 != 2 {
			return t.proxyRefusal(request, answer)
		}
		answer.StatusCode = http.StatusOK // any 2xx is a tunnel (RFC 9110, section 9.3.6)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.through = true
		return nil
	}
}

// proxyRefusal describes a proxy's answer to CONNECT other than 2xx.
func (t *tracer) proxyRefusal(request *http.Request, answer *http.Response) *proxyRefusal {
	t.mu.Lock()
	defer t.mu.Unlock()
	return &proxyRefusal{
		status:     answer.StatusCode,
		text:       statusText(answer, request, t.sent),
		retryAfter: parseRetryAfter(answer.Header.Get("Retry-After"), time.Now()),
	}
}

// connector dials through one proxy.
type connector struct {
	t         *tracer
	config    *tls.Config     // of TLS with the proxy; nil without
	transport *http.Transport // the copy of the application's
	dial      dialFunc        // dials the proxy
	proxy     *url.URL
}

// connect returns a connection to the target. The tracer closes it if the attempt ends.
func (c *connector) connect(target string) (net.Conn, error) {
	conn, err := c.reach()
	if err != nil {
		return nil, err
	}
	if err := c.ask(conn, target); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// reach connects to the proxy.
func (c *connector) reach() (net.Conn, error) {
	port := c.proxy.Port()
	secure := c.proxy.Scheme == "https"
	switch {
	case port != "":
	case secure:
		port = "443"
	default:
		port = "80"
	}
	address := net.JoinHostPort(c.proxy.Hostname(), port)
	if secure && c.transport.DialTLSContext != nil {
		return c.transport.DialTLSContext(c.t.ctx, "tcp", address)
	}
	conn, err := c.dial(c.t.ctx, "tcp", address)
	if err != nil || !secure {
		return conn, err
	}
	return c.secure(conn)
}

// proxyTLS returns what TLS with the proxy is configured by, or nil if there is none. It is
// made while the proxy is chosen, since the application may change base after that.
func proxyTLS(base *http.Transport, proxy *url.URL) *tls.Config {
	if proxy.Scheme != "https" {
		return nil
	}
	config := base.Clone().TLSClientConfig
	if config == nil {
		config = new(tls.Config)
	}
	config.ServerName = cmp.Or(config.ServerName, proxy.Hostname())
	config.NextProtos = nil // CONNECT is spoken in HTTP/1
	return config
}

// secure begins TLS with the proxy.
func (c *connector) secure(conn net.Conn) (net.Conn, error) {
	c.t.reached(PhaseTLS)
	tunnel := tls.Client(conn, c.config)
	if err := tunnel.HandshakeContext(c.t.ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.t.reached(PhaseTCP)
	return tunnel, nil
}

// ask asks the proxy for a tunnel.
func (c *connector) ask(conn net.Conn, target string) error {
	header, err := c.header(target)
	if err != nil {
		return err
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: header}
	if err := request.Write(conn); err != nil {
		return err
	}
	reader := bufio.NewReader(io.LimitReader(conn, c.transport.MaxResponseHeaderBytes))
	answer, err := http.ReadResponse(reader, request)
	if err != nil {
		return err // tracer.cause describes it
	}
	if err := c.transport.OnProxyConnectResponse(c.t.ctx, c.proxy, request, answer); err != nil {
		return err
	}
	if reader.Buffered() > 0 { // would be lost
		return fmt.Errorf("proxy %s sent more than its answer to CONNECT", redact.Proxy(c.proxy))
	}
	return nil
}

// header returns the header of the request for a tunnel.
func (c *connector) header(target string) (http.Header, error) {
	header := c.transport.ProxyConnectHeader
	if get := c.transport.GetProxyConnectHeader; get != nil {
		var err error
		if header, err = get(c.t.ctx, c.proxy, target); err != nil {
			return nil, err
		}
	}
	header = header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if user := c.proxy.User; user != nil {
		password, _ := user.Password()
		header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	return header, nil
}

// proxied reports whether the connection goes through a proxy.
func (t *tracer) proxied() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.proxy != ""
}

// named returns a cause that names the proxy, if no tunnel through it stands.
func (t *tracer) named(err error) error {
	if t.proxy == "" || t.through {
		return err
	}
	return fmt.Errorf("proxy %s: %w", t.proxy, err)
}
