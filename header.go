package resock

import (
	"fmt"
	"net/http"
	"strings"
)

// fault says why the endpoint cannot be dialed, apart from its URL, or returns nothing.
func (e *Endpoint) fault() string {
	if name, bad := findBadHeader(e.Header); bad != "" {
		return fmt.Sprintf("the header %s %s", name, bad)
	}
	if name, bad := findBadSubprotocol(e.Subprotocols); bad != "" {
		return fmt.Sprintf("the subprotocol %q %s", name, bad)
	}
	return badHost(e.Host)
}

// findBadHeader returns the name of the first field that an upgrade cannot have, and why,
// or nothing. It tells no value, and of a name that is none only the beginning: the rest
// may be a value.
func findBadHeader(header http.Header) (name, bad string) {
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
			if bad := badHost(strings.Join(values, "")); bad != "" {
				return name, "has a value that is no host"
			}
		case handshakeHeaders[canonical] != "":
			return name, "belongs to the handshake: " + handshakeHeaders[canonical]
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

// handshakeHeaders are the fields that the client sets, or leaves out, itself.
var handshakeHeaders = map[string]string{
	"Connection":             "it is always Upgrade",
	"Upgrade":                "it is always websocket",
	"Content-Length":         "an upgrade has no body",
	"Transfer-Encoding":      "an upgrade has no body",
	"Trailer":                "an upgrade has no body",
	"Sec-Websocket-Key":      "it is drawn for each attempt",
	"Sec-Websocket-Version":  "it is always 13",
	"Sec-Websocket-Protocol": "use WithSubprotocols",
	extensions:               "use WithCompression",
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

// badHost says why a host cannot be that of a request, or returns nothing.
func badHost(host string) string {
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c >= 0x7F || strings.IndexByte("/?#@\\\"<>^`{|}", c) >= 0 {
			return "the Host must be a host, with a port or without (RFC 9110, section 7.2)"
		}
	}
	return ""
}

// splitHost returns the header without Host, and the host that it had, or host. net/http
// sends no Host that stands in a header.
func splitHost(header http.Header, host string) (http.Header, string) {
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
