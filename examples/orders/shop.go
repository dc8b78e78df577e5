package main

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"strings"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/call"
	"github.com/resock/resock/outbox"
	"github.com/resock/resock/outbox/journal"
)

// shop places the orders after the ones that were placed, and ends when the exchange has
// acknowledged all.
func shop(url, folder, placed string) {
	store, err := journal.Open(folder, journal.Config{})
	if err != nil {
		log.Fatal(err)
	}
	box, err := outbox.Open(outbox.Config{Store: store, Read: receipts, Done: func(r outbox.Result) {
		if r.Err != nil {
			log.Fatalf("%s: %v", r.ID, r.Err)
		}
	}})
	if err != nil {
		log.Fatal(err)
	}
	calls := call.New(answers)
	client, err := resock.New(url, resock.WithFilter(calls.Filter), resock.WithFilter(box.Filter),
		resock.WithBackoff(20*time.Millisecond, 200*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	if err := calls.Bind(client); err != nil {
		log.Fatal(err)
	}
	if err := box.Bind(client); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	go client.Run(ctx)

	left, _ := store.Len()
	last, _ := strconv.Atoi(placed)
	fmt.Printf("begins after order %d, and finds %d in its journal\n", last, left)
	for n := last + 1; n <= orders; n++ {
		time.Sleep(10 * time.Millisecond)
		if n%50 == 0 {
			ask(ctx, calls, n)
		}
		// After a kill an order may be placed that nobody was told of. It is placed
		// again, with the same id: the exchange knows.
		if err := box.Put(ctx, orderID(n), resock.MessageText, []byte("order "+orderID(n))); err != nil {
			log.Fatal(err)
		}
		fmt.Println("placed", n)
	}
	if err := box.Flush(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("has placed all; %d were sent again by this process\n", box.Stats().Resent)
	_ = client.Close(resock.StatusNormalClosure, "")
	<-client.Done()
	if err := box.Close(); err != nil {
		log.Fatal(err)
	}
}

// ask asks for a price. A call is made once: if the exchange is killed, nobody knows
// whether it was heard.
func ask(ctx context.Context, calls *call.Calls, n int) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	id := strconv.Itoa(n)
	answer, err := calls.Do(ctx, id, resock.MessageText, []byte("price "+id))
	if err != nil {
		fmt.Println("asks for a price:", err)
		return
	}
	fmt.Printf("asks for a price: %s\n", answer.Data)
}

// receipts reads "ack order-7".
func receipts(m resock.MessageEvent, found *outbox.Found) (pass bool) {
	id, ok := strings.CutPrefix(string(m.Data), "ack ")
	if ok {
		found.Acked(id)
	}
	return !ok
}

// answers reads "price 7 is 42".
func answers(m resock.MessageEvent) (id string, ok bool) {
	rest, ok := strings.CutPrefix(string(m.Data), "price ")
	id, _, _ = strings.Cut(rest, " ")
	return id, ok
}
