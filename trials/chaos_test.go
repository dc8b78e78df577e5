package trials

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
	"github.com/resock/resock/internal/rig"
	"github.com/resock/resock/resocktest"
)

var chaosSeeds = flag.Int("chaos", 150, "seeds that TestChaos tries")

// TestChaos does everything at random times, against a server that does
// anything, and checks what must hold in any case: the event grammar, one outcome
// per message, and an end within the close timeout after which nothing runs.
func TestChaos(t *testing.T) {
	for seed := range *chaosSeeds {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) { chaos(t, s, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// dice is random and may be shared.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// pause sleeps for up to most.
func (d *dice) pause(most time.Duration) { time.Sleep(time.Duration(d.roll(int(most)))) }

func chaos(t *testing.T, s *resocktest.Server, seed uint64) {
	const closeTimeout = time.Second
	d := &dice{r: rand.New(rand.NewPCG(seed, 1))}
	s.Script(arrivals(d)...)
	opts := []resock.Option{
		rig.Reach(s),
		resock.WithBackoff(50*time.Millisecond, 500*time.Millisecond),
		resock.WithStableAfter(time.Second),
		resock.WithHeartbeat(300*time.Millisecond, 300*time.Millisecond),
		resock.WithWriteTimeout(400 * time.Millisecond),
		resock.WithDialTimeout(300 * time.Millisecond),
		resock.WithCloseTimeout(closeTimeout),
		resock.WithReadLimit(2000),
		resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			return resock.Decision{Action: resock.ActionRetry, Rule: resock.DefaultRetryPolicy(f).Rule}
		}),
	}
	if d.roll(3) == 0 {
		opts = append(opts, resock.WithMaxSessionAge(time.Second))
	}
	if d.roll(3) == 0 {
		opts = append(opts, resock.WithIdleTimeout(700*time.Millisecond))
	}
	if d.roll(3) == 0 {
		opts = append(opts, resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }))
	}
	if d.roll(4) == 0 {
		opts = append(opts, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { d.pause(time.Millisecond) }))
	}
	if d.roll(2) == 0 {
		opts = append(opts, resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
			switch d.roll(4) {
			case 0:
				_ = s.Send(ctx, resock.MessageText, []byte("hello"))
				_, _, err := s.Receive(ctx)
				return err
			case 1:
				d.pause(100 * time.Millisecond)
			case 2:
				return errors.New("not now")
			}
			return s.Send(ctx, resock.MessageText, []byte("hello"))
		}))
	}
	if d.roll(3) == 0 {
		opts = append(opts, resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			if d.roll(5) == 0 {
				<-ctx.Done()
			}
			return resock.Endpoint{}, ctx.Err()
		}))
	}
	client := rig.Bare(t, s.URL, opts...)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var running sync.WaitGroup
	subscribe := func(late bool) {
		ctx, leave := context.WithCancel(context.Background())
		leaves := d.roll(3) == 0
		checker := &grammar.Checker{Late: late, Cut: true}
		var opts []resock.SubscribeOption
		if d.roll(2) == 0 {
			opts = append(opts, resock.WithBuffer(d.roll(4)))
		}
		if d.roll(3) == 0 {
			opts = append(opts, resock.WithOverflow(resock.OverflowDropOldest))
		}
		if d.roll(4) == 0 {
			opts = append(opts, resock.WithoutMessages())
		}
		events := client.Subscribe(ctx, opts...)
		stops := d.roll(6) == 0
		running.Go(func() {
			defer leave()
			for range checker.All(t, events) {
				if d.roll(10) == 0 {
					d.pause(50 * time.Millisecond)
				}
				if stops && d.roll(20) == 0 {
					<-client.Done() // reads no more
				}
				if leaves && d.roll(20) == 0 {
					leave()
				}
			}
		})
	}
	subscribe(false)

	var queued, settled atomic.Int64
	stopAt := time.Now().Add(5 * time.Second)
	running.Go(func() {
		for time.Now().Before(stopAt) {
			var once atomic.Bool
			err := client.Enqueue(resock.MessageBinary, make([]byte, d.roll(3000)), resock.WithTTL(time.Duration(1+d.roll(int(time.Second)))),
				resock.WithResult(func(error) {
					if once.Swap(true) {
						t.Error("two outcomes")
					}
					settled.Add(1)
				}))
			if err == nil {
				queued.Add(1)
			}
			d.pause(20 * time.Millisecond)
		}
	})
	for range 3 {
		running.Go(func() {
			for time.Now().Before(stopAt) {
				limit := time.Duration(1 + d.roll(int(300*time.Millisecond)))
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				started := time.Now()
				err := client.Send(ctx, resock.MessageText, make([]byte, d.roll(3000)))
				// Its context, or one flush; and a drainer settles only after the flush.
				if took := time.Since(started); took > limit+900*time.Millisecond {
					t.Errorf("Send took %v with a context of %v: %v", took, limit, err)
				}
				cancel()
				if err != nil && !errors.Is(err, resock.ErrNotSent) && !errors.Is(err, resock.ErrMaybeSent) {
					t.Errorf("Send: %v", err)
				}
				d.pause(20 * time.Millisecond)
			}
		})
	}
	running.Go(func() {
		for time.Now().Before(stopAt) {
			d.pause(100 * time.Millisecond)
			switch d.roll(6) {
			case 0:
				client.Suspend()
				d.pause(30 * time.Millisecond)
				client.Resume()
			case 1:
				client.Resume()
			case 2, 3:
				client.Reconnect()
			case 4:
				subscribe(true)
			case 5:
				client.Stats()
			}
		}
	})

	done := make(chan error, 1)
	go func() {
		d.pause(10 * time.Millisecond)
		done <- client.Run(ctx)
	}()
	d.pause(5 * time.Second)
	began := time.Now()
	canceled := d.roll(2) == 0
	if canceled {
		cancel()
	} else {
		client.Close(resock.StatusNormalClosure, "bye")
	}
	err := <-done
	if took := time.Since(began); took > closeTimeout+20*time.Millisecond {
		t.Errorf("closing took %v", took)
	}
	if canceled != errors.Is(err, context.Canceled) || !canceled && err != nil {
		t.Errorf("Run returned %v; canceled: %v", err, canceled)
	}
	running.Wait()
	if queued.Load() != settled.Load() {
		t.Errorf("%d messages queued, %d outcomes", queued.Load(), settled.Load())
	}
	if stats := client.Stats(); stats.Queued != 0 || stats.QueuedBytes != 0 || !stats.BlockedSince.IsZero() {
		t.Errorf("%+v", stats)
	}
}

// arrivals are how a server answers a hundred attempts: by a connection on which it
// does anything, mostly.
func arrivals(d *dice) (steps []resocktest.Step) {
	for range 100 {
		step := resocktest.Serve(func(c *resocktest.Conn) { anything(d, c) })
		switch d.roll(8) {
		case 0:
			step = resocktest.Drop()
		case 1:
			step = anyOf(d, resocktest.Refuse(), resocktest.StallDial(), resocktest.StallTLS(), resocktest.StallUpgrade())
		case 2:
			step = resocktest.Answer(func(conn net.Conn, request *http.Request) { late(d, conn, request) })
		}
		steps = append(steps, step)
	}
	return steps
}

func anyOf(d *dice, of ...resocktest.Step) resocktest.Step { return of[d.roll(len(of))] }

// late takes its time to upgrade, sends one message byte by byte, and is gone.
func late(d *dice, conn net.Conn, request *http.Request) {
	d.pause(400 * time.Millisecond)
	if d.roll(3) == 0 {
		return
	}
	answer := rig.Upgraded(request)
	answer = append(answer, resocktest.Frame(rig.Fin|rig.Text, []byte("a message"))...)
	for i := range answer {
		if _, err := conn.Write(answer[i : i+1]); err != nil {
			return
		}
	}
	d.pause(100 * time.Millisecond)
}

// anything is a connection on which the server does anything.
func anything(d *dice, c *resocktest.Conn) {
	defer c.Drop()
	switch d.roll(6) {
	case 0:
		c.StopReading()
	case 1:
		c.IgnorePings()
		c.IgnoreClose()
	case 2:
		c.CutAfter(1 + d.roll(20_000))
	}
	for range 1 + d.roll(200) {
		if !anyMove(d, c) {
			return
		}
	}
	if d.roll(3) == 0 {
		_ = c.Close(resock.StatusGoingAway, "")
	}
	if d.roll(3) > 0 {
		<-c.Done()
	}
}

// anyMove makes one move and reports whether the connection goes on.
func anyMove(d *dice, c *resocktest.Conn) bool {
	switch d.roll(13) {
	case 0, 1, 2, 3:
		return c.Push("a message") == nil
	case 4:
		return inPieces(d, c, slices.Concat(
			resocktest.Frame(rig.Text, []byte("a fragmented ")),
			resocktest.Frame(0, nil),
			resocktest.Frame(rig.Fin, []byte("message")))) == nil
	case 5:
		return c.Ping("ping") == nil
	case 6:
		return c.Raw(bytes.Repeat(resocktest.Frame(rig.Fin|rig.Text, []byte("a burst")), 100)) == nil
	case 7, 8:
		d.pause(50 * time.Millisecond)
	case 9:
		return inPieces(d, c, resocktest.Frame(rig.Fin|rig.Binary, make([]byte, d.roll(2000)))) == nil
	case 10:
		return anyFault(d, c)
	case 11:
		select {
		case <-c.Done():
			return false
		default:
		}
	case 12:
		c.StopReading()
		d.pause(300 * time.Millisecond)
		c.StartReading()
	}
	return true
}

// anyFault is one of the rare moves, and none most of the time.
func anyFault(d *dice, c *resocktest.Conn) bool {
	partial := []byte{rig.Fin | rig.Binary, 126, 5, 0, 'p', 'a', 'r', 't'}
	switch d.roll(20) {
	case 0:
		return c.Raw(resocktest.Frame(rig.Fin|3, []byte("a reserved opcode"))) == nil
	case 1:
		return c.Push("\xff") == nil
	case 2:
		return c.Close(resock.StatusServiceRestart, "") == nil
	case 3:
		_ = c.Raw(partial)
		return false
	case 4:
		_ = c.Raw(partial)
		<-c.Done()
		return false
	case 5:
		return c.PushBinary(make([]byte, 2001)) == nil
	case 6:
		_ = c.HalfClose()
	case 7:
		c.Reset()
		return false
	}
	return true
}

// inPieces sends bytes cut at random places.
func inPieces(d *dice, c *resocktest.Conn, b []byte) error {
	for len(b) > 0 {
		n := 1 + d.roll(len(b))
		if err := c.Raw(b[:n]); err != nil {
			return err
		}
		b = b[n:]
		d.pause(time.Millisecond)
	}
	return nil
}
