package resock_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/resock/resock"
)

// A server that sends our own request back gets no secret into an error.
func TestEchoedRequestIsNotTold(t *testing.T) {
	for _, prefix := range []string{"", "HTTP/1.1 200 OK\r\n"} {
		rig := startRig(t, withSecrets("ws://"+listen(t, func(conn net.Conn) {
			io.WriteString(conn, prefix)
			io.Copy(conn, conn)
		})), resock.WithMaxAttempts(1),
			resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: secretHeader()}))
		if fail := rig.fail(resock.PhaseUpgrade); strings.Contains(fail.Err.Error(), secret) {
			t.Errorf("%q: %v", prefix, fail.Err)
		}
	}
}

// A URL that cannot be dialed is not told as it is.
func TestBadURLIsNotTold(t *testing.T) {
	for _, bad := range []string{
		"ws://user:" + secret + "?x@host/push",
		"ws://user:" + secret + "#x@host/push",
		"ws://host:port?x=@" + secret,
		"user:" + secret + "@host/push",
		"https://user:" + secret + "@host/push?token=" + secret,
		"ws://host/\x7f?token=" + secret,
	} {
		if _, err := resock.New(bad); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("New(%q): %v", bad, err)
		}
	}
}
