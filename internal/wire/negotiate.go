package wire

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Deflate holds the negotiated parameters of permessage-deflate (RFC 7692, section 7.1).
type Deflate struct {
	On             bool
	ServerTakeover bool  // the server may use context takeover
	ServerBits     uint8 // server_max_window_bits; 0 means 15
	ClientBits     uint8 // client_max_window_bits; 0 means 15
}

func (d Deflate) serverWindow() int { return windowSize(d.ServerBits) }

// clientWindow returns the size of the largest message that we may compress. The full
// window of deflate bounds none, since no reference can reach beyond it.
func (d Deflate) clientWindow() int {
	if d.ClientBits == 0 || d.ClientBits == maxBits {
		return 1<<31 - 1
	}
	return windowSize(d.ClientBits)
}

const (
	minBits = 8
	maxBits = 15
)

func windowSize(bits uint8) int {
	if bits == 0 {
		bits = maxBits
	}
	return 1 << bits
}

const extension = "permessage-deflate"

// Offer returns the value of Sec-WebSocket-Extensions for the request. The client never
// uses context takeover, and says so, which spares the server a window.
func Offer(serverTakeover bool) string {
	offer := extension + "; client_no_context_takeover; client_max_window_bits"
	if !serverTakeover {
		offer += "; server_no_context_takeover"
	}
	return offer
}

var errNotOffered = errors.New("the server selected an extension that was not offered")

// Accept parses the Sec-WebSocket-Extensions of the response. offered tells whether the
// request had an [Offer]. The error says what the response violates (RFC 6455, section
// 9.1, and RFC 7692, section 7.1).
func Accept(values []string, offered bool) (Deflate, error) {
	extensions := split(strings.Join(values, ","), ',')
	switch {
	case len(extensions) == 0:
		return Deflate{}, nil
	case !offered:
		return Deflate{}, errNotOffered
	case len(extensions) > 1:
		return Deflate{}, fmt.Errorf("the server selected %d extensions, but only one was offered", len(extensions))
	}
	name, parameters, _ := strings.Cut(extensions[0], ";")
	if trim(name) != extension {
		return Deflate{}, errNotOffered
	}
	d := Deflate{On: true, ServerTakeover: true}
	seen := map[string]bool{}
	for _, parameter := range split(parameters, ';') {
		name, value, valued := strings.Cut(parameter, "=")
		name = trim(name)
		if seen[name] {
			return Deflate{}, fmt.Errorf("duplicate parameter of %s", extension)
		}
		seen[name] = true
		var ok bool
		switch name {
		case "server_no_context_takeover":
			d.ServerTakeover, ok = false, !valued
		case "client_no_context_takeover":
			ok = !valued
		case "server_max_window_bits":
			d.ServerBits, ok = windowBits(value)
		case "client_max_window_bits":
			d.ClientBits, ok = windowBits(value)
		default:
			return Deflate{}, fmt.Errorf("unknown parameter of %s", extension)
		}
		if !ok {
			return Deflate{}, fmt.Errorf("missing or invalid value of parameter %s of %s", name, extension)
		}
	}
	return d, nil
}

// windowBits parses a number from 8 to 15 without leading zeros, quoted or not.
func windowBits(value string) (bits uint8, ok bool) {
	value = trim(value)
	if len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	n, err := strconv.Atoi(value)
	return uint8(n), err == nil && n >= minBits && n <= maxBits && strconv.Itoa(n) == value
}

// split splits a list, and drops the empty elements that RFC 9110, sections 5.6.1 and
// 5.6.6, allows. It ignores quoting: no valid value contains a separator.
func split(list string, separator byte) (elements []string) {
	for _, element := range strings.Split(list, string(separator)) {
		if element = trim(element); element != "" {
			elements = append(elements, element)
		}
	}
	return elements
}

// trim removes the whitespace of HTTP (RFC 9110, section 5.6.3), which is narrower than
// that of package unicode.
func trim(s string) string { return strings.Trim(s, " \t") }
