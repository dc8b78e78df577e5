// Package relay reads one WebSocket feed for several replicas of a service, and writes what
// it brings to a stream of NATS JetStream, in order. One replica holds a lease and reads; the
// others stand by, and one of them takes over when it dies.
//
//	err := relay.Run(ctx, relay.Config{
//		Conn: conn, // of nats.go
//		Name: "ticks",
//		URL:  "wss://example.com/push",
//		Log:  slog.Default(),
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
// the position (see the constants). A record at NAME.term says where the feed was when a
// term began, and from time to time after that. Nobody else may write to the stream.
//
// A term is the time in which one replica holds the lease. Terms are numbered upwards, with
// holes: the number is a revision of the lease.
//
// # Gaps
//
// What is missing is a record at NAME.gap in its place: a [Gap] as JSON. With [Config.Read],
// and hooks in [Config.Options] that ask the feed for what came since, each session goes on
// where the stream ends. Then there is a gap only if the server of the feed no longer has
// all of that. Without Read nobody knows what came between two sessions, so each session but
// the first begins with a gap.
//
// # When JetStream is slow or away
//
// Up to [Config.Unacknowledged] messages and [Config.MaxBytes] wait for JetStream. After
// that, [Config.Overflow] decides: [Wait] stops reading the feed, [Drop] drops messages and
// writes a gap. A leader that cannot renew its lease within [Config.TTL] ends its term.
//
// # Standby
//
// By default a replica that stands by does not connect to the feed. With [Config.Standby] it
// reads along and keeps the latest messages. When it becomes the leader it writes those that
// are not in the stream yet, so nothing is missing even if the server of the feed keeps no
// history. If what it kept does not reach back to the end of the stream, it begins a new
// session, as a replica without Standby does.
//
// # The way back
//
// With [Config.Out], what any process publishes to NAME.out.ANYTHING goes to the server of
// the feed, at least once and in order. JetStream keeps a message in the stream NAME-out
// until that server has acknowledged or refused it.
//
// # Why an old leader cannot write
//
// A leader has one request under way: a message, or a batch that the server stores whole or
// not at all. It names the last sequence of the stream, and the server refuses it if that is
// another. A new leader first reads the stream to its end and then writes a record of its
// own, so what an old leader has under way follows nothing any more.
package relay
