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

// waits checks that a Flush goes on.
func waits(t *testing.T, what string, done <-chan error) {
	t.Helper()
	if err, ok := rig.Settled(done); ok {
		t.Fatalf("%s: Flush does not wait: %v", what, err)
	}
}

// ends checks that a Flush is over with an error, or with none.
func ends(t *testing.T, what string, done <-chan error, want error) {
	t.Helper()
	if err, ok := rig.Settled(done); !ok || !errors.Is(err, want) || (want == nil) != (err == nil) {
		t.Errorf("%s: Flush is over %t: %v, want %v", what, ok, err, want)
	}
}

// silentRig is a client without heartbeats, so that all pings are of Flush, and a
// server that answers them by hand.
func silentRig(t *testing.T, s *resocktest.Server, opts ...resock.Option) (*rig.Client, *resocktest.Conn) {
	r := rig.Reaching(t, s, append([]resock.Option{resock.WithHeartbeat(0, 0)}, opts...)...)
	c := s.Accept()
	c.IgnorePings()
	r.Open()
	return r, c
}

// pong answers the n-th ping, from 1.
func pong(c *resocktest.Conn, n byte) { _ = c.Pong("\x00\x00\x00" + string(rune(n))) }

// send sends a text message.
func send(t *testing.T, r *rig.Client, text string) {
	t.Helper()
	if err := r.Send(context.Background(), resock.MessageText, []byte(text)); err != nil {
		t.Error(err)
	}
}

// Without anything that the server has not answered for, Flush returns at once.
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
			t.Errorf("%d pings", n)
		}
	})
}

// The answer must follow what Flush waits for. Several of them share a ping, and one
// that came later does not do for those that came before it in vain.
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
			t.Errorf("%d pings for three", n)
		}
		pong(c, 1)
		ends(t, "the first", first, nil)
		ends(t, "the second", second, nil)
		waits(t, "the third", third)
		if n := len(c.Received().Pings); n != 2 {
			t.Errorf("%d pings", n)
		}
		pong(c, 2)
		ends(t, "the third", third, nil)
		ends(t, "of what is answered for", flush(r.Client), nil)
	})
}

// Any ping that followed does, also one that is not for Flush.
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

// Flush waits for what is queued or being written, in the next session if need be.
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
			t.Errorf("received %s", got)
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

// What was given up meanwhile is not waited for, and needs no ping.
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
			t.Errorf("%d pings", n)
		}
	})
}

// A lost session ends Flush at once if it took something, answered or not is the
// question; what it did not take is for the next one.
func TestFlushAndALostSession(t *testing.T) {
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
				t.Errorf("%v, %d pings", err, len(second.Received().Pings))
			}
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
				t.Error(err)
			}
		})
	})
	t.Run("untouched", func(t *testing.T) {
		// The first connection takes nothing: the message comes back untouched.
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
				t.Errorf("%v, after %d sessions", err, client.Stats().Opens)
			}
		})
	})
}

// What OnOpen sent is covered by a Flush that comes then, and not by one from before.
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
		<-steps // the session is in OnOpen, and took nothing so far
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

// A server that answers nothing is waited for until the context ends, wherever Flush
// stands by then.
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
				t.Errorf("it took %v of %v", took, d)
			}
			return err
		}
		if err := flushFor(time.Second); !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, resock.ErrNotSent) || !strings.HasPrefix(err.Error(), "resock: not flushed") {
			t.Errorf("unanswered: %v", err)
		}
		c.StopReading()
		go r.Send(context.Background(), resock.MessageBinary, make([]byte, 1<<20))
		synctest.Wait()
		queued := r.Queue("b")
		if err := flushFor(time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("in the queue: %v", err)
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

// When the client closes, a Flush is told the truth about what it waits for.
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

// 1,000 Flushes, whose contexts end or not, with Sends between them.
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
			t.Errorf("%d pings", n)
		}
	})
}

// The answer stands behind what nobody takes: Flush does not wait for that for ever.
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
					t.Errorf("Flush: %v after %v", err, took)
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
			t.Errorf("Flush in a filter: %v after %v", err, time.Since(began))
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

// refuses checks that a client accepts nothing any more.
func refuses(t *testing.T, client *resock.Client) {
	t.Helper()
	if err := client.Enqueue(resock.MessageText, nil); err != resock.ErrClosed {
		t.Errorf("Enqueue: %v", err)
	}
	if err := client.Send(t.Context(), resock.MessageText, nil); err != resock.ErrClosed {
		t.Errorf("Send: %v", err)
	}
}

// Shutdown sends what waits, a Send too, over a reconnect, and closes with 1000.
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
			t.Errorf("%+v", closed)
		}
		for _, outcome := range []<-chan error{sent, queued, first, second} {
			if err := <-outcome; err != nil {
				t.Error(err)
			}
		}
		if got := fmt.Sprint(rig.Payloads(c)); got != "[hello sent queued]" {
			t.Errorf("the server received %s", got)
		}
		if err := r.Err(); err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := r.Shutdown(context.Background()); err != nil {
			t.Errorf("once more: %v", err)
		}
	})
}

// Without anything to send, Shutdown is Close, whatever the client does.
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
				t.Errorf("%s: %v, %v", name, err, client.State())
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
		})
	}
}

// A client that is suspended sends when it is resumed.
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
			t.Fatalf("it does not wait: %v", err)
		}
		client.Resume()
		if err := <-done; err != nil || <-told != nil {
			t.Error(err)
		}
	})
}

// What cuts Shutdown short leaves messages, and it tells how many.
func TestShutdownIsCutShort(t *testing.T) {
	type setting struct {
		opts []resock.Option
		cut  func(client *resock.Client, cancel context.CancelFunc)
		want error // besides ErrNotSent
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
					t.Fatalf("%s: %v", name, err)
				}
				test.cut(client, cancel)
			}
			err := <-done
			if !errors.Is(err, resock.ErrNotSent) || !strings.Contains(err.Error(), " 3 messages") {
				t.Errorf("%s: %v", name, err)
			}
			var gaveUp *resock.GiveUpError
			if is := errors.As(err, &gaveUp); test.want == io.EOF && !is || test.want == context.Canceled && !errors.Is(err, test.want) {
				t.Errorf("%s: %v", name, err)
			}
			for range 3 {
				if err := <-told; err != resock.ErrClosed {
					t.Errorf("%s: outcome %v", name, err)
				}
			}
		})
	}
}

// Whoever does not wait for the end leaves; the messages are sent all the same.
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
			t.Errorf("%v after %v", err, time.Since(began))
		}
		refuses(t, client)
		<-client.Done()
		if err := errors.Join(<-told, <-told, client.Err()); err != nil {
			t.Error(err)
		}
	})
}

// Messages that nobody sends any more are not waited for, but counted.
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
		time.Sleep(time.Second) // what expired before does not count
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
			t.Errorf("before the Send is given up: %v", err)
		}
		if err := <-lost; !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		if err, ok := rig.Settled(done); !ok || !errors.Is(err, resock.ErrNotSent) || !strings.Contains(err.Error(), " 2 messages") {
			t.Errorf("%v", err)
		}
	})
}

// What is being written may come back unsent: then Shutdown goes on in the next
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
			t.Error(err)
		}
		if err := <-large; err != resock.ErrMaybeSent {
			t.Errorf("what was being written: %v", err)
		}
		if err, got := <-small, rig.Payloads(s.Accept()); err != nil || fmt.Sprint(got) != "[last]" {
			t.Errorf("what was behind it: %v, the next session got %q", err, got)
		}
	})
}
