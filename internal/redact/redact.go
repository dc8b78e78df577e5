// Package redact keeps secrets out of texts: those of URLs, and those of a request that its
// server may repeat.
package redact

import (
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error returns err without a raw URL in its text or in what [errors.As] finds: err itself if
// it has none. net/url and net/http put the URL, query included, into every error they return.
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
	return err.Op + " " + strconv.Quote(URL(err.URL)) + ": " + Error(err.Err).Error()
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

// Repeats reports whether text contains a value of the header or the query that request sent,
// or its password. No request sends nothing.
func Repeats(text string, request *http.Request) bool {
	if request == nil {
		return false
	}
	for _, secret := range secrets(request.URL, request.Header) {
		if len(secret) >= minSecret && strings.Contains(text, secret) {
			return true
		}
	}
	return false
}

// secrets returns the values that a request sends, except those of the handshake that all
// requests share.
func secrets(target *url.URL, header http.Header) (all []string) {
	for name, values := range header {
		switch name {
		case "Connection", "Upgrade", "Sec-Websocket-Version", "Sec-Websocket-Protocol", "Sec-Websocket-Extensions":
			continue
		}
		for _, value := range values {
			all = append(all, value)
			// A server may repeat the token of "Bearer token", or one cookie of many.
			if _, credentials, ok := strings.Cut(value, " "); ok && strings.HasSuffix(name, "Authorization") {
				all = append(all, credentials)
			}
			if name == "Cookie" {
				for cookie := range strings.SplitSeq(value, "; ") {
					_, value, _ := strings.Cut(cookie, "=")
					all = append(all, value)
				}
			}
		}
	}
	for pair := range strings.SplitSeq(target.RawQuery, "&") {
		_, value, _ := strings.Cut(pair, "=")
		plain, _ := url.QueryUnescape(value)
		all = append(all, value, plain)
	}
	password, _ := target.User.Password()
	return append(all, password)
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
