// Typed shows JSON messages as values of Go types: a router hands each message to the
// function for its topic, and what it cannot hand over is an error that names the topic,
// and costs neither the connection nor the next message. The server is part of the program.
//
//	go run ./examples/typed
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/resock/resock"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

// desk trades. Its methods are called one after the other, by the loop in run.
type desk struct {
	client *resock.Client
	got    tally
}

// tally is how many messages there were of each kind.
type tally struct{ trades, fills, markets, unknown, malformed, failed int }

func run(ctx context.Context) error {
	server := startServer()
	defer server.Close()
	client, err := resock.New("ws://" + server.Listener.Addr().String())
	if err != nil {
		return err
	}
	d := &desk{client: client}
	topics := router{}
	handle(topics, "trade", d.trade)
	handle(topics, "fill", d.fill)
	handle(topics, "market", d.market)

	messages := client.Messages(ctx)
	go client.Run(ctx) // its error stays readable in client.Err()
	for m := range messages {
		d.note(topics.route(ctx, m.Data))
	}
	if want := (tally{trades: 3, fills: 1, markets: 2, unknown: 1, malformed: 2, failed: 1}); d.got != want {
		return fmt.Errorf("got %+v instead of %+v", d.got, want)
	}
	return client.Err()
}

func (d *desk) trade(ctx context.Context, t trade) error {
	if t.Price <= 0 { // also if the message has none
		return fmt.Errorf("%s has the price %v", t.Symbol, t.Price)
	}
	d.got.trades++
	say("trade", "%d %s for %.2f", t.Size, t.Symbol, t.Price)
	if t.Price < 100 {
		return send(d.client, "order", order{Symbol: t.Symbol, Limit: t.Price})
	}
	return nil
}

func (d *desk) fill(ctx context.Context, o order) error {
	d.got.fills++
	say("fill", "bought %s at %.2f", o.Symbol, o.Limit)
	return nil
}

// market ends the program when the market closes.
func (d *desk) market(ctx context.Context, m market) error {
	d.got.markets++
	say("market", "open: %t", m.Open)
	if m.Open {
		return nil
	}
	return d.client.Close(resock.StatusNormalClosure, "the market is closed")
}

// note notes what could not be handed over. A topic that is unknown is no fault: the server
// may be newer than this program.
func (d *desk) note(err error) {
	switch {
	case err == nil:
		return
	case errors.Is(err, errUnknownTopic):
		d.got.unknown++
	case errors.Is(err, errMalformed):
		d.got.malformed++
	default:
		d.got.failed++
	}
	say("error", "%v", err)
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-6s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
