package resume_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

var (
	schedules = flag.Int("resock.schedules", 300, "number of random schedules of TestSchedules")
	seed      = flag.Uint64("resock.seed", 0, "the only schedule to run, if it is not 0")
)

// TestSchedules draws servers, faults and consumers at random, lets processes crash, and
// holds what each was told against the logs of the server.
func TestSchedules(t *testing.T) {
	first, last := uint64(1), uint64(*schedules)
	if *seed > 0 {
		first, last = *seed, *seed
	}
	var next atomic.Uint64
	next.Store(first)
	var failed atomic.Bool
	for worker := range runtime.GOMAXPROCS(0) {
		t.Run(fmt.Sprint(worker), func(t *testing.T) {
			t.Parallel()
			for n := next.Add(1) - 1; n <= last && !failed.Load(); n = next.Add(1) - 1 {
				draw(t, n)
				if t.Failed() {
					failed.Store(true)
				}
			}
		})
	}
}

// draw runs one schedule.
func draw(t *testing.T, n uint64) {
	defer func() {
		if err := recover(); err != nil { // the panic of a bubble does not name the seed
			panic(fmt.Sprintf("-resock.seed=%d: %v", n, err))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s := &schedule{
			t: t, rand: rand.New(rand.NewPCG(n, 0)), server: resocktest.NewMemory(t),
			streams: map[string]*source{}, records: map[string]record{},
		}
		s.run()
		if t.Failed() {
			t.Logf("-resock.seed=%d", n)
		}
	})
}

// schedule is one random history of a server, and of the processes that follow it.
type schedule struct {
	t      *testing.T
	server *resocktest.Server

	luck sync.Mutex
	rand *rand.Rand

	mu      sync.Mutex // of all below, and of the model
	streams map[string]*source
	names   []string
	records map[string]record
	link    *link
	stored  []resume.Position // what survives a crash
	settled bool              // there are no more faults
	story   []string
}

func (s *schedule) upTo(n int) int {
	s.luck.Lock()
	defer s.luck.Unlock()
	return s.rand.IntN(n + 1)
}

func (s *schedule) one(in int) bool { return s.upTo(in-1) == 0 }

// pause waits, and comes back at a time of its own, so that whoever runs then is alone.
func (s *schedule) pause(most time.Duration) {
	time.Sleep(time.Duration(1 + s.upTo(int(most))))
}

func (s *schedule) note(format string, args ...any) {
	s.story = append(s.story, fmt.Sprintf(format, args...))
}

func (s *schedule) errorf(format string, args ...any) {
	if !s.t.Failed() {
		s.t.Errorf("%s\nafter:\n%s", fmt.Sprintf(format, args...), strings.Join(s.story, "\n"))
	}
}

func (s *schedule) run() {
	for n := range 1 + s.upTo(3) {
		kind := kind(s.upTo(3))
		source := &source{
			name: string(rune('a' + n)), kind: kind, history: 5 + s.upTo(30), epochs: s.upTo(1),
			unasked: n == 3 && kind <= linked,
		}
		s.names = append(s.names, source.name)
		s.streams[source.name] = source
		for range s.upTo(10) {
			source.grow(s.upTo(3))
		}
	}
	s.server.Handle(s.serve)
	var producing sync.WaitGroup
	producing.Go(s.produce)
	for lives := 1 + s.upTo(2); lives > 0 && !s.t.Failed(); lives-- {
		s.live(lives == 1)
	}
	s.mu.Lock()
	s.settled = true
	s.mu.Unlock()
	producing.Wait()
	s.server.Close()
}
