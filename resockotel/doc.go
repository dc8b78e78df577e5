// Package resockotel tells OpenTelemetry what the clients of a program do, by metrics and
// traces.
//
//	telemetry, err := resockotel.New() // the global providers
//	…
//	remove, err := telemetry.Add("prices", client) // a name of your own
//
// All metrics and spans have the attribute resock.client.name, the name given to
// [Instrumentation.Add].
//
// # Metrics
//
// Counters begin at [resock.New], except for those by phase and by class, which begin at
// Add.
//
//	resock.state                        {client}   updowncounter  1 for the state it is in, 0 for the others: resock.state
//	resock.state_change.timestamp       s          gauge          when that state began, in Unix time
//	resock.attempts                     {attempt}  counter        attempts to connect that began
//	resock.sessions.opened              {session}  counter        sessions opened: also the number of the last one
//	resock.attempt.failures             {attempt}  counter        attempts that failed: resock.phase
//	resock.session.failures             {session}  counter        sessions that were lost: resock.phase
//	resock.session.closes               {session}  counter        sessions that ended by a closing handshake: resock.close.class
//	resock.downtime                     s          counter        time without a session, after the first one
//	resock.messages                     {message}  counter        network.io.direction: receive, transmit
//	resock.traffic                      By         counter        in frames, without the handshake and TLS: network.io.direction
//	resock.queue.messages               {message}  updowncounter  messages that wait to be sent
//	resock.queue.size                   By         updowncounter  and their size
//	resock.dropped_messages             {message}  counter        messages that slow subscribers were not given
//	resock.blocked                      {client}   updowncounter  1 while delivery waits for the application
//	resock.blocked_time                 s          counter        for how long it did
//	resock.round_trip                   s          gauge          of the last ping that was answered
//	resock.last_message.timestamp       s          gauge          when the last message came, in Unix time
//
// The last two are missing until there is such a ping or message. A phase is one of
// [resock.Phase] in lower case. A class of close codes is 1000, 1001, 1005, 1008, 1011, 1012,
// 1013, or 1xxx, 3xxx, 4xxx and other for all else.
//
// A client has 44 attribute sets, whatever it meets. The SDK keeps 2,000 for each metric,
// unless its provider has another limit, and resock.session.closes has 11 for each client:
// with more than 180 clients, raise it (WithCardinalityLimit).
//
// # Traces
//
// Each attempt is a span, resock.attempt, and so is each session, resock.session. Each is a
// trace of its own, since a session may last for weeks, and links to the other. A span is
// exported when it ends; a message makes none. Their attributes, beside those of the
// semantic conventions (server.address, server.port, url.full with secrets redacted,
// network.protocol.name, error.type, http.response.status_code, network.peer.address,
// network.peer.port):
//
//	resock.attempt.number             which attempt in a row, from 1
//	resock.session.number             1, 2, 3…; not if the attempt failed
//	resock.phase                      the part that failed
//	resock.rule, resock.next          what decided on the next state, and which that is
//	resock.retry_in                   seconds, if it is waiting
//	resock.close.code, .reason, .clean
//	                                  of the closing handshake
//	resock.session.messages_received, .messages_sent, .bytes_received, .bytes_sent
//	                                  during the session, OnOpen included
//
// The attributes of the server are missing from an attempt that failed, except for the
// address of the peer, if the error has one: the event of a failure does not tell them.
//
// A failure has the status Error, with the error as its description, unless the
// application ended the attempt. A close has that status if the application did not ask
// for it and its code is none of 1000, 1001, 1005, 1012 and 1013. error.type is the HTTP
// status, the close code, "timeout", or the phase.
//
// The span of a session has up to two events, at its end: resock.dropped, with
// resock.dropped.messages, and resock.blocked, if delivery was blocked for 1 s or longer,
// with resock.blocked.duration in seconds, and resock.blocked.by if it is blocked still.
//
// Sums are the difference of two [resock.Stats], taken when the events of the ends arrived:
// if the tracer makes its caller wait, the next session may be in them. What a session did
// before Add is not.
//
// # Cost
//
// Nothing happens per message. A registered client has one goroutine, which sleeps between
// the events of its connection and runs the tracer; a collection calls
// [resock.Client.Stats] once for each client, and takes about 50 µs for it. A span processor that blocks delays this
// goroutine alone. If it misses more events than its subscription holds, whole attempts and
// sessions are missing here.
package resockotel
