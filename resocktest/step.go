package resocktest

import (
	"context"
	"net"
	"net/http"
)

// Step is what a [Server] does with one connection.
type Step struct {
	// dial replaces connecting for a client that dials with Server.Client. It is
	// nil if the connection is accepted.
	dial func(ctx context.Context, closed <-chan struct{}) error
	// serve returns at the end of the connection.
	serve func(*visit)
}

// Refuse refuses the connection. That requires a client that dials with
// [Server.Client]; for any other, the connection is accepted and reset.
func Refuse() Step {
	return Step{
		dial:  func(context.Context, <-chan struct{}) error { return errRefused },
		serve: func(v *visit) { v.link.reset() },
	}
}

// StallDial makes the dial hang until its context ends, as behind a firewall that drops
// all packets. That requires a client that dials with [Server.Client]; for any other
// it is [StallTLS].
func StallDial() Step {
	return Step{
		dial: func(ctx context.Context, closed <-chan struct{}) error {
			select {
			case <-ctx.Done():
				return dialError(ctx.Err())
			case <-closed:
				return dialError(net.ErrClosed)
			}
		},
		serve: (*visit).stall,
	}
}

// StallTLS accepts the connection and never sends a byte, not even for a TLS handshake.
func StallTLS() Step { return Step{serve: (*visit).stall} }

// StallUpgrade reads the upgrade request and never answers.
func StallUpgrade() Step { return opened((*visit).stall) }

// Drop accepts the connection and closes it at once. To drop it after the upgrade, use
// Serve((*Conn).Drop).
func Drop() Step { return Step{serve: func(*visit) {}} }

// Status answers the upgrade request with a status, a header and a body, and closes the
// connection. The header may be nil.
func Status(code int, header http.Header, body string) Step {
	return opened(func(v *visit) { _ = v.respond(code, header, body) })
}

// Answer passes the connection to answer once the upgrade request is read, to send
// garbage, say, or a response byte by byte. answer must return when the connection
// fails. The connection is closed when it returns.
func Answer(answer func(conn net.Conn, request *http.Request)) Step {
	return opened(func(v *visit) { answer(v.stream, v.request) })
}

// Hold upgrades the connection and leaves it to the test: see [Server.Accept].
func Hold() Step { return Upgrade(nil, nil) }

// Echo upgrades the connection and sends every message back.
func Echo() Step { return Serve((*Conn).Echo) }

// Serve upgrades the connection and calls handler on a new goroutine. The connection
// stays open when handler returns; handler must return when the connection ends.
func Serve(handler func(*Conn)) Step { return Upgrade(nil, handler) }

// Upgrade is [Serve] with additional headers in the response, such as
// Sec-WebSocket-Protocol. They replace the required headers of the same name; a header
// without values removes it. With a nil handler, the connection is left to the test, as
// by [Hold].
func Upgrade(header http.Header, handler func(*Conn)) Step {
	return opened(func(v *visit) { v.upgrade(header, handler) })
}

// opened returns a step that reads the upgrade request before serve is called.
func opened(serve func(*visit)) Step {
	return Step{serve: func(v *visit) {
		if v.open() == nil {
			serve(v)
		}
	}}
}
