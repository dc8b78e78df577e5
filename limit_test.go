package resock_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// turnstile is a limiter that lets one pass for each push, and fails at a full
// context. Its zero value is closed.
type turnstile struct {
	mu    sync.Mutex
	asked int
	ended []error // of contexts
	fail  error   // the next answer
	pass  chan struct{}
}

func newTurnstile() *turnstile { return &turnstile{pass: make(chan struct{})} }

func (g *turnstile) Wait(ctx context.Context) error {
	g.mu.Lock()
	g.asked++
	fail := g.fail
	g.fail = nil
	g.mu.Unlock()
	if fail != nil {
		return fail
	}
	select {
	case <-g.pass:
		return nil
	case <-ctx.Done():
		g.mu.Lock()
		defer g.mu.Unlock()
		g.ended = append(g.ended, ctx.Err())
		return ctx.Err()
	}
}

// is checks how often the limiter was asked, and how many contexts ended.
func (g *turnstile) is(t *testing.T, what string, asked, ended int) {
	t.Helper()
	synctest.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.asked != asked || len(g.ended) != ended {
		t.Errorf("%s: asked %d times, %d contexts ended; want %d, %d", what, g.asked, len(g.ended), asked, ended)
	}
}

// Messages pass one by one, in order, each asked for once and written before the next
// one asks.
func TestSendLimiter(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		r := rig.Reaching(t, s, resock.WithSendLimiter(gate),
			resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				return session.Send(ctx, resock.MessageText, []byte("hello"))
			}))
		c := s.Accept()
		queued := r.Queue("queued")
		gate.is(t, "in OnOpen", 1, 0)
		if got := rig.Payloads(c); len(got) != 0 {
			t.Errorf("received %q before it passed", got)
		}
		gate.pass <- struct{}{}
		r.Open()
		sent := make(chan error, 1)
		go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("sent")) }()
		gate.is(t, "after OnOpen", 2, 0)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello]" {
			t.Errorf("received %s", got)
		}
		done := flush(r.Client)
		gate.pass <- struct{}{}
		gate.is(t, "after the queued one", 3, 0)
		if err := <-queued; err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello queued]" {
			t.Errorf("received %s", got)
		}
		waits(t, "behind one that has not passed", done)
		gate.pass <- struct{}{}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		ends(t, "when all have passed", done, nil)
		gate.is(t, "in the end", 3, 0)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello queued sent]" {
			t.Errorf("received %s", got)
		}
	})
}

// The heartbeat passes, whatever waits for the limiter.
func TestSendLimiterAndBeats(t *testing.T) {
	for name, opt := range map[string]resock.Option{
		"messages": resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }),
		"pings":    nil,
	} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			gate := newTurnstile()
			opts := []resock.Option{resock.WithSendLimiter(gate), resock.WithHeartbeat(time.Second, 0)}
			if opt != nil {
				opts = append(opts, opt)
			} else {
				opts[1] = resock.WithHeartbeat(time.Second, time.Second)
			}
			r := rig.Reaching(t, s, opts...)
			c := s.Accept()
			r.Open()
			queued := r.Queue("x")
			gate.is(t, name, 1, 0)
			time.Sleep(10 * time.Second)
			if beats := len(rig.Payloads(c)) + len(c.Received().Pings); beats < 9 {
				t.Errorf("%d %s", beats, name)
			}
			gate.is(t, name, 1, 0)
			gate.pass <- struct{}{}
			if err := <-queued; err != nil {
				t.Error(err)
			}
		})
	}
}

// The limiter waits no longer than the message does, nor than the session.
func TestSendLimiterContexts(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		r := rig.Reaching(t, s, resock.WithSendLimiter(gate), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		began := time.Now()
		send := func(ctx context.Context, opts ...resock.SendOption) error {
			return r.Send(ctx, resock.MessageText, []byte("x"), opts...)
		}
		if err := send(ctx); !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second {
			t.Errorf("the context: %v after %v", err, time.Since(began))
		}
		gate.is(t, "the context", 1, 1)
		if err := send(context.Background(), resock.WithTTL(time.Second)); err != resock.ErrExpired || time.Since(began) != 2*time.Second {
			t.Errorf("the TTL: %v after %v", err, time.Since(began))
		}
		gate.is(t, "the TTL", 2, 2)
		option, told := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, nil, option, resock.WithTTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		gate.is(t, "the TTL in the queue", 3, 2)
		if err := <-told; err != resock.ErrExpired {
			t.Errorf("the TTL in the queue: %v", err)
		}
		gate.is(t, "the TTL in the queue", 3, 3)

		bound, over := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, nil, bound, resock.WithSession(1)); err != nil {
			t.Fatal(err)
		}
		queued := r.Queue("for the next session")
		gate.is(t, "the session", 4, 3)
		c.Drop()
		r.Fail(resock.PhaseRead)
		if err, ok := rig.Settled(over); err != resock.ErrSessionOver || !ok {
			t.Errorf("the session: %v", err)
		}
		gate.is(t, "the session", 4, 4)
		s.Accept()
		r.Open()
		gate.is(t, "the next session", 5, 4)
		r.Reconnect()
		r.Closed(resock.StatusNormalClosure, "", true)
		gate.is(t, "another one", 5, 5)
		s.Accept()
		r.Open()
		gate.pass <- struct{}{}
		if err := <-queued; err != nil {
			t.Error(err)
		}
		gate.is(t, "another one", 6, 5)
	})
}

// An error of the limiter fails its message alone.
func TestSendLimiterFails(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		gate.fail = rig.ErrTest
		inHook := make(chan error, 1)
		r := rig.Reaching(t, s, resock.WithSendLimiter(gate),
			resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				inHook <- session.Send(ctx, resock.MessageText, []byte("hello"))
				return nil
			}))
		c := s.Accept()
		r.Open()
		gate.fail = rig.ErrTest
		first, second := r.Queue("first"), r.Queue("second")
		for _, failed := range []<-chan error{inHook, first} {
			if err := <-failed; !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, rig.ErrTest) {
				t.Errorf("what the limiter fails: %v", err)
			}
		}
		gate.pass <- struct{}{}
		if err := <-second; err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[second]" {
			t.Errorf("received %s", got)
		}
	})
}

// What passed and was not taken by the network is not asked for again.
func TestSendLimiterAsksOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		gate := newTurnstile()
		client := newClient(t, resock.WithSendLimiter(gate), resock.WithHeartbeat(0, 0), resock.WithBackoff(time.Second, time.Second),
			inMemory(func(n int, p *peer) {
				if p.upgrade() && n == 1 {
					p.in.close(errors.New("no more")) // every write fails, and takes nothing
					time.Sleep(time.Minute)
					return
				}
				p.echoClose(nil)
			}))
		go client.Run(context.Background())
		if err := client.WaitOpen(t.Context()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		option, told := rig.Outcome()
		if err := client.Enqueue(resock.MessageText, []byte("x"), option); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case gate.pass <- struct{}{}:
		case <-time.After(time.Hour):
			t.Fatal("it was not asked")
		}
		err := <-told
		synctest.Wait()
		if err != nil || client.Stats().Opens < 2 {
			t.Errorf("%v, after %d sessions", err, client.Stats().Opens)
		}
		gate.mu.Lock()
		defer gate.mu.Unlock()
		if passed := gate.asked - len(gate.ended); passed != 1 {
			t.Errorf("asked %d times, %d in vain", gate.asked, len(gate.ended))
		}
	})
}

// A limiter that lets nothing pass keeps nobody from closing, nor OnOpen from ending
// in its time.
func TestSendLimiterAndClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithSendLimiter(gate), resock.WithCloseTimeout(3*time.Second))
		go client.Run(context.Background())
		s.Accept()
		option, told := rig.Outcome()
		if err := client.Enqueue(resock.MessageText, nil, option); err != nil {
			t.Fatal(err)
		}
		gate.is(t, "open", 1, 0)
		began := time.Now()
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		if took := time.Since(began); took != 3*time.Second {
			t.Errorf("closing took %v", took)
		}
		if err := <-told; err != resock.ErrClosed {
			t.Error(err)
		}
		gate.is(t, "closed", 1, 1)
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		sent := make(chan error, 1)
		r := rig.Reaching(t, s, resock.WithSendLimiter(gate), resock.WithDialTimeout(time.Second), resock.WithBackoff(time.Hour, time.Hour),
			resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
				err := session.Send(context.Background(), resock.MessageText, nil)
				sent <- err
				return err
			}))
		if fail := r.Fail(resock.PhaseSetup); fail.Took != time.Second || !strings.Contains(fail.Err.Error(), "not sent") {
			t.Errorf("%+v", fail)
		}
		if err := <-sent; !errors.Is(err, resock.ErrNotSent) {
			t.Error(err)
		}
		gate.is(t, "in OnOpen", 1, 1)
	})
}

// A Send that leaves while the limiter is asked for it leaves others behind it.
func TestSendLimiterGivenUpBeforeOthers(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		r := rig.Reaching(t, s, resock.WithSendLimiter(gate))
		c := s.Accept()
		r.Open()
		ctx, cancel := context.WithCancel(context.Background())
		sent := make(chan error, 1)
		go func() { sent <- r.Send(ctx, resock.MessageText, []byte("given up")) }()
		synctest.Wait()
		for i := range 3 {
			r.Queue(fmt.Sprint(i))
		}
		gate.is(t, "at first", 1, 0)
		cancel()
		if err := <-sent; !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		for range 3 {
			gate.pass <- struct{}{}
		}
		gate.is(t, "in the end", 4, 1)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[0 1 2]" {
			t.Errorf("received %s", got)
		}
	})
}

// deafLimiter does not hear the end of the context.
type deafLimiter chan struct{}

func (d deafLimiter) Wait(context.Context) error {
	<-d
	return nil
}

func TestSendLimiterThatIsDeafAtTheClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		limiter := make(deafLimiter)
		r := rig.Reaching(t, s, resock.WithSendLimiter(limiter))
		s.Accept()
		r.Open()
		r.Queue("waits")
		rig.ClosesWithin(t, r.Client, 5*time.Second)
		close(limiter)
	})
}
