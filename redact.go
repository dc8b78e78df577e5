package resock

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

	"github.com/cenkalti/backoff/v4"
)

// redact returns err without a raw URL in its text or in what errors.As finds. net/url and
// net/http put the URL, query included, into every error they return.
func redact(err error) error {
	text := ""
	for _, told := range urlErrors(err) {
		if text == "" {
			text = err.Error()
		}
		text = strings.ReplaceAll(text, told.Error(), redactURLError(told))
		for _, raw := range []string{told.URL, strings.Trim(strconv.Quote(told.URL), `"`)} {
			if raw != "" {
				text = strings.ReplaceAll(text, raw, redactURL(raw))
			}
		}
	}
	if text == "" {
		return err
	}
	return &redactedError{text, err}
}

// redactURLError returns the text of err without secrets. An error of parsing quotes parts
// of what it could not parse.
func redactURLError(err *url.Error) string {
	if err.Op == "parse" {
		return "a URL cannot be parsed"
	}
	return fmt.Sprintf("%s %q: %v", err.Op, redactURL(err.URL), redact(err.Err))
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

// redactHook is redact for what a hook returned. A permanent error stays one.
func redactHook(err error) error {
	clean := redact(err)
	if permanent(err) && !permanent(clean) {
		return backoff.Permanent(clean)
	}
	return clean
}

// redactURL removes what may be secret from a URL: userinfo, query and fragment.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "redacted" // what cannot be parsed may be secret as a whole
	}
	return redacted(u)
}

// redacted is redactURL for a parsed URL, which it changes.
func redacted(u *url.URL) string {
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

// discreet returns err, or an error without its text if that repeats what was sent; mu is
// held.
func (t *tracer) discreet(err error) error {
	if t.tells(err.Error()) {
		return &hiddenError{"the text of the error repeats what was sent, and is withheld", err}
	}
	return err
}

// minSecret is the length from which a value that was sent counts as secret, in bytes.
// Shorter ones are found in every text.
const minSecret = 4

// tells reports whether text contains a value of the header or the query that was sent, or
// a password; mu is held.
func (t *tracer) tells(text string) bool {
	for _, request := range []*http.Request{t.sent, t.changed} {
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
// requests share, and the Origin: errors name that host anyway.
func secrets(target *url.URL, header http.Header) (all []string) {
	for name, values := range header {
		name = http.CanonicalHeaderKey(name)
		switch name {
		case "Connection", "Upgrade", "Origin", "Sec-Websocket-Version", "Sec-Websocket-Protocol", extensions:
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

// printable returns what can be printed of a text, on one line, and at most so many bytes.
func printable(text []byte, most int) string {
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
