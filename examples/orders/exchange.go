package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// book is the exchange. Its ledger has a line for each order, on the disk before the order
// is acknowledged.
type book struct {
	mu     sync.Mutex
	ledger *os.File
	known  map[string]bool
}

func exchange(address, ledger string) {
	file, err := os.OpenFile(ledger, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	b := &book{ledger: file, known: map[string]bool{}}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		b.known[lines.Text()] = true
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(b.serve)))
}

func (b *book) serve(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	ctx := context.Background()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		answer, delay := "", time.Duration(0)
		switch what, id, _ := strings.Cut(string(data), " "); what {
		case "order":
			b.take(id)
			answer, delay = "ack "+id, 50*time.Millisecond
		case "price":
			answer = "price " + id + " is 42"
		}
		time.AfterFunc(delay, func() { _ = conn.Write(ctx, websocket.MessageText, []byte(answer)) })
	}
}

// take writes an order down, unless it is known: it may come twice.
func (b *book) take(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.known[id] {
		return
	}
	b.known[id] = true
	if _, err := fmt.Fprintln(b.ledger, id); err != nil {
		log.Fatal(err)
	}
	if err := b.ledger.Sync(); err != nil {
		log.Fatal(err)
	}
}
