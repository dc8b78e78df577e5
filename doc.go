// Package resock is a WebSocket client that stays connected: it dials, watches
// the connection with a heartbeat, reconnects with a capped exponential backoff,
// and reports everything as one ordered stream of events.
//
//	client, err := resock.New("wss://example.com/push")
//	if err != nil {
//		log.Fatal(err)
//	}
//	events := client.Subscribe(ctx) // register once, before Run
//	go client.Run(ctx)              // its error stays readable in client.Err()
//	for event := range events {     // ends when the client is closed for good
//		switch e := event.(type) {
//		case resock.OpenEvent:
//			log.Printf("open, session %d", e.Session)
//		case resock.MessageEvent:
//			log.Printf("push: %s", e.Data)
//		case resock.FailEvent:
//			log.Printf("fail: %v, next try in %v", e.Err, e.RetryIn)
//		case resock.CloseEvent:
//			log.Printf("close: %d %s", e.Code, e.Reason)
//		}
//	}
//
// Five names carry most programs: [New], [Client.Subscribe], [Client.Run],
// [Client.Send] and [Client.Close].
//
// # Events
//
// Every subscriber sees the same events, in the same order, on one channel:
//
//	stream  = { attempt } end-of-channel
//	attempt = Fail                    the attempt never opened (Session 0)
//	        | Open { Message } Fail   the session was lost, or the server broke the protocol
//	        | Open { Message } Close  one side began a closing handshake
//
// Sessions are numbered 1, 2, 3… Each [OpenEvent] is ended by exactly one
// [FailEvent] or [CloseEvent], whose Next tells what follows: [StateWaiting] with
// RetryIn, [StateConnecting], [StateOffline], [StateSuspended], or [StateClosed],
// after which the channel closes. A message that was received completely before a
// loss is delivered before the Fail; a truncated one never is.
//
// By default a slow subscriber slows the connection down, and with it all other
// subscribers: nothing is lost while the session lasts. [WithOverflow] drops the oldest
// messages instead, and counts them; [WithoutMessages] leaves messages out; [WithBuffer]
// sets how many events may wait. With nobody subscribed, events are discarded.
//
// [Client.Messages] is a loop over the messages alone, and the fastest way to receive
// them. [WithFilter] sees each message before all others do.
//
// # Those it serves
//
// The client never waits for its own life on those it serves. Any of its methods may be
// called, with any context, by the consumer of events, a handler, a filter or a hook.
//
//   - When a session is lost, what was received and not delivered waits for its
//     subscriber, about 256 KiB of it, and the client goes on. After [Client.Close],
//     [Client.Suspend] or at the session's age, it is read on to the server's close frame.
//     The next session reads nothing before the subscriber has caught up.
//   - Events besides messages never wait. For a subscriber that lets more than 64 of
//     them wait beside its buffer, whole attempts are left out, oldest first, and the
//     numbers in the events show it.
//   - While delivery is blocked on an open session, beats still go out, silence does not
//     count as the server's death, and on Linux and macOS the system finds a dead line.
//     [Stats] tells for how long delivery was blocked, and by whom.
//   - A handler or filter that does not return 1 s after its session's end is left behind:
//     the client reconnects without it. Hooks that overstay by 1 s are left behind, too:
//     the attempt fails, or the default answer holds, and the log names the hook.
//   - At the close timeout every waiting Send is settled, and the channels and
//     [Client.Done] are closed. [Client.Run] returns when the last handler or hook does.
//
// What waits for the client's own end or opening cannot come true inside of it: a hook
// that waits for Done, WaitOpen or Shutdown is left behind as any other.
//
// # Stopping
//
// [Client.Close] closes for good: what is queued is sent if a session is open, then
// the closing handshake, all within [WithCloseTimeout]. It only signals; to wait,
// range to the end of the events or receive from [Client.Done]. [Client.Shutdown]
// waits, and sends what is queued over a reconnect if need be. Cancelling the context of Run
// closes with code 1001 and does not send what is queued. While a session is open
// the last event is a [CloseEvent], while connecting a [FailEvent]; otherwise the
// channels just close. What a subscriber has not taken by the close timeout is
// discarded.
//
// # Liveness
//
// A ping goes out when nothing was received for 15 s, and a server that does not
// answer with any byte within 10 s is taken for dead ([WithHeartbeat]). Servers
// that want a message of their own as heartbeat get it by [WithHeartbeatMessage],
// and servers that promise traffic are watched by [WithIdleTimeout]. Only the time
// that the client waits for the network counts as silence: a slow subscriber never
// makes a healthy connection fail. [Session.SetHeartbeat] and [Session.SetIdleTimeout]
// obey a server that dictates its times.
//
// # Reconnecting
//
// After a failure the client waits for a time drawn uniformly from zero to a bound
// that starts at 500 ms and doubles up to 30 s ([WithBackoff]). A session that lasted
// 5 s restarts the backoff ([WithStableAfter]). [DefaultRetryPolicy] tells which
// failures are retried how; nothing ends it but [WithMaxAttempts], if set, and a
// server that closes five sessions in a row by the same protocol error.
// [WithRetryPolicy] and [WithBackoffPolicy] replace both parts.
//
// # Sending
//
// [Client.Send] waits for an open session and returns nil when the message was
// handed to the network. [Client.Enqueue] returns at once; queued messages survive
// reconnects and go out in order, within the bounds of [WithQueue]. A message is
// sent at most once: one that may have been sent gets [ErrMaybeSent] and is not
// repeated. Every other error is an [ErrNotSent], after which repeating is safe.
//
// [WithTTL] gives a message up in time, and [WithSession] binds it to the connection
// that it answers. [WithSendLimiter] keeps the pace that a server allows.
//
// A message that was sent has not arrived yet: [Client.Flush] waits until the server
// has read all that was sent before. That is not to say that it has understood. Where
// that matters, the server must acknowledge.
//
// # Control
//
// [WithEndpoint] gives each attempt its URL and headers: fresh tokens, failover,
// resume cursors. [WithOnOpen] registers with the server on every connection,
// before any queued message. [WithNetwork] keeps the client from dialing while
// there is no network, [Client.Suspend] while the application needs no connection
// and until [Client.Resume]; [Client.Reconnect] replaces the connection at once.
// [WithMaxSessionAge] does so before the server would, and [WithDialLimiter] shares
// one pace among many clients.
//
// # Advanced
//
// [WithMessageHandler] hands messages to a function on the reading goroutine,
// without a channel and without an allocation; [WithBorrowedData] makes Messages as
// free of garbage. [WithHTTPClient] sets proxy, TLS and
// dialer, [WithCompression] offers permessage-deflate, and [WithDialOptions] takes
// everything that coder/websocket's Dial does.
package resock
