package main

import (
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

func gorillaDial(t target) (*websocket.Conn, error) {
	dialer := *websocket.DefaultDialer
	dialer.EnableCompression = t.deflate()
	if t.tls() {
		dialer.TLSClientConfig = clientTLS()
	}
	if t.writes != nil {
		dialer.NetDialContext = t.writes.DialContext
	}
	conn, _, err := dialer.Dial(t.url, nil)
	return conn, err
}

func gorillaReceive(t target, r *reception) error {
	conn, err := gorillaDial(t)
	if err != nil {
		return err
	}
	if err := conn.WriteMessage(websocket.TextMessage, ready); err != nil {
		return err
	}
	for {
		_, data, err := conn.ReadMessage()
		if err != nil || !r.message(data) {
			return err
		}
	}
}

// gorillaConnect makes senders take turns, since gorilla/websocket supports only one
// concurrent writer.
func gorillaConnect(t target) (func() sender, error) {
	conn, err := gorillaDial(t)
	var turn sync.Mutex
	return func() sender {
		return sendFunc(func(data []byte) error {
			turn.Lock()
			defer turn.Unlock()
			return conn.WriteMessage(websocket.BinaryMessage, data)
		})
	}, err
}

func gorillaExchange(t target, data []byte, trips *roundTrips) error {
	conn, err := gorillaDial(t)
	if err != nil {
		return err
	}
	for {
		trips.begin()
		if err := conn.WriteMessage(websocket.BinaryMessage, data); err != nil {
			return err
		}
		if _, _, err := conn.ReadMessage(); err != nil || !trips.end() {
			return err
		}
	}
}

func gorillaOpen(t target, interval time.Duration) (func(), error) {
	conn, err := gorillaDial(t)
	if err != nil {
		return nil, err
	}
	go t.readAll(func() error { _, _, err := conn.ReadMessage(); return err })
	if interval > 0 {
		go every(interval, func() error {
			return conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second))
		})
	}
	return func() { _ = conn.Close() }, nil
}

func gorillaReconnect(t target, m *meter) error {
	for {
		conn, err := gorillaDial(t)
		if err != nil {
			return err
		}
		_, _, _ = conn.ReadMessage() // until the server drops it
		_ = conn.Close()
		if !m.event() {
			return nil
		}
	}
}
