package resume_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/resock/resock"
	"github.com/resock/resock/resocktest"
	"github.com/resock/resock/resume"
)

// The server numbers its messages, repeats those after a number, and has forgotten some.
func ExampleFeed() {
	server := resocktest.NewServer(nil)
	defer server.Close()
	server.Handle(func(conn *resocktest.Conn) {
		m, _ := conn.Read()
		after, _ := strconv.Atoi(string(m.Data))
		for n := after + 1; n <= after+2; n++ {
			_ = conn.Push(fmt.Sprintf(`{"seq":%d}`, n))
		}
		if after == 0 {
			conn.Drop()
		}
		_ = conn.Push(`{"seq":8}`)
	})
	ctx := context.Background()

	feed, err := resume.New(ctx, resume.Config{Read: func(m resock.MessageEvent, found *resume.Found) {
		var message struct{ Seq uint64 }
		if json.Unmarshal(m.Data, &message) == nil && message.Seq > 0 {
			found.Message(resume.Position{Seq: message.Seq}, m.Data)
		}
	}})
	if err != nil {
		panic(err)
	}
	client, err := resock.New(server.URL, resock.WithOnOpen(func(ctx context.Context, s *resock.Session) error {
		after := feed.Cursor("").Seq
		return s.Send(ctx, resock.MessageText, fmt.Append(nil, after))
	}))
	if err != nil {
		panic(err)
	}
	events, err := feed.Follow(ctx, client)
	if err != nil {
		panic(err)
	}
	go client.Run(ctx)

	for event := range events {
		switch e := event.(type) {
		case resume.Message:
			fmt.Printf("message %d: %s\n", e.Position.Seq, e.Data)
			_ = feed.Commit(e.Position)
			if e.Position.Seq == 8 {
				_ = client.Close(resock.StatusNormalClosure, "")
			}
		case resume.Gap:
			fmt.Printf("missing: %d to %d\n", e.From, e.To)
		}
	}
	// Output:
	// message 1: {"seq":1}
	// message 2: {"seq":2}
	// message 3: {"seq":3}
	// message 4: {"seq":4}
	// missing: 5 to 7
	// message 8: {"seq":8}
}
