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

// The matrix shows that no callback can freeze the client: every callback calls every
// method, with a context that does not end, and meanwhile every event happens. Then
// another session must open, or the client must close in time, and Run must return as
// soon as the callback does.

// How long a trial waits, in virtual time.
const (
	matrixClose = 2 * time.Second        // the close timeout
	matrixSlack = 100 * time.Millisecond // beyond the close timeout, until Done is closed
	matrixOpens = 2 * time.Minute        // until another session is open
)

// A matrixCallback is a function of the application that the client calls, or a loop
// over its events. It calls do each time.
type matrixCallback struct {
	name   string
	hook   string                                 // its name in the log, if it is a hook
	option func(do func()) resock.Option          // either this
	loop   func(client *resock.Client, do func()) // or this, which runs until the client is closed
	early  bool                                   // it is called once, at the start of Run
	always bool                                   // it calls the client more than matrixCalls times
}

// matrixCalls is how often a callback calls the client: more than once, so that a second
// call is tried, and less often than attempts may be abandoned (see TestFault57).
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

// matrixNetwork is a network whose OnChange is the callback.
type matrixNetwork func()

func (matrixNetwork) Online() bool                     { return true }
func (do matrixNetwork) OnChange(func()) (stop func()) { do(); return func() {} }

// matrixLog is a log handler whose methods may be the callback.
type matrixLog struct {
	slog.Handler
	enabled func() bool
	handle  func()
}

func (l matrixLog) Enabled(context.Context, slog.Level) bool  { return l.enabled() }
func (l matrixLog) Handle(context.Context, slog.Record) error { l.handle(); return nil }

// A matrixMethod calls a method of the client. Its ctx ends only with the trial.
type matrixMethod struct {
	name   string
	call   func(ctx context.Context, client *resock.Client)
	closes bool                 // it closes the client
	shuts  bool                 // it closes the client when everything is sent
	undo   func(*resock.Client) // called later, outside the callback
}

var matrixMethods = []matrixMethod{
	{name: "Send", call: func(ctx context.Context, client *resock.Client) {
		_ = client.Send(ctx, resock.MessageText, nil)
	}},
	{name: "Enqueue", call: func(_ context.Context, client *resock.Client) {
		_ = client.Enqueue(resock.MessageText, nil)
	}},
	{name: "Flush", call: func(ctx context.Context, client *resock.Client) {
		_ = client.Enqueue(resock.MessageText, nil) // something to wait for
		_ = client.Flush(ctx)
	}},
	{name: "Shutdown", shuts: true, call: func(ctx context.Context, client *resock.Client) { _ = client.Shutdown(ctx) }},
	{name: "Close", closes: true, call: func(_ context.Context, client *resock.Client) {
		_ = client.Close(resock.StatusNormalClosure, "")
	}},
	{name: "Suspend", undo: (*resock.Client).Resume, call: func(_ context.Context, client *resock.Client) { client.Suspend() }},
	{name: "Resume", call: func(_ context.Context, client *resock.Client) { client.Resume() }},
	{name: "Reconnect", call: func(_ context.Context, client *resock.Client) { client.Reconnect() }},
	{name: "Handover", call: func(_ context.Context, client *resock.Client) { client.Handover() }},
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

// A matrixEvent is what happens while the callback is calling the client.
type matrixEvent struct {
	name    string
	happens func(s *resocktest.Server, client *resock.Client)
	age     time.Duration // the maximum session age, or 0
	overlap time.Duration // of a handover, or 0
	closes  bool          // it closes the client
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
	{name: "replaced", overlap: time.Second, happens: func(_ *resocktest.Server, client *resock.Client) { client.Handover() }},
}

func matrixDrop(s *resocktest.Server) {
	for _, c := range s.Conns() {
		c.Drop()
	}
}

// A matrixException is a set of cells in which less is promised. The client still closes
// in time, unless holds is set, and the log names the hook that does not return.
type matrixException struct {
	callback string
	methods  []string
	never    bool // no further session opens
	holds    bool // Done waits for the callback
	why      string
}

var matrixExceptions = []matrixException{
	{callback: "dial limiter", methods: matrixWaits, never: true,
		why: "a limiter may delay an attempt for any time, and no session opens without an attempt"},
	{callback: "endpoint, always", methods: matrixWaits, never: true,
		why: "no session opens before the hook has returned the endpoint"},
	{callback: "OnOpen, always", methods: matrixWaits, never: true,
		why: "no session opens before the hook has returned"},
	{callback: "endpoint, always", methods: []string{"Suspend"}, never: true,
		why: "the hook suspends each attempt"},
	{callback: "OnOpen, always", methods: []string{"Suspend"}, never: true,
		why: "the hook suspends each attempt"},
	{callback: "result", methods: []string{"Done", "Shutdown"}, holds: true,
		why: "every outcome is told before Done is closed"},
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
			t.Errorf("no matrixMethod calls %s", name)
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
	client := startMatrix(t, s, callback, method, event)
	client.enter(t, s, callback.early)
	began := time.Now()
	synctest.Wait() // until the method blocks, if it does
	last := client.Stats().Session
	event.happens(s, client.Client)

	opened, closes := client.opens(last+1, method.undo), event.closes || method.closes
	shut := method.shuts && client.State() == resock.StateClosed
	if !closes && !shut && opened == exception.never {
		t.Errorf("a session opened: %t, want %t; %+v", opened, !exception.never, client.Stats())
	}

	if !closes {
		began = time.Now()
		_ = client.Close(resock.StatusNormalClosure, "")
	}
	select {
	case at := <-client.closed:
		if took := at.Sub(began); took > matrixClose+matrixSlack || exception.holds {
			t.Errorf("closed %v after Close, want within the close timeout, or not before the callback returns", took)
		}
	case <-time.After(matrixClose + matrixSlack):
		if !exception.holds {
			t.Errorf("not closed within the close timeout: %+v", client.Stats())
		}
	}

	client.release()
	select {
	case <-client.over:
	case <-time.After(matrixSlack):
		t.Errorf("Run or a loop has not returned after the callback did: %+v", client.Stats())
	}
	// WaitOpen returns at Close, which is all that ends the wait of a limiter.
	returns := method.name == "WaitOpen" && (event.closes || callback.name == "dial limiter")
	overstays := method.name == "Done" || exception.why != "" && slices.Contains(matrixWaits, method.name) && !returns
	if callback.hook != "" && overstays && !strings.Contains(client.log.String(), "hook="+callback.hook) {
		t.Errorf("the log does not name %s:\n%s", callback.hook, client.log)
	}
}

// matrixClient is a running client whose callback calls it.
type matrixClient struct {
	*resock.Client
	log     *rig.Log
	armed   atomic.Bool        // whether the callback is to call the client
	calls   atomic.Int32       // how often it has
	entered chan struct{}      // receives a value when it does
	release context.CancelFunc // lets the call return
	closed  chan time.Time     // receives the time at which Done was closed
	over    chan struct{}      // closed when Run and all loops have returned
}

func startMatrix(t *testing.T, s *resocktest.Server, callback matrixCallback, method matrixMethod, event matrixEvent) *matrixClient {
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
		resock.WithMaxSessionAge(event.age),
		resock.WithHandover(event.overlap),
		resock.WithHTTPClient(s.Client()),
		matrixEndpoint(func() {}), // unless it is the callback
	}
	if method.name == "Handover" {
		opts = append(opts, resock.WithHandover(time.Second))
	}
	if callback.option != nil {
		opts = append(opts, callback.option(do))
	}
	c.Client = rig.Bare(t, s.URL, opts...)
	t.Cleanup(release) // runs before the cleanup of rig.Bare, which waits for the client

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

// enter waits until the callback calls the client, during a session or after its loss.
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
		t.Fatal("the callback was not called within a minute")
	}
}

// opens waits until session n or a later one is open, and reports whether it is. It also
// returns when the client is closed, or after matrixOpens.
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
