package outbox_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/resocktest"
)

var (
	schedules = flag.Int("resock.schedules", 300, "number of random schedules of TestSchedules")
	seed      = flag.Uint64("resock.seed", 0, "the only schedule to run, if it is not 0")
)

// TestSchedules draws at random what a server acknowledges, how its connections end, what
// the application does, and where the process and the store fail. What was sent is held
// against what the server saw and said, and what was told against what the store took.
func TestSchedules(t *testing.T) {
	first, last := uint64(1), uint64(*schedules)
	if *seed > 0 {
		first, last = *seed, *seed
	}
	for n := first; n <= last && !t.Failed(); n++ {
		synctest.Test(t, func(t *testing.T) {
			s := &schedule{t: t, rand: rand.New(rand.NewPCG(n, 0)), disk: newDisk(), texts: map[string]string{},
				said: map[bool]map[string]bool{false: {}, true: {}}, told: map[string]told{}}
			s.run()
			if t.Failed() {
				t.Logf("-resock.seed=%d", n)
			}
		})
	}
}

// schedule is one random life of a server, and of the processes that send to it.
type schedule struct {
	t           *testing.T
	rand        *rand.Rand
	disk        *disk
	peer        *peer
	plans       []manner
	window      int
	most        int
	timeout     time.Duration
	losses      int    // Config.MaxLosses
	poison      string // the id of a message that ends the connection, or empty
	poisonStays bool   // to the end
	tasks       sync.WaitGroup

	mu       sync.Mutex
	final    bool // the last process runs
	lives    []*life
	accepted []string                 // ids for which Put returned nil
	texts    map[string]string        // what belongs to an id
	said     map[bool]map[string]bool // ids that were acknowledged, and refused
	told     map[string]told          // when the end of each was told
}

// told is when, and in which process, the end of a message was told.
type told struct {
	life int
	at   time.Time
}

// life is a process.
type life struct {
	*schedule
	number  int
	random  *rand.Rand // of the one goroutine that decides
	store   *process
	box     *outbox.Box
	begun   time.Time
	closing time.Time       // when the box was closed, or the process died
	gone    map[uint64]bool // was on the disk when it began
	count   outbox.Stats    // of what was told
	aside   []receipt       // what was set aside
	clients []*user
}

// user is a client of a life.
type user struct {
	client *resock.Client
	number int
	acts   []time.Time // what the application did to its sessions
	ends   []end       // of its sessions
}

// end is how a session ended.
type end struct {
	session uint64
	begun   time.Time
	at      time.Time
	rule    string
}

func (s *schedule) upTo(d time.Duration) time.Duration {
	return time.Duration(s.rand.Int64N(int64(d) + 1))
}

func (s *schedule) fork() *rand.Rand { return rand.New(rand.NewPCG(s.rand.Uint64(), 1)) }

func (s *schedule) run() {
	server := resocktest.NewMemory(s.t)
	s.peer = &peer{schedule: s, server: server}
	s.window, s.most = 1+s.rand.IntN(6), 3+s.rand.IntN(20)
	s.timeout = time.Second + s.upTo(8*time.Second)
	s.losses = []int{1, 2, 3, -1}[s.rand.IntN(4)]
	if s.rand.IntN(2) == 0 {
		s.poison = fmt.Sprintf("%d-0-%d", 0, s.rand.IntN(3))
		s.poisonStays = s.losses > 0 && s.rand.IntN(2) == 0
	}
	s.plans = make([]manner, 2+s.rand.IntN(8))
	for i := range s.plans {
		s.plans[i] = s.draw()
	}
	server.Handle(s.peer.serve)
	lives := 1 + s.rand.IntN(2)
	for n := range lives {
		s.live(n, n == lives-1)
	}
	server.Close()
	s.tasks.Wait()
	s.check()
}

// live is the life of a process, of which the last goes on until all is done.
func (s *schedule) live(number int, last bool) {
	steps := -1
	if !last && s.rand.IntN(3) > 0 {
		steps = s.rand.IntN(60)
	}
	p := &life{schedule: s, number: number, random: s.fork(), store: s.disk.start(s.fork(), steps, s.most, s.rand.IntN(2) == 0), begun: time.Now(), gone: s.disk.snapshot()}
	box, err := outbox.Open(outbox.Config{Read: p.reader(), Store: p.store, Done: p.done, MaxMessages: s.most, Window: s.window, AckTimeout: s.timeout, MaxLosses: s.losses})
	if err != nil {
		s.t.Fatal(err)
	}
	p.box = box
	s.mu.Lock()
	s.lives, s.final = append(s.lives, p), false
	s.mu.Unlock()
	var putting sync.WaitGroup
	for g := range 1 + s.rand.IntN(3) {
		random := s.fork()
		putting.Go(func() { p.put(g, random) })
	}
	p.bind()
	p.act(s.rand.IntN(8))
	if last {
		p.settle(&putting)
	} else {
		p.wait(s.upTo(20 * time.Second))
	}
	p.end()
	putting.Wait()
}

// wait waits until the process dies, or for a while.
func (p *life) wait(d time.Duration) {
	select {
	case <-p.store.died:
	case <-time.After(d):
	}
}

// settle waits until all is done, with a server that does its best.
func (p *life) settle(putting *sync.WaitGroup) {
	p.mu.Lock()
	p.final = true
	p.mu.Unlock()
	p.act(-1) // another session
	putting.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for {
		if err := p.box.Flush(ctx); err != nil {
			p.t.Errorf("at the end: %v, with %+v", err, p.box.Stats())
			return
		}
		if n, _ := p.store.Len(); n == 0 {
			return
		}
		time.Sleep(time.Second) // what failed may be stored, and Flush does not wait for it
		if ctx.Err() != nil {
			p.t.Errorf("%d messages are left", p.box.Stats().Messages)
			return
		}
	}
}
