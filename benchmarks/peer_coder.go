package main

import (
	"context"
	"time"

	"github.com/coder/websocket"
)

func coderOptions(t target) *websocket.DialOptions {
	opts := &websocket.DialOptions{HTTPClient: t.http}
	switch {
	case t.takeover():
		opts.CompressionMode = websocket.CompressionContextTakeover
	case t.deflate():
		opts.CompressionMode = websocket.CompressionNoContextTakeover
	}
	return opts
}

func coderDial(t target) (*websocket.Conn, error) {
	conn, _, err := websocket.Dial(context.Background(), t.url, coderOptions(t))
	if err == nil {
		conn.SetReadLimit(readLimit)
	}
	return conn, err
}

func coderReceive(t target, r *reception) error {
	conn, err := coderDial(t)
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := conn.Write(ctx, websocket.MessageText, ready); err != nil {
		return err
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil || !r.message(data) {
			return err
		}
	}
}

func coderConnect(t target) (func() sender, error) {
	conn, err := coderDial(t)
	ctx := context.Background()
	return func() sender {
		return sendFunc(func(data []byte) error { return conn.Write(ctx, websocket.MessageBinary, data) })
	}, err
}

func coderExchange(t target, data []byte, trips *roundTrips) error {
	conn, err := coderDial(t)
	if err != nil {
		return err
	}
	ctx := context.Background()
	for {
		trips.begin()
		if err := conn.Write(ctx, websocket.MessageBinary, data); err != nil {
			return err
		}
		if _, _, err := conn.Read(ctx); err != nil || !trips.end() {
			return err
		}
	}
}

// coderOpen pings on a separate goroutine, since the library has no heartbeat.
func coderOpen(t target, interval time.Duration) (func(), error) {
	conn, err := coderDial(t)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	go t.readAll(func() error { _, _, err := conn.Read(ctx); return err })
	if interval > 0 {
		go every(interval, func() error { return conn.Ping(ctx) })
	}
	return func() { _ = conn.CloseNow() }, nil
}

// readAll reads and counts messages until read fails.
func (t target) readAll(read func() error) {
	for read() == nil {
		t.received.Add(1)
	}
}

// every calls f after each interval until it fails.
func every(interval time.Duration, f func() error) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for range ticker.C {
		if f() != nil {
			return
		}
	}
}

func coderReconnect(t target, m *meter) error {
	for {
		conn, err := coderDial(t)
		if err != nil {
			return err
		}
		_, _, _ = conn.Read(context.Background()) // until the server drops it
		_ = conn.CloseNow()
		if !m.event() {
			return nil
		}
	}
}
