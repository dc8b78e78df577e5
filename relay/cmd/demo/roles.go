package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/resume"
)

// ttl is how long the lease of a dead leader lasts.
const ttl = 2 * time.Second

func connect(url string) (*nats.Conn, error) {
	return nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
}

// runRelay is one relay. It says when it leads.
func runRelay(ctx context.Context, natsURL, url string) error {
	conn, err := connect(natsURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	options := feed.Options(url)
	return relay.Run(ctx, relay.Config{
		Conn: conn, Name: "demo", URL: url, TTL: ttl, Read: feed.Read,
		Options: func(f *resume.Feed) []resock.Option {
			return append(options(f), resock.WithBackoff(50*time.Millisecond, time.Second))
		},
		Log: slog.New(slog.NewTextHandler(leading{}, nil)),
	})
}

// leading prints the log where it says that the relay leads.
type leading struct{}

func (leading) Write(line []byte) (int, error) {
	if _, term, ok := strings.Cut(string(line), "msg=leading term="); ok {
		fmt.Fprint(os.Stdout, "leading ", term)
	}
	return len(line), nil
}

// runWorker handles messages: it prints their number. Both workers share a consumer, so
// what one had in hand when it was killed goes to the other.
func runWorker(ctx context.Context, natsURL string) error {
	conn, err := connect(natsURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	consumer, err := js.CreateOrUpdateConsumer(ctx, "demo", jetstream.ConsumerConfig{
		Durable: "workers", FilterSubject: "demo.msg.>", AckPolicy: jetstream.AckExplicitPolicy, AckWait: 2 * time.Second,
	})
	if err != nil {
		return nil // there is no stream yet: this process is started again
	}
	messages, err := consumer.Messages()
	if err != nil {
		return err
	}
	for {
		m, err := messages.Next(jetstream.NextContext(ctx))
		if err != nil {
			return err
		}
		var tick feed.Message
		if err := json.Unmarshal(m.Data(), &tick); err == nil {
			fmt.Println(tick.Seq)
		}
		if err := m.Ack(); err != nil {
			return err
		}
	}
}
