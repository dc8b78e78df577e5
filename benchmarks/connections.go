package main

import (
	"errors"
	"io"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// openMany opens count connections, a few at a time.
func openMany(t target, p peer, count int, interval time.Duration) error {
	const atOnce = 64
	errs := make([]error, atOnce)
	var left atomic.Int64
	left.Store(int64(count))
	var dialing sync.WaitGroup
	for i := range errs {
		dialing.Go(func() {
			for left.Add(-1) >= 0 && errs[i] == nil {
				_, errs[i] = p.open(t, interval)
			}
		})
	}
	dialing.Wait()
	return errors.Join(errs...)
}

// idle measures what an open connection holds.
func idle(s spec, p peer) (sample, error) {
	t := s.target("/idle", 0)
	if err := openMany(t, p, 16, s.Interval); err != nil { // what is paid once
		return nil, err
	}
	memory, goroutines, err := settle(s.Count)
	if err != nil {
		return nil, err
	}
	if err := openMany(t, p, s.Count, s.Interval); err != nil {
		return nil, err
	}
	memoryAfter, goroutinesAfter, err := settle(s.Count)
	return sample{
		metricResident:   (memoryAfter - memory) / float64(s.Count),
		metricGoroutines: float64(goroutinesAfter-goroutines) / float64(s.Count),
	}, err
}

// settle waits for what dialing count connections left behind to go, and returns
// what stays.
func settle(count int) (memory float64, goroutines int, err error) {
	for range 4 { // a stack shrinks by half at each collection
		time.Sleep(time.Duration(count) * 60 * time.Microsecond)
		runtime.GC()
	}
	debug.FreeOSMemory()
	memory, err = resident()
	return memory, runtime.NumGoroutine(), err
}

// dialing measures what a client costs from its dial to its end. The wall time
// is that of the dial alone.
func dialing(s spec, p peer) (sample, error) {
	t := s.target("/idle", 0)
	var start usage
	var dialed time.Duration
	warm := warmUp(s.Count)
	for i := range warm + s.Count {
		if i == warm {
			start, dialed = now(), 0
		}
		began := time.Now()
		hangUp, err := p.open(t, s.Interval)
		if err != nil {
			return nil, err
		}
		dialed += time.Since(began)
		hangUp()
	}
	result := start.per(s.Count, now())
	result[metricWall] = float64(dialed) / float64(s.Count)
	return result, nil
}

// reconnecting measures a whole cycle with a server that drops every connection
// at once: dial, notice the loss, take down, with no delay between.
func reconnecting(s spec, p peer) (sample, error) {
	m := newMeter(s.Count)
	if err := p.reconnect(s.target("/drop", 0), m); err != nil {
		return nil, err
	}
	return m.sample(), nil
}

// beating measures the CPU time of one heartbeat, ping and pong, on many
// connections with a very short interval.
func beating(s spec, p peer) (sample, error) {
	if err := openMany(s.target("/idle", 0), p, s.Count, s.Interval); err != nil {
		return nil, err
	}
	time.Sleep(10 * s.Interval)
	before, err := pingsAt(s.Server)
	if err != nil {
		return nil, err
	}
	start := now()
	time.Sleep(20 * s.Interval)
	end := now()
	after, err := pingsAt(s.Server)
	if after == before && err == nil {
		err = errors.New("no heartbeat arrived")
	}
	if err != nil {
		return nil, err
	}
	result := start.per(after-before, end)
	result[metricWall] = float64(end.at.Sub(start.at)) * float64(s.Count) / float64(after-before)
	return result, nil
}

// pingsAt asks the server how many pings it has received.
func pingsAt(server addresses) (int, error) {
	response, err := http.Get("http://" + server.Plain + "/pings")
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(body))
}
