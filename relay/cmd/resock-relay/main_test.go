package main

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/resock/resock/relay/internal/feed"
	"github.com/resock/resock/relay/server"
)

// TestRun runs the program beside a server of NATS, and reads what it writes.
func TestRun(t *testing.T) {
	own, err := server.Start(server.Config{Dir: t.TempDir(), Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(own.Close)
	f := feed.New("e")
	upstream := httptest.NewServer(f)
	t.Cleanup(upstream.Close)
	t.Cleanup(f.Cut)
	f.Push(10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	url := "ws" + strings.TrimPrefix(upstream.URL, "http") + "?since=0"
	go func() {
		ended <- run(ctx, []string{"-nats", own.URL(), "-seq", "seq", "-epoch", "epoch", "-since", "since", "-ttl", "1s",
			"-max-age", "1h", "-max-size", "1000000", url})
	}()
	conn, err := nats.Connect(own.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	if seq := seqOf(t, conn, "feed.msg.all"); seq != 10 {
		t.Errorf("the last message is %d", seq)
	}
	if c := configOf(t, conn); c.MaxAge != time.Hour || c.MaxBytes != 1_000_000 {
		t.Errorf("the stream keeps %v, %d bytes", c.MaxAge, c.MaxBytes)
	}
	cancel()
	if err := <-ended; err != context.Canceled {
		t.Errorf("ended by %v", err)
	}
}

// configOf returns the configuration of the stream.
func configOf(t *testing.T, conn *nats.Conn) jetstream.StreamConfig {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "feed")
	if err != nil {
		t.Fatal(err)
	}
	return stream.CachedInfo().Config
}

// seqOf waits for the tenth message of a subject, and returns its sequence in the feed.
func seqOf(t *testing.T, conn *nats.Conn, subject string) uint64 {
	t.Helper()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	for range ticks.C {
		stream, err := js.Stream(t.Context(), "feed")
		if err != nil || stream.CachedInfo().State.Msgs < 11 {
			continue
		}
		last, err := stream.GetLastMsgForSubject(t.Context(), subject)
		if err != nil {
			t.Fatal(err)
		}
		var m feed.Message
		if err := json.Unmarshal(last.Data, &m); err != nil {
			t.Fatal(err)
		}
		return m.Seq
	}
	return 0
}

// TestRetention has the limits of the stream from the command line.
func TestRetention(t *testing.T) {
	s, err := parse([]string{"-max-age", "24h", "-max-size", "1000000", "ws://a"})
	if err != nil {
		t.Fatal(err)
	}
	if stream := s.config(nil).Stream; stream.MaxAge != 24*time.Hour || stream.MaxBytes != 1_000_000 {
		t.Errorf("the stream has %v and %d bytes", stream.MaxAge, stream.MaxBytes)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{}, {"-unknown"}, {"ws://a", "ws://b"}, {"-listen", "nowhere", "ws://a"}, {"-http", "nowhere", "ws://a"},
		{"-since", "since", "ws://a"}, {"-epoch", "epoch", "ws://a"}, {"-stream", "stream", "ws://a"}, {"-standby", "9", "ws://a"},
	} {
		if err := run(t.Context(), args); err == nil {
			t.Errorf("%q is not refused", args)
		}
	}
}
