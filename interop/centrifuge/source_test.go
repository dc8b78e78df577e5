package centrifuge

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

const (
	rate     = 2000             // publications per second
	distance = 60               // ticks between cuts, on average
	tick     = time.Millisecond // of the pacing
)

// life is what was published between the start and the stop of a server.
type life struct {
	epochs    []string // of the channels
	published []uint64
}

// source publishes to a server, and cuts the client's connection. A publication's data names the
// life and the number that it has in its channel.
type source struct {
	t        *testing.T
	channels []string
	history  int
	restarts bool
	random   *rand.Rand
	server   *server
	proxy    *proxy
	next     int // the channel
	cuts     int
	once     sync.Once
	running  sync.WaitGroup

	mu    sync.Mutex
	lives []*life
	over  bool // all was published
}

func newSource(t *testing.T, channels []string, history int, restarts bool) *source {
	t.Helper()
	s := &source{t: t, channels: channels, history: history, restarts: restarts, random: rand.New(rand.NewPCG(1, 2))}
	if err := s.begin(); err != nil {
		t.Fatal(err)
	}
	s.proxy = newProxy(t, s.server.address())
	t.Cleanup(func() {
		s.running.Wait()
		s.server.stop(t)
	})
	return s
}

// begin starts a server, and a new life.
func (s *source) begin() error {
	server, err := newServer(s.history, pinging(50*time.Millisecond))
	if err != nil {
		return err
	}
	l := &life{published: make([]uint64, len(s.channels))}
	for _, channel := range s.channels {
		epoch, err := server.epoch(channel)
		if err != nil {
			return err
		}
		l.epochs = append(l.epochs, epoch)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.lives = server, append(s.lives, l)
	return nil
}

// restart puts another server in the place of the one that there is.
func (s *source) restart() error {
	old := s.server
	if err := s.begin(); err != nil {
		return err
	}
	s.proxy.redirect(s.server.address())
	old.stop(s.t)
	return nil
}

// publish publishes to the channels in turn.
func (s *source) publish(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.publishLocked(n)
}

func (s *source) publishLocked(n int) error {
	l := s.lives[len(s.lives)-1]
	for range n {
		l.published[s.next]++
		number := l.published[s.next]
		data := fmt.Sprintf(`{"life":%d,"number":%d}`, len(s.lives)-1, number)
		at, err := s.server.publish(s.channels[s.next], data)
		if err != nil {
			return err
		}
		if at.Offset != number || at.Epoch != l.epochs[s.next] {
			return fmt.Errorf("the server publishes %s of %s at %+v", data, s.channels[s.next], at)
		}
		s.next = (s.next + 1) % len(s.channels)
	}
	return nil
}

// start lets the source run, the first time that it is called.
func (s *source) start(cuts int) {
	s.once.Do(func() {
		s.running.Go(func() {
			if err := s.run(cuts); err != nil {
				s.t.Error(err)
			}
		})
	})
}

// run publishes at the rate until it has made so many cuts, or the test has failed.
func (s *source) run(cuts int) error {
	pace := time.NewTicker(tick)
	defer pace.Stop()
	began, published := time.Now(), 0
	for s.cuts < cuts {
		select {
		case <-pace.C:
		case <-s.t.Context().Done():
			return nil
		}
		due := int(time.Since(began)*rate/time.Second) - published
		if err := s.publish(due); err != nil {
			return err
		}
		published += due
		if s.random.IntN(distance) == 0 && s.proxy.connected() {
			if err := s.cut(); err != nil {
				return err
			}
		}
	}
	return s.end()
}

// cut ends the client's connection in one of several ways, also while it is set up.
func (s *source) cut() error {
	s.cuts++
	if s.restarts && s.cuts%8 == 1 {
		return s.restart()
	}
	switch s.random.IntN(8) {
	case 0:
		return s.server.disconnect()
	case 1, 2:
		s.proxy.cut(0)
	default:
		s.proxy.cut(1 + s.random.IntN(300)) // in a message, mostly
	}
	return nil
}

// end publishes to each channel once more. Who sees all of these knows that it was the end.
func (s *source) end() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	return s.publishLocked(len(s.channels))
}

// total returns how many publications there were.
func (s *source) total() (n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lives {
		for _, published := range l.published {
			n += published
		}
	}
	return n
}
