package resock_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
)

// A server that sends our own request back gets no secret into an error.
func TestEchoedRequestIsNotTold(t *testing.T) {
	for _, prefix := range []string{"", "HTTP/1.1 200 OK\r\n"} {
		client := rig.Quick(t, rig.WithSecrets("ws://"+rig.Listen(t, func(conn net.Conn) {
			io.WriteString(conn, prefix)
			io.Copy(conn, conn)
		})), resock.WithMaxAttempts(1),
			resock.WithDialOptions(&websocket.DialOptions{HTTPHeader: rig.SecretHeader()}))
		if fail := client.Fail(resock.PhaseUpgrade); strings.Contains(fail.Err.Error(), rig.Secret) {
			t.Errorf("%q: %v", prefix, fail.Err)
		}
	}
}

// A URL that cannot be dialed is not told as it is.
func TestBadURLIsNotTold(t *testing.T) {
	for _, bad := range []string{
		"ws://user:" + rig.Secret + "?x@host/push",
		"ws://user:" + rig.Secret + "#x@host/push",
		"ws://host:port?x=@" + rig.Secret,
		"user:" + rig.Secret + "@host/push",
		"https://user:" + rig.Secret + "@host/push?token=" + rig.Secret,
		"ws://host/\x7f?token=" + rig.Secret,
	} {
		if _, err := resock.New(bad); err == nil || strings.Contains(err.Error(), rig.Secret) {
			t.Errorf("New(%q): %v", bad, err)
		}
	}
}
