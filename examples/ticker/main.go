// Ticker follows the prices of an exchange with package resume, and draws them, a line each
// second. The connection is cut, the exchange is away for a while, and the program is
// stopped and run again: each price comes once, or is named in a gap. The exchange is part
// of the program.
//
//	go run ./examples/ticker
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/resock/resock/resume"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	folder, err := os.MkdirTemp("", "ticker")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	server := startServer()
	defer server.stop()
	t := &ticker{url: server.url, cursors: filepath.Join(folder, "cursors"), screen: newScreen(), ledger: &ledger{}}
	drawing, done := context.WithCancel(ctx)
	go t.screen.draw(drawing)
	defer done()
	if err := morning(ctx, server, t); err != nil {
		return err
	}
	if err := afternoon(ctx, server, t); err != nil {
		return err
	}
	done()
	return audit(server, t.ledger)
}

// morning has a hole in the feed and a short cut, and then the program is stopped.
func morning(ctx context.Context, server *server, t *ticker) error {
	stop, ended := t.start(ctx)
	time.Sleep(1200 * time.Millisecond)
	say("server", "three prices of oil are lost in the exchange")
	server.hide(3)
	time.Sleep(1500 * time.Millisecond)
	say("server", "cuts the connection")
	server.drop()
	time.Sleep(1500 * time.Millisecond)
	say("story", "the program is stopped")
	stop()
	return <-ended
}

// afternoon begins with another run of the program, and has a long outage.
func afternoon(ctx context.Context, server *server, t *ticker) error {
	time.Sleep(700 * time.Millisecond)
	say("story", "the program runs again, and has the cursors in a file")
	_, ended := t.start(ctx)
	time.Sleep(1200 * time.Millisecond)
	say("server", "is away until it has forgotten 15 prices of gold")
	server.outage(15)
	say("server", "is back")
	time.Sleep(1600 * time.Millisecond)
	say("server", "cuts the connection")
	server.drop()
	time.Sleep(1200 * time.Millisecond)
	say("server", "the exchange closes")
	server.bell()
	return <-ended
}

// audit compares what the program got with what the exchange had, and fails unless there
// were a hole, a lost cursor, prices that came again, and symbols that went on without a gap.
func audit(server *server, l *ledger) error {
	reasons := make(map[resume.Reason]bool)
	for _, gap := range l.gaps {
		reasons[gap.Reason] = true
		say("audit", "gap: %s %d to %d, %v", gap.Stream, gap.From, gap.To, gap.Reason)
	}
	for _, symbol := range server.market {
		delivered, missing, err := l.check(symbol)
		if err != nil {
			return err
		}
		say("audit", "%s: %d prices, %d delivered once, %d named in gaps", symbol.name, len(symbol.prices), delivered, missing)
	}
	say("audit", "%d prices came again and were dropped", l.repeated)
	say("audit", "a symbol went on without a gap %d times", server.whole)
	if !reasons[resume.Hole] || !reasons[resume.CursorLost] || l.repeated == 0 || server.whole == 0 {
		return errors.New("not all of that was to be seen")
	}
	return nil
}

var began = time.Now()

// say prints one line: the time, who, and what.
func say(who, format string, args ...any) {
	fmt.Printf("%5.2fs  %-6s  %s\n", time.Since(began).Seconds(), who, fmt.Sprintf(format, args...))
}
