package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/resock/resock"
)

var (
	errUnknownTopic = errors.New("unknown topic")
	errMalformed    = errors.New("malformed")
)

// envelope is what a message looks like, in both directions.
type envelope[T any] struct {
	Topic string `json:"topic"`
	Data  T      `json:"data"`
}

// router has a function for each topic.
type router map[string]func(context.Context, json.RawMessage) error

// handle sets the function for a topic whose data is a T. It must not be called any more
// once messages are routed.
func handle[T any](r router, topic string, f func(context.Context, T) error) {
	r[topic] = func(ctx context.Context, data json.RawMessage) error {
		var value T
		if err := json.Unmarshal(data, &value); err != nil {
			return fmt.Errorf("%w: %w", errMalformed, err)
		}
		return f(ctx, value)
	}
}

// route calls the function for a message. An error of the function or of the data names the
// topic. It is no reason to end the connection: the next message may be fine.
func (r router) route(ctx context.Context, message []byte) error {
	var e envelope[json.RawMessage]
	if err := json.Unmarshal(message, &e); err != nil {
		return fmt.Errorf("message %.60q: %w: %w", message, errMalformed, err)
	}
	f, ok := r[e.Topic]
	if !ok {
		return fmt.Errorf("topic %q: %w", e.Topic, errUnknownTopic)
	}
	if err := f(ctx, e.Data); err != nil {
		return fmt.Errorf("topic %q: %w", e.Topic, err)
	}
	return nil
}

// send queues a message.
func send[T any](client *resock.Client, topic string, value T) error {
	data, err := json.Marshal(envelope[T]{topic, value})
	if err != nil {
		return fmt.Errorf("topic %q: %w", topic, err)
	}
	if err := client.Enqueue(resock.MessageText, data); err != nil {
		return fmt.Errorf("topic %q: %w", topic, err)
	}
	return nil
}
