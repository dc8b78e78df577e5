// Package wire implements the client side of the WebSocket protocol after the
// opening handshake (RFC 6455, RFC 7692), over any transport: framing, reassembly of
// fragmented messages, UTF-8 validation, the read limit, permessage-deflate, control
// frames, the closing handshake, coalesced writes, the write timeout, counters and
// liveness.
//
// It knows nothing of sessions, events or reconnecting. A [Conn] is started once, on
// one transport, and leaves to its [Owner] what the protocol does not decide. One
// goroutine reads: [Conn.Next] returns messages in bursts, and finally the reason why
// reading ended, which is a [*Closed], a [*Violation] or a [*Lost]. Any goroutine may
// write.
//
// A connection ends in four steps. Next returns an error. [Conn.Close] finishes the
// closing handshake, if the error calls for one. [Conn.Kill] cuts the connection; any
// goroutine may call it, at any time. When nothing uses the connection any more,
// [Conn.Release] returns pooled memory.
package wire
