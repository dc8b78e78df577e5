package main

import (
	"time"

	"github.com/gorilla/websocket"
	"github.com/recws-org/recws"
)

func recwsDial(t target, keepAlive time.Duration) (*recws.RecConn, error) {
	conn := &recws.RecConn{KeepAliveTimeout: keepAlive, HandshakeTimeout: time.Second, NonVerbose: true}
	if t.tls() {
		conn.TLSClientConfig = clientTLS()
	}
	go conn.Dial(t.url, nil) // sleeps for the handshake timeout even after it has connected
	for !conn.IsConnected() {
		if err := conn.GetDialError(); err != nil {
			return nil, err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return conn, nil
}

func recwsReceive(t target, r *reception) error {
	conn, err := recwsDial(t, 15*time.Second)
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

func recwsConnect(t target) (func() sender, error) {
	conn, err := recwsDial(t, 15*time.Second)
	return func() sender {
		return sendFunc(func(data []byte) error { return conn.WriteMessage(websocket.BinaryMessage, data) })
	}, err
}

func recwsExchange(t target, data []byte, trips *roundTrips) error {
	conn, err := recwsDial(t, 15*time.Second)
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

func recwsOpen(t target, interval time.Duration) (func(), error) {
	conn, err := recwsDial(t, interval)
	if err != nil {
		return nil, err
	}
	go t.readAll(func() error { _, _, err := conn.ReadMessage(); return err })
	return conn.Close, nil
}
