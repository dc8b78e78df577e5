package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// addresses are the addresses that the server listens on. It prints them as one line of
// JSON.
type addresses struct {
	Plain string
	TLS   string
	RSA   string // TLS with an RSA certificate
}

// counters are the server's counters, which it serves as JSON.
type counters struct {
	Pings int64 // received so far
	CPU   time.Duration
}

// server is the server of all clients. It implements just enough of WebSocket, on raw
// connections, and encodes its messages beforehand, so that it costs little compared to
// the client.
type server struct {
	pings atomic.Int64 // received so far
}

// serve runs the server until its standard input is closed, which is when the process
// that started it exits.
func serve() error {
	raiseFileLimit()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := listenECDSA()
	if err != nil {
		return err
	}
	secureRSA, err := listenRSA()
	if err != nil {
		return err
	}
	s := new(server)
	go s.accept(plain)
	go s.accept(secure)
	go s.accept(secureRSA)
	where := addresses{plain.Addr().String(), secure.Addr().String(), secureRSA.Addr().String()}
	if err := json.NewEncoder(os.Stdout).Encode(where); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func (s *server) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer conn.Close()
			// An error means that the client disconnected, as all of them do.
			_ = s.handle(conn)
		}()
	}
}

func (s *server) handle(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 1<<10)
	request, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	if request.URL.Path == "/counters" {
		text, err := json.Marshal(counters{s.pings.Load(), now().cpu})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(text), text)
		return err
	}
	query := request.URL.Query()
	variant := query.Get("variant")
	if err := upgrade(conn, request, extensionsOf[variant]); err != nil {
		return err
	}
	switch request.URL.Path {
	case "/flood":
		size, err := strconv.Atoi(query.Get("size"))
		if err != nil {
			return err
		}
		return flood(conn, in, feedOf(variant, size))
	case "/fleet":
		return s.push(conn, in, query)
	case "/idle":
		if err := traffic(conn, query); err != nil {
			return err
		}
		return s.echo(conn, in)
	case "/sink":
		return sink(conn)
	case "/drop":
		return nil
	default: // "/echo"
		return s.echo(conn, in)
	}
}

// extensionsOf are the response headers of each variant. The server may decide by itself
// that the client must not use context takeover (RFC 7692, section 7.1.1.2).
var extensionsOf = map[string]string{
	variantDeflate:  "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
	variantTicks:    "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
	variantTakeover: "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover\r\n",
}

// upgrade answers the opening handshake.
func upgrade(conn net.Conn, request *http.Request, extensions string) error {
	hash := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n%s\r\n", base64.StdEncoding.EncodeToString(hash[:]), extensions)
	return err
}

// flood waits until the client is ready, and then sends messages as fast as possible
// until the client disconnects.
func flood(conn net.Conn, in *bufio.Reader, f feed) error {
	if _, err := in.ReadByte(); err != nil {
		return err
	}
	return send(conn, f)
}

// send sends the messages of a feed again and again.
func send(conn net.Conn, f feed) error {
	for {
		if _, err := conn.Write(f.frames); err != nil {
			return err
		}
	}
}

// fleetSize is the size of a message to a fleet, in bytes.
const fleetSize = 128

// fleetFeed is what a fleet receives as fast as possible. All connections share it.
var fleetFeed = sync.OnceValue(func() feed { return feedOf(variantText, fleetSize) })

// fleetBuffer is the size of the socket buffers of a fleet, in bytes: ten thousand
// connections that are full would otherwise need more memory than the kernel has for them.
const fleetBuffer = 32 << 10

// push waits until the client is ready, and then sends a message in each interval, or as
// fast as possible, until the client disconnects. It answers pings meanwhile.
func (s *server) push(conn net.Conn, in *bufio.Reader, query url.Values) error {
	every, err := time.ParseDuration(query.Get("every"))
	if err != nil {
		return err
	}
	if err := awaitReady(conn, in); err != nil {
		return err
	}
	go func() {
		defer conn.Close()
		_ = s.echo(conn, in) // as handle
	}()
	if every > 0 {
		return tick(conn, encodeMessage(variantText, fleetSize), every)
	}
	if err := conn.(*net.TCPConn).SetWriteBuffer(fleetBuffer); err != nil {
		return err
	}
	return send(conn, fleetFeed())
}

// awaitReady answers pings until a message comes.
func awaitReady(conn net.Conn, in *bufio.Reader) error {
	for {
		opcode, payload, err := readFrame(in)
		if err != nil || opcode == opText {
			return err
		}
		if _, err := conn.Write(appendFrame(nil, finBit|opPong, payload)); err != nil {
			return err
		}
	}
}

// tick sends a message in each interval. Connections begin at random.
func tick(conn net.Conn, frames []byte, every time.Duration) error {
	time.Sleep(rand.N(every))
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for range ticks.C {
		if _, err := conn.Write(frames); err != nil {
			return err
		}
	}
	return nil
}

// traffic sends the messages that the client receives before it is idle, and then some
// pings, so that the client reads without receiving a message.
func traffic(conn net.Conn, query url.Values) error {
	size, err := strconv.Atoi(query.Get("size"))
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(query.Get("traffic"))
	if err != nil || count == 0 {
		return err
	}
	f := feedOf(query.Get("variant"), size)
	if _, err := conn.Write(f.frames[:f.ends[count-1]]); err != nil {
		return err
	}
	for range 3 {
		time.Sleep(10 * time.Millisecond)
		if _, err := conn.Write(appendFrame(nil, finBit|opPing, nil)); err != nil {
			return err
		}
	}
	return nil
}

// sink reads and discards until the client disconnects.
func sink(conn net.Conn) error {
	scratch := make([]byte, floodChunk)
	for {
		if _, err := conn.Read(scratch); err != nil {
			return err
		}
	}
}

// echo returns messages, answers pings and counts them.
func (s *server) echo(conn net.Conn, in *bufio.Reader) error {
	var frame []byte
	for {
		opcode, payload, err := readFrame(in)
		if err != nil {
			return err
		}
		switch opcode {
		case opPing:
			s.pings.Add(1)
			opcode = opPong
		case opPong:
			continue
		}
		frame = appendFrame(frame[:0], finBit|opcode, payload)
		if _, err := conn.Write(frame); err != nil || opcode == opClose {
			return err
		}
	}
}
