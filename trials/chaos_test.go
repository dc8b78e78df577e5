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

var chaosSeeds = flag.Int("resock.chaos", 150, "how many seeds TestChaos runs")

// TestChaos calls all methods of a client at random times, against a server that does
// random things, and checks what must hold in any case: the events follow the grammar,
// every message has one outcome, and the client closes within the close timeout, after
// which nothing runs.
func TestChaos(t *testing.T) {
	for seed := range *chaosSeeds {
		rig.Virtual(t, func(t *testing.T, s *resocktest.Server) { runChaos(t, s, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// dice is a source of random numbers for concurrent use.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func (d *dice) roll(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// pause sleeps for a random time of up to most.
func (d *dice) pause(most time.Duration) { time.Sleep(time.Duration(d.roll(int(most)))) }

// chaosCloseTimeout is the close timeout of the client of TestChaos.
const chaosCloseTimeout = time.Second

// chaos is one run of TestChaos: a client and everything that happens to it.
type chaos struct {
	*dice
	t      *testing.T
	client *resock.Client
	stopAt time.Time
	tasks  sync.WaitGroup

	queued, settled atomic.Int64
}

func runChaos(t *testing.T, s *resocktest.Server, seed uint64) {
	d := &dice{r: rand.New(rand.NewPCG(seed, 1))}
	s.Script(arrivals(d)...)
	c := &chaos{dice: d, t: t, client: rig.Bare(t, s.URL, append(chaosOptions(d), rig.Reach(s))...)}
	c.subscribe(false)
	c.stopAt = time.Now().Add(5 * time.Second)
	c.tasks.Go(c.enqueue)
	for range 3 {
		c.tasks.Go(c.send)
	}
	c.tasks.Go(c.control)
	c.run()
	c.tasks.Wait()
	if queued, settled := c.queued.Load(), c.settled.Load(); queued != settled {
		t.Errorf("%d messages queued, %d outcomes, want one for each", queued, settled)
	}
	if stats := c.client.Stats(); stats.Queued != 0 || stats.QueuedBytes != 0 || !stats.BlockedSince.IsZero() {
		t.Errorf("got %+v after the end, want an empty queue, and delivery not blocked", stats)
	}
}

// chaosOptions returns options with short times, and a random choice of others.
func chaosOptions(d *dice) []resock.Option {
	opts := []resock.Option{
		resock.WithBackoff(50*time.Millisecond, 500*time.Millisecond),
		resock.WithStableAfter(time.Second),
		resock.WithHeartbeat(300*time.Millisecond, 300*time.Millisecond),
		resock.WithWriteTimeout(400 * time.Millisecond),
		resock.WithDialTimeout(300 * time.Millisecond),
		resock.WithCloseTimeout(chaosCloseTimeout),
		resock.WithReadLimit(2000),
		resock.WithRetryPolicy(func(f resock.Failure) resock.Decision {
			return resock.Decision{Action: resock.ActionRetry, Rule: resock.DefaultRetryPolicy(f).Rule}
		}),
	}
	for _, maybe := range []struct {
		oneIn  int
		option resock.Option
	}{
		{3, resock.WithMaxSessionAge(time.Second)},
		{3, resock.WithHandover(300 * time.Millisecond)},
		{3, resock.WithIdleTimeout(700 * time.Millisecond)},
		{3, resock.WithHeartbeatMessage(func() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") })},
		{4, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { d.pause(time.Millisecond) })},
		{2, resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error { return chaosOnOpen(ctx, d, s) })},
		{3, resock.WithEndpoint(func(ctx context.Context, _ resock.Attempt) (resock.Endpoint, error) {
			if d.roll(5) == 0 {
				<-ctx.Done()
			}
			return resock.Endpoint{}, ctx.Err()
		})},
	} {
		if d.roll(maybe.oneIn) == 0 {
			opts = append(opts, maybe.option)
		}
	}
	return opts
}

func chaosOnOpen(ctx context.Context, d *dice, s *resock.Session) error {
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
}

// subscribe adds a consumer that may be slow, stop reading, or leave.
func (c *chaos) subscribe(late bool) {
	ctx, leave := context.WithCancel(context.Background())
	leaves := c.roll(3) == 0
	checker := &grammar.Checker{Late: late, Cut: true}
	var opts []resock.SubscribeOption
	if c.roll(2) == 0 {
		opts = append(opts, resock.WithBuffer(c.roll(4)))
	}
	if c.roll(3) == 0 {
		opts = append(opts, resock.WithOverflow(resock.OverflowDropOldest))
	}
	if c.roll(4) == 0 {
		opts = append(opts, resock.WithoutMessages())
	}
	events := c.client.Subscribe(ctx, opts...)
	stops := c.roll(6) == 0
	c.tasks.Go(func() {
		defer leave()
		for range checker.All(c.t, events) {
			if c.roll(10) == 0 {
				c.pause(50 * time.Millisecond)
			}
			if stops && c.roll(20) == 0 {
				<-c.client.Done() // without reading
			}
			if leaves && c.roll(20) == 0 {
				leave()
			}
		}
	})
}

// enqueue queues messages, and checks that none has two outcomes.
func (c *chaos) enqueue() {
	for time.Now().Before(c.stopAt) {
		var once atomic.Bool
		err := c.client.Enqueue(resock.MessageBinary, make([]byte, c.roll(3000)), resock.WithTTL(time.Duration(1+c.roll(int(time.Second)))),
			resock.WithResult(func(error) {
				if once.Swap(true) {
					c.t.Error("a message has two outcomes")
				}
				c.settled.Add(1)
			}))
		if err == nil {
			c.queued.Add(1)
		}
		c.pause(20 * time.Millisecond)
	}
}

// send sends messages, and checks that each Send returns in time.
func (c *chaos) send() {
	for time.Now().Before(c.stopAt) {
		limit := time.Duration(1 + c.roll(int(300*time.Millisecond)))
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		started := time.Now()
		err := c.client.Send(ctx, resock.MessageText, make([]byte, c.roll(3000)))
		// Send takes as long as its context allows, or one flush of the write buffer more.
		if took := time.Since(started); took > limit+900*time.Millisecond {
			c.t.Errorf("Send took %v with a context of %v: got %v", took, limit, err)
		}
		cancel()
		if err != nil && !errors.Is(err, resock.ErrNotSent) && !errors.Is(err, resock.ErrMaybeSent) {
			c.t.Errorf("Send: got %v, want nil, ErrNotSent or ErrMaybeSent", err)
		}
		c.pause(20 * time.Millisecond)
	}
}

// control calls the control methods at random.
func (c *chaos) control() {
	for time.Now().Before(c.stopAt) {
		c.pause(100 * time.Millisecond)
		switch c.roll(7) {
		case 0:
			c.client.Suspend()
			c.pause(30 * time.Millisecond)
			c.client.Resume()
		case 1:
			c.client.Resume()
		case 2, 3:
			c.client.Reconnect()
		case 4:
			c.subscribe(true)
		case 5:
			c.client.Stats()
		case 6:
			c.client.Handover()
		}
	}
}

// run calls Run, closes or cancels it after some time, and checks how it returns.
func (c *chaos) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		c.pause(10 * time.Millisecond)
		done <- c.client.Run(ctx)
	}()
	c.pause(5 * time.Second)
	began := time.Now()
	canceled := c.roll(2) == 0
	if canceled {
		cancel()
	} else {
		c.client.Close(resock.StatusNormalClosure, "bye")
	}
	err := <-done
	if took := time.Since(began); took > chaosCloseTimeout+20*time.Millisecond {
		c.t.Errorf("closing took %v, want at most the close timeout", took)
	}
	if canceled != errors.Is(err, context.Canceled) || !canceled && err != nil {
		c.t.Errorf("Run: got %v, canceled: %v, want Canceled if it was, and else nil", err, canceled)
	}
}

// arrivals returns how a server answers a hundred attempts: mostly by a connection on
// which it does random things.
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

// late upgrades a connection late, sends one message byte by byte, and drops it.
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

// anything makes random moves on a connection until it ends.
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

// anyMove makes one random move, and reports whether the connection goes on.
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

// anyFault makes one of the rare moves now and then. It reports whether the connection
// goes on.
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

// inPieces sends bytes in pieces of random sizes.
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
