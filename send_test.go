package resock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A Send whose message comes back unsent from a lost connection waits again, and returns
// if its context has ended meanwhile.
func TestSendReturnsWhenItsContextEndedInFlight(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach, resock.WithBackoff(time.Hour, time.Hour), resock.WithWriteTimeout(10*time.Second))
		client.Open()
		line := <-lines
		line.Limit(4 << 10)
		time.AfterFunc(time.Second, func() { line.Limit(5 << 10) }) // from now on, three messages share a write
		big := []byte(strings.Repeat("x", 5<<10))
		var errs [4]error
		var wg sync.WaitGroup
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		started := time.Now()
		for i := range errs {
			wg.Go(func() { errs[i] = client.Send(ctx, resock.MessageBinary, big) })
			synctest.Wait()
		}
		wg.Wait()
		if took := time.Since(started); took > 12*time.Second {
			t.Errorf("Send took %v, want at most 12s: its context has 5s, the write timeout is 10s", took)
		}
		if err := errs[3]; !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the last Send: got %v, want ErrNotSent and DeadlineExceeded", err)
		}
	})
}

// A message that expires in flight and comes back unsent fails at once.
func TestTTLEndsInFlight(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach, resock.WithBackoff(time.Hour, time.Hour))
		client.Open()
		(<-lines).Limit(4 << 10)
		big := []byte(strings.Repeat("x", 3<<10))
		outcome := make(chan error, 10)
		var last time.Time
		for range 5 {
			client.Enqueue(resock.MessageBinary, big, resock.WithTTL(5*time.Second), resock.WithResult(func(err error) {
				last = time.Now()
				outcome <- err
			}))
		}
		started := time.Now()
		for range 5 {
			<-outcome
		}
		if took := last.Sub(started); took > 11*time.Second {
			t.Errorf("the last outcome came after %v, want at most 11s", took)
		}
	})
}

// A slow result function does not delay the expiry of other messages.
func TestTTLSurvivesASlowResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := rig.Bare(t, "ws://server.test")
		expired := make(chan time.Duration, 10)
		enqueued := time.Now()
		enqueue := func(ttl time.Duration, then func()) {
			client.Enqueue(resock.MessageText, nil, resock.WithTTL(ttl), resock.WithResult(func(error) {
				expired <- time.Since(enqueued)
				then()
			}))
		}
		enqueue(time.Second, func() {
			enqueue(20*time.Millisecond, func() {})
			time.Sleep(time.Second)
		})
		time.Sleep(time.Minute)
		enqueue(time.Second, func() {})
		time.Sleep(time.Minute)
		if len(expired) != 3 {
			t.Errorf("%d of 3 messages expired, want all", len(expired))
		}
	})
}

// Messages that expire while a result function is running have their outcomes told after
// it, and before the client is done.
func TestSlowResultIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := rig.Bare(t, "ws://server.test")
		var told []string
		enqueue := func(text string, ttl, takes time.Duration) {
			client.Enqueue(resock.MessageText, []byte(text), resock.WithTTL(ttl), resock.WithResult(func(error) {
				time.Sleep(takes)
				told = append(told, text)
			}))
		}
		enqueue("slow", time.Second, time.Minute)
		enqueue("behind it", time.Second, 0)
		enqueue("meanwhile", 2*time.Second, 0)
		time.Sleep(3 * time.Second)
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		if want := []string{"slow", "behind it", "meanwhile"}; !slices.Equal(told, want) {
			t.Errorf("results of %q, want of %q", told, want)
		}
	})
}

// If the server closes while the client sends, the session ends with the server's close
// code, not with a failed write.
func TestCloseByTheServerWhileSending(t *testing.T) {
	for range 300 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Serve(func(c *resocktest.Conn) {
				for range 5 {
					_, _ = c.Read()
				}
				_ = c.Close(resock.StatusServiceRestart, "")
			}), resocktest.Drop())
			client := rig.Start(t, s.URL, rig.Reach(s))
			client.Open()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var senders sync.WaitGroup
			for range 4 {
				senders.Go(func() {
					for client.Send(ctx, resock.MessageText, []byte("x")) == nil {
					}
				})
			}
			client.Closed(resock.StatusServiceRestart, "", true)
			senders.Wait()
		})
		if t.Failed() {
			return
		}
	}
}

// Suspend closes cleanly even while messages are being sent.
func TestSuspendWhileSending(t *testing.T) {
	for range 300 {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			client := rig.Start(t, s.URL, rig.Reach(s))
			client.Open()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			var senders sync.WaitGroup
			sent := make(chan struct{}, 1)
			for range 4 {
				senders.Go(func() {
					for client.Send(ctx, resock.MessageText, []byte("x")) == nil {
						select {
						case sent <- struct{}{}:
						default:
						}
					}
				})
			}
			<-sent
			client.Suspend()
			client.Closed(resock.StatusNormalClosure, "", true)
			senders.Wait()
		})
		if t.Failed() {
			return
		}
	}
}

// Close flushes the queue even if a subscriber has not received the OpenEvent yet.
func TestCloseFlushesBeforeOpenIsTaken(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := client.Subscribe(context.Background(), resock.WithBuffer(0))
		option, told := rig.Outcome()
		client.Enqueue(resock.MessageText, []byte("hello"), option)
		go client.Run(context.Background())
		synctest.Wait()
		client.Close(resock.StatusNormalClosure, "")
		time.Sleep(time.Second)
		seen := slices.Collect(new(grammar.Checker).All(t, events))
		if closed, ok := seen[len(seen)-1].(resock.CloseEvent); len(seen) != 2 || !ok || !closed.Clean {
			t.Errorf("got %+v, want an OpenEvent and a clean CloseEvent", seen)
		}
		if err, got := <-told, rig.Payloads(s.Accept()); err != nil || len(got) != 1 {
			t.Errorf("outcome %v, the server received %q, want nil and one message", err, got)
		}
	})
}

// A failed write does not hide the close frame that the server sent before.
func TestCloseIsReadAfterAFailedWrite(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Serve(func(c *resocktest.Conn) {
			_ = c.Raw([]byte(strings.Repeat("\x81\x01x", 50) + "\x88\x02\x0f\xa1"))
			c.Reset()
		}), resocktest.Drop())
		client := rig.Bare(t, s.URL, rig.Reach(s))
		events := client.Subscribe(context.Background(), resock.WithBuffer(0))
		go client.Run(context.Background())
		messages, ended := 0, false
		for event := range new(grammar.Checker).All(t, events) {
			switch e := event.(type) {
			case resock.OpenEvent:
				synctest.Wait()
				go client.Send(t.Context(), resock.MessageText, []byte("x"))
			case resock.MessageEvent:
				messages++
			case resock.CloseEvent:
				if ended = true; e.Code != 4001 || messages != 50 {
					t.Errorf("after %d messages: got %+v, want 50 messages and code 4001", messages, e)
				}
				client.Close(resock.StatusNormalClosure, "")
			case resock.FailEvent: // the next attempt
				if !ended {
					t.Fatalf("after %d messages: got %+v, want the CloseEvent first", messages, e)
				}
			}
			time.Sleep(time.Millisecond)
		}
		if !ended {
			t.Error("got no CloseEvent")
		}
	})
}

// An invalid message or option is an OptionError and an ErrNotSent.
func TestSendOptionErrors(t *testing.T) {
	client, err := resock.New("ws://server.test")
	if err != nil {
		t.Fatal(err)
	}
	send := func(opts ...resock.SendOption) error {
		return client.Send(t.Context(), resock.MessageText, nil, opts...)
	}
	enqueue := func(opts ...resock.SendOption) error {
		return client.Enqueue(resock.MessageText, nil, opts...)
	}
	for name, test := range map[string]struct {
		err    error
		option string
	}{
		"Send without time":       {send(resock.WithTTL(0)), "WithTTL"},
		"Enqueue without time":    {enqueue(resock.WithTTL(-1)), "WithTTL"},
		"Send with a result":      {send(resock.WithResult(func(error) { t.Error("Send called a result function") })), "WithResult"},
		"Send with a nil result":  {send(resock.WithResult(nil)), "WithResult"},
		"Send in session 0":       {send(resock.WithSession(0)), "WithSession"},
		"Enqueue in session 0":    {enqueue(resock.WithSession(0)), "WithSession"},
		"larger than the queue":   {client.Enqueue(resock.MessageBinary, make([]byte, 8<<20+1)), "Enqueue"},
		"a type that is none":     {client.Send(t.Context(), 7, nil, resock.WithTTL(time.Second)), "Send"},
		"a text that is no UTF-8": {client.Enqueue(resock.MessageText, []byte("\xff"), nil), "Enqueue"},
	} {
		var option *resock.OptionError
		if !errors.As(test.err, &option) || option.Option != test.option || !errors.Is(test.err, resock.ErrNotSent) {
			t.Errorf("%s: got %v, want an OptionError and ErrNotSent", name, test.err)
		}
	}
	for _, err := range []error{resock.ErrSessionOver, resock.ErrQueueFull, resock.ErrExpired, resock.ErrClosed} {
		if !errors.Is(err, resock.ErrNotSent) || errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("got %v, want ErrNotSent, and not ErrMaybeSent", err)
		}
	}
	if err := enqueue(nil, resock.WithResult(nil)); err != nil {
		t.Error(err)
	}
}

// A waiting Send returns when its TTL is over, whatever its context allows.
func TestSendTTL(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(10*time.Second))
		send := func(size int, ttl time.Duration) (took time.Duration, err error) {
			began := time.Now()
			err = client.Send(context.Background(), resock.MessageBinary, make([]byte, size), resock.WithTTL(ttl))
			return time.Since(began), err
		}
		if took, err := send(1, 1234567*time.Microsecond); err != resock.ErrExpired || took != 1234567*time.Microsecond {
			t.Errorf("before Run: got %v after %v, want ErrExpired when the TTL is over", err, took)
		}
		go client.Run(context.Background())
		c := s.Accept()
		if took, err := send(1, time.Second); err != nil || took != 0 {
			t.Errorf("while open: got %v after %v, want nil at once", err, took)
		}
		c.StopReading()
		blocks := make(chan error)
		go func() {
			_, err := send(1<<20, 5*time.Second) // is being written when its TTL is over
			blocks <- err
		}()
		synctest.Wait()
		if took, err := send(1, 3*time.Second); err != resock.ErrExpired || took != 3*time.Second {
			t.Errorf("behind another: got %v after %v, want ErrExpired after 3s", err, took)
		}
		if messages := client.Stats().Queued; messages != 0 {
			t.Errorf("%d messages are queued, want none", messages)
		}
		if err := <-blocks; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("the message being written: got %v, want ErrMaybeSent", err)
		}
	})
}

// A message that comes back unsent after its TTL is not sent again.
func TestSendTTLInFlight(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach, resock.WithBackoff(time.Hour, time.Hour), resock.WithWriteTimeout(10*time.Second))
		client.Open()
		(<-lines).Limit(4 << 10)
		large := make([]byte, 60<<10)
		go client.Send(context.Background(), resock.MessageBinary, large)
		synctest.Wait()
		began := time.Now()
		type end struct {
			err  error
			took time.Duration
		}
		ends := make(chan end, 1)
		go func() {
			err := client.Send(context.Background(), resock.MessageBinary, large, resock.WithTTL(5*time.Second))
			ends <- end{err, time.Since(began)}
		}()
		if e := <-ends; e.err != resock.ErrExpired || e.took != 5*time.Second {
			t.Errorf("got %v after %v, want ErrExpired after 5s", e.err, e.took)
		}
	})
}

// A message bound to a session is sent in that session or not at all.
func TestWithSession(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s)
		send := func(text string, n uint64) error {
			return r.Send(context.Background(), resock.MessageText, []byte(text), resock.WithSession(n))
		}
		first := s.Accept()
		r.Open()
		if err := send("first", 1); err != nil {
			t.Error(err)
		}
		option, told := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, []byte("queued"), resock.WithSession(1), option); err != nil {
			t.Error(err)
		}
		if err, ok := rig.Settled(told); err != nil || !ok {
			t.Errorf("the queued message: got %v, want nil", err)
		}
		for _, n := range []uint64{2, 7} {
			if err := send("early", n); err != resock.ErrSessionOver {
				t.Errorf("a message for session %d: got %v, want ErrSessionOver", n, err)
			}
		}
		first.Drop()
		r.Fail(resock.PhaseRead)
		if err := send("between", 1); err != resock.ErrSessionOver {
			t.Errorf("between sessions: got %v, want ErrSessionOver", err)
		}
		second := s.Accept()
		r.Open()
		if err := r.Enqueue(resock.MessageText, []byte("late"), resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("for session 1, in session 2: got %v, want ErrSessionOver", err)
		}
		if err := send("second", 2); err != nil {
			t.Error(err)
		}
		if got, want := fmt.Sprint(rig.Payloads(first), rig.Payloads(second)), "[first queued] [second]"; got != want {
			t.Errorf("received %s, want %s", got, want)
		}
	})
}

// A message bound to a session during OnOpen is sent after the hook, behind the messages
// that wait already. If the hook fails, the session is over, although the next connection
// gets the same number.
func TestWithSessionInOnOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		attempts := 0
		steps := make(chan error)
		r := rig.Reaching(t, s, resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
			attempts++
			if err := session.Send(ctx, resock.MessageText, fmt.Appendf(nil, "hello %d", attempts)); err != nil {
				return err
			}
			steps <- nil
			return <-steps
		}))
		if err := r.Enqueue(resock.MessageText, []byte("any")); err != nil {
			t.Fatal(err)
		}
		first := s.Accept()
		<-steps
		option, told := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, []byte("of the first"), resock.WithSession(1), option); err != nil {
			t.Fatal(err)
		}
		sent := make(chan error, 1)
		go func() {
			sent <- r.Send(context.Background(), resock.MessageText, []byte("of the first"), resock.WithSession(1))
		}()
		if err, ok := rig.Settled(told); ok {
			t.Errorf("during OnOpen: got the outcome %v, want none yet", err)
		}
		steps <- io.ErrUnexpectedEOF
		r.Fail(resock.PhaseSetup)
		if err, ok := rig.Settled(told); err != resock.ErrSessionOver || !ok {
			t.Errorf("after OnOpen failed: got %v, want ErrSessionOver", err)
		}
		if err := <-sent; err != resock.ErrSessionOver {
			t.Errorf("Send, after OnOpen failed: got %v, want ErrSessionOver", err)
		}
		second := s.Accept()
		<-steps
		if err := r.Enqueue(resock.MessageText, []byte("of the second"), resock.WithSession(1)); err != nil {
			t.Fatal(err)
		}
		steps <- nil
		r.Open()
		if got, want := fmt.Sprint(rig.Payloads(first), rig.Payloads(second)), "[hello 1] [hello 2 any of the second]"; got != want {
			t.Errorf("received %s, want %s", got, want)
		}
	})
}

// When OnOpen fails, the next connection gets the same session number. Until its hook
// asks for that number, WithSession means the connection before.
func TestWithSessionOfThePreviousConnection(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		attempts := 0
		inHook, goOn := make(chan struct{}), make(chan struct{})
		var client *resock.Client
		begin := make(chan struct{})
		r := rig.Reaching(t, s, resock.WithOnOpen(func(_ context.Context, session *resock.Session) error {
			<-begin
			if attempts++; attempts == 1 {
				if err := client.Enqueue(resock.MessageText, []byte("bound"), resock.WithSession(session.ID())); err != nil {
					t.Error(err)
				}
				return io.ErrUnexpectedEOF
			}
			inHook <- struct{}{}
			<-goOn
			session.ID()
			inHook <- struct{}{}
			<-goOn
			return nil
		}))
		client = r.Client
		for _, text := range []string{"any 1", "any 2", "any 3"} { // the bound message has neighbors
			if err := client.Enqueue(resock.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		close(begin)
		r.Fail(resock.PhaseSetup)
		<-inHook
		if err := r.Enqueue(resock.MessageText, []byte("stale"), resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("before the hook called ID: got %v, want ErrSessionOver", err)
		}
		goOn <- struct{}{}
		<-inHook
		if err := r.Enqueue(resock.MessageText, []byte("new"), resock.WithSession(1)); err != nil {
			t.Errorf("after the hook called ID: got %v, want nil", err)
		}
		goOn <- struct{}{}
		r.Open()
		synctest.Wait()
		if got := fmt.Sprint(rig.Payloads(s.Conns()[1])); got != "[any 1 any 2 any 3 new]" {
			t.Errorf("received %s, want [any 1 any 2 any 3 new]", got)
		}
	})
}

// Messages bound to a session that closes fail at once, without waiting for a blocked
// write or for the closing handshake.
func TestSessionOverAtOnce(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithWriteTimeout(time.Minute), resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		c.StopReading()
		large := make([]byte, 1<<20)
		blocks, told := rig.Outcome()
		if err := r.Enqueue(resock.MessageBinary, large, resock.WithSession(1), blocks); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		waits, over := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, nil, resock.WithSession(1), waits); err != nil {
			t.Fatal(err)
		}
		kept, next := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, nil, kept); err != nil {
			t.Fatal(err)
		}
		r.Suspend()
		if err, ok := rig.Settled(over); err != resock.ErrSessionOver || !ok {
			t.Errorf("the waiting message: got %v, want ErrSessionOver at once", err)
		}
		if err, ok := rig.Settled(told); ok {
			t.Errorf("the message being written: got %v, want no outcome yet", err)
		}
		if err := r.Send(t.Context(), resock.MessageText, nil, resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("during the closing handshake: got %v, want ErrSessionOver", err)
		}
		if err := <-told; err != resock.ErrMaybeSent {
			t.Errorf("the message being written: got %v, want ErrMaybeSent", err)
		}
		r.Next()
		if err, ok := rig.Settled(next); ok {
			t.Errorf("the message bound to no session: got %v, want no outcome", err)
		}
	})
}

// The messages that a failed write did not touch are sent in the next session, unless
// they are bound to this one.
func TestSessionOverInFlight(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(time.Second))
		c := s.Accept()
		r.Open()
		c.StopReading()
		first, begun := rig.Outcome()
		if err := r.Enqueue(resock.MessageBinary, make([]byte, 1<<20), first); err != nil {
			t.Fatal(err)
		}
		for r.Stats().Queued > 0 { // until one write has taken all of them
			synctest.Wait()
		}
		var told []<-chan error
		for i := range 4 {
			option, outcome := rig.Outcome()
			opts := []resock.SendOption{option}
			if i%2 == 0 {
				opts = append(opts, resock.WithSession(1))
			}
			if err := r.Enqueue(resock.MessageText, fmt.Append(nil, i), opts...); err != nil {
				t.Fatal(err)
			}
			told = append(told, outcome)
		}
		if err := <-begun; err != resock.ErrMaybeSent {
			t.Errorf("the message being written: got %v, want ErrMaybeSent", err)
		}
		r.Fail(resock.PhaseWrite)
		second := s.Accept()
		r.Open()
		for i, told := range told {
			want := error(nil)
			if i%2 == 0 {
				want = resock.ErrSessionOver
			}
			if err := <-told; err != want {
				t.Errorf("message %d: %v, want %v", i, err, want)
			}
		}
		if got := fmt.Sprint(rig.Payloads(second)); got != "[1 3]" {
			t.Errorf("the next session received %s, want [1 3]", got)
		}
	})
}

// turnstile is a send limiter that lets one message pass for each value sent to pass.
type turnstile struct {
	mu    sync.Mutex
	asked int
	ended []error // errors of the contexts that ended during Wait
	fail  error   // what the next Wait returns, unless nil
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

// Messages pass the limiter one by one and in order. It is asked once for each, and each
// is written before it is asked for the next.
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
			t.Errorf("received %q before the limiter let it pass", got)
		}
		gate.pass <- struct{}{}
		r.Open()
		sent := make(chan error, 1)
		go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("sent")) }()
		gate.is(t, "after OnOpen", 2, 0)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello]" {
			t.Errorf("received %s, want [hello]", got)
		}
		done := flush(r.Client)
		gate.pass <- struct{}{}
		gate.is(t, "after the queued one", 3, 0)
		if err := <-queued; err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello queued]" {
			t.Errorf("received %s, want [hello queued]", got)
		}
		waits(t, "behind one that has not passed", done)
		gate.pass <- struct{}{}
		if err := <-sent; err != nil {
			t.Error(err)
		}
		ends(t, "when all have passed", done, nil)
		gate.is(t, "in the end", 3, 0)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello queued sent]" {
			t.Errorf("received %s, want [hello queued sent]", got)
		}
	})
}

// Heartbeats do not wait for the limiter.
func TestSendLimiterLetsHeartbeatsPass(t *testing.T) {
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
				t.Errorf("%d %s, want at least 9", beats, name)
			}
			gate.is(t, name, 1, 0)
			gate.pass <- struct{}{}
			if err := <-queued; err != nil {
				t.Error(err)
			}
		})
	}
}

// The context given to the limiter ends with the message's context or TTL, and with the
// session.
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
			t.Errorf("when the context ends: got %v after %v, want DeadlineExceeded after 1s", err, time.Since(began))
		}
		gate.is(t, "the context", 1, 1)
		if err := send(context.Background(), resock.WithTTL(time.Second)); err != resock.ErrExpired || time.Since(began) != 2*time.Second {
			t.Errorf("when the TTL is over: got %v after %v, want ErrExpired after 2s", err, time.Since(began))
		}
		gate.is(t, "the TTL", 2, 2)
		option, told := rig.Outcome()
		if err := r.Enqueue(resock.MessageText, nil, option, resock.WithTTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		gate.is(t, "the TTL in the queue", 3, 2)
		if err := <-told; err != resock.ErrExpired {
			t.Errorf("when the TTL in the queue is over: got %v, want ErrExpired", err)
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
			t.Errorf("when the session ends: got %v, want ErrSessionOver", err)
		}
		gate.is(t, "the session", 4, 4)
		s.Accept()
		r.Open()
		gate.is(t, "the next session", 5, 4)
		r.Reconnect()
		r.Closed(resock.StatusNormalClosure, "", false)
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

// An error of the limiter fails only the message it was asked for.
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
				t.Errorf("the message that the limiter failed: got %v, want ErrNotSent and ErrTest", err)
			}
		}
		gate.pass <- struct{}{}
		if err := <-second; err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[second]" {
			t.Errorf("received %s, want [second]", got)
		}
	})
}

// The limiter is not asked again for a message that passed but came back unsent.
func TestSendLimiterAsksOnce(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		gate := newTurnstile()
		reach, lines := rig.ReachLines(s)
		client := rig.Start(t, s.URL, reach, resock.WithSendLimiter(gate), resock.WithHeartbeat(0, 0), resock.WithBackoff(time.Second, time.Second))
		client.Open()
		(<-lines).Fail()
		synctest.Wait()
		option, told := rig.Outcome()
		if err := client.Enqueue(resock.MessageText, []byte("x"), option); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		select {
		case gate.pass <- struct{}{}:
		case <-time.After(time.Hour):
			t.Fatal("the limiter was not asked within an hour")
		}
		err := <-told
		synctest.Wait()
		if err != nil || client.Stats().Opens < 2 {
			t.Errorf("got %v after %d sessions, want nil after 2 or more", err, client.Stats().Opens)
		}
		gate.mu.Lock()
		defer gate.mu.Unlock()
		if passed := gate.asked - len(gate.ended); passed != 1 {
			t.Errorf("asked %d times, %d in vain, want one that passed", gate.asked, len(gate.ended))
		}
	})
}

// A limiter that lets nothing pass delays neither closing nor the dial timeout of OnOpen.
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
			t.Errorf("closing took %v, want 3s", took)
		}
		if err := <-told; err != resock.ErrClosed {
			t.Errorf("the queued message: got %v, want ErrClosed", err)
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
			t.Errorf("got %+v, want OnOpen to fail after 1s, and nothing sent", fail)
		}
		if err := <-sent; !errors.Is(err, resock.ErrNotSent) {
			t.Errorf("Send in OnOpen: got %v, want ErrNotSent", err)
		}
		gate.is(t, "in OnOpen", 1, 1)
	})
}

// If a Send is canceled while the limiter is asked for it, the messages behind it are
// still sent.
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
			t.Errorf("the canceled Send: got %v, want ErrNotSent and Canceled", err)
		}
		for range 3 {
			gate.pass <- struct{}{}
		}
		gate.is(t, "in the end", 4, 1)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[0 1 2]" {
			t.Errorf("received %s, want [0 1 2]", got)
		}
	})
}

// deafLimiter is a limiter that ignores the end of its context.
type deafLimiter chan struct{}

func (d deafLimiter) Wait(context.Context) error {
	<-d
	return nil
}

// A limiter that ignores its context does not delay closing.
func TestSendLimiterThatIgnoresItsContext(t *testing.T) {
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
