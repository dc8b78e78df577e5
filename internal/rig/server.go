package rig

import (
	"bufio"
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// The bits of a frame's first byte, for [resocktest.Frame].
const (
	Fin    = 0x80
	RSV1   = 0x40
	Text   = 1
	Binary = 2
)

// Secret is the text that tests put wherever an application has its secrets: URL
// queries, user info and header values. No error, event or log record may contain it.
const Secret = "s3cr3t"

// WithSecrets returns the target URL with the secret as its user info and its query.
func WithSecrets(target string) string {
	return strings.Replace(target, "://", "://user:"+Secret+"@", 1) + "/path?token=" + Secret
}

// SecretHeader returns request headers that contain the secret.
func SecretHeader() http.Header {
	return http.Header{"Authorization": {"Bearer " + Secret}, "X-Token": {Secret}, "Cookie": {"session=" + Secret}}
}

// Virtual runs a test in virtual time against an in-memory server. When the test
// returns, no goroutine may be left in its synctest bubble.
func Virtual(t *testing.T, test func(t *testing.T, s *resocktest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, resocktest.NewMemory(t)) })
}

// Reach returns the option that connects a client to s, whatever its URL.
func Reach(s *resocktest.Server) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: SecretHeader(), HTTPClient: s.Client()})
}

// ReachCompressed is [Reach] with compression offered.
func ReachCompressed(s *resocktest.Server) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{HTTPClient: s.Client(), CompressionMode: websocket.CompressionNoContextTakeover})
}

// Compressed is [resocktest.Serve] on a server that accepts compression.
func Compressed(handler func(*resocktest.Conn)) resocktest.Step {
	return resocktest.Upgrade(http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}}, handler)
}

// Deflate returns the payload of a compressed message. If final is set, it ends with a
// final block, as that of some servers does.
func Deflate(payload []byte, final bool) []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression)
	_, _ = w.Write(payload)
	if final {
		_ = w.Close()
		return b.Bytes()
	}
	_ = w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))
}

// Flooding scripts a server whose first connections each push the given number of
// messages and then call drop. The connection after them pushes once and stays open.
func Flooding(s *resocktest.Server, connections, messages int, drop func(*resocktest.Conn)) {
	var steps []resocktest.Step
	for range connections {
		steps = append(steps, resocktest.Serve(func(c *resocktest.Conn) {
			for i := range messages {
				if c.Push(fmt.Sprint("push ", i)) != nil {
					return
				}
			}
			drop(c)
		}))
	}
	s.Script(append(steps, resocktest.Serve(func(c *resocktest.Conn) {
		_ = c.Push("push")
		<-c.Done()
	}))...)
}

// Payloads waits until all goroutines of the bubble are blocked, and returns the
// messages that the server received on c.
func Payloads(c *resocktest.Conn) (all []string) {
	synctest.Wait()
	for _, m := range c.Received().Messages {
		all = append(all, string(m.Data))
	}
	return all
}

// Upgraded returns the 101 response to an upgrade request, for [resocktest.Answer].
func Upgraded(request *http.Request) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		AcceptKey(request))
}

// AcceptKey returns the Sec-WebSocket-Accept that answers an upgrade request.
func AcceptKey(request *http.Request) string {
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// Listen starts a TCP server and returns its address. Each connection is closed when
// handle returns.
func Listen(t *testing.T, handle func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				handle(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// UnusedAddress returns an address on which nobody listens. Its port is not an ephemeral
// one: a dial to an ephemeral port on which nobody listens may connect to itself.
func UnusedAddress(t *testing.T) string {
	t.Helper()
	for range 100 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(10000+rand.IntN(22000)))
		if listener, err := net.Listen("tcp", address); err == nil {
			_ = listener.Close()
			return address
		}
	}
	t.Fatal("found no unused port")
	return ""
}

// ListenHTTP is [Listen] with the first HTTP request of each connection read, which
// handle may answer with any bytes.
func ListenHTTP(t *testing.T, handle func(net.Conn, *http.Request)) string {
	t.Helper()
	return Listen(t, func(conn net.Conn) {
		if request, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
			handle(conn, request)
		}
	})
}

// Violation runs a session in which the server sends raw, and expects the client to
// end it with a [resock.ProtocolError] and a close frame, both with the given code.
func Violation(t *testing.T, code resock.StatusCode, raw []byte, opts ...resock.Option) {
	t.Helper()
	Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := Reaching(t, s, opts...)
		c := s.Accept()
		client.Open()
		_ = c.Raw(raw)
		client.ProtocolError(code)
		<-c.Done()
		if closed := c.Received().Close; closed == nil || closed.Code != code {
			t.Errorf("the server received the close frame %+v, want code %d", closed, code)
		}
	})
}

// LateUpgrade returns a step that waits for after before it upgrades the connection. It
// reads nothing, and drops the connection when life has passed.
func LateUpgrade(after, life time.Duration) resocktest.Step {
	return resocktest.Answer(func(conn net.Conn, request *http.Request) {
		time.Sleep(after)
		_, _ = conn.Write(Upgraded(request))
		time.Sleep(life)
	})
}

// ListenTLS is [Listen] for a server that speaks TLS by config. It returns what trusts its
// certificate, too.
func ListenTLS(t *testing.T, config *tls.Config, serve func(net.Conn)) (address string, pool *x509.CertPool) {
	t.Helper()
	server := resocktest.NewTLSServer(t)
	config.Certificates = server.TLS.Certificates
	return Listen(t, func(conn net.Conn) {
		secure := tls.Server(conn, config)
		_ = secure.Handshake()
		serve(secure)
	}), server.CertPool()
}
