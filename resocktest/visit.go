package resocktest

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// visit is an accepted connection that is not yet a Conn.
type visit struct {
	server  *Server
	attempt int // its index
	link    *link
	stream  net.Conn // link, or TLS over it
	reader  *bufio.Reader
	request *http.Request
}

// open performs the TLS handshake, if any, and reads the request.
func (v *visit) open() error {
	if config := v.server.TLS; config != nil {
		secure := tls.Server(v.link, config)
		if err := secure.Handshake(); err != nil {
			return err
		}
		v.stream = secure
	}
	v.reader = bufio.NewReader(v.stream)
	request, err := http.ReadRequest(v.reader)
	if err != nil {
		return err
	}
	v.request = request
	v.server.noteRequest(v.attempt, request)
	return nil
}

// stall sends nothing until the client disconnects.
func (v *visit) stall() { _, _ = io.Copy(io.Discard, v.stream) }

// respond answers the request and closes the connection.
func (v *visit) respond(status int, header http.Header, body string) error {
	response := &http.Response{
		StatusCode:    status,
		ProtoMajor:    1,
		ProtoMinor:    1,
		Header:        header,
		Body:          io.NopCloser(strings.NewReader(body)),
		ContentLength: int64(len(body)),
		Close:         true,
	}
	return response.Write(v.stream)
}

// upgrade answers 101 with the headers of RFC 6455, section 4.2.2, overridden by
// header, and serves the connection until it ends.
func (v *visit) upgrade(header http.Header, handler func(*Conn)) {
	key := v.request.Header.Get("Sec-WebSocket-Key")
	if key == "" {
		_ = v.respond(http.StatusUpgradeRequired, http.Header{"Upgrade": {"websocket"}}, "")
		return
	}
	answer := http.Header{
		"Connection":           {"Upgrade"},
		"Upgrade":              {"websocket"},
		"Sec-Websocket-Accept": {acceptKey(key)},
	}
	for name, values := range header {
		answer[http.CanonicalHeaderKey(name)] = values // no values: no such header
	}
	var text strings.Builder
	fmt.Fprintf(&text, "HTTP/1.1 %d %s\r\n", http.StatusSwitchingProtocols, http.StatusText(http.StatusSwitchingProtocols))
	_ = answer.Write(&text) // never fails
	text.WriteString("\r\n")
	if _, err := io.WriteString(v.stream, text.String()); err != nil {
		return
	}
	c := newConn(v)
	v.server.opened(c)
	if handler != nil {
		v.server.spawn(func() { handler(c) })
	}
	c.read()
}

// acceptKey returns the Sec-WebSocket-Accept of a Sec-WebSocket-Key (RFC 6455,
// section 4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}
