package main

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"sync/atomic"
)

// addresses is where the server listens. The server prints it as one line of
// JSON.
type addresses struct {
	Plain string
	TLS   string
}

// server is the other end of every client. It speaks just enough WebSocket over
// raw connections, and encodes before it is asked, so that what is measured is
// the client.
type server struct {
	pings atomic.Int64 // received in all
}

// serve runs the server until its standard input ends, that is, until the
// process that started it is gone.
func serve() error {
	raiseFileLimit()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return err
	}
	s := new(server)
	go s.accept(plain)
	go s.accept(secure)
	where := addresses{Plain: plain.Addr().String(), TLS: secure.Addr().String()}
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
			// An error means that the client left, as each does in the end.
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
	if request.URL.Path == "/pings" {
		count := strconv.FormatInt(s.pings.Load(), 10)
		_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(count), count)
		return err
	}
	query := request.URL.Query()
	if err := upgrade(conn, request, query.Get("variant") == variantDeflate); err != nil {
		return err
	}
	switch request.URL.Path {
	case "/flood":
		return flood(conn, in, query)
	case "/sink":
		return sink(conn)
	case "/drop":
		return nil
	default: // "/echo", and "/idle", where nothing is said but pings
		return s.echo(conn, in)
	}
}

// upgrade answers the opening handshake.
func upgrade(conn net.Conn, request *http.Request, deflate bool) error {
	hash := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	extensions := ""
	if deflate {
		extensions = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n"
	}
	_, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n%s\r\n", base64.StdEncoding.EncodeToString(hash[:]), extensions)
	return err
}

// floodChunk is about how much the server writes at once.
const floodChunk = 256 << 10

// flood waits for the client to say that it is ready, and then sends messages
// as fast as the connection takes them.
func flood(conn net.Conn, in *bufio.Reader, query url.Values) error {
	size, err := strconv.Atoi(query.Get("size"))
	if err != nil {
		return err
	}
	count, err := strconv.Atoi(query.Get("count"))
	if err != nil {
		return err
	}
	message := encodeMessage(query.Get("variant"), size)
	perChunk := max(1, floodChunk/len(message))
	var chunk []byte
	for range perChunk {
		chunk = append(chunk, message...)
	}
	if _, err := in.ReadByte(); err != nil {
		return err
	}
	for ; count > 0; count -= perChunk {
		if _, err := conn.Write(chunk[:min(count, perChunk)*len(message)]); err != nil {
			return err
		}
	}
	return sink(conn)
}

// sink reads and discards until the client leaves.
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
