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

// opening is one session, as the subscribers saw it.
type opening struct {
	open     resock.OpenEvent
	end      resock.Event // nil if it was cut off
	endAt    time.Time
	peer     *serverSide
	consumed int // messages that OnOpen received
	messages int // delivered by then, with those
	before   int // messages of all sessions before
}

// model is what a trial led to.
type model struct {
	*trial
	endedAt  time.Time // when the client was told to end, or gave up
	aborted  bool      // the close timeout passed since
	received map[int]int
	sessions []*opening
	byPath   map[int]*opening
}

// check holds a trial that is over against what is allowed.
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
		m.endedAt = tr.ranAt // a context that ended before is looked at then
	}
	if m.shutDown() { // when it began to close is not known, nor whether that was in time
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
	m.checkReceived()
	for _, p := range tr.parcels {
		m.checkOutcome(p)
	}
	for _, c := range tr.flushes {
		m.checkCover(c)
	}
	m.checkStats()
}

// shutDown reports whether it may have been Shutdown that closed the client.
func (m *model) shutDown() bool {
	return !m.sealed.IsZero() && m.gaveUp() == nil && (m.stopped.IsZero() || m.doneAt.Before(m.stopped) || m.result == nil)
}

// checkCover checks what a Flush or a Shutdown that ended well waited for.
func (m *model) checkCover(c *cover) {
	if c.name == "Flush" && slices.ContainsFunc(m.sessions, func(o *opening) bool { return o.endAt.Equal(c.at) }) {
		return // it may have been called when the session that took them was lost already
	}
	for _, p := range c.parcels {
		switch {
		case c.name == "Flush" && errors.Is(p.err, resock.ErrMaybeSent):
			m.t.Errorf("Flush is done, and message %d may have been sent", p.id)
		case c.name == "Flush" && p.err == nil && m.received[p.id] == 0:
			m.t.Errorf("Flush is done, and message %d was not received", p.id)
		case c.name == "Shutdown" && p.settled.Equal(c.at): // perhaps before, and told since
		case c.name == "Shutdown" && errors.Is(p.err, resock.ErrNotSent):
			m.t.Errorf("Shutdown tells of no loss, and message %d has the outcome %v", p.id, p.err)
		}
	}
}

// checkEnd checks when and how the client ended.
func (m *model) checkEnd() {
	gaveUp := m.gaveUp()
	switch err := m.result; {
	case gaveUp != nil:
		if m.attempts == 0 && (m.revoked == 0 || gaveUp.Rule != "permanent") {
			m.t.Errorf("the client gave up: %v", err)
		}
		if m.attempts > 0 && gaveUp.Attempts > m.attempts {
			m.t.Errorf("the client gave up after %d attempts of %d", gaveUp.Attempts, m.attempts)
		}
		if last := m.lastEvent(); last != nil && nextOf(last) == resock.StateClosed && ruleOf(last) != gaveUp.Rule {
			m.t.Errorf("the client gave up by %q, and the last event tells %q", gaveUp.Rule, ruleOf(last))
		}
	case err == nil && (m.closed || !m.sealed.IsZero()):
	case errors.Is(err, context.Canceled) && m.canceled:
	default:
		m.t.Errorf("Run: %v; closed %t, canceled %t", err, m.closed, m.canceled)
	}
	if took := m.doneAt.Sub(m.endedAt); took > m.closeIn {
		m.t.Errorf("closing took %v, the close timeout is %v", took, m.closeIn)
	}
	if err := m.client.Err(); err != m.result {
		m.t.Errorf("Err is %v, Run returned %v", err, m.result)
	}
	if state := m.client.State(); state != resock.StateClosed {
		m.t.Errorf("in the end the state is %v", state)
	}
	if err := m.client.Enqueue(resock.MessageText, nil); err != resock.ErrClosed {
		m.t.Errorf("Enqueue on a closed client: %v", err)
	}
	if err := m.client.Send(context.Background(), resock.MessageText, nil); err != resock.ErrClosed {
		m.t.Errorf("Send on a closed client: %v", err)
	}
	for event := range new(grammar.Checker).All(m.t, m.client.Subscribe(context.Background())) {
		m.t.Errorf("an event of a closed client: %+v", event)
	}
}

// gaveUp returns why the client ended by itself, or nil.
func (m *model) gaveUp() (err *resock.GiveUpError) {
	errors.As(m.result, &err)
	return err
}

// mostAttempts is how many attempts fit into two initial backoffs: of so many
// delays, each uniform in [0, initial], the sum is larger but once in 10¹².
const mostAttempts = 20

// checkAttempts checks that the server is not flooded, nor dialed when the client
// must not.
func (m *model) checkAttempts() {
	attempts := m.server.Attempts()
	if most := mostAttempts + m.resumes; len(attempts) > most {
		for i := most; i < len(attempts); i++ {
			if took := attempts[i].Time.Sub(attempts[i-most].Time); took < 2*m.initial {
				m.t.Errorf("%d attempts in %v, the initial backoff is %v", most+1, took, m.initial)
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
				m.t.Errorf("an attempt %v after the client was told not to", attempt.Time.Sub(held.from))
			}
		}
	}
}

// collectSessions learns from the subscribers what sessions there were: from the
// first one, or from another if the first missed the end.
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
		m.t.Fatalf("the server knows nothing of session %d, %s", e.Session, e.URL)
	}
	if m.byPath[p.dial] != nil {
		m.t.Errorf("session %d is on a connection that another one had", e.Session)
	}
	consumed := m.consumed[e.Session]
	o := &opening{open: e, endAt: m.doneAt, peer: p, consumed: consumed, messages: consumed}
	m.byPath[p.dial] = o
	m.sessions = append(m.sessions, o)
}

// countMessages learns how many messages were delivered in each session: as many
// as anybody got.
func (m *model) countMessages() {
	note := func(data []byte) {
		kind, dial, number, err := unpack(data)
		o := m.byPath[dial]
		switch {
		case err != nil:
			m.t.Error("delivered: ", err)
		case kind != 'p' || number < 1 || o == nil:
			m.t.Errorf("delivered: message %c %d of dial %d, which opened no session", kind, number, dial)
		case number > o.peer.pushed:
			m.t.Errorf("delivered: message %d of session %d, after %d that were sent, or something that forbids more", number, o.open.Session, o.peer.pushed)
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

// place is a message's place among all that were delivered, from 1.
func (m *model) place(data []byte) (place int, session uint64) {
	_, dial, number, _ := unpack(data)
	o := m.byPath[dial]
	if o == nil {
		return 0, 0
	}
	return o.before + number - o.consumed, o.open.Session
}

// checkReader checks what one subscriber got.
func (m *model) checkReader(name string, r *reader) {
	behind := r.slow() // whole attempts may be left out for it
	checker := grammar.Checker{Late: r.late, Cut: r.left || m.aborted, Behind: behind}
	at, known := 0, !r.late // the place of its last message
	var life []string
	for _, event := range r.events {
		if err := checker.Event(event); err != nil {
			m.t.Errorf("%s: %v", name, err)
		}
		e, ok := event.(resock.MessageEvent)
		if !ok {
			life = append(life, identity(event))
			if o := m.ended(event); o != nil {
				if all := o.before + o.messages - o.consumed; !r.silent && !m.handler {
					none := behind && o.messages == o.consumed  // that could tell what was left out
					if known && at != all && !none && !r.drop { // what is lost in a session is told in it only
						m.t.Errorf("%s: session %d ended after message %d of %d", name, o.open.Session, at, all)
					}
					if !none || r.drop { // else the next message tells what was left out before
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
			m.t.Errorf("%s: %d messages lost", name, e.Lost)
		case known && place != at+int(e.Lost)+1:
			m.t.Errorf("%s: message %d, %d lost before it, after message %d", name, place, e.Lost, at)
		}
		at, known = place, true
	}
	if err := checker.End(); err != nil {
		m.t.Errorf("%s: %v", name, err)
	}
	m.checkLife(name, r, life)
}

// ended returns the session that event ends, if it does.
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

// checkLife checks that a subscriber got the same events besides messages as the
// first one, from some point on.
func (m *model) checkLife(name string, r *reader, life []string) {
	var all []string
	for _, event := range m.readers[0].events {
		if _, ok := event.(resock.MessageEvent); !ok {
			all = append(all, identity(event))
		}
	}
	if len(life) == 0 {
		if !r.late && !r.left && !m.aborted && len(all) > 0 {
			m.t.Errorf("%s: no events", name)
		}
		return
	}
	from := slices.Index(all, life[0])
	switch {
	case m.aborted: // anybody may have missed the last ones
	case from < 0 || !r.late && from != 0:
		m.t.Errorf("%s began with %s", name, life[0])
	case r.slow():
		m.checkBehind(name, life, all[from:])
	case len(life) > len(all[from:]) || !slices.Equal(life, all[from:][:len(life)]):
		m.t.Errorf("%s got\n%s\nand the first subscriber\n%s", name, strings.Join(life, "\n"), strings.Join(all[from:], "\n"))
	case !r.left && len(life) != len(all[from:]):
		m.t.Errorf("%s missed the end:\n%s", name, strings.Join(all[from+len(life):], "\n"))
	}
}

// checkStream checks what one loop over Messages got.
func (m *model) checkStream(name string, r *reader) {
	at, session, known := 0, uint64(0), !r.late
	for _, event := range r.events {
		e := event.(resock.MessageEvent)
		place, of := m.place(e.Data)
		if r.drop && e.Session != session { // what was lost at the end of a session is not told
			at, known = 0, false
		}
		switch {
		case m.handler:
			m.t.Errorf("%s: a message, unwanted", name)
		case e.Session != of || of < session:
			m.t.Errorf("%s: message %d of session %d in session %d, after %d", name, place, of, e.Session, session)
		case !r.drop && e.Lost != 0:
			m.t.Errorf("%s: %d messages lost", name, e.Lost)
		case known && place != at+int(e.Lost)+1, place <= at:
			m.t.Errorf("%s: message %d, %d lost before it, after message %d", name, place, e.Lost, at)
		}
		at, session, known = place, of, true
	}
	last := m.sessions[max(0, len(m.sessions)-1):]
	if !r.drop && !r.left && !m.aborted && !m.handler && known && len(last) > 0 {
		if all := last[0].before + last[0].messages - last[0].consumed; at != all {
			m.t.Errorf("%s ended after message %d of %d", name, at, all)
		}
	}
}

// checkBehind checks that a slow subscriber got what the first one got, in order, but
// for attempts that were left out while more than enough events waited for it.
func (m *model) checkBehind(name string, life, all []string) {
	next := 0
	for _, event := range life {
		at := slices.Index(all[next:], event)
		if at < 0 {
			m.t.Errorf("%s got %s, which came before, or never", name, event)
			return
		}
		next += at + 1
	}
	const waiting = 64 // events, beside its buffer
	if missed := len(all) - len(life); missed > 0 && len(life) < waiting && next == len(all) {
		m.t.Errorf("%s missed %d events, and got only %d", name, missed, len(life))
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

// nextOf returns the state that an event announces, or 0.
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

// identity tells one event besides messages from any other.
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

// checkHandled checks what the message handler got.
func (m *model) checkHandled() {
	for i, data := range m.handled {
		if place, _ := m.place(data); place != i+1 {
			m.t.Errorf("the handler got message %d in place of %d", place, i+1)
			return
		}
	}
}

// checkSessions checks how sessions ended, and that nothing was lost that came
// before.
func (m *model) checkSessions() {
	for _, o := range m.sessions {
		if o.open.Time.After(m.endedAt) {
			m.t.Errorf("session %d opened %v after the end", o.open.Session, o.open.Time.Sub(m.endedAt))
		}
		all := false // what was sent wholly must have been delivered
		switch e := o.end.(type) {
		case resock.FailEvent:
			// Only the server ends a connection so.
			all = e.Phase == resock.PhaseRead && (errors.Is(e.Err, io.EOF) || errors.Is(e.Err, io.ErrUnexpectedEOF) || errors.Is(e.Err, syscall.ECONNRESET))
			if e.Phase == resock.PhaseProtocol {
				all = true
				if !o.peer.violated {
					m.t.Errorf("session %d: the server did nothing wrong: %v", e.Session, e.Err)
				}
			}
		case resock.CloseEvent:
			// The client itself closes with 1000, 1001 or 4999.
			all = o.peer.code > 1001 && e.Code == o.peer.code && !(m.aborted && e.Next == resock.StateClosed)
		}
		if someone := len(m.handled) > 0 || !m.handler; all && someone && o.messages != o.peer.pushed {
			m.t.Errorf("session %d: %d of %d messages delivered before %s", o.open.Session, o.messages, o.peer.pushed, identity(o.end))
		}
	}
}

// checkReceived checks what the server got: nothing twice, and in order.
func (m *model) checkReceived() {
	order := map[int]int{}
	for _, c := range m.server.Conns() {
		queued := false
		for _, message := range c.Received().Messages {
			if string(message.Data) == "beat" {
				continue
			}
			kind, id, _, err := unpack(message.Data)
			if err != nil || kind != 'o' || id >= len(m.parcels) {
				m.t.Errorf("the server received message %c %d: %v", kind, id, err)
				continue
			}
			m.received[id]++
			p := m.parcels[id]
			if o := m.byPath[dialOf(c.Request().URL.Path)]; p.session != 0 && o != nil && o.open.Session != p.session {
				m.t.Errorf("message %d of session %d was received in session %d", id, p.session, o.open.Session)
			}
			if m.received[id] > 1 {
				m.t.Errorf("message %d was received %d times", id, m.received[id])
			}
			if p.hook && queued {
				m.t.Errorf("message %d of OnOpen came after a queued one", id)
			}
			queued = queued || !p.hook
			if last, ok := order[p.order]; ok && p.order != 0 && last >= id {
				m.t.Errorf("message %d was received after %d", id, last)
			}
			order[p.order] = id
		}
	}
}

// checkOutcome checks what was told of one message.
func (m *model) checkOutcome(p *parcel) {
	if p.outcomes != 1 {
		m.t.Errorf("message %d has %d outcomes, the last %v", p.id, p.outcomes, p.err)
	}
	received := m.received[p.id] > 0
	switch err := p.err; {
	case err == nil:
		if !received && !m.lossyAt(p.settled) {
			m.t.Errorf("message %d was sent, and lost by a connection that lost nothing", p.id)
		}
	case errors.Is(err, resock.ErrMaybeSent):
	case !errors.Is(err, resock.ErrNotSent):
		m.t.Errorf("message %d has the outcome %v", p.id, err)
	case received:
		m.t.Errorf("message %d was received, and has the outcome %v", p.id, err)
	}
	waited := p.settled.Sub(p.at)
	if errors.Is(p.err, resock.ErrExpired) && (p.ttl == 0 || waited < p.ttl) {
		m.t.Errorf("message %d expired after %v of %v", p.id, waited, p.ttl)
	}
	if errors.Is(p.err, resock.ErrClosed) && p.settled.Before(m.endedAt) && (m.sealed.IsZero() || p.settled.Before(m.sealed)) {
		m.t.Errorf("message %d was refused by a client that is not closed", p.id)
	}
	if most := p.timeout + 3*m.writeIn; p.timeout > 0 && waited > most {
		m.t.Errorf("message %d: Send took %v, with a timeout of %v", p.id, waited, p.timeout)
	}
}

// lossyAt reports whether a connection that was open at that time lost something
// of what the network had taken.
func (m *model) lossyAt(at time.Time) bool {
	received := func(c *resocktest.Conn) bool {
		switch c.Received().Err {
		case nil, io.EOF, io.ErrUnexpectedEOF: // the server read all there was
			return true
		}
		return false
	}
	for _, p := range m.peers {
		// A connection whose OnOpen failed has no session.
		o := m.byPath[p.dial]
		if !received(p.conn) && (o == nil || !at.Before(o.open.Time) && !at.After(o.endAt)) {
			return true
		}
	}
	return false
}

// checkStats checks that the counters agree with the events.
func (m *model) checkStats() {
	stats := m.client.Stats()
	if stats.Queued != 0 || stats.QueuedBytes != 0 {
		m.t.Errorf("in the end %d messages of %d bytes are queued", stats.Queued, stats.QueuedBytes)
	}
	if stats.Attempts < uint64(len(m.server.Attempts())) {
		m.t.Errorf("%d attempts counted, and %d made", stats.Attempts, len(m.server.Attempts()))
	}
	sent := uint64(0)
	for _, p := range m.parcels {
		if p.err == nil {
			sent++
		}
	}
	if stats.MessagesOut != sent { // the beats do not count
		m.t.Errorf("%d messages counted as sent, and %d told to be", stats.MessagesOut, sent)
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
	if stats.Opens != opens || stats.Session != opens || stats.Fails != fails || stats.MessagesIn < messages {
		m.t.Errorf("%+v, and events tell of %d opens, %d fails, %d messages", stats, opens, fails, messages)
	}
	if !stats.BlockedSince.IsZero() {
		m.t.Error("a closed client is blocked")
	}
}

// checkSettled ends all faults, and wants a client that is connected, and that
// sends what is queued.
func (tr *trial) checkSettled() {
	tr.becomeWell()
	patience, done := context.WithTimeout(context.Background(), 2*time.Hour)
	defer done()
	stopped := func() bool { return tr.client.State() == resock.StateClosed } // it gave up
	switch err := tr.client.WaitOpen(patience); {
	case err == nil, !tr.sealed.IsZero():
	case !errors.Is(err, resock.ErrClosed): // it gave up
		tr.t.Errorf("all is well, and the client is %v: %v", tr.client.State(), err)
		return
	}
	if !tr.sealed.IsZero() {
		select {
		case <-tr.client.Done():
		case <-patience.Done():
			tr.t.Error("all is well, and Shutdown does not end")
		}
		return
	}
	for range 10 { // what is being sent when a session ends may be lost
		p := tr.newParcel(0)
		p.timeout = time.Hour
		ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
		err := tr.client.Send(ctx, resock.MessageText, packet('o', p.id, 0, 10))
		cancel()
		tr.settled(p, err)
		if err == nil {
			tr.checkDrained(p.id)
			return
		}
	}
	if !stopped() {
		tr.t.Error("all is well, and nothing can be sent")
	}
}

// checkDrained checks that queued messages have an outcome when a later one was
// sent.
func (tr *trial) checkDrained(sent int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range tr.parcels[:sent] {
		if p.order == enqueued && p.outcomes == 0 {
			tr.t.Errorf("message %d waits, and a later one was sent", p.id)
		}
	}
}

// story tells what the first subscriber saw, and what became of the messages.
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
