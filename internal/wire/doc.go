// Package wire is the protocol of a WebSocket client after the handshake (RFC
// 6455, RFC 7692), over any transport: frames and their reassembly, UTF-8, limits,
// permessage-deflate, control frames, both halves of the closing handshake,
// coalesced writes, the write timeout, counters and liveness.
//
// It knows nothing of sessions, events or reconnecting. A [Conn] is started once,
// over one connection, and tells its [Owner] what it cannot decide itself. One
// goroutine reads it: [Conn.Next] returns messages by the burst, and in the end the
// reason, a [*Closed], a [*Violation] or a [*Lost]. Any goroutine may write to it.
//
// How it ends: Next has returned an error; [Conn.Close] does the rest of the
// closing handshake that the error calls for; [Conn.Kill] cuts the connection, from
// any goroutine; and when nobody uses it any more, [Conn.Release] gives back what it
// borrowed.
package wire
