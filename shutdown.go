package resock

import (
	"context"
	"fmt"
)

// Shutdown closes the client for good when all is sent, and waits for the end. Send
// and Enqueue return [ErrClosed] from now on, but what was accepted before is sent,
// Sends that wait included, over a reconnect if need be; OnOpen may send too. Then
// the session is closed with code 1000, as by [Client.Close]. A client that is
// suspended waits for [Client.Resume], if anything is to be sent.
//
// [Client.Close], the end of Run's context, or a client that gives up cuts it short.
// When ctx ends, Shutdown returns without waiting any more, and the client goes on
// with it: Close ends that. Before Run, Shutdown is Close.
//
// The error is nil if nothing was left. Else it is an [ErrNotSent] that tells how
// many messages were not sent, or will not be; of each of them its Send, or
// [WithResult], tells. When ctx ends the error wraps its error. Shutdown may be
// called at any time and more than once, but not inside a hook or a message handler,
// which it waits for, and least of all inside the function of [WithResult].
func (c *Client) Shutdown(ctx context.Context) error {
	drained := c.outbox.shutdown()
	c.mu.Lock()
	ran := c.ran
	c.mu.Unlock()
	switch {
	case !ran:
		c.stop(nil, StatusNormalClosure, "", true)
	case drained != nil:
		go c.closeWhen(drained)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		if c.State() != StateClosed {
			return fmt.Errorf("resock: shutdown goes on with %d messages to send: %w", c.outbox.remaining(), ctx.Err())
		}
		// What is left is to tell the outcomes: not waited for, since that may be where
		// Shutdown was called.
	}
	n := c.outbox.remaining()
	switch err := c.Err(); {
	case n == 0:
		return nil
	case err != nil:
		return fmt.Errorf("%w: %d messages, when the client closed: %w", ErrNotSent, n, err)
	}
	return fmt.Errorf("%w: %d messages, when the client closed", ErrNotSent, n)
}

// closeWhen closes the client when the outbox is drained, unless that happens
// otherwise. It is a goroutine of its own since the caller of Shutdown may leave.
func (c *Client) closeWhen(drained <-chan struct{}) {
	select {
	case <-drained:
		c.stop(nil, StatusNormalClosure, "", true)
	case <-c.done:
	}
}

// shutdown seals the outbox. The first call returns a channel that is closed when all
// that was accepted is settled.
func (o *outbox) shutdown() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		return nil
	}
	o.sealLocked()
	drained := make(chan struct{})
	o.drained = drained
	o.changed()
	return drained
}

// remaining is how many messages are not sent yet, or never will be, of those that
// were accepted when the outbox was sealed.
func (o *outbox) remaining() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.unsent.Load() - o.before + int64(o.load.messages())
}
