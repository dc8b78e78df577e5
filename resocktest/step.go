package resocktest

import (
	"context"
	"net"
	"net/http"
)

// Step is what a [Server] does with one connection.
type Step struct {
	// dial takes the place of connecting, for who dials by Server.Client; nil
	// if the connection is accepted.
	dial func(ctx context.Context, closed <-chan struct{}) error
	// serve returns when the connection is over.
	serve func(*visit)
}

// Refuse refuses the connection. The client must dial by [Server.Client];
// otherwise the connection is accepted and reset.
func Refuse() Step {
	return Step{
		dial:  func(context.Context, <-chan struct{}) error { return errRefused },
		serve: func(v *visit) { v.link.reset() },
	}
}

// StallDial lets the dial hang until its context ends, as behind a firewall that
// drops everything. The client must dial by [Server.Client]; otherwise it is
// [StallTLS].
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

// StallTLS accepts the connection and says nothing, not even in a TLS handshake.
func StallTLS() Step { return Step{serve: (*visit).stall} }

// StallUpgrade reads the upgrade request and never answers.
func StallUpgrade() Step { return opened((*visit).stall) }

// Drop accepts the connection and closes it at once. To drop it after the
// upgrade, serve it by (*Conn).Drop.
func Drop() Step { return Step{serve: func(*visit) {}} }

// Status answers the upgrade request by a status, a header, which may be nil, and
// a body.
func Status(code int, header http.Header, body string) Step {
	return opened(func(v *visit) { _ = v.respond(code, header, body) })
}

// Answer lets answer do what it likes with the connection after the upgrade
// request was read: garbage, headers byte by byte. It must return when the
// connection fails, which is closed then.
func Answer(answer func(conn net.Conn, request *http.Request)) Step {
	return opened(func(v *visit) { answer(v.stream, v.request) })
}

// Hold upgrades the connection and leaves it to the test: see [Server.Accept].
func Hold() Step { return Upgrade(nil, nil) }

// Echo upgrades the connection and sends every message back.
func Echo() Step { return Serve((*Conn).Echo) }

// Serve upgrades the connection and calls handler, on a goroutine of its own.
// The connection goes on when handler has returned; handler must return when the
// connection has ended.
func Serve(handler func(*Conn)) Step { return Upgrade(nil, handler) }

// Upgrade is Serve with headers of its own in the response, such as
// Sec-WebSocket-Protocol. They replace those that a server has to send; one
// without values is left out. A nil handler is [Hold].
func Upgrade(header http.Header, handler func(*Conn)) Step {
	return opened(func(v *visit) { v.upgrade(header, handler) })
}

// opened is a step that begins with the request.
func opened(serve func(*visit)) Step {
	return Step{serve: func(v *visit) {
		if v.open() == nil {
			serve(v)
		}
	}}
}
