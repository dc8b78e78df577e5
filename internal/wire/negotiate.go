package wire

import (
	"fmt"
	"strconv"
	"strings"
)

// Deflate is what was agreed upon for permessage-deflate (RFC 7692, section 7.1).
type Deflate struct {
	On             bool
	ServerTakeover bool  // the server's messages may refer to former ones
	ServerBits     uint8 // of its window; 0 is 15
	ClientBits     uint8 // of ours; 0 is 15
}

func (d Deflate) serverWindow() int { return windowSize(d.ServerBits) }

// clientWindow is how far back the server remembers. Its default is as far as
// deflate reaches, which bounds no message.
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

// Offer is the value of the request's Sec-WebSocket-Extensions. The client never
// takes a context over, and so lets the server forget its own part of it.
func Offer(serverTakeover bool) string {
	offer := extension + "; client_no_context_takeover; client_max_window_bits"
	if !serverTakeover {
		offer += "; server_no_context_takeover"
	}
	return offer
}

// Accept reads the response's Sec-WebSocket-Extensions, which answers an [Offer], or
// none. An error is what RFC 7692, section 7.1, forbids.
func Accept(values []string, offered bool) (Deflate, error) {
	extensions := split(strings.Join(values, ","), ',')
	switch {
	case len(extensions) == 0:
		return Deflate{}, nil
	case !offered:
		return Deflate{}, fmt.Errorf("the server uses an extension that was not offered")
	case len(extensions) > 1:
		return Deflate{}, fmt.Errorf("the server uses %d extensions, offered was one", len(extensions))
	}
	name, parameters, _ := strings.Cut(extensions[0], ";")
	if trim(name) != extension {
		return Deflate{}, fmt.Errorf("the server uses an extension that was not offered")
	}
	d := Deflate{On: true, ServerTakeover: true}
	seen := map[string]bool{}
	for _, parameter := range split(parameters, ';') {
		name, value, valued := strings.Cut(parameter, "=")
		name = trim(name)
		if seen[name] {
			return Deflate{}, fmt.Errorf("the server gives a parameter of %s twice", extension)
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
			return Deflate{}, fmt.Errorf("the server gives an unknown parameter of %s", extension)
		}
		if !ok {
			return Deflate{}, fmt.Errorf("the server gives %s of %s a value that it cannot have", name, extension)
		}
	}
	return d, nil
}

// windowBits reads 8 to 15, without leading zeros, quoted or not.
func windowBits(value string) (bits uint8, ok bool) {
	value = trim(value)
	if len(value) > 2 && value[0] == '"' && value[len(value)-1] == '"' {
		value = value[1 : len(value)-1]
	}
	n, err := strconv.Atoi(value)
	return uint8(n), err == nil && n >= minBits && n <= maxBits && strconv.Itoa(n) == value
}

// split splits a list, without the empty elements that RFC 9110, sections 5.6.1 and
// 5.6.6, allows. (No value in it is a quoted string with a separator inside: each is a
// token, or wrong.)
func split(list string, separator byte) (elements []string) {
	for _, element := range strings.Split(list, string(separator)) {
		if element = trim(element); element != "" {
			elements = append(elements, element)
		}
	}
	return elements
}

// trim leaves out the white space of HTTP, which is less than that of Unicode.
func trim(s string) string { return strings.Trim(s, " \t") }
