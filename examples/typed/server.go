package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/coder/websocket"
	"github.com/coder/websocket/wsjson"
)

// pushes are what the server sends, faults included.
var pushes = []string{
	`{"topic": "market", "data": {"open": true}}`,
	`{"topic": "trade", "data": {"symbol": "ACME", "price": 101.5, "size": 200}}`,
	`{"topic": "weather", "data": {"city": "Basel", "celsius": 7}}`,
	`{"topic": "trade", "data": {"symbol": "ACME", "price": "cheap", "size": 10}}`,
	`{"topic": "trade", "data": {"symbol": "ACME", "price": 99.25, "size": 50, "venue": "new"}}`,
	`{"topic": "trade", "data": {"symbol": "ACME", "size": 70}}`,
	`trade ACME 98`,
	`{"topic": "trade", "data": {"symbol": "ACME", "price": 100.75, "size": 20}}`,
	`{"topic": "market", "data": {"open": false}}`,
}

// startServer starts a server that pushes and fills orders.
func startServer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		go push(r.Context(), conn)
		for {
			var request envelope[order]
			if err := wsjson.Read(r.Context(), conn, &request); err != nil {
				return
			}
			if request.Topic != "order" {
				continue
			}
			if err := wsjson.Write(r.Context(), conn, envelope[order]{"fill", request.Data}); err != nil {
				return
			}
		}
	}))
}

func push(ctx context.Context, conn *websocket.Conn) {
	for _, message := range pushes {
		select {
		case <-time.After(700 * time.Millisecond):
		case <-ctx.Done():
			return
		}
		if err := conn.Write(ctx, websocket.MessageText, []byte(message)); err != nil {
			return
		}
	}
}
