package trials

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"
	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

var (
	schedules    = flag.Int("resock.schedules", 300, "how many random schedules TestSchedules runs")
	scheduleFrom = flag.Uint64("resock.from", 1, "the first seed of TestSchedules")
	scheduleSeed = flag.Uint64("resock.seed", 0, "if not 0, the only seed of TestSchedules; use it with -count, since goroutines and the library's jitter remain random")
)

// regressions are seeds that once failed.
var regressions = []uint64{435, 658, 2856, 6437, 8761, 10676, 17084, 47115, 61257}

// TestSchedules runs clients through random schedules in virtual time: faults of the
// server and of the network, and everything an application may ask for. The model in
// schedule_model_test.go decides what is allowed.
func TestSchedules(t *testing.T) {
	if *scheduleSeed != 0 {
		runSchedule(t, *scheduleSeed)
		return
	}
	for _, seed := range regressions {
		runSchedule(t, seed)
	}
	workers := runtime.GOMAXPROCS(0)
	for worker := range workers {
		t.Run(fmt.Sprint("worker ", worker), func(t *testing.T) {
			t.Parallel()
			for i := worker; i < *schedules && !t.Failed(); i += workers {
				runSchedule(t, *scheduleFrom+uint64(i))
			}
		})
	}
}

func runSchedule(t *testing.T, seed uint64) {
	plan := newPlan(seed)
	explain := func() string {
		return fmt.Sprintf("seed %d: go test ./trials -run 'TestSchedules$' -resock.seed=%d -count=100\n%v", seed, seed, plan)
	}
	// This timer runs in real time, since it is created outside the bubble.
	watchdog := time.AfterFunc(time.Minute, func() { panic("the schedule hangs: " + explain()) })
	defer watchdog.Stop()
	defer func() {
		if err := recover(); err != nil { // the panic of a bubble does not name the seed
			fmt.Fprintln(os.Stderr, explain())
			panic(err)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		tr := newTrial(t, plan)
		tr.run()
		tr.check()
		if t.Failed() {
			t.Log(explain(), tr.story())
		}
	})
}

// plan is a schedule. It depends on the seed alone.
type plan struct {
	secure       bool
	initial      time.Duration // the first bound of the backoff
	dialIn       time.Duration // the dial timeout
	closeIn      time.Duration // the close timeout
	writeIn      time.Duration // the write timeout
	delay        time.Duration // how long the dial limiter delays an attempt
	attempts     int           // the attempt limit, or 0
	revoked      int           // the dial from which on the endpoint has a permanent error, or 0
	handler      bool
	handlerSends bool
	filters      bool          // a filter is slow for some messages
	offline      bool          // the network may be lost
	hookReceives bool          // OnOpen receives the greeting
	hookSends    bool          // OnOpen sends
	hookBinds    bool          // OnOpen enqueues messages for its session
	hookTakes    time.Duration // how long OnOpen takes
	overlap      time.Duration // of a handover, or 0
	rivals       rivalry
	settle       bool // all faults end before the end
	options      []choice[resock.Option]
	arrivals     []choice[func(*trial) resocktest.Step] // what happens to the first attempts
	actions      []action
	beforeRun    int // how many of the actions precede Run
}

// choice is something drawn at random, with its description.
type choice[T any] struct {
	text string
	pick T
}

// action is something that happens after a pause.
type action struct {
	pause time.Duration
	choice[func(*trial)]
}

func (p *plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "secure %t, handler %t, OnOpen receives %t, sends %t, binds %t and takes %v, rivals %d, settles %t, revoked at %d\noptions:",
		p.secure, p.handler, p.hookReceives, p.hookSends, p.hookBinds, p.hookTakes, p.rivals, p.settle, p.revoked)
	for _, option := range p.options {
		b.WriteString(" " + option.text)
	}
	b.WriteString("\nattempts:")
	for _, arrival := range p.arrivals {
		b.WriteString(" " + arrival.text)
	}
	for i, action := range p.actions {
		if i == p.beforeRun {
			b.WriteString("\n\tRun")
		}
		fmt.Fprintf(&b, "\n\t+%v %s", action.pause, action.text)
	}
	return b.String() + "\n"
}

// generator draws a plan.
type generator struct {
	*rand.Rand
	*plan
}

func newPlan(seed uint64) *plan {
	g := generator{rand.New(rand.NewPCG(seed, 0x5eed)), new(plan)}
	g.secure = g.one(16)
	g.drawOptions()
	for range g.IntN(12) {
		g.arrivals = append(g.arrivals, g.arrival())
	}
	// The first subscriber stays to the end: from it the model learns what happened.
	g.add(0, g.subscribe(false))
	for range 5 + g.IntN(50) {
		g.add(g.pause(), g.action())
	}
	g.beforeRun = 1
	if g.one(8) {
		g.beforeRun = 1 + g.IntN(5)
	}
	g.settle = !g.one(4)
	// Later additions are drawn separately, so that old seeds keep their schedules.
	generator{rand.New(rand.NewPCG(seed, 0x5e9d)), g.plan}.drawSending()
	generator{rand.New(rand.NewPCG(seed, 0x5eaf)), g.plan}.drawConsumers()
	generator{rand.New(rand.NewPCG(seed, 0x5ec0)), g.plan}.drawControl()
	generator{rand.New(rand.NewPCG(seed, 0x5ed1)), g.plan}.drawHandover()
	return g.plan
}

// drawControl adds what the application asks for in one breath, and hooks that end the
// client.
func (g generator) drawControl() {
	for range g.IntN(3) {
		g.insert(oneOf(g,
			choice[func(*trial)]{"suspend and resume", func(tr *trial) { tr.suspend(); tr.resume() }},
			choice[func(*trial)]{"reconnect and suspend", func(tr *trial) { tr.client.Reconnect(); tr.suspend() }},
			choice[func(*trial)]{"reconnect twice", func(tr *trial) { tr.client.Reconnect(); tr.client.Reconnect() }},
		))
	}
	if g.one(10) {
		g.revoked = 1 + g.IntN(5)
	}
}

// drawConsumers adds consumers that get in the client's way.
func (g generator) drawConsumers() {
	g.handlerSends = g.handler && g.one(2)
	g.filters = g.one(8)
	for range g.IntN(4) {
		late := g.one(2)
		shape := reader{late: late, drop: late && g.one(3)}
		opts := []resock.SubscribeOption{resock.WithBuffer(oneOf(g, 0, 1, 5, 64))}
		if shape.drop {
			opts = append(opts, resock.WithOverflow(resock.OverflowDropOldest))
		}
		if g.one(3) {
			shape.every, shape.pause = 1+g.IntN(10), oneOf(g, g.pause(), time.Hour)
		}
		shape.answers = g.one(3)
		if shape.stream = g.one(2); shape.stream && g.one(2) {
			opts = append(opts, resock.WithBorrowedData())
		}
		c := choice[func(*trial)]{
			fmt.Sprintf("subscribe(stream %t, drop %t, answers %t, pause %v every %d)", shape.stream, shape.drop, shape.answers, shape.pause, shape.every),
			func(tr *trial) { tr.subscribe(shape, opts...) },
		}
		if late {
			g.insert(c)
		} else {
			g.actions = slices.Insert(g.actions, 1, action{0, c})
			g.beforeRun++
		}
	}
}

// drawSending adds options and actions that concern sending.
func (g generator) drawSending() {
	if g.one(8) {
		pace := oneOf(g, time.Microsecond, time.Millisecond)
		g.options = append(g.options, choice[resock.Option]{fmt.Sprintf("pace(%v)", pace), resock.WithSendLimiter(limiter(pace))})
	}
	for range g.IntN(8) {
		timeout, ttl, ahead, size := g.pause(), g.pause(), uint64(g.IntN(2)), g.size()
		c := oneOf(g,
			choice[func(*trial)]{fmt.Sprintf("flush(timeout %v)", timeout), func(tr *trial) { tr.flush(timeout) }},
			choice[func(*trial)]{fmt.Sprintf("send(size %d, TTL %v)", size, ttl), func(tr *trial) { tr.sendTTL(size, max(1, ttl)) }},
			choice[func(*trial)]{fmt.Sprintf("enqueue(size %d, session +%d)", size, ahead), func(tr *trial) { tr.enqueueInSession(size, ahead) }},
		)
		g.insert(c)
	}
	if g.one(8) {
		timeout := g.pause()
		g.insert(choice[func(*trial)]{fmt.Sprintf("shutdown(timeout %v)", timeout), func(tr *trial) { tr.shutdown(timeout) }})
	}
}

// insert adds an action somewhere after Run.
func (g generator) insert(c choice[func(*trial)]) {
	if at := g.beforeRun; at < len(g.actions) {
		at += g.IntN(len(g.actions) - at)
		g.actions = slices.Insert(g.actions, at, action{g.pause(), c})
	}
}

func (g generator) one(in int) bool { return g.IntN(in) == 0 }

func oneOf[T any](g generator, of ...T) T { return of[g.IntN(len(of))] }

func (g generator) add(pause time.Duration, c choice[func(*trial)]) {
	g.actions = append(g.actions, action{pause, c})
}

// pause returns a pause between actions. Often it is 0, so that actions race, and it may
// be long.
func (g generator) pause() time.Duration {
	scale := oneOf(g, 0, 0, time.Microsecond, time.Millisecond, time.Millisecond, 10*time.Millisecond, 100*time.Millisecond, time.Second)
	return scale * time.Duration(1+g.IntN(9))
}

// size returns the size of a message.
func (g generator) size() int {
	return g.IntN(oneOf(g, 1, 50, 50, 300, 300, 1500, 6000, 100_000))
}

func (g generator) drawOptions() {
	option := func(pick resock.Option, format string, args ...any) {
		g.options = append(g.options, choice[resock.Option]{fmt.Sprintf(format, args...), pick})
	}
	type pair struct{ a, b time.Duration }
	const ms, s = time.Millisecond, time.Second

	backoff := oneOf(g, pair{10 * ms, 50 * ms}, pair{50 * ms, 500 * ms}, pair{500 * ms, 2 * s}, pair{500 * ms, 30 * s})
	g.initial = backoff.a
	option(resock.WithBackoff(backoff.a, backoff.b), "backoff%v", backoff)
	stable := oneOf(g, 0, 50*ms, s, 5*s)
	option(resock.WithStableAfter(stable), "stable(%v)", stable)
	g.dialIn = oneOf(g, 50*ms, s, 10*s)
	option(resock.WithDialTimeout(g.dialIn), "dial(%v)", g.dialIn)
	g.writeIn = oneOf(g, 100*ms, s, 10*s)
	option(resock.WithWriteTimeout(g.writeIn), "write(%v)", g.writeIn)
	g.closeIn = oneOf(g, 100*ms, s, 5*s)
	option(resock.WithCloseTimeout(g.closeIn), "close(%v)", g.closeIn)
	beat := oneOf(g, pair{}, pair{100 * ms, 50 * ms}, pair{2 * s, s}, pair{15 * s, 10 * s})
	option(resock.WithHeartbeat(beat.a, beat.b), "heartbeat%v", beat)
	if beat.a > 0 && g.one(5) {
		option(resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }), "beats")
	}
	if g.one(8) {
		option(resock.WithIdleTimeout(s), "idle(1s)")
	}
	if g.one(8) {
		g.attempts = 8
		option(resock.WithMaxAttempts(g.attempts), "attempts(%d)", g.attempts)
	}
	if g.one(8) {
		age := oneOf(g, 100*ms, 3*s)
		option(resock.WithMaxSessionAge(age), "age(%v)", age)
	}
	if g.one(8) {
		option(resock.WithReadLimit(200_000), "limit")
	}
	if g.one(4) {
		count, bytes := oneOf(g, 5, 100), oneOf(g, 5000, 1<<20)
		option(resock.WithQueue(count, bytes), "queue(%d, %d)", count, bytes)
	}
	if g.one(8) {
		g.delay = 5 * ms
		option(resock.WithDialLimiter(limiter(g.delay)), "limiter(%v)", g.delay)
	}
	g.handler = g.one(8)
	g.offline = g.one(4)
	g.hookReceives, g.hookSends = g.one(6), g.one(6)
}

// limiter is a dial limiter that delays every attempt.
type limiter time.Duration

func (l limiter) Wait(ctx context.Context) error {
	select {
	case <-time.After(time.Duration(l)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// arrival returns what happens to one attempt.
func (g generator) arrival() choice[func(*trial) resocktest.Step] {
	plain := func(text string, step resocktest.Step) choice[func(*trial) resocktest.Step] {
		return choice[func(*trial) resocktest.Step]{text, func(*trial) resocktest.Step { return step }}
	}
	switch g.IntN(16) {
	case 0:
		return plain("refuse", resocktest.Refuse())
	case 1:
		return plain("stall-dial", resocktest.StallDial())
	case 2:
		return plain("stall", resocktest.StallTLS())
	case 3:
		return plain("stall-upgrade", resocktest.StallUpgrade())
	case 4:
		return plain("drop", resocktest.Drop())
	case 5:
		code := oneOf(g, 200, 302, 401, 404, 429, 500, 503)
		return plain(strconv.Itoa(code), resocktest.Status(code, http.Header{"Retry-After": {oneOf(g, "1", "0", "-1", "soon")}}, "no"))
	case 6:
		return plain("no-accept", resocktest.Upgrade(http.Header{"Sec-WebSocket-Accept": nil}, nil))
	case 7, 8, 9, 10:
		habit := g.peerAction()
		return choice[func(*trial) resocktest.Step]{"serve(" + habit.text + ")", func(tr *trial) resocktest.Step {
			return resocktest.Serve(tr.serve(habit.pick))
		}}
	}
	return choice[func(*trial) resocktest.Step]{"serve", func(tr *trial) resocktest.Step {
		return resocktest.Serve(tr.serve(func(*serverSide) {}))
	}}
}

// action returns one thing that happens to the client.
func (g generator) action() choice[func(*trial)] {
	plain := func(text string, pick func(*trial)) choice[func(*trial)] { return choice[func(*trial)]{text, pick} }
	switch g.IntN(40) {
	case 0:
		return plain("suspend", (*trial).suspend)
	case 1, 2:
		return plain("resume", (*trial).resume)
	case 3:
		return plain("reconnect", func(tr *trial) { tr.client.Reconnect() })
	case 4:
		return plain("server stops", func(tr *trial) { tr.server.Stop() })
	case 5, 6:
		return plain("server restarts", func(tr *trial) { tr.server.Restart() })
	case 7:
		return plain("offline", func(tr *trial) { tr.setOnline(false) })
	case 8, 9:
		return plain("online", func(tr *trial) { tr.setOnline(true) })
	case 10, 11:
		return g.subscribe(true)
	case 12:
		nth := g.IntN(4)
		return plain(fmt.Sprint("leave ", nth), func(tr *trial) { tr.leave(nth) })
	case 13, 14, 15, 16, 17:
		return g.enqueue()
	case 18, 19, 20:
		return g.sends()
	case 21:
		return plain("look", func(tr *trial) { tr.client.Stats(); synctest.Wait() })
	case 22:
		if g.one(4) {
			return plain("close", (*trial).close)
		} else if g.one(3) {
			return plain("cancel", (*trial).cancel)
		}
	case 23, 24, 25, 26:
		return g.connAction()
	}
	job := g.peerAction()
	return plain("peer: "+job.text, func(tr *trial) { tr.post(job.pick) })
}

func (g generator) subscribe(late bool) choice[func(*trial)] {
	buffer := oneOf(g, 0, 0, 1, 5, 64)
	shape := reader{late: late, drop: late && g.one(3), silent: late && g.one(6)}
	if late && g.one(4) {
		shape.every, shape.pause = 1+g.IntN(10), g.pause()
	}
	opts := []resock.SubscribeOption{resock.WithBuffer(buffer)}
	if shape.drop {
		opts = append(opts, resock.WithOverflow(resock.OverflowDropOldest))
	}
	if shape.silent {
		opts = append(opts, resock.WithoutMessages())
	}
	text := fmt.Sprintf("subscribe(buffer %d, drop %t, without messages %t, pause %v every %d)", buffer, shape.drop, shape.silent, shape.pause, shape.every)
	return choice[func(*trial)]{text, func(tr *trial) { tr.subscribe(shape, opts...) }}
}

func (g generator) enqueue() choice[func(*trial)] {
	sizes := make([]int, 1+g.IntN(oneOf(g, 1, 5, 30)))
	for i := range sizes {
		sizes[i] = g.size()
	}
	var ttl time.Duration
	if g.one(3) {
		ttl = max(1, g.pause())
	}
	again := g.one(6)
	return choice[func(*trial)]{
		fmt.Sprintf("enqueue(sizes %v, TTL %v, again %t)", sizes, ttl, again),
		func(tr *trial) {
			for _, size := range sizes {
				tr.enqueue(size, ttl, again)
			}
		},
	}
}

func (g generator) sends() choice[func(*trial)] {
	sizes := make([]int, 1+g.IntN(4))
	for i := range sizes {
		sizes[i] = g.size()
	}
	timeout := g.pause()
	return choice[func(*trial)]{
		fmt.Sprintf("send(sizes %v, timeout %v)", sizes, timeout),
		func(tr *trial) { tr.send(sizes, timeout) },
	}
}

// connAction returns something that happens to the last connection at once, whatever its
// server is doing.
func (g generator) connAction() choice[func(*trial)] {
	n := g.IntN(oneOf(g, 5, 300, 10_000))
	c := oneOf(g,
		choice[func(*resocktest.Conn)]{"drop", (*resocktest.Conn).Drop},
		choice[func(*resocktest.Conn)]{"reset", (*resocktest.Conn).Reset},
		choice[func(*resocktest.Conn)]{"half-close", func(c *resocktest.Conn) { _ = c.HalfClose() }},
		choice[func(*resocktest.Conn)]{"stop reading", (*resocktest.Conn).StopReading},
		choice[func(*resocktest.Conn)]{"stop reading", (*resocktest.Conn).StopReading},
		choice[func(*resocktest.Conn)]{"start reading", (*resocktest.Conn).StartReading},
		choice[func(*resocktest.Conn)]{fmt.Sprint("cut after ", n), func(c *resocktest.Conn) { c.CutAfter(n) }},
		choice[func(*resocktest.Conn)]{"silence", func(c *resocktest.Conn) { c.IgnorePings(); c.StopReading() }},
		choice[func(*resocktest.Conn)]{"ignore pings", (*resocktest.Conn).IgnorePings},
		choice[func(*resocktest.Conn)]{"ignore close", (*resocktest.Conn).IgnoreClose},
	)
	return choice[func(*trial)]{"conn: " + c.text, func(tr *trial) {
		if p := tr.lastPeer(); p != nil {
			c.pick(p.conn)
		}
	}}
}

// violations are bytes that a server must not send.
var violations = []choice[[]byte]{
	{"masked", []byte{rig.Fin | rig.Text, 0x81, 1, 2, 3, 4, 'x'}},
	{"bad text", resocktest.Frame(rig.Fin|rig.Text, []byte("\xff"))},
	{"bad opcode", resocktest.Frame(rig.Fin|3, nil)},
	{"lone continuation", resocktest.Frame(rig.Fin, []byte("x"))},
	{"too large", []byte{rig.Fin | rig.Text, 127, 0, 0, 1, 0, 0, 0, 0, 0}},
	{"bad close", resocktest.Frame(rig.Fin|8, []byte{0x03, 0xee})},
}

// peerAction returns something that the server sends. On one connection, these happen one
// after the other.
func (g generator) peerAction() choice[func(*serverSide)] {
	switch g.IntN(12) {
	case 0:
		code := oneOf(g, 1000, 1001, 1008, 1009, 1011, 1012, 4000)
		return choice[func(*serverSide)]{fmt.Sprint("close ", code), func(p *serverSide) {
			p.over = true
			p.code = websocket.StatusCode(code)
			_ = p.conn.Close(p.code, "because")
		}}
	case 1:
		if v := oneOf(g, violations...); g.one(2) {
			return choice[func(*serverSide)]{"violation: " + v.text, func(p *serverSide) {
				p.violated = p.violated || !p.over
				p.over = true
				_ = p.conn.Raw(v.pick)
			}}
		}
	case 2, 3:
		return choice[func(*serverSide)]{"ping", func(p *serverSide) { _ = p.conn.Ping("ping") }}
	}
	bursts := make([]push, 1+g.IntN(oneOf(g, 1, 5, 40)))
	for i := range bursts {
		bursts[i].size = g.size()
		bursts[i].binary = g.one(2)
		if g.one(4) {
			bursts[i].fragments = 1 + g.IntN(5)
		}
	}
	gap := g.pause() / 10
	return choice[func(*serverSide)]{fmt.Sprintf("push(%v, gap %v)", bursts, gap), func(p *serverSide) {
		for _, push := range bursts {
			p.push(push)
			time.Sleep(gap)
		}
	}}
}

// push is a message from the server.
type push struct {
	size      int
	binary    bool
	fragments int // before the last one
}

// serverSide is the server's side of one connection.
type serverSide struct {
	conn *resocktest.Conn
	dial int // the number of the client's dial, from the path
	jobs chan func(*serverSide)

	// These belong to the goroutine that serves.
	pushed   int         // messages sent completely
	times    []time.Time // of these
	over     bool
	violated bool
	code     resock.StatusCode
}

// afterwards is added to the numbers of pushes that must not be delivered, because a
// close frame or a violation precedes them.
const afterwards = 1_000_000

func (p *serverSide) push(m push) {
	number := p.pushed + 1
	if p.over {
		number = afterwards
	}
	rest := packet('p', p.dial, number, m.size)
	first := byte(rig.Text)
	if m.binary {
		first = rig.Binary
	}
	for i := range m.fragments {
		// Fragments often split a rune.
		part := rest[:len(rest)/(m.fragments-i+1)]
		rest = rest[len(part):]
		if p.conn.Raw(resocktest.Frame(first, part)) != nil {
			return
		}
		first = 0
		if i%2 == 1 && p.conn.Ping("between") != nil {
			return
		}
	}
	if p.conn.Raw(resocktest.Frame(rig.Fin|first, rest)) == nil && !p.over {
		p.pushed++
		p.times = append(p.times, time.Now())
	}
}

// packet returns a message that differs from all others, and shows whether it is intact.
func packet(kind byte, a, b, size int) []byte {
	const filler = "plain, ñandú, → and 😀; "
	data := fmt.Appendf(nil, "%c %d %d ", kind, a, b)
	for size > len(filler) {
		data = append(data, filler...)
		size -= len(filler)
	}
	return fmt.Appendf(data, " %08x", crc32.ChecksumIEEE(data))
}

// unpack returns what a packet was made of, or an error if it is damaged.
func unpack(data []byte) (kind byte, a, b int, err error) {
	sum := data[max(0, len(data)-9):]
	body := data[:len(data)-len(sum)]
	if want := fmt.Sprintf(" %08x", crc32.ChecksumIEEE(body)); string(sum) != want {
		return 0, 0, 0, fmt.Errorf("damaged: %.40q…%q, want the sum %q", body, sum, want)
	}
	_, err = fmt.Sscanf(string(body[:min(len(body), 40)]), "%c %d %d ", &kind, &a, &b)
	return kind, a, b, err
}

// trial is one run of a plan.
type trial struct {
	*plan
	t      *testing.T
	server *resocktest.Server
	client *resock.Client
	ctx    context.Context
	end    context.CancelFunc // cancels ctx
	tasks  sync.WaitGroup     // senders and readers
	quick  chan struct{}      // closed when nothing is to be slow any more
	result error              // what Run returned

	// These belong to the goroutine of the test.
	began    time.Time
	readers  []*reader
	groups   int // how many orders of messages there are
	resumes  int // how often the client may dial at once
	ranAt    time.Time
	stopped  time.Time // when the client was told to end
	byClose  bool
	closed   bool
	canceled bool
	sealed   time.Time // when Shutdown was called
	doneAt   time.Time
	held     []span // when the client had to stay off
	holding  map[string]time.Time

	mu        sync.Mutex
	online    bool
	changed   func()
	dials     int
	peers     []*serverSide
	parcels   []*parcel
	consumed  map[uint64]int // messages that OnOpen received, by session
	now, most int            // how many OnOpen run, and ran at once
	handled   [][]byte
	flushes   []*cover // of the calls that returned nil
}

// cover is what a Flush or a Shutdown has to wait for: the messages without an outcome
// when it was called.
type cover struct {
	parcels []*parcel
	name    string
	at      time.Time
}

// span is an interval of time.
type span struct{ from, to time.Time }

// reader is a subscriber.
type reader struct {
	late    bool
	drop    bool          // OverflowDropOldest
	silent  bool          // WithoutMessages
	stream  bool          // Messages
	answers bool          // it answers each message by Send
	pause   time.Duration // how long it pauses
	every   int           // after how many events it does, or 0

	leave  context.CancelFunc
	left   bool
	events []resock.Event
}

// slow reports whether r may miss whole attempts.
func (r *reader) slow() bool { return r.every > 0 || r.answers }

// parcel is a message from the client.
type parcel struct {
	id       int
	order    int // messages with the same order, unless it is 0, arrive in sequence
	hook     bool
	at       time.Time
	ttl      time.Duration
	session  uint64        // the session that it is bound to, or 0
	dial     int           // the dial whose OnOpen bound it, or 0
	timeout  time.Duration // of the Send, or 0
	outcomes int
	err      error
	settled  time.Time
}

// enqueued is the order of all messages that the goroutine of the test enqueues.
const enqueued = 1

func newTrial(t *testing.T, p *plan) *trial {
	tr := &trial{plan: p, t: t, began: time.Now(), online: true, quick: make(chan struct{}), groups: enqueued,
		consumed: map[uint64]int{}, holding: map[string]time.Time{}}
	tr.server = resocktest.NewMemory(t)
	if p.secure {
		tr.server.Close()
		tr.server = resocktest.NewTLSMemory(t)
	}
	var steps []resocktest.Step
	for _, arrival := range p.arrivals {
		steps = append(steps, arrival.pick(tr))
	}
	tr.server.Script(append(steps, resocktest.Serve(tr.serve(func(*serverSide) {})))...)

	opts := []resock.Option{
		resock.WithDialOptions(&websocket.DialOptions{HTTPClient: tr.server.Client()}),
		resock.WithEndpoint(tr.endpoint),
	}
	for _, option := range p.options {
		opts = append(opts, option.pick)
	}
	if p.handler {
		opts = append(opts, resock.WithMessageHandler(tr.handle))
	}
	if p.filters {
		opts = append(opts, resock.WithFilter(tr.filter))
	}
	if p.offline {
		opts = append(opts, resock.WithNetwork(tr))
	}
	if p.hookReceives || p.hookSends || p.hookBinds || p.hookTakes > 0 {
		opts = append(opts, resock.WithOnOpen(tr.onOpen))
	}
	var err error
	if tr.client, err = resock.New(tr.server.URL, opts...); err != nil {
		t.Fatal(err)
	}
	tr.ctx, tr.end = context.WithCancel(t.Context())
	tr.tasks.Go(func() {
		<-tr.client.Done()
		tr.doneAt = time.Now()
	})
	return tr
}

// run carries out the plan. When it returns, nothing runs any more, and the server has
// recorded what it received.
func (tr *trial) run() {
	for i, action := range tr.actions {
		if i == tr.beforeRun {
			tr.start()
		}
		time.Sleep(action.pause)
		action.pick(tr)
	}
	if len(tr.actions) <= tr.beforeRun {
		tr.start()
	}
	if tr.settle && tr.stopped.IsZero() {
		tr.checkSettled()
	}
	if tr.stopped.IsZero() {
		if len(tr.actions)%3 == 0 {
			tr.cancel()
		} else {
			tr.close()
		}
	}
	<-tr.client.Done()
	close(tr.quick)
	tr.tasks.Wait()
	tr.end()
	for _, r := range tr.readers {
		r.leave()
	}
	tr.becomeReadable()
	synctest.Wait() // until everything under way has arrived
	tr.server.Close()
}

func (tr *trial) start() {
	tr.ranAt = time.Now()
	tr.tasks.Go(func() { tr.result = tr.client.Run(tr.ctx) })
}

// becomeWell ends all faults of the server and of the network.
func (tr *trial) becomeWell() {
	tr.server.Restart()
	tr.setOnline(true)
	tr.resume()
	close(tr.quick)
	tr.quick = make(chan struct{})
	tr.becomeReadable()
}

// becomeReadable has the server read what it has not read yet.
func (tr *trial) becomeReadable() {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range tr.peers {
		p.conn.StartReading()
		p.conn.AnswerPings()
	}
}

// endpoint gives each dial a path of its own, so that the URL of an OpenEvent identifies
// the connection.
func (tr *trial) endpoint(context.Context, resock.Attempt) (resock.Endpoint, error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.dials++
	if tr.revoked > 0 && tr.dials >= tr.revoked {
		return resock.Endpoint{}, backoff.Permanent(rig.ErrTest)
	}
	return resock.Endpoint{URL: fmt.Sprintf("%s/%d", tr.server.URL, tr.dials)}, nil
}

// serve returns the handler of a connection.
func (tr *trial) serve(habit func(*serverSide)) func(*resocktest.Conn) {
	return func(c *resocktest.Conn) {
		p := &serverSide{conn: c, dial: dialOf(c.Request().URL.Path), jobs: make(chan func(*serverSide), 100)}
		tr.mu.Lock()
		tr.peers = append(tr.peers, p)
		tr.mu.Unlock()
		tr.registered(p)
		if tr.hookReceives {
			p.push(push{size: 10})
		}
		habit(p)
		for {
			select {
			case job := <-p.jobs:
				job(p)
			case <-c.Done():
				return
			}
		}
	}
}

// dialOf returns the number in the path of a URL.
func dialOf(url string) int {
	n, _ := strconv.Atoi(url[strings.LastIndex(url, "/")+1:])
	return n
}

func (tr *trial) lastPeer() *serverSide {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if len(tr.peers) == 0 {
		return nil
	}
	return tr.peers[len(tr.peers)-1]
}

// post queues a job for the last peer, to be done after its other jobs.
func (tr *trial) post(job func(*serverSide)) {
	if p := tr.lastPeer(); p != nil {
		p.post(job)
	}
}

func (tr *trial) onOpen(ctx context.Context, s *resock.Session) error {
	tr.mu.Lock()
	tr.consumed[s.ID()] = 0
	tr.now++
	tr.most = max(tr.most, tr.now)
	dial := tr.dials
	tr.mu.Unlock()
	defer func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.now--
	}()
	if tr.hookBinds {
		tr.bind(s, dial)
	}
	tr.linger(ctx)
	if tr.hookReceives {
		if _, _, err := s.Receive(ctx); err != nil {
			return err
		}
		tr.mu.Lock()
		tr.consumed[s.ID()]++
		tr.mu.Unlock()
	}
	if tr.hookSends {
		p := tr.newParcel(0)
		p.hook = true
		err := s.Send(ctx, resock.MessageText, packet('o', p.id, 0, 20))
		tr.settled(p, err)
		return err
	}
	return nil
}

func (tr *trial) handle(_ context.Context, m resock.MessageEvent) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.handled = append(tr.handled, append([]byte(nil), m.Data...))
	if tr.handlerSends {
		tr.mu.Unlock()
		tr.answer()
		tr.mu.Lock()
	}
}

// answer sends a message, without a timeout.
func (tr *trial) answer() {
	p := tr.newParcel(0)
	tr.settled(p, tr.client.Send(context.Background(), resock.MessageText, packet('o', p.id, 0, 10)))
}

// filter lets all messages pass, and is slow for some.
func (tr *trial) filter(_ context.Context, m resock.MessageEvent) bool {
	if _, _, number, err := unpack(m.Data); err != nil {
		tr.t.Error("the filter got a message that is ", err)
	} else if number%10 == 0 {
		time.Sleep(time.Duration(number) * time.Millisecond)
	}
	return true
}

func (tr *trial) subscribe(shape reader, opts ...resock.SubscribeOption) {
	r := &shape
	ctx, leave := context.WithCancel(context.Background())
	r.leave = leave
	tr.readers = append(tr.readers, r)
	quick := tr.quick
	take := func(event resock.Event) {
		r.events = append(r.events, event)
		if _, message := event.(resock.MessageEvent); message && r.answers {
			tr.answer()
		}
		if r.every > 0 && len(r.events)%r.every == 0 {
			select {
			case <-time.After(r.pause):
			case <-quick:
			}
		}
	}
	if r.stream {
		messages := tr.client.Messages(ctx, opts...)
		tr.tasks.Go(func() {
			for m := range messages {
				m.Data = bytes.Clone(m.Data)
				m.Data = m.Data[:len(m.Data):len(m.Data)]
				take(m)
			}
		})
		return
	}
	events := tr.client.Subscribe(ctx, opts...)
	tr.tasks.Go(func() {
		for event := range events {
			take(event)
		}
	})
}

// leave makes a subscriber leave, but never the first.
func (tr *trial) leave(nth int) {
	if len(tr.readers) > 1 {
		r := tr.readers[1+nth%(len(tr.readers)-1)]
		r.left = true
		r.leave()
	}
}

func (tr *trial) newParcel(order int) *parcel {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	p := &parcel{id: len(tr.parcels), order: order, at: time.Now()}
	tr.parcels = append(tr.parcels, p)
	return p
}

func (tr *trial) settled(p *parcel, err error) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	p.outcomes++
	p.err, p.settled = err, time.Now()
}

// enqueue enqueues a message, and, if again is set, another one when its outcome is
// told.
func (tr *trial) enqueue(size int, ttl time.Duration, again bool) {
	tr.enqueueParcel(tr.newParcel(enqueued), size, ttl, again)
}

func (tr *trial) enqueueParcel(p *parcel, size int, ttl time.Duration, again bool) {
	opts := []resock.SendOption{resock.WithResult(func(err error) {
		tr.settled(p, err)
		if again {
			tr.enqueueParcel(tr.newParcel(0), size, ttl, false)
		}
	})}
	if ttl > 0 {
		p.ttl = ttl
		opts = append(opts, resock.WithTTL(ttl))
	}
	if err := tr.client.Enqueue(resock.MessageText, packet('o', p.id, 0, size), opts...); err != nil {
		tr.settled(p, err)
	}
}

// send sends messages one after another, on a goroutine of its own.
func (tr *trial) send(sizes []int, timeout time.Duration) {
	tr.groups++
	group := tr.groups
	tr.tasks.Go(func() {
		for _, size := range sizes {
			ctx, cancel := context.WithTimeout(context.Background(), timeout)
			p := tr.newParcel(group)
			p.timeout = timeout
			tr.settled(p, tr.client.Send(ctx, resock.MessageBinary, packet('o', p.id, 0, size)))
			cancel()
		}
	})
}

// sendTTL sends a message that may expire, on a goroutine of its own.
func (tr *trial) sendTTL(size int, ttl time.Duration) {
	p := tr.newParcel(0)
	p.ttl, p.timeout = ttl, ttl
	tr.tasks.Go(func() {
		tr.settled(p, tr.client.Send(context.Background(), resock.MessageBinary, packet('o', p.id, 0, size), resock.WithTTL(ttl)))
	})
}

// enqueueInSession enqueues a message bound to the last session, or to one that many
// sessions ahead.
func (tr *trial) enqueueInSession(size int, ahead uint64) {
	p := tr.newParcel(enqueued)
	p.session = max(1, tr.client.Stats().Session+ahead)
	err := tr.client.Enqueue(resock.MessageText, packet('o', p.id, 0, size), resock.WithSession(p.session),
		resock.WithResult(func(err error) { tr.settled(p, err) }))
	if err != nil {
		tr.settled(p, err)
	}
}

// unsettled returns the enqueued messages that have no outcome yet.
func (tr *trial) unsettled(name string) *cover {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	c := &cover{name: name, at: time.Now()}
	for _, p := range tr.parcels {
		if p.order == enqueued && p.outcomes == 0 {
			c.parcels = append(c.parcels, p)
		}
	}
	return c
}

// flush calls Flush on a goroutine of its own.
func (tr *trial) flush(timeout time.Duration) {
	c := tr.unsettled("Flush")
	tr.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		switch err := tr.client.Flush(ctx); {
		case err == nil:
			tr.covered(c)
		case errors.Is(err, resock.ErrMaybeSent), errors.Is(err, resock.ErrClosed), errors.Is(err, context.DeadlineExceeded):
		case strings.Contains(err.Error(), "delivery was blocked"):
		default:
			tr.t.Error("Flush: ", err)
		}
	})
}

// covered checks that everything that c covers has an outcome, and records c.
func (tr *trial) covered(c *cover) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for _, p := range c.parcels {
		if p.outcomes == 0 {
			tr.t.Errorf("%s returned nil, but message %d has no outcome", c.name, p.id)
		}
	}
	tr.flushes = append(tr.flushes, c)
}

// shutdown calls Shutdown on a goroutine of its own.
func (tr *trial) shutdown(timeout time.Duration) {
	if !tr.sealed.IsZero() || !tr.stopped.IsZero() {
		return
	}
	tr.sealed = time.Now()
	c := tr.unsettled("Shutdown")
	tr.tasks.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		err := tr.client.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = tr.client.Shutdown(context.Background())
		}
		switch {
		case err == nil:
			tr.covered(c)
		case !errors.Is(err, resock.ErrNotSent):
			tr.t.Error("Shutdown: ", err)
		}
	})
}

// hold records that the client must not dial from now on.
func (tr *trial) hold(why string) {
	if _, ok := tr.holding[why]; !ok {
		tr.holding[why] = time.Now()
	}
}

func (tr *trial) unhold(why string) {
	if from, ok := tr.holding[why]; ok {
		tr.resumes++
		tr.held = append(tr.held, span{from, time.Now()})
		delete(tr.holding, why)
	}
}

func (tr *trial) suspend() {
	tr.hold("suspended")
	tr.client.Suspend()
}

func (tr *trial) resume() {
	tr.client.Resume()
	tr.unhold("suspended")
}

func (tr *trial) stop() {
	tr.hold("stopped")
	if tr.stopped.IsZero() {
		tr.stopped, tr.byClose = time.Now(), tr.closed
	}
}

func (tr *trial) close() {
	tr.closed = true
	if err := tr.client.Close(4999, "enough"); err != nil {
		tr.t.Error(err)
	}
	tr.stop()
}

func (tr *trial) cancel() {
	tr.canceled = true
	tr.end()
	tr.stop()
}

func (tr *trial) setOnline(online bool) {
	tr.mu.Lock()
	tr.online = online
	changed := tr.changed
	tr.mu.Unlock()
	switch {
	case !tr.offline:
		return
	case online:
		tr.unhold("offline")
	default:
		tr.hold("offline")
	}
	if changed != nil {
		changed()
	}
}

// Online and OnChange make a trial a resock.Network.
func (tr *trial) Online() bool {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.online
}

func (tr *trial) OnChange(changed func()) (stop func()) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.changed = changed
	return func() {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		tr.changed = nil
	}
}
