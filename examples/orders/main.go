// Orders shows an outbox and calls between two processes that are killed again and again: a
// shop that asks for prices and places orders, and an exchange that takes them. Each order
// arrives, in order, and counts once. Both processes are this program.
//
//	go run ./examples/orders
package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	orders = 600
	role   = "ORDERS_ROLE" // of a process that the story starts
)

func main() {
	log.SetFlags(0)
	switch os.Getenv(role) {
	case "exchange":
		exchange(os.Args[1], os.Args[2])
	case "shop":
		shop(os.Args[1], os.Args[2], os.Args[3])
	default:
		story()
	}
}

// story starts the processes, kills them, and looks at what the exchange has in the end.
func story() {
	folder, err := os.MkdirTemp("", "orders")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	ledger, outgoing := filepath.Join(folder, "ledger"), filepath.Join(folder, "outgoing")
	address := freeAddress()

	placed := 0 // what the shop has said so far
	exchanges := &keeper{name: "exchange", args: func() []string { return []string{address, ledger} }}
	shops := &keeper{name: "shop", args: func() []string { return []string{"ws://" + address, outgoing, fmt.Sprint(placed)} }}
	shops.says = func(line string) {
		if _, err := fmt.Sscanf(line, "placed %d", &placed); err != nil {
			say("shop      %s", line)
		}
	}
	exchanges.start()
	shops.start()
	for n := range 6 {
		time.Sleep(time.Second)
		if n%2 == 0 {
			exchanges.kill()
		} else {
			shops.kill()
		}
	}
	shops.wait()
	exchanges.stop()
	check(ledger)
}

// check looks whether each order is in the ledger once, in order.
func check(ledger string) {
	text, err := os.ReadFile(ledger)
	if err != nil {
		log.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for n, line := range lines {
		if want := orderID(n + 1); line != want {
			log.Fatalf("the ledger has %s, want %s", line, want)
		}
	}
	if say("ledger    %d orders, each once, in order", len(lines)); len(lines) != orders {
		log.Fatalf("want %d", orders)
	}
}

func orderID(n int) string { return fmt.Sprintf("order-%d", n) }

func freeAddress() string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

var start = time.Now()

func say(format string, args ...any) {
	fmt.Printf("%5.2fs  %s\n", time.Since(start).Seconds(), fmt.Sprintf(format, args...))
}
