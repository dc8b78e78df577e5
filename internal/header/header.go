// Package header says what the request for an upgrade may have: header fields, subprotocols
// and a Host.
package header

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// FindBad returns the name of a field that an upgrade cannot have, and why, or nothing. It
// tells no value, and of a name that is none only the beginning: the rest may be a value.
func FindBad(header http.Header) (name, bad string) {
	for name, values := range header {
		if !isToken(name) {
			end := strings.IndexFunc(name, func(r rune) bool { return !isToken(string(r)) })
			return fmt.Sprintf("%q", name[:max(0, end)]), "has a name that is no token (RFC 9110, section 5.1)"
		}
		switch canonical := http.CanonicalHeaderKey(name); {
		case canonical == "Host":
			if len(values) > 1 {
				return name, "must not have several values"
			}
			if bad := BadHost(strings.Join(values, "")); bad != "" {
				return name, "has a value that is no host"
			}
		case handshakeFields[canonical] != "":
			return name, "belongs to the handshake: " + handshakeFields[canonical]
		case strings.HasPrefix(canonical, "Sec-Websocket-"):
			return name, "belongs to the handshake"
		}
		for _, value := range values {
			if !isFieldValue(value) {
				return name, "has a value with a character that no header may have (RFC 9110, section 5.5)"
			}
		}
	}
	return "", ""
}

// handshakeFields are the fields that the client sets, or leaves out, itself.
var handshakeFields = map[string]string{
	"Connection":               "it is always Upgrade",
	"Upgrade":                  "it is always websocket",
	"Content-Length":           "an upgrade has no body",
	"Transfer-Encoding":        "an upgrade has no body",
	"Trailer":                  "an upgrade has no body",
	"Sec-Websocket-Key":        "it is drawn for each attempt",
	"Sec-Websocket-Version":    "it is always 13",
	"Sec-Websocket-Protocol":   "use WithSubprotocols",
	"Sec-Websocket-Extensions": "use WithCompression",
}

// isToken reports whether name is a token (RFC 9110, section 5.6.2).
func isToken(name string) bool {
	for _, r := range name {
		if r <= ' ' || r >= 0x7F || strings.ContainsRune("\"(),/:;<=>?@[\\]{}", r) {
			return false
		}
	}
	return name != ""
}

// isFieldValue reports whether a header can have the value (RFC 9110, section 5.5).
func isFieldValue(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' && c != '\t' || c == 0x7F {
			return false
		}
	}
	return true
}

// FindBadSubprotocol returns the first name that RFC 6455, section 4.1, forbids, and
// why, or nothing.
func FindBadSubprotocol(names []string) (name, bad string) {
	for i, name := range names {
		switch {
		case !isToken(name):
			return name, "must be a token (RFC 9110, section 5.6.2)"
		case slices.Contains(names[:i], name):
			return name, "must not be given twice"
		}
	}
	return "", ""
}

// BadHost says why a host cannot be that of a request, or returns nothing.
func BadHost(host string) string {
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7F || strings.IndexByte("/?#@\\\"<>^`{|}", c) >= 0 {
			return "the Host must be a host, with a port or without (RFC 9110, section 7.2)"
		}
	}
	return ""
}

// SplitHost returns the header without Host, and the host that it had, or host. It does not
// change header. net/http sends no Host that stands in a header.
func SplitHost(header http.Header, host string) (http.Header, string) {
	for name, values := range header {
		if http.CanonicalHeaderKey(name) != "Host" {
			continue
		}
		header = header.Clone()
		delete(header, name)
		if len(values) > 0 && values[0] != "" {
			host = values[0]
		}
	}
	return header, host
}

// Recognizable returns the header with canonical names for the fields that net/http adds
// where it finds none: it would add a second one beside a user-agent. It does not change
// header.
func Recognizable(header http.Header) http.Header {
	own := header
	for name, values := range header {
		switch canonical := http.CanonicalHeaderKey(name); canonical {
		case name:
		case "Accept-Encoding", "Authorization", "Cookie", "User-Agent":
			own = own.Clone()
			delete(own, name)
			own[canonical] = append(own[canonical], values...)
		}
	}
	return own
}
