// Move shows a server that asks its clients to move before it stops: the client opens the
// session on the other server while the old one still delivers, so that no push is late
// and none is lost. Both servers are part of the program.
//
//	go run ./examples/move
package main

import (
	"context"
	"log"
	"time"

	"github.com/resock/resock"
	"github.com/resock/resock/resume"
)

func main() {
	source := newSource()
	blue, green := newServer("blue", source), newServer("green", source)
	defer blue.stop()
	defer green.stop()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()

	m := &mover{}
	m.target.Store(&blue.url)
	client, feed := m.connect(ctx)
	events, err := feed.Follow(ctx, client)
	if err != nil {
		log.Fatal(err)
	}
	go client.Run(ctx)
	go func() {
		defer client.Close(resock.StatusNormalClosure, "")
		for n, from := range []*server{blue, green, blue} {
			time.Sleep(time.Second)
			to := []*server{green, blue, green}[n]
			say("%-6s asks its clients to move to %s", from.name, to.name)
			from.move(to.url)
		}
		time.Sleep(time.Second)
	}()

	last, longest, before := uint64(0), time.Duration(0), time.Now()
	var downtime time.Duration
	for event := range events {
		switch e := event.(type) {
		case resume.Message:
			if e.Position.Seq != last+1 && last > 0 {
				log.Fatalf("%d after %d", e.Position.Seq, last)
			}
			if last > 0 {
				longest = max(longest, time.Since(before))
			}
			last, before = e.Position.Seq, time.Now()
		case resume.Gap:
			log.Fatalf("%d to %d are missing", e.From, e.To)
		case resume.Lifecycle:
			downtime += report(e.Event, last)
		}
	}

	handovers := client.Stats().Handovers
	say("%d numbers, each once; the longest wait for one was %v", feed.Stats().Messages, longest.Round(time.Millisecond))
	if say("%d handovers, %v without a session", handovers, downtime); handovers != 3 || downtime != 0 {
		log.Fatal("want three handovers and no downtime")
	}
}
