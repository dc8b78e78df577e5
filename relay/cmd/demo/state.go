//go:build unix

package main

import (
	"fmt"
	"slices"
)

// led reports whether a relay leads, and NATS is ready.
func (c *cast) led() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && c.leader != nil
}

// calm reports whether a relay leads and no fault lasts.
func (c *cast) calm() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ready && c.leader != nil && !c.frozen
}

// state tells who leads, for a line of output.
func (c *cast) state() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.leader == nil {
		return fmt.Sprintf("nobody leads, after term %d", c.term)
	}
	return fmt.Sprintf("%s leads, term %d", c.leader.name, c.term)
}

// handledUpTo returns the highest number that the workers handled.
func (c *cast) handledUpTo() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.highest
}

// unhandled returns which of some numbers the workers did not handle, and how many of them
// they handled more than once.
func (c *cast) unhandled(numbers []uint64) (missing []uint64, repeated int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range numbers {
		switch times := c.handled[n]; {
		case times == 0:
			missing = append(missing, n)
		case times > 1:
			repeated++
		}
	}
	return missing, repeated
}

// struckAndDown returns the ends of leaders, and when NATS was down or slow.
func (c *cast) struckAndDown() ([]strike, []outage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.strikes, slices.Concat(c.outages, c.stalls)
}
