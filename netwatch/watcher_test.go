package netwatch

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/resock/resock"
)

var _ resock.Network = Default()

// world is a network that a test changes.
type world struct {
	now    atomic.Pointer[snapshot]
	looks  atomic.Int64
	opened atomic.Int64
	closed atomic.Int64
	hints  *hints // of the last opening
	refuse bool
}

func newWorld(online bool) (*world, *Watcher) {
	w := &world{}
	w.now.Store(&snapshot{online: online})
	return w, &Watcher{look: w.look, hints: w.open}
}

func (w *world) look() snapshot {
	w.looks.Add(1)
	return *w.now.Load()
}

func (w *world) open() (*hints, error) {
	if w.refuse {
		return nil, errors.New("not permitted")
	}
	w.opened.Add(1)
	w.hints = &hints{moments: make(chan struct{}, 1), close: func() { w.closed.Add(1) }}
	return w.hints, nil
}

// becomes changes the network and sends a hint.
func (w *world) becomes(s snapshot) {
	w.now.Store(&s)
	if w.hints != nil {
		w.hint()
	}
}

func (w *world) hint() {
	select {
	case w.hints.moments <- struct{}{}:
	default:
	}
}

// after lets d pass in a bubble, and waits for all that is due by then.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestSharedByAllSubscribers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		var a, b int
		stopA := watcher.OnChange(func() { a++ })
		stopB := watcher.OnChange(func() { b++ })
		world.becomes(snapshot{})
		after(time.Second)
		stopA()
		stopA() // does nothing
		world.becomes(snapshot{online: true})
		after(time.Second)
		if world.closed.Load() != 0 {
			t.Error("closed with a subscriber left")
		}
		stopB()
		if a != 1 || b != 2 {
			t.Errorf("%d and %d calls, want 1 and 2", a, b)
		}
		if opened, closed := world.opened.Load(), world.closed.Load(); opened != 1 || closed != 1 {
			t.Errorf("opened %d times and closed %d times, want once each", opened, closed)
		}

		// And again from the start.
		stop := watcher.OnChange(func() { a++ })
		world.becomes(snapshot{what: "again"})
		after(time.Second)
		stop()
		if a != 2 || world.closed.Load() != 2 {
			t.Errorf("%d calls, closed %d times after a second start", a, world.closed.Load())
		}
	})
}

func TestManySubscribers(t *testing.T) {
	world, watcher := newWorld(true)
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			for range 200 {
				stop := watcher.OnChange(func() {})
				watcher.Online()
				stop()
			}
		}()
	}
	for range 8 {
		<-done
	}
	if opened, closed := world.opened.Load(), world.closed.Load(); opened == 0 || opened != closed {
		t.Errorf("opened %d times and closed %d times", opened, closed)
	}
}

func TestBurstIsOneChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(false)
		start := time.Now()
		var calls []time.Duration
		defer watcher.OnChange(func() { calls = append(calls, time.Since(start)) })()
		for i := range 50 { // half as long as a burst may be
			world.becomes(snapshot{online: true, what: strings.Repeat("a", i)})
			time.Sleep(time.Millisecond)
		}
		after(time.Second)
		if len(calls) != 1 || calls[0] != settleFor {
			t.Errorf("changes at %v, want one at %v", calls, settleFor)
		}
	})
}

// TestLongBurst: a network that never settles is still reported.
func TestLongBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		calls := 0
		defer watcher.OnChange(func() { calls++ })()
		for i := range 1000 {
			world.becomes(snapshot{online: true, what: strings.Repeat("a", i)})
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		if calls < 5 || calls > 10 {
			t.Errorf("%d calls in a second of changes, want at most one per %v", calls, settleFor)
		}
	})
}

func TestNoChangeNoCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		calls := 0
		defer watcher.OnChange(func() { calls++ })()
		world.hint()
		after(time.Second)
		if calls != 0 {
			t.Errorf("%d calls, though nothing changed", calls)
		}
		world.hints.routes.Add(1)
		world.hint()
		after(time.Second)
		if calls != 1 {
			t.Errorf("%d calls after a change of the default route, want 1", calls)
		}
	})
}

func TestOnline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		if !watcher.Online() {
			t.Error("offline before watching")
		}
		world.becomes(snapshot{})
		if watcher.Online() {
			t.Error("does not look without subscribers")
		}
		world.becomes(snapshot{online: true})
		stop := watcher.OnChange(func() {})
		looks := world.looks.Load()
		for range 1000 {
			watcher.Online()
		}
		if world.looks.Load() != looks {
			t.Error("looks again while watching")
		}
		world.becomes(snapshot{})
		after(settleFor)
		if watcher.Online() {
			t.Error("online after the change")
		}
		stop()
		world.becomes(snapshot{online: true})
		if !watcher.Online() {
			t.Error("answers from memory after watching")
		}
	})
}

func TestPolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		world.refuse = true
		calls := 0
		defer watcher.OnChange(func() { calls++ })()
		world.becomes(snapshot{online: true, what: "new address"})
		after(pollEvery)
		if calls != 1 {
			t.Errorf("%d calls after one interval, want 1", calls)
		}
		after(10 * pollEvery)
		if calls != 1 {
			t.Errorf("%d calls without a change, want 1", calls)
		}
	})
}

// TestHintsEnd: when netlink fails for good, polling takes over.
func TestHintsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(true)
		calls := 0
		stop := watcher.OnChange(func() { calls++ })
		close(world.hints.moments)
		world.hints = nil
		after(time.Second)
		world.becomes(snapshot{})
		after(pollEvery)
		if calls != 1 || watcher.Online() {
			t.Errorf("%d calls, online %v", calls, watcher.Online())
		}
		stop()
		if closed := world.closed.Load(); closed != 1 {
			t.Errorf("closed %d times, want once", closed)
		}
	})
}

// TestOfflinePolls: a lost notification only delays the return to online.
func TestOfflinePolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		world, watcher := newWorld(false)
		calls := 0
		defer watcher.OnChange(func() { calls++ })()
		world.now.Store(&snapshot{online: true}) // and no hint
		after(pollEvery)
		if calls != 1 || !watcher.Online() {
			t.Errorf("%d calls, online %v", calls, watcher.Online())
		}
		looks := world.looks.Load()
		after(time.Hour)
		if world.looks.Load() != looks {
			t.Error("polls while online, in spite of netlink")
		}
	})
}

// TestStopWaits: no call is in progress once stop has returned.
func TestStopWaits(t *testing.T) {
	for _, others := range []bool{false, true} {
		world, watcher := newWorld(true)
		if others {
			defer watcher.OnChange(func() {})()
		}
		calling, release, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
		stop := watcher.OnChange(func() {
			close(calling)
			<-release
			select {
			case <-stopped:
				t.Error("stop returned during a call")
			default:
			}
		})
		world.becomes(snapshot{})
		<-calling
		go func() {
			stop()
			close(stopped)
		}()
		for range 100 {
			runtime.Gosched()
		}
		close(release)
		<-stopped
	}
}

func TestOnlineRule(t *testing.T) {
	const (
		up       = net.FlagUp
		running  = net.FlagUp | net.FlagRunning
		loopback = net.FlagUp | net.FlagRunning | net.FlagLoopback
	)
	type iface struct {
		flags     net.Flags
		addresses string
	}
	lo := iface{loopback, "127.0.0.1/8 ::1/128"}
	for _, test := range []struct {
		name       string
		interfaces []iface
		want       bool
	}{
		{"loopback only", []iface{lo}, false},
		{"cable and address", []iface{lo, {running, "192.0.2.7/24"}}, true},
		{"IPv6 only", []iface{lo, {running, "fe80::1/64 2001:db8::7/64"}}, true},
		{"private addresses count", []iface{lo, {running, "10.1.2.3/8"}}, true},
		{"unique local addresses count", []iface{lo, {running, "fd00::7/64"}}, true},
		{"link-local only", []iface{lo, {running, "169.254.1.1/16 fe80::1/64"}}, false},
		{"no address yet", []iface{lo, {running, ""}}, false},
		{"no carrier", []iface{lo, {up, "192.0.2.7/24"}}, false},
		{"down", []iface{lo, {net.FlagRunning, "192.0.2.7/24"}}, false},
		{"one of two cables", []iface{lo, {up, "192.0.2.7/24"}, {running, "198.51.100.7/24"}}, true},
		{"address of a dead link only", []iface{lo, {up, "192.0.2.7/24"}, {running, "fe80::1/64"}}, false},
		{"address on the loopback, unnumbered links", []iface{{loopback, "127.0.0.1/8 192.0.2.7/32"}, {running, "fe80::1/64"}}, true},
		{"address on the loopback, no link", []iface{{loopback, "127.0.0.1/8 192.0.2.7/32"}, {up, "fe80::1/64"}}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			var interfaces []net.Interface
			for i, face := range test.interfaces {
				interfaces = append(interfaces, net.Interface{Index: i + 1, Flags: face.flags})
			}
			got := online(interfaces, func(i net.Interface) (addresses []net.Addr, err error) {
				for _, text := range strings.Fields(test.interfaces[i.Index-1].addresses) {
					ip, network, err := net.ParseCIDR(text)
					if err != nil {
						t.Fatal(err)
					}
					addresses = append(addresses, &net.IPNet{IP: ip, Mask: network.Mask})
				}
				return addresses, nil
			})
			if got != test.want {
				t.Errorf("online %v, want %v", got, test.want)
			}
		})
	}
}

// TestThisMachine watches the real network.
func TestThisMachine(t *testing.T) {
	before := runtime.NumGoroutine()
	stop := Default().OnChange(func() {})
	first := Default().Online()
	stop()
	if second := Default().Online(); first != second {
		t.Errorf("online %v while watching and %v after", first, second)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines left, want %d", runtime.NumGoroutine(), before)
		}
	}
}
