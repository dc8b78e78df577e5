package resock_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

func TestRetryAfterIsHonoured(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Script(resocktest.Status(http.StatusServiceUnavailable, http.Header{"Retry-After": {"3"}}, "full"), resocktest.Hold())
		r := rig.Reaching(t, s)
		fail := r.Fail(resock.PhaseUpgrade)
		r.Open()
		attempts := s.Attempts()
		if waited := attempts[1].Time.Sub(attempts[0].Time); waited < 3*time.Second || waited > 3020*time.Millisecond || waited != fail.RetryIn {
			t.Errorf("dialed again after %v, announced as %v, want 3 s and the jitter of the first backoff", waited, fail.RetryIn)
		}
	})
}

func TestAttemptLimit(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		s.Stop()
		r := rig.Reaching(t, s, resock.WithMaxAttempts(10))
		queued := r.Queue("never sent")
		for attempt := 1; attempt <= 10; attempt++ {
			fail := r.Fail(resock.PhaseTCP)
			if last := fail.Next == resock.StateClosed; fail.Attempt != attempt || last != (attempt == 10) {
				t.Errorf("attempt %d: %+v", attempt, fail)
			}
		}
		if _, more := <-r.Events; more {
			t.Error("an event after StateClosed")
		}
		<-r.Done()
		var gaveUp *resock.GiveUpError
		if !errors.As(r.Err(), &gaveUp) || gaveUp.Attempts != 10 || gaveUp.Rule != "attempt limit" || gaveUp.Err == nil {
			t.Errorf("%v, want to give up by the attempt limit", r.Err())
		}
		if err := <-queued; !errors.Is(err, resock.ErrClosed) {
			t.Errorf("the queued message: %v", err)
		}
		if n := len(s.Attempts()); n != 10 {
			t.Errorf("%d attempts", n)
		}
	})
}

// TestFleetSpreads cuts a thousand clients off at the same instant and looks at
// when they dial again: uniformly below the first bound, as full jitter promises.
func TestFleetSpreads(t *testing.T) {
	rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
		const clients, bound, slots = 1000, 10 * time.Second, 10
		all := make([]*resock.Client, clients)
		for i := range all {
			client, err := resock.New(s.URL, rig.Reach(s), resock.WithBackoff(bound, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			all[i] = client
			go client.Run(t.Context())
		}
		time.Sleep(time.Minute) // all are open and stable
		cut := time.Now()
		for _, c := range s.Conns() {
			c.Drop()
		}
		time.Sleep(time.Minute)
		var counts [slots]int
		again := s.Attempts()[clients:]
		for _, attempt := range again {
			counts[min(slots-1, int(attempt.Time.Sub(cut)*slots/bound))]++
		}
		if len(again) != clients {
			t.Fatalf("%d clients dialed again", len(again))
		}
		// Pearson's test: with 9 degrees of freedom a uniform draw exceeds 33.7
		// once in ten thousand runs.
		squares := 0.0
		for _, n := range counts {
			squares += float64((n-clients/slots)*(n-clients/slots)) / (clients / slots)
		}
		if squares > 33.7 {
			t.Errorf("re-dials per second: %v, chi-squared %.1f", counts, squares)
		}
		for _, client := range all {
			if client.State() != resock.StateOpen {
				t.Errorf("a client is %v", client.State())
			}
			_ = client.Close(resock.StatusNormalClosure, "")
		}
		for _, client := range all {
			<-client.Done()
		}
	})
}

// TestRegistrationComesFirst: on every connection, in a thousand random
// schedules, the registration precedes all that was sent or queued.
func TestRegistrationComesFirst(t *testing.T) {
	for seed := range uint64(1000) {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) {
			random := rand.New(rand.NewPCG(seed, 3))
			s.Handle(func(c *resocktest.Conn) {
				if _, err := c.Read(); err != nil {
					return
				}
				_ = c.Push("welcome")
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				c.Drop()
			})
			client, err := resock.New(s.URL, append(rig.QuickOptions(), rig.Reach(s), resock.WithOnOpen(func(ctx context.Context, session *resock.Session) error {
				if err := session.Send(ctx, resock.MessageText, fmt.Append(nil, "register ", session.ID())); err != nil {
					return err
				}
				_, _, err := session.Receive(ctx)
				return err
			}))...)
			if err != nil {
				t.Fatal(err)
			}
			go client.Run(t.Context())
			for i := range 20 {
				switch random.IntN(3) {
				case 0:
					go func() { _ = client.Send(t.Context(), resock.MessageText, fmt.Append(nil, "sent ", i)) }()
				case 1:
					_ = client.Enqueue(resock.MessageText, fmt.Append(nil, "queued ", i))
				default:
					time.Sleep(time.Duration(random.IntN(20)) * time.Millisecond)
				}
			}
			time.Sleep(time.Second)
			_ = client.Close(resock.StatusNormalClosure, "")
			<-client.Done()
			synctest.Wait()
			for i, c := range s.Conns() {
				messages := c.Received().Messages
				registered := slices.IndexFunc(messages, func(m resocktest.Message) bool { return strings.HasPrefix(string(m.Data), "register ") })
				if registered > 0 || registered < 0 && len(messages) > 0 {
					t.Errorf("seed %d, connection %d: %q came before the registration", seed, i, messages[0].Data)
				}
			}
		})
	}
}
