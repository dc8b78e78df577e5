package resock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

// flush calls Flush on a goroutine of its own.
func flush(client *resock.Client) <-chan error { return flushUntil(context.Background(), client) }

func flushUntil(ctx context.Context, client *resock.Client) <-chan error {
	done := make(chan error, 1)
	go func() { done <- client.Flush(ctx) }()
	synctest.Wait()
	return done
}

// waits checks that a Flush has not returned.
func waits(t *testing.T, what string, done <-chan error) {
	t.Helper()
	if err, ok := rig.Settled(done); ok {
		t.Fatalf("%s: Flush returned %v, want it to wait", what, err)
	}
}

// ends checks that a Flush has returned want.
func ends(t *testing.T, what string, done <-chan error, want error) {
	t.Helper()
	if err, ok := rig.Settled(done); !ok || !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: Flush is over %t: %v, want %v", what, ok, err, want)
	}
}

// silentRig returns a client without heartbeats, all of whose pings come from Flush, and
// a connection whose server answers pings only when the test does.
func silentRig(t *testing.T, s *resocktest.Server, opts ...resock.Option) (*rig.Client, *resocktest.Conn) {
	r := rig.Reaching(t, s, append([]resock.Option{resock.WithHeartbeat(0, 0)}, opts...)...)
	c := s.Accept()
	c.IgnorePings()
	r.Open()
	return r, c
}

// pong answers the n-th ping, counted from 1.
func pong(c *resocktest.Conn, n byte) { _ = c.Pong("\x00\x00\x00" + string(rune(n))) }

// send sends a text message.
func send(t *testing.T, r *rig.Client, text string) {
	t.Helper()
	if err := r.Send(context.Background(), resock.MessageText, []byte(text)); err != nil {
		t.Error(err)
	}
}

// If the server has confirmed everything sent, Flush returns at once, without a ping.
func TestFlushOfNothing(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0))
		ends(t, "before Run", flush(client), nil)
		go client.Run(context.Background())
		c := s.Accept()
		c.IgnorePings()
		ends(t, "while open", flush(client), nil)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		ends(t, "without time", flushUntil(ctx, client), context.Canceled)
		client.Suspend()
		synctest.Wait()
		ends(t, "while suspended", flush(client), nil)
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		ends(t, "when it is closed", flush(client), resock.ErrClosed)
		if n := len(c.Received().Pings); n != 0 {
			t.Errorf("%d pings, want none", n)
		}
	})
}

// Flush needs a pong to a ping that followed what it waits for. Concurrent calls share
// a ping.
func TestFlushWaitsForTheAnswer(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r, c := silentRig(t, s)
		send(t, r, "a")
		first, second := flush(r.Client), flush(r.Client)
		send(t, r, "b")
		third := flush(r.Client)
		waits(t, "the first", first)
		_ = c.Pong("")
		_ = c.Pong("\x00\x00\x00\x02") // not sent yet
		waits(t, "after strange pongs", second)
		if n := len(c.Received().Pings); n != 1 {
			t.Errorf("%d pings for three Flushes, want 1", n)
		}
		pong(c, 1)
		ends(t, "the first", first, nil)
		ends(t, "the second", second, nil)
		waits(t, "the third", third)
		if n := len(c.Received().Pings); n != 2 {
			t.Errorf("%d pings, want 2", n)
		}
		pong(c, 2)
		ends(t, "the third", third, nil)
		ends(t, "of what is answered for", flush(r.Client), nil)
	})
}

// A pong to any later ping ends Flush, a heartbeat's too.
func TestFlushIsAnsweredByAnyPing(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		network := new(rig.Network)
		r, c := silentRig(t, s, resock.WithNetwork(network))
		probe := func() {
			network.Set(true)
			synctest.Wait()
		}
		send(t, r, "a")
		done := flush(r.Client)
		probe()
		waits(t, "unanswered", done)
		pong(c, 2)
		ends(t, "by the second ping", done, nil)
		send(t, r, "b")
		probe()
		pong(c, 3)
		ends(t, "of what was asked for already", flush(r.Client), nil)
	})
}

// Flush waits for messages that are queued or being written, into the next session if
// need be.
func TestFlushOfTheQueue(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(time.Hour))
		if err := client.Enqueue(resock.MessageText, []byte("a")); err != nil {
			t.Fatal(err)
		}
		done := flush(client)
		waits(t, "before Run", done)
		if err := client.Enqueue(resock.MessageText, []byte("b")); err != nil {
			t.Fatal(err)
		}
		go client.Run(context.Background())
		c := s.Accept()
		ends(t, "when it was sent", done, nil)
		if got := fmt.Sprint(rig.Payloads(c)); got != "[a b]" {
			t.Errorf("received %s, want [a b]", got)
		}
		c.StopReading()
		sent := make(chan error, 1)
		go func() { sent <- client.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20)) }()
		synctest.Wait()
		done = flush(client)
		waits(t, "while a Send is being written", done)
		c.StartReading()
		ends(t, "after it", done, nil)
		if err := <-sent; err != nil {
			t.Error(err)
		}
	})
}

// Flush does not wait for messages that have expired, and sends no ping for them.
func TestFlushOfWhatExpires(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(0, 0))
		if err := client.Enqueue(resock.MessageText, nil, resock.WithTTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		done := flush(client)
		time.Sleep(2 * time.Second)
		go client.Run(context.Background())
		c := s.Accept()
		ends(t, "when the session is open", done, nil)
		if n := len(c.Received().Pings); n != 0 {
			t.Errorf("%d pings, want none", n)
		}
	})
}

// When a session is lost, Flush fails at once if that session took a message which the
// server did not confirm: whether it has arrived will never be known.
func TestFlushFailsWithTheSession(t *testing.T) {
	t.Run("taken", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r, c := silentRig(t, s)
			send(t, r, "a")
			done := flush(r.Client)
			c.Drop()
			ends(t, "lost", done, resock.ErrMaybeSent)
			r.Fail(resock.PhaseRead)
		})
	})
	t.Run("behind a write", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r, c := silentRig(t, s, resock.WithWriteTimeout(time.Hour))
			c.StopReading()
			large := make(chan error, 1)
			go func() { large <- r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20)) }()
			synctest.Wait()
			done := flush(r.Client)
			c.Reset()
			ends(t, "lost", done, resock.ErrMaybeSent)
			if err := <-large; !errors.Is(err, resock.ErrMaybeSent) {
				t.Errorf("the large Send: got %v, want ErrMaybeSent", err)
			}
		})
	})
}

// Messages that a lost session did not take go out in the next one, and Flush waits for
// them.
func TestFlushWaitsForTheNextSession(t *testing.T) {
	t.Run("answered", func(t *testing.T) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			r, c := silentRig(t, s)
			send(t, r, "a")
			asked := flush(r.Client)
			pong(c, 1)
			ends(t, "answered", asked, nil)
			c.Drop()
			r.Fail(resock.PhaseRead)
			outcome := r.Queue("b")
			done := flush(r.Client)
			waits(t, "between sessions", done)
			second := s.Accept()
			r.Open()
			ends(t, "in the next session", done, nil)
			if err := <-outcome; err != nil || len(second.Received().Pings) != 1 {
				t.Errorf("Flush: got %v after %d pings, want nil after 1", err, len(second.Received().Pings))
			}
		})
	})
	t.Run("untouched", func(t *testing.T) {
		// The first connection accepts no byte, so the message comes back untouched.
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			reach, lines := rig.ReachLines(s)
			client := rig.Start(t, s.URL, reach, resock.WithHeartbeat(0, 0), resock.WithWriteTimeout(time.Hour), resock.WithBackoff(time.Second, time.Second))
			client.Open()
			(<-lines).Fail()
			synctest.Wait()
			if err := client.Enqueue(resock.MessageText, []byte("a")); err != nil {
				t.Fatal(err)
			}
			done := flush(client.Client)
			err := <-done
			synctest.Wait()
			if err != nil || client.Stats().Opens < 2 {
				t.Errorf("got %v after %d sessions, want nil after 2 or more", err, client.Stats().Opens)
			}
		})
	})
}

// A Flush called during OnOpen covers what the hook sent; one called before does not.
func TestFlushAndOnOpen(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		steps := make(chan error)
		r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0), resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
			steps <- nil
			<-steps
			if err := session.Send(ctx, resock.MessageText, []byte("hello")); err != nil {
				return err
			}
			steps <- nil
			return <-steps
		}))
		if err := r.Enqueue(resock.MessageText, []byte("a")); err != nil {
			t.Fatal(err)
		}
		before := flush(r.Client)
		<-steps // the session is in OnOpen, and has taken nothing yet
		between := flush(r.Client)
		steps <- nil
		<-steps
		during := flush(r.Client)
		steps <- errors.New("no")
		r.Fail(resock.PhaseSetup)
		ends(t, "of the hook's message", during, resock.ErrMaybeSent)
		waits(t, "of the queue", before)
		waits(t, "before the hook's message", between)
		<-steps
		steps <- nil
		<-steps
		steps <- nil
		r.Open()
		ends(t, "in the next session", before, nil)
		ends(t, "in the next session", between, nil)
	})
}

// If the server does not answer, Flush returns when its context ends, whatever it is
// waiting for.
func TestFlushUntilItsContextEnds(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r, c := silentRig(t, s, resock.WithWriteTimeout(time.Hour))
		send(t, r, "a")
		flushFor := func(d time.Duration) error {
			ctx, cancel := context.WithTimeout(context.Background(), d)
			defer cancel()
			began := time.Now()
			err := r.Flush(ctx)
			if took := time.Since(began); took != d {
				t.Errorf("Flush took %v, want %v", took, d)
			}
			return err
		}
		if err := flushFor(time.Second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, resock.ErrNotSent) || !strings.HasPrefix(err.Error(), "resock: not flushed") {
			t.Errorf("an unanswered Flush: got %v, want DeadlineExceeded, and not ErrNotSent", err)
		}
		c.StopReading()
		go r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20))
		synctest.Wait()
		queued := r.Queue("b")
		if err := flushFor(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a Flush behind the queue: got %v, want DeadlineExceeded", err)
		}
		c.StartReading()
		if err := <-queued; err != nil {
			t.Error(err)
		}
		done := flush(r.Client)
		pong(c, 1)
		waits(t, "for what followed", done)
		pong(c, 2)
		ends(t, "all", done, nil)
	})
}

// When the client closes, the error of Flush says what became of the messages.
func TestFlushAndClose(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r, _ := silentRig(t, s)
		send(t, r, "a")
		done := flush(r.Client)
		r.Close(resock.StatusNormalClosure, "")
		<-r.Done()
		ends(t, "unanswered", done, resock.ErrMaybeSent)
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		c.StopReading()
		queued := r.Queue(strings.Repeat("a", 1<<20))
		done := flush(r.Client)
		r.Close(resock.StatusNormalClosure, "")
		waits(t, "while it closes", done)
		c.StartReading()
		<-r.Done()
		ends(t, "answered", done, nil)
		if err := <-queued; err != nil {
			t.Error(err)
		}
	})
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		if err := client.Enqueue(resock.MessageText, []byte("a")); err != nil {
			t.Fatal(err)
		}
		done := flush(client)
		client.Close(resock.StatusNormalClosure, "")
		<-client.Done()
		ends(t, "unsent", done, resock.ErrClosed)
	})
}

// A thousand concurrent calls of Flush, some of which are canceled, share their pings.
func TestFlushMany(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		r := rig.Reaching(t, s, resock.WithHeartbeat(0, 0))
		c := s.Accept()
		r.Open()
		ctx, cancel := context.WithCancel(context.Background())
		var patient, others []<-chan error
		c.IgnorePings()
		for i := range 1000 {
			if i%10 == 0 {
				send(t, r, fmt.Sprint(i))
			}
			patient = append(patient, flush(r.Client))
			others = append(others, flushUntil(ctx, r.Client))
		}
		cancel()
		for _, done := range others {
			ends(t, "cancelled", done, context.Canceled)
		}
		for _, done := range patient {
			waits(t, "patient", done)
		}
		c.AnswerPings()
		pong(c, 1)
		for _, done := range patient {
			ends(t, "patient", done, nil)
		}
		if n := len(c.Received().Pings); n != 2 {
			t.Errorf("%d pings, want 2", n)
		}
	})
}

// While a subscriber blocks delivery, the pong is not read. Flush does not wait for ever
// then, and its error names the subscriber.
func TestFlushWhileDeliveryIsBlocked(t *testing.T) {
	for name, feed := range map[string]func(c *resocktest.Conn){
		"from the beginning": func(c *resocktest.Conn) {
			for range 10 {
				_ = c.Push("push")
			}
		},
		"later": func(c *resocktest.Conn) {
			time.Sleep(5 * time.Second)
			for range 10 {
				_ = c.Push("push")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
				client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithHeartbeat(time.Minute, 20*time.Second))
				rig.Abandon(context.Background(), client, resock.WithBuffer(3), resock.WithLabel("slow"))
				go client.Run(context.Background())
				c := s.Accept()
				c.IgnorePings()
				if err := client.Send(t.Context(), resock.MessageText, nil); err != nil {
					t.Fatal(err)
				}
				go feed(c)
				began := time.Now()
				err := client.Flush(context.Background())
				if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "by slow") || took > 30*time.Second {
					t.Errorf("Flush: got %v after %v, want an error that names slow within 30s", err, took)
				}
			})
		})
	}
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Handle(func(c *resocktest.Conn) { _ = c.Push("x"); <-c.Done() })
		errs := make(chan error, 1)
		var client *resock.Client
		client = rig.Bare(t, s.URL, rig.Reach(s), resock.WithFilter(func(ctx context.Context, _ resock.MessageEvent) bool {
			errs <- client.Flush(ctx)
			return true
		}))
		go client.Run(context.Background())
		began := time.Now()
		if err := <-errs; err == nil || !strings.Contains(err.Error(), "filter") || time.Since(began) != 0 {
			t.Errorf("Flush in a filter: got %v after %v, want an error that names the filter, at once", err, time.Since(began))
		}
	})
}

// shutdown calls Shutdown on a goroutine of its own.
func shutdown(ctx context.Context, client *resock.Client) <-chan error {
	done := make(chan error, 1)
	go func() { done <- client.Shutdown(ctx) }()
	synctest.Wait()
	return done
}

// refuses checks that a client accepts no more messages.
func refuses(t *testing.T, client *resock.Client) {
	t.Helper()
	if err := client.Enqueue(resock.MessageText, nil); err != resock.ErrClosed {
		t.Errorf("Enqueue: got %v, want ErrClosed", err)
	}
	if err := client.Send(t.Context(), resock.MessageText, nil); err != resock.ErrClosed {
		t.Errorf("Send: got %v, want ErrClosed", err)
	}
}

// Shutdown sends everything that waits, a Send included, across a reconnect, and then
// closes with 1000.
func TestShutdownSends(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(503, nil, "later"), resocktest.Hold())
		r := rig.Reaching(t, s, resock.WithBackoff(time.Minute, time.Minute),
			resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				return session.Send(ctx, resock.MessageText, []byte("hello"))
			}))
		r.Fail(resock.PhaseUpgrade)
		sent := make(chan error, 1)
		go func() { sent <- r.Send(context.Background(), resock.MessageText, []byte("sent")) }()
		synctest.Wait()
		queued := r.Queue("queued")
		first, second := shutdown(context.Background(), r.Client), shutdown(context.Background(), r.Client)
		refuses(t, r.Client)
		r.Open()
		c := s.Accept()
		if closed := r.Closed(resock.StatusNormalClosure, "", true); closed.Next != resock.StateClosed {
			t.Errorf("got %+v, want closed next", closed)
		}
		for _, outcome := range []<-chan error{sent, queued, first, second} {
			if err := <-outcome; err != nil {
				t.Error(err)
			}
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello sent queued]" {
			t.Errorf("the server received %s, want [hello sent queued]", got)
		}
		if err := r.Err(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := r.Shutdown(context.Background()); err != nil {
			t.Errorf("once more: %v", err)
		}
	})
}

// With nothing to send, Shutdown closes at once in every state.
func TestShutdownWithoutMessages(t *testing.T) {
	for name, opt := range map[string]resock.Option{"open": nil, "waiting": resock.WithBackoff(time.Hour, time.Hour)} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			opts := []resock.Option{rig.Reach(s)}
			if opt != nil {
				s.Script(resocktest.Refuse())
				opts = append(opts, opt)
			}
			client := rig.Bare(t, s.URL, opts...)
			go client.Run(context.Background())
			synctest.Wait()
			began := time.Now()
			if err := client.Shutdown(context.Background()); err != nil || client.State() != resock.StateClosed {
				t.Errorf("%s: got %v, state %v, want nil, closed", name, err, client.State())
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: Shutdown took %v, want at most 1s", name, took)
			}
		})
	}
}

// Shutdown of a suspended client waits for Resume, and sends then.
func TestShutdownWhileSuspended(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		client.Suspend()
		go client.Run(context.Background())
		synctest.Wait()
		option, told := rig.Outcome()
		if err := client.Enqueue(resock.MessageText, []byte("later"), option); err != nil {
			t.Fatal(err)
		}
		done := shutdown(context.Background(), client)
		time.Sleep(time.Hour)
		if err, ok := rig.Settled(done); ok {
			t.Fatalf("Shutdown of a suspended client returned %v, want it to wait", err)
		}
		client.Resume()
		if err, outcome := <-done, <-told; err != nil || outcome != nil {
			t.Errorf("Shutdown: got %v, and the outcome %v, want nil", err, outcome)
		}
	})
}

// If something cuts Shutdown short, its error says how many messages were not sent.
func TestShutdownIsCutShort(t *testing.T) {
	type setting struct {
		opts []resock.Option
		cut  func(client *resock.Client, cancel context.CancelFunc)
		want error // in addition to ErrNotSent
	}
	for name, test := range map[string]setting{
		"before Run": {},
		"Close":      {cut: func(c *resock.Client, _ context.CancelFunc) { c.Close(4000, "") }},
		"the context of Run": {
			cut:  func(_ *resock.Client, cancel context.CancelFunc) { cancel() },
			want: context.Canceled,
		},
		"giving up": {
			opts: []resock.Option{resock.WithMaxAttempts(3)},
			cut:  func(*resock.Client, context.CancelFunc) {},
			want: io.EOF, // see below
		},
	} {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			s.Script(resocktest.Drop())
			client := rig.Bare(t, s.URL, append(test.opts, rig.Reach(s), resock.WithBackoff(time.Second, time.Second))...)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			told := make(chan error, 3)
			for range 3 {
				if err := client.Enqueue(resock.MessageText, nil, resock.WithResult(func(err error) { told <- err })); err != nil {
					t.Fatal(err)
				}
			}
			if test.cut != nil {
				go client.Run(ctx)
				synctest.Wait()
			}
			done := shutdown(context.Background(), client)
			if test.cut != nil {
				if err, ok := rig.Settled(done); ok {
					t.Fatalf("%s: Shutdown returned %v, want it to wait", name, err)
				}
				test.cut(client, cancel)
			}
			err := <-done
			if !errors.Is(err, resock.ErrNotSent) || !strings.Contains(err.Error(), " 3 messages") {
				t.Errorf("%s: got %v, want ErrNotSent for 3 messages", name, err)
			}
			var gaveUp *resock.GiveUpError
			if is := errors.As(err, &gaveUp); test.want == io.EOF && !is || test.want == context.Canceled && !errors.Is(err, test.want) {
				t.Errorf("%s: got %v, want the reason why the client closed", name, err)
			}
			for range 3 {
				if err := <-told; err != resock.ErrClosed {
					t.Errorf("%s: outcome %v, want ErrClosed", name, err)
				}
			}
		})
	}
}

// If the context of Shutdown ends, Shutdown returns, but the client goes on sending and
// closes.
func TestShutdownGoesOnAlone(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(503, nil, "later"), resocktest.Hold())
		client := rig.Bare(t, s.URL, rig.Reach(s), resock.WithBackoff(time.Hour, time.Hour))
		option, told := rig.Outcome()
		for range 2 {
			if err := client.Enqueue(resock.MessageText, nil, option); err != nil {
				t.Fatal(err)
			}
		}
		go client.Run(context.Background())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		began := time.Now()
		err := client.Shutdown(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), " 2 messages") || time.Since(began) != time.Millisecond {
			t.Errorf("got %v after %v, want DeadlineExceeded for 2 messages after 1ms", err, time.Since(began))
		}
		refuses(t, client)
		<-client.Done()
		if err := errors.Join(<-told, <-told, client.Err()); err != nil {
			t.Error(err)
		}
	})
}

// Shutdown does not wait for messages whose Send was canceled, but counts them as not
// sent.
func TestShutdownCountsWhatIsGivenUp(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		client := rig.Bare(t, s.URL, rig.Reach(s))
		client.Suspend()
		go client.Run(context.Background())
		synctest.Wait()
		lost := make(chan error, 1)
		if err := client.Enqueue(resock.MessageText, nil, resock.WithTTL(time.Nanosecond)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // a message that expired before Shutdown does not count
		if err := client.Enqueue(resock.MessageText, nil, resock.WithTTL(time.Second)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		go func() { lost <- client.Send(ctx, resock.MessageText, nil) }()
		go client.Flush(context.Background())
		synctest.Wait()
		done := shutdown(context.Background(), client)
		time.Sleep(1500 * time.Millisecond)
		if err, ok := rig.Settled(done); ok {
			t.Errorf("Shutdown returned %v before the Send gave up", err)
		}
		if err := <-lost; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the Send that gave up: got %v, want DeadlineExceeded", err)
		}
		if err, ok := rig.Settled(done); !ok || !errors.Is(err, resock.ErrNotSent) || !strings.Contains(err.Error(), " 2 messages") {
			t.Errorf("got %v, want ErrNotSent for 2 messages", err)
		}
	})
}

// Messages that are being written may come back unsent; Shutdown then waits for the next
// session.
func TestShutdownWaitsForTheWrite(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		first := true
		reach := rig.ReachBy(s, func(conn net.Conn) net.Conn {
			line := rig.NewLine(conn)
			if first {
				line.Limit(4 << 10)
			}
			first = false
			return line
		})
		client := rig.Bare(t, s.URL, reach, resock.WithHeartbeat(0, 0), resock.WithBackoff(time.Second, time.Second))
		begun, large := rig.Outcome()
		last, small := rig.Outcome()
		err := errors.Join(client.Enqueue(resock.MessageBinary, make([]byte, 40<<10), begun), client.Enqueue(resock.MessageText, []byte("last"), last))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(context.Background())
		c := s.Accept()
		time.AfterFunc(5*time.Second, c.Drop)
		synctest.Wait()
		if err := client.Shutdown(context.Background()); err != nil { // one may have been sent
			t.Errorf("Shutdown: got %v, want nil", err)
		}
		if err := <-large; err != resock.ErrMaybeSent {
			t.Errorf("the message being written: got %v, want ErrMaybeSent", err)
		}
		if err, got := <-small, rig.Payloads(s.Accept()); err != nil || fmt.Sprint(got) != "[last]" {
			t.Errorf("the message behind it: got %v, want nil; the next session received %q, want [last]", err, got)
		}
	})
}
