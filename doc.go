// Package resock is a WebSocket client that stays connected: it dials, checks
// the connection with a heartbeat, reconnects with capped exponential backoff and
// full jitter, and reports everything as one ordered stream of events.
//
//	client, err := resock.New("wss://example.com/push")
//	if err != nil {
//		log.Fatal(err)
//	}
//	events := client.Subscribe(ctx) // register once, before Run
//	go client.Run(ctx)              // its error stays readable in client.Err()
//	for event := range events {     // ends when the client is closed for good, or ctx ends
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
// Most programs need only five names: [New], [Client.Subscribe], [Client.Run],
// [Client.Send] and [Client.Close].
//
// # Events
//
// Every subscriber sees the same events, in the same order, on its own channel:
//
//	stream  = { attempt } end-of-channel
//	attempt = Fail                    the attempt never opened (Session 0)
//	        | Open { Message } Fail   the session was lost, or the server broke the protocol
//	        | Open { Message } Close  one side began a closing handshake
//
// Sessions are numbered 1, 2, 3… Exactly one [FailEvent] or [CloseEvent] follows each
// [OpenEvent], and its Next field tells what comes next: [StateWaiting] with RetryIn,
// [StateConnecting], [StateOffline], [StateSuspended], or [StateClosed], after which
// the channel closes. A message that was received completely before the connection
// was lost is delivered before the FailEvent; an incomplete one is never delivered.
//
// By default a slow subscriber exerts backpressure on the connection, and so delays
// all other subscribers: while the session lasts, no message is lost. [WithOverflow]
// drops the oldest messages instead and counts them, [WithoutMessages] leaves messages
// out, and [WithBuffer] sets how many events may be buffered. Without a subscriber,
// events are discarded.
//
// [Client.Messages] is a loop over messages alone, and the fastest way to receive
// them. [WithFilter] sees each message before any subscriber does.
//
// # Slow subscribers and hooks
//
// No subscriber, handler, filter or hook can keep the client from reconnecting or
// closing. All of them may call any method of the client, with any context.
//
//   - When a session is lost, the messages that were received but not delivered wait
//     for their subscriber, about 256 KiB of them, and the client reconnects. It reads
//     nothing from the next session until the subscriber has caught up. When the client
//     itself closes a session ([Client.Close], [Client.Suspend], [WithMaxSessionAge]),
//     it goes on reading up to the server's close frame.
//   - Events other than messages never block delivery. A subscriber that leaves more
//     than 64 of them unread, beyond its buffer, misses whole attempts, oldest first;
//     the numbers in the events show the gap.
//   - While delivery is blocked on an open session nothing is read: a ping of the server
//     gets its pong, and a close frame is seen, only when the subscriber reads on. A
//     server that insists on pongs may cut the connection before that; a larger buffer
//     or [OverflowDropOldest] keeps it.
//   - Heartbeats are still sent then. Silence does not count against the server, but on
//     Linux and macOS the operating system detects a dead connection, with the defaults
//     within about a minute ([WithHeartbeat]). [Stats] tells for how long delivery was
//     blocked, and by whom.
//   - The client stops waiting for a handler or filter that has not returned 1 s after
//     the end of its session, and reconnects. It abandons a hook likewise, 1 s after the
//     hook's context ended or, if it has none, after the call: the attempt fails, or the
//     default decides, and the log names the hook.
//   - By the end of the close timeout every pending Send has returned, and the channels
//     and [Client.Done] are closed. [Client.Run] returns once all handlers and hooks
//     have returned.
//
// A hook that waits for the client to open or to end, with Done, WaitOpen or Shutdown,
// waits in vain, since the client waits for the hook; it is abandoned like any other.
//
// # Stopping
//
// [Client.Close] closes the client for good: if a session is open, it sends what is
// queued and then performs the closing handshake, all within [WithCloseTimeout]. Close
// does not wait; to do so, range to the end of the events or receive from
// [Client.Done]. [Client.Shutdown] waits, and reconnects if it has to in order to send
// what is queued. Canceling the context of Run closes with code 1001 and does not send
// what is queued. The last event is a [CloseEvent] if a session was open and a
// [FailEvent] if the client was connecting; otherwise the channels just close. Events
// that a subscriber has not received by the end of the close timeout are discarded.
//
// # Liveness
//
// The client sends a ping every 15 s, and considers the connection dead if not a single
// byte arrives within the next 10 s ([WithHeartbeat]). For servers that expect a heartbeat
// message of their own there is [WithHeartbeatMessage]; if the server promises regular
// messages, [WithIdleTimeout] holds it to that. Only time spent waiting for the network
// counts as silence, so the client never takes a server for dead because of a slow
// subscriber, and a write may take any time as long as the network takes some bytes
// ([WithWriteTimeout]). [Stats] has the time of the last message. [Session.SetHeartbeat]
// and [Session.SetIdleTimeout] are for servers that announce these intervals.
//
// # Reconnecting
//
// After a failure the client waits for a random time between zero and a bound that
// starts at 500 ms and doubles up to 30 s ([WithBackoff]), or longer if the server asks for
// it. A session of at least 5 s resets the backoff ([WithStableAfter]).
// [DefaultRetryPolicy] documents which failures are retried, and how fast. By default the
// client never gives up; [WithMaxAttempts] sets a limit. [WithRetryPolicy] replaces the
// policy, [WithBackoffPolicy] the delays.
//
// An endpoint or OnOpen hook that returns backoff.Permanent(err) ends the client at
// once, whatever the policy says. The Rule of a [FailEvent] or [CloseEvent] tells what
// decided; it is empty after something that the application asked for.
//
// # Sending
//
// [Client.Send] waits for an open session and returns nil once the message was handed
// to the network. [Client.Enqueue] returns at once; queued messages survive reconnects
// and are sent in order, within the bounds of [WithQueue]. A message is sent at most
// once: if it may have been sent, the error is [ErrMaybeSent], and the client does not
// repeat it. Any other error is an [ErrNotSent], after which it is safe to send again.
//
// [WithTTL] limits how long a message may wait, and [WithSession] binds it to the
// connection that it answers. [WithSendLimiter] keeps to the server's rate limit.
//
// A message that was sent has not necessarily arrived: [Client.Flush] waits until the
// server has read everything sent before. Whether it has processed a message, only an
// acknowledgement by the server can tell.
//
// # Control
//
// [WithEndpoint] supplies the URL, headers, subprotocols and Host of each attempt:
// fresh tokens, failover, resume cursors. [WithOnOpen] runs on every new connection
// before any queued message, to register with the server. [WithNetwork] keeps the
// client from dialing while there is no network, and [Client.Suspend] while the
// application needs no connection, until [Client.Resume]. [Client.Reconnect] replaces
// the connection at once, and [WithMaxSessionAge] before the server would cut it; what
// is asked for is remembered in every state. [WithDialLimiter] limits the rate at which
// many clients dial.
//
// # Advanced
//
// [WithMessageHandler] passes messages to a function on the reading goroutine, without
// a channel and without allocating; [WithBorrowedData] makes Messages free of garbage,
// too. [WithHTTPClient] sets proxy, TLS and dialer, [WithCompression] offers
// permessage-deflate, and [WithDialOptions] accepts all options of coder/websocket's
// Dial.
package resock
