package rig

import (
	"bytes"
	"compress/flate"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
)

// What the first byte of a frame is made of, for [resocktest.Frame].
const (
	Fin    = 0x80
	RSV1   = 0x40
	Text   = 1
	Binary = 2
)

// Secret stands in every place where a test puts something that must not be told:
// URL queries, user info, header values.
const Secret = "s3cr3t"

// WithSecrets returns the target with the secret in every place that it can have.
func WithSecrets(target string) string {
	return strings.Replace(target, "://", "://user:"+Secret+"@", 1) + "/path?token=" + Secret
}

// SecretHeader returns request headers with the secret.
func SecretHeader() http.Header {
	return http.Header{"Authorization": {"Bearer " + Secret}, "X-Token": {Secret}, "Cookie": {"session=" + Secret}}
}

// Virtual runs a test in virtual time, against a server in memory. When it returns,
// no goroutine may be left (synctest).
func Virtual(t *testing.T, test func(t *testing.T, s *resocktest.Server)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, resocktest.NewMemory(t)) })
}

// Reach is the option that lets a client reach s, by any URL.
func Reach(s *resocktest.Server) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: SecretHeader(), HTTPClient: s.Client()})
}

// ReachCompressed is [Reach] with an offer of compression.
func ReachCompressed(s *resocktest.Server) resock.Option {
	return resock.WithDialOptions(&websocket.DialOptions{HTTPClient: s.Client(), CompressionMode: websocket.CompressionNoContextTakeover})
}

// Compressed is [resocktest.Serve] on a server that accepts compression.
func Compressed(handler func(*resocktest.Conn)) resocktest.Step {
	return resocktest.Upgrade(http.Header{"Sec-Websocket-Extensions": {"permessage-deflate; server_no_context_takeover; client_no_context_takeover"}}, handler)
}

// Deflate returns the payload of a compressed message. A final one ends with a final
// block, as some servers send it.
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

// Flooding scripts a server whose first connections push so many messages and then
// end as drop says. The last one pushes once, and stays.
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

// Payloads returns the messages that a connection received, once all is quiet in
// virtual time.
func Payloads(c *resocktest.Conn) (all []string) {
	synctest.Wait()
	for _, m := range c.Received().Messages {
		all = append(all, string(m.Data))
	}
	return all
}

// Upgraded returns the response to a request to upgrade, for [resocktest.Answer].
func Upgraded(request *http.Request) []byte {
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return fmt.Appendf(nil, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
}

// Listen returns the address of a TCP server that leaves each connection to handle,
// and closes it then.
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

// LateUpgrade is a step that upgrades the connection after some time, reads nothing,
// and drops it after some more.
func LateUpgrade(after, life time.Duration) resocktest.Step {
	return resocktest.Answer(func(conn net.Conn, request *http.Request) {
		time.Sleep(after)
		_, _ = conn.Write(Upgraded(request))
		time.Sleep(life)
	})
}
