package main

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/resock/resock"
)

// errEnded is the error if a client ends before the sample is complete.
var errEnded = errors.New("resock: the client ended")

func newResock(t target, opts ...resock.Option) (*resock.Client, error) {
	return resock.New(t.url, append(opts, resock.WithDialOptions(coderOptions(t)))...)
}

// resockReceiveEvents ranges over a subscriber's channel.
func resockReceiveEvents(t target, r *reception) error {
	client, err := newResock(t)
	if err != nil {
		return err
	}
	ctx := context.Background()
	events := client.Subscribe(ctx, resock.WithBuffer(256))
	go client.Run(ctx)
	if err := client.Send(ctx, resock.MessageText, ready); err != nil {
		return err
	}
	for event := range events {
		switch e := event.(type) {
		case resock.MessageEvent:
			if !r.message(e.Data) {
				return nil
			}
		case resock.FailEvent:
			return e.Err
		}
	}
	return errEnded
}

// resockReceiveOwned ranges over messages whose data may be kept.
func resockReceiveOwned(t target, r *reception) error { return resockReceiveMessages(t, r) }

// resockReceiveBorrowed ranges over messages whose data is valid until the next
// iteration.
func resockReceiveBorrowed(t target, r *reception) error {
	return resockReceiveMessages(t, r, resock.WithBorrowedData())
}

func resockReceiveMessages(t target, r *reception, opts ...resock.SubscribeOption) error {
	client, err := newResock(t)
	if err != nil {
		return err
	}
	ctx := context.Background()
	messages := client.Messages(ctx, opts...)
	go client.Run(ctx)
	if err := client.Send(ctx, resock.MessageText, ready); err != nil {
		return err
	}
	for m := range messages {
		if !r.message(m.Data) {
			return nil
		}
	}
	return errEnded
}

// resockReceiveHandler receives messages with a message handler.
func resockReceiveHandler(t target, r *reception) error {
	done := make(chan struct{})
	wanted := true
	client, err := newResock(t, resock.WithMessageHandler(func(_ context.Context, m resock.MessageEvent) {
		if wanted && !r.message(m.Data) {
			wanted = false
			close(done)
		}
	}))
	if err != nil {
		return err
	}
	ctx := context.Background()
	go client.Run(ctx)
	if err := client.Send(ctx, resock.MessageText, ready); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-client.Done():
		return errEnded
	}
}

// openResock returns a client that is connected.
func openResock(t target, opts ...resock.Option) (*resock.Client, error) {
	client, err := newResock(t, opts...)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	go client.Run(ctx)
	return client, client.WaitOpen(ctx)
}

func resockConnectSend(t target) (func() sender, error) {
	client, err := openResock(t)
	ctx := context.Background()
	return func() sender {
		return sendFunc(func(data []byte) error { return client.Send(ctx, resock.MessageBinary, data) })
	}, err
}

// resockConnectEnqueue enqueues as fast as the queue allows.
func resockConnectEnqueue(t target) (func() sender, error) {
	client, err := openResock(t, resock.WithQueue(16*maxQueued, 16<<20))
	return func() sender { return newEnqueuer(client) }, err
}

const (
	maxQueued = 1024 // messages of one sender that may be queued
	batch     = 128  // messages for each WithResult
)

// enqueuer is a sender that limits the number of its queued messages.
type enqueuer struct {
	client *resock.Client
	result resock.SendOption
	room   chan error // outcomes; each allows enqueuing a batch
	n      int
}

func newEnqueuer(client *resock.Client) *enqueuer {
	room := make(chan error, maxQueued/batch)
	for range maxQueued / batch {
		room <- nil
	}
	return &enqueuer{client: client, result: resock.WithResult(func(err error) { room <- err }), room: room}
}

func (e *enqueuer) send(data []byte) error {
	if e.n++; e.n%batch != 0 {
		return e.client.Enqueue(resock.MessageBinary, data)
	}
	if err := <-e.room; err != nil {
		return err
	}
	return e.client.Enqueue(resock.MessageBinary, data, e.result)
}

func (e *enqueuer) finish() error {
	done := make(chan error, 1)
	last := resock.WithResult(func(err error) { done <- err })
	if err := e.client.Enqueue(resock.MessageBinary, nil, last); err != nil {
		return err
	}
	return <-done
}

func resockExchangeEvents(t target, data []byte, trips *roundTrips) error {
	client, err := newResock(t)
	if err != nil {
		return err
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)
	for event := range events {
		switch e := event.(type) {
		case resock.FailEvent:
			return e.Err
		case resock.MessageEvent:
			if !trips.end() {
				return nil
			}
		}
		trips.begin()
		if err := client.Send(ctx, resock.MessageBinary, data); err != nil {
			return err
		}
	}
	return errEnded
}

func resockExchangeHandler(t target, data []byte, trips *roundTrips) error {
	var client *resock.Client
	ctx := context.Background()
	done := make(chan error, 1)
	send := func() {
		trips.begin()
		if err := client.Send(ctx, resock.MessageBinary, data); err != nil {
			done <- err
		}
	}
	client, err := newResock(t, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) {
		if trips.end() {
			send()
			return
		}
		done <- nil
	}))
	if err != nil {
		return err
	}
	go client.Run(ctx)
	if err := client.WaitOpen(ctx); err != nil {
		return err
	}
	send()
	select {
	case err := <-done:
		return err
	case <-client.Done():
		return errEnded
	}
}

// resockOpen opens a client with one subscriber, and waits until it has received the
// traffic.
func resockOpen(t target, interval time.Duration) (func(), error) {
	client, err := newResock(t, beat(interval))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)
	for n := 0; n < t.traffic; {
		switch e := (<-events).(type) {
		case resock.MessageEvent:
			n++
			t.received.Add(1)
		case resock.FailEvent:
			return nil, e.Err
		}
	}
	return hangUp(client), client.WaitOpen(ctx)
}

// resockOpenHandler opens a client with a message handler and no subscriber.
func resockOpenHandler(t target, interval time.Duration) (func(), error) {
	count := resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { t.received.Add(1) })
	client, err := openResock(t, beat(interval), count)
	if err != nil {
		return nil, err
	}
	return hangUp(client), nil
}

// resockFollowEvents counts messages in a loop over a subscriber's channel.
func resockFollowEvents(t target, received *atomic.Int64) (func() error, error) {
	client, err := newResock(t)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)
	go func() {
		for event := range events {
			if _, ok := event.(resock.MessageEvent); ok {
				received.Add(1)
			}
		}
	}()
	return begin(client), client.WaitOpen(ctx)
}

// resockFollowHandler counts messages in a message handler.
func resockFollowHandler(t target, received *atomic.Int64) (func() error, error) {
	client, err := openResock(t, resock.WithMessageHandler(func(context.Context, resock.MessageEvent) { received.Add(1) }))
	return begin(client), err
}

// begin returns a function that tells the server that the client is ready.
func begin(client *resock.Client) func() error {
	return func() error { return client.Send(context.Background(), resock.MessageText, ready) }
}

func beat(interval time.Duration) resock.Option {
	return resock.WithHeartbeat(interval, interval+10*time.Second)
}

// hangUp returns a function that closes the client and waits for its end.
func hangUp(client *resock.Client) func() {
	return func() {
		_ = client.Close(resock.StatusNormalClosure, "") // the code is valid
		<-client.Done()
	}
}

func resockReconnect(t target, m *meter) error {
	client, err := newResock(t, resock.WithBackoffPolicy(func() backoff.BackOff { return &backoff.ZeroBackOff{} }))
	if err != nil {
		return err
	}
	ctx := context.Background()
	events := client.Subscribe(ctx)
	go client.Run(ctx)
	for event := range events {
		if lost, ok := event.(resock.FailEvent); ok {
			if lost.Session == 0 {
				return lost.Err
			}
			if !m.event() {
				return nil
			}
		}
	}
	return errEnded
}
