// Package relay reads one WebSocket feed for several replicas of a service, and writes what
// it brings to a stream of NATS JetStream, in order. One replica holds a lease and reads; the
// others stand by, and one of them takes over when it dies.
//
//	err := relay.Run(ctx, relay.Config{
//		Conn: conn, // of nats.go
//		Name: "ticks",
//		URL:  "wss://example.com/push",
//		Read: func(m resock.MessageEvent, found *resume.Found) { … }, // of package resume
//		Options: func(feed *resume.Feed) []resock.Option {
//			return []resock.Option{resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
//				return subscribe(ctx, s, feed.Cursors())
//			})}
//		},
//	})
//
// # The stream
//
// A message has the subject NAME.msg.TOPIC, and its headers tell the term, the session and
// the position (see the constants). What is missing is a record at NAME.gap in its place; a
// record at NAME.term says where the feed was when a term began, and from time to time
// after that. Nobody else may write to the stream.
//
// # Why an old leader cannot write
//
// A leader has one request under way: a message, or a batch that the server stores whole or
// not at all. It names the last sequence of the stream, and the server refuses it if that is
// another. A new leader first reads the stream to its end and then writes a record of its
// own, so what an old leader has under way follows nothing any more.
package relay
