package resock_test

import (
	"context"
	"errors"
	"flag"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/internal/grammar"
)

var chaosSeeds = flag.Int("chaos", 150, "seeds that TestChaos tries")

// TestChaos does everything at random times, against a server that does
// anything, and checks what must hold in any case: the event grammar, one outcome
// per message, and an end within the close timeout after which nothing runs.
func TestChaos(t *testing.T) {
	for seed := range *chaosSeeds {
		bubble(t, func(t *testing.T) { chaos(t, uint64(seed)) })
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

func chaos(t *testing.T, seed uint64) {
	const closeTimeout = time.Second
	d := &dice{r: rand.New(rand.NewPCG(seed, 1))}
	opts := []resock.Option{
		inMemoryRoom(1<<(8+d.roll(10)), func(_ int, p *peer) { anything(d, p) }),
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
	client := newClient(t, opts...)

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

// anything is a server that does anything.
func anything(d *dice, p *peer) {
	switch d.roll(8) {
	case 0:
		return
	case 1:
		d.pause(time.Second)
		return
	}
	if d.roll(10) == 0 {
		d.pause(200 * time.Millisecond)
	}
	if !p.upgrade() {
		return
	}
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		switch d.roll(4) {
		case 0:
			d.pause(2 * time.Second) // and then the pipe is closed
		case 1:
			io.Copy(io.Discard, p)
		default:
			p.echoClose(nil)
		}
	}()
	for range 1 + d.roll(200) {
		var err error
		switch d.roll(12) {
		case 0, 1, 2, 3:
			err = p.text("a message")
		case 4:
			p.frame(0x01, "a fragmented ")
			d.pause(time.Millisecond)
			p.frame(0x00, "")
			err = p.frame(0x80, "message")
		case 5:
			err = p.frame(0x89, "ping")
		case 6:
			for range 100 {
				err = p.text("a burst")
			}
		case 7, 8, 9:
			d.pause(50 * time.Millisecond)
		case 10:
			switch d.roll(20) {
			case 0:
				err = p.frame(0x83, "a reserved opcode")
			case 1:
				err = p.text("\xff")
			case 2:
				err = p.close(resock.StatusServiceRestart)
			case 3:
				p.Write([]byte{0x82, 126, 5, 0, 'h', 'a', 'l', 'f'})
				return
			case 4:
				p.Write([]byte{0x82, 126, 5, 0, 's', 't', 'a', 'l', 'l'})
				<-reading
				return
			case 5:
				err = p.frame(0x82, string(make([]byte, 2001)))
			}
		case 11:
			select {
			case <-reading:
				return
			default:
			}
		}
		if err != nil {
			return
		}
	}
	if d.roll(3) == 0 {
		p.close(resock.StatusGoingAway)
	}
	if d.roll(3) > 0 {
		<-reading
	}
}
