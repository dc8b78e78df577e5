package resock

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
)

func TestNewRejectsBadURLs(t *testing.T) {
	for _, url := range []string{
		"", "example.com", "/path", "http://example.com", "https://example.com", "ftp://example.com",
		"ws://", "wss://:443", "ws://example.com/#fragment", "ws://exa mple.com", "://", "\x00",
	} {
		client, err := New(url)
		var option *OptionError
		if client != nil || !errors.As(err, &option) || option.Option != "New" || option.Reason == "" {
			t.Errorf("New(%q) = %v, %v, want an OptionError", url, client, err)
		}
	}
	_, err := New("http://user:secret@example.com/?token=secret")
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a bad URL's error tells a secret: %v", err)
	}
	for _, url := range []string{"ws://example.com", "wss://example.com:8443/a/b?c=d", "ws://[::1]:80/"} {
		if _, err := New(url); err != nil {
			t.Errorf("New(%q): %v", url, err)
		}
	}
}

func TestNewRejectsBadOptions(t *testing.T) {
	type opts = []Option
	for _, tt := range []struct {
		option string
		value  any
		opts   opts
	}{
		{"WithDialTimeout", time.Duration(0), opts{WithDialTimeout(0)}},
		{"WithDialTimeout", -time.Second, opts{WithDialTimeout(-time.Second)}},
		{"WithWriteTimeout", time.Duration(0), opts{WithWriteTimeout(0)}},
		{"WithCloseTimeout", -time.Second, opts{WithCloseTimeout(-time.Second)}},
		{"WithBackoff", time.Duration(0), opts{WithBackoff(0, time.Second)}},
		{"WithBackoff", time.Duration(0), opts{WithBackoff(time.Second, 0)}},
		{"WithBackoff", time.Second, opts{WithBackoff(time.Minute, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{WithHeartbeat(-time.Second, time.Second)}},
		{"WithHeartbeat", -time.Second, opts{WithHeartbeat(time.Second, -time.Second)}},
		{"WithHeartbeat", time.Duration(0), opts{WithHeartbeat(time.Second, 0)}},
		{"WithHeartbeatMessage", nil, opts{WithHeartbeatMessage(nil)}},
		{"WithHeartbeatMessage", "func", opts{WithHeartbeat(0, 0), WithHeartbeatMessage(beat)}},
		{"WithIdleTimeout", -time.Second, opts{WithIdleTimeout(-time.Second)}},
		{"WithStableAfter", -time.Second, opts{WithStableAfter(-time.Second)}},
		{"WithMaxSessionAge", -time.Second, opts{WithMaxSessionAge(-time.Second)}},
		{"WithMaxAttempts", int64(-1), opts{WithMaxAttempts(-1)}},
		{"WithReadLimit", int64(0), opts{WithReadLimit(0)}},
		{"WithReadLimit", int64(-1), opts{WithReadLimit(-1)}},
		{"WithReadLimit", int64(math.MaxInt64), opts{WithReadLimit(math.MaxInt64)}},
		{"WithQueue", int64(0), opts{WithQueue(0, 1)}},
		{"WithQueue", int64(-1), opts{WithQueue(1, -1)}},
		{"WithDialOptions", websocket.CompressionMode(9), opts{WithDialOptions(&websocket.DialOptions{CompressionMode: 9})}},
		{"WithBackoffPolicy", nil, opts{WithBackoffPolicy(nil)}},
		{"WithEndpoint", nil, opts{WithEndpoint(nil)}},
		{"WithOnOpen", nil, opts{WithOnOpen(nil)}},
		{"WithRetryPolicy", nil, opts{WithRetryPolicy(nil)}},
		{"WithDialLimiter", nil, opts{WithDialLimiter(nil)}},
		{"WithNetwork", nil, opts{WithNetwork(nil)}},
		{"WithMessageHandler", nil, opts{WithMessageHandler(nil)}},
		{"WithSendLimiter", nil, opts{WithSendLimiter(nil)}},
		{"WithFilter", nil, opts{WithFilter(nil), WithFilter(func(context.Context, MessageEvent) bool { return true })}},
		{"Option", nil, opts{nil}},
	} {
		client, err := New("ws://example.com", tt.opts...)
		var option *OptionError
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

func beat() (MessageType, []byte) { return MessageText, []byte("beat") }

func TestNewAcceptsZeros(t *testing.T) {
	client, err := New("ws://example.com",
		WithHeartbeat(-1, -1), // the last one wins
		WithHeartbeat(0, 0),
		WithEndpoint(nil),
		WithEndpoint(func(context.Context, Attempt) (Endpoint, error) { return Endpoint{}, nil }),
		WithIdleTimeout(0),
		WithMaxAttempts(0),
		WithStableAfter(0),
		WithMaxSessionAge(0),
		WithDialOptions(nil),
		WithLogger(nil),
		WithBackoffPolicy(func() backoff.BackOff { return &backoff.ZeroBackOff{} }),
	)
	if err != nil || client.State() != StateIdle {
		t.Errorf("New: %v, %v", client, err)
	}
	if _, err := New("ws://example.com", WithHeartbeat(time.Second, 0), WithHeartbeatMessage(beat)); err != nil {
		t.Errorf("a heartbeat message without an answer: %v", err)
	}
}

func TestBadArguments(t *testing.T) {
	client, err := New("ws://example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range []StatusCode{-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000} {
		var option *OptionError
		if err := client.Close(code, ""); !errors.As(err, &option) || option.Value != int(code) {
			t.Errorf("Close(%d): %v, want an OptionError that names the code", code, err)
		}
	}
	if client.State() != StateIdle {
		t.Errorf("a rejected Close left the client %v", client.State())
	}
	for _, typ := range []MessageType{-1, 0, 3, 8, 9} {
		for name, err := range map[string]error{
			"Send":    client.Send(context.Background(), typ, nil),
			"Enqueue": client.Enqueue(typ, nil, WithResult(func(error) { t.Error("a rejected message has a result") })),
		} {
			var option *OptionError
			if !errors.Is(err, ErrNotSent) || !errors.As(err, &option) || option.Option != name || option.Value != int(typ) {
				t.Errorf("%s of type %d: %v", name, typ, err)
			}
		}
	}
	if err := client.Enqueue(MessageText, []byte("\xff")); !errors.Is(err, ErrNotSent) {
		t.Errorf("Enqueue of text that is not UTF-8: %v", err)
	}
	var option *OptionError
	if err := client.Enqueue(MessageText, nil, WithTTL(0)); !errors.As(err, &option) || option.Option != "WithTTL" {
		t.Errorf("Enqueue with a TTL of 0: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := client.Send(ctx, MessageText, nil); !errors.Is(err, ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Errorf("Send with a context that has ended: %v", err)
	}
	if stats := client.Stats(); stats.Queued != 0 || stats.QueuedBytes != 0 {
		t.Errorf("rejected messages are queued: %+v", stats)
	}
}

func TestRunRejectsAPolicyThatIsNil(t *testing.T) {
	client, err := New("ws://127.0.0.1:1", WithBackoffPolicy(func() backoff.BackOff { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	var option *OptionError
	if err := client.Run(context.Background()); !errors.As(err, &option) || option.Option != "WithBackoffPolicy" {
		t.Errorf("Run: %v, want an OptionError", err)
	}
}

// FuzzOptions: New returns a client or an OptionError, and a client that it
// returns can be closed.
func FuzzOptions(f *testing.F) {
	f.Add("ws://server.test", []byte{})
	f.Add("wss://user:secret@server.test:1/path?token=1", []byte{0, 10, 1, 20, 2, 30})
	f.Add("http://server.test", []byte{255})
	f.Add("ws://[::1%25eth0]:x#fragment", []byte{7, 0})
	for i := range byte(40) {
		f.Add("ws://server.test", []byte{i, 0, i, 3, i, 6})
	}
	f.Fuzz(func(t *testing.T, url string, choices []byte) {
		var opts []Option
		for ; len(choices) >= 2; choices = choices[2:] {
			opts = append(opts, anyOption(choices[0], choices[1]))
		}
		client, err := New(url, opts...)
		var bad *OptionError
		switch {
		case err == nil && client == nil, err != nil && client != nil:
			t.Fatalf("got %v and %v", client, err)
		case err != nil:
			if !errors.As(err, &bad) || bad.Option == "" || bad.Reason == "" {
				t.Errorf("got %v", err)
			}
			return
		}
		_ = client.Stats()
		if err := client.Close(StatusNormalClosure, url); err != nil {
			t.Error(err)
		}
		<-client.Done()
	})
}

// anyOption returns the option of that number, with a value that may be
// anything.
func anyOption(number, value byte) Option {
	d := []time.Duration{0, 1, -1, time.Second, time.Hour, 1<<63 - 1, -1 << 63}[value%7]
	n := []int{0, 1, -1, 100, math.MaxInt, math.MinInt}[value%6]
	isNil := value%2 == 0
	switch number % 22 {
	case 0:
		return WithDialTimeout(d)
	case 1:
		return WithHeartbeat(d, time.Second)
	case 2:
		return WithHeartbeat(time.Second, d)
	case 3:
		return WithIdleTimeout(d)
	case 4:
		return WithBackoff(d, time.Hour)
	case 5:
		return WithBackoff(1, d)
	case 6:
		return WithMaxAttempts(n)
	case 7:
		return WithStableAfter(d)
	case 8:
		return WithReadLimit(int64(n))
	case 9:
		return WithWriteTimeout(d)
	case 10:
		return WithQueue(n, 100)
	case 11:
		return WithQueue(100, n)
	case 12:
		return WithCloseTimeout(d)
	case 13:
		return WithMaxSessionAge(d)
	case 14:
		if isNil {
			return WithDialOptions(nil)
		}
		return WithDialOptions(&websocket.DialOptions{CompressionMode: websocket.CompressionMode(value), CompressionThreshold: n})
	case 15:
		return WithLogger(nil)
	case 16:
		if isNil {
			return WithMessageHandler(nil)
		}
		return WithMessageHandler(func(context.Context, MessageEvent) {})
	case 17:
		if isNil {
			return WithEndpoint(nil)
		}
		return WithEndpoint(func(context.Context, Attempt) (Endpoint, error) { return Endpoint{}, nil })
	case 18:
		if isNil {
			return WithBackoffPolicy(nil)
		}
		return WithBackoffPolicy(func() backoff.BackOff { return nil })
	case 19:
		if isNil {
			return WithHeartbeatMessage(nil)
		}
		return WithHeartbeatMessage(func() (MessageType, []byte) { return 0, nil })
	case 20:
		return []Option{WithOnOpen(nil), WithRetryPolicy(nil), WithDialLimiter(nil), WithNetwork(nil)}[value%4]
	}
	return nil
}
