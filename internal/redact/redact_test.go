package redact

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "",
		" \n\t":                      "",
		"two\r\n  lines\n":           "two lines",
		"\x1b[31mred\x00\x7f":        "[31mred",
		"\u202eevil\u2028line":       "evil line",
		"a\xffb\xc3":                 "ab",
		"h\x00e\x00l\x00l\x00o\x00":  "hello",
		"1234567890123456789é-":      "1234567890123456789",
		"12345678901234567890123456": "12345678901234567890",
	} {
		if got := Printable([]byte(text), 20); got != want {
			t.Errorf("Printable(%q) = %q, want %q", text, got, want)
		}
	}
}

// What a server may repeat of a request is a secret, whole or in the parts that it
// means. What all requests share is none.
func TestRepeats(t *testing.T) {
	target, _ := url.Parse("http://user:p%40ssword@server.test/feed?token=tok%2Ben&v=1&flag")
	header := http.Header{
		"Authorization":            {"Bearer bearer-token"},
		"Cookie":                   {"session=cookie-1; other=cookie-2"},
		"X-Token":                  {"one header", "two headers"},
		"X-Short":                  {"abc"},
		"Origin":                   {"https://stream.server.test"},
		"Connection":               {"Upgrade"},
		"Upgrade":                  {"websocket"},
		"Sec-Websocket-Key":        {"a-random-key"},
		"Sec-Websocket-Protocol":   {"chat"},
		"Sec-Websocket-Extensions": {"permessage-deflate"},
	}
	request := &http.Request{URL: target, Header: header}
	for _, secret := range []string{"bearer-token", "cookie-1", "cookie-2", "one header", "two headers", "a-random-key", "tok%2Ben", "tok+en", "p@ssword"} {
		if !Repeats("the server says "+secret+".", request) {
			t.Errorf("%q is not kept", secret)
		}
	}
	for _, plain := range []string{"Bearer", "session", "abc", "v=1", "flag", "Upgrade to websocket", "chat", "permessage-deflate", "user", "lookup stream.server.test", "https://stream.server.test/login"} {
		if Repeats("the server says "+plain+".", request) {
			t.Errorf("%q is kept", plain)
		}
	}
	if Repeats("anything", nil) {
		t.Error("something is kept before anything was sent")
	}
}

// Some servers want a token as a subprotocol. A name that is too long to be one is a secret.
func TestSubprotocol(t *testing.T) {
	const long = "base64url.bearer.authorization.k8s.io.bXl0b2tlbg"
	if got := Subprotocols([]string{"graphql-transport-ws", long}); got[0] != "graphql-transport-ws" || got[1] != "(withheld)" {
		t.Errorf("Subprotocols = %q, want the short name and none of the long one", got)
	}
	request := &http.Request{URL: new(url.URL), Header: http.Header{"Sec-Websocket-Protocol": {"graphql-transport-ws, " + long}}}
	for text, want := range map[string]bool{
		"unknown " + long:                   true,
		"unknown token bXl0b2tlbg":          true,
		"unknown token mytoken":             true,
		"graphql-transport-ws is too old":   false,
		"use base64.binary.k8s.io in place": false,
	} {
		if got := Repeats(text, request); got != want {
			t.Errorf("Repeats(%q) = %v, want %v", text, got, want)
		}
	}
}

func TestURL(t *testing.T) {
	for raw, want := range map[string]string{
		"wss://user:secret@host/path?token=secret#secret": "wss://redacted@host/path?redacted",
		"wss://host/path":                    "wss://host/path",
		"ws://user:secret@ho st/?q=secret":   "redacted",
		"://secret@host?secret":              "redacted",
		"user:secret@host/path":              "redacted",
		"":                                   "",
		"https://host/a/b?x=secret&y=secret": "https://host/a/b?redacted",
	} {
		if got := URL(raw); got != want {
			t.Errorf("URL(%q) = %q, want %q", raw, got, want)
		}
	}
}

// The URLs are what net/http makes of proxy variables.
func TestProxy(t *testing.T) {
	for variable, want := range map[string]string{
		"http://user:secret@host:3128": "http://redacted@host:3128",
		"user:secret@host:3128":        "http://redacted@host:3128",
		"host:3128":                    "http://host:3128",
		"http://user:secret@ho st:1":   "http://http:",
		"http://user:secret@host:x":    "http://http:",
		"://user:secret@host":          "http://:",
		"socks5://user:secret@host":    "socks5://redacted@host",
	} {
		u, err := url.Parse(variable)
		if err != nil || u.Scheme == "" || u.Host == "" { // as net/http does
			if u, err = url.Parse("http://" + variable); err != nil {
				t.Errorf("%s: %v", variable, err)
				continue
			}
		}
		if got := Proxy(u); got != want {
			t.Errorf("%s: got %q, want %q", variable, got, want)
		}
	}
}

// What a server repeats need not be what was sent to the letter: it cuts a long value,
// decodes another, and does not care how a name is written.
func TestRepeatsParts(t *testing.T) {
	const long = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl"
	for name, c := range map[string]struct {
		target string
		header http.Header
		text   string
	}{
		"the beginning":                 {header: http.Header{"Authorization": {"Bearer " + long}}, text: "bad token " + long[:24] + "..."},
		"the end":                       {header: http.Header{"X-Token": {long}}, text: "bad token ..." + long[len(long)-24:]},
		"a small name":                  {header: http.Header{"authorization": {"Bearer small"}}, text: "bad token small"},
		"a small cookie":                {header: http.Header{"cookie": {"a=small;b=\"quoted\""}}, text: "bad session quoted"},
		"a password, decoded":           {header: http.Header{"Authorization": {"Basic dXNlcjpwYXNzd29yZA=="}}, text: "user has no password"},
		"a name in place of a password": {header: http.Header{"Authorization": {"basic bmFtZTo="}}, text: "name is unknown"},
		"a user of a URL":               {target: "token@", text: "token is unknown"},
		"a query without =":             {target: "server.test/?token", text: "token is unknown"},
	} {
		target, err := url.Parse("http://" + c.target)
		if err != nil {
			t.Fatal(err)
		}
		if !Repeats(c.text, &http.Request{URL: target, Header: c.header}) {
			t.Errorf("%s is not kept", name)
		}
	}
}

func TestError(t *testing.T) {
	sentinel := errors.New("sentinel")
	if Error(sentinel) != sentinel {
		t.Error("an error without a URL is changed")
	}
	inner := &url.Error{Op: "Get", URL: "https://b.test/?q=s3cr3t", Err: sentinel}
	outer := &url.Error{Op: "Post", URL: "https://u:s3cr3t@a.test/", Err: inner}
	unparsable := &url.Error{Op: "parse", URL: "http://u:s3cr3t@a.test:s3cr3t/", Err: errors.New(`invalid port ":s3cr3t"`)}
	for want, err := range map[string]error{
		`no token: Get "https://b.test/?redacted": sentinel`:                        fmt.Errorf("no token: %w", inner),
		`Post "https://redacted@a.test/": Get "https://b.test/?redacted": sentinel`: outer,
		"sentinel\nGet \"https://b.test/?redacted\": sentinel":                      errors.Join(sentinel, inner),
		`https://b.test/?redacted failed: Get "https://b.test/?redacted": sentinel`: fmt.Errorf("%s failed: %w", inner.URL, inner),
		"sentinel: a URL cannot be parsed":                                          fmt.Errorf("%w: %w", sentinel, unparsable),
		`Get "https://c.test/?redacted": dial tcp: EOF, sentinel`:                   fmt.Errorf("%w, %w", &url.Error{Op: "Get", URL: "https://c.test/?q=s3cr3t", Err: &net.OpError{Op: "dial", Net: "tcp", Err: io.EOF}}, sentinel),
	} {
		got := Error(err)
		if got.Error() != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !errors.Is(got, sentinel) {
			t.Errorf("%q is no longer the sentinel", got)
		}
		var raw *url.Error
		var network net.Error // a url.Error is one
		if errors.As(got, &raw) || errors.As(got, &network) && strings.Contains(network.Error(), "s3cr3t") {
			t.Errorf("%q holds a raw URL: %v %v", got, raw, network)
		}
	}
	wrapped := Error(fmt.Errorf("%w: %w", &net.OpError{Op: "dial", Net: "tcp", Err: io.EOF}, inner))
	var dial *net.OpError
	if !errors.As(wrapped, &dial) || dial.Op != "dial" {
		t.Errorf("%v has lost what is beside the URL", wrapped)
	}
}

// A url.Error that an application makes itself need not have a cause.
func TestErrorWithoutACause(t *testing.T) {
	err := Error(&url.Error{Op: "Get", URL: "https://a.test/?q=s3cr3t"})
	if want := `Get "https://a.test/?redacted": <nil>`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
