// Package redact keeps secrets out of texts: those of URLs, and those of a request that its
// server may repeat.
package redact

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error returns err without a raw URL in its text or in what [errors.As] finds: err
// itself if it has none. net/url and net/http put the URL, query included, into every
// error they return.
func Error(err error) error {
	text := ""
	for _, told := range urlErrors(err) {
		if text == "" {
			text = err.Error()
		}
		text = strings.ReplaceAll(text, told.Error(), urlErrorText(told))
		for _, raw := range []string{told.URL, strings.Trim(strconv.Quote(told.URL), `"`)} {
			if raw != "" {
				text = strings.ReplaceAll(text, raw, URL(raw))
			}
		}
	}
	if text == "" {
		return err
	}
	return &redactedError{text, err}
}

// urlErrorText returns the text of err without secrets. An error of parsing quotes parts
// of what it could not parse.
func urlErrorText(err *url.Error) string {
	if err.Op == "parse" {
		return "a URL cannot be parsed"
	}
	return fmt.Sprintf("%s %q: %v", err.Op, URL(err.URL), Error(err.Err))
}

// urlErrors returns all errors of net/url in the tree of err.
func urlErrors(err error) (all []*url.Error) {
	if told, ok := err.(*url.Error); ok {
		all = append(all, told)
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil {
			all = append(all, urlErrors(inner)...)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			all = append(all, urlErrors(inner)...)
		}
	}
	return all
}

// redactedError is an error of the application whose text told a URL. [errors.Is] and
// [errors.As] find what is in it, except for raw URLs.
type redactedError struct {
	text string
	err  error
}

func (e *redactedError) Error() string        { return e.text }
func (e *redactedError) Is(target error) bool { return errors.Is(e.err, target) }

func (e *redactedError) As(target any) bool {
	if !errors.As(e.err, target) {
		return false
	}
	found := reflect.ValueOf(target).Elem()
	if err, ok := found.Interface().(error); ok && len(urlErrors(err)) > 0 {
		found.SetZero()
		return false
	}
	return true
}

// URL removes what may be secret from a URL: userinfo, query and fragment.
func URL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "redacted" // what cannot be parsed may be secret as a whole
	}
	return Parsed(u)
}

// Proxy tells where a proxy is. It has no path: in a proxy variable that net/http could not
// parse as a URL, the password ends up there.
func Proxy(u *url.URL) string {
	return Parsed(&url.URL{Scheme: u.Scheme, Opaque: u.Opaque, User: u.User, Host: u.Host})
}

// Parsed is [URL] for a parsed URL, which it changes.
func Parsed(u *url.URL) string {
	if u.Opaque != "" {
		return "redacted"
	}
	if u.User != nil {
		u.User = url.User("redacted")
	}
	if u.RawQuery != "" {
		u.RawQuery = "redacted"
	}
	u.Fragment, u.RawFragment = "", ""
	return u.String()
}

// minSecret is the length from which a value that was sent counts as secret, in bytes.
// Shorter ones are found in every text.
const minSecret = 4

// Repeats reports whether text contains a value of the header or the query that one of the
// requests sent, or its password. A nil request sends nothing.
func Repeats(text string, requests ...*http.Request) bool {
	for _, request := range requests {
		if request == nil {
			continue
		}
		for _, secret := range secrets(request.URL, request.Header) {
			if repeats(text, secret) {
				return true
			}
		}
	}
	return false
}

// repeats reports whether text contains a secret, or a long part of it: a server that
// repeats a token may cut it, and so does reading only the beginning of a body.
func repeats(text, secret string) bool {
	const part = 16 // bytes
	if len(secret) < minSecret {
		return false
	}
	for ; len(secret) > part; secret = secret[1:] {
		if strings.Contains(text, secret[:part]) {
			return true
		}
	}
	return strings.Contains(text, secret)
}

// secrets returns the values that a request sends, except those of the handshake that all
// requests share, and the Origin: errors name that host anyway. Subprotocols count if
// [Subprotocol] withholds them.
func secrets(target *url.URL, header http.Header) (all []string) {
	for name, values := range header {
		name = http.CanonicalHeaderKey(name)
		switch name {
		case "Connection", "Upgrade", "Origin", "Sec-Websocket-Version", "Sec-Websocket-Extensions":
			continue
		case "Sec-Websocket-Protocol":
			all = append(all, subprotocolSecrets(values)...)
			continue
		}
		for _, value := range values {
			all = append(all, value)
			if scheme, credentials, ok := strings.Cut(value, " "); ok && strings.HasSuffix(name, "Authorization") {
				all = append(all, credentials)
				all = append(all, basicSecrets(scheme, credentials)...)
			}
			if name == "Cookie" {
				all = append(all, cookieSecrets(value)...)
			}
		}
	}
	return append(append(all, querySecrets(target.RawQuery)...), userSecret(target.User))
}

// longSubprotocol is the length from which a subprotocol counts as secret, in bytes. Some
// servers want a token there, since browsers can set no header. Few names are so long.
const longSubprotocol = 32

// Subprotocol returns a subprotocol as a text may tell it.
func Subprotocol(name string) string {
	if len(name) >= longSubprotocol {
		return "(withheld)"
	}
	return name
}

// Subprotocols is [Subprotocol] for several.
func Subprotocols(names []string) (told []string) {
	for _, name := range names {
		told = append(told, Subprotocol(name))
	}
	return told
}

// subprotocolSecrets returns the subprotocols that count as secret, and what stands behind
// their last dot, also decoded: names such as base64url.bearer.authorization.k8s.io come
// before the token.
func subprotocolSecrets(values []string) (all []string) {
	for name := range strings.SplitSeq(strings.Join(values, ","), ",") {
		name = strings.TrimSpace(name)
		if Subprotocol(name) == name {
			continue
		}
		token := name[strings.LastIndexByte(name, '.')+1:]
		plain, _ := base64.RawURLEncoding.DecodeString(token)
		all = append(all, name, token, string(plain))
	}
	return all
}

// basicSecrets returns what credentials of the scheme Basic hide (RFC 7617).
func basicSecrets(scheme, credentials string) []string {
	plain, err := base64.StdEncoding.DecodeString(credentials)
	if !strings.EqualFold(scheme, "Basic") || err != nil {
		return nil
	}
	name, password, _ := strings.Cut(string(plain), ":")
	return []string{userSecret(url.UserPassword(name, password))}
}

// cookieSecrets returns the values of cookies: a server may repeat one of many.
func cookieSecrets(cookies string) (all []string) {
	for cookie := range strings.SplitSeq(cookies, ";") {
		_, value, _ := strings.Cut(cookie, "=")
		all = append(all, strings.Trim(value, ` "`))
	}
	return all
}

// querySecrets returns the values of a query, as they were sent and decoded. A query may be
// a secret as a whole, without a name.
func querySecrets(query string) []string {
	all := []string{query}
	for pair := range strings.SplitSeq(query, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, _ := url.QueryUnescape(value)
		all = append(all, value, plain)
	}
	return all
}

// userSecret returns the password, or the user's name if it has none: a token may stand in
// its place.
func userSecret(user *url.Userinfo) string {
	password, _ := user.Password()
	return cmp.Or(password, user.Username())
}

// Printable returns what can be printed of a text, on one line, and at most so many bytes.
func Printable(text []byte, most int) string {
	var b strings.Builder
	for _, r := range strings.Join(strings.Fields(string(text)), " ") {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > most {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}
