// Package debug serves a page that shows what the clients of a program do, in the manner
// of expvar and net/http/pprof: state, a timeline of sessions and outages, traffic, queue,
// who blocks delivery, and how the last attempts ended. The page updates itself.
//
//	var page debug.Handler
//
//	remove, err := page.Add("prices", client) // a name of your own
//	…
//	http.Handle("/debug/resock", &page)
//
// Clients are registered by hand, and stay on the page, closed ones too, until they are
// removed. The handler may be mounted at any path, behind [http.StripPrefix] and reverse
// proxies: all links of the page are relative to it.
//
// # Security
//
// Mount it where only those can reach it who may see it: behind authentication, or on a
// listener of its own. Nothing on the page changes anything, and what the library redacts
// is redacted here, too. But names, hosts, close reasons and the errors of hooks are shown
// as they are. All of them are shown as text, whatever they contain; the page loads nothing
// from elsewhere, and its Content-Security-Policy allows no other script than its own.
//
// # JSON
//
// With ?json the handler answers with an object for machines. Fields may be added; those
// there are keep their names and meanings. Times are those of RFC 3339, durations are
// seconds, and counters begin at [resock.New]. What does not apply is left out.
//
//	time              when this was true
//	clients           a list, sorted by name
//	  name            as registered
//	  state, since    as resock.State and resock.Stats have it
//	  url             of the last session, secrets redacted
//	  subprotocol     of the last session
//	  session         number of the last session, 0 if there was none
//	  attempts        attempts begun
//	  fails           attempts and sessions that failed
//	  nextAttempt     when the next attempt is due, while waiting
//	  downtime        in all, after the first session
//	  messagesIn, messagesOut, bytesIn, bytesOut
//	  rates           per second: over (so many seconds), messagesIn, messagesOut, bytesIn, bytesOut
//	  queued, queuedBytes
//	  dropped         messages that slow subscribers were not given
//	  roundTrip       of the last ping that was answered
//	  lastMessage     when it came
//	  blocked         for how long delivery was blocked, in all
//	  blockedSince    if it is blocked now
//	  blockedBy       by whom: a label, for example
//	  lastError       the last failure, whatever came after it
//	  err             what Run returned
//	  timeline        the oldest first:
//	    state         connecting, open, waiting, offline, suspended, idle or closed
//	    start, end    the last one has no end
//	    session       if state is open
//	    failures      1 if it failed; more if several attempts of one outage became one span
//	    phase, error, code, reason, rule
//	                  how it ended
//	  ends            of attempts and sessions, the newest first:
//	    time, session, attempt, phase, error, code, reason, clean, took, next, retryIn, rule
//	                  as in resock.FailEvent and resock.CloseEvent
//
// Rates are the difference between two requests, or two updates of a page, that are at
// least a second apart; over says how far.
//
// # Cost
//
// A registered client has one goroutine, which sleeps between events; nothing happens per
// message. Up to 200 spans and 20 ends are remembered, with texts of at most 512 bytes:
// about 40 KiB for a client that reconnects all day, and at most 250 KiB if each of its
// attempts fails with another long error. When there are more, the attempts of old outages
// become one span each, and then the oldest sessions are forgotten. If a client does
// more than its subscription holds at once, what it misses is missing here.
//
// An open page is one request that does not end, and looks at all clients once a second,
// and up to four times when something happens. It is told only of clients that changed. A
// Handler serves 32 of them at a time; a browser that is in the background has none. A
// reader that takes nothing for 10 s is cut off, and [http.Server.Shutdown] ends all.
package debug
