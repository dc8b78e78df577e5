// Resock-relay reads one WebSocket feed for several replicas, and writes it to a stream of
// NATS JetStream. See the README of the module, and resock-relay -help.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/relay"
	"github.com/resock/resock/relay/server"
)

// settings are what the flags say.
type settings struct {
	url                       string
	name, nats, store, listen string
	http                      string
	noSync                    bool
	ttl                       time.Duration
	replicas, standby         int
	maxAge                    time.Duration
	maxSize                   int64
	drop                      bool
	fields                    fields
	since                     string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "resock-relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if err != nil {
		return err
	}
	if s.http == "" {
		return s.run(ctx, relay.Run)
	}
	a, err := listen(s.http, s.name)
	if err != nil {
		return err
	}
	defer a.listener.Close()
	return s.run(ctx, a.run)
}

func parse(args []string) (*settings, error) {
	s := new(settings)
	flags := s.flags()
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() != 1 {
		return nil, errors.New("one URL is wanted, such as wss://example.com/push; see resock-relay -help")
	}
	if s.fields.seq == "" && (s.since != "" || s.fields.epoch != "" || s.fields.stream != "" || s.standby > 0) {
		return nil, errors.New("-since, -epoch, -stream and -standby need -seq")
	}
	s.url = flags.Arg(0)
	return s, nil
}

// run connects to NATS, and runs a relay there.
func (s *settings) run(ctx context.Context, relay func(context.Context, relay.Config) error) error {
	conn, stop, err := s.connect()
	if err != nil {
		return err
	}
	defer stop()
	return relay(ctx, s.config(conn))
}

func (s *settings) flags() *flag.FlagSet {
	f := flag.NewFlagSet("resock-relay", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: resock-relay [flags] URL\n\nReads a WebSocket feed into a stream of NATS JetStream.")
		f.PrintDefaults()
	}
	f.StringVar(&s.name, "name", "feed", "`NAME` of the stream; subjects are NAME.msg.TOPIC, NAME.gap, NAME.term")
	f.StringVar(&s.nats, "nats", "", "connect to the NATS servers at `URLS`; by default this process is one")
	f.StringVar(&s.store, "store", "resock-relay", "`DIR` of the streams of the server in this process; one process may use it at a time")
	f.StringVar(&s.listen, "listen", "127.0.0.1:4222", "`HOST:PORT` of the server in this process, or none")
	f.StringVar(&s.http, "http", "", "serve /metrics, /readyz, /livez and /debug/resock at `HOST:PORT`; by default nowhere")
	f.BoolVar(&s.noSync, "no-sync", false, "acknowledge what is not on disk yet (server in this process)")
	f.DurationVar(&s.ttl, "ttl", 10*time.Second, "how long the lease of a dead leader lasts")
	f.IntVar(&s.replicas, "replicas", 1, "keep the stream at `N` servers of a cluster")
	f.DurationVar(&s.maxAge, "max-age", 0, "remove messages from the stream when they are older; by default none")
	f.Int64Var(&s.maxSize, "max-size", 0, "remove the oldest messages when the stream has more than so many `BYTES`; by default none")
	f.IntVar(&s.standby, "standby", 0, "read along while standing by, and keep up to `N` messages, at times half as many; needs -seq")
	f.BoolVar(&s.drop, "drop", false, "while JetStream is slow drop messages, and say so by a gap; by default the feed waits")
	f.StringVar(&s.fields.topic, "topic", "", "`FIELD` that is the last part of the subject; by default that is \"all\"")
	f.StringVar(&s.fields.ack, "ack", "", "send what is published to NAME.out.> to the server of the feed, which acknowledges it by its id in `FIELD`")
	f.StringVar(&s.fields.seq, "seq", "", "`FIELD` of the sequence number, if messages are JSON objects")
	f.StringVar(&s.fields.epoch, "epoch", "", "`FIELD` of the epoch that the number belongs to")
	f.StringVar(&s.fields.stream, "stream", "", "`FIELD` of the stream that the number belongs to")
	f.StringVar(&s.since, "since", "", "`PARAMETER` of the URL that asks for what comes after a sequence number")
	return f
}

// connect connects to NATS: to that in this process, or elsewhere.
func (s *settings) connect() (conn *nats.Conn, stop func(), err error) {
	forever := []nats.Option{nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(250 * time.Millisecond)}
	if s.nats != "" {
		conn, err = nats.Connect(s.nats, forever...)
		if err != nil {
			return nil, nil, fmt.Errorf("-nats: %w", err)
		}
		return conn, conn.Close, nil
	}
	addr := s.listen
	if addr == "none" {
		addr = ""
	} else if _, _, err := net.SplitHostPort(addr); err != nil {
		return nil, nil, fmt.Errorf("-listen: %w", err)
	}
	own, err := server.Start(server.Config{Dir: s.store, Addr: addr, NoSync: s.noSync})
	if err != nil {
		return nil, nil, err
	}
	if conn, err = own.Connect(forever...); err != nil {
		own.Close()
		return nil, nil, err
	}
	return conn, func() { conn.Close(); own.Close() }, nil
}

func (s *settings) config(conn *nats.Conn) relay.Config {
	config := relay.Config{
		Conn: conn, Name: s.name, URL: s.url, TTL: s.ttl, Standby: s.standby,
		Stream: jetstream.StreamConfig{Replicas: s.replicas, MaxAge: s.maxAge, MaxBytes: s.maxSize},
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	if s.drop {
		config.Overflow = relay.Drop
	}
	if s.fields.seq != "" {
		config.Read = s.fields.read
	}
	if s.fields.topic != "" {
		config.Topic = s.fields.topicOf
	}
	if s.fields.ack != "" {
		config.Out = &relay.Out{Read: s.fields.acked}
	}
	if s.since != "" {
		config.Options = since(s.url, s.since)
	}
	return config
}
