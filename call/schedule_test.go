package call_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/call"
	"github.com/resock/resock/resocktest"
)

var (
	schedules = flag.Int("resock.schedules", 300, "number of random schedules of TestSchedules")
	seed      = flag.Uint64("resock.seed", 0, "the only schedule to run, if it is not 0")
)

// TestSchedules draws calls, answers and ends of sessions at random, and holds the
// outcomes against what the server saw.
func TestSchedules(t *testing.T) {
	first, last := uint64(1), uint64(*schedules)
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last && !t.Failed(); n++ {
		synctest.Test(t, func(t *testing.T) {
			s := &schedule{t: t, rand: rand.New(rand.NewPCG(n, 0)), seen: map[string]int{}, gone: map[string]time.Time{}, told: map[string]int{}}
			s.run()
			if t.Failed() {
				t.Logf("-resock.seed=%d", n)
			}
		})
	}
}

// schedule is one random life of a client and its server.
type schedule struct {
	t      *testing.T
	rand   *rand.Rand
	server *resocktest.Server
	calls  *call.Calls
	slow   time.Duration // a pause of the reader now and then

	mu   sync.Mutex
	seen map[string]int       // how often the server read a request
	gone map[string]time.Time // when the connection ended that brought it
	told map[string]int       // how often it sent an answer
}

// request is a call of the schedule, and how it ended.
type request struct {
	id      string
	patient time.Duration // of its context
	result
	at time.Time // when it ended
}

func (s *schedule) upTo(d time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(d) + 1))
}

func (s *schedule) run() {
	s.server = resocktest.NewMemory(s.t)
	sessions := make([]session, 2+s.rand.IntN(6))
	for i := range sessions {
		sessions[i] = s.draw()
	}
	var connections atomic.Int32
	s.server.Handle(func(conn *resocktest.Conn) {
		n := min(int(connections.Add(1)), len(sessions))
		s.serve(conn, sessions[n-1], n == len(sessions))
	})
	client, calls := bound(s.t, s.server, call.WithPatience(3*time.Second))
	s.calls = calls
	delivered := map[string]int{}
	var reading sync.WaitGroup
	if s.rand.IntN(2) == 0 {
		s.slow = s.upTo(2 * time.Second)
	}
	messages := client.Messages(context.Background(), resock.WithBuffer(2))
	reading.Go(func() {
		n := 0
		for m := range messages {
			delivered[string(m.Data)]++
			if n++; n%7 == 0 {
				time.Sleep(s.slow)
			}
		}
	})
	requests := make([]*request, 3+s.rand.IntN(12))
	var calling sync.WaitGroup
	for i := range requests {
		r := &request{id: fmt.Sprint(i), patient: s.upTo(20 * time.Second)}
		requests[i] = r
		start := s.upTo(10 * time.Second)
		calling.Go(func() {
			time.Sleep(start)
			ctx, cancel := context.WithTimeout(context.Background(), r.patient)
			defer cancel()
			m, err := calls.Do(ctx, r.id, resock.MessageText, []byte(r.id))
			r.result, r.at = result{string(m.Data), err}, time.Now()
		})
	}
	closes := s.rand.IntN(4) == 0
	if at := s.upTo(15 * time.Second); closes {
		time.Sleep(at)
		_ = client.Close(resock.StatusNormalClosure, "")
	}
	calling.Wait()
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	s.server.Close()
	reading.Wait()
	s.check(requests, delivered)
}

// session is what the server does with a connection.
type session struct {
	lasts time.Duration
	ends  int           // how
	delay time.Duration // of an answer at most
	skips int           // one of so many requests has no answer; 0 is none
	twice int           // one of so many has two; 0 is none
	noise time.Duration // between pushes; 0 is none
	seed  uint64
}

func (s *schedule) draw() session {
	return session{
		lasts: s.upTo(6 * time.Second), ends: s.rand.IntN(4), delay: s.upTo(3 * time.Second),
		skips: s.rand.IntN(4), twice: s.rand.IntN(4), noise: s.upTo(time.Second), seed: s.rand.Uint64(),
	}
}

// serve lets a connection go as it was drawn; the last goes on until the end.
func (s *schedule) serve(conn *resocktest.Conn, plan session, last bool) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	tasks.Go(func() { s.answer(conn, plan) })
	if last {
		return
	}
	tasks.Go(func() { s.push(conn, plan.noise) })
	time.Sleep(plan.lasts)
	switch plan.ends {
	case 0:
		conn.Drop()
	case 1:
		conn.Reset()
	case 2:
		_ = conn.Close(1012, "restart")
	default:
		_ = conn.HalfClose()
	}
}

func (s *schedule) push(conn *resocktest.Conn, every time.Duration) {
	for n := 0; every > 0; n++ {
		select {
		case <-conn.Done():
			return
		case <-time.After(every):
		}
		if conn.Push("push") != nil {
			return
		}
	}
}

// answer answers the requests of a connection, each after a while of its own.
func (s *schedule) answer(conn *resocktest.Conn, plan session) {
	random := rand.New(rand.NewPCG(plan.seed, 1))
	var tasks sync.WaitGroup
	defer tasks.Wait()
	var read []string
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, id := range read {
			s.gone[id] = time.Now()
		}
	}()
	for {
		m, err := conn.Read()
		if err != nil {
			return
		}
		id := string(m.Data)
		s.mu.Lock()
		s.seen[id]++
		s.mu.Unlock()
		read = append(read, id)
		delay, times := time.Duration(random.Int64N(int64(plan.delay)+1)), 1
		if plan.skips > 0 && random.IntN(plan.skips+1) == 0 {
			times = 0
		} else if plan.twice > 0 && random.IntN(plan.twice+1) == 0 {
			times = 2
		}
		tasks.Go(func() {
			time.Sleep(delay)
			for n := range times {
				s.mu.Lock()
				s.told[fmt.Sprintf("%s:%d", id, n)]++
				s.mu.Unlock()
				_ = conn.Push(fmt.Sprintf("%s:%d", id, n))
			}
		})
	}
}

// check holds each outcome against what the server saw.
func (s *schedule) check(requests []*request, delivered map[string]int) {
	for _, r := range requests {
		seen := s.seen[r.id]
		switch {
		case seen > 1:
			s.t.Errorf("request %s was sent %d times", r.id, seen)
		case r.err == nil:
			if !strings.HasPrefix(r.answer, r.id+":") || s.told[r.answer] != 1 || delivered[r.answer] > 0 {
				s.t.Errorf("request %s got %q, sent %d times and delivered %d times", r.id, r.answer, s.told[r.answer], delivered[r.answer])
			}
			if r.answer != r.id+":0" {
				s.t.Errorf("request %s got its second answer", r.id)
			}
		case errors.Is(r.err, resock.ErrMaybeSent):
			if errors.Is(r.err, resock.ErrNotSent) {
				s.t.Errorf("request %s: both at once: %v", r.id, r.err)
			}
			if gone, ok := s.gone[r.id]; ok && r.at.Sub(gone) > time.Second && s.slow == 0 {
				s.t.Errorf("request %s ended %v after its connection: %v", r.id, r.at.Sub(gone), r.err)
			}
		case errors.Is(r.err, resock.ErrNotSent):
			if seen > 0 {
				s.t.Errorf("request %s was sent, and yet: %v", r.id, r.err)
			}
		default:
			s.t.Errorf("request %s: %v", r.id, r.err)
		}
	}
	for text, n := range delivered {
		if text != "push" && n > s.told[text] {
			s.t.Errorf("%q was delivered %d times and sent %d times", text, n, s.told[text])
		}
	}
	if n := s.calls.Waiting(); n > 0 {
		s.t.Errorf("%d calls wait", n)
	}
}
