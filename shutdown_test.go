package resock_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

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
	bubble(t, func(t *testing.T) {
		var got []string
		client := newClient(t, resock.WithHeartbeat(0, 0), resock.WithBackoff(time.Second, time.Second), inMemoryRoom(4<<10, func(n int, p *peer) {
			if p.upgrade() && n > 1 {
				p.echoClose(func(payload string) { got = append(got, payload) })
			}
			time.Sleep(5 * time.Second) // reading nothing
		}))
		begun, first := rig.Outcome()
		last, second := rig.Outcome()
		err := errors.Join(client.Enqueue(resock.MessageBinary, make([]byte, 40<<10), begun), client.Enqueue(resock.MessageText, []byte("last"), last))
		if err != nil {
			t.Fatal(err)
		}
		go client.Run(context.Background())
		synctest.Wait()
		if err := client.Shutdown(context.Background()); err != nil { // one may have been sent
			t.Error(err)
		}
		if err := <-first; err != resock.ErrMaybeSent {
			t.Errorf("what was being written: %v", err)
		}
		if err := <-second; err != nil || fmt.Sprint(got) != "[last]" {
			t.Errorf("what was behind it: %v, the next session got %q", err, got)
		}
	})
}
