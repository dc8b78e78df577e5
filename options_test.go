package resock_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/coder/websocket"
	"github.com/resock/resock"
)

func TestNewRejectsBadURLs(t *testing.T) {
	for _, url := range []string{
		"", "example.com", "/path", "http://example.com", "https://example.com", "ftp://example.com",
		"ws://", "wss://:443", "ws://example.com/#fragment", "ws://exa mple.com", "://", "\x00",
	} {
		client, err := resock.New(url)
		var option *resock.OptionError
		if client != nil || !errors.As(err, &option) || option.Option != "New" || option.Reason == "" {
			t.Errorf("New(%q) = %v, %v, want an OptionError", url, client, err)
		}
	}
	_, err := resock.New("http://user:secret@example.com/?token=secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad URL's error tells a secret: %v", err)
	}
	for _, url := range []string{"ws://example.com", "wss://example.com:8443/a/b?c=d", "ws://[::1]:80/"} {
		if _, err := resock.New(url); err != nil {
			t.Errorf("New(%q): %v", url, err)
		}
	}
}

func TestNewRejectsBadOptions(t *testing.T) {
	type opts = []resock.Option
	for _, tt := range []struct {
		option string
		value  any
		opts   opts
	}{
		{"WithDialTimeout", time.Duration(0), opts{resock.WithDialTimeout(0)}},
		{"WithDialTimeout", -time.Second, opts{resock.WithDialTimeout(-time.Second)}},
		{"WithWriteTimeout", time.Duration(0), opts{resock.WithWriteTimeout(0)}},
		{"WithCloseTimeout", -time.Second, opts{resock.WithCloseTimeout(-time.Second)}},
		{"WithBackoff", time.Duration(0), opts{resock.WithBackoff(0, time.Second)}},
		{"WithBackoff", time.Duration(0), opts{resock.WithBackoff(time.Second, 0)}},
		{"WithBackoff", time.Second, opts{resock.WithBackoff(time.Minute, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{resock.WithHeartbeat(-time.Second, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{resock.WithHeartbeat(time.Second, -time.Second)}},
		{"WithHeartbeat", time.Duration(0), opts{resock.WithHeartbeat(time.Second, 0)}},
		{"WithHeartbeatMessage", nil, opts{resock.WithHeartbeatMessage(nil)}},
		{"WithHeartbeatMessage", "func", opts{resock.WithHeartbeat(0, 0), resock.WithHeartbeatMessage(beat)}},
		{"WithIdleTimeout", -time.Second, opts{resock.WithIdleTimeout(-time.Second)}},
		{"WithStableAfter", -time.Second, opts{resock.WithStableAfter(-time.Second)}},
		{"WithMaxSessionAge", -time.Second, opts{resock.WithMaxSessionAge(-time.Second)}},
		{"WithMaxAttempts", int64(-1), opts{resock.WithMaxAttempts(-1)}},
		{"WithReadLimit", int64(0), opts{resock.WithReadLimit(0)}},
		{"WithReadLimit", int64(-1), opts{resock.WithReadLimit(-1)}},
		{"WithReadLimit", int64(math.MaxInt64), opts{resock.WithReadLimit(math.MaxInt64)}},
		{"WithQueue", int64(0), opts{resock.WithQueue(0, 1)}},
		{"WithQueue", int64(-1), opts{resock.WithQueue(1, -1)}},
		{"WithDialOptions", websocket.CompressionMode(9), opts{resock.WithDialOptions(&websocket.DialOptions{CompressionMode: 9})}},
		{"WithBackoffPolicy", nil, opts{resock.WithBackoffPolicy(nil)}},
		{"WithEndpoint", nil, opts{resock.WithEndpoint(nil)}},
		{"WithOnOpen", nil, opts{resock.WithOnOpen(nil)}},
		{"WithRetryPolicy", nil, opts{resock.WithRetryPolicy(nil)}},
		{"WithDialLimiter", nil, opts{resock.WithDialLimiter(nil)}},
		{"WithNetwork", nil, opts{resock.WithNetwork(nil)}},
		{"WithMessageHandler", nil, opts{resock.WithMessageHandler(nil)}},
		{"WithSendLimiter", nil, opts{resock.WithSendLimiter(nil)}},
		{"WithFilter", nil, opts{resock.WithFilter(nil), resock.WithFilter(func(context.Context, resock.MessageEvent) bool { return true })}},
		{"Option", nil, opts{nil}},
	} {
		client, err := resock.New("ws://example.com", tt.opts...)
		var option *resock.OptionError
		if client != nil || !errors.As(err, &option) {
			t.Errorf("%s(%v): %v, %v, want an OptionError", tt.option, tt.value, client, err)
			continue
		}
		if option.Option != tt.option || option.Value != tt.value {
			t.Errorf("%s(%v): the error names %s(%v)", tt.option, tt.value, option.Option, option.Value)
		}
		if text := err.Error(); !strings.Contains(text, tt.option) || !strings.Contains(text, fmt.Sprint(tt.value)) {
			t.Errorf("%s(%v): the text %q does not name both", tt.option, tt.value, text)
		}
	}
}

func beat() (resock.MessageType, []byte) { return resock.MessageText, []byte("beat") }

func TestNewAcceptsZeros(t *testing.T) {
	client, err := resock.New("ws://example.com",
		resock.WithHeartbeat(-1, -1), // the last one wins
		resock.WithHeartbeat(0, 0),
		resock.WithEndpoint(nil),
		resock.WithEndpoint(func(context.Context, resock.Attempt) (resock.Endpoint, error) { return resock.Endpoint{}, nil }),
		resock.WithIdleTimeout(0),
		resock.WithMaxAttempts(0),
		resock.WithStableAfter(0),
		resock.WithMaxSessionAge(0),
		resock.WithDialOptions(nil),
		resock.WithLogger(nil),
		resock.WithBackoffPolicy(func() backoff.BackOff { return &backoff.ZeroBackOff{} }),
	)
	if err != nil || client.State() != resock.StateIdle {
		t.Errorf("New: %v, %v", client, err)
	}
	if _, err := resock.New("ws://example.com", resock.WithHeartbeat(time.Second, 0), resock.WithHeartbeatMessage(beat)); err != nil {
		t.Errorf("a heartbeat message without an answer: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	client, err := resock.New("ws://example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []resock.StatusCode{-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
		var option *resock.OptionError
		if err := client.Close(code, ""); !errors.As(err, &option) || option.Value != int(code) {
			t.Errorf("Close(%d): %v, want an OptionError that names the code", code, err)
		}
	}
	if client.State() != resock.StateIdle {
		t.Errorf("a rejected Close left the client %v", client.State())
	}
	for _, typ := range []resock.MessageType{-1, 0, 3, 8, 9} {
		for name, err := range map[string]error{
			"Send":    client.Send(context.Background(), typ, nil),
			"Enqueue": client.Enqueue(typ, nil, resock.WithResult(func(error) { t.Error("a rejected message has a result") })),
		} {
			var option *resock.OptionError
			if !errors.Is(err, resock.ErrNotSent) || !errors.As(err, &option) || option.Option != name || option.Value != int(typ) {
				t.Errorf("%s of type %d: %v", name, typ, err)
			}
		}
	}
	if err := client.Enqueue(resock.MessageText, []byte("\xff")); !errors.Is(err, resock.ErrNotSent) {
		t.Errorf("Enqueue of text that is not UTF-8: %v", err)
	}
	var option *resock.OptionError
	if err := client.Enqueue(resock.MessageText, nil, resock.WithTTL(0)); !errors.As(err, &option) || option.Option != "WithTTL" {
		t.Errorf("Enqueue with a TTL of 0: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Send(ctx, resock.MessageText, nil); !errors.Is(err, resock.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a context that has ended: %v", err)
	}
	if stats := client.Stats(); stats.Queued != 0 || stats.QueuedBytes != 0 {
		t.Errorf("rejected messages are queued: %+v", stats)
	}
}

func TestRunRejectsAPolicyThatIsNil(t *testing.T) {
	client, err := resock.New("ws://127.0.0.1:1", resock.WithBackoffPolicy(func() backoff.BackOff { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	var option *resock.OptionError
	if err := client.Run(context.Background()); !errors.As(err, &option) || option.Option != "WithBackoffPolicy" {
		t.Errorf("Run: %v, want an OptionError", err)
	}
}
