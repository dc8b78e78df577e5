package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"sync"

	"github.com/gobwas/ws"
)

// gobwas/ws reads and writes frames and leaves the rest to its user. Here that is the
// minimum that works with this server: a buffered reader, and one buffer for all
// messages. It does not answer pings and checks nothing, and so is the baseline for
// what is possible.

func gobwasDial(t target) (net.Conn, error) {
	dialer := ws.Dialer{}
	if t.tls() {
		dialer.TLSConfig = clientTLS()
	}
	if t.writes != nil {
		dialer.NetDial = t.writes.DialContext
	}
	conn, _, _, err := dialer.Dial(context.Background(), t.url)
	return conn, err
}

// gobwasReader reads messages into a buffer that it reuses.
type gobwasReader struct {
	in  *bufio.Reader
	buf []byte
}

func newGobwasReader(conn net.Conn) *gobwasReader {
	return &gobwasReader{in: bufio.NewReaderSize(conn, 64<<10)}
}

func (r *gobwasReader) read() ([]byte, error) {
	n := 0
	for {
		header, err := ws.ReadHeader(r.in)
		if err != nil {
			return nil, err
		}
		if end := n + int(header.Length); end > len(r.buf) {
			grown := make([]byte, end)
			copy(grown, r.buf[:n])
			r.buf = grown
		}
		if _, err := io.ReadFull(r.in, r.buf[n:n+int(header.Length)]); err != nil {
			return nil, err
		}
		n += int(header.Length)
		if header.Fin {
			return r.buf[:n], nil
		}
	}
}

func gobwasReceive(t target, r *reception) error { return gobwasRead(t, r.message) }

// gobwasReceiveChannel copies each message and sends it to another goroutine over a
// channel: the baseline for events over a channel.
func gobwasReceiveChannel(t target, r *reception) error {
	type event struct { // as large as a resock.MessageEvent
		session uint64
		typ     int
		data    []byte
		lost    uint64
	}
	var failed error
	events := make(chan any, 256)
	go func() {
		defer close(events)
		failed = gobwasRead(t, func(data []byte) bool {
			events <- event{1, 2, bytes.Clone(data), 0}
			return true
		})
	}()
	for e := range events {
		if e, ok := e.(event); ok && !r.message(e.data) {
			return nil // the process ends
		}
	}
	return failed
}

func gobwasRead(t target, deliver func(data []byte) bool) error {
	conn, err := gobwasDial(t)
	if err != nil {
		return err
	}
	if err := gobwasWrite(bufio.NewWriter(conn), ready); err != nil {
		return err
	}
	reader := newGobwasReader(conn)
	for {
		data, err := reader.read()
		if err != nil || !deliver(data) {
			return err
		}
	}
}

func gobwasConnect(t target) (func() sender, error) {
	conn, err := gobwasDial(t)
	out := bufio.NewWriter(conn)
	var turn sync.Mutex
	return func() sender {
		return sendFunc(func(data []byte) error {
			turn.Lock()
			defer turn.Unlock()
			return gobwasWrite(out, data)
		})
	}, err
}

// gobwasWrite writes a message with one call of Write; ws.WriteFrame alone needs two.
func gobwasWrite(out *bufio.Writer, data []byte) error {
	if err := ws.WriteFrame(out, ws.MaskFrame(ws.NewBinaryFrame(data))); err != nil {
		return err
	}
	return out.Flush()
}

func gobwasExchange(t target, data []byte, trips *roundTrips) error {
	conn, err := gobwasDial(t)
	if err != nil {
		return err
	}
	reader, out := newGobwasReader(conn), bufio.NewWriter(conn)
	for {
		trips.begin()
		if err := gobwasWrite(out, data); err != nil {
			return err
		}
		if _, err := reader.read(); err != nil || !trips.end() {
			return err
		}
	}
}
