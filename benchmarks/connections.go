package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
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

// idle measures the memory and goroutines of an open connection, and what opening it costs.
func idle(s spec, p peer) (sample, error) {
	t := s.target("/idle")
	open := func(count int) error {
		wanted := t.received.Load() + int64(count*s.Traffic)
		if err := openMany(t, p, count, s.Interval); err != nil {
			return err
		}
		return await(t.received, wanted)
	}
	if err := open(16); err != nil { // for what is allocated only once
		return nil, err
	}
	memory, goroutines, err := settle(s.Count)
	if err != nil {
		return nil, err
	}
	start := now()
	if err := open(s.Count); err != nil {
		return nil, err
	}
	result := start.per(s.Count, now())
	memoryAfter, goroutinesAfter, err := settle(s.Count)
	result[metricResident] = (memoryAfter - memory) / float64(s.Count)
	result[metricGoroutines] = float64(goroutinesAfter-goroutines) / float64(s.Count)
	return result, err
}

// await waits until the wanted number of messages is received.
func await(received *atomic.Int64, wanted int64) error {
	for deadline := time.Now().Add(time.Minute); received.Load() != wanted; {
		if time.Now().After(deadline) {
			return fmt.Errorf("received %d messages, want %d", received.Load(), wanted)
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

// settle waits until the garbage of dialing count connections is freed, and returns what
// is left.
func settle(count int) (memory float64, goroutines int, err error) {
	for range 4 { // a stack shrinks by half at each collection
		time.Sleep(time.Duration(count) * 60 * time.Microsecond)
		runtime.GC()
	}
	debug.FreeOSMemory()
	memory, err = resident()
	return memory, runtime.NumGoroutine(), err
}

// dialing measures a client from dialing to closing. The wall time is that of dialing
// alone.
func dialing(s spec, p peer) (sample, error) {
	t := s.target("/idle")
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

// reconnecting measures the whole cycle with a server that drops every connection at
// once: dial, detect the loss, clean up. There is no delay in between.
func reconnecting(s spec, p peer) (sample, error) {
	m := newMeter(s.Length, 10)
	before, err := countersOf(s.Server)
	if err != nil {
		return nil, err
	}
	if err := p.reconnect(s.target("/drop"), m); err != nil {
		return nil, err
	}
	after, err := countersOf(s.Server)
	result := m.sample()
	result[metricBoth] = result[metricCPU] + float64(after.CPU-before.CPU)/float64(m.seen)
	return result, err
}

// beating measures a heartbeat, that is a ping and its pong, on many connections with a
// very short interval.
func beating(s spec, p peer) (sample, error) {
	if err := openMany(s.target("/idle"), p, s.Count, s.Interval); err != nil {
		return nil, err
	}
	time.Sleep(10 * s.Interval)
	before, err := countersOf(s.Server)
	if err != nil {
		return nil, err
	}
	start := now()
	time.Sleep(20 * s.Interval)
	end := now()
	after, err := countersOf(s.Server)
	pings := int(after.Pings - before.Pings)
	if pings == 0 && err == nil {
		err = errors.New("no heartbeat arrived")
	}
	if err != nil {
		return nil, err
	}
	result := start.per(pings, end)
	result[metricWall] = float64(end.at.Sub(start.at)) * float64(s.Count) / float64(pings)
	return result, nil
}

// countersOf returns the server's counters.
func countersOf(server addresses) (counters, error) {
	var c counters
	response, err := http.Get("http://" + server.Plain + "/counters")
	if err != nil {
		return c, err
	}
	defer response.Body.Close()
	return c, json.NewDecoder(response.Body).Decode(&c)
}
