package rig

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/resock/resock"
)

// end closes the client and checks the guarantees that hold in every test.
func (c *Client) end() {
	began := time.Now()
	_ = c.Close(resock.StatusNormalClosure, "")
	for event := range c.Events { // ends only if the channel closes
		c.note(event)
	}
	select {
	case <-c.returned:
	case <-time.After(c.closeIn):
		c.t.Errorf("Run did not return within %v", c.closeIn)
		return
	}
	if took := time.Since(began); took > c.closeIn {
		c.t.Errorf("closing took %v, want at most %v", took, c.closeIn)
	}
	c.Outcomes.Wait()
	c.checkSecrets()
	c.checkRate()
}

func (c *Client) note(event resock.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = append(c.seen, event)
}

// checkSecrets looks for the secret in events, errors and the log (G8).
func (c *Client) checkSecrets() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, event := range c.seen {
		if _, ok := event.(resock.MessageEvent); ok {
			continue // a message carries whatever the server put into it
		}
		if text := fmt.Sprintf("%+v %#v", event, event); strings.Contains(text, Secret) {
			c.t.Errorf("an event contains the secret: %s", text)
		}
		if fail, ok := event.(resock.FailEvent); ok {
			checkErrorSecrets(c.t, fail.Err)
		}
	}
	checkErrorSecrets(c.t, c.Err())
	checkErrorSecrets(c.t, c.Stats().LastErr)
	if strings.Contains(c.log.String(), Secret) {
		c.t.Errorf("the log contains the secret:\n%s", c.log)
	}
}

var websocketKey = regexp.MustCompile(`[A-Za-z0-9+/]{22}==|[A-Za-z0-9+/]{27}=`)

func checkErrorSecrets(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if text := err.Error(); strings.Contains(text, Secret) || websocketKey.MatchString(text) {
		t.Errorf("an error contains a secret: %s", text)
	}
	var raw *url.Error
	if errors.As(err, &raw) && strings.Contains(raw.URL, Secret) {
		t.Errorf("a url.Error in the chain contains the secret: %s", raw.URL)
	}
	switch err := err.(type) {
	case interface{ Unwrap() error }:
		checkErrorSecrets(t, err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, err := range err.Unwrap() {
			checkErrorSecrets(t, err)
		}
	}
}

// checkRate checks that no second saw too many failed attempts (G5).
func (c *Client) checkRate() {
	c.mu.Lock()
	defer c.mu.Unlock()
	var fails []time.Time
	for _, event := range c.seen {
		if fail, ok := event.(resock.FailEvent); ok && fail.Session == 0 {
			fails = append(fails, fail.Time)
		}
	}
	const most = 60 // generous: the backoff of Quick is more than ten times as fast as the default
	for i := most; i < len(fails); i++ {
		if took := fails[i].Sub(fails[i-most]); took < time.Second {
			c.t.Errorf("%d failed attempts in %v, want at most %d in a second", most+1, took, most)
			return
		}
	}
}

// CheckLeaks checks that the test leaves no goroutine and no file descriptor behind
// (G3). A test on real sockets calls it first, so that the check runs after all other
// cleanups.
func CheckLeaks(t *testing.T) {
	t.Helper()
	goroutines, descriptors := Resources()
	t.Cleanup(func() {
		deadline := time.After(5 * time.Second)
		for {
			g, d := Resources()
			if g <= goroutines && d <= descriptors {
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-deadline:
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines and %d file descriptors left, %d and %d before the test:\n%s",
					g, d, goroutines, descriptors, stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}

// Resources returns how many goroutines and open file descriptors the process has. Where
// there is no /proc, the second number is 0.
func Resources() (goroutines, descriptors int) {
	open, _ := os.ReadDir("/proc/self/fd")
	return runtime.NumGoroutine(), len(open)
}

// Heap returns the number of live bytes on the heap.
func Heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
