package main

import (
	"time"

	"github.com/lxzan/gws"
)

// gwsHandler calls message for every message, and sends to ended when the connection
// ends.
type gwsHandler struct {
	gws.BuiltinEventHandler
	message func(conn *gws.Conn, data []byte)
	ended   chan error
}

func (h *gwsHandler) OnMessage(conn *gws.Conn, message *gws.Message) {
	h.message(conn, message.Bytes())
	_ = message.Close() // returns its buffer to the pool
}

func (h *gwsHandler) OnClose(_ *gws.Conn, err error) { h.ended <- err }

// gwsDial returns a connection that is read on a new goroutine.
func gwsDial(t target, message func(*gws.Conn, []byte)) (*gws.Conn, *gwsHandler, error) {
	handler := &gwsHandler{message: message, ended: make(chan error, 1)}
	option := &gws.ClientOption{Addr: t.url, ReadMaxPayloadSize: readLimit}
	if t.tls() {
		option.TlsConfig = clientTLS()
	}
	option.PermessageDeflate.Enabled = t.deflate()
	option.PermessageDeflate.ServerContextTakeover = t.takeover()
	if t.writes != nil {
		option.NewDialer = func() (gws.Dialer, error) { return t.writes, nil }
	}
	conn, _, err := gws.NewClient(handler, option)
	if err != nil {
		return nil, nil, err
	}
	go conn.ReadLoop()
	return conn, handler, nil
}

func gwsReceive(t target, r *reception) error {
	done := make(chan struct{})
	wanted := true
	conn, handler, err := gwsDial(t, func(_ *gws.Conn, data []byte) {
		if wanted && !r.message(data) {
			wanted = false
			close(done)
		}
	})
	if err != nil {
		return err
	}
	if err := conn.WriteMessage(gws.OpcodeText, ready); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case err := <-handler.ended:
		return err
	}
}

func gwsConnect(t target) (func() sender, error) {
	conn, _, err := gwsDial(t, func(*gws.Conn, []byte) {})
	return func() sender {
		return sendFunc(func(data []byte) error { return conn.WriteMessage(gws.OpcodeBinary, data) })
	}, err
}

// gwsExchange sends from the callback.
func gwsExchange(t target, data []byte, trips *roundTrips) error {
	done := make(chan error, 1)
	send := func(conn *gws.Conn) {
		trips.begin()
		if err := conn.WriteMessage(gws.OpcodeBinary, data); err != nil {
			done <- err
		}
	}
	conn, handler, err := gwsDial(t, func(conn *gws.Conn, _ []byte) {
		if trips.end() {
			send(conn)
			return
		}
		done <- nil
	})
	if err != nil {
		return err
	}
	send(conn)
	select {
	case err := <-done:
		return err
	case err := <-handler.ended:
		return err
	}
}

func gwsOpen(t target, interval time.Duration) (func(), error) {
	conn, _, err := gwsDial(t, func(*gws.Conn, []byte) { t.received.Add(1) })
	if err != nil {
		return nil, err
	}
	if interval > 0 {
		go every(interval, func() error { return conn.WritePing(nil) })
	}
	return func() { _ = conn.NetConn().Close() }, nil
}
