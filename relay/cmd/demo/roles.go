//go:build unix

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock"
	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
	"github.com/resock/resock/resume"
)

// roleVariable is the variable of the environment that names the role of a process; it is
// not set in the process that starts the others.
const roleVariable = "RELAY_DEMO_ROLE"

// play plays a role until the process ends, and returns its exit code.
func play(role string, args []string) int {
	if err := tryPlay(role, args); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 1
	}
	return 0
}

func tryPlay(role string, args []string) error {
	if role == "waker" {
		return wake(args[0])
	}
	go endWithParent()
	c, rest, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	switch role {
	case "nats":
		return runNATS(ctx, rest[0], rest[1])
	case "relay":
		return runRelay(ctx, c, rest[0], rest[1])
	case "worker":
		return runWorker(ctx, rest[0])
	}
	return fmt.Errorf("there is no role %q", role)
}

// endedWithParent is the exit code of a process whose parent has ended.
const endedWithParent = 3

// endWithParent ends the process when the one that started it is gone, however that ended:
// then the pipe at stdin has no writer any more.
func endWithParent() {
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(endedWithParent)
}

// wake continues a stopped process when stdin ends, so that none stays stopped for ever when
// the parent is killed.
func wake(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return syscall.Kill(n, syscall.SIGCONT)
}

// runNATS is the server of NATS. It says when it is ready, and ends in order by SIGTERM.
func runNATS(ctx context.Context, dir, addr string) error {
	s, err := server.Start(server.Config{Dir: dir, Addr: addr})
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Println("ready")
	<-ctx.Done()
	return nil
}

func connect(url string) (*nats.Conn, error) {
	return nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond), nats.RetryOnFailedConnect(true))
}

// runRelay is one relay.
func runRelay(ctx context.Context, c config, natsURL, url string) error {
	conn, err := connect(natsURL)
	if err != nil {
		return err
	}
	defer conn.Close()
	with := relay.Config{
		Conn: conn, Name: "demo", URL: url, TTL: c.ttl, Standby: c.standby,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if c.resume {
		with.Read = feed.Read
	}
	with.Options = func(f *resume.Feed) []resock.Option {
		options := []resock.Option{resock.WithBackoff(50*time.Millisecond, time.Second)}
		if c.resume {
			options = append(options, feed.Options(url)(f)...)
		}
		return options
	}
	r, err := relay.New(with)
	if err != nil {
		return err
	}
	go tellLeading(ctx, r)
	return r.Run(ctx)
}

// tellLeading says "leading TERM" when the relay begins to lead, and "over TERM" when it
// does no more.
func tellLeading(ctx context.Context, r *relay.Relay) {
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	leads := uint64(0)
	for {
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
		s := r.Stats()
		if leads > 0 && (!s.Leading || s.Term != leads) {
			fmt.Println("over", leads)
			leads = 0
		}
		if s.Leading && leads == 0 {
			fmt.Println("leading", s.Term)
			leads = s.Term
		}
	}
}

// runWorker handles messages: it prints their number. All workers share a consumer, so what
// one had in hand when it was killed goes to another. If NATS is not there, or the stream
// is not, this process ends and is started again.
func runWorker(ctx context.Context, natsURL string) error {
	conn, err := nats.Connect(natsURL)
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
		return err
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
