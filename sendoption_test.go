package resock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// A message that cannot be sent is an argument to mend, and certainly not sent.
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
		"Send with a result":      {send(resock.WithResult(func(error) { t.Error("a result") })), "WithResult"},
		"Send with a nil result":  {send(resock.WithResult(nil)), "WithResult"},
		"Send in session 0":       {send(resock.WithSession(0)), "WithSession"},
		"Enqueue in session 0":    {enqueue(resock.WithSession(0)), "WithSession"},
		"larger than the queue":   {client.Enqueue(resock.MessageBinary, make([]byte, 8<<20+1)), "Enqueue"},
		"a type that is none":     {client.Send(t.Context(), 7, nil, resock.WithTTL(time.Second)), "Send"},
		"a text that is no UTF-8": {client.Enqueue(resock.MessageText, []byte("\xff"), nil), "Enqueue"},
	} {
		var option *resock.OptionError
		if !errors.As(test.err, &option) || option.Option != test.option || !errors.Is(test.err, resock.ErrNotSent) {
			t.Errorf("%s: %v", name, test.err)
		}
	}
	for _, err := range []error{resock.ErrSessionOver, resock.ErrQueueFull, resock.ErrExpired, resock.ErrClosed} {
		if !errors.Is(err, resock.ErrNotSent) || errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("%v is no ErrNotSent", err)
		}
	}
	if err := enqueue(nil, resock.WithResult(nil)); err != nil {
		t.Error(err)
	}
}

// A Send whose time is over while it waits returns at that time, whatever its
// context allows.
func TestSendTTL(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(10*time.Second))
		send := func(size int, ttl time.Duration) (took time.Duration, err error) {
			began := time.Now()
			err = client.Send(context.Background(), resock.MessageBinary, make([]byte, size), resock.WithTTL(ttl))
			return time.Since(began), err
		}
		if took, err := send(1, 1234567*time.Microsecond); err != resock.ErrExpired || took != 1234567*time.Microsecond {
			t.Errorf("before Run: %v after %v", err, took)
		}
		go client.Run(context.Background())
		c := s.Accept()
		if took, err := send(1, time.Second); err != nil || took != 0 {
			t.Errorf("while open: %v after %v", err, took)
		}
		c.StopReading()
		blocks := make(chan error)
		go func() {
			_, err := send(1<<20, 5*time.Second) // which is being written when its time is over
			blocks <- err
		}()
		synctest.Wait()
		if took, err := send(1, 3*time.Second); err != resock.ErrExpired || took != 3*time.Second {
			t.Errorf("behind another: %v after %v", err, took)
		}
		if messages := client.Stats().Queued; messages != 0 {
			t.Errorf("%d messages are queued", messages)
		}
		if err := <-blocks; !errors.Is(err, resock.ErrMaybeSent) {
			t.Errorf("being written: %v", err)
		}
	})
}

// A message that comes back unsent when its time is over is not sent again.
func TestSendTTLInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		client := newClient(t, resock.WithBackoff(time.Hour, time.Hour), resock.WithWriteTimeout(10*time.Second),
			inMemoryRoom(4<<10, func(n int, p *peer) {
				p.upgrade()
				time.Sleep(time.Minute)
			}))
		go client.Run(context.Background())
		client.WaitOpen(t.Context())
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
			t.Errorf("%v after %v", e.err, e.took)
		}
	})
}

// What is bound to a session goes out in it, and what is bound to another nowhere.
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
			t.Errorf("queued: %v", err)
		}
		for _, n := range []uint64{2, 7} {
			if err := send("early", n); err != resock.ErrSessionOver {
				t.Errorf("session %d: %v", n, err)
			}
		}
		first.Drop()
		r.Fail(resock.PhaseRead)
		if err := send("between", 1); err != resock.ErrSessionOver {
			t.Errorf("while there is none: %v", err)
		}
		second := s.Accept()
		r.Open()
		if err := r.Enqueue(resock.MessageText, []byte("late"), resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("session 1, in session 2: %v", err)
		}
		if err := send("second", 2); err != nil {
			t.Error(err)
		}
		if got, want := fmt.Sprint(rig.Payloads(first), rig.Payloads(second)), "[first queued] [second]"; got != want {
			t.Errorf("received %s, want %s", got, want)
		}
	})
}

// A session in OnOpen takes what is bound to it after the hook, behind what waits
// already. When the hook fails it is over, though the next one has its number.
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
			t.Errorf("in OnOpen: %v", err)
		}
		steps <- io.ErrUnexpectedEOF
		r.Fail(resock.PhaseSetup)
		if err, ok := rig.Settled(told); err != resock.ErrSessionOver || !ok {
			t.Errorf("after OnOpen failed: %v", err)
		}
		if err := <-sent; err != resock.ErrSessionOver {
			t.Errorf("a Send, after OnOpen failed: %v", err)
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

// Who names a number that was given again, before the hook has touched its session, means
// the connection before.
func TestWithSessionOfTheConnectionBefore(t *testing.T) {
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
		for _, text := range []string{"any 1", "any 2", "any 3"} { // what is bound stands beside others
			if err := client.Enqueue(resock.MessageText, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		close(begin)
		r.Fail(resock.PhaseSetup)
		<-inHook
		if err := r.Enqueue(resock.MessageText, []byte("stale"), resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("before the hook has asked for the number: %v", err)
		}
		goOn <- struct{}{}
		<-inHook
		if err := r.Enqueue(resock.MessageText, []byte("new"), resock.WithSession(1)); err != nil {
			t.Errorf("after it has: %v", err)
		}
		goOn <- struct{}{}
		r.Open()
		synctest.Wait()
		if got := fmt.Sprint(rig.Payloads(s.Conns()[1])); got != "[any 1 any 2 any 3 new]" {
			t.Errorf("received %s", got)
		}
	})
}

// What is bound to a session that closes is settled at once: neither the write that
// blocks, nor the closing handshake, is waited for.
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
			t.Errorf("what waits: %v", err)
		}
		if err, ok := rig.Settled(told); ok {
			t.Errorf("what is being written: %v", err)
		}
		if err := r.Send(t.Context(), resock.MessageText, nil, resock.WithSession(1)); err != resock.ErrSessionOver {
			t.Errorf("while it closes: %v", err)
		}
		if err := <-told; err != resock.ErrMaybeSent {
			t.Errorf("what was being written: %v", err)
		}
		r.Next()
		if err, ok := rig.Settled(next); ok {
			t.Errorf("what is bound to no session: %v", err)
		}
	})
}

// What a failed write leaves untouched is for the next session, unless it is bound
// to this one.
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
		for r.Stats().Queued > 0 { // these are written together, then
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
			t.Errorf("what was being written: %v", err)
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
			t.Errorf("the next session received %s", got)
		}
	})
}
