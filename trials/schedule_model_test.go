package trials

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/resocktest"
)

// opening is one session, as its subscribers saw it.
type opening struct {
	open     resock.OpenEvent
	usedFrom time.Time    // when messages may have begun to go out on it
	end      resock.Event // nil if nobody received it
	endAt    time.Time
	peer     *serverSide
	consumed int // messages that OnOpen received
	messages int // messages delivered, including those
	before   int // messages of all earlier sessions
}

// model is what is known about a trial after its end.
type model struct {
	*trial
	endedAt  time.Time // when the client was told to end, or gave up
	aborted  bool      // whether the close timeout expired
	received map[int]int
	sessions []*opening
	byPath   map[int]*opening
}

// check compares a finished trial with what is allowed.
func (tr *trial) check() {
	m := &model{
		trial:    tr,
		endedAt:  tr.stopped,
		received: map[int]int{},
		byPath:   map[int]*opening{},
	}
	switch last := tr.lastEvent(); {
	case m.gaveUp() != nil && last != nil && nextOf(last) == resock.StateClosed:
		m.endedAt = timeOf(last)
	case m.gaveUp() != nil: // the last event was discarded
		m.endedAt = tr.doneAt.Add(-tr.closeIn)
	case !tr.byClose && tr.ranAt.After(tr.stopped):
		m.endedAt = tr.ranAt // a context that ended before Run is noticed then
	}
	if m.shutDown() { // when it began to close, and whether that was in time, is not known
		m.endedAt = tr.doneAt
	}
	m.aborted = m.shutDown() || tr.doneAt.Sub(m.endedAt) >= tr.closeIn
	m.checkEnd()
	m.checkAttempts()
	m.collectSessions()
	m.countMessages()
	for i, r := range tr.readers {
		if name := fmt.Sprint("subscriber ", i); r.stream {
			m.checkStream(name, r)
		} else {
			m.checkReader(name, r)
		}
	}
	m.checkHandled()
	m.checkSessions()
	m.checkHandovers()
	m.checkReceived()
	for _, p := range tr.parcels {
		m.checkOutcome(p)
	}
	for _, c := range tr.flushes {
		m.checkCover(c)
	}
	m.checkStats()
}

// shutDown reports whether Shutdown may have closed the client.
func (m *model) shutDown() bool {
	return !m.sealed.IsZero() && m.gaveUp() == nil && (m.stopped.IsZero() || m.doneAt.Before(m.stopped) || m.result == nil)
}

// checkCover checks that a Flush or a Shutdown that returned nil has waited for the
// messages of c.
func (m *model) checkCover(c *cover) {
	if c.name == "Flush" && slices.ContainsFunc(m.sessions, func(o *opening) bool { return o.endAt.Equal(c.at) }) {
		return // the session that took them may have been lost before the call
	}
	for _, p := range c.parcels {
		switch {
		case c.name == "Flush" && errors.Is(p.err, resock.ErrMaybeSent):
			m.t.Errorf("Flush returned nil, but the outcome of message %d is ErrMaybeSent", p.id)
		case c.name == "Flush" && p.err == nil && m.received[p.id] == 0:
			m.t.Errorf("Flush returned nil, but message %d was not received", p.id)
		case c.name == "Shutdown" && p.settled.Equal(c.at): // perhaps settled before the call, and told after it
		case c.name == "Shutdown" && errors.Is(p.err, resock.ErrNotSent):
			m.t.Errorf("Shutdown returned nil, but the outcome of message %d is %v", p.id, p.err)
		}
	}
}

// checkEnd checks when and how the client closed.
func (m *model) checkEnd() {
	gaveUp := m.gaveUp()
	switch err := m.result; {
	case gaveUp != nil:
		if m.attempts == 0 && (m.revoked == 0 || gaveUp.Rule != "permanent") {
			m.t.Errorf("the client gave up without a reason: %v", err)
		}
		if m.attempts > 0 && gaveUp.Attempts > m.attempts {
			m.t.Errorf("the client gave up after %d attempts, want at most %d", gaveUp.Attempts, m.attempts)
		}
		if last := m.lastEvent(); last != nil && nextOf(last) == resock.StateClosed && ruleOf(last) != gaveUp.Rule {
			m.t.Errorf("the client gave up by %q, and the last event tells %q", gaveUp.Rule, ruleOf(last))
		}
	case err == nil && (m.closed || !m.sealed.IsZero()):
	case errors.Is(err, context.Canceled) && m.canceled:
	default:
		m.t.Errorf("Run: got %v; closed %t, canceled %t", err, m.closed, m.canceled)
	}
	if took := m.doneAt.Sub(m.endedAt); took > m.closeIn {
		m.t.Errorf("closing took %v, want at most the close timeout of %v", took, m.closeIn)
	}
	if err := m.client.Err(); err != m.result {
		m.t.Errorf("Err: got %v, want %v, as from Run", err, m.result)
	}
	if state := m.client.State(); state != resock.StateClosed {
		m.t.Errorf("state %v at the end, want closed", state)
	}
	if err := m.client.Enqueue(resock.MessageText, nil); err != resock.ErrClosed {
		m.t.Errorf("Enqueue on a closed client: got %v, want ErrClosed", err)
	}
	if err := m.client.Send(context.Background(), resock.MessageText, nil); err != resock.ErrClosed {
		m.t.Errorf("Send on a closed client: got %v, want ErrClosed", err)
	}
	for event := range new(grammar.Checker).All(m.t, m.client.Subscribe(context.Background())) {
		m.t.Errorf("a closed client: got %+v, want no event", event)
	}
}

// gaveUp returns why the client gave up, or nil.
func (m *model) gaveUp() (err *resock.GiveUpError) {
	errors.As(m.result, &err)
	return err
}

// mostAttempts is how many attempts fit into twice the initial backoff. The sum of that
// many delays, each uniform in [0, initial], is smaller only once in 10¹² runs.
const mostAttempts = 20

// checkAttempts checks that the client does not flood the server, and does not dial when
// it must not.
func (m *model) checkAttempts() {
	attempts := m.server.Attempts()
	if most := mostAttempts + m.resumes; len(attempts) > most {
		for i := most; i < len(attempts); i++ {
			if took := attempts[i].Time.Sub(attempts[i-most].Time); took < 2*m.initial {
				m.t.Errorf("%d attempts in %v, too many for an initial backoff of %v", most+1, took, m.initial)
				break
			}
		}
	}
	for why := range m.holding {
		m.unhold(why)
	}
	for _, held := range m.held {
		for _, attempt := range attempts {
			if attempt.Time.After(held.from.Add(m.delay)) && attempt.Time.Before(held.to) {
				m.t.Errorf("an attempt began %v after the client was told not to dial", attempt.Time.Sub(held.from))
			}
		}
	}
}

// collectSessions learns from the subscribers which sessions there were: from the first
// one, or from another one if the first missed the end.
func (m *model) collectSessions() {
	peers := map[int]*serverSide{}
	for _, p := range m.peers {
		peers[p.dial] = p
	}
	for _, r := range m.readers {
		for _, event := range r.events {
			if open, ok := event.(resock.OpenEvent); ok && open.Session == uint64(len(m.sessions)+1) {
				m.opened(open, peers[dialOf(open.URL)])
			} else if o := m.ended(event); o != nil {
				o.end, o.endAt = event, timeOf(event)
			}
		}
	}
}

func (m *model) opened(e resock.OpenEvent, p *serverSide) {
	if p == nil {
		m.t.Fatalf("the server has no connection for session %d, %s", e.Session, e.URL)
	}
	if m.byPath[p.dial] != nil {
		m.t.Errorf("session %d is on the connection of another session", e.Session)
	}
	consumed := m.consumed[e.Session]
	o := &opening{open: e, usedFrom: e.Time, endAt: m.doneAt, peer: p, consumed: consumed, messages: consumed}
	m.byPath[p.dial] = o
	if n := len(m.sessions); m.overlap > 0 && n > 0 {
		o.usedFrom = m.sessions[n-1].open.Time
	}
	m.sessions = append(m.sessions, o)
}

// countMessages learns how many messages were delivered in each session: as many as any
// subscriber received.
func (m *model) countMessages() {
	note := func(data []byte) {
		kind, dial, number, err := unpack(data)
		o := m.byPath[dial]
		switch {
		case err != nil:
			m.t.Error("delivered: ", err)
		case kind != 'p' || number < 1 || o == nil:
			m.t.Errorf("delivered: message %c %d of dial %d, on which no session opened", kind, number, dial)
		case number > o.peer.pushed:
			m.t.Errorf("delivered: message %d of session %d, but only %d were sent before its end", number, o.open.Session, o.peer.pushed)
		default:
			o.messages = max(o.messages, number)
		}
	}
	for _, r := range m.readers {
		for _, event := range r.events {
			if message, ok := event.(resock.MessageEvent); ok {
				note(message.Data)
			}
		}
	}
	for _, data := range m.handled {
		note(data)
	}
	for i := 1; i < len(m.sessions); i++ {
		previous := m.sessions[i-1]
		m.sessions[i].before = previous.before + previous.messages - previous.consumed
	}
}

// place returns the place of a message among all those delivered, counted from 1.
func (m *model) place(data []byte) (place int, session uint64) {
	_, dial, number, _ := unpack(data)
	o := m.byPath[dial]
	if o == nil {
		return 0, 0
	}
	return o.before + number - o.consumed, o.open.Session
}

// checkReader checks what one subscriber received.
func (m *model) checkReader(name string, r *reader) {
	behind := r.slow() // it may have missed whole attempts
	checker := grammar.Checker{Late: r.late, Cut: r.left || m.aborted, Behind: behind}
	at, known := 0, !r.late // the place of its last message
	opened := uint64(0)     // the last session that it saw
	var life []string
	for _, event := range r.events {
		if err := checker.Event(event); err != nil {
			m.t.Errorf("%s: %v", name, err)
		}
		e, ok := event.(resock.MessageEvent)
		if !ok {
			life = append(life, identity(event))
			if open, ok := event.(resock.OpenEvent); ok {
				if r.drop && open.Session > opened+1 { // whole sessions are missing, and what they lost
					known = false
				}
				opened = open.Session
			}
			if o := m.ended(event); o != nil {
				if all := o.before + o.messages - o.consumed; !r.silent && !m.handler {
					none := behind && o.messages == o.consumed  // no message could report what was missed
					if known && at != all && !none && !r.drop { // losses are reported within their session only
						m.t.Errorf("%s: session %d ended after message %d, want %d", name, o.open.Session, at, all)
					}
					if !none || r.drop { // else the next message reports what was missed
						at, known = all, true
					}
				}
			}
			continue
		}
		place, session := m.place(e.Data)
		switch {
		case m.handler || r.silent:
			m.t.Errorf("%s: a message, unwanted", name)
		case e.Session != session:
			m.t.Errorf("%s: message %d of session %d in session %d", name, place, session, e.Session)
		case !r.drop && !behind && e.Lost != 0:
			m.t.Errorf("%s: %d messages reported lost, want none", name, e.Lost)
		case known && place != at+int(e.Lost)+1:
			m.t.Errorf("%s: message %d, %d reported lost before it, came after message %d", name, place, e.Lost, at)
		}
		at, known = place, true
	}
	if err := checker.End(); err != nil {
		m.t.Errorf("%s: %v", name, err)
	}
	m.checkLife(name, r, life)
}

// ended returns the session that event ends, or nil.
func (m *model) ended(event resock.Event) *opening {
	var session uint64
	switch e := event.(type) {
	case resock.FailEvent:
		session = e.Session
	case resock.CloseEvent:
		session = e.Session
	}
	if session == 0 || session > uint64(len(m.sessions)) {
		return nil
	}
	return m.sessions[session-1]
}

// checkLife checks that a subscriber received the same lifecycle events as the first one,
// from some point on.
func (m *model) checkLife(name string, r *reader, life []string) {
	var all []string
	for _, event := range m.readers[0].events {
		if _, ok := event.(resock.MessageEvent); !ok {
			all = append(all, identity(event))
		}
	}
	if len(life) == 0 {
		if !r.late && !r.left && !m.aborted && len(all) > 0 {
			m.t.Errorf("%s: got no events", name)
		}
		return
	}
	from := slices.Index(all, life[0])
	switch {
	case m.aborted: // every subscriber may have missed the last events
	case from < 0 || !r.late && from != 0:
		m.t.Errorf("%s began with %s, which is not where it subscribed", name, life[0])
	case r.slow():
		m.checkBehind(name, life, all[from:])
	case len(life) > len(all[from:]) || !slices.Equal(life, all[from:][:len(life)]):
		m.t.Errorf("%s got\n%s\nwant the events of the first subscriber\n%s", name, strings.Join(life, "\n"), strings.Join(all[from:], "\n"))
	case !r.left && len(life) != len(all[from:]):
		m.t.Errorf("%s missed the end:\n%s", name, strings.Join(all[from+len(life):], "\n"))
	}
}

// checkStream checks what one loop over Messages received.
func (m *model) checkStream(name string, r *reader) {
	at, session, known := 0, uint64(0), !r.late
	for _, event := range r.events {
		e := event.(resock.MessageEvent)
		place, of := m.place(e.Data)
		if r.drop && e.Session != session { // losses at the end of a session are not reported
			at, known = 0, false
		}
		switch {
		case m.handler:
			m.t.Errorf("%s: a message, unwanted", name)
		case e.Session != of || of < session:
			m.t.Errorf("%s: message %d of session %d in session %d, after %d", name, place, of, e.Session, session)
		case !r.drop && e.Lost != 0:
			m.t.Errorf("%s: %d messages reported lost, want none", name, e.Lost)
		case known && place != at+int(e.Lost)+1, place <= at:
			m.t.Errorf("%s: message %d, %d reported lost before it, came after message %d", name, place, e.Lost, at)
		}
		at, session, known = place, of, true
	}
	last := m.sessions[max(0, len(m.sessions)-1):]
	if !r.drop && !r.left && !m.aborted && !m.handler && known && len(last) > 0 {
		if all := last[0].before + last[0].messages - last[0].consumed; at != all {
			m.t.Errorf("%s ended after message %d, want %d", name, at, all)
		}
	}
}

// checkBehind checks that a slow subscriber received what the first one did, in order,
// except for attempts that it missed while too many events waited for it.
func (m *model) checkBehind(name string, life, all []string) {
	next := 0
	for _, event := range life {
		at := slices.Index(all[next:], event)
		if at < 0 {
			m.t.Errorf("%s got %s, which is out of order or never happened", name, event)
			return
		}
		next += at + 1
	}
	const waiting = 64 // events, in addition to its buffer
	if missed := len(all) - len(life); missed > 0 && len(life) < waiting && next == len(all) {
		m.t.Errorf("%s missed %d events, though only %d waited for it", name, missed, len(life))
	}
}

// lastEvent returns the last event of the first subscriber, or nil.
func (tr *trial) lastEvent() resock.Event {
	events := tr.readers[0].events
	if len(events) == 0 {
		return nil
	}
	return events[len(events)-1]
}

// nextOf returns the state that an event announces as next, or 0.
func nextOf(event resock.Event) resock.State {
	switch e := event.(type) {
	case resock.FailEvent:
		return e.Next
	case resock.CloseEvent:
		return e.Next
	}
	return 0
}

// ruleOf returns the rule that decided on what follows an event, if one did.
func ruleOf(event resock.Event) string {
	switch e := event.(type) {
	case resock.FailEvent:
		return e.Rule
	case resock.CloseEvent:
		return e.Rule
	}
	return ""
}

func timeOf(event resock.Event) time.Time {
	switch e := event.(type) {
	case resock.OpenEvent:
		return e.Time
	case resock.FailEvent:
		return e.Time
	case resock.CloseEvent:
		return e.Time
	}
	return time.Time{}
}

// identity returns a text that identifies a lifecycle event.
func identity(event resock.Event) string {
	switch e := event.(type) {
	case resock.OpenEvent:
		return fmt.Sprintf("%s open %d attempt %d %s", clockTime(e.Time), e.Session, e.Attempt, e.URL)
	case resock.FailEvent:
		return fmt.Sprintf("%s fail %d attempt %d %v %v, next %v in %v by %q", clockTime(e.Time), e.Session, e.Attempt, e.Phase, e.Err, e.Next, e.RetryIn, e.Rule)
	case resock.CloseEvent:
		return fmt.Sprintf("%s close %d %d %q clean %t, next %v in %v by %q", clockTime(e.Time), e.Session, e.Code, e.Reason, e.Clean, e.Next, e.RetryIn, e.Rule)
	}
	return fmt.Sprint(event)
}

func clockTime(at time.Time) string { return at.UTC().Format("15:04:05.000000") }

// checkHandled checks what the message handler received.
func (m *model) checkHandled() {
	for i, data := range m.handled {
		if place, _ := m.place(data); place != i+1 {
			m.t.Errorf("the handler got message %d, want message %d", place, i+1)
			return
		}
	}
}

// checkSessions checks how sessions ended, and that no message before the end was lost.
func (m *model) checkSessions() {
	for i, o := range m.sessions {
		if o.open.Time.After(m.endedAt) && !m.handed(i) {
			m.t.Errorf("session %d opened %v after the client was told to end", o.open.Session, o.open.Time.Sub(m.endedAt))
		}
		all := false // whether all messages sent completely must have been delivered
		switch e := o.end.(type) {
		case resock.FailEvent:
			// Only the server ends a connection in this way.
			all = e.Phase == resock.PhaseRead && (errors.Is(e.Err, io.EOF) || errors.Is(e.Err, io.ErrUnexpectedEOF) || errors.Is(e.Err, syscall.ECONNRESET))
			if e.Phase == resock.PhaseProtocol {
				all = true
				if !o.peer.violated {
					m.t.Errorf("session %d: the server violated nothing, but got %v", e.Session, e.Err)
				}
			}
		case resock.CloseEvent:
			// With 1000, 1001 or 4999 the client may have closed.
			all = o.peer.code > 1001 && e.Code == o.peer.code && !(m.aborted && e.Next == resock.StateClosed)
		}
		if someone := len(m.handled) > 0 || !m.handler; all && someone && o.messages != o.peer.pushed {
			m.t.Errorf("session %d: %d messages delivered, want %d, before %s", o.open.Session, o.messages, o.peer.pushed, identity(o.end))
		}
	}
}

// checkReceived checks that the server received each message once at most, and in order.
func (m *model) checkReceived() {
	order := map[[2]int]int{}
	for _, c := range m.server.Conns() {
		queued := false
		for _, message := range c.Received().Messages {
			if string(message.Data) == "beat" {
				continue
			}
			kind, id, _, err := unpack(message.Data)
			if err != nil || kind != 'o' || id >= len(m.parcels) {
				m.t.Errorf("the server received message %c %d, which was never sent: %v", kind, id, err)
				continue
			}
			m.received[id]++
			p := m.parcels[id]
			if o := m.byPath[dialOf(c.Request().URL.Path)]; p.session != 0 && o != nil && o.open.Session != p.session {
				m.t.Errorf("message %d is bound to session %d, but was received in session %d", id, p.session, o.open.Session)
			}
			if dial := dialOf(c.Request().URL.Path); p.dial != 0 && p.dial != dial {
				m.t.Errorf("message %d is bound to the connection of dial %d, but was received on that of dial %d", id, p.dial, dial)
			}
			if m.received[id] > 1 {
				m.t.Errorf("message %d was received %d times, want at most once", id, m.received[id])
			}
			if p.hook && queued {
				m.t.Errorf("message %d of OnOpen was received after a queued message", id)
			}
			queued = queued || !p.hook
			of := m.orderOf(p)
			if last, ok := order[of]; ok && p.order != 0 && last >= id {
				m.t.Errorf("message %d was received after message %d", id, last)
			}
			order[of] = id
		}
	}
}

// checkOutcome checks the outcome of one message.
func (m *model) checkOutcome(p *parcel) {
	if p.outcomes != 1 {
		m.t.Errorf("message %d has %d outcomes, want 1; the last is %v", p.id, p.outcomes, p.err)
	}
	received := m.received[p.id] > 0
	switch err := p.err; {
	case err == nil:
		if !received && !m.lossyAt(p.settled) {
			m.t.Errorf("message %d was sent, but not received, though its connection lost nothing", p.id)
		}
	case errors.Is(err, resock.ErrMaybeSent):
	case !errors.Is(err, resock.ErrNotSent):
		m.t.Errorf("message %d: outcome %v, want nil, ErrMaybeSent or ErrNotSent", p.id, err)
	case received:
		m.t.Errorf("message %d was received, but its outcome is %v", p.id, err)
	}
	waited := p.settled.Sub(p.at)
	if errors.Is(p.err, resock.ErrExpired) && (p.ttl == 0 || waited < p.ttl) {
		m.t.Errorf("message %d expired after %v, want at least its TTL of %v", p.id, waited, p.ttl)
	}
	if errors.Is(p.err, resock.ErrClosed) && p.settled.Before(m.endedAt) && (m.sealed.IsZero() || p.settled.Before(m.sealed)) {
		m.t.Errorf("message %d: outcome ErrClosed, but the client was not closed", p.id)
	}
	if most := p.timeout + 3*m.writeIn; p.timeout > 0 && waited > most {
		m.t.Errorf("message %d: Send took %v, far longer than its timeout of %v", p.id, waited, p.timeout)
	}
}

// lossyAt reports whether a connection that was open at that time lost bytes which the
// network had accepted.
func (m *model) lossyAt(at time.Time) bool {
	received := func(c *resocktest.Conn) bool {
		switch c.Received().Err {
		case nil, io.EOF, io.ErrUnexpectedEOF: // the server read everything
			return true
		}
		return false
	}
	for _, p := range m.peers {
		// A connection whose OnOpen failed has no session.
		o := m.byPath[p.dial]
		if !received(p.conn) && (o == nil || !at.Before(o.usedFrom) && !at.After(o.endAt)) {
			return true
		}
	}
	return false
}

// checkStats checks that Stats agrees with the events.
func (m *model) checkStats() {
	stats := m.client.Stats()
	if stats.Queued != 0 || stats.QueuedBytes != 0 {
		m.t.Errorf("%d messages of %d bytes are queued at the end, want none", stats.Queued, stats.QueuedBytes)
	}
	if stats.Attempts < uint64(len(m.server.Attempts())) {
		m.t.Errorf("Stats counts %d attempts, but %d were made", stats.Attempts, len(m.server.Attempts()))
	}
	sent := uint64(0)
	for _, p := range m.parcels {
		if p.err == nil {
			sent++
		}
	}
	if stats.MessagesOut != sent { // heartbeat messages do not count
		m.t.Errorf("Stats counts %d messages as sent, want %d", stats.MessagesOut, sent)
	}
	if m.aborted {
		return
	}
	opens, fails, messages := uint64(0), uint64(0), uint64(0)
	for _, event := range m.readers[0].events {
		switch event.(type) {
		case resock.OpenEvent:
			opens++
		case resock.FailEvent:
			fails++
		}
	}
	for _, o := range m.sessions {
		messages += uint64(o.messages)
	}
	if stats.Opens != opens || stats.Session != opens || !m.failsAllowed(stats, fails) || stats.MessagesIn < messages {
		m.t.Errorf("got %+v, want the %d opens, %d fails and %d messages of the events", stats, opens, fails, messages)
	}
	if !stats.BlockedSince.IsZero() {
		m.t.Error("BlockedSince is set after the client has closed")
	}
}

// checkSettled ends all faults, and checks that the client then connects and sends what
// is queued.
func (tr *trial) checkSettled() {
	tr.becomeWell()
	patience, done := context.WithTimeout(context.Background(), 2*time.Hour)
	defer done()
	switch err := tr.client.WaitOpen(patience); {
	case err == nil, !tr.sealed.IsZero():
	case !errors.Is(err, resock.ErrClosed): // it gave up
		tr.t.Errorf("after all faults ended, the client is %v: %v", tr.client.State(), err)
		return
	}
	if !tr.sealed.IsZero() {
		select {
		case <-tr.client.Done():
		case <-patience.Done():
			tr.t.Error("after all faults ended, Shutdown does not return")
		}
		return
	}
	for range 10 { // a message that is being sent when a session ends may be lost
		p := tr.newParcel(0)
		p.timeout = time.Hour
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		err := tr.client.Send(ctx, resock.MessageText, packet('o', p.id, 0, 10))
		cancel()
		tr.settled(p, err)
		switch {
		case err == nil:
			tr.checkDrained(p.id)
			return
		case errors.Is(err, resock.ErrClosed): // it gave up, and will be closed
			select {
			case <-tr.client.Done():
			case <-patience.Done():
				tr.t.Error("after all faults ended, the client is closing for ever")
			}
			return
		}
	}
	tr.t.Error("after all faults ended, no message can be sent")
}

// checkDrained checks that every queued message has an outcome once a later one was sent.
func (tr *trial) checkDrained(sent int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range tr.parcels[:sent] {
		waits := tr.overlap > 0 && p.session > 0 // perhaps for a session that is coming
		if p.order == enqueued && p.outcomes == 0 && !waits {
			tr.t.Errorf("message %d has no outcome, though a later one was sent", p.id)
		}
	}
}

// story returns what the first subscriber received, and what became of the messages.
func (tr *trial) story() string {
	var b strings.Builder
	messages := 0
	for _, event := range tr.readers[0].events {
		if _, ok := event.(resock.MessageEvent); ok {
			messages++
			continue
		}
		fmt.Fprintf(&b, "\n\t(%d messages)\n\t%s", messages, identity(event))
		messages = 0
	}
	since := func(at time.Time) time.Duration { return at.Sub(tr.began) }
	for _, p := range tr.parcels {
		if p.outcomes != 1 || p.err != resock.ErrClosed {
			fmt.Fprintf(&b, "\n\tmessage %d at %v: %v at %v, outcome %d", p.id, since(p.at), p.err, since(p.settled), p.outcomes)
		}
	}
	for _, p := range tr.peers {
		r := p.conn.Received()
		fmt.Fprintf(&b, "\n\tdial %d: pushed %d, over %t, received %d, ended at %v by %v", p.dial, p.pushed, p.over, len(r.Messages), since(r.Ended), r.Err)
	}
	fmt.Fprintf(&b, "\n\tstopped at %v, done at %v: %v", since(tr.stopped), since(tr.doneAt), tr.result)
	return b.String()
}
