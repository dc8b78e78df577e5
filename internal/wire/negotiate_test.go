package wire

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestOffer(t *testing.T) {
	const offer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
	if got := Offer(true); got != offer {
		t.Errorf("got %q", got)
	}
	if got := Offer(false); got != offer+"; server_no_context_takeover" {
		t.Errorf("got %q", got)
	}
}

// TestAccept covers RFC 7692, section 7.1, and RFC 6455, section 9.1.
func TestAccept(t *testing.T) {
	plain := Deflate{On: true, ServerTakeover: true}
	server := func(bits uint8) Deflate { return Deflate{On: true, ServerTakeover: true, ServerBits: bits} }
	client := func(bits uint8) Deflate { return Deflate{On: true, ServerTakeover: true, ClientBits: bits} }
	for reply, want := range map[string]Deflate{
		"":                       {},
		" \t":                    {},
		",":                      {},
		" , ,\t":                 {},
		"permessage-deflate":     plain,
		"\t permessage-deflate ": plain,
		", ,permessage-deflate,": plain,
		"permessage-deflate;":    plain,
		"permessage-deflate ; ;; client_no_context_takeover ;":     plain,
		"permessage-deflate; client_no_context_takeover":           plain,
		"permessage-deflate;client_no_context_takeover":            plain,
		"permessage-deflate; server_no_context_takeover":           {On: true},
		"permessage-deflate; server_max_window_bits=8":             server(8),
		"permessage-deflate; server_max_window_bits=9":             server(9),
		"permessage-deflate; server_max_window_bits=10":            server(10),
		"permessage-deflate; server_max_window_bits=15":            server(15),
		"permessage-deflate; client_max_window_bits=8":             client(8),
		"permessage-deflate; client_max_window_bits=12":            client(12),
		"permessage-deflate; client_max_window_bits=15":            client(15),
		`permessage-deflate; server_max_window_bits="12"`:          server(12),
		`permessage-deflate; client_max_window_bits="8"`:           client(8),
		"permessage-deflate;\tserver_max_window_bits \t=\t 12\t; ": server(12),
		"permessage-deflate; client_max_window_bits=9; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=11": {
			On: true, ServerBits: 11, ClientBits: 9},
	} {
		if got, err := Accept([]string{reply}, true); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", reply, got, err)
		}
	}
	const unoffered, twice, unknown, value = "not offered", "duplicate parameter", "unknown parameter", "missing or invalid value"
	for reply, want := range map[string]string{
		"permessage-deflate, permessage-deflate":              "2 extensions",
		"permessage-deflate; server_max_window_bits=10,,a, b": "3 extensions",
		`permessage-deflate; server_max_window_bits="1,2"`:    "2 extensions",
		"permessage-bzip2":                              unoffered,
		"x-webkit-deflate-frame":                        unoffered,
		"Permessage-Deflate":                            unoffered,
		"permessage-deflate=1":                          unoffered,
		"permessage-deflate client_no_context_takeover": unoffered,
		";permessage-deflate":                           unoffered,
		";":                                             unoffered,
		"client_no_context_takeover":                    unoffered,
		"\u00a0permessage-deflate":                      unoffered,
		"\"permessage-deflate\"":                        unoffered,
		"permessage-deflate; server_no_context_takeover; server_no_context_takeover":  twice,
		"permessage-deflate; server_max_window_bits=12;; server_max_window_bits =12":  twice,
		"permessage-deflate; client_max_window_bits=12; client_max_window_bits=13":    twice,
		"permessage-deflate; client_no_context_takeover; client_no_context_takeover=": twice,
		"permessage-deflate; no_context_takeover":                                     unknown,
		"permessage-deflate; Server_no_context_takeover":                              unknown,
		"permessage-deflate; =":                                                                 unknown,
		"permessage-deflate; =12":                                                               unknown,
		"permessage-deflate; server_max_window_bits 12":                                         unknown,
		"permessage-deflate; \u00a0server_no_context_takeover":                                  unknown,
		"permessage-deflate; server_no_context_takeover=":                                       value,
		"permessage-deflate; server_no_context_takeover=true":                                   value,
		"permessage-deflate; client_no_context_takeover=1":                                      value,
		"permessage-deflate; client_no_context_takeover = ":                                     value,
		"permessage-deflate; server_max_window_bits":                                            value,
		"permessage-deflate; client_max_window_bits":                                            value,
		"permessage-deflate; client_max_window_bits=":                                           value,
		"permessage-deflate; client_max_window_bits=\"\"":                                       value,
		"permessage-deflate; client_max_window_bits=\"":                                         value,
		"permessage-deflate; client_max_window_bits=\"9":                                        value,
		"permessage-deflate; client_max_window_bits=9\"":                                        value,
		"permessage-deflate; client_max_window_bits='9'":                                        value,
		"permessage-deflate; client_max_window_bits=\"\"9\"\"":                                  value,
		"permessage-deflate; client_max_window_bits=\" 9\"":                                     value,
		"permessage-deflate; server_max_window_bits=7":                                          value,
		"permessage-deflate; server_max_window_bits=16":                                         value,
		"permessage-deflate; server_max_window_bits=99":                                         value,
		"permessage-deflate; server_max_window_bits=0":                                          value,
		"permessage-deflate; server_max_window_bits=-9":                                         value,
		"permessage-deflate; server_max_window_bits=+9":                                         value,
		"permessage-deflate; server_max_window_bits=08":                                         value,
		"permessage-deflate; server_max_window_bits=8.0":                                        value,
		"permessage-deflate; server_max_window_bits=0x9":                                        value,
		"permessage-deflate; server_max_window_bits=1 2":                                        value,
		"permessage-deflate; server_max_window_bits=264":                                        value, // 8, as a byte
		"permessage-deflate; server_max_window_bits=12=":                                        value,
		"permessage-deflate; server_max_window_bits=\u00a012":                                   value,
		"permessage-deflate; server_max_window_bits=18446744073709551624":                       value,
		"permessage-deflate; server_max_window_bits=7; client_max_window_bits=9":                value,
		"permessage-deflate; client_max_window_bits=9; server_max_window_bits=7":                value,
		"permessage-deflate; server_no_context_takeover; client_max_window_bits=9; unknown_one": unknown,
		"permessage-deflate; server_no_context_takeover=1; server_no_context_takeover; another": value,
	} {
		got, err := Accept([]string{reply}, true)
		if err == nil || !strings.Contains(err.Error(), want) || got != (Deflate{}) {
			t.Errorf("%q: got %+v, %v", reply, got, err)
		}
	}
}

// TestAcceptOffered checks that an extension that was not offered is rejected, and that
// the header field may occur more than once.
func TestAcceptOffered(t *testing.T) {
	for _, values := range [][]string{nil, {}, {""}, {"", " ,"}} {
		for _, offered := range []bool{true, false} {
			if got, err := Accept(values, offered); err != nil || got != (Deflate{}) {
				t.Errorf("%q, offered %t: got %+v, %v", values, offered, got, err)
			}
		}
	}
	for _, reply := range []string{"permessage-deflate", "x", "a, b"} {
		got, err := Accept([]string{reply}, false)
		if err == nil || !strings.Contains(err.Error(), "not offered") || got != (Deflate{}) {
			t.Errorf("%q: got %+v, %v", reply, got, err)
		}
	}
	if got, err := Accept([]string{"", "permessage-deflate", ","}, true); err != nil || !got.On {
		t.Errorf("got %+v, %v", got, err)
	}
	if got, err := Accept([]string{"permessage-deflate", "permessage-deflate"}, true); err == nil {
		t.Errorf("two fields: got %+v", got)
	}
}

func TestWindowSizes(t *testing.T) {
	for bits, want := range map[uint8]int{0: 32768, 8: 256, 9: 512, 14: 16384, 15: 32768} {
		if got := (Deflate{ServerBits: bits}).serverWindow(); got != want {
			t.Errorf("%d bits: got %d", bits, got)
		}
		if bits == 0 || bits == 15 {
			want = 1<<31 - 1 // bounds no message
		}
		if got := (Deflate{ClientBits: bits}).clientWindow(); got != want {
			t.Errorf("%d bits: got %d", bits, got)
		}
	}
}

var (
	legalReply = regexp.MustCompile(`^permessage-deflate([ \t]*;([ \t]*(client_no_context_takeover|server_no_context_takeover|` +
		`(client|server)_max_window_bits[ \t]*=[ \t]*([89]|1[0-5]|"[89]"|"1[0-5]")))?)*$`)
	serverBitsIn = regexp.MustCompile(`server_max_window_bits[ \t]*=[ \t]*"?([0-9]+)`)
	clientBitsIn = regexp.MustCompile(`client_max_window_bits[ \t]*=[ \t]*"?([0-9]+)`)
)

// FuzzAccept compares Accept with agreedBy.
func FuzzAccept(f *testing.F) {
	for _, reply := range []string{
		"", ",", "permessage-deflate", " permessage-deflate\t;", "permessage-deflate\n", ", permessage-deflate;;",
		"permessage-deflate; server_no_context_takeover; client_no_context_takeover",
		"permessage-deflate; server_max_window_bits=12; client_max_window_bits=\"8\"",
		"permessage-deflate; server_max_window_bits = 15; server_max_window_bits=15",
		"permessage-deflate; client_max_window_bits", "permessage-deflate; server_max_window_bits=16",
		"permessage-deflate; server_max_window_bits=08", "permessage-deflate\npermessage-deflate", "a, b", ";permessage-deflate",
		"permessage-deflate; server_max_window_bits=\"1,2\"", "\u00a0permessage-deflate",
	} {
		f.Add(reply, true)
		f.Add(reply, false)
	}
	f.Fuzz(func(t *testing.T, reply string, offered bool) {
		want, legal := agreedBy(reply, offered)
		got, err := Accept(strings.Split(reply, "\n"), offered)
		if legal != (err == nil) || got != want {
			t.Errorf("%q, offered %t: got %+v, %v, want %+v, %t", reply, offered, got, err, want, legal)
		}
		if again, _ := Accept([]string{strings.ReplaceAll(reply, "\n", ",")}, offered); again != got {
			t.Errorf("%q in one field: got %+v, %+v", reply, again, got)
		}
	})
}

// agreedBy parses a reply with a regular expression for the grammar of a legal one.
func agreedBy(reply string, offered bool) (d Deflate, legal bool) {
	elements := strings.FieldsFunc(reply, func(r rune) bool { return r == ',' || r == '\n' })
	elements = slices.DeleteFunc(elements, func(element string) bool { return strings.Trim(element, " \t") == "" })
	if len(elements) == 0 {
		return d, true
	}
	element := strings.Trim(elements[0], " \t")
	if !offered || len(elements) > 1 || !legalReply.MatchString(element) {
		return d, false
	}
	for _, name := range []string{"client_no", "server_no", "client_max", "server_max"} {
		if strings.Count(element, name) > 1 {
			return d, false
		}
	}
	bits := func(in *regexp.Regexp) uint8 {
		found := in.FindStringSubmatch(element)
		if found == nil {
			return 0
		}
		n, _ := strconv.Atoi(found[1])
		return uint8(n)
	}
	return Deflate{
		On:             true,
		ServerTakeover: !strings.Contains(element, "server_no_context_takeover"),
		ServerBits:     bits(serverBitsIn),
		ClientBits:     bits(clientBitsIn),
	}, true
}
