package trials

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// The matrix is the proof that nothing freezes the client: from inside of every
// callback every method is called, with a context that does not end, and then anything
// happens. Another session opens, or the client is closed in time, with Run to follow as
// soon as the callback returns.

// What a trial waits for, in virtual time.
const (
	matrixClose = 2 * time.Second        // the close timeout
	matrixSlack = 100 * time.Millisecond // beyond it, until Done is closed
	matrixOpens = 2 * time.Minute        // until another session is open
)

// A matrixCallback is a function of the application that the client calls, or a loop
// that it feeds. It calls do, again and again.
type matrixCallback struct {
	name   string
	hook   string                                 // its name in the log, if it is one
	option func(do func()) resock.Option          // or
	loop   func(client *resock.Client, do func()) // until the client is closed
	early  bool                                   // is called once, by Run, and not in a session
	always bool                                   // do does not stop after matrixCalls
}

// matrixCalls is how often a callback calls the client: more often than it is once in
// the wrong place, and less often than attempts are left behind (see TestFault57).
const matrixCalls = 3

var matrixCallbacks = []matrixCallback{
	{name: "consumer", loop: func(client *resock.Client, do func()) {
		for range rig.Abandon(context.Background(), client) {
			do()
		}
	}},
	{name: "Messages", loop: func(client *resock.Client, do func()) {
		for range client.Messages(context.Background()) {
			do()
		}
	}},
	{name: "handler", hook: "WithMessageHandler", option: func(do func()) resock.Option {
		return resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { do() })
	}},
	{name: "filter", hook: "WithFilter", option: func(do func()) resock.Option {
		return resock.WithFilter(func(context.Context, resock.MessageEvent) bool { do(); return true })
	}},
	{name: "ping hook", hook: "OnPingReceived", option: rig.OnPing},
	{name: "pong hook", hook: "OnPongReceived", option: rig.OnPong},
	{name: "OnOpen", hook: "WithOnOpen", option: matrixOnOpen},
	{name: "OnOpen, always", hook: "WithOnOpen", option: matrixOnOpen, always: true},
	{name: "endpoint", hook: "WithEndpoint", option: matrixEndpoint},
	{name: "endpoint, always", hook: "WithEndpoint", option: matrixEndpoint, always: true},
	{name: "dial limiter", hook: "WithDialLimiter", option: func(do func()) resock.Option {
		return resock.WithDialLimiter(rig.Limiter(func(context.Context) error { do(); return nil }))
	}},
	{name: "send limiter", hook: "WithSendLimiter", option: func(do func()) resock.Option {
		return resock.WithSendLimiter(rig.Limiter(func(context.Context) error { do(); return nil }))
	}},
	{name: "result", hook: "WithResult", loop: func(client *resock.Client, do func()) {
		matrixTalk(client, resock.WithResult(func(error) { do() }))
	}},
	{name: "heartbeat message", hook: "WithHeartbeatMessage", option: func(do func()) resock.Option {
		return resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { do(); return resock.MessageText, nil })
	}},
	{name: "retry policy", hook: "WithRetryPolicy", option: func(do func()) resock.Option {
		return resock.WithRetryPolicy(func(f resock.Failure) resock.Decision { do(); return resock.DefaultRetryPolicy(f) })
	}},
	{name: "backoff policy", hook: "WithBackoffPolicy", option: func(do func()) resock.Option {
		delay := rig.BackOff(func() time.Duration { do(); return time.Second })
		return resock.WithBackoffPolicy(func() backoff.BackOff { return delay })
	}},
	{name: "backoff policy, made", hook: "WithBackoffPolicy", early: true, option: func(do func()) resock.Option {
		return resock.WithBackoffPolicy(func() backoff.BackOff { do(); return backoff.NewConstantBackOff(time.Second) })
	}},
	{name: "Online", hook: "WithNetwork", option: func(do func()) resock.Option {
		return resock.WithNetwork(rig.Online(func() bool { do(); return true }))
	}},
	{name: "OnChange", hook: "WithNetwork", early: true, option: func(do func()) resock.Option {
		return resock.WithNetwork(matrixNetwork(do))
	}},
	{name: "log handler", option: func(do func()) resock.Option {
		return resock.WithLogger(slog.New(matrixLog{slog.DiscardHandler, func() bool { return true }, do}))
	}},
	{name: "log handler, enabled", option: func(do func()) resock.Option {
		return resock.WithLogger(slog.New(matrixLog{slog.DiscardHandler, func() bool { do(); return true }, func() {}}))
	}},
}

// matrixTalk sends every second until the client is closed.
func matrixTalk(client *resock.Client, opts ...resock.SendOption) {
	for client.State() != resock.StateClosed {
		_ = client.Enqueue(resock.MessageText, nil, opts...)
		select {
		case <-time.After(time.Second):
		case <-client.Done():
			return
		}
	}
}

func matrixOnOpen(do func()) resock.Option {
	return resock.WithOnOpen(func(context.Context, *resock.Session) error { do(); return nil })
}

func matrixEndpoint(do func()) resock.Option {
	return resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) {
		do()
		return resock.Endpoint{}, nil
	})
}

// matrixNetwork is a network whose OnChange does something.
type matrixNetwork func()

func (matrixNetwork) Online() bool                     { return true }
func (do matrixNetwork) OnChange(func()) (stop func()) { do(); return func() {} }

// matrixLog is a log handler that does something.
type matrixLog struct {
	slog.Handler
	enabled func() bool
	handle  func()
}

func (l matrixLog) Enabled(context.Context, slog.Level) bool  { return l.enabled() }
func (l matrixLog) Handle(context.Context, slog.Record) error { l.handle(); return nil }

// A matrixMethod calls a method of the client. ctx ends with the trial, and so never for
// what the trial is about.
type matrixMethod struct {
	name   string
	call   func(ctx context.Context, client *resock.Client)
	closes bool                 // the client
	shuts  bool                 // the client, when all is sent
	undo   func(*resock.Client) // is called by somebody else, later
}

var matrixMethods = []matrixMethod{
	{name: "Send", call: func(ctx context.Context, client *resock.Client) {
		_ = client.Send(ctx, resock.MessageText, nil)
	}},
	{name: "Enqueue", call: func(_ context.Context, client *resock.Client) {
		_ = client.Enqueue(resock.MessageText, nil)
	}},
	{name: "Flush", call: func(ctx context.Context, client *resock.Client) {
		_ = client.Enqueue(resock.MessageText, nil) // there is something to wait for
		_ = client.Flush(ctx)
	}},
	{name: "Shutdown", shuts: true, call: func(ctx context.Context, client *resock.Client) { _ = client.Shutdown(ctx) }},
	{name: "Close", closes: true, call: func(_ context.Context, client *resock.Client) {
		_ = client.Close(resock.StatusNormalClosure, "")
	}},
	{name: "Suspend", undo: (*resock.Client).Resume, call: func(_ context.Context, client *resock.Client) { client.Suspend() }},
	{name: "Resume", call: func(_ context.Context, client *resock.Client) { client.Resume() }},
	{name: "Reconnect", call: func(_ context.Context, client *resock.Client) { client.Reconnect() }},
	{name: "Subscribe", call: func(ctx context.Context, client *resock.Client) { <-rig.Abandon(ctx, client) }},
	{name: "Subscribe to the end", call: func(ctx context.Context, client *resock.Client) {
		for range rig.Abandon(ctx, client) {
		}
	}},
	{name: "Messages", call: func(ctx context.Context, client *resock.Client) {
		for range client.Messages(ctx) {
			break
		}
	}},
	{name: "Messages to the end", call: func(ctx context.Context, client *resock.Client) {
		for range client.Messages(ctx) {
		}
	}},
	{name: "State", call: func(_ context.Context, client *resock.Client) { client.State() }},
	{name: "Stats", call: func(_ context.Context, client *resock.Client) { client.Stats() }},
	{name: "Err", call: func(_ context.Context, client *resock.Client) { _ = client.Err() }},
	{name: "Run", call: func(ctx context.Context, client *resock.Client) { _ = client.Run(ctx) }},
	{name: "Done", call: func(ctx context.Context, client *resock.Client) {
		select {
		case <-client.Done():
		case <-ctx.Done():
		}
	}},
	{name: "WaitOpen", call: func(ctx context.Context, client *resock.Client) { _ = client.WaitOpen(ctx) }},
}

// A matrixEvent is what happens while the callback is in the call.
type matrixEvent struct {
	name    string
	happens func(s *resocktest.Server, client *resock.Client)
	age     time.Duration // of sessions, at most
	closes  bool          // the client
}

var matrixEvents = []matrixEvent{
	{name: "lost", happens: func(s *resocktest.Server, _ *resock.Client) { matrixDrop(s) }},
	{name: "refused", happens: func(s *resocktest.Server, _ *resock.Client) {
		s.Stop()
		time.Sleep(20 * time.Second)
		s.Restart()
	}},
	{name: "closed", closes: true, happens: func(_ *resocktest.Server, client *resock.Client) {
		_ = client.Close(resock.StatusNormalClosure, "")
	}},
	{name: "suspended", happens: func(_ *resocktest.Server, client *resock.Client) {
		client.Suspend()
		time.Sleep(5 * time.Second)
		client.Resume()
	}},
	{name: "old", age: 10 * time.Second, happens: func(*resocktest.Server, *resock.Client) { time.Sleep(10 * time.Second) }},
}

func matrixDrop(s *resocktest.Server) {
	for _, c := range s.Conns() {
		c.Drop()
	}
}

// A matrixException tells of cells in which less is promised, and what then is: the
// client is closed in time but where Done is held, and the log names the hook where it
// overstays.
type matrixException struct {
	callback string
	methods  []string
	never    bool // no session opens
	holds    bool // Done waits for the callback
	why      string
}

var matrixExceptions = []matrixException{
	{callback: "dial limiter", methods: matrixWaits, never: true,
		why: "a limiter may let an attempt wait for any time, and no session opens without one"},
	{callback: "endpoint, always", methods: matrixWaits, never: true,
		why: "no session opens before the hook has told where"},
	{callback: "OnOpen, always", methods: matrixWaits, never: true,
		why: "no session opens before the hook has returned"},
	{callback: "endpoint, always", methods: []string{"Suspend"}, never: true,
		why: "each attempt is suspended"},
	{callback: "OnOpen, always", methods: []string{"Suspend"}, never: true,
		why: "each attempt is suspended"},
	{callback: "result", methods: []string{"Done", "Shutdown"}, holds: true,
		why: "every result is told before Done"},
}

// matrixWaits are the calls that wait for an open session, or longer.
var matrixWaits = []string{
	"Send", "Flush", "Shutdown", "Subscribe", "Subscribe to the end", "Messages", "Messages to the end", "Done", "WaitOpen",
}

func TestMatrix(t *testing.T) {
	for _, callback := range matrixCallbacks {
		for _, method := range matrixMethods {
			for _, event := range matrixEvents {
				t.Run(fmt.Sprintf("%s/%s/%s", callback.name, method.name, event.name), func(t *testing.T) {
					rig.Virtual(t, func(t *testing.T, s *resocktest.Server) { matrixTrial(t, s, callback, method, event) })
				})
			}
		}
	}
	for i, client := 0, reflect.TypeFor[*resock.Client](); i < client.NumMethod(); i++ {
		name := client.Method(i).Name
		if !slices.ContainsFunc(matrixMethods, func(m matrixMethod) bool { return m.name == name }) {
			t.Errorf("%s is missing", name)
		}
	}
}

func matrixTrial(t *testing.T, s *resocktest.Server, callback matrixCallback, method matrixMethod, event matrixEvent) {
	t.Log(t.Name())
	exception := matrixException{}
	for _, e := range matrixExceptions {
		if e.callback == callback.name && slices.Contains(e.methods, method.name) {
			exception = e
		}
	}
	client := startMatrix(t, s, callback, method, event.age)
	client.enter(t, s, callback.early)
	began := time.Now()
	synctest.Wait() // the method waits, if it does
	last := client.Stats().Session
	event.happens(s, client.Client)

	opened, closes := client.opens(last+1, method.undo), event.closes || method.closes
	shut := method.shuts && client.State() == resock.StateClosed
	if !closes && !shut && opened == exception.never {
		t.Errorf("opened %t, %+v", opened, client.Stats())
	}

	if !closes {
		began = time.Now()
		_ = client.Close(resock.StatusNormalClosure, "")
	}
	select {
	case at := <-client.closed:
		if took := at.Sub(began); took > matrixClose+matrixSlack || exception.holds {
			t.Errorf("closed %v after Close", took)
		}
	case <-time.After(matrixClose + matrixSlack):
		if !exception.holds {
			t.Errorf("not closed: %+v", client.Stats())
		}
	}

	client.release()
	select {
	case <-client.over:
	case <-time.After(matrixSlack):
		t.Errorf("not over: %+v", client.Stats())
	}
	// WaitOpen returns at Close, which is all that ends the wait of a limiter.
	returns := method.name == "WaitOpen" && (event.closes || callback.name == "dial limiter")
	overstays := method.name == "Done" || exception.why != "" && slices.Contains(matrixWaits, method.name) && !returns
	if callback.hook != "" && overstays && !strings.Contains(client.log.String(), "hook="+callback.hook) {
		t.Errorf("the log does not name %s:\n%s", callback.hook, client.log)
	}
}

// matrixClient is a client that runs, and whose callback calls it.
type matrixClient struct {
	*resock.Client
	log     *rig.Log
	armed   atomic.Bool        // the callback is to call it
	calls   atomic.Int32       // how often it did
	entered chan struct{}      // that it does
	release context.CancelFunc // lets it return
	closed  chan time.Time     // when the client was
	over    chan struct{}      // closed when Run and all loops have returned
}

func startMatrix(t *testing.T, s *resocktest.Server, callback matrixCallback, method matrixMethod, age time.Duration) *matrixClient {
	t.Helper()
	s.Handle(func(c *resocktest.Conn) {
		for c.Push("message") == nil && c.Ping("ping") == nil && c.Pong("pong") == nil {
			time.Sleep(100 * time.Millisecond)
		}
	})
	c := &matrixClient{log: new(rig.Log), entered: make(chan struct{}, 1), closed: make(chan time.Time, 1), over: make(chan struct{})}
	ctx, release := context.WithCancel(context.Background())
	c.release = release
	do := func() {
		if c.armed.Load() && (c.calls.Add(1) <= matrixCalls || callback.always) {
			select {
			case c.entered <- struct{}{}:
			default:
			}
			method.call(ctx, c.Client)
		}
	}
	opts := []resock.Option{
		resock.WithLogger(slog.New(slog.NewTextHandler(c.log, nil))),
		resock.WithDialTimeout(2 * time.Second),
		resock.WithCloseTimeout(matrixClose),
		resock.WithHeartbeat(time.Second, time.Second),
		resock.WithMaxSessionAge(age),
		resock.WithHTTPClient(s.Client()),
		matrixEndpoint(func() {}), // which is not to blame
	}
	if callback.option != nil {
		opts = append(opts, callback.option(do))
	}
	c.Client = rig.Bare(t, s.URL, opts...)
	t.Cleanup(release) // before the client is waited for

	c.armed.Store(callback.early)
	var tasks sync.WaitGroup
	if callback.loop != nil {
		tasks.Go(func() { callback.loop(c.Client, do) })
	}
	tasks.Go(func() { matrixTalk(c.Client) })
	tasks.Go(func() { _ = c.Run(context.Background()) })
	go func() {
		<-c.Done()
		c.closed <- time.Now()
		tasks.Wait()
		close(c.over)
	}()
	return c
}

// enter waits until the callback calls the client, in a session or after it.
func (c *matrixClient) enter(t *testing.T, s *resocktest.Server, early bool) {
	t.Helper()
	if !early {
		rig.OpensWithin(t, c.Client, 1, time.Minute)
		c.armed.Store(true)
	}
	select {
	case <-c.entered:
		return
	case <-time.After(3 * time.Second):
	}
	matrixDrop(s)
	select {
	case <-c.entered:
	case <-time.After(time.Minute):
		t.Fatal("the callback was not called")
	}
}

// opens waits until session n is open, or the client is closed.
func (c *matrixClient) opens(n uint64, undo func(*resock.Client)) bool {
	for deadline := time.Now().Add(matrixOpens); c.State() != resock.StateClosed && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
		if undo != nil {
			undo(c.Client)
		}
		if stats := c.Stats(); stats.State == resock.StateOpen && stats.Session >= n {
			return true
		}
	}
	return false
}
